package main

import (
	"flag"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// dnsCall asks for exactly the name that is given: no search list. It prints the code and flags, then the records.
func dnsCall(args []string) error {
	fs := flag.NewFlagSet("dns", flag.ExitOnError)
	server := fs.String("server", "", "ADDRESS[:PORT]; default the pod's")
	tcp := fs.Bool("tcp", false, "ask over TCP")
	size := fs.Uint("size", 1232, "the EDNS0 payload size; 0: no EDNS0")
	if err := fs.Parse(args); err != nil {
		return err
	}
	kind, ok := dns.StringToType[strings.ToUpper(fs.Arg(1))]
	if !ok {
		return fmt.Errorf("%q is no type", fs.Arg(1))
	}
	at := *server
	if at == "" {
		c, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return err
		}
		if len(c.Servers) == 0 {
			return fmt.Errorf("/etc/resolv.conf names no server")
		}
		at = net.JoinHostPort(c.Servers[0], c.Port)
	} else if _, _, err := net.SplitHostPort(at); err != nil {
		at = net.JoinHostPort(at, "53")
	}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(fs.Arg(0)), kind)
	if *size > 0 {
		q.SetEdns0(uint16(*size), false)
	}
	c := &dns.Client{Timeout: dialWait, Net: "udp"}
	if *tcp {
		c.Net = "tcp"
	}
	a, _, err := c.Exchange(q, at)
	if err != nil {
		return err
	}
	fmt.Printf("%s aa=%t tc=%t\n", dns.RcodeToString[a.Rcode], a.Authoritative, a.Truncated)
	for _, r := range a.Answer {
		fmt.Println(strings.Join(strings.Fields(r.String()), " "))
	}
	if o := a.IsEdns0(); o != nil {
		for _, x := range o.Option {
			if e, ok := x.(*dns.EDNS0_EDE); ok {
				fmt.Printf("ede %d %s\n", e.InfoCode, e.ExtraText)
			}
		}
	}
	return nil
}

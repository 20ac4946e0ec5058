// Command tools is what tests run in pods: one server of many protocols, and a client for each.
//
//	tools serve [-name NAME]           all servers, below
//	tools get [-h2] [-H K:V] [-timeout D] URL      the status and the body
//	tools load [-for D] [-clients N] [-h2] URL     requests one after the other by N clients; counts, as JSON
//	tools keep [-for D] [-clients N] [-pause D] URL     connections that stay open, with a request now and then; how they fared, as JSON
//	tools grpc ADDR TEXT               unary call of tools.Echo/Echo, then the standard health check
//	tools chat ADDR COUNT              gRPC: messages in one stream, each after the answer to the one before
//	tools ws URL TEXT                  WebSocket: one message there and back
//	tools tcp ADDR TEXT                raw TCP: one line there and back
//	tools udp ADDR TEXT
//	tools greet ADDR                   server-first: prints what the server says before it is asked
//	tools half-close ADDR BYTES        sends, closes its half, and compares the SHA-256 that comes back
//	tools bulk ADDR BYTES              receives, and compares the SHA-256
//	tools dns [-server ADDR] [-tcp] NAME TYPE      the answer's code, flags and records, unsorted
//	tools resolve NAME                 through the pod's resolv.conf, as applications do
//	tools cat FILE
//	tools remove PATH                  a file, or a folder with all that is in it
//	tools sleep [D]                    until D has passed, or for ever; ends at SIGTERM
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"
)

type command struct {
	args int // at least
	run  func(args []string) error
}

var commands = map[string]command{
	"serve":      {0, serve},
	"get":        {1, get},
	"load":       {1, load},
	"keep":       {1, keep},
	"grpc":       {2, grpcCall},
	"chat":       {2, chatCall},
	"ws":         {2, wsCall},
	"tcp":        {2, tcpCall},
	"udp":        {2, udpCall},
	"greet":      {1, greetCall},
	"half-close": {2, halfCloseCall},
	"bulk":       {2, bulkCall},
	"dns":        {2, dnsCall},
	"resolve":    {1, resolve},
	"cat":        {1, cat},
	"remove":     {1, func(args []string) error { return os.RemoveAll(args[0]) }},
	"sleep":      {0, sleep},
}

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	c, ok := commands[os.Args[1]]
	if !ok || len(os.Args)-2 < c.args {
		usage()
	}
	if err := c.run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
}

func usage() {
	names := make([]string, 0, len(commands))
	for n := range commands {
		names = append(names, n)
	}
	sort.Strings(names)
	fmt.Fprintln(os.Stderr, "usage: tools", strings.Join(names, "|"), "...")
	os.Exit(2)
}

// dialWait bounds how long a client waits for a connection, and for each answer.
const dialWait = 10 * time.Second

func resolve(args []string) error {
	ctx, stop := context.WithTimeout(context.Background(), dialWait)
	defer stop()
	addresses, err := net.DefaultResolver.LookupHost(ctx, args[0])
	if err != nil {
		return err
	}
	sort.Strings(addresses)
	fmt.Println(strings.Join(addresses, "\n"))
	return nil
}

func cat(args []string) error {
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}

func sleep(args []string) error {
	var over <-chan time.Time
	if len(args) > 0 {
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return err
		}
		over = time.After(d)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-end:
	case <-over:
	}
	return nil
}

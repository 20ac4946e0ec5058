package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The ports, all above 1024 so that they need no privilege.
const (
	portHTTP      = 8080 // HTTP/1.1 and HTTP/2 in clear; WebSocket at /ws
	portGRPC      = 9000
	portEcho      = 9001 // TCP and UDP
	portGreet     = 9002
	portHalfClose = 9003
	portBulk      = 9004
)

// lastCalls is how long a server that is asked to end still takes connections, as one does whose callers hear of it later than itself.
const lastCalls = time.Second

// drain is how long it then goes on with what is under way.
const drain = 10 * time.Second

func serve(args []string) error {
	fs := flag.NewFlagSet("serve", flag.ExitOnError)
	host, _ := os.Hostname()
	name := fs.String("name", host, "what the answers call this server")
	if err := fs.Parse(args); err != nil {
		return err
	}
	tcp := map[int]func(net.Conn){
		portEcho:      echo,
		portGreet:     func(c net.Conn) { greet(c, *name) },
		portHalfClose: halfClose,
		portBulk:      bulk,
	}
	for port, handle := range tcp {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		go accept(l, handle)
	}
	u, err := net.ListenPacket("udp", fmt.Sprintf(":%d", portEcho))
	if err != nil {
		return err
	}
	go echoUDP(u)
	stopGRPC, err := serveGRPC(*name)
	if err != nil {
		return err
	}
	stopHTTP, err := serveHTTP(*name)
	if err != nil {
		return err
	}
	fmt.Println("serving as", *name)
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	time.Sleep(lastCalls)
	stopHTTP()
	stopGRPC()
	return nil
}

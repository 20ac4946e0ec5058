// Command kit is what the test clusters need beside Kubernetes itself:
//
//	kit pki -out DIR -cluster NAME -server URL -san a,1.2.3.4 -nodes NAME=IP,...
//	kit cert -ca DIR/ca -out PREFIX -cn CN -san a,b,1.2.3.4
//	kit delay -dev TUN -delay 20ms -loss 0.1 -jitter 2ms
//	kit node SPEC.json     (the first process of a node: mounts, then supervises the others)
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: kit pki|cert|delay|node ...")
		os.Exit(2)
	}
	var err error
	switch os.Args[1] {
	case "pki":
		err = pki(os.Args[2:])
	case "cert":
		err = certCmd(os.Args[2:])
	case "delay":
		err = delay(os.Args[2:])
	case "node":
		err = node(os.Args[2:])
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kit:", err)
		os.Exit(1)
	}
}

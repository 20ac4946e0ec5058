package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// delay is a stand-in for the kernel's netem, which this kernel lacks: packets
// routed into a TUN device come out of it again later, or not at all.
func delay(args []string) error {
	fs := flag.NewFlagSet("delay", flag.ExitOnError)
	dev := fs.String("dev", "delay0", "TUN device, created here")
	d := fs.Duration("delay", 20*time.Millisecond, "one way")
	j := fs.Duration("jitter", 0, "added, uniform; packets keep their order")
	loss := fs.Float64("loss", 0, "per cent")
	if err := fs.Parse(args); err != nil {
		return err
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var req struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:15], *dev)
	req.flags = 0x0001 | 0x1000 // IFF_TUN | IFF_NO_PI
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), 0x400454ca, uintptr(unsafe.Pointer(&req))); e != 0 {
		return fmt.Errorf("TUNSETIFF: %w", e)
	}
	type pkt struct {
		at time.Time
		b  []byte
	}
	q := make(chan pkt, 65536)
	go func() {
		for p := range q {
			if w := time.Until(p.at); w > 0 {
				time.Sleep(w)
			}
			_, _ = syscall.Write(int(f.Fd()), p.b)
		}
	}()
	b := make([]byte, 65536)
	for {
		n, err := syscall.Read(int(f.Fd()), b)
		if err != nil {
			if err == syscall.EINTR || err == syscall.EAGAIN {
				continue
			}
			return err
		}
		if *loss > 0 && rand.Float64()*100 < *loss {
			continue
		}
		w := *d
		if *j > 0 {
			w += rand.N(*j)
		}
		select {
		case q <- pkt{time.Now().Add(w), append([]byte(nil), b[:n]...)}:
		default: // queue full: lost
		}
	}
}

package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

func accept(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of files; connections end
			continue
		}
		go func() {
			defer c.Close()
			handle(c)
		}()
	}
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

func echoUDP(u net.PacketConn) {
	b := make([]byte, 65536)
	for {
		n, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = u.WriteTo(b[:n], from)
	}
}

// greet speaks first, as mail and some databases do.
func greet(c net.Conn, name string) {
	if _, err := fmt.Fprintf(c, "220 %s\r\n", name); err == nil {
		echo(c)
	}
}

// halfClose reads to the end of the client's half, then answers with what it got.
func halfClose(c net.Conn) {
	h := sha256.New()
	n, err := io.Copy(h, c)
	if err == nil {
		_, _ = fmt.Fprintf(c, "%d %s\n", n, hex.EncodeToString(h.Sum(nil)))
	}
}

// bulk reads how many bytes are wanted, sends them and closes.
func bulk(c net.Conn) {
	line, err := bufio.NewReader(io.LimitReader(c, 32)).ReadString('\n')
	if err != nil {
		return
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err == nil {
		_, _ = io.Copy(c, pattern(n))
	}
}

// patterned is an endless stream in which no two blocks are the same, so that what is lost, doubled or out of order shows.
type patterned struct {
	block [4096]byte
	n     uint64
	left  []byte
}

func pattern(n int64) io.Reader {
	p := &patterned{}
	for i := range p.block {
		p.block[i] = byte(i * 7)
	}
	return io.LimitReader(p, n)
}

func (p *patterned) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		p.n++
		for i := range 8 {
			p.block[i] = byte(p.n >> (8 * i))
		}
		p.left = p.block[:]
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

func sum(n int64) string {
	h := sha256.New()
	_, _ = io.Copy(h, pattern(n))
	return hex.EncodeToString(h.Sum(nil))
}

func dial(network, address string) (net.Conn, error) {
	return net.DialTimeout(network, address, dialWait)
}

func there(network, address, text string) error {
	c, err := dial(network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(dialWait))
	if _, err := fmt.Fprintln(c, text); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Print(line)
	return nil
}

func tcpCall(args []string) error { return there("tcp", args[0], args[1]) }
func udpCall(args []string) error { return there("udp", args[0], args[1]) }

func greetCall(args []string) error {
	c, err := dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(dialWait))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Print(line)
	return nil
}

func halfCloseCall(args []string) error {
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	c, err := dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.Copy(c, pattern(n)); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	return same(fmt.Sprintf("%d %s", n, sum(n)), strings.TrimSpace(string(got)))
}

func bulkCall(args []string) error {
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	c, err := dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, n); err != nil {
		return err
	}
	h := sha256.New()
	m, err := io.Copy(h, c)
	if err != nil {
		return err
	}
	return same(fmt.Sprintf("%d %s", n, sum(n)), fmt.Sprintf("%d %s", m, hex.EncodeToString(h.Sum(nil))))
}

func same(want, got string) error {
	if want != got {
		return fmt.Errorf("want %s, got %q", want, got)
	}
	fmt.Println(got)
	return nil
}

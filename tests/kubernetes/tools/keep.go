package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

// kept is the sum of connections that stay open. A request is lost when its connection ends before the whole answer came; nothing is tried
// again unseen, as HTTP libraries do.
type kept struct {
	Requests int       `json:"requests"`
	Dials    int       `json:"dials"`
	Refused  int       `json:"refused"` // a new connection, or the first request on one, that failed
	Closed   int       `json:"closed"`  // connections that ended in order between requests
	Reset    int       `json:"reset"`   // connections that ended otherwise between requests
	Lost     int       `json:"lost"`
	Shortest float64   `json:"shortest_ms"` // how long the first connection to end had lived
	Failures []failure `json:"failures"`
}

// keep asks over connections of its own that it never closes, with a pause between requests in which it listens for their end.
func keep(args []string) error {
	fs := flag.NewFlagSet("keep", flag.ExitOnError)
	for_ := fs.Duration("for", 10*time.Second, "how long")
	clients := fs.Int("clients", 4, "how many connections at once")
	pause := fs.Duration("pause", time.Second, "between one connection's requests")
	timeout := fs.Duration("timeout", dialWait, "of a request, and of a new connection")
	if err := fs.Parse(args); err != nil {
		return err
	}
	to, err := url.Parse(fs.Arg(0))
	if err != nil {
		return err
	}
	stop := until(*for_)
	sum := &keeping{stop: stop, to: to, pause: *pause, timeout: *timeout}
	var all sync.WaitGroup
	for range *clients {
		all.Go(func() {
			for !sum.over() {
				sum.one()
			}
		})
	}
	all.Wait()
	return json.NewEncoder(os.Stdout).Encode(sum.kept)
}

type keeping struct {
	kept
	mu             sync.Mutex
	stop           <-chan struct{}
	to             *url.URL
	pause, timeout time.Duration
}

func (k *keeping) over() bool {
	select {
	case <-k.stop:
		return true
	default:
		return false
	}
}

// count changes the sum; a failure is told with it.
func (k *keeping) count(change func(*kept), began time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.kept)
	if err != nil && len(k.Failures) < mostFailures {
		k.Failures = append(k.Failures, failure{began.UnixMilli(), since(began), err.Error()})
	}
}

// one is a connection from its beginning to its end.
func (k *keeping) one() {
	began := time.Now()
	c, err := net.DialTimeout("tcp", k.to.Host, k.timeout)
	k.count(func(s *kept) { s.Dials++ }, began, nil)
	if err == nil {
		defer c.Close()
	}
	r := bufio.NewReader(c)
	if err == nil {
		err = k.ask(c, r)
	}
	if err != nil {
		k.count(func(s *kept) { s.Refused++ }, began, fmt.Errorf("new: %w", err))
		time.Sleep(100 * time.Millisecond)
		return
	}
	ended := func(change func(*kept), from time.Time, err error) {
		lived := since(began)
		k.count(func(s *kept) {
			change(s)
			if s.Shortest == 0 || lived < s.Shortest {
				s.Shortest = lived
			}
		}, from, err)
	}
	for !k.over() {
		_ = c.SetReadDeadline(time.Now().Add(k.pause))
		var late net.Error
		if _, err := r.Peek(1); err == nil {
			ended(func(s *kept) { s.Lost++ }, time.Now(), errors.New("an answer that nobody asked for"))
			return
		} else if errors.Is(err, io.EOF) {
			ended(func(s *kept) { s.Closed++ }, began, nil)
			return
		} else if !errors.As(err, &late) || !late.Timeout() {
			ended(func(s *kept) { s.Reset++ }, began, nil)
			return
		}
		from := time.Now()
		if err := k.ask(c, r); err != nil {
			ended(func(s *kept) { s.Lost++ }, from, err)
			return
		}
	}
}

// ask makes a request and reads the whole answer.
func (k *keeping) ask(c net.Conn, r *bufio.Reader) error {
	_ = c.SetDeadline(time.Now().Add(k.timeout))
	q, err := http.NewRequest(http.MethodGet, k.to.String(), nil)
	if err != nil {
		return err
	}
	if err := q.Write(c); err != nil {
		return err
	}
	a, err := http.ReadResponse(r, q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		return err
	}
	if a.StatusCode != http.StatusOK {
		return errors.New(a.Status)
	}
	k.count(func(s *kept) { s.Requests++ }, time.Time{}, nil)
	return nil
}

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"sync"
	"time"
)

// loaded is the sum of a load run. Servers counts answers by the name of the server that gave them.
type loaded struct {
	Requests int            `json:"requests"`
	Failed   int            `json:"failed"`
	Errors   map[string]int `json:"errors"`
	Servers  map[string]int `json:"servers"`
	P50      float64        `json:"p50_ms"`
	P99      float64        `json:"p99_ms"`
	Max      float64        `json:"max_ms"`
	Failures []failure      `json:"failures"`
}

// failure is a request that failed: when it began, in milliseconds of the clock of all programs, and how long it took.
type failure struct {
	Began int64   `json:"began_ms"`
	Took  float64 `json:"took_ms"`
	Error string  `json:"error"`
}

// turn is that requests fail no more, or do: when the first such one had ended, in microseconds.
type turn struct {
	Ok bool  `json:"ok"`
	At int64 `json:"at_us"`
}

// mostFailures are told one by one.
const mostFailures = 50

// load asks until the time is over or it gets SIGTERM, and has asked often enough to say something; then it prints the sum. A failed request is
// counted, not repeated.
func load(args []string) error {
	fs := flag.NewFlagSet("load", flag.ExitOnError)
	for_ := fs.Duration("for", 10*time.Second, "how long")
	clients := fs.Int("clients", 4, "how many at once")
	least := fs.Int("least", 1, "how many requests to make before it ends")
	pause := fs.Duration("pause", 0, "between one client's requests")
	timeout := fs.Duration("timeout", dialWait, "of a request")
	h2 := fs.Bool("h2", false, "HTTP/2 in clear, without an upgrade")
	fresh := fs.Bool("fresh", false, "a connection of its own for each request")
	turns := fs.Bool("turns", false, "of one client: a line whenever requests begin or cease to fail")
	if err := fs.Parse(args); err != nil {
		return err
	}
	stop := until(*for_)
	c := client(*h2, *timeout, *clients)
	if *fresh {
		c.Transport.(*http.Transport).DisableKeepAlives = true
	}
	sum := loaded{Errors: map[string]int{}, Servers: map[string]int{}}
	var took []float64
	var last *bool
	var mu sync.Mutex
	var all sync.WaitGroup
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return sum.Requests >= *least
	}
	for range *clients {
		all.Go(func() {
			for {
				time.Sleep(*pause)
				select {
				case <-stop:
					if enough() {
						return
					}
				default:
				}
				t := time.Now()
				server, err := ask(c, fs.Arg(0))
				ms := since(t)
				mu.Lock()
				if ok := err == nil; *turns && (last == nil || *last != ok) {
					last = &ok
					_ = json.NewEncoder(os.Stdout).Encode(turn{ok, time.Now().UnixMicro()})
				}
				sum.Requests++
				took = append(took, ms)
				if err != nil {
					sum.Failed++
					sum.Errors[err.Error()]++
					if len(sum.Failures) < mostFailures {
						sum.Failures = append(sum.Failures, failure{t.UnixMilli(), ms, err.Error()})
					}
				} else {
					sum.Servers[server]++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	sort.Float64s(took)
	if n := len(took); n > 0 {
		sum.P50, sum.P99, sum.Max = took[n/2], took[n*99/100], took[n-1]
	}
	return json.NewEncoder(os.Stdout).Encode(sum)
}

func ask(c *http.Client, url string) (string, error) {
	a, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		return "", err
	}
	if a.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s", a.Status, a.Header.Get("tombolo-reason"))
	}
	var s seen
	_ = json.Unmarshal(body, &s) // another server's answer has no name
	return s.Server, nil
}

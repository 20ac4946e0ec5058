package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// seen is what the server answers: the request as it came.
type seen struct {
	Server  string      `json:"server"`
	Peer    string      `json:"peer"`
	Local   string      `json:"local"`
	Proto   string      `json:"proto"`
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Path    string      `json:"path"`
	Headers http.Header `json:"headers"`
	Body    string      `json:"body,omitempty"`
}

func serveHTTP(name string) (func(), error) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", wsEcho)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { answer(w, r, name) })
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: mux, Protocols: p, ReadHeaderTimeout: dialWait}
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", portHTTP))
	if err != nil {
		return nil, err
	}
	go func() { _ = s.Serve(l) }()
	return func() {
		ctx, stop := context.WithTimeout(context.Background(), drain)
		defer stop()
		_ = s.Shutdown(ctx)
	}, nil
}

// answer shows the request. ?status=503 answers so, ?wait=2s waits before, ?bytes=N sends N bytes instead.
func answer(w http.ResponseWriter, r *http.Request, name string) {
	q := r.URL.Query()
	if d, err := time.ParseDuration(q.Get("wait")); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	if n, err := strconv.ParseInt(q.Get("bytes"), 10, 64); err == nil {
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.Copy(w, pattern(n))
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	w.Header().Set("Content-Type", "application/json")
	if status, err := strconv.Atoi(q.Get("status")); err == nil && status >= 200 && status <= 599 {
		w.WriteHeader(status)
	}
	_ = json.NewEncoder(w).Encode(seen{name, r.RemoteAddr, fmt.Sprint(local), r.Proto, r.Method, r.Host, r.URL.RequestURI(), r.Header, string(body)})
}

type headers http.Header

func (h headers) String() string { return "" }
func (h headers) Set(s string) error {
	k, v, ok := strings.Cut(s, ":")
	if !ok {
		return fmt.Errorf("%q is not K:V", s)
	}
	http.Header(h).Add(strings.TrimSpace(k), strings.TrimSpace(v))
	return nil
}

// client speaks HTTP/1.1, or HTTP/2 without asking first.
func client(h2 bool, timeout time.Duration, idle int) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	t := &http.Transport{Protocols: p, MaxIdleConnsPerHost: idle, DialContext: (&net.Dialer{Timeout: timeout}).DialContext}
	return &http.Client{Transport: t, Timeout: timeout}
}

func get(args []string) error {
	fs := flag.NewFlagSet("get", flag.ExitOnError)
	h2 := fs.Bool("h2", false, "HTTP/2 in clear, without an upgrade")
	timeout := fs.Duration("timeout", dialWait, "for the whole request")
	method := fs.String("X", "GET", "method")
	body := fs.String("d", "", "body")
	h := headers{}
	fs.Var(h, "H", "a header, K:V; again for more")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r, err := http.NewRequest(*method, fs.Arg(0), strings.NewReader(*body))
	if err != nil {
		return err
	}
	r.Header = http.Header(h)
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	a, err := client(*h2, *timeout, 1).Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	fmt.Fprintln(os.Stderr, a.Proto, a.Status)
	for k, v := range a.Header {
		fmt.Fprintln(os.Stderr, k+":", strings.Join(v, ", "))
	}
	if _, err := io.Copy(os.Stdout, a.Body); err != nil {
		return err
	}
	if a.StatusCode >= 400 {
		return fmt.Errorf("%s", a.Status)
	}
	return nil
}

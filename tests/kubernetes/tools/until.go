package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// until is closed once the time is over, or the process is told to end.
func until(d time.Duration) <-chan struct{} {
	over := make(chan struct{})
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case <-end:
		case <-time.After(d):
		}
		close(over)
	}()
	return over
}

// since is how long ago that was, in milliseconds.
func since(t time.Time) float64 { return float64(time.Since(t).Microseconds()) / 1000 }

// Package ops is the kit that the three mains share: configuration from flags and environment, secrets from files, the
// logger, signals, the HTTP server with health, readiness and metrics, and a bounded shutdown. It imports nothing else of
// this module.
//
// What it promises: SIGINT and SIGTERM become a cancelled context exactly once, the process ends within the shutdown
// timeout plus the time of one actor's own drain, and nothing here ever prints a secret.
package ops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// Exit codes of every service.
const (
	ExitOK        = 0
	ExitFailure   = 1
	ExitBadConfig = 2
	ExitHalted    = 3
)

// ErrBadConfig marks what only another configuration, of the service or of a server it uses, can mend. Main exits 2.
var ErrBadConfig = errors.New("bad configuration")

// ErrHalted marks a service that stopped on purpose because going on would not be safe. Main exits 3.
var ErrHalted = errors.New("halted")

// Main runs a service until it ends or a signal asks it to, and exits with the code that its error calls for. The first
// signal cancels the context; the second one ends the process at once.
func Main(run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from here on, a signal has its default effect again

	err := run(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return ExitOK
	case errors.Is(err, ErrBadConfig):
		return ExitBadConfig
	case errors.Is(err, ErrHalted):
		return ExitHalted
	default:
		return ExitFailure
	}
}

// Run runs the actors side by side; the first to return, with or without an error, stops all of them. It returns when
// every actor has returned, with the first error.
func Run(ctx context.Context, actors ...func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group errgroup.Group
	for _, actor := range actors {
		group.Go(func() error {
			defer cancel()
			return actor(ctx)
		})
	}
	return group.Wait()
}

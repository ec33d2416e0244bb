// Command cdc is the relay: it tails the row binlog of MySQL or MariaDB for inserts into the outbox table and publishes
// each to RabbitMQ with publisher confirms. See package relay for what it promises, and `cdc -h` for its settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
)

func main() {
	// What lives is the window, which is bounded, and what dies is each row: collecting later costs a few MiB and saves a
	// fifth of the CPU (BenchmarkDrain).
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	ops.Main(func(ctx context.Context) error { return command(ctx, os.Args[1:], os.Stdout) })
}

// run relays until ctx ends.
func run(ctx context.Context, cfg Config) error {
	log, err := ops.Logger(cfg.Common, "cdc")
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }() // standard error may not know how to
	log = log.With(zap.String("relay", cfg.RelayName))
	traces, err := ops.NewTraces(ctx, cfg.Common, "cdc", log)
	if err != nil {
		return err
	}
	defer traces.Close()
	s := &service{cfg: cfg, log: log}
	defer s.close()
	if err := s.build(newTracer(traces)); err != nil {
		return err
	}
	return s.run(ctx)
}

// outcome makes the process's end of the relay's.
func outcome(err error) error {
	if halt := (*relay.Halt)(nil); errors.As(err, &halt) {
		return fmt.Errorf("%w: %w", ops.ErrHalted, halt)
	}
	return err
}

// holder names this process for people: host, process id and a part that no other process ever has.
func holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), uuid.NewString()[:8])
}

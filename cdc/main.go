// Command cdc is the relay: it tails the row binlog of MySQL or MariaDB for inserts into the outbox table and publishes
// each to RabbitMQ with publisher confirms. See package relay for what it promises, and `cdc -h` for its settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"tailbox/cdc/audit"
	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/console"
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

// surveyInterval is how old an answer about the source server may be.
const surveyInterval = time.Second

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

	// The rooms, from the source to the broker.
	db, err := cfg.openDatabase(6)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // at the end nothing is under way
	store := checkpoint.New(db, cfg.RelayName, holder(), cfg.LeaseTTL)
	source, err := cfg.openDatabase(3)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // likewise
	repairs := &repairs{log: log, audit: audit.New(db, cfg.RelayName)}
	reader, err := newReader(cfg, source, store, log, repairs.note)
	if err != nil {
		return err
	}
	publisher, err := newPublisher(cfg)
	if err != nil {
		return err
	}

	// What is changed and seen from outside.
	desk, err := cfg.openDatabase(3)
	if err != nil {
		return err
	}
	defer func() { _ = desk.Close() }() // likewise
	operators := newOperators(cfg, desk, reader, publisher)
	surveyor := binlog.NewSurveyor(reader, surveyInterval)
	view := console.View{Name: cfg.RelayName, Read: reader.Read, Source: surveyor.Last, Repair: reader.Repair, Now: time.Now, RoutingKey: publisher.RoutingKey}
	watch, err := watched(cfg)
	if err != nil {
		return err
	}
	var collector *console.Collector
	var seen *console.Console
	engine := relay.New(reader, publisher, store, log, relay.Config{
		Holder: store.Holder(), LeaseTTL: cfg.LeaseTTL,
		Window: cfg.Window, CheckpointInterval: cfg.CheckpointInterval, ShutdownTimeout: cfg.ShutdownTimeout,
		ExitOnHalt: cfg.ExitOnHalt, StrictOrder: cfg.StrictOrder, ParkUnroutable: cfg.OnUnroutable == onUnroutablePark,
		Quarantine: operators.forPoison(cfg), Tracer: newTracer(traces),
		Observe: func(row *relay.Row, at time.Time) {
			if !row.Repaired { // when that was committed is not known
				collector.Latency.Observe(max(0, at.Sub(row.CommittedAt).Seconds()))
			}
			seen.Observe(row, at)
			if entry := log.Check(zap.DebugLevel, "published"); entry != nil {
				entry.Write(zap.String("event_id", row.Event.ID), zap.String("type", row.Event.Type), zap.String("position", row.Position))
			}
		},
	})
	operators.engine = engine
	janitor, err := cfg.openDatabase(2)
	if err != nil {
		return err
	}
	defer func() { _ = janitor.Close() }() // likewise
	sweeper, err := newSweeper(cfg, janitor, reader, engine, log)
	if err != nil {
		return err
	}
	members := newRollCall(store, reader.ServerID(), engine)
	view.Relay, view.Members, view.Deleted, repairs.status = engine.Status, members.last, sweeper.Deleted, engine.Status
	collector, seen = console.NewCollector(view), console.New(view, watch)
	registry := ops.Metrics()
	registry.MustRegister(collector)

	return ops.Run(ctx,
		func(ctx context.Context) error {
			return ops.Serve(ctx, cfg.Common, seen.Handler(registry, operators.calls(cfg, view, reader).Routes, console.Description(description)), func(addr net.Addr) {
				log.Info("listening", zap.String("addr", addr.String()))
			})
		},
		surveyor.Run,
		seen.Run,
		sweeper.Run,
		func(ctx context.Context) error {
			if err := migrate(ctx, cfg, log); err != nil {
				return err
			}
			if err := preflight(ctx, cfg, reader, source, log); err != nil {
				return err
			}
			defer members.begin(ctx)()
			return outcome(engine.Run(ctx))
		},
	)
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

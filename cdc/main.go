// Command cdc is the relay: it tails the row binlog of MySQL or MariaDB for inserts into the outbox table and publishes
// each to RabbitMQ with publisher confirms. See package relay for what it promises, and `cdc -h` for its settings.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/console"
	"tailbox/cdc/publish"
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

	// The rooms, from the source to the broker.
	db, err := ops.OpenMySQL(cfg.MySQLDSN, 4)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // at the end nothing is under way
	store := checkpoint.New(db, cfg.RelayName, holder())
	source, err := ops.OpenMySQL(cfg.MySQLDSN, 3)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // likewise
	reader, err := newReader(cfg, source, store)
	if err != nil {
		return err
	}
	publisher, err := newPublisher(cfg)
	if err != nil {
		return err
	}

	// What is seen from outside.
	surveyor := binlog.NewSurveyor(reader, surveyInterval)
	view := console.View{Name: cfg.RelayName, Holder: store.Holder(), Read: reader.Read, Source: surveyor.Last, Now: time.Now}
	var collector *console.Collector
	engine := relay.New(reader, publisher, store, log, relay.Config{
		Window: cfg.Window, CheckpointInterval: cfg.CheckpointInterval, ShutdownTimeout: cfg.ShutdownTimeout,
		ExitOnHalt: cfg.ExitOnHalt, StrictOrder: cfg.StrictOrder, ParkUnroutable: cfg.OnUnroutable == onUnroutablePark,
		Observe: func(row *relay.Row, at time.Time) {
			collector.Latency.Observe(max(0, at.Sub(row.CommittedAt).Seconds()))
			if entry := log.Check(zap.DebugLevel, "published"); entry != nil {
				entry.Write(zap.String("event_id", row.Event.ID), zap.String("type", row.Event.Type), zap.String("position", row.Position))
			}
		},
	})
	view.Relay = engine.Status
	collector = console.NewCollector(view)
	registry := ops.Metrics()
	registry.MustRegister(collector)

	return ops.Run(ctx,
		func(ctx context.Context) error {
			return ops.Serve(ctx, cfg.Common, console.Handler(view, registry), func(addr net.Addr) {
				log.Info("listening", zap.String("addr", addr.String()))
			})
		},
		surveyor.Run,
		func(ctx context.Context) error {
			if err := migrate(ctx, cfg, log); err != nil {
				return err
			}
			if err := preflight(ctx, cfg, reader, source, log); err != nil {
				return err
			}
			return outcome(engine.Run(ctx))
		},
	)
}

func newReader(cfg Config, db *sql.DB, store *checkpoint.Store) (*binlog.Reader, error) {
	server, err := ops.ParseDSN(cfg.MySQLDSN)
	if err != nil {
		return nil, err
	}
	outbox, err := binlog.ParseTable(cfg.Outbox, server.DBName)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	return binlog.New(binlog.Config{
		Server: server, DB: db, Outbox: outbox,
		Own:   binlog.Table{Schema: server.DBName, Name: checkpoint.Table},
		Start: binlog.Start(cfg.Start), Fence: store.Fence,
		Name: store.Holder(), ServerID: uint32(cfg.ServerID),
	}), nil
}

func newPublisher(cfg Config) (*publish.Publisher, error) {
	exchange, err := publish.ParseTemplate(cfg.Exchange)
	if err != nil {
		return nil, fmt.Errorf("%w: EXCHANGE: %w", ops.ErrBadConfig, err)
	}
	routing, err := publish.ParseTemplate(cfg.RoutingKey)
	if err != nil {
		return nil, fmt.Errorf("%w: ROUTING_KEY: %w", ops.ErrBadConfig, err)
	}
	publisher, err := publish.New(publish.Config{
		URL: cfg.AMQPURL.Reveal(), Exchange: exchange, RoutingKey: routing,
		Format: publish.Format{CloudEvents: cfg.MessageFormat == formatCloudEvents, Prefix: cfg.CloudEventsPrefix, Source: "/tailbox/" + cfg.RelayName},
		Park:   cfg.OnUnroutable == onUnroutablePark, Name: "tailbox cdc " + cfg.RelayName, Window: cfg.Window,
		MaxMessageBytes: cfg.MaxMessageBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	return publisher, nil
}

// preflight waits until the source can be reached, and ends the process when its settings, the user's rights or a table is
// not fit: no wait mends them. What is not right and can be lived with is logged.
func preflight(ctx context.Context, cfg Config, reader *binlog.Reader, db *sql.DB, log *zap.Logger) error {
	for {
		checks, err := preflightChecks(ctx, cfg, reader, db)
		if found := relay.Fatal(checks); len(found) > 0 {
			return fmt.Errorf("%w: the source is not fit:\n%w", ops.ErrBadConfig, found)
		}
		if err == nil {
			warn(checks, log)
			return nil
		}
		log.Warn("the source is out of reach, trying again", zap.Error(err))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// preflightChecks are those that have to pass before the relay starts.
func preflightChecks(ctx context.Context, cfg Config, reader *binlog.Reader, db *sql.DB) ([]relay.Check, error) {
	checks, err := reader.Checks(ctx)
	if err != nil || len(relay.Fatal(checks)) > 0 {
		return checks, err
	}
	server, err := ops.ParseDSN(cfg.MySQLDSN)
	if err != nil {
		return checks, err
	}
	rights, err := checkRights(ctx, db, server.User)
	return append(checks, rights...), err
}

func warn(checks []relay.Check, log *zap.Logger) {
	for _, check := range checks {
		if check.Level != relay.CheckOK {
			log.Warn("the source is not as safe as it could be", zap.String("check", check.Name), zap.String("problem", check.Found), zap.String("mend", check.Mend))
		}
	}
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

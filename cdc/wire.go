package main

import (
	"context"
	"database/sql"
	"fmt"

	"go.uber.org/zap"

	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/console"
	"tailbox/cdc/publish"
	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
	"tailbox/cdc/retention"
	"tailbox/cdc/trace"
	"tailbox/deploy/ops"
)

func newReader(cfg Config, db *sql.DB, store *checkpoint.Store, log *zap.Logger, repairing func(context.Context, binlog.Repair)) (*binlog.Reader, error) {
	server, err := cfg.database()
	if err != nil {
		return nil, err
	}
	outbox, err := binlog.ParseTable(cfg.Outbox, server.DBName)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	var own []binlog.Table
	for _, name := range []string{checkpoint.Table, checkpoint.MemberTable} {
		own = append(own, binlog.Table{Schema: server.DBName, Name: name})
	}
	return binlog.New(binlog.Config{
		Server: server, DB: db, Outbox: outbox,
		Own:   own,
		Start: binlog.Start(cfg.Start), OnGap: binlog.OnGap(cfg.OnGap), Fence: store.Fence, Repairing: repairing,
		Name: store.Holder(), ServerID: uint32(cfg.ServerID), Log: log,
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
		URL: cfg.AMQPURL, TLS: cfg.AMQPTLS, Exchange: exchange, RoutingKey: routing,
		Format: publish.Format{CloudEvents: cfg.MessageFormat == formatCloudEvents, Prefix: cfg.CloudEventsPrefix, Source: "/tailbox/" + cfg.RelayName},
		Park:   cfg.OnUnroutable == onUnroutablePark, Name: "tailbox cdc " + cfg.RelayName, Window: cfg.Window,
		MaxMessageBytes: cfg.MaxMessageBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	return publisher, nil
}

// watched is what the console shows of the settings, and whom it asks.
func watched(cfg Config) (console.Config, error) {
	worker, err := workerURL(cfg.WorkerURL)
	if err != nil {
		return console.Config{}, fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	return console.Config{Exchange: cfg.Exchange, RoutingKey: cfg.RoutingKey, Worker: worker, Admin: cfg.AdminToken != ""}, nil
}

// newTracer returns nil when there are no traces: then the relay spends nothing on them.
func newTracer(traces *ops.Traces) relay.Tracer {
	tracer := traces.Tracer("tailbox/cdc/trace")
	if tracer == nil {
		return nil
	}
	return trace.New(tracer)
}

// newSweeper returns what deletes outbox rows.
func newSweeper(cfg Config, db *sql.DB, reader *binlog.Reader, engine *relay.Relay, log *zap.Logger) (*retention.Sweeper, error) {
	settings, err := retentionConfig(cfg, db)
	if err != nil {
		return nil, err
	}
	settings.Source, settings.Log = reader, log
	settings.Checkpoint = func() (saved relay.Position, leading bool) {
		_, leading = engine.Leading()
		return engine.Status().Saved, leading
	}
	settings.Held = func(ctx context.Context, eventIDs []string) (map[string]bool, error) {
		return quarantine.Holds(ctx, db, eventIDs)
	}
	return retention.New(settings), nil
}

// retentionConfig is what a check of retention needs.
func retentionConfig(cfg Config, db *sql.DB) (retention.Config, error) {
	server, err := cfg.database()
	if err != nil {
		return retention.Config{}, err
	}
	outbox, err := binlog.ParseTable(cfg.Outbox, server.DBName)
	if err != nil {
		return retention.Config{}, fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	keep, err := retention.Parse(cfg.Retention)
	if err != nil {
		return retention.Config{}, fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	return retention.Config{DB: db, Outbox: outbox, User: server.User, Keep: keep}, nil
}

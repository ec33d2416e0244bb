package main

import (
	"context"
	"database/sql"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tailbox/cdc/audit"
	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/console"
	"tailbox/cdc/publish"
	"tailbox/cdc/relay"
	"tailbox/cdc/retention"
	"tailbox/deploy/ops"
)

// service is the rooms of this process, put together.
type service struct {
	cfg   Config
	log   *zap.Logger
	pools []*sql.DB

	// The way of an event, from the source to the broker.
	source    *sql.DB // for questions to the source
	reader    *binlog.Reader
	store     *checkpoint.Store
	publisher *publish.Publisher
	engine    *relay.Relay
	sweeper   *retention.Sweeper

	// What is seen and changed from outside.
	surveyor  *binlog.Surveyor
	members   *rollCall
	operators *operators
	collector *console.Collector
	console   *console.Console
	view      console.View
}

// surveyInterval is how old an answer about the source server may be.
const surveyInterval = time.Second

// build makes every room. Nothing is connected yet.
func (s *service) build(tracer relay.Tracer) error {
	// Each has connections of its own, so that none waits for another: a long list must not keep a checkpoint from being saved.
	lease, err := s.pool(s.cfg.openLeased, 6)
	if err != nil {
		return err
	}
	desk, err := s.pool(s.cfg.openLeased, 3)
	if err != nil {
		return err
	}
	janitor, err := s.pool(s.cfg.openDatabase, 2)
	if err != nil {
		return err
	}
	if s.source, err = s.pool(s.cfg.openDatabase, 3); err != nil {
		return err
	}

	s.store = checkpoint.New(lease, s.cfg.RelayName, holder(), s.cfg.LeaseTTL)
	repairs := &repairs{log: s.log, audit: audit.New(lease, s.cfg.RelayName)}
	if s.reader, err = newReader(s.cfg, s.source, s.store, s.log, repairs.note); err != nil {
		return err
	}
	if s.publisher, err = newPublisher(s.cfg); err != nil {
		return err
	}
	s.operators = newOperators(s.cfg, desk, s.reader, s.publisher)
	s.engine = relay.New(s.reader, s.publisher, s.store, s.log, s.relayConfig(tracer))
	s.operators.engine, repairs.status = s.engine, s.engine.Status
	if s.sweeper, err = newSweeper(s.cfg, janitor, s.reader, s.engine, s.log); err != nil {
		return err
	}
	return s.buildConsole()
}

func (s *service) pool(open func(conns int) (*sql.DB, error), conns int) (*sql.DB, error) {
	db, err := open(conns)
	if err == nil {
		s.pools = append(s.pools, db)
	}
	return db, err
}

func (s *service) relayConfig(tracer relay.Tracer) relay.Config {
	return relay.Config{
		Holder: s.store.Holder(), LeaseTTL: s.cfg.LeaseTTL,
		Window: s.cfg.Window, CheckpointInterval: s.cfg.CheckpointInterval, ShutdownTimeout: s.cfg.ShutdownTimeout,
		ExitOnHalt: s.cfg.ExitOnHalt, StrictOrder: s.cfg.StrictOrder, ParkUnroutable: s.cfg.OnUnroutable == onUnroutablePark,
		Quarantine: s.operators.forPoison(s.cfg), Tracer: tracer, Observe: s.confirmed,
	}
}

func (s *service) buildConsole() error {
	watch, err := watched(s.cfg)
	if err != nil {
		return err
	}
	s.surveyor = binlog.NewSurveyor(s.reader, surveyInterval)
	s.members = newRollCall(s.store, s.reader.ServerID(), s.engine)
	s.view = console.View{
		Name: s.cfg.RelayName, Now: time.Now, RoutingKey: s.publisher.RoutingKey,
		Relay: s.engine.Status, Read: s.reader.Read, Repair: s.reader.Repair, Source: s.surveyor.Last,
		Members: s.members.last, Deleted: s.sweeper.Deleted,
	}
	s.collector, s.console = console.NewCollector(s.view), console.New(s.view, watch)
	return nil
}

// confirmed is told of each confirmed row.
func (s *service) confirmed(row *relay.Row, at time.Time) {
	if !row.Repaired { // when that was committed is not known
		s.collector.Latency.Observe(max(0, at.Sub(row.CommittedAt).Seconds()))
	}
	s.console.Observe(row, at)
	if entry := s.log.Check(zap.DebugLevel, "published"); entry != nil {
		entry.Write(zap.String("event_id", row.Event.ID), zap.String("type", row.Event.Type), zap.String("position", row.Position))
	}
}

// run relays and answers over HTTP until ctx ends.
func (s *service) run(ctx context.Context) error {
	registry := ops.Metrics()
	if err := registry.Register(s.collector); err != nil {
		return err
	}
	return ops.Run(ctx,
		func(ctx context.Context) error { return s.serve(ctx, registry) },
		s.surveyor.Run,
		s.console.Run,
		s.sweeper.Run,
		s.relay,
	)
}

func (s *service) serve(ctx context.Context, registry prometheus.Gatherer) error {
	handler := s.console.Handler(registry, s.operators.calls(s.cfg, s.view, s.reader).Routes, console.Description(description))
	return ops.Serve(ctx, s.cfg.Common, handler, func(addr net.Addr) {
		s.log.Info("listening", zap.String("addr", addr.String()))
	})
}

func (s *service) relay(ctx context.Context) error {
	if err := migrate(ctx, s.cfg, s.log); err != nil {
		return err
	}
	if err := preflight(ctx, s.cfg, s.reader, s.source, s.log); err != nil {
		return err
	}
	defer s.members.begin(ctx)()
	return outcome(s.engine.Run(ctx))
}

// close closes what build has opened. Nothing is under way any more.
func (s *service) close() {
	for _, db := range s.pools {
		_ = db.Close()
	}
}

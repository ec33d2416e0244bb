// The worker applies the events of a RabbitMQ queue to the database, each one exactly once. This file puts its parts
// together: consume (delivery, retries, dead letters), inbox (what was applied) and effect (the change itself).
//
// What holds after a crash: see package consume. A restart needs nothing but the same configuration.
package main

import (
	"context"
	"database/sql"
	_ "embed" // openapi.yaml
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tailbox/deploy/ops"
	"tailbox/schema/topology"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

//go:embed openapi.yaml
var description []byte

func main() {
	ops.Main(func(ctx context.Context) error { return run(ctx, os.Args[1:]) })
}

func run(ctx context.Context, args []string) error {
	var cfg Config
	service := ops.Service{
		Name:        "worker",
		Description: "Applies the events of a RabbitMQ queue to the database, each one exactly once.",
		HTTPAddr:    ":3002",
	}
	if err := ops.Parse(service, &cfg, args, os.Stdout); err != nil {
		if errors.Is(err, ops.ErrHelp) {
			return nil
		}
		return err
	}
	log, err := ops.Logger(cfg.Common, service.Name)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }() // standard error may not be a file
	return serve(ctx, cfg, log)
}

// serve runs the worker and its HTTP server until the context ends. HTTP answers from the start to the very end, so that
// probes can tell why the worker is not ready.
func serve(ctx context.Context, cfg Config, log *zap.Logger) error {
	traces, err := ops.NewTraces(ctx, cfg.Common, "worker", log)
	if err != nil {
		return err
	}
	defer traces.Close()
	db, err := open(cfg, cfg.Concurrency+2)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing is under way any more

	registry := ops.Metrics()
	settings := cfg.consume()
	settings.Log, settings.Metrics, settings.Tracer = log, registry, traces.Tracer("tailbox/worker/consume")
	worker, err := consume.New(db, cfg.AMQPURL, topology.Customers(cfg.Queue), effect.Handlers(), settings)
	if err != nil {
		return err
	}

	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	return ops.Run(ctx,
		func(ctx context.Context) error {
			defer stopServing()
			if err := migrate(ctx, cfg, log); err != nil {
				return err
			}
			return worker.Run(ctx)
		},
		func(context.Context) error {
			return ops.Serve(serving, cfg.Common, routes(worker, cfg.AdminToken, registry), func(addr net.Addr) {
				log.Info("serving HTTP", zap.Stringer("address", addr))
			})
		},
	)
}

// answerTimeout is how long the database may take to answer one statement unless the DSN says otherwise: a dead connection that
// looks open is then given up soon, and its messages are tried again on another.
const answerTimeout = 15 * time.Second

// open returns a pool of at most conns connections. Parameters are written into the statements by the driver, which saves
// preparing each of them: a round trip out of two.
func open(cfg Config, conns int) (*sql.DB, error) {
	server, err := ops.ParseDSNWithin(answerTimeout, "MYSQL_DSN", cfg.MySQLDSN, cfg.MySQLTLS)
	if err != nil {
		return nil, err
	}
	server.InterpolateParams = true
	db, err := ops.OpenMySQL(server, conns)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return db, nil
}

// routes are the worker's HTTP calls.
func routes(worker *consume.Worker, token ops.Secret, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	ops.Probes(mux, worker.Unready, nil, metrics)
	mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
		_, _ = w.Write(description) // the client went away: nobody is left to tell
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		ops.WriteJSON(w, http.StatusOK, worker.Stats())
	})
	mux.HandleFunc("GET /dead-letters", func(w http.ResponseWriter, r *http.Request) { list(w, r, worker) })
	mux.HandleFunc("POST /dead-letters/drop", ops.Guard(token, func(w http.ResponseWriter, r *http.Request) { drop(w, r, worker) }))
	mux.HandleFunc("POST /dead-letters/redrive", ops.Guard(token, func(w http.ResponseWriter, r *http.Request) { redrive(w, r, worker) }))
	return ops.Strict(mux)
}

// The api takes customers over HTTP. It owns its process: settings, listener, pool and what runs in the background; HTTP
// is handler's and SQL is store's.
//
// What it promises: it serves from its start, whether or not the database answers, and says on /readyz whether it can do
// its job; on a signal it takes no more connections and lets running requests finish.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"

	"go.uber.org/zap"

	"tailbox/api/handler"
	"tailbox/api/store"
	"tailbox/deploy/ops"
)

//go:embed openapi.yaml
var description []byte

func main() {
	ops.Main(func(ctx context.Context) error {
		var cfg Config
		err := ops.Parse(service, &cfg, os.Args[1:], os.Stdout)
		if errors.Is(err, ops.ErrHelp) {
			return nil
		}
		if err != nil {
			return err
		}
		return run(ctx, cfg, nil)
	})
}

// run serves until the context ends. It calls bound, if not nil, once the address is bound.
func run(ctx context.Context, cfg Config, bound func(addr net.Addr)) error {
	log, err := ops.Logger(cfg.Common, service.Name)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	traces, err := ops.NewTraces(ctx, cfg.Common, service.Name, log)
	if err != nil {
		return err
	}
	defer traces.Close()
	pool, err := store.Open(cfg.MySQLDSN, cfg.MySQLTLS)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()

	customers, ready := store.New(pool), newReadiness()
	engine, err := handler.New(customers, description, handler.Config{Log: log, Metrics: ops.Metrics(), Ready: ready.Reasons, Traces: traces.Provider()})
	if err != nil {
		return fmt.Errorf("make handler: %w", err)
	}
	return ops.Run(ctx,
		func(ctx context.Context) error {
			return ops.Serve(ctx, cfg.Common, engine, func(addr net.Addr) {
				log.Info("serving", zap.String("addr", addr.String()))
				if bound != nil {
					bound(addr)
				}
			})
		},
		func(ctx context.Context) error {
			if cfg.Migrate {
				ready.set("the tables are being migrated")
				if err := migrate(ctx, cfg, log); err != nil {
					return err
				}
			}
			return ready.watch(ctx, customers, log)
		},
		func(ctx context.Context) error { return pruneKeys(ctx, customers, log) },
	)
}

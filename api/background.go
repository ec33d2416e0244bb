package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"tailbox/api/store"
	"tailbox/deploy/ops"
	"tailbox/schema"
)

const (
	keepKeys      = 24 * time.Hour
	pruneInterval = time.Minute
)

// pruneKeys forgets old idempotency keys until the context ends. Several processes may do so at once.
func pruneKeys(ctx context.Context, customers *store.Store, log *zap.Logger) error {
	tick := time.NewTicker(pruneInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		pruned, err := customers.Prune(ctx, time.Now().Add(-keepKeys))
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.Warn("idempotency keys not pruned", zap.Uint16("mysql_code", ops.MySQLCode(err)))
		case pruned > 0:
			log.Debug("idempotency keys pruned", zap.Int64("keys", pruned))
		}
	}
}

// Server errors that only other settings can mend: access denied to the database or the server, no such database.
func accessRefused(code uint16) bool { return code == 1044 || code == 1045 || code == 1049 }

const (
	firstMigratePause = 250 * time.Millisecond
	mostMigratePause  = 5 * time.Second
)

// migrate brings the tables up to date. It waits for a database that does not answer, and for another process that is
// migrating, until the context ends. Settings that the server refuses are an error that wraps ops.ErrBadConfig.
func migrate(ctx context.Context, cfg Config, log *zap.Logger) error {
	dsn, variable := cfg.owner()
	pool, err := ops.OpenMigrator(variable, dsn, cfg.MySQLTLS)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()

	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = firstMigratePause
	pause.MaxInterval = mostMigratePause
	applied, err := backoff.Retry(ctx, func() (int, error) {
		applied, err := schema.Migrate(ctx, pool)
		switch code := ops.MySQLCode(err); {
		case accessRefused(code):
			err = fmt.Errorf("%w: the server refuses the user, the password or the database of %s (error %d)", ops.ErrBadConfig, variable, code)
			return 0, backoff.Permanent(err)
		case err != nil && !store.Unavailable(err) && !errors.Is(err, schema.ErrMigrateLocked):
			return 0, backoff.Permanent(err)
		}
		return applied, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, next time.Duration) {
		log.Warn("migration postponed", zap.Uint16("mysql_code", ops.MySQLCode(err)),
			zap.Bool("locked", errors.Is(err, schema.ErrMigrateLocked)), zap.Duration("retry_in", next))
	}))
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	log.Info("tables are up to date", zap.Int("migrations_applied", applied))
	return nil
}

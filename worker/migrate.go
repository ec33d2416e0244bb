package main

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/worker/consume"
)

const migrateMost = 5 * time.Second // between two tries

// migrate brings the tables to this version if that was asked for. A database that does not answer, or refuses the login,
// is no reason to give up: it is tried again until it answers or the context ends.
func migrate(ctx context.Context, cfg Config, log *zap.Logger) error {
	if !cfg.Migrate {
		return nil
	}
	name, dsn := "MIGRATE_DSN", cfg.MigrateDSN
	if dsn == "" {
		name, dsn = "MYSQL_DSN", cfg.MySQLDSN
	}
	db, err := ops.OpenMigrator(name, dsn, cfg.MySQLTLS)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing is under way any more

	attempt := func() (int, error) {
		applied, err := schema.Migrate(ctx, db)
		if ops.MySQLCode(err) != 0 && !consume.Transient(err) {
			return applied, backoff.Permanent(err)
		}
		return applied, err
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.MaxInterval = migrateMost
	applied, err := backoff.Retry(ctx, attempt, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, pause time.Duration) {
			log.Warn("the database cannot be migrated yet, trying again", zap.Uint16("mysql_code", ops.MySQLCode(err)), zap.Duration("pause", pause))
		}))
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	log.Info("the database is migrated", zap.Int("applied", applied))
	return nil
}

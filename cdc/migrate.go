package main

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tailbox/deploy/ops"
	"tailbox/schema"
)

// migrate brings the tables to this version if that was asked for, as soon as the database answers.
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
	applied, err := schema.MigrateWaiting(ctx, db, func(err error, wait time.Duration) {
		log.Warn("the database cannot be migrated yet, trying again", zap.Error(err), zap.Duration("wait", wait))
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	log.Info("the database is migrated", zap.Int("applied", applied))
	return nil
}

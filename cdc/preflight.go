package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
)

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
	if err != nil || len(relay.Fatal(checks)) > 0 || readOnly(checks) {
		return checks, err
	}
	server, err := cfg.database()
	if err != nil {
		return checks, err
	}
	rights, err := checkRights(ctx, db, server.User)
	checks = append(checks, rights...)
	if err != nil {
		return checks, err
	}
	settings, err := retentionConfig(cfg, db)
	if err != nil {
		return checks, err
	}
	check, err := settings.Check(ctx)
	if err != nil {
		return checks, err
	}
	return append(checks, check), nil
}

// readOnly tells a server that takes no writes: it says so to any statement, before it says anything of rights.
func readOnly(checks []relay.Check) bool {
	return slices.ContainsFunc(checks, func(c relay.Check) bool { return c.Name == binlog.CheckReadOnly && c.Level == relay.CheckFail })
}

func warn(checks []relay.Check, log *zap.Logger) {
	for _, check := range checks {
		if check.Level != relay.CheckOK {
			log.Warn("the source is not as safe as it could be", zap.String("check", check.Name), zap.String("problem", check.Found), zap.String("mend", check.Mend))
		}
	}
}

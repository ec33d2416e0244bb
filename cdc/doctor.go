package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/relay"
)

// doctorTimeout is how long the servers may take to answer all questions.
const doctorTimeout = time.Minute

// errUnwell ends cdc doctor with code 1.
var errUnwell = errors.New("not all is well")

// doctor looks at all that the relay depends on, changes nothing, and prints a line for each check, or one JSON document.
// It returns errUnwell when a check failed. What preflight looks at when the relay starts is a part of the same list.
func doctor(ctx context.Context, cfg Config, asJSON bool, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	checks, err := examine(ctx, cfg)
	if err != nil {
		return err
	}
	failed := 0
	for _, c := range checks {
		if c.Level == relay.CheckFail {
			failed++
		}
	}
	if err := report(checks, failed == 0, asJSON, out); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d checks failed", errUnwell, failed, len(checks))
	}
	return nil
}

func report(checks []relay.Check, well, asJSON bool, out io.Writer) error {
	if asJSON {
		return json.NewEncoder(out).Encode(struct {
			OK     bool          `json:"ok"`
			Checks []relay.Check `json:"checks"`
		}{well, checks})
	}
	for _, c := range checks {
		if _, err := fmt.Fprintf(out, "%-4s  %-30s  %s\n", c.Level, c.Name, c); err != nil {
			return err
		}
	}
	return nil
}

// examine gathers the checks of all rooms. An error says that the settings themselves are wrong.
func examine(ctx context.Context, cfg Config) ([]relay.Check, error) {
	publisher, err := newPublisher(cfg)
	if err != nil {
		return nil, err
	}
	checks, err := examineSource(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return append(checks, publisher.Checks(ctx)...), nil
}

func examineSource(ctx context.Context, cfg Config) ([]relay.Check, error) {
	db, err := cfg.openDatabase(2)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // nothing is under way any more
	store := checkpoint.New(db, cfg.RelayName, holder(), cfg.LeaseTTL)
	reader, err := newReader(cfg, db, store, zap.NewNop(), nil)
	if err != nil {
		return nil, err
	}
	checks, err := preflightChecks(ctx, cfg, reader, db)
	if err != nil {
		return append(checks, unreachable("source", err)), nil
	}
	if len(relay.Fatal(checks)) == 0 {
		checks = append(checks, checkPlace(ctx, reader, store)...)
	}
	return checks, nil
}

// checkPlace looks at the checkpoint that the relay would go on from, and how far it is from being purged.
func checkPlace(ctx context.Context, reader *binlog.Reader, store *checkpoint.Store) []relay.Check {
	place, err := store.Load(ctx)
	if halt := (*relay.Halt)(nil); errors.As(err, &halt) {
		return []relay.Check{{Name: "checkpoint", Level: relay.CheckFail, Found: halt.Err.Error(), Reason: halt.Reason}}
	}
	if err != nil {
		return []relay.Check{unreachable("checkpoint", err)}
	}
	return reader.CheckPlace(ctx, place)
}

func unreachable(name string, err error) relay.Check {
	return relay.Check{Name: name, Level: relay.CheckFail, Found: "is out of reach (" + err.Error() + ")"}
}

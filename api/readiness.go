package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tailbox/api/store"
	"tailbox/deploy/ops"
)

const (
	checkInterval = time.Second
	checkTimeout  = 2 * time.Second
)

// readiness remembers why the api cannot do its job, so that /readyz never waits for the database.
type readiness struct {
	reason atomic.Pointer[string] // nil when there is none
}

func newReadiness() *readiness {
	r := &readiness{}
	r.set("the database has not answered yet")
	return r
}

// Reasons is what /readyz shows.
func (r *readiness) Reasons() []string {
	if reason := r.reason.Load(); reason != nil {
		return []string{*reason}
	}
	return nil
}

func (r *readiness) set(reason string) {
	if reason == "" {
		r.reason.Store(nil)
		return
	}
	r.reason.Store(&reason)
}

// watch asks the database again and again until the context ends, and logs when the answer changes.
func (r *readiness) watch(ctx context.Context, customers interface {
	Check(ctx context.Context) error
}, log *zap.Logger) error {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	told := "nothing yet"
	for {
		reason, code := check(ctx, customers)
		if ctx.Err() != nil {
			return nil
		}
		r.set(reason)
		if reason != told {
			told = reason
			if reason == "" {
				log.Info("ready")
			} else {
				log.Warn("not ready", zap.String("reason", reason), zap.Uint16("mysql_code", code))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func check(ctx context.Context, customers interface {
	Check(ctx context.Context) error
}) (reason string, code uint16) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := customers.Check(ctx)
	code = ops.MySQLCode(err)
	if missing, ok := errors.AsType[*store.TablesMissingError](err); ok {
		return missing.Error() + "; start one api with MIGRATE=true", code
	}
	switch {
	case err == nil:
		return "", code
	case accessRefused(code):
		return "the database refuses the user, password or database of MYSQL_DSN", code
	default:
		return "the database does not answer", code
	}
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"tailbox/deploy/ops"
)

// A transaction that lost a race is tried again at most this often in all, after pauses that are jittered by half.
const (
	maxTries   = 5
	firstPause = 5 * time.Millisecond
	mostPause  = 200 * time.Millisecond
)

// Server errors after which the transaction is rolled back and may be tried again as it was.
const (
	codeLockWait       = 1205
	codeDeadlock       = 1213
	codeLostInCommit   = 3101 // group replication: another member committed a conflicting transaction first
	codeDuplicateEntry = 1062
)

// errRaced is returned by a transaction's work when another one got there first, and a new look at the rows helps.
var errRaced = errors.New("another transaction was first")

// beginner is a pool, or the one connection that holds a named lock.
type beginner interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// transact runs the work in a transaction and commits it. The work runs again, on fresh rows, after a deadlock or a lock
// timeout; it must have no effect outside the transaction.
//
// The transaction is a span of the trace that ctx belongs to, if it belongs to one; ctx of the work carries it.
func transact(ctx context.Context, on beginner, work func(ctx context.Context, tx *sql.Tx) error) error {
	ctx, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("tailbox/api/store").Start(ctx, "transaction",
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("db.system.name", "mysql")))
	defer span.End()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = firstPause
	pause.MaxInterval = mostPause

	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := attempt(ctx, on, work)
		if err != nil && !lostRace(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pause), backoff.WithMaxTries(maxTries))
	return err
}

func attempt(ctx context.Context, on beginner, work func(ctx context.Context, tx *sql.Tx) error) error {
	// READ COMMITTED: rows are reached by their primary key, and gap locks would only make writers wait for each other.
	tx, err := on.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing; a lost connection rolls back by itself
	if err := work(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

func lostRace(err error) bool {
	switch ops.MySQLCode(err) {
	case codeLockWait, codeDeadlock, codeLostInCommit:
		return true
	}
	return errors.Is(err, errRaced)
}

package schema

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Execer is the part of *sql.Tx that Insert needs. Pass the transaction that changes the business rows, never a *sql.DB:
// both are written, or neither.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

var _ Execer = (*sql.Tx)(nil)

// NewID returns a fresh UUIDv7 in text form: unique, and ordered by time, so that inserts go to the end of the index.
func NewID() string {
	return uuid.Must(uuid.NewV7()).String()
}

// Insert writes events into the table `outbox` with one statement, inside the caller's transaction, in the order given.
// An empty ID is filled with a UUIDv7 and a zero CreatedAt with the present, in the caller's slice too. An event that
// Validate refuses is an error and nothing is written; the caller rolls back.
func Insert(ctx context.Context, tx Execer, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	args := make([]any, 0, 8*len(events))
	for i := range events {
		e := &events[i]
		if e.ID == "" {
			e.ID = NewID()
		}
		if e.CreatedAt.IsZero() {
			e.CreatedAt = time.Now()
		}
		e.CreatedAt = e.CreatedAt.UTC().Truncate(time.Microsecond)
		if err := e.Validate(); err != nil {
			return fmt.Errorf("validate event %d (%s): %w", i, e.Type, err)
		}
		headers, err := headersColumn(e.Headers)
		if err != nil {
			return err
		}
		args = append(args, e.ID, e.AggregateType, e.AggregateID, e.AggregateVersion, e.Type,
			string(e.Payload), headers, e.CreatedAt.Format(mysqlTime))
	}

	query := "INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, type, payload, headers, created_at) VALUES " +
		strings.TrimSuffix(strings.Repeat("(?, ?, ?, ?, ?, ?, ?, ?), ", len(events)), ", ")
	if _, err := tx.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("insert into outbox: %w", err)
	}
	return nil
}

// mysqlTime is a DATETIME(6) literal. Times are given to the server as text, so that neither the driver's `loc` nor the
// session's time zone can shift them.
const mysqlTime = "2006-01-02 15:04:05.000000"

func headersColumn(headers map[string]string) (sql.NullString, error) {
	if len(headers) == 0 {
		return sql.NullString{}, nil
	}
	text, err := json.Marshal(headers)
	if err != nil {
		return sql.NullString{}, fmt.Errorf("encode headers: %w", err)
	}
	return sql.NullString{String: string(text), Valid: true}, nil
}

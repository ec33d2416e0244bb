// Package audit keeps what changed a relay's course: calls of operators, and repairs that the relay did itself, in the table
// relay_audit, which is only ever added to.
//
// What it promises: an entry is durable when Append returns. It never holds a payload or a secret, because its callers give
// it positions, ids and counts alone.
package audit

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Sizes of the columns, in bytes; longer texts are cut, so that no record is lost for what somebody wrote into it.
const (
	maxActor  = 255
	maxAction = 64
	maxWhy    = 4096
)

// Entry is one change, as who makes it tells it.
type Entry struct {
	Actor  string // who: what the caller says of itself, or "relay" for what it did itself
	Action string // what, in one word such as pause
	Why    string // for people, may be empty
	Before any    // what was, as a JSON document; nil for nothing
	After  any    // what is now
	Epoch  uint64 // of the leader that did it
}

// Record is an entry as it is kept.
type Record struct {
	ID     uint64
	At     time.Time // by the database's clock
	Epoch  uint64
	Actor  string
	Action string
	Why    string
	Before json.RawMessage // nil for nothing
	After  json.RawMessage
}

// Log is the audit of one relay. It is safe for concurrent use.
type Log struct {
	db    *sql.DB
	relay string
}

// New returns the log of the relay of that name.
func New(db *sql.DB, relay string) *Log { return &Log{db: db, relay: relay} }

// Append adds an entry; it is durable when Append returns nil.
func (l *Log) Append(ctx context.Context, e Entry) error { return l.append(ctx, l.db, e) }

// AppendIn adds an entry in the caller's transaction, so that it is kept exactly when the change is made.
func (l *Log) AppendIn(ctx context.Context, tx *sql.Tx, e Entry) error { return l.append(ctx, tx, e) }

// execer is *sql.DB or *sql.Tx.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (l *Log) append(ctx context.Context, to execer, e Entry) error {
	before, err := document(e.Before)
	if err != nil {
		return fmt.Errorf("audit %s: encode what was: %w", e.Action, err)
	}
	after, err := document(e.After)
	if err != nil {
		return fmt.Errorf("audit %s: encode what is: %w", e.Action, err)
	}
	_, err = to.ExecContext(ctx, `INSERT INTO relay_audit (relay, at, epoch, actor, action, why, before_state, after_state)
		VALUES (?, UTC_TIMESTAMP(6), ?, ?, ?, ?, ?, ?)`,
		l.relay, e.Epoch, cut(e.Actor, maxActor), cut(e.Action, maxAction), cut(e.Why, maxWhy), before, after)
	if err != nil {
		return fmt.Errorf("audit %s: %w", e.Action, err)
	}
	return nil
}

// List gives the newest entries, newest first, at most limit of them.
func (l *Log) List(ctx context.Context, limit int) ([]Record, error) {
	rows, err := l.db.QueryContext(ctx, `SELECT id, at, epoch, actor, action, why, before_state, after_state
		FROM relay_audit WHERE relay = ? ORDER BY id DESC LIMIT ?`, l.relay, limit)
	if err != nil {
		return nil, fmt.Errorf("list the audit: %w", err)
	}
	defer rows.Close()
	var records []Record
	for rows.Next() {
		var r Record
		var before, after []byte
		if err := rows.Scan(&r.ID, &r.At, &r.Epoch, &r.Actor, &r.Action, &r.Why, &before, &after); err != nil {
			return nil, fmt.Errorf("list the audit: %w", err)
		}
		r.Before, r.After = before, after
		records = append(records, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list the audit: %w", err)
	}
	return records, nil
}

// document is the JSON of a state, or NULL for none.
func document(state any) (sql.NullString, error) {
	if state == nil {
		return sql.NullString{}, nil
	}
	text, err := json.Marshal(state)
	return sql.NullString{String: string(text), Valid: err == nil}, err
}

// cut makes a text fit its column: UTF-8, and at most so many bytes.
func cut(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

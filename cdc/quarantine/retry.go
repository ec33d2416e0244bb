package quarantine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"tailbox/cdc/audit"
	"tailbox/cdc/relay"
)

// StillError is returned by Retry when the event was tried and is no message yet. It stays in quarantine, with one attempt
// more and this as its reason.
type StillError struct {
	Why relay.Reason // poison, unroutable or refused
	Err error
}

func (e *StillError) Error() string { return fmt.Sprintf("still in quarantine (%s): %v", e.Why, e.Err) }

// Unwrap returns what is wrong with the event.
func (e *StillError) Unwrap() error { return e.Err }

// UnknownError is returned by Retry when the broker did not say what became of the event. It stays in quarantine: a further
// retry may send it a second time.
type UnknownError struct{ Err error }

func (e *UnknownError) Error() string { return fmt.Sprintf("the broker did not answer: %v", e.Err) }

// Unwrap returns why it is not known.
func (e *UnknownError) Unwrap() error { return e.Err }

// Retry publishes an event through a session of its own and takes it out of quarantine when the broker confirmed it and it
// reached a queue. by says who asks for it and why. The errors are ErrNotFound, ErrNotLeading, ErrPayloadGone, a *StillError
// or an *UnknownError, or what the database said.
func (s *Store) Retry(ctx context.Context, id uint64, by audit.Entry) (Entry, error) {
	s.retrying.Lock()
	defer s.retrying.Unlock()
	row, err := s.row(ctx, id)
	if err != nil {
		return Entry{}, err
	}
	epoch, leading := s.cfg.Leading()
	if !leading {
		return Entry{}, ErrNotLeading
	}
	tried := s.publish(ctx, row, epoch)
	still := (*StillError)(nil)
	if tried != nil && !errors.As(tried, &still) {
		return Entry{}, tried
	}
	after := map[string]any{"published": true}
	if still != nil {
		after = map[string]any{"published": false, "reason": reason(still.Err)}
	}

	// What became of it is kept even if the caller has gone by now.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	by.Action, by.Epoch = "quarantine_retry", epoch
	entry, err := s.change(ctx, id, by, func(tx *sql.Tx) (sql.Result, error) {
		if still == nil {
			return tx.ExecContext(ctx, "DELETE FROM relay_quarantine WHERE relay = ? AND id = ?", s.relay, id)
		}
		return tx.ExecContext(ctx, "UPDATE relay_quarantine SET attempts = attempts + 1, reason = ? WHERE relay = ? AND id = ?",
			reason(still.Err), s.relay, id)
	}, after)
	if err != nil {
		return Entry{}, err
	}
	return entry, tried
}

const settleTimeout = 5 * time.Second

// Drop gives an event up: it is deleted and never published. by says who asks for it and why.
func (s *Store) Drop(ctx context.Context, id uint64, by audit.Entry) (Entry, error) {
	epoch, leading := s.cfg.Leading()
	if !leading {
		return Entry{}, ErrNotLeading
	}
	by.Action, by.Epoch = "quarantine_drop", epoch
	return s.change(ctx, id, by, func(tx *sql.Tx) (sql.Result, error) {
		return tx.ExecContext(ctx, "DELETE FROM relay_quarantine WHERE relay = ? AND id = ?", s.relay, id)
	}, map[string]any{"dropped": true})
}

// change makes a change of one event and its record in the audit, both or neither, and gives the event as it was.
func (s *Store) change(ctx context.Context, id uint64, by audit.Entry, do func(tx *sql.Tx) (sql.Result, error), after any) (Entry, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return Entry{}, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing

	if err := s.fence(ctx, tx, by.Epoch); err != nil {
		if errors.Is(err, relay.ErrFenced) {
			err = ErrNotLeading
		}
		return Entry{}, err
	}
	entry, err := s.get(ctx, tx, id)
	if err != nil {
		return Entry{}, err
	}
	result, err := do(tx)
	if err != nil {
		return Entry{}, fmt.Errorf("change the quarantine: %w", err)
	}
	if changed, err := result.RowsAffected(); err != nil || changed == 0 { // somebody was faster
		return Entry{}, errors.Join(ErrNotFound, err)
	}
	by.Before, by.After = brief(entry), after
	if err := s.cfg.Audit.AppendIn(ctx, tx, by); err != nil {
		return Entry{}, err
	}
	if err := tx.Commit(); err != nil {
		return Entry{}, fmt.Errorf("commit: %w", err)
	}
	return entry, nil
}

// fence ends a transaction that changes the quarantine, or begins one that is short.
//
// Invariant: nothing is changed by a process whose epoch is not the newest. The share lock makes a takeover wait until the
// transaction is over.
func (s *Store) fence(ctx context.Context, tx *sql.Tx, epoch uint64) error {
	var newest uint64
	err := tx.QueryRowContext(ctx, "SELECT epoch FROM relay_checkpoint WHERE relay = ? LOCK IN SHARE MODE", s.relay).Scan(&newest)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("ask who leads: %w", err)
	}
	if newest != epoch {
		return relay.ErrFenced
	}
	return nil
}

// brief is what the audit keeps of an event.
func brief(e Entry) map[string]any {
	return map[string]any{"id": e.ID, "event_id": e.EventID, "type": e.Type, "reason": e.Reason, "attempts": e.Attempts}
}

package checkpoint

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"tailbox/cdc/relay"
)

// Look implements relay.Leases. The row is made, free and without a place, when this relay has never run; when it has, a row
// that is missing was deleted, and with it the knowledge of what was published.
func (s *Store) Look(ctx context.Context) (relay.Lease, error) {
	lease, err := s.look(ctx)
	if !errors.Is(err, sql.ErrNoRows) {
		return lease, err
	}
	known, err := s.known(ctx)
	if err != nil {
		return relay.Lease{}, err
	}
	if known {
		return relay.Lease{}, s.gone()
	}
	_, err = s.db.ExecContext(ctx, "INSERT IGNORE INTO relay_checkpoint (relay, holder, epoch) VALUES (?, '', 0)", s.relay)
	if err != nil {
		return relay.Lease{}, fmt.Errorf("make the relay's row: %w", err)
	}
	return s.look(ctx)
}

func (s *Store) look(ctx context.Context) (lease relay.Lease, err error) {
	var ttl uint64
	var expires sql.NullTime
	err = s.db.QueryRowContext(ctx, "SELECT epoch, beat, holder, lease_ms, paused, expires_at FROM relay_checkpoint WHERE relay = ?", s.relay).
		Scan(&lease.Epoch, &lease.Beat, &lease.Holder, &ttl, &lease.Paused, &expires)
	if err != nil {
		return relay.Lease{}, fmt.Errorf("look at the lease: %w", err)
	}
	lease.TTL, lease.ExpiresAt = time.Duration(ttl)*time.Millisecond, expires.Time
	return lease, nil
}

// known tells whether an instance of this relay has ever led: each leaves its mark in relay_member.
func (s *Store) known(ctx context.Context) (known bool, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM relay_member WHERE relay = ?)", s.relay).Scan(&known)
	if err != nil {
		return false, fmt.Errorf("ask whether this relay has run before: %w", err)
	}
	return known, nil
}

// gone is the halt of a relay whose row was deleted.
func (s *Store) gone() *relay.Halt {
	return relay.Haltf(relay.CheckpointGone, "the row %[1]q of relay_checkpoint is gone although this relay has run before: restore it, or "+
		"INSERT INTO relay_checkpoint (relay, holder, epoch) VALUES ('%[1]s', '', 0) to begin anew where START says", s.relay)
}

// expiry is the expression for expires_at: what people see, in the database's time.
const expiry = "UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND"

// Acquire implements relay.Leases.
//
// Invariant: the row has changed hands only if nobody changed it since it was seen.
func (s *Store) Acquire(ctx context.Context, seen relay.Lease) (relay.Lease, relay.Position, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return relay.Lease{}, relay.Position{}, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing

	result, err := tx.ExecContext(ctx, `UPDATE relay_checkpoint SET epoch = epoch + 1, beat = beat + 1, saves = 0, holder = ?, lease_ms = ?,
		expires_at = `+expiry+` WHERE relay = ? AND epoch = ? AND beat = ?`,
		s.holder, s.ttl.Milliseconds(), s.ttl.Microseconds(), s.relay, seen.Epoch, seen.Beat)
	if err := found(result, err, "take the lease"); err != nil {
		return relay.Lease{}, relay.Position{}, err
	}
	lease := relay.Lease{Epoch: seen.Epoch + 1, Beat: seen.Beat + 1, Holder: s.holder, TTL: s.ttl}
	var text sql.NullString
	var sum sql.NullInt64
	err = tx.QueryRowContext(ctx, "SELECT paused, position, crc32 FROM relay_checkpoint WHERE relay = ?", s.relay).Scan(&lease.Paused, &text, &sum)
	if err != nil {
		return relay.Lease{}, relay.Position{}, fmt.Errorf("load the checkpoint: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return relay.Lease{}, relay.Position{}, fmt.Errorf("commit: %w", err)
	}
	if !text.Valid {
		return lease, relay.Position{}, nil
	}
	from, err := decode(text.String, uint32(sum.Int64))
	if err != nil {
		return lease, relay.Position{}, relay.Haltf(relay.CheckpointBad, "the row %q of relay_checkpoint: %w; give it another place with "+
			"`cdc position set`, or set its position to NULL and start again to begin anew where START says", s.relay, err)
	}
	return lease, from, nil
}

// Renew implements relay.Leases.
func (s *Store) Renew(ctx context.Context, epoch uint64) error {
	result, err := s.db.ExecContext(ctx, "UPDATE relay_checkpoint SET beat = beat + 1, expires_at = "+expiry+" WHERE relay = ? AND epoch = ? AND holder = ?",
		s.ttl.Microseconds(), s.relay, epoch, s.holder)
	return s.missing(ctx, found(result, err, "renew the lease"))
}

// Release implements relay.Leases.
func (s *Store) Release(ctx context.Context, epoch uint64) error {
	result, err := s.db.ExecContext(ctx, "UPDATE relay_checkpoint SET holder = '', expires_at = UTC_TIMESTAMP(6) WHERE relay = ? AND epoch = ? AND holder = ?",
		s.relay, epoch, s.holder)
	return found(result, err, "hand the lease over")
}

// Pause implements relay.Checkpoints.
func (s *Store) Pause(ctx context.Context, epoch uint64, paused bool) error {
	result, err := s.db.ExecContext(ctx, "UPDATE relay_checkpoint SET paused = ? WHERE relay = ? AND epoch = ? AND holder = ?", paused, s.relay, epoch, s.holder)
	return found(result, err, "store the pause")
}

// found makes ErrFenced of a statement that found no row of its epoch.
func found(result sql.Result, err error, what string) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if n == 0 {
		return relay.ErrFenced
	}
	return nil
}

// missing tells a row that was deleted from one that another instance has.
func (s *Store) missing(ctx context.Context, err error) error {
	if !errors.Is(err, relay.ErrFenced) {
		return err
	}
	if _, looked := s.look(ctx); errors.Is(looked, sql.ErrNoRows) {
		return s.gone()
	}
	return err
}

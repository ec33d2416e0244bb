package relaytest

import (
	"context"
	"sync"
	"time"

	"tailbox/cdc/relay"
)

// Row is the row that all instances of a relay share, in memory.
type Row struct {
	mu      sync.Mutex
	lease   relay.Lease
	place   relay.Position
	saves   int
	deleted bool
	// Check, if set, is called with each place before it is stored.
	Check func(relay.Position)
}

// Saved is the place that was saved last, and how often any was.
func (r *Row) Saved() (relay.Position, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.place, r.saves
}

// Set makes a place the one that was saved last.
func (r *Row) Set(place relay.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.place = place
}

// Lease is the lease as the row has it.
func (r *Row) Lease() relay.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lease
}

// Delete deletes the row, or brings it back as new.
func (r *Row) Delete(deleted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deleted = deleted; !deleted {
		r.lease, r.place = relay.Lease{}, relay.Position{}
	}
}

// Store is one instance's way to the row. It breaks on demand.
type Store struct {
	row  *Row
	name string
	ttl  time.Duration

	mu     sync.Mutex
	broken bool
	full   bool
}

var _ relay.Store = (*Store)(nil)

// Store gives the instance of that name its way to the row.
func (r *Row) Store(name string, ttl time.Duration) *Store {
	return &Store{row: r, name: name, ttl: ttl}
}

// Break makes every call fail, or work again.
func (s *Store) Break(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

// Fill makes every call that writes wait for its context to end, as on a disk that is full, or work again.
func (s *Store) Fill(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// write runs f on the row, unless the way is broken or the disk is full.
func (s *Store) write(ctx context.Context, f func(row *Row) error) error {
	s.mu.Lock()
	full := s.full
	s.mu.Unlock()
	if full {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.reach(f)
}

// reach runs f on the row, unless the way is broken.
func (s *Store) reach(f func(row *Row) error) error {
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	if broken {
		return ErrBroken
	}
	s.row.mu.Lock()
	defer s.row.mu.Unlock()
	if s.row.deleted {
		return relay.Haltf(relay.CheckpointGone, "the row was deleted on demand")
	}
	return f(s.row)
}

// fenced runs f on the row if the epoch is the newest and was given to this instance.
func (s *Store) fenced(ctx context.Context, epoch uint64, f func(row *Row)) error {
	return s.write(ctx, func(row *Row) error {
		if row.lease.Epoch != epoch || row.lease.Holder != s.name {
			return relay.ErrFenced
		}
		f(row)
		return nil
	})
}

// Look implements relay.Leases.
func (s *Store) Look(context.Context) (lease relay.Lease, err error) {
	err = s.reach(func(row *Row) error { lease = row.lease; return nil })
	return lease, err
}

// Acquire implements relay.Leases.
func (s *Store) Acquire(ctx context.Context, seen relay.Lease) (lease relay.Lease, from relay.Position, err error) {
	err = s.write(ctx, func(row *Row) error {
		if row.lease.Epoch != seen.Epoch || row.lease.Beat != seen.Beat {
			return relay.ErrFenced
		}
		row.lease = relay.Lease{Epoch: seen.Epoch + 1, Beat: seen.Beat + 1, Holder: s.name, TTL: s.ttl, Paused: row.lease.Paused}
		lease, from = row.lease, row.place
		return nil
	})
	return lease, from, err
}

// Renew implements relay.Leases.
func (s *Store) Renew(ctx context.Context, epoch uint64) error {
	return s.fenced(ctx, epoch, func(row *Row) { row.lease.Beat++ })
}

// Release implements relay.Leases.
func (s *Store) Release(ctx context.Context, epoch uint64) error {
	return s.fenced(ctx, epoch, func(row *Row) { row.lease.Holder = "" })
}

// Pause implements relay.Checkpoints.
func (s *Store) Pause(ctx context.Context, epoch uint64, paused bool) error {
	return s.fenced(ctx, epoch, func(row *Row) { row.lease.Paused = paused })
}

// Save implements relay.Checkpoints.
func (s *Store) Save(ctx context.Context, epoch uint64, place relay.Position, _ string) error {
	return s.fenced(ctx, epoch, func(row *Row) {
		if row.Check != nil {
			row.Check(place)
		}
		row.place = place
		row.saves++
	})
}

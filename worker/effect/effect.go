// Package effect owns the table `customer_profiles`, a read model of customers that is built from their events alone.
// Its caller owns the transaction, commits it together with the inbox row, and decides what happens to an event that is
// too early, too late or not to be understood; the errors of this package say which it is.
//
// What holds after a crash: `version` is the version of the last event applied and `events_applied` has grown by one for
// each of them, because an event is applied only on top of the version before it, under the lock of the profile's row.
package effect

import (
	"context"
	"database/sql"

	"tailbox/schema"
)

// Types of the events that change a profile.
const (
	CustomerCreated = "CustomerCreated"
	CustomerUpdated = "CustomerUpdated"
	CustomerDeleted = "CustomerDeleted"
)

// Handlers returns what applies each type of event. A handler returns nil after it applied the event, *DuplicateError,
// *GapError or *RefusedError when it wrote nothing, or the database's error.
func Handlers() map[string]func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
	return map[string]func(ctx context.Context, tx *sql.Tx, event schema.Event) error{
		CustomerCreated: store,
		CustomerUpdated: store,
		CustomerDeleted: remove,
	}
}

func store(ctx context.Context, tx *sql.Tx, event schema.Event) error {
	customer, err := decode(event)
	if err != nil {
		return err
	}
	if err := customer.complete(); err != nil {
		return err
	}
	return apply(ctx, tx, event, active, customer)
}

func remove(ctx context.Context, tx *sql.Tx, event schema.Event) error {
	customer, err := decode(event)
	if err != nil {
		return err
	}
	return apply(ctx, tx, event, deleted, customer)
}

// apply writes the profile that follows from the event.
func apply(ctx context.Context, tx *sql.Tx, event schema.Event, status status, customer customer) error {
	for {
		before, err := lock(ctx, tx, event)
		if err != nil {
			return err
		}
		if err := inOrder(ctx, tx, event, before); err != nil {
			return err
		}
		after := before.next(event, status, customer)
		if before.exists {
			return after.update(ctx, tx)
		}
		raced, err := after.insert(ctx, tx)
		if !raced {
			return err
		}
		// Another transaction made the row since it was looked for, which locks nothing when there is none. It is
		// there now, so that the second look locks it.
	}
}

// inOrder holds an event against the version of the last one applied. Version 0 is from a writer that keeps none.
//
// Invariant: events of an aggregate with versions are applied in the order of their versions, without a gap but for those
// that were dropped.
func inOrder(ctx context.Context, tx *sql.Tx, event schema.Event, before profile) error {
	version := event.AggregateVersion
	switch {
	case version == 0:
		return nil
	case version <= before.version, before.dropped:
		return &DuplicateError{Version: version, Current: before.version}
	case version == before.version+1:
		return nil
	}
	next, err := nextVersion(ctx, tx, event.AggregateID, before.version)
	if err != nil || next == version {
		return err
	}
	return &GapError{Version: version, Missing: next}
}

package effect

import (
	"context"
	"database/sql"
	"fmt"

	"tailbox/deploy/ops"
	"tailbox/schema"
)

type status string

const (
	active  status = "active"
	deleted status = "deleted"
)

// mysqlTime is a DATETIME(6) literal: as text, a time cannot be shifted by the session's time zone.
const mysqlTime = "2006-01-02 15:04:05.000000"

// duplicateKey is MySQL's ER_DUP_ENTRY.
const duplicateKey = 1062

// profile is one row of customer_profiles.
type profile struct {
	customerID  string
	email, name string
	status      status
	version     uint64
	lastEventID string
	updatedAt   string
	exists      bool // in the table
	dropped     bool // the event's version was given up
}

// lock reads the profile and holds its row until the transaction ends. FOR UPDATE reads what was committed last, whatever
// the isolation level, so that no update made meanwhile is lost.
func lock(ctx context.Context, tx *sql.Tx, event schema.Event) (profile, error) {
	var dropped bool
	var email, name sql.NullString
	var version sql.Null[uint64]
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT * FROM dropped_versions WHERE customer_id = ? AND version = ?), p.email, p.name, p.version
		FROM (SELECT 1) one LEFT JOIN customer_profiles p ON p.customer_id = ? FOR UPDATE`,
		event.AggregateID, event.AggregateVersion, event.AggregateID).Scan(&dropped, &email, &name, &version)
	if err != nil {
		return profile{}, fmt.Errorf("lock profile: %w", err)
	}
	return profile{
		customerID: event.AggregateID, email: email.String, name: name.String, version: version.V,
		exists: version.Valid, dropped: dropped,
	}, nil
}

// next is the profile after the event. What the payload leaves out stays; the time is the event's, so that building the
// read model anew gives the same rows.
func (p profile) next(event schema.Event, status status, customer customer) profile {
	if customer.Email != nil {
		p.email = *customer.Email
	}
	if customer.Name != nil {
		p.name = *customer.Name
	}
	if event.AggregateVersion != 0 {
		p.version = event.AggregateVersion
	}
	p.status = status
	p.lastEventID = event.ID
	p.updatedAt = event.CreatedAt.UTC().Format(mysqlTime)
	return p
}

// insert tells in raced that another transaction has inserted the profile meanwhile.
func (p profile) insert(ctx context.Context, tx *sql.Tx) (raced bool, err error) {
	_, err = tx.ExecContext(ctx, `INSERT INTO customer_profiles
		(customer_id, email, name, status, version, events_applied, last_event_id, updated_at)
		VALUES (?, ?, ?, ?, ?, 1, ?, ?)`,
		p.customerID, p.email, p.name, string(p.status), p.version, p.lastEventID, p.updatedAt)
	if ops.MySQLCode(err) == duplicateKey {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("insert profile: %w", err)
	}
	return false, nil
}

func (p profile) update(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `UPDATE customer_profiles
		SET email = ?, name = ?, status = ?, version = ?, events_applied = events_applied + 1, last_event_id = ?, updated_at = ?
		WHERE customer_id = ?`,
		p.email, p.name, string(p.status), p.version, p.lastEventID, p.updatedAt, p.customerID)
	if err != nil {
		return fmt.Errorf("update profile: %w", err)
	}
	return nil
}

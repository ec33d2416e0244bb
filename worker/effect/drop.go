package effect

import (
	"context"
	"database/sql"
	"fmt"

	"tailbox/deploy/ops"
	"tailbox/schema"
)

// Drop notes that the event's version will not be applied, because a person gave the event up: what comes after is applied on
// top of what was before it. `version` of the profile stays that of the last event applied. It may come at any time.
func Drop(ctx context.Context, tx *sql.Tx, event schema.Event) error {
	if event.AggregateVersion == 0 || !fits(event.AggregateID) { // nothing waits for it, or can be of such a customer
		return nil
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO dropped_versions (customer_id, version, event_id, dropped_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))",
		event.AggregateID, event.AggregateVersion, event.ID)
	if err != nil && ops.MySQLCode(err) != duplicateKey {
		return fmt.Errorf("note dropped version: %w", err)
	}
	return nil
}

// nextVersion is the version that has to be applied on top of the current one: the first that was not dropped.
func nextVersion(ctx context.Context, tx *sql.Tx, customerID string, current uint64) (uint64, error) {
	rows, err := tx.QueryContext(ctx, "SELECT version FROM dropped_versions WHERE customer_id = ? AND version > ? ORDER BY version", customerID, current)
	if err != nil {
		return 0, fmt.Errorf("read dropped versions: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells more
	next := current + 1
	for rows.Next() {
		var dropped uint64
		if err := rows.Scan(&dropped); err != nil {
			return 0, fmt.Errorf("read dropped versions: %w", err)
		}
		if dropped != next {
			break
		}
		next++
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("read dropped versions: %w", err)
	}
	return next, nil
}

package quarantine

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// Holds tells which of the events are in quarantine, of whichever relay: their outbox rows are still needed.
func Holds(ctx context.Context, db *sql.DB, eventIDs []string) (held map[string]bool, err error) {
	if len(eventIDs) == 0 {
		return nil, nil
	}
	ids, keys := make(map[string]string, len(eventIDs)), make([]any, len(eventIDs))
	for i, id := range eventIDs {
		sum := key(id)
		ids[string(sum)], keys[i] = id, sum
	}
	rows, err := db.QueryContext(ctx, "SELECT event_key FROM relay_quarantine WHERE event_key IN (?"+strings.Repeat(", ?", len(keys)-1)+")", keys...)
	if err != nil {
		return nil, fmt.Errorf("look for events in the quarantine: %w", err)
	}
	defer rows.Close()
	held = map[string]bool{}
	for rows.Next() {
		var sum []byte
		if err := rows.Scan(&sum); err != nil {
			return nil, fmt.Errorf("look for events in the quarantine: %w", err)
		}
		held[ids[string(sum)]] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look for events in the quarantine: %w", err)
	}
	return held, nil
}

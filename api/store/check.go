package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// TablesMissingError is returned by Check when the database answers but has not been migrated. The operator starts one
// api with MIGRATE set, or migrates by hand.
type TablesMissingError struct {
	Tables []string
}

func (e *TablesMissingError) Error() string {
	return "tables are missing: " + strings.Join(e.Tables, ", ")
}

// Check asks the database whether the store can work: nil, *TablesMissingError, or ErrUnavailable. It needs no right on
// the tables beyond those that the statements of this package need.
func (s *Store) Check(ctx context.Context) error {
	rows, err := s.db.QueryContext(ctx, "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() "+
		"AND table_name IN ('customers', 'idempotency_keys', 'outbox')")
	if err != nil {
		return wrap("check tables", err)
	}
	defer func() { _ = rows.Close() }()

	missing := []string{"customers", "idempotency_keys", "outbox"}
	for rows.Next() {
		var found string
		if err := rows.Scan(&found); err != nil {
			return wrap("check tables", err)
		}
		missing = slices.DeleteFunc(missing, func(table string) bool { return table == found })
	}
	if err := rows.Err(); err != nil {
		return wrap("check tables", err)
	}
	if len(missing) > 0 {
		return fmt.Errorf("check tables: %w", &TablesMissingError{Tables: missing})
	}
	return nil
}

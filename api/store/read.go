package store

import (
	"context"
	"database/sql"
	"errors"
)

const columns = "id, email, name, version, created_at, updated_at"

// Get returns one customer, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (Customer, error) {
	c, err := scan(s.db.QueryRowContext(ctx, "SELECT "+columns+" FROM customers WHERE id = ?", id))
	return c, wrap("get customer", err)
}

// List returns at most limit customers, the newest first: ids are UUIDv7, so their order is that of creation. With an id
// in after it goes on behind that one, whether or not it still exists; an empty after begins at the newest.
func (s *Store) List(ctx context.Context, after string, limit int) ([]Customer, error) {
	query, args := "SELECT "+columns+" FROM customers", []any{limit}
	if after != "" {
		query, args = query+" WHERE id < ?", []any{after, limit}
	}
	rows, err := s.db.QueryContext(ctx, query+" ORDER BY id DESC LIMIT ?", args...)
	if err != nil {
		return nil, wrap("list customers", err)
	}
	defer func() { _ = rows.Close() }()

	customers := make([]Customer, 0, limit)
	for rows.Next() {
		c, err := scan(rows)
		if err != nil {
			return nil, wrap("list customers", err)
		}
		customers = append(customers, c)
	}
	return customers, wrap("list customers", rows.Err())
}

// lock reads one customer and keeps others from changing it until the transaction ends.
//
// Invariant: a version is only raised under this lock, so the events of one customer carry 1, 2, 3 ... in commit order.
func lock(ctx context.Context, tx *sql.Tx, id string) (Customer, error) {
	return scan(tx.QueryRowContext(ctx, "SELECT "+columns+" FROM customers WHERE id = ? FOR UPDATE", id))
}

func scan(row interface{ Scan(dest ...any) error }) (Customer, error) {
	var c Customer
	err := row.Scan(&c.ID, &c.Email, &c.Name, &c.Version, &c.CreatedAt, &c.UpdatedAt)
	if errors.Is(err, sql.ErrNoRows) {
		return Customer{}, ErrNotFound
	}
	return c, err
}

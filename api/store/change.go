package store

import (
	"context"
	"database/sql"
	"time"
)

// Create inserts a customer as given and its CustomerCreated event. The headers travel with the event; they may be nil.
func (s *Store) Create(ctx context.Context, c Customer, headers map[string]string) error {
	return wrap("create customer", transact(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		return insert(ctx, tx, c, headers)
	}))
}

func insert(ctx context.Context, tx *sql.Tx, c Customer, headers map[string]string) error {
	if _, err := tx.ExecContext(ctx, "INSERT INTO customers ("+columns+") VALUES (?, ?, ?, ?, ?, ?)",
		c.ID, c.Email, c.Name, c.Version, c.CreatedAt, c.UpdatedAt); err != nil {
		return err
	}
	return record(ctx, tx, CustomerCreated, c, headers)
}

// Update changes a customer, raises its version and writes CustomerUpdated; it returns the customer as it is afterwards.
// A change to the values that are there already raises nothing and writes nothing. With a version in expect, a customer
// of any other version is left alone: ErrStale. ErrNotFound when there is none.
func (s *Store) Update(ctx context.Context, id string, change Change, expect *uint64, headers map[string]string) (Customer, error) {
	var now Customer
	err := transact(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		before, err := expected(ctx, tx, id, expect)
		if err != nil {
			return err
		}
		if now = apply(before, change); now == before {
			return nil
		}
		now.raise()
		if _, err := tx.ExecContext(ctx, "UPDATE customers SET email = ?, name = ?, version = ?, updated_at = ? WHERE id = ?",
			now.Email, now.Name, now.Version, now.UpdatedAt, now.ID); err != nil {
			return err
		}
		return record(ctx, tx, CustomerUpdated, now, headers)
	})
	if err != nil {
		return Customer{}, wrap("update customer", err)
	}
	return now, nil
}

// Delete removes a customer and writes CustomerDeleted with the last values, the next version and the time of deletion.
// It minds expect as Update does, and returns ErrNotFound when there is nothing to delete.
func (s *Store) Delete(ctx context.Context, id string, expect *uint64, headers map[string]string) error {
	return wrap("delete customer", transact(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		c, err := expected(ctx, tx, id, expect)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM customers WHERE id = ?", id); err != nil {
			return err
		}
		c.raise()
		return record(ctx, tx, CustomerDeleted, c, headers)
	}))
}

func expected(ctx context.Context, tx *sql.Tx, id string, expect *uint64) (Customer, error) {
	c, err := lock(ctx, tx, id)
	if err != nil {
		return Customer{}, err
	}
	if expect != nil && *expect != c.Version {
		return Customer{}, ErrStale
	}
	return c, nil
}

func apply(c Customer, change Change) Customer {
	if change.Email != nil {
		c.Email = *change.Email
	}
	if change.Name != nil {
		c.Name = *change.Name
	}
	return c
}

// raise makes the next version. Time never runs backwards for one customer, even when the clocks of two servers differ.
func (c *Customer) raise() {
	c.Version++
	if now := time.Now().UTC().Truncate(time.Microsecond); now.After(c.UpdatedAt) {
		c.UpdatedAt = now
	}
}

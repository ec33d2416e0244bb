package retention

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// sweep deletes marked rows, batch by batch, for as long as this process leads.
func (s *Sweeper) sweep(ctx context.Context, m *marked) error {
	for batch := range slices.Chunk(m.rows, batchRows) {
		if _, leading := s.cfg.Checkpoint(); !leading {
			return nil
		}
		began := time.Now()
		if err := s.delete(ctx, m, batch); err != nil {
			return err
		}
		select {
		case <-time.After(time.Since(began)):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (s *Sweeper) delete(ctx context.Context, m *marked, batch []row) error {
	names := make([]string, len(batch))
	for i, r := range batch {
		names[i] = r.text
	}
	// The quarantine has an event before the checkpoint passes it.
	held, err := s.cfg.Held(ctx, names)
	if err != nil {
		return err
	}
	var ids []any
	for _, r := range batch {
		if !held[r.text] {
			ids = append(ids, r.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	query := fmt.Sprintf("DELETE FROM %s WHERE %s IN (?%s)", s.cfg.Outbox.Quoted(), quote(s.table.id), strings.Repeat(", ?", len(ids)-1))
	if s.table.created != "" {
		s.aged(m, func(condition string, values ...any) {
			query, ids = query+" AND "+condition, append(ids, values...)
		})
	}
	deleted, err := s.run(ctx, query, ids)
	if err != nil {
		return s.refused(err)
	}
	s.deleted.Add(uint64(deleted))
	return nil
}

// run deletes in a transaction that locks the rows alone, not the gaps between them, where the application inserts.
func (s *Sweeper) run(ctx context.Context, query string, args []any) (deleted int64, err error) {
	conn, err := s.cfg.DB.Conn(ctx)
	if err != nil {
		return 0, fmt.Errorf("connect to the source: %w", err)
	}
	defer func() { _ = conn.Close() }() // back to the pool
	if _, err := conn.ExecContext(ctx, "SET SESSION time_zone = '+00:00'"); err != nil {
		return 0, fmt.Errorf("prepare to delete outbox rows: %w", err)
	}
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return 0, fmt.Errorf("prepare to delete outbox rows: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	result, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	if deleted, err = result.RowsAffected(); err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	return deleted, nil
}

// refused tells a missing right, which only a person can give.
func (s *Sweeper) refused(err error) error {
	const tableDenied = 1142
	if refusal, ok := errors.AsType[*mysql.MySQLError](err); ok && refusal.Number == tableDenied {
		return s.cfg.mayNotDelete()
	}
	return fmt.Errorf("delete outbox rows: %w", err)
}

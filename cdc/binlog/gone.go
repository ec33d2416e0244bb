package binlog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tailbox/cdc/outbox"
	"tailbox/cdc/relay"
)

// goneBatch is how many ids are looked up at a time.
const goneBatch = 500

// gone counts the events whose rows are not in the outbox table: only the binlog has what the application deleted itself, be
// it in the transaction that inserted it.
type gone struct {
	q     queryer
	id    string // its column
	table Table
	batch map[string]bool
	rows  uint64
}

// onlyInBinlog counts the events behind a place that a snapshot would not send.
func (r *Reader) onlyInBinlog(ctx context.Context, s *server, from relay.Position, within time.Duration) (Count, error) {
	mapping, err := outbox.NewMapping(s.columns)
	if err != nil {
		return Count{}, err
	}
	id, _ := mapping.Column("id")
	end, err := r.latest(ctx, s)
	if err != nil {
		return Count{}, err
	}
	// What is before the end can be seen in the table, and without GTIDs a transaction behind it shows that it was reached.
	if err := r.cfg.Fence(ctx); err != nil {
		return Count{}, fmt.Errorf("wait for commits to become visible: %w", err)
	}
	files, err := binlogFiles(ctx, s.q)
	if err != nil {
		return Count{}, err
	}
	goal, err := newGoal(s, files, from, end)
	if err != nil || goal.reached(from) {
		return Count{}, err
	}
	g := &gone{q: s.q, id: id, table: r.cfg.Outbox, batch: map[string]bool{}}
	whole, err := r.readUpTo(ctx, goal, from, within, func(row relay.Row) error {
		g.batch[row.Event.ID] = true
		if len(g.batch) < goneBatch {
			return nil
		}
		return g.lookUp(ctx)
	})
	if err == nil {
		err = g.lookUp(ctx)
	}
	return Count{Rows: g.rows, AtLeast: !whole}, err
}

// lookUp counts those of the batch that have no row, and begins the next one.
func (g *gone) lookUp(ctx context.Context) error {
	if len(g.batch) == 0 {
		return nil
	}
	var ids []any
	for id := range g.batch {
		ids = append(ids, id)
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(ids)), ", ")
	var there uint64
	query := fmt.Sprintf("SELECT COUNT(DISTINCT `%[1]s`) FROM %[2]s WHERE `%[1]s` IN (%[3]s)", g.id, g.table.Quoted(), marks)
	if err := g.q.QueryRowContext(ctx, query, ids...).Scan(&there); err != nil {
		return fmt.Errorf("look for rows in the outbox table: %w", err)
	}
	g.rows += uint64(len(ids)) - min(there, uint64(len(ids)))
	clear(g.batch)
	return nil
}

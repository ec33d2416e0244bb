package binlog

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"tailbox/cdc/outbox"
	"tailbox/cdc/relay"
)

// fillTimeout is how long the server may take to sort the table, and how long it waits for a relay that is held back by the
// broker.
const fillTimeout = 10 * time.Minute

// fill delivers what the table holds, of what was created since then, and gives the place to stream from. START=snapshot and
// a repair do it.
//
// The place is taken first, then the fence makes all before it visible, then the table is read: what is committed in
// between is in both and is sent twice, never missed. If it breaks off, the next one begins from the first row again.
func (r *Reader) fill(ctx context.Context, s *server, since time.Time, deliver func(relay.Row) error) (relay.Position, error) {
	from, err := r.latest(ctx, s)
	if err != nil {
		return from, err
	}
	if err := r.cfg.Fence(ctx); err != nil {
		return from, fmt.Errorf("wait for commits to become visible: %w", err)
	}

	cfg := r.cfg.Server.Clone()
	cfg.ReadTimeout = fillTimeout
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return from, fmt.Errorf("prepare to read the outbox table: %w", err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return from, fmt.Errorf("connect to read the outbox table: %w", err)
	}
	defer conn.Close()
	if err := s.holdsTable(ctx, conn); err != nil {
		return from, err
	}
	// A TIMESTAMP is compared, and read, in the session's time zone.
	set := fmt.Sprintf("SET SESSION net_write_timeout = %d, SESSION time_zone = '+00:00'", int(fillTimeout.Seconds()))
	if _, err := conn.ExecContext(ctx, set); err != nil {
		return from, fmt.Errorf("prepare to read the outbox table: %w", err)
	}
	// Whatever the server's default is: only what is committed may be sent.
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted, ReadOnly: true})
	if err != nil {
		return from, fmt.Errorf("prepare to read the outbox table: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // it only read
	return from, r.readTable(ctx, tx, s, since, label(from), deliver)
}

// ageless is the time of an event whose row does not tell it. It is as old as a time can be: a consumer that remembers
// for a while what it has applied must not take it for a new one.
var ageless = time.Unix(0, 0).UTC()

func (r *Reader) readTable(ctx context.Context, tx *sql.Tx, s *server, since time.Time, label string, deliver func(relay.Row) error) error {
	mapping, err := r.mappingFor(s.columns)
	if err != nil {
		return err
	}
	query, args := tableQuery(s.columns, r.cfg.Outbox, mapping, since)
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read the outbox table: %w", err)
	}
	defer rows.Close()

	r.hears.Store(true)
	defer r.hears.Store(false)
	values := make([]any, len(s.columns))
	into := make([]any, len(s.columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("read the outbox table: %w", err)
		}
		event, err := mapping.Event(values, ageless)
		if err != nil {
			return relay.Haltf(relay.SchemaMismatch, "a row of %s cannot be read: %w", r.cfg.Outbox, err)
		}
		row := relay.Row{Seq: r.ledger.row(0), Event: event, Position: label, CommittedAt: event.CreatedAt}
		if event.CreatedAt.Equal(ageless) {
			row.CommittedAt = time.Now().UTC() // for the lag
		}
		if err := deliver(row); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the outbox table: %w", err)
	}
	return nil
}

// tableQuery reads the rows that were created since then, all at the zero time, in the order in which they are sent.
func tableQuery(columns []string, table Table, mapping *outbox.Mapping, since time.Time) (query string, args []any) {
	// By name: a star leaves invisible columns out, which the binlog has.
	query = "SELECT `" + strings.Join(columns, "`, `") + "` FROM " + table.Quoted()
	if created, dated := mapping.Column("created_at"); dated && !since.IsZero() {
		query += fmt.Sprintf(" WHERE `%[1]s` >= ? OR `%[1]s` IS NULL", created)
		args = append(args, since.UTC().Format("2006-01-02 15:04:05.000000"))
	}
	return query + " ORDER BY " + tableOrder(mapping), args
}

// tableOrder sorts by time, and within an aggregate by version: a row is placed by the latest time among the versions up to
// its own, so that a writer whose clock is behind cannot put a version before the one it followed.
func tableOrder(m *outbox.Mapping) string {
	id, _ := m.Column("id")
	kind, _ := m.Column("aggregate_type")
	aggregate, _ := m.Column("aggregate_id")
	version, versioned := m.Column("aggregate_version")
	created, dated := m.Column("created_at")
	switch {
	case versioned && dated:
		return fmt.Sprintf("MAX(`%[4]s`) OVER (PARTITION BY `%[1]s`, `%[2]s` ORDER BY `%[3]s`), `%[3]s`, `%[5]s`", kind, aggregate, version, created, id)
	case versioned:
		return fmt.Sprintf("`%s`, `%s`", version, id)
	case dated:
		return fmt.Sprintf("`%s`, `%s`", created, id)
	}
	return fmt.Sprintf("`%s`", id)
}

// label is a place as messages carry it.
func label(p relay.Position) string {
	return fmt.Sprintf("%s:%d", p.File, p.Pos)
}

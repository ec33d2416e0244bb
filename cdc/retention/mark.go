package retention

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
)

// marked are rows that may be deleted once the checkpoint is behind the end.
type marked struct {
	rows    []row
	horizon string // they are older; empty where age does not matter
	unsent  string // and not older than this
	end     binlog.Mark
}

type row struct {
	id   any
	text string // the id as the event has it
}

// cursor is the row up to which the table was looked through. A pass goes from the oldest row to the youngest; rows that are
// left (those in quarantine) do not hold up the rest.
type cursor struct {
	created string
	id      any
}

// mark reads the next rows that are old enough, and then the end of the binlog.
func (s *Sweeper) mark(ctx context.Context, saved relay.Position) error {
	conn, err := s.cfg.DB.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect to the source: %w", err)
	}
	defer func() { _ = conn.Close() }() // back to the pool
	if err := s.look(ctx, conn); err != nil {
		return err
	}
	m := &marked{}
	if err := s.passOver(m, saved); err != nil {
		return err
	}
	if s.cfg.Keep > 0 {
		ask := "SELECT DATE_FORMAT(UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND, '%Y-%m-%d %H:%i:%s.%f')"
		if err := conn.QueryRowContext(ctx, ask, s.cfg.Keep.Microseconds()).Scan(&m.horizon); err != nil {
			return fmt.Errorf("ask for the server's time: %w", err)
		}
	}
	more, err := s.read(ctx, conn, m)
	if err != nil {
		return err
	}
	if !more {
		s.from = cursor{}
	}
	if len(m.rows) == 0 {
		s.swept, s.sweptAt = saved, time.Now()
		return nil
	}
	m.end, err = s.cfg.Source.Mark(ctx, conn)
	if errors.Is(err, binlog.ErrMarkLost) {
		s.drop() // there is no stream of this server's at the moment
		return nil
	}
	if err != nil {
		return fmt.Errorf("mark the end of the binlog: %w", err)
	}
	s.marked = m
	return nil
}

// passOver keeps rows that START=latest passed over from being swept.
func (s *Sweeper) passOver(m *marked, saved relay.Position) error {
	m.unsent = text(saved.Unsent)
	if m.unsent != "" && s.table.created == "" {
		return &finding{
			problem: fmt.Sprintf("START=latest passed over rows of %s, and without a column created_at nobody knows which", s.cfg.Outbox),
			mend:    "set RETENTION=off, or add the column",
		}
	}
	return nil
}

// read reads rows behind the cursor into m, and tells whether there may be more.
func (s *Sweeper) read(ctx context.Context, conn *sql.Conn, m *marked) (more bool, err error) {
	// A TIMESTAMP is compared in the session's time zone.
	if _, err := conn.ExecContext(ctx, "SET SESSION time_zone = '+00:00'"); err != nil {
		return false, fmt.Errorf("prepare to read the outbox table: %w", err)
	}
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted, ReadOnly: true})
	if err != nil {
		return false, fmt.Errorf("prepare to read the outbox table: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	query, args := s.query(m)
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return false, fmt.Errorf("read the outbox table: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to its end, or given up
	binary, err := isBinary(rows)
	if err != nil {
		return false, fmt.Errorf("read the outbox table: %w", err)
	}
	for rows.Next() {
		var id any
		var created sql.NullString
		if err := rows.Scan(&id, &created); err != nil {
			return false, fmt.Errorf("read the outbox table: %w", err)
		}
		r := rowOf(id, binary)
		m.rows = append(m.rows, r)
		s.from = cursor{created: created.String, id: r.id}
	}
	if err := rows.Err(); err != nil {
		return false, fmt.Errorf("read the outbox table: %w", err)
	}
	return len(m.rows) == markRows, nil
}

// query asks for the ids of rows behind the cursor that are old enough, oldest first.
func (s *Sweeper) query(m *marked) (query string, args []any) {
	id, created := quote(s.table.id), quote(s.table.created)
	var where []string
	add := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	if s.table.created == "" {
		query = fmt.Sprintf("SELECT %s, NULL FROM %s", id, s.cfg.Outbox.Quoted())
		if s.from.id != nil {
			add(id+" > ?", s.from.id)
		}
	} else {
		query = fmt.Sprintf("SELECT %s, DATE_FORMAT(%s, '%%Y-%%m-%%d %%H:%%i:%%s.%%f') FROM %s", id, created, s.cfg.Outbox.Quoted())
		s.aged(m, add)
		if s.from.id != nil {
			add(fmt.Sprintf("%s >= ? AND (%s > ? OR %s > ?)", created, created, id), s.from.created, s.from.created, s.from.id)
		}
		created += ", "
	}
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	order := id
	if s.table.created != "" {
		order = created + id
	}
	return query + fmt.Sprintf(" ORDER BY %s LIMIT %d", order, markRows), args
}

// aged adds the conditions on the age of a row, which the sweep repeats.
func (s *Sweeper) aged(m *marked, add func(condition string, values ...any)) {
	created := quote(s.table.created)
	if m.horizon != "" {
		add(created+" < ?", m.horizon)
	}
	if m.unsent != "" {
		add(created+" >= ?", m.unsent)
	}
}

// isBinary tells whether the ids are bytes; if not, bytes that the driver gives are a text.
func isBinary(rows *sql.Rows) (bool, error) {
	types, err := rows.ColumnTypes()
	if err != nil {
		return false, err
	}
	kind := types[0].DatabaseTypeName()
	return strings.Contains(kind, "BINARY") || strings.Contains(kind, "BLOB"), nil
}

func rowOf(id any, binary bool) row {
	switch id := id.(type) {
	case []byte:
		if binary {
			return row{id: id, text: string(id)}
		}
		return row{id: string(id), text: string(id)}
	case int64:
		return row{id: id, text: strconv.FormatInt(id, 10)}
	case uint64:
		return row{id: id, text: strconv.FormatUint(id, 10)}
	default:
		return row{id: id, text: fmt.Sprint(id)}
	}
}

// text is a time as a DATETIME(6), empty for none.
func text(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.000000")
}

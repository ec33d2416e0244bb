package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"tailbox/cdc/relay"
)

// ErrMarkLost says that whether a mark is passed can no longer be told: the stream went to another server, or to another
// place. Who has marked something marks it anew.
var ErrMarkLost = errors.New("the mark is of another server or stream")

// Mark is the end of the server's binlog at one moment, by file and offset: they are exact, while a server counts a GTID as
// executed only after its transaction can be seen.
type Mark struct {
	server string
	file   string
	pos    uint64
	term   uint64 // of the ledger
}

// Mark marks the end of the binlog of the server that conn is connected to. A server writes a transaction to its binlog before
// anybody can see it, so the mark is behind every transaction that was seen on conn before. It returns ErrMarkLost where
// the stream is not of this server's binlog.
func (r *Reader) Mark(ctx context.Context, conn *sql.Conn) (Mark, error) {
	read, term, ok := r.ledger.whereabouts()
	if !ok || read.File == "" {
		return Mark{}, ErrMarkLost
	}
	uuid, err := identity(ctx, conn)
	if err != nil {
		return Mark{}, err
	}
	files, err := binlogFiles(ctx, conn)
	if err != nil {
		return Mark{}, err
	}
	if len(files) == 0 {
		return Mark{}, fmt.Errorf("the server lists no binlog files")
	}
	end := files[len(files)-1]
	mark := Mark{server: uuid, file: end.Name, pos: end.Size, term: term}
	// The stream notices a reset only when it breaks. What it has read already would be behind the mark's file and offset, or the
	// server would not know it.
	if uuid != read.ServerUUID || !reached(end.Name, end.Size, read.File, read.Pos) {
		return Mark{}, ErrMarkLost
	}
	return mark, r.known(ctx, conn, read)
}

// known makes sure that the server has what was read.
func (r *Reader) known(ctx context.Context, conn *sql.Conn, read relay.Position) error {
	known := true
	switch {
	case !read.GTID:
	case read.Flavor == mySQL:
		if err := conn.QueryRowContext(ctx, "SELECT GTID_SUBSET(?, @@GLOBAL.gtid_executed)", read.GTIDSet).Scan(&known); err != nil {
			return fmt.Errorf("compare the server's GTIDs: %w", err)
		}
	default:
		var logged string
		if err := conn.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_binlog_state").Scan(&logged); err != nil {
			return fmt.Errorf("compare the server's GTIDs: %w", err)
		}
		seen, err := compareDomains(read.GTIDSet, logged)
		known = err == nil && seen == everything
	}
	if !known {
		return ErrMarkLost
	}
	return nil
}

// Passed tells whether a checkpoint is behind every transaction before the mark that may have outbox rows, or returns
// ErrMarkLost.
func (r *Reader) Passed(checkpoint relay.Position, m Mark) (bool, error) {
	return r.ledger.passed(checkpoint, m)
}

// whereabouts is how far was read, and in which term: each begins at a place that has nothing to do with those of the term
// before. It is false where there is no place yet.
func (l *ledger) whereabouts() (read relay.Position, term uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known {
		return read, 0, false
	}
	return l.position(l.read, l.rows, l.open), l.term, true
}

// passed compares a checkpoint with a mark. The relay's own transactions are no progress, so an idle relay's checkpoint never
// reaches the end of the binlog: it is enough that all up to the mark was read, and that the checkpoint is behind the last
// transaction of those that was not the relay's own.
func (l *ledger) passed(checkpoint relay.Position, m Mark) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != m.term || l.known && l.server != m.server {
		return false, ErrMarkLost
	}
	if !l.known || checkpoint.ServerUUID != m.server {
		return false, nil
	}
	if reached(checkpoint.File, checkpoint.Pos, m.file, m.pos) {
		return true, nil
	}
	return reached(l.read.name, l.read.pos, m.file, m.pos) && reached(checkpoint.File, checkpoint.Pos, l.foreign.name, l.foreign.pos), nil
}

// reached tells whether a place in a server's binlog is at, or behind, another one.
func reached(file string, pos uint64, other string, otherPos uint64) bool {
	if file == "" || other == "" {
		return false
	}
	return file == other && pos >= otherPos || after(file, other)
}

// identity is the uuid of the server that answers.
func identity(ctx context.Context, q queryer) (string, error) {
	rows, err := q.QueryContext(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uuid', 'server_uid', 'server_id')")
	if err != nil {
		return "", fmt.Errorf("ask which server it is: %w", err)
	}
	defer rows.Close()
	variables := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return "", fmt.Errorf("ask which server it is: %w", err)
		}
		variables[strings.ToLower(name)] = value
	}
	return identityOf(variables), rows.Err()
}

// identityOf is what a server's files and offsets belong to. MariaDB has a server_uid; before 10.6 nothing but its number.
func identityOf(variables map[string]string) string {
	for _, name := range []string{"server_uuid", "server_uid"} {
		if uuid := variables[name]; uuid != "" {
			return uuid
		}
	}
	return numbered + variables["server_id"]
}

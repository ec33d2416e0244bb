package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Flavours of server.
const (
	mySQL   = "mysql"
	mariaDB = "mariadb"
)

// numbered is what the identity of a server begins with that has none but its number.
const numbered = "server_id-"

// server is what one connection told about the server it reached. It is asked anew on every connect: behind a name or a
// proxy another server may answer, with other settings.
type server struct {
	q         queryer // the connection that told it, for more questions
	flavor    string
	version   string
	uuid      string // identity of the server that its files and offsets belong to
	identity  string // expression that gives it
	encrypted bool   // the connection is
	gtid      bool   // transactions have GTIDs
	foldCase  bool   // table names are compared without case
	variables map[string]string
	columns   []string // of the outbox table, empty if it does not exist or cannot be seen
	details   []column // the same, with their types
	engine    string   // of the outbox table
	dumpError error    // why the user may not read the binlog
	doDB      string   // binlog_do_db and binlog_ignore_db, which are no variables
	ignoreDB  string
	replica   bool // it has a source of its own; only asked where it matters
}

// inspect asks the server for all that preflight and the dump need.
func (r *Reader) inspect(ctx context.Context, q queryer) (*server, error) {
	s := &server{q: q, variables: map[string]string{}}
	if err := q.QueryRowContext(ctx, "SELECT VERSION()").Scan(&s.version); err != nil {
		return nil, fmt.Errorf("ask for the server's version: %w", err)
	}
	s.flavor = mySQL
	if strings.Contains(strings.ToLower(s.version), mariaDB) {
		s.flavor = mariaDB
	}
	if err := s.readVariables(ctx, q); err != nil {
		return nil, err
	}
	if err := s.readTable(ctx, q, r.cfg.Outbox); err != nil {
		return nil, err
	}
	if _, err := binlogFiles(ctx, q); err != nil {
		if !refusesBinlog(err) {
			return nil, err
		}
		s.dumpError = err
	}
	if err := s.readFilters(ctx, q); err != nil {
		return nil, err
	}
	cipher, err := firstRow(ctx, q, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
	if err != nil {
		return nil, fmt.Errorf("ask whether the connection is encrypted: %w", err)
	}
	s.encrypted = cipher["value"] != ""
	return s, nil
}

func (s *server) readVariables(ctx context.Context, q queryer) error {
	rows, err := q.QueryContext(ctx, `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format',
		'binlog_row_image', 'binlog_row_metadata', 'binlog_checksum', 'gtid_mode', 'server_uuid', 'server_uid', 'server_id',
		'lower_case_table_names', 'sync_binlog', 'innodb_flush_log_at_trx_commit', 'read_only',
		'binlog_expire_logs_seconds', 'binlog_expire_logs_auto_purge', 'expire_logs_days',
		'log_slave_updates', 'log_replica_updates')`)
	if err != nil {
		return fmt.Errorf("ask for the server's variables: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return fmt.Errorf("read the server's variables: %w", err)
		}
		s.variables[strings.ToLower(name)] = value
	}
	if old, has := s.variables["log_slave_updates"]; has { // its name before MySQL 8.0.26, and MariaDB's
		s.variables["log_replica_updates"] = old
	}
	s.foldCase = s.variables["lower_case_table_names"] != "0"
	s.gtid = s.flavor == mariaDB || s.variables["gtid_mode"] == "ON"
	s.uuid = identityOf(s.variables)
	switch {
	case s.flavor == mySQL:
		s.identity = "@@GLOBAL.server_uuid"
	case s.variables["server_uid"] != "":
		s.identity = "@@GLOBAL.server_uid"
	default:
		s.identity = "CONCAT('" + numbered + "', @@GLOBAL.server_id)"
	}
	return rows.Err()
}

// expiry is the age at which the server purges binlog files, 0 if it does not.
func (s *server) expiry() time.Duration {
	if s.variables["binlog_expire_logs_auto_purge"] == "OFF" {
		return 0
	}
	if seconds, err := strconv.ParseInt(s.variables["binlog_expire_logs_seconds"], 10, 64); err == nil {
		return time.Duration(seconds) * time.Second
	}
	days, _ := strconv.ParseFloat(s.variables["expire_logs_days"], 64) // 0 where there is no such variable
	return time.Duration(days * 24 * float64(time.Hour))
}

func (s *server) readTable(ctx context.Context, q queryer, table Table) error {
	rows, err := q.QueryContext(ctx, `SELECT c.column_name, c.data_type, COALESCE(c.character_set_name, ''), COALESCE(t.engine, '')
		FROM information_schema.columns c JOIN information_schema.tables t
		  ON t.table_schema = c.table_schema AND t.table_name = c.table_name
		WHERE c.table_schema = ? AND c.table_name = ? ORDER BY c.ordinal_position`, table.Schema, table.Name)
	if err != nil {
		return fmt.Errorf("ask for the outbox table's columns: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.name, &c.kind, &c.charset, &s.engine); err != nil {
			return fmt.Errorf("read the outbox table's columns: %w", err)
		}
		c.kind = strings.ToLower(c.kind)
		s.columns, s.details = append(s.columns, c.name), append(s.details, c)
	}
	return rows.Err()
}

// readFilters asks for what keeps changes out of the binlog. A user who may not ask learns nothing, and is told of the
// missing right by another check.
func (s *server) readFilters(ctx context.Context, q queryer) error {
	status, err := firstRow(ctx, q, "SHOW BINARY LOG STATUS")
	if isNumber(err, syntaxError) {
		status, err = firstRow(ctx, q, "SHOW MASTER STATUS")
	}
	if err != nil && !refusesBinlog(err) {
		return fmt.Errorf("ask for the binlog's filters: %w", err)
	}
	s.doDB, s.ignoreDB = status["binlog_do_db"], status["binlog_ignore_db"]

	if s.variables["log_replica_updates"] != "OFF" {
		return nil
	}
	source, err := firstRow(ctx, q, "SHOW REPLICA STATUS")
	if err != nil && !refusesBinlog(err) && !isNumber(err, syntaxError) {
		return fmt.Errorf("ask for the server's own source: %w", err)
	}
	s.replica = len(source) > 0
	return nil
}

// queryer is *sql.Conn or *sql.DB.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

const syntaxError = 1064 // what a server says to a statement that it does not know

func isNumber(err error, number uint16) bool {
	refused, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && refused.Number == number
}

// firstRow is the first row of an answer by its columns' names in lower case, which differ between servers, and empty for
// no row.
func firstRow(ctx context.Context, q queryer, query string) (map[string]string, error) {
	all, err := allRows(ctx, q, query)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// allRows is an answer whose columns differ between servers.
func allRows(ctx context.Context, q queryer, query string) (all []map[string]string, err error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := map[string]string{}
		for i, name := range columns {
			row[strings.ToLower(name)] = values[i].String
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// binlogFile is one file of the server's binlog, and its size in bytes.
type binlogFile struct {
	Name string
	Size uint64
}

// binlogFiles lists the files that the server still has, oldest first. The end of the last one is the end of the binlog.
func binlogFiles(ctx context.Context, q queryer) ([]binlogFile, error) {
	rows, err := q.QueryContext(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return nil, fmt.Errorf("list the binlog files: %w", err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, fmt.Errorf("list the binlog files: %w", err)
	}
	var files []binlogFile
	for rows.Next() {
		var f binlogFile
		into := []any{&f.Name, &f.Size}
		for range columns[2:] { // MySQL has a third column, Encrypted
			into = append(into, new(sql.RawBytes))
		}
		if err := rows.Scan(into...); err != nil {
			return nil, fmt.Errorf("list the binlog files: %w", err)
		}
		files = append(files, f)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list the binlog files: %w", err)
	}
	return files, nil
}

// executed is every transaction that the server has: a GTID set as text.
func (s *server) executed(ctx context.Context, q queryer) (set string, err error) {
	query := "SELECT @@GLOBAL.gtid_executed"
	if s.flavor == mariaDB {
		query = "SELECT @@GLOBAL.gtid_binlog_pos"
	}
	if err := q.QueryRowContext(ctx, query).Scan(&set); err != nil {
		return "", fmt.Errorf("ask for the server's GTIDs: %w", err)
	}
	return strings.ReplaceAll(set, "\n", ""), nil
}

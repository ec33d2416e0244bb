package binlog

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// Flavours of server.
const (
	mySQL   = "mysql"
	mariaDB = "mariadb"
)

// server is what one connection told about the server it reached. It is asked anew on every connect: behind a name or a
// proxy another server may answer, with other settings.
type server struct {
	flavor    string
	version   string
	uuid      string // identity of the server that its files and offsets belong to
	gtid      bool   // transactions have GTIDs
	foldCase  bool   // table names are compared without case
	variables map[string]string
	columns   []string // of the outbox table, empty if it does not exist or cannot be seen
	engine    string   // of the outbox table
	dumpError error    // why the user may not read the binlog
}

// inspect asks the server for all that preflight and the dump need.
func (r *Reader) inspect(ctx context.Context) (*server, error) {
	conn, err := r.cfg.DB.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the source: %w", err)
	}
	defer conn.Close()

	s := &server{variables: map[string]string{}}
	if err := conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&s.version); err != nil {
		return nil, fmt.Errorf("ask for the server's version: %w", err)
	}
	s.flavor = mySQL
	if strings.Contains(strings.ToLower(s.version), mariaDB) {
		s.flavor = mariaDB
	}
	if err := s.readVariables(ctx, conn); err != nil {
		return nil, err
	}
	if err := s.readTable(ctx, conn, r.cfg.Outbox); err != nil {
		return nil, err
	}
	if _, err := binlogFiles(ctx, conn); err != nil {
		if !refusesBinlog(err) {
			return nil, err
		}
		s.dumpError = err
	}
	return s, nil
}

func (s *server) readVariables(ctx context.Context, conn *sql.Conn) error {
	rows, err := conn.QueryContext(ctx, `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format',
		'binlog_row_image', 'binlog_row_metadata', 'gtid_mode', 'server_uuid', 'server_uid', 'server_id',
		'lower_case_table_names', 'sync_binlog', 'innodb_flush_log_at_trx_commit')`)
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
	s.foldCase = s.variables["lower_case_table_names"] != "0"
	s.gtid = s.flavor == mariaDB || s.variables["gtid_mode"] == "ON"
	s.uuid = s.variables["server_uuid"]
	if s.flavor == mariaDB {
		s.uuid = s.variables["server_uid"]
		if s.uuid == "" { // before 10.6 a MariaDB server has no identity but its number
			s.uuid = "server_id-" + s.variables["server_id"]
		}
	}
	return rows.Err()
}

func (s *server) readTable(ctx context.Context, conn *sql.Conn, table Table) error {
	rows, err := conn.QueryContext(ctx, `SELECT c.column_name, COALESCE(t.engine, '')
		FROM information_schema.columns c JOIN information_schema.tables t
		  ON t.table_schema = c.table_schema AND t.table_name = c.table_name
		WHERE c.table_schema = ? AND c.table_name = ? ORDER BY c.ordinal_position`, table.Schema, table.Name)
	if err != nil {
		return fmt.Errorf("ask for the outbox table's columns: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var column string
		if err := rows.Scan(&column, &s.engine); err != nil {
			return fmt.Errorf("read the outbox table's columns: %w", err)
		}
		s.columns = append(s.columns, column)
	}
	return rows.Err()
}

// queryer is *sql.Conn or *sql.DB.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
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

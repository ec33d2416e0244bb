package binlog_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
	"tailbox/schema"
)

// TestEveryStatementDeliversExactlyTheRowsThatWereCommitted runs all of statementCases on servers of their own: with and
// without GTIDs (MariaDB always has them), with and without compression of the binlog, and once more on a binlog that is
// made of 4 KiB files without checksums and is rotated all the time, on a server in another time zone.
func TestEveryStatementDeliversExactlyTheRowsThatWereCommitted(t *testing.T) {
	t.Parallel()
	with := ownServer(t)
	modes := []struct {
		name   string
		server *stack.MySQL
	}{{"GTID", with}}
	if with.Flavor() == stack.FlavorMySQL {
		modes = append(modes, struct {
			name   string
			server *stack.MySQL
		}{"file and position", ownServer(t, "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--binlog-row-event-max-size=256")})
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t, mode.server, mode.name == "GTID" && with.Flavor() == stack.FlavorMySQL)
			t.Run("plain", m.run)
			t.Run("cuts", m.cuts)
			m.compress(t)
			t.Run("compressed", m.run)
			m.roughen(t)
			t.Run("rough", m.run)
		})
	}
}

// ownServer is a private database that a test may change as it likes, stopped at its end.
func ownServer(t *testing.T, options ...string) *stack.MySQL {
	t.Helper()
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "tailbox-binlog-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	server, err := stack.NewMySQL(t.Context(), stack.Config{Dir: dir, Set: set, Log: os.Stderr, MySQLOptions: options})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = server.Kill() // the data is thrown away
		require.NoError(t, server.Stop(context.Background()))
	})
	require.NoError(t, server.Start(t.Context()))
	return server
}

// matrix runs the cases on one server, one after the other.
type matrix struct {
	server   *stack.MySQL
	root     *sql.DB
	enforced bool // GTID consistency
	rough    bool

	compressed bool
}

func newMatrix(t *testing.T, server *stack.MySQL, enforced bool) *matrix {
	t.Helper()
	root, err := sql.Open("mysql", server.DSN(""))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	m := &matrix{server: server, root: root, enforced: enforced}
	root.SetMaxIdleConns(0) // each statement in a session that begins with the global settings of the moment
	m.exec(t, "SET GLOBAL local_infile=ON", "SET GLOBAL log_bin_trust_function_creators=ON", "SET GLOBAL max_allowed_packet=67108864", "SET GLOBAL max_connections=5000")
	return m
}

func (m *matrix) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := m.root.ExecContext(t.Context(), s)
		require.NoError(t, err, s)
	}
}

func (m *matrix) compress(t *testing.T) {
	t.Helper()
	m.compressed = true
	if m.server.Flavor() == stack.FlavorMariaDB {
		m.exec(t, "SET GLOBAL log_bin_compress=ON", "SET GLOBAL log_bin_compress_min_len=10")
		return
	}
	m.exec(t, "SET GLOBAL binlog_transaction_compression=ON")
}

// isCompressed looks into the binlog: compressed is compressed.
func (m *matrix) isCompressed(t *testing.T) {
	t.Helper()
	var file, kind string
	var skip sql.RawBytes
	m.exec(t, "FLUSH BINARY LOGS", "INSERT INTO m.outbox SELECT 'z', 'c', '1', 1, 'T', CONCAT('\"', REPEAT('x', 1000), '\"'), NULL, NOW()")
	row, err := m.root.QueryContext(t.Context(), "SHOW BINARY LOGS")
	require.NoError(t, err)
	defer row.Close()
	columns, err := row.Columns()
	require.NoError(t, err)
	for row.Next() {
		require.NoError(t, row.Scan(append([]any{&file}, slices.Repeat([]any{&skip}, len(columns)-1)...)...))
	}
	require.NoError(t, row.Err())
	events, err := m.root.QueryContext(t.Context(), "SHOW BINLOG EVENTS IN '"+file+"'")
	require.NoError(t, err)
	defer events.Close()
	found := false
	for events.Next() {
		require.NoError(t, events.Scan(&skip, &skip, &kind, &skip, &skip, &skip))
		found = found || kind == "Transaction_payload" || kind == "Write_rows_compressed_v1"
	}
	require.NoError(t, events.Err())
	require.Equal(t, m.compressed, found)
}

func (m *matrix) roughen(t *testing.T) {
	t.Helper()
	m.exec(t, "SET GLOBAL max_binlog_size=4096", "SET GLOBAL binlog_checksum=NONE", "SET GLOBAL time_zone='+05:30'")
	m.rough = true
}

// run is all cases in the state that the server is in.
func (m *matrix) run(t *testing.T) {
	defer m.isCompressed(t)
	if m.rough {
		stop := m.rotate(t)
		defer stop()
	}
	for _, c := range statementCases {
		if c.only != "" && c.only != m.server.Flavor() || c.free && m.enforced {
			continue
		}
		t.Run(c.name, func(t *testing.T) { m.one(t, c) })
	}
}

// rotate makes the server begin a new binlog file all the time.
func (m *matrix) rotate(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = m.root.ExecContext(ctx, "FLUSH BINARY LOGS") // only the context ends it
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return func() { cancel(); <-done }
}

// one runs one case in a fresh database, while a reader streams.
func (m *matrix) one(t *testing.T, c statementCase) {
	m.exec(t, "DROP DATABASE IF EXISTS m", "CREATE DATABASE m CHARACTER SET utf8mb4", outboxTable)
	server, err := mysql.ParseDSN(m.server.DSN("m"))
	require.NoError(t, err)
	db, err := sql.Open("mysql", m.server.DSN("m"))
	require.NoError(t, err)
	defer db.Close()
	reader := binlog.New(binlog.Config{Server: server, DB: db, Start: binlog.StartLatest, Fence: unfenced,
		Outbox: binlog.Table{Schema: "m", Name: "outbox"}, Own: []binlog.Table{{Schema: "m", Name: "relay_checkpoint"}}})
	reader.Begin(relay.Position{})
	stream := follow(t, reader)

	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	rows := &rowMaker{}
	for _, statement := range c.run {
		rows.execute(t, conn, statement)
	}
	want := strings.Fields(c.want)
	if c.halts != "" {
		events, err := stream.end()
		halt := (*relay.Halt)(nil)
		require.ErrorAs(t, err, &halt)
		require.Equal(t, c.halts, halt.Reason, halt.Error())
		require.Equal(t, want, eventIDs(events))
		return
	}
	rows.execute(t, conn, "INSERT INTO outbox VALUES {last}")
	events := stream.until("last")
	require.Equal(t, append(want, "last"), eventIDs(events))
	if c.updates != either {
		require.Equal(t, c.updates, int(reader.Read().Notes.Updates))
	}
	m.compare(t, db, events, strings.Fields(c.changed))
}

// compare holds the events against a SELECT: each row of the table is there, and equal in every field unless it was changed.
func (m *matrix) compare(t *testing.T, db *sql.DB, events []schema.Event, changed []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT id, aggregate_type, aggregate_id, aggregate_version, type, payload, headers, created_at FROM outbox")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var e schema.Event
		var headers sql.NullString
		require.NoError(t, rows.Scan(&e.ID, &e.AggregateType, &e.AggregateID, &e.AggregateVersion, &e.Type, &e.Payload, &headers, &e.CreatedAt))
		if headers.Valid {
			e.Headers = map[string]string{"x": "y"}
		}
		i := slices.IndexFunc(events, func(event schema.Event) bool { return event.ID == e.ID })
		require.GreaterOrEqual(t, i, 0, "row %s was not delivered", e.ID)
		if len(slices.DeleteFunc(slices.Clone(events), func(event schema.Event) bool { return event.ID != e.ID })) == 1 && !slices.Contains(changed, e.ID) {
			require.Equal(t, e, events[i])
		}
	}
	require.NoError(t, rows.Err())
}

// outboxTable is the table of migration 002, whose columns the cases may change.
const outboxTable = `CREATE TABLE m.outbox (
  id                CHAR(36)        CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  aggregate_type    VARCHAR(100)    NOT NULL,
  aggregate_id      VARCHAR(255)    NOT NULL,
  aggregate_version BIGINT UNSIGNED NOT NULL,
  type              VARCHAR(150)    NOT NULL,
  payload           LONGTEXT        NOT NULL,
  headers           TEXT            NULL,
  created_at        DATETIME(6)     NOT NULL,
  PRIMARY KEY (id),
  CONSTRAINT outbox_payload_is_json CHECK (JSON_VALID(payload))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`

// rowMaker turns {id} into the values of a row.
type rowMaker struct{ made int }

var rowMark = regexp.MustCompile(`\{([a-z]+)(?:\*([0-9]+))?\}`)

// execute runs a statement; behind ! it has to fail, behind ? the server may not know it.
func (m *rowMaker) execute(t *testing.T, conn *sql.Conn, statement string) {
	t.Helper()
	text := strings.TrimLeft(statement, "!?")
	text = rowMark.ReplaceAllStringFunc(text, m.values)
	if strings.Contains(text, "Reader::rows") {
		name := schema.NewID() // the driver's names are everybody's
		mysql.RegisterReaderHandler(name, m.file)
		defer mysql.DeregisterReaderHandler(name)
		text = strings.ReplaceAll(text, "Reader::rows", "Reader::"+name)
	}
	if strings.HasPrefix(text, "PREPARE") {
		head, body, _ := strings.Cut(text, "'")
		text = head + "'" + strings.ReplaceAll(strings.TrimSuffix(body, "'"), "'", "''") + "'"
	}
	_, err := conn.ExecContext(t.Context(), text)
	switch {
	case strings.HasPrefix(statement, "!"):
		require.Error(t, err, statement)
	case !strings.HasPrefix(statement, "?"):
		require.NoError(t, err, statement)
	}
}

func (m *rowMaker) values(mark string) string {
	parts := rowMark.FindStringSubmatch(mark)
	n, err := strconv.Atoi(parts[2])
	if err != nil {
		return m.row(parts[1])
	}
	var rows []string
	for i := range n {
		rows = append(rows, m.row(rowName(parts[1], i)))
	}
	return strings.Join(rows, ",")
}

func (m *rowMaker) row(id string) string {
	m.made++
	payload := fmt.Sprintf(`{"n":"%s","text":"Zoë 🚀 %d"}`, id, m.made)
	for kind, size := range map[string]int{"big": 5000, "huge": 1 << 20, "immense": 20 << 20} {
		if strings.HasPrefix(id, kind) {
			payload = fmt.Sprintf(`{"n":"%s"}`, strings.Repeat("x", size))
		}
	}
	return fmt.Sprintf(`('%s','customer','%d',%d,'T','%s','{"x":"y"}','2026-03-29 02:30:00.%06d')`, id, m.made, m.made, payload, m.made)
}

// file is what LOAD DATA reads, more than one block of it.
func (m *rowMaker) file() io.Reader {
	var b bytes.Buffer
	for i := range 30 {
		m.made++
		fmt.Fprintf(&b, "%s\tcustomer\t%d\t%d\tT\t{\"n\":%d%9000s}\t{\"x\":\"y\"}\t2026-03-29 02:30:00.5\n", rowName("load", i), m.made, m.made, i, "")
	}
	return &b
}

func rowName(id string, i int) string { return id + strconv.Itoa(i+1) }

// followed is a stream that is read in the background.
type followed struct {
	t      *testing.T
	cancel context.CancelFunc
	events chan schema.Event
	ended  chan error
	seen   []schema.Event
}

// follow streams until the end of the test, and returns when the reader has a place.
func follow(t *testing.T, reader *binlog.Reader) *followed {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &followed{t: t, cancel: cancel, events: make(chan schema.Event, 1000), ended: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.ended <- reader.Stream(ctx, func(row relay.Row) error {
			select {
			case f.events <- row.Event:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	require.Eventually(t, func() bool { _, _, ok := reader.Confirmed(0); return ok }, 30*time.Second, time.Millisecond)
	return f
}

var errTooLate = errors.New("nothing came for a long time")

// until reads up to the event of that id.
func (f *followed) until(id string) []schema.Event {
	f.t.Helper()
	for {
		select {
		case e := <-f.events:
			f.seen = append(f.seen, e)
			if e.ID == id {
				return f.seen
			}
		case err := <-f.ended:
			require.NoError(f.t, err, "after %v", eventIDs(f.seen))
		case <-time.After(20 * time.Second):
			require.NoError(f.t, errTooLate, "after %v", eventIDs(f.seen))
		}
	}
}

// end reads until the stream ends by itself.
func (f *followed) end() ([]schema.Event, error) {
	f.t.Helper()
	for {
		select {
		case e := <-f.events:
			f.seen = append(f.seen, e)
		case err := <-f.ended:
			for len(f.events) > 0 {
				f.seen = append(f.seen, <-f.events)
			}
			return f.seen, err
		case <-time.After(20 * time.Second):
			return f.seen, errTooLate
		}
	}
}

func eventIDs(events []schema.Event) []string {
	ids := []string{}
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

package binlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
	"tailbox/schema/schematest"
)

var update = flag.Bool("update", false, "write testdata/binlogs anew, from the servers that SERVERS names")

// corpusEvents are the outbox rows in each file of the corpus, in their order.
var corpusEvents = []string{"a", "b1", "b2", "c", "d", "e", "last"}

// TestTheCorpusIsRead reads the binlogs that the fuzzer begins with: small ones of both servers, without checksums, which a
// fuzzer cannot get right, of every kind of event that they write here.
func TestTheCorpusIsRead(t *testing.T) {
	t.Parallel()
	if *update {
		writeCorpus(t)
	}
	for _, flavor := range []string{mySQL, mariaDB} {
		content, err := os.ReadFile(corpusFile(flavor))
		require.NoError(t, err)
		p := newPath(flavor)
		require.NoError(t, p.read(content))
		var ids []string
		for _, row := range p.rows {
			ids = append(ids, row.Event.ID)
		}
		require.Equal(t, corpusEvents, ids, flavor)
	}
}

func corpusFile(flavor string) string { return filepath.Join("testdata", "binlogs", flavor+".binlog") }

// writeCorpus records one binlog file of the present server.
func writeCorpus(t *testing.T) {
	t.Helper()
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "tailbox-corpus-")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	server, err := stack.NewMySQL(t.Context(), stack.Config{Dir: dir, Set: set, Log: os.Stderr,
		MySQLOptions: []string{"--binlog-checksum=NONE", "--loose-log-bin-compress-min-len=10"}})
	require.NoError(t, err)
	defer func() {
		_ = server.Kill() // the data is thrown away
		require.NoError(t, server.Stop(t.Context()))
	}()
	require.NoError(t, server.Start(t.Context()))
	db := schematest.Open(t, server.DSN(""))
	db.SetMaxOpenConns(1)
	compress := map[string]string{mySQL: "SET binlog_transaction_compression = ", mariaDB: "SET GLOBAL log_bin_compress = "}[server.Flavor()]
	for _, statement := range []string{
		"FLUSH BINARY LOGS", "CREATE DATABASE m CHARACTER SET utf8mb4", "USE m",
		"CREATE TABLE other (a INT PRIMARY KEY, b VARCHAR(9), c DATETIME(6), d DECIMAL(10,2), e ENUM('x','y'), f BLOB, g DOUBLE, h BIT(9), i JSON)",
		"CREATE TABLE plain (a INT) ENGINE=MyISAM",
		"CREATE TABLE outbox (id CHAR(36) PRIMARY KEY, aggregate_type VARCHAR(64), aggregate_id VARCHAR(64), aggregate_version BIGINT UNSIGNED, " +
			"type VARCHAR(64), payload JSON, headers TEXT, created_at DATETIME(6), seen TIMESTAMP(3) NULL)",
		row("a"), "INSERT INTO other VALUES (1, 'x', NOW(6), 1.5, 'y', 'z', 0.1, b'101', '{\"a\": [1, 2.5, null, true]}')",
		"BEGIN", row("b1"), "SAVEPOINT s", row("x"), "UPDATE other SET b = 'y', i = JSON_SET(i, '$.a[0]', 9)",
		row("b2"), "COMMIT",
		"INSERT INTO plain VALUES (1)", "BEGIN", row("c"), "DELETE FROM outbox WHERE id = 'c'", "COMMIT",
		compress + "ON", row("d"), "UPDATE other SET b = 'z'", compress + "OFF",
		"ALTER TABLE outbox ADD COLUMN extra INT FIRST", "INSERT INTO outbox (id, aggregate_type, aggregate_id, type, payload, created_at) VALUES ('e', 't', 'a', 'T', '{}', NOW(6))",
		"UPDATE outbox SET type = 'U'", "TRUNCATE other",
		"INSERT INTO outbox (id, aggregate_type, aggregate_id, type, payload, created_at) VALUES ('last', 't', 'a', 'T', '{\"n\":1.0}', NOW(6))",
		"FLUSH BINARY LOGS",
	} {
		if strings.Contains(statement, "'x', 't'") { // the row that a savepoint takes back
			_, err = db.ExecContext(t.Context(), statement)
			require.NoError(t, err, statement)
			statement = "ROLLBACK TO s"
		}
		_, err = db.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	content, err := os.ReadFile(filepath.Join(dir, "mysql", "data", "binlog.000002"))
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(corpusFile(mySQL)), 0o755))
	require.NoError(t, os.WriteFile(corpusFile(server.Flavor()), content, 0o644))
}

func row(id string) string {
	return fmt.Sprintf("INSERT INTO outbox VALUES ('%s', 't', 'a', 1, 'T', '{\"n\": 1}', '{\"h\": \"v\"}', NOW(6), NOW(3))", id)
}

// path is what an event goes through: go-mysql's parser, set as for a dump, the unpacker and the handler.
type path struct {
	parser   *replication.BinlogParser
	handler  *handler
	unpacker *unpacker
	rows     []relay.Row
}

func newPath(flavor string) *path {
	r := New(Config{Outbox: Table{"m", "outbox"}, Own: []Table{{"m", "relay_checkpoint"}}})
	from := relay.Position{Flavor: flavor, ServerUUID: "u", GTID: true, File: "binlog.000002", Pos: 4}
	if flavor == mariaDB {
		from.GTIDSet = "0-1-1"
	}
	s := &server{flavor: flavor, gtid: true, uuid: "u"}
	r.Begin(from)
	at, err := r.ledger.resume(s)
	if err != nil {
		panic(err) // of our own making
	}
	p := &path{parser: replication.NewBinlogParser()}
	p.handler = newHandler(context.Background(), r, s, at, func(row relay.Row) error {
		p.rows = append(p.rows, row)
		return nil
	})
	p.unpacker = newUnpacker(flavor, p.handler, p.handler)
	p.parser.SetFlavor(flavor)
	p.parser.SetVerifyChecksum(true)
	p.parser.SetRawMode(true)
	return p
}

// read takes the events of a file, as they would come from a server, to its end or to the first error.
func (p *path) read(file []byte) error {
	const magic = 4
	rest := file[min(magic, len(file)):]
	for len(rest) >= replication.EventHeaderSize {
		size := int(binary.LittleEndian.Uint32(rest[9:]))
		if size < replication.EventHeaderSize || size > len(rest) {
			size = len(rest)
		}
		if tooLong(rest[:size]) {
			return errors.New("a list that is longer than its event")
		}
		if err := p.take(bytes.Clone(rest[:size])); err != nil { // rows may alias it
			return err
		}
		rest = rest[size:]
	}
	return nil
}

// tooLong tells a list of GTIDs that claims to have more than there is room for: go-mysql believes it, and makes up to 4 GiB of
// memory ready. On a real way a checksum stands before that, and this would be no test of anything of ours.
func tooLong(event []byte) bool {
	body := event[replication.EventHeaderSize:]
	if replication.EventType(event[4]) != replication.MARIADB_GTID_LIST_EVENT || len(body) < 4 {
		return false
	}
	return int(binary.LittleEndian.Uint32(body)&(1<<28-1)) > len(body)
}

// take turns a panic of the library into an error, as the library itself does on its goroutine. One of ours is a bug.
func (p *path) take(data []byte) (err error) {
	defer func() {
		recovered := recover()
		if recovered == nil {
			return
		}
		if where := panicked(); strings.HasPrefix(where, "tailbox/") {
			panic(fmt.Sprintf("%v in %s", recovered, where))
		}
		err = fmt.Errorf("panic %v", recovered)
	}()
	raw, err := p.parser.Parse(data)
	if err != nil {
		return err
	}
	return p.unpacker.HandleEvent(raw)
}

// panicked is the function that the panic which is being recovered came from.
func panicked() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	for panicking := false; ; {
		frame, more := frames.Next()
		switch {
		case frame.Function == "runtime.gopanic":
			panicking = true
		case panicking && !strings.HasPrefix(frame.Function, "runtime."):
			return frame.Function
		}
		if !more {
			return ""
		}
	}
}

// hang is how long a few kilobytes may take on a busy machine.
const hang = 10 * time.Second

// FuzzEvents sends changed binlogs of both servers down the path. Whatever they hold: no panic of ours, no hang, an error that
// tells no row, and places that never go back.
func FuzzEvents(f *testing.F) {
	for i, flavor := range []string{mySQL, mariaDB} {
		content, err := os.ReadFile(corpusFile(flavor))
		require.NoError(f, err)
		f.Add(content, i == 1)
	}
	f.Fuzz(func(t *testing.T, file []byte, maria bool) {
		flavor := mySQL
		if maria {
			flavor = mariaDB
		}
		p := newPath(flavor)
		watch := time.AfterFunc(hang, func() { panic("a hang") })
		err := p.read(file)
		watch.Stop()
		if err != nil && len(cut(err).Error()) > 300 {
			t.Fatalf("an error of %d bytes: %q", len(cut(err).Error()), cut(err))
		}
		for i, row := range p.rows {
			if row.Seq != uint64(i+1) {
				t.Fatalf("row %d has the number %d", i+1, row.Seq)
			}
		}
		if place, _, ok := p.handler.reader.Confirmed(uint64(len(p.rows))); ok && place.Pos == 0 && place.File != "" {
			t.Fatalf("a place that is none: %+v", place)
		}
	})
}

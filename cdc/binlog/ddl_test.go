package binlog_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// ddl is a change of the outbox table, or the statements of one that a tool makes.
type ddl struct {
	only       string
	statements []string
}

// ddls are changes under which no event may be lost or garbled: columns go by the names that the binlog has with each row.
var ddls = []ddl{
	{"", []string{"ALTER TABLE outbox ADD COLUMN extra VARCHAR(50) NOT NULL DEFAULT 'x' FIRST"}},
	{"", []string{"ALTER TABLE outbox MODIFY type VARCHAR(200) NOT NULL"}},
	{"", []string{"ALTER TABLE outbox MODIFY created_at DATETIME(6) NOT NULL FIRST"}},
	{"", []string{"ALTER TABLE outbox ADD COLUMN more INT NULL DEFAULT 7, ALGORITHM=INSTANT"}},
	{"", []string{"ALTER TABLE outbox DROP COLUMN extra"}},
	{"", []string{"ALTER TABLE outbox MODIFY payload MEDIUMTEXT NOT NULL, MODIFY headers LONGTEXT NULL"}},
	{"", []string{"ALTER TABLE outbox ADD COLUMN sum DECIMAL(20,4) NOT NULL DEFAULT 1.5, ADD COLUMN day DATE NULL, ADD COLUMN kind ENUM('a','b') NOT NULL DEFAULT 'b', " +
		"ADD COLUMN flags SET('x','y') NULL DEFAULT 'x,y', ADD COLUMN bits BIT(9) NULL DEFAULT b'101', ADD COLUMN raw VARBINARY(20) NULL, ADD COLUMN ratio DOUBLE NULL DEFAULT 0.5"}},
	{"", []string{"ALTER TABLE outbox ADD COLUMN made VARCHAR(300) GENERATED ALWAYS AS (CONCAT(type, '!')) VIRTUAL, ADD COLUMN kept VARCHAR(300) GENERATED ALWAYS AS (CONCAT(type, '?')) STORED"}},
	{"", []string{"ALTER TABLE outbox ADD COLUMN hidden INT NOT NULL DEFAULT 3 INVISIBLE"}},
	{"", []string{"ALTER TABLE outbox ADD INDEX by_time (created_at)", "ALTER TABLE outbox FORCE"}},
	{"", []string{"ALTER TABLE outbox CONVERT TO CHARACTER SET utf8mb4"}},
	{"", []string{"ALTER TABLE outbox DROP COLUMN made, DROP COLUMN kept, DROP COLUMN hidden", "ALTER TABLE outbox PARTITION BY KEY (id) PARTITIONS 3", "ALTER TABLE outbox REMOVE PARTITIONING"}},
	{stack.FlavorMariaDB, []string{"ALTER TABLE outbox ADD SYSTEM VERSIONING", "ALTER TABLE outbox DROP SYSTEM VERSIONING"}},
	{"", onlineCopy}, // the swap that pt-online-schema-change and gh-ost end with
	{"", []string{"ALTER TABLE outbox RENAME TO outbox_away", "ALTER TABLE outbox_away RENAME TO outbox"}},
}

var onlineCopy = []string{
	"CREATE TABLE _outbox_new LIKE outbox",
	"ALTER TABLE _outbox_new ADD COLUMN copied INT NOT NULL DEFAULT 1 FIRST",
	"CREATE TRIGGER pt_osc_ins AFTER INSERT ON outbox FOR EACH ROW REPLACE INTO _outbox_new (id, aggregate_type, aggregate_id, aggregate_version, type, payload, headers, created_at) " +
		"VALUES (NEW.id, NEW.aggregate_type, NEW.aggregate_id, NEW.aggregate_version, NEW.type, NEW.payload, NEW.headers, NEW.created_at)",
	"INSERT IGNORE INTO _outbox_new (id, aggregate_type, aggregate_id, aggregate_version, type, payload, headers, created_at) " +
		"SELECT id, aggregate_type, aggregate_id, aggregate_version, type, payload, headers, created_at FROM outbox",
	"RENAME TABLE outbox TO _outbox_old, _outbox_new TO outbox",
	"DROP TABLE _outbox_old",
}

// TestTheOutboxMayBeAlteredUnderLoad writes while the table is changed in every way, reads along, and reads all of it again
// from a place before the first change.
func TestTheOutboxMayBeAlteredUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader("latest")
	r.Begin(relay.Position{})
	first := b.startLatest(r)
	before, _, ok := r.Confirmed(0)
	require.True(t, ok)
	stream := follow(t, r)

	written := &writer{b: b, enough: make(chan struct{})}
	var group sync.WaitGroup
	group.Go(written.run)
	for i, change := range ddls {
		if change.only != "" && change.only != schematest.Servers(t).MySQL.Flavor() {
			continue
		}
		for _, statement := range change.statements {
			b.exec(statement)
		}
		written.more(t, fmt.Sprintf("change %d", i))
	}
	close(written.enough)
	group.Wait()

	want := append([]string{first}, eventIDs(written.events)...)
	last := want[len(want)-1]
	require.Equal(t, want, eventIDs(stream.until(last)))
	require.Equal(t, written.events, stream.seen[1:], "byte for byte")

	again := b.reader("latest")
	again.Begin(before)
	rows := b.read(again, last, 0)
	for i, row := range rows {
		require.Equal(t, stream.seen[i], row.Event)
	}
}

// writer inserts events, one by one, for as long as it is let.
type writer struct {
	b      *bundle
	enough chan struct{}
	mu     sync.Mutex
	events []schema.Event
}

func (w *writer) run() {
	for i := 0; ; i++ {
		select {
		case <-w.enough:
			return
		default:
		}
		e := schematest.Event(func(e *schema.Event) {
			e.Payload = []byte(fmt.Sprintf(`{"n":%d,"text":"Zoë 🚀"}`, i))
			e.Headers = map[string]string{"n": strings.Repeat("x", i%200)}
		})
		if schema.Insert(w.b.t.Context(), w.b.db, e) != nil {
			continue // the table is away for a moment, in the middle of a swap
		}
		w.mu.Lock()
		w.events = append(w.events, e)
		w.mu.Unlock()
	}
}

// more waits until some more events are written.
func (w *writer) more(t *testing.T, what string) {
	t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.events)
	}
	before := count()
	require.Eventually(t, func() bool { return count() >= before+5 }, 20*time.Second, time.Millisecond, what)
}

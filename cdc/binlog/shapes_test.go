package binlog_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// shape is an outbox table that was made for something else, and what comes of its rows.
type shape struct {
	name    string
	only    string // flavour of server
	columns string
	insert  string
	want    schema.Event
	undated bool // the table has no time of its own
}

const fixedID = "01a212e8-b69f-75b1-ad90-56ca17a718e3"

var shapes = []shape{
	{name: "Debezium's, with JSON in MySQL", only: stack.FlavorMySQL, undated: true,
		columns: "id VARCHAR(36) NOT NULL PRIMARY KEY, aggregatetype VARCHAR(255) NOT NULL, aggregateid VARCHAR(255) NOT NULL, type VARCHAR(255) NOT NULL, payload JSON NOT NULL",
		insert:  `('` + fixedID + `', 'customer', '7', 'Made', '{"b": 1.0, "a": "Zoë 🚀", "list": [1, null, true, 1e3]}')`,
		want:    schema.Event{AggregateID: "7", Payload: []byte(`{"a": "Zoë 🚀", "b": 1.0, "list": [1, null, true, 1000.0]}`)}},
	{name: "Debezium's, with JSON in MariaDB", only: stack.FlavorMariaDB, undated: true,
		columns: "id VARCHAR(36) NOT NULL PRIMARY KEY, aggregatetype VARCHAR(255) NOT NULL, aggregateid VARCHAR(255) NOT NULL, type VARCHAR(255) NOT NULL, payload JSON NOT NULL",
		insert:  `('` + fixedID + `', 'customer', '7', 'Made', '{"b": 1.0, "a":"Zoë 🚀"}')`,
		want:    schema.Event{AggregateID: "7", Payload: []byte(`{"b": 1.0, "a":"Zoë 🚀"}`)}},
	{name: "Debezium's, with a time in the session's zone", columns: "id CHAR(36) NOT NULL PRIMARY KEY, aggregatetype VARCHAR(255) NOT NULL, aggregateid VARCHAR(255) NOT NULL, " +
		"type VARCHAR(255) NOT NULL, payload TEXT NOT NULL, created_at TIMESTAMP(6) NOT NULL",
		insert: `('` + fixedID + `', 'customer', '7', 'Made', '{"a":1}', '2026-07-01 05:30:00.25')`,
		want:   schema.Event{AggregateID: "7", Payload: []byte(`{"a":1}`), CreatedAt: time.Date(2026, 7, 1, 0, 0, 0, 250_000_000, time.UTC)}},
	{name: "bytes, in another order, with numbers", columns: "payload MEDIUMBLOB NOT NULL, created_at DATETIME(3) NOT NULL, type VARCHAR(255) CHARACTER SET utf8mb3 NOT NULL, " +
		"aggregate_id BIGINT UNSIGNED NOT NULL, aggregate_type CHAR(20) NOT NULL, aggregate_version INT UNSIGNED NOT NULL, headers BLOB NULL, id CHAR(36) CHARACTER SET ascii NOT NULL PRIMARY KEY",
		insert: `(X'7B2261223A22FF00227D', '2026-07-01 05:30:00.25', 'Made', 18446744073709551615, 'customer', 4294967295, '{"x":"y"}', '` + fixedID + `')`,
		want: schema.Event{AggregateID: "18446744073709551615", AggregateVersion: 1<<32 - 1, Payload: []byte("{\"a\":\"\xff\x00\"}"), Headers: map[string]string{"x": "y"},
			CreatedAt: time.Date(2026, 7, 1, 5, 30, 0, 250_000_000, time.UTC)}},
	{name: "names in another case", undated: true, columns: "ID CHAR(36) NOT NULL PRIMARY KEY, AggregateType VARCHAR(255) NOT NULL, AggregateId VARCHAR(255) NOT NULL, Type VARCHAR(255) NOT NULL, Payload VARBINARY(500) NOT NULL",
		insert: `('` + fixedID + `', 'customer', '7', 'Made', '{}')`,
		want:   schema.Event{AggregateID: "7", Payload: []byte("{}")}},
}

// TestTablesOfOtherShapesAreReadAsTheyAre: what comes from the binlog, and what comes from the table, is the same event.
func TestTablesOfOtherShapesAreReadAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, s := range shapes {
		if s.only != "" && s.only != schematest.Servers(t).MySQL.Flavor() {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.exec("DROP TABLE outbox")
			b.exec("CREATE TABLE outbox (" + s.columns + ") CHARACTER SET utf8mb4")
			require.Empty(t, b.refused())
			reader := b.reader(binlog.StartLatest)
			reader.Begin(relay.Position{})
			stream := follow(t, reader)
			conn, err := b.db.Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			for _, statement := range []string{"SET time_zone='+05:30'", "INSERT INTO outbox VALUES " + s.insert} {
				_, err = conn.ExecContext(t.Context(), statement)
				require.NoError(t, err)
			}

			want := s.want
			want.ID, want.AggregateType, want.Type = fixedID, "customer", "Made"
			streamed := stream.until(fixedID)[0]
			snapshot := b.reader(binlog.StartSnapshot)
			snapshot.Begin(relay.Position{})
			read := b.read(snapshot, "", 1)[0].Event
			if s.undated {
				require.WithinDuration(t, time.Now(), streamed.CreatedAt, time.Minute, "the commit's")
				require.Zero(t, read.CreatedAt.Unix(), "the table does not tell")
				streamed.CreatedAt, read.CreatedAt = time.Time{}, time.Time{}
			}
			require.Equal(t, want, streamed)
			require.Equal(t, want, read)
		})
	}
}

// TestColumnsThatWouldBeReadWrongAreRefused: the bytes of the binlog would not be what the column means.
func TestColumnsThatWouldBeReadWrongAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("CREATE TABLE template LIKE outbox")
	for change, words := range map[string]string{
		"MODIFY id BINARY(16) NOT NULL":                         "the column id",
		"MODIFY payload LONGTEXT CHARACTER SET latin1 NOT NULL": "latin1",
		"MODIFY type ENUM('Made', 'Gone') NOT NULL":             "enum",
		"MODIFY aggregate_id VARCHAR(200) CHARACTER SET ucs2":   "ucs2",
		"MODIFY created_at DATE NOT NULL":                       "date",
		"RENAME COLUMN type TO kind":                            "lacks the column type",
	} {
		b.exec("DROP TABLE outbox")
		b.exec("CREATE TABLE outbox LIKE template")
		b.exec("ALTER TABLE outbox " + change)
		require.ErrorContains(t, b.refused(), words, change)
	}
}

// refused is what keeps the relay from reading the outbox.
func (b *bundle) refused() relay.Findings {
	b.t.Helper()
	checks, err := b.reader(binlog.StartLatest).Checks(b.t.Context())
	require.NoError(b.t, err)
	return relay.Fatal(checks)
}

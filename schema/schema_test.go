package schema_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tailbox/schema"
	"tailbox/schema/schematest"
)

func TestMain(m *testing.M) { schematest.Main(m) }

func TestMigrateTwiceAtOnceAppliesEachMigrationOnce(t *testing.T) {
	t.Parallel()
	dsn := schematest.EmptyDB(t)
	var applied [4]int
	var group errgroup.Group
	for i := range applied {
		db := schematest.Open(t, dsn)
		group.Go(func() (err error) {
			applied[i], err = schema.Migrate(t.Context(), db)
			return err
		})
	}
	require.NoError(t, group.Wait())
	total := 0
	for _, n := range applied {
		total += n
	}
	files, err := filepath.Glob("sql/*.sql")
	require.NoError(t, err)
	require.Equal(t, len(files), total, "each migration is applied by one of the four")
}

func TestMigrateNeedsADatabaseInTheDSN(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.Servers(t).MySQL.DSN(""))
	_, err := schema.Migrate(t.Context(), db)
	require.ErrorContains(t, err, "MYSQL_DSN names no database")
}

func TestInsertWritesWithTheTransactionOrNotAtAll(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	events := []schema.Event{
		schematest.Event(),
		schematest.Event(func(e *schema.Event) {
			e.ID, e.CreatedAt = "", time.Time{}
			e.Headers = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
		}),
	}

	tx := begin(t, db)
	require.NoError(t, schema.Insert(t.Context(), tx, events...))
	require.NoError(t, tx.Rollback())
	require.Zero(t, count(t, db))

	tx = begin(t, db)
	require.NoError(t, schema.Insert(t.Context(), tx, events...))
	require.NoError(t, tx.Commit())
	require.Equal(t, 2, count(t, db))
	require.Len(t, events[1].ID, 36, "an empty id is filled in for the caller")

	var payload, headers string
	err := db.QueryRowContext(t.Context(), "SELECT payload, headers FROM outbox WHERE id = ?", events[1].ID).Scan(&payload, &headers)
	require.NoError(t, err)
	require.Equal(t, string(events[1].Payload), payload, "byte for byte")
	require.JSONEq(t, `{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}`, headers)
}

func TestInsertRefusesWhatCouldNotBePublished(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*schema.Event)
		want   string
	}{
		"no aggregate":    {func(e *schema.Event) { e.AggregateID = "" }, "aggregate_id is empty"},
		"long type":       {func(e *schema.Event) { e.Type = strings.Repeat("x", 151) }, "type has 151 bytes, at most 150"},
		"not json":        {func(e *schema.Event) { e.Payload = []byte("{") }, "payload is not a JSON text"},
		"big payload":     {func(e *schema.Event) { e.Payload = []byte(`"` + strings.Repeat("x", 1<<20) + `"`) }, "payload has"},
		"not utf-8":       {func(e *schema.Event) { e.AggregateID = "\xff" }, "aggregate_id is not UTF-8"},
		"short id":        {func(e *schema.Event) { e.ID = "1" }, "a UUID has 36"},
		"reserved header": {func(e *schema.Event) { e.Headers = map[string]string{"aggregate_id": "x"} }, "has a meaning of its own"},
		"long header":     {func(e *schema.Event) { e.Headers = map[string]string{strings.Repeat("h", 256): "x"} }, "header name has 256 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := schema.Insert(t.Context(), unused{t}, schematest.Event(test.change))
			require.ErrorContains(t, err, test.want)
		})
	}
}

// unused is a transaction that must not be reached.
type unused struct{ t *testing.T }

func (u unused) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	u.t.Error("an invalid event reached the database")
	return nil, nil
}

func begin(t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	return tx
}

func count(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM outbox").Scan(&n))
	return n
}

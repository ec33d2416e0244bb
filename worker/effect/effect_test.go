package effect_test

import (
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/effect"
)

func TestMain(m *testing.M) { schematest.Main(m) }

// apply handles an event in a transaction of its own.
func apply(t *testing.T, db *sql.DB, level sql.IsolationLevel, e schema.Event) error {
	t.Helper()
	return within(t, db, level, func(tx *sql.Tx) error { return effect.Handlers()[e.Type](t.Context(), tx, e) })
}

// drop gives an event up in a transaction of its own.
func drop(t *testing.T, db *sql.DB, e schema.Event) {
	t.Helper()
	require.NoError(t, within(t, db, sql.LevelDefault, func(tx *sql.Tx) error { return effect.Drop(t.Context(), tx, e) }))
}

func within(t *testing.T, db *sql.DB, level sql.IsolationLevel, do func(*sql.Tx) error) error {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after a commit
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// event is the next one of a customer, whose payload gives the name and an e-mail address made of it.
func event(id string, version uint64, kind, name string) schema.Event {
	return schematest.Event(func(e *schema.Event) {
		e.AggregateID, e.AggregateVersion, e.Type = id, version, kind
		e.Payload = fmt.Appendf(nil, `{"id":%q,"name":%q,"email":"%s@example.com","version":%d,"more":true}`, id, name, name, version)
	})
}

type row struct {
	email, name, status string
	version, applied    uint64
	lastEvent           string
	updatedAt           time.Time
}

func profile(t *testing.T, db *sql.DB, id string) row {
	t.Helper()
	var r row
	var at string
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT email, name, status, version, events_applied, last_event_id,
		DATE_FORMAT(updated_at, '%Y-%m-%dT%H:%i:%s.%fZ') FROM customer_profiles WHERE customer_id = ?`, id).
		Scan(&r.email, &r.name, &r.status, &r.version, &r.applied, &r.lastEvent, &at))
	var err error
	r.updatedAt, err = time.Parse(time.RFC3339Nano, at)
	require.NoError(t, err)
	return r
}

func TestProfileFollowsTheEvents(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	id := schema.NewID()
	created := event(id, 1, effect.CustomerCreated, "Ada")
	updated := event(id, 2, effect.CustomerUpdated, "Grace")
	deleted := event(id, 3, effect.CustomerDeleted, "Grace")
	deleted.Payload = fmt.Appendf(nil, `{"id":%q}`, id)
	again := event(id, 4, effect.CustomerCreated, "Zoë 🙂")

	require.NoError(t, apply(t, db, sql.LevelDefault, created))
	require.Equal(t, row{"Ada@example.com", "Ada", "active", 1, 1, created.ID, created.CreatedAt}, profile(t, db, id))
	require.NoError(t, apply(t, db, sql.LevelDefault, updated))
	require.Equal(t, row{"Grace@example.com", "Grace", "active", 2, 2, updated.ID, updated.CreatedAt}, profile(t, db, id))
	require.NoError(t, apply(t, db, sql.LevelDefault, deleted))
	require.Equal(t, row{"Grace@example.com", "Grace", "deleted", 3, 3, deleted.ID, deleted.CreatedAt}, profile(t, db, id))
	require.NoError(t, apply(t, db, sql.LevelDefault, again))
	require.Equal(t, row{"Zoë 🙂@example.com", "Zoë 🙂", "active", 4, 4, again.ID, again.CreatedAt}, profile(t, db, id))
}

func TestVersionsAreAppliedInOrderAndOnce(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	id := schema.NewID()
	second := event(id, 2, effect.CustomerUpdated, "Grace")

	var gap *effect.GapError
	require.ErrorAs(t, apply(t, db, sql.LevelDefault, second), &gap)
	require.EqualValues(t, 1, gap.MissingVersion())

	require.NoError(t, apply(t, db, sql.LevelDefault, event(id, 1, effect.CustomerCreated, "Ada")))
	require.NoError(t, apply(t, db, sql.LevelDefault, second))
	before := profile(t, db, id)

	for version := range uint64(2) {
		var duplicate *effect.DuplicateError
		require.ErrorAs(t, apply(t, db, sql.LevelDefault, event(id, version+1, effect.CustomerUpdated, "Late")), &duplicate)
	}
	require.ErrorAs(t, apply(t, db, sql.LevelDefault, event(id, 5, effect.CustomerDeleted, "Early")), &gap)
	require.EqualValues(t, 3, gap.MissingVersion())
	require.Equal(t, before, profile(t, db, id))
}

func TestDroppedVersionsArePassedOver(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	id := schema.NewID()
	first, third, fourth := event(id, 1, effect.CustomerCreated, "Ada"), event(id, 3, effect.CustomerUpdated, "No"), event(id, 4, effect.CustomerUpdated, "No")
	sixth := event(id, 6, effect.CustomerUpdated, "Grace")
	drop(t, db, first)
	drop(t, db, fourth) // before those before it
	drop(t, db, fourth)

	var duplicate *effect.DuplicateError
	require.ErrorAs(t, apply(t, db, sql.LevelDefault, first), &duplicate, "there is no profile yet, and it is not to be made")
	require.NoError(t, apply(t, db, sql.LevelDefault, event(id, 2, effect.CustomerUpdated, "Ada")))
	drop(t, db, third)
	require.ErrorAs(t, apply(t, db, sql.LevelDefault, third), &duplicate)
	var gap *effect.GapError
	require.ErrorAs(t, apply(t, db, sql.LevelDefault, sixth), &gap)
	require.EqualValues(t, 5, gap.MissingVersion())
	got := profile(t, db, id)
	require.EqualValues(t, 2, got.version, "the last one that was applied")

	require.NoError(t, apply(t, db, sql.LevelDefault, event(id, 5, effect.CustomerUpdated, "Ada")))
	require.NoError(t, apply(t, db, sql.LevelDefault, sixth))
	got = profile(t, db, id)
	require.EqualValues(t, 6, got.version)
	require.EqualValues(t, 3, got.applied)
}

func TestDroppingWhatNoProfileCanBeOfIsNothing(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	drop(t, db, event(strings.Repeat("x", 37), 1, effect.CustomerCreated, "Ada"))
	drop(t, db, event("ä", 1, effect.CustomerCreated, "Ada"))
	drop(t, db, event("a", 0, effect.CustomerCreated, "Ada"))
	var rows int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM dropped_versions").Scan(&rows))
	require.Zero(t, rows)
}

func TestEventWithoutVersionChangesTheProfileButNotItsVersion(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	id := schema.NewID()
	require.NoError(t, apply(t, db, sql.LevelDefault, event(id, 1, effect.CustomerCreated, "Ada")))
	require.NoError(t, apply(t, db, sql.LevelDefault, event(id, 0, effect.CustomerUpdated, "Grace")))
	got := profile(t, db, id)
	require.Equal(t, "Grace", got.name)
	require.EqualValues(t, 1, got.version)
	require.EqualValues(t, 2, got.applied)
}

func TestConcurrentTransactionsLoseNoUpdate(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	db.SetMaxOpenConns(8)
	const racers, events = 8, 10
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead} {
		t.Run(level.String(), func(t *testing.T) {
			id := schema.NewID()
			var group sync.WaitGroup
			for range racers {
				group.Go(func() {
					for range events {
						e := event(id, 0, effect.CustomerUpdated, "Ada")
						for ops.MySQLCode(apply(t, db, level, e)) != 0 { // a deadlock, or MariaDB's changed record
						}
					}
				})
			}
			group.Wait()
			require.EqualValues(t, racers*events, profile(t, db, id).applied)
		})
	}
}

func TestPayloadThatCanNeverBeAppliedIsRefusedWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	long := strings.Repeat("x", 321)
	for _, c := range []struct{ id, payload, code string }{
		{"a", `["ada@example.com"]`, "payload_is_no_customer"},
		{"a", `{"id":"a","name":7,"email":"ada@example.com"}`, "payload_is_no_customer"},
		{"a", `{"id":"b","name":"Ada","email":"ada@example.com"}`, "payload_of_another_customer"},
		{"a", `{"id":"a","name":"Ada"}`, "email_or_name_missing"},
		{"a", `{"id":"a","name":"` + long + `","email":"ada@example.com"}`, "name_too_long"},
		{"a", `{"id":"a","name":"Ada","email":"` + long + `"}`, "email_too_long"},
		{long, `{"id":"` + long + `","name":"Ada","email":"e"}`, "customer_id_too_long_or_not_ascii"},
		{"ä", `{"id":"ä","name":"Ada","email":"e"}`, "customer_id_too_long_or_not_ascii"},
	} {
		e := event(c.id, 1, effect.CustomerCreated, "Ada")
		e.Payload = []byte(c.payload)
		var refused *effect.RefusedError
		require.ErrorAs(t, apply(t, db, sql.LevelDefault, e), &refused, c.payload)
		require.Equal(t, c.code, refused.PermanentReason())
		require.NotContains(t, refused.Error(), "ada@example.com")
	}
}

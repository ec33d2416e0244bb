package consume_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// TestEventThatAnotherWorkerAppliesBlocksNothing: one worker has an event on its last attempt when its link is lost, and another
// one gets the event and waits for the first one's transaction. That fails, and what the first one makes of it comes too late.
func TestEventThatAnotherWorkerAppliesBlocksNothing(t *testing.T) {
	t.Parallel()
	for name, together := range map[string]int{"alone": 1, "in a batch": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events := customer(3)
			entered, leave := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(leave) })
			var once sync.Once
			slow := effect.Handlers()
			slow[effect.CustomerCreated] = func(context.Context, *sql.Tx, schema.Event) error {
				once.Do(func() { close(entered) })
				<-leave
				return errors.New("broken")
			}
			cfg := consume.Config{MaxAttempts: 1}
			first := b.start(t, cfg, slow)
			t.Cleanup(release)
			b.publish(t, events[:1]...)
			<-entered
			b.publish(t, events[1:together]...)
			b.cut(t)
			b.reconnect(t)
			second := b.start(t, cfg, effect.Handlers())
			eventually(t, "the second worker waits for the first one", func() bool { return b.waitsForAnother(t) })
			release()

			b.applied(t, events[:together])
			require.NoError(t, first.stop())
			require.Zero(t, b.count(t, "blocked_aggregates"))
			b.publish(t, events[together:]...)
			b.applied(t, events)
			require.NoError(t, second.stop())
			b.empty(t, b.queue.DeadQueue())
		})
	}
}

// waitsForAnother tells whether somebody is at writing an inbox row of this database. (What InnoDB tells of locks is a copy that
// it does not renew as long as it is asked often.)
func (b *bundle) waitsForAnother(t *testing.T) bool {
	t.Helper()
	database := b.database(t)
	rows, err := b.db.QueryContext(t.Context(), "SHOW PROCESSLIST")
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	names, err := rows.Columns()
	require.NoError(t, err)
	columns, into := make([]sql.RawBytes, len(names)), make([]any, len(names))
	for i := range columns {
		into[i] = &columns[i]
	}
	for rows.Next() {
		require.NoError(t, rows.Scan(into...))
		if string(columns[3]) == database && strings.HasPrefix(string(columns[7]), "INSERT INTO inbox") {
			return true
		}
	}
	require.NoError(t, rows.Err())
	return false
}

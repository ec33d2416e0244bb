package consume_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// TestFullDeadLetterQueueHoldsUpNoOtherAggregates: it refuses a letter until there is room, and that costs no session.
func TestFullDeadLetterQueueHoldsUpNoOtherAggregates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	uri, err := url.Parse(b.url)
	require.NoError(t, err)
	ctl := func(args ...string) {
		_, err := schematest.Servers(t).Rabbit.Ctl(t.Context(), append(args, "--vhost", strings.TrimPrefix(uri.Path, "/"))...)
		require.NoError(t, err)
	}
	ctl("set_policy", "full", "dead$", `{"max-length":1}`, "--apply-to", "queues")
	eventually(t, "the dead-letter queue is full", func() bool {
		confirm, err := b.ch.PublishWithDeferredConfirm("", b.queue.DeadQueue(), true, false, message(schematest.Event()))
		require.NoError(t, err)
		return !confirm.Wait()
	})

	poison := schematest.Event()
	var tries atomic.Int64
	handlers := effect.Handlers()
	created := handlers[effect.CustomerCreated]
	handlers[effect.CustomerCreated] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
		if event.ID == poison.ID {
			tries.Add(1)
			return errors.New("broken")
		}
		return created(ctx, tx, event)
	}
	w := b.start(t, consume.Config{MaxAttempts: 1, Concurrency: 16}, handlers)
	b.publish(t, poison)
	eventually(t, "its aggregate is blocked", func() bool { return b.count(t, "blocked_aggregates") == 1 })
	for i := range 50 {
		b.publish(t, customer(4)...)
		w.settled(t, "applied", max(0, i-8)) // some may be of the poison's shard
	}
	for some := true; some; { // somebody makes room
		_, some, err = b.ch.Get(b.queue.DeadQueue(), true)
		require.NoError(t, err)
	}
	w.settled(t, "dead", 1)
	w.settled(t, "applied", 50*4)
	require.EqualValues(t, 1, tries.Load(), "no session was lost over it")
}

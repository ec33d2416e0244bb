package consume_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// repairable are handlers that fail until they are repaired.
func repairable() (handlers map[string]consume.Handler, repaired *atomic.Bool) {
	repaired = &atomic.Bool{}
	handlers = effect.Handlers()
	for kind, handler := range handlers {
		handlers[kind] = func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
			if !repaired.Load() {
				return errors.New("broken")
			}
			return handler(ctx, tx, event)
		}
	}
	return handlers, repaired
}

func TestDeadLettersCanBeLookedAtAnyNumberOfTimes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers, _ := repairable()
	w := b.start(t, consume.Config{MaxAttempts: 1}, handlers)
	var sent []schema.Event
	for range 3 {
		e := schematest.Event()
		sent = append(sent, e)
		b.publish(t, e)
		w.settled(t, "dead", len(sent))
	}
	for range 25 { // more often than the broker delivers a message by default
		letters, total, err := w.DeadLetters(t.Context(), 2)
		require.NoError(t, err)
		require.Equal(t, 3, total)
		require.Len(t, letters, 2)
		for i, letter := range letters {
			at, err := time.Parse(schema.TimeFormat, letter.FailedAt)
			require.NoError(t, err)
			require.WithinDuration(t, time.Now(), at, 2*patience)
			letter.FailedAt = ""
			require.Equal(t, consume.DeadLetter{MessageID: sent[i].ID, Type: sent[i].Type, AggregateType: "customer",
				AggregateID: sent[i].AggregateID, AggregateVersion: 1, Reason: "handler_failed: *errors.errorString", Attempts: 1}, letter)
		}
	}
	b.dead(t, 3)
}

func TestRedrivenLetterIsAppliedOnceHoweverOften(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers, repaired := repairable()
	w := b.start(t, consume.Config{MaxAttempts: 1}, handlers)
	first, second := schematest.Event(), schematest.Event()
	b.publish(t, first, second)
	w.settled(t, "dead", 2)
	repaired.Store(true)

	done, err := w.Redrive(t.Context(), second.ID)
	require.NoError(t, err)
	require.Equal(t, consume.Redriven{Redriven: 1}, done)
	b.applied(t, []schema.Event{second})
	_, err = w.Redrive(t.Context(), second.ID)
	require.ErrorIs(t, err, consume.ErrNoDeadLetter)
	require.Zero(t, b.profile(t, first.AggregateID).version, "the other one stays where it is")

	for id, letter := range b.dead(t, 1) { // a redrive that died between confirm and ack leaves the letter in both queues
		require.Equal(t, first.ID, id)
		for _, queue := range []string{b.queue.Queue, b.queue.DeadQueue(), b.queue.DeadQueue()} {
			confirm, err := b.ch.PublishWithDeferredConfirm("", queue, true, false, message(first))
			require.NoError(t, err)
			require.True(t, confirm.Wait())
		}
		require.Equal(t, first.Payload, letter.Body)
	}
	done, err = w.Redrive(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, consume.Redriven{Redriven: 2}, done)
	w.settled(t, "duplicate", 2)
	b.applied(t, []schema.Event{first})
	b.empty(t, b.queue.DeadQueue())
}

func TestDeadLettersAreFoundWhateverTheClockSaysThatSentThem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ahead := message(schematest.Event())
	ahead.Headers[consume.HeaderFailedAt] = time.Now().Add(time.Hour).UTC().Format(schema.TimeFormat)
	confirm, err := b.ch.PublishWithDeferredConfirm("", b.queue.DeadQueue(), true, false, ahead)
	require.NoError(t, err)
	require.True(t, confirm.Wait())
	handlers, _ := repairable()
	w := b.start(t, consume.Config{MaxAttempts: 1}, handlers)
	letters, total, err := w.DeadLetters(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, 1, total)
	require.Len(t, letters, 1)

	for _, id := range []string{ahead.MessageId, ""} {
		eventually(t, "it is redriven, once", func() bool {
			done, err := w.Redrive(t.Context(), id)
			require.True(t, err == nil || errors.Is(err, consume.ErrNoDeadLetter), err)
			require.LessOrEqual(t, done.Redriven, 1, "it dies again while the call looks on")
			return done.Redriven == 1
		})
	}
}

func TestRedriveThatBreaksOffLosesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers, repaired := repairable()
	const customers = 150
	all := make([]schema.Event, customers)
	for i := range all {
		all[i] = schematest.Event()
	}
	b.publish(t, all...)
	w := b.start(t, consume.Config{MaxAttempts: 1}, handlers)
	w.settled(t, "dead", customers)

	ctx, enough := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var broken atomic.Int64
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if _, err := w.Redrive(ctx, ""); err != nil && ctx.Err() == nil {
				broken.Add(1)
			}
		}
	}()
	for range 4 { // what is redriven dies again, so that there is always something to redrive
		b.cut(t)
	}
	eventually(t, "some redrive is cut off", func() bool {
		if broken.Load() == 0 {
			b.cut(t)
		}
		return broken.Load() > 0
	})
	repaired.Store(true)
	enough()
	<-ended
	b.reconnect(t)
	eventually(t, "the rest is redriven", func() bool { // also what was on its way to the dead letters meanwhile
		_, err := w.Redrive(t.Context(), "")
		return err == nil && b.count(t, "customer_profiles") == customers
	})
	for _, event := range all {
		b.applied(t, []schema.Event{event})
	}
}

func TestDeadLettersOfAnUnreachableBrokerAreAnError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.url = "amqp://guest:guest@127.0.0.1:1/"
	w := b.start(t, consume.Config{}, effect.Handlers())
	_, _, err := w.DeadLetters(t.Context(), 1)
	require.Error(t, err)
	_, err = w.Redrive(t.Context(), "")
	require.Error(t, err)
	require.NotErrorIs(t, err, consume.ErrNoDeadLetter)
}

func TestRedriveThatTheBrokerRefusesKeepsTheLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	handlers, _ := repairable()
	running := b.start(t, consume.Config{MaxAttempts: 1}, handlers)
	event := schematest.Event()
	b.publish(t, event)
	running.settled(t, "dead", 1)

	uri, err := url.Parse(b.url)
	require.NoError(t, err)
	user := "u" + schema.NewID()
	ctl := func(args ...string) {
		_, err := schematest.Servers(t).Rabbit.Ctl(t.Context(), args...)
		require.NoError(t, err)
	}
	ctl("add_user", user, "secret")
	t.Cleanup(func() { _, _ = schematest.Servers(t).Rabbit.Ctl(context.Background(), "delete_user", user) })
	ctl("set_permissions", "--vhost", strings.TrimPrefix(uri.Path, "/"), user, ".*", "^(customers|outbox).*", ".*") // not the default exchange
	uri.User = url.UserPassword(user, "secret")
	b.url = uri.String()
	idle, err := consume.New(b.db, ops.Secret(b.url), b.queue, handlers, consume.Config{})
	require.NoError(t, err)

	_, err = idle.Redrive(t.Context(), event.ID)
	require.ErrorContains(t, err, "publish")
	b.dead(t, 1)
}

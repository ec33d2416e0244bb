package consume_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// TestFollowersGoBehindTheirLetterThoughTheyDiedBeforeIt: one that has waited behind an event too often dies before that does.
func TestFollowersGoBehindTheirLetterThoughTheyDiedBeforeIt(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(w running, id string) (int, error){
		"redriven": func(w running, id string) (int, error) {
			done, err := w.Redrive(t.Context(), id)
			return done.Redriven, err
		},
		"redriven with all": func(w running, _ string) (int, error) {
			done, err := w.Redrive(t.Context(), "")
			return done.Redriven, err
		},
		"dropped": func(w running, id string) (int, error) {
			done, err := w.Drop(t.Context(), id)
			return done.Dropped + done.Redriven, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events := customer(3)
			r := &refusing{id: events[0].ID}
			w := b.start(t, consume.Config{MaxAttempts: 1, Drop: effect.Drop}, r.handlers())
			b.publish(t, events...)
			w.settled(t, "dead", 3)
			letters := b.dead(t, 3)
			b.put(t, b.queue.DeadQueue(), letters[events[1].ID], letters[events[2].ID], letters[events[0].ID])

			r.repaired.Store(true)
			done, err := again(w, events[0].ID)
			require.NoError(t, err)
			require.Equal(t, 3, done)
			eventually(t, "all three are settled", func() bool {
				got := w.Stats().Messages
				return got["applied"]+got["dropped"] == 3
			})
			require.EqualValues(t, 3, w.Stats().Messages["dead"], "none died once more")
			b.empty(t, b.queue.DeadQueue())
		})
	}
}

// TestFollowersStayWhileTheirLetterIsOnItsWay: until then there is nothing to redrive them behind.
func TestFollowersStayWhileTheirLetterIsOnItsWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(3)
	r := &refusing{id: events[0].ID}
	w := b.start(t, consume.Config{MaxAttempts: 1}, r.handlers())
	b.publish(t, events...)
	w.settled(t, "dead", 3)
	letter := b.dead(t, 1)[events[0].ID] // somebody has it
	_, err := w.Redrive(t.Context(), events[0].ID)
	require.ErrorIs(t, err, consume.ErrNoDeadLetter)
	done, err := w.Redrive(t.Context(), "")
	require.NoError(t, err)
	require.Zero(t, done.Redriven)

	r.repaired.Store(true)
	require.Equal(t, events[0].Payload, letter.Body)
	b.publish(t, events[0])
	b.applied(t, []schema.Event{events[0]})
	done, err = w.Redrive(t.Context(), events[0].ID) // as after a call that broke off behind the letter
	require.NoError(t, err)
	require.Equal(t, 2, done.Redriven)
	b.applied(t, events)
}

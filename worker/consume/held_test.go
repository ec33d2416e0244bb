package consume_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// plain are handlers of somebody who knows nothing of versions. They fail so many times for some events, and note in the
// database in which order events were applied.
type plain struct {
	mu     sync.Mutex
	fails  map[string]int // times left, by id
	failed int
}

func (p *plain) handlers(b *bundle, t *testing.T) map[string]consume.Handler {
	t.Helper()
	_, err := b.db.ExecContext(t.Context(), "CREATE TABLE IF NOT EXISTS effects (seq BIGINT AUTO_INCREMENT PRIMARY KEY, event_id VARCHAR(255) NOT NULL)")
	require.NoError(t, err)
	handler := func(ctx context.Context, tx *sql.Tx, event schema.Event) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.fails[event.ID] > 0 {
			p.fails[event.ID]--
			p.failed++
			return errors.New("broken")
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO effects (event_id) VALUES (?)", event.ID)
		return err
	}
	return map[string]consume.Handler{effect.CustomerCreated: handler, effect.CustomerUpdated: handler}
}

func (p *plain) repair() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.fails)
}

// effects are the ids of the events that plain's handlers have applied, in order.
func (b *bundle) effects(t *testing.T) (ids []string) {
	t.Helper()
	rows, err := b.db.QueryContext(t.Context(), "SELECT event_id FROM effects ORDER BY seq")
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var id string
		require.NoError(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(t, rows.Err())
	return ids
}

func idsOf(events []schema.Event) []string {
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	return ids
}

// sequence is the events of one customer, with versions or without.
func sequence(events int, versioned bool) []schema.Event {
	all := customer(events)
	for i := range all {
		if !versioned {
			all[i].AggregateVersion = 0
		}
	}
	return all
}

var versions = map[string]bool{"with versions": true, "without versions": false}

func TestLaterEventsWaitBehindOneThatIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, versioned := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events, other := sequence(5, versioned), schematest.Event()
			p := &plain{fails: map[string]int{events[1].ID: math.MaxInt}}
			w := b.start(t, consume.Config{GapWait: time.Millisecond}, p.handlers(b, t))
			b.publish(t, events[:3]...)
			w.settled(t, "retried", 2)
			b.publish(t, other)
			w.settled(t, "applied", 2)
			require.Equal(t, []string{events[0].ID, other.ID}, b.effects(t), "others pass")
			require.NoError(t, w.stop())

			p.repair()
			w = b.start(t, consume.Config{}, p.handlers(b, t)) // a restart does not forget
			b.publish(t, events[3:]...)
			w.settled(t, "applied", 4)
			require.NoError(t, w.stop())
			require.Equal(t, append([]string{events[0].ID, other.ID}, idsOf(events[1:])...), b.effects(t))
			require.Zero(t, w.Stats().Messages["dead"])
			require.Zero(t, b.count(t, "blocked_aggregates"))
		})
	}
}

// TestWhatWaitsInMemoryGoesOnAtOnce: an aggregate of which something always comes has no detour left once its event was applied.
func TestWhatWaitsInMemoryGoesOnAtOnce(t *testing.T) {
	t.Parallel()
	for name, versioned := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events := sequence(20, versioned)
			p := &plain{fails: map[string]int{events[0].ID: math.MaxInt}}
			w := b.start(t, consume.Config{GapWait: patience, Batch: 1}, p.handlers(b, t))
			b.publish(t, events...)
			eventually(t, "all wait in memory", func() bool { return w.Stats().WaitingGaps == 19 })
			p.repair()
			w.settled(t, "applied", 20)
			require.Equal(t, idsOf(events), b.effects(t))
			require.EqualValues(t, p.failed, w.Stats().Messages["retried"])
			require.Zero(t, w.Stats().WaitingGaps)
			require.Zero(t, b.count(t, "blocked_aggregates"))
		})
	}
}

func TestMoreThanMemoryHoldsWaitsInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := sequence(40, false)
	p := &plain{fails: map[string]int{events[0].ID: 1, events[1].ID: 2, events[7].ID: 1}}
	w := b.start(t, consume.Config{Prefetch: 10, Batch: 4}, p.handlers(b, t))
	b.publish(t, events...)
	w.settled(t, "applied", 40)
	require.Equal(t, idsOf(events), b.effects(t))
	require.Zero(t, w.Stats().Messages["dead"])
	require.Zero(t, b.count(t, "blocked_aggregates"))
}

func TestEventsBehindOneThatIsTriedInVainFollowItToTheDeadLetters(t *testing.T) {
	t.Parallel()
	for name, versioned := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events := sequence(5, versioned)
			p := &plain{fails: map[string]int{events[0].ID: 2}}
			w := b.start(t, consume.Config{MaxAttempts: 2, Batch: 1}, p.handlers(b, t))
			b.publish(t, events[:4]...)
			w.settled(t, "dead", 4)
			b.publish(t, events[4])
			w.settled(t, "dead", 5)
			letters, _, err := w.DeadLetters(t.Context(), 10)
			require.NoError(t, err)
			for i, letter := range letters {
				require.Equal(t, events[i].ID, letter.MessageID)
				require.Equal(t, i > 0, letter.BlockedBy == events[0].ID, letter.BlockedBy)
			}
			_, err = w.Redrive(t.Context(), events[0].ID)
			require.NoError(t, err)
			w.settled(t, "applied", 5)
			require.Equal(t, idsOf(events), b.effects(t))
		})
	}
}

func TestWhatWaitsInMemoryComesBeforeWhatDiesLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := sequence(4, false)
	events[2].Type = "CustomerWed"
	p := &plain{fails: map[string]int{events[0].ID: 1}}
	w := b.start(t, consume.Config{Batch: 1}, p.handlers(b, t))
	b.publish(t, events...)
	w.settled(t, "applied", 2)
	w.settled(t, "dead", 2)
	require.Equal(t, idsOf(events[:2]), b.effects(t))
	letters := b.dead(t, 2)
	require.NotContains(t, letters[events[2].ID].Headers, consume.HeaderBlockedBy)
	require.Equal(t, events[2].ID, letters[events[3].ID].Headers[consume.HeaderBlockedBy])
}

func TestWhatWaitsBehindAnotherHoldsBackWhatComesLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := sequence(3, false)
	p := &plain{fails: map[string]int{events[0].ID: math.MaxInt}}
	w := b.start(t, consume.Config{GapWait: time.Millisecond, Batch: 1}, p.handlers(b, t))
	b.publish(t, events[:2]...)
	eventually(t, "both are held back", func() bool { return b.count(t, "blocked_aggregates") == 2 })
	require.NoError(t, w.stop())
	p.repair()
	b.publish(t, events[0], events[2]) // they are in the queue before those come back

	w = b.start(t, consume.Config{Batch: 1}, p.handlers(b, t))
	w.settled(t, "applied", 3)
	w.settled(t, "duplicate", 1)
	require.Equal(t, idsOf(events), b.effects(t))
}

// TestWhatFollowsARedrivenEventWaitsWhileThatIsTriedAgain: one redrive is enough, whether the handlers check versions or not.
func TestWhatFollowsARedrivenEventWaitsWhileThatIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]consume.Config{"checked": {ChecksVersions: true}, "not checked": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events := customer(4)
			r := &refusing{id: events[0].ID}
			w := b.start(t, consume.Config{MaxAttempts: 1}, r.handlers())
			b.publish(t, events[:3]...)
			w.settled(t, "dead", 3)
			require.NoError(t, w.stop())

			w = b.start(t, cfg, r.handlers())
			_, err := w.Redrive(t.Context(), events[0].ID)
			require.NoError(t, err)
			w.settled(t, "retried", 3)
			b.publish(t, events[3])
			r.repaired.Store(true)
			b.applied(t, events)
			require.NoError(t, w.stop())
			require.Zero(t, w.Stats().Messages["dead"])
			require.Zero(t, b.count(t, "blocked_aggregates"))
		})
	}
}

// TestOneRedriveIsEnough whatever stands before the letter, in the work queue or among the dead letters.
func TestOneRedriveIsEnough(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := sequence(8, false)
	p := &plain{fails: map[string]int{events[0].ID: 1}}
	w := b.start(t, consume.Config{MaxAttempts: 1, Batch: 1}, p.handlers(b, t))
	b.publish(t, events[:4]...)
	w.settled(t, "dead", 4)
	require.NoError(t, w.stop())
	letters := b.dead(t, 4)
	for _, at := range []int{3, 1, 0, 2} {
		b.put(t, b.queue.DeadQueue(), letters[events[at].ID])
	}
	b.publish(t, events[4:]...)
	_, err := w.Redrive(t.Context(), "")
	require.NoError(t, err)

	w = b.start(t, consume.Config{MaxAttempts: 1}, p.handlers(b, t))
	w.settled(t, "applied", 8)
	require.Equal(t, idsOf(events), b.effects(t))
	require.Zero(t, w.Stats().Messages["dead"])
	require.Zero(t, b.count(t, "blocked_aggregates"))
}

// TestEventsDoNotWaitForEachOther: one that waits for a version holds another one, but not that version.
func TestEventsDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := customer(3)
	unversioned := schematest.Event(func(e *schema.Event) {
		e.AggregateID, e.Type = events[0].AggregateID, effect.CustomerUpdated
		e.AggregateVersion = 0
	})
	w := b.start(t, consume.Config{MaxAttempts: 1, GapWait: time.Millisecond}, effect.Handlers())
	b.publish(t, events[0], events[2])
	w.settled(t, "dead", 1)
	b.publish(t, unversioned)
	w.settled(t, "dead", 2)
	b.publish(t, events[1])
	w.settled(t, "applied", 2)
	_, err := w.Redrive(t.Context(), "")
	require.NoError(t, err)
	w.settled(t, "applied", 4)
	require.Zero(t, b.count(t, "blocked_aggregates"))
}

func TestWhatWaitsForAnEventThatIsGoneEndsAsADeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	event := schematest.Event()
	event.AggregateVersion = 0
	gone := schema.NewID()
	key := sha256.Sum256([]byte(event.AggregateType + "\x00" + event.AggregateID))
	_, err := b.db.ExecContext(t.Context(), `INSERT INTO blocked_aggregates (consumer, aggregate, blocked_by, version, dead, blocked_at)
		VALUES (?, ?, ?, 0, FALSE, UTC_TIMESTAMP(6))`, b.queue.Queue, key[:], gone)
	require.NoError(t, err)
	w := b.start(t, consume.Config{MaxAttempts: 1, GapWait: time.Millisecond}, effect.Handlers())
	b.publish(t, event)
	w.settled(t, "retried", 2) // it does not count: the event has not failed
	_, err = b.db.ExecContext(t.Context(), "UPDATE blocked_aggregates SET blocked_at = blocked_at - INTERVAL 2 DAY WHERE blocked_by = ?", gone)
	require.NoError(t, err)
	letter := b.dead(t, 1)[event.ID]
	require.Equal(t, gone, letter.Headers[consume.HeaderBlockedBy])
}

func TestNothingPassesWhatARedriveLeftBehind(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(w running, events []schema.Event) (consume.Redriven, error){
		"repeated": func(w running, events []schema.Event) (consume.Redriven, error) {
			return w.Redrive(t.Context(), events[0].ID)
		},
		"all": func(w running, _ []schema.Event) (consume.Redriven, error) { return w.Redrive(t.Context(), "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events := sequence(5, false)
			p := &plain{fails: map[string]int{events[0].ID: 1}}
			w := b.start(t, consume.Config{MaxAttempts: 1, Batch: 1}, p.handlers(b, t))
			b.publish(t, events[:3]...)
			w.settled(t, "dead", 3)
			letters := b.dead(t, 3)
			b.put(t, b.queue.DeadQueue(), letters[events[1].ID], letters[events[2].ID])
			b.put(t, b.queue.Queue, letters[events[0].ID]) // here the redrive breaks off
			w.settled(t, "applied", 1)
			b.publish(t, events[3:]...)
			w.settled(t, "dead", 5)
			require.Equal(t, idsOf(events[:1]), b.effects(t))

			done, err := again(w, events)
			require.NoError(t, err)
			require.Equal(t, 4, done.Redriven)
			w.settled(t, "applied", 5)
			require.Equal(t, idsOf(events), b.effects(t))
			require.NoError(t, w.stop())
			require.Zero(t, b.count(t, "blocked_aggregates"))
			b.empty(t, b.queue.DeadQueue())
		})
	}
}

func TestOfTwoDeadLettersEachBlocksWhatCameBehindIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := sequence(5, false)
	events[0].Type, events[2].Type = "CustomerWed", "CustomerWed"
	p := &plain{}
	handlers := p.handlers(b, t)
	w := b.start(t, consume.Config{}, handlers)
	b.publish(t, events[:4]...)
	w.settled(t, "dead", 4)
	require.NoError(t, w.stop())

	handlers["CustomerWed"] = handlers[effect.CustomerUpdated]
	w = b.start(t, consume.Config{}, handlers)
	_, err := w.Redrive(t.Context(), events[0].ID)
	require.NoError(t, err)
	w.settled(t, "applied", 2)
	w.settled(t, "dead", 1)
	b.publish(t, events[4])
	w.settled(t, "dead", 2)
	require.Equal(t, idsOf(events[:2]), b.effects(t))
	done, err := w.Redrive(t.Context(), events[2].ID)
	require.NoError(t, err)
	require.Equal(t, 3, done.Redriven)
	w.settled(t, "applied", 5)
	require.Equal(t, idsOf(events), b.effects(t))
}

// TestEventsKeepTheirOrderHoweverTheyFailAndComeBack lets events fail at random and redrives dead letters at random.
func TestEventsKeepTheirOrderHoweverTheyFailAndComeBack(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			random := rand.New(rand.NewPCG(seed, seed))
			events := sequence(12, seed%2 == 0)
			p := &plain{fails: map[string]int{}}
			for _, e := range events {
				if random.IntN(3) == 0 {
					p.fails[e.ID] = 1 + random.IntN(4)
				}
			}
			w := b.start(t, consume.Config{MaxAttempts: 2, Batch: 1 + random.IntN(4)}, p.handlers(b, t))
			redriven := 0
			redriveAny := func() {
				if w.Stats().Messages["dead"] > uint64(redriven) {
					redriven += b.redriveAny(t, w, random)
				}
			}
			for _, e := range events {
				b.publish(t, e)
				if random.IntN(3) == 0 {
					redriveAny()
				}
			}
			require.Eventually(t, func() bool {
				redriveAny()
				return len(b.effects(t)) >= len(events)
			}, 3*patience, 10*time.Millisecond, "all are applied") // who comes back three times in vain waits for 30 seconds
			require.Equal(t, idsOf(events), b.effects(t))
			require.NoError(t, w.stop())
			require.Zero(t, b.count(t, "blocked_aggregates"))
			b.empty(t, b.queue.DeadQueue())
		})
	}
}

// redriveAny redrives one of the dead letters or all, and tells how many were.
func (b *bundle) redriveAny(t *testing.T, w running, random *rand.Rand) int {
	t.Helper()
	letters, _, err := w.DeadLetters(t.Context(), 100)
	require.NoError(t, err)
	id := ""
	if len(letters) > 0 && random.IntN(4) != 0 {
		id = letters[random.IntN(len(letters))].MessageID
	}
	done, err := w.Redrive(t.Context(), id)
	require.True(t, err == nil || errors.Is(err, consume.ErrNoDeadLetter), err)
	return done.Redriven
}

package quarantine_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
	"tailbox/schema"
)

func TestAnEventIsKeptOnceHoweverOftenItIsAdded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := row(func(e *schema.Event) { e.ID = strings.Repeat("é", 200_000) })
	first := b.add(r)
	b.broker.poison = errTooLong
	_, err := b.store.Retry(t.Context(), first, ada)
	require.Error(t, err)

	r.Event.Payload = []byte(`{"mended":true}`)
	require.NoError(t, b.store.Add(t.Context(), 7, r, errors.New("another reason")))
	require.NoError(t, b.of("other").Add(t.Context(), 7, r, errors.New("of another relay")))
	entries, total := b.list()
	require.Equal(t, 1, total)
	require.Len(t, entries, 1)
	require.Equal(t, first, entries[0].ID)
	require.Equal(t, "another reason", entries[0].Reason)
	require.Equal(t, 1, entries[0].Attempts, "what was tried stays known")
	require.Equal(t, len(r.Event.Payload), entries[0].PayloadBytes)
	require.LessOrEqual(t, len(entries[0].EventID), 258, "a list shows the beginning of what is too long")
}

// TestWhatALeaderDroppedDoesNotComeBack: an instance that was frozen while it set an event aside finds that another leads.
func TestWhatALeaderDroppedDoesNotComeBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := row()
	id := b.add(r)
	b.exec("UPDATE relay_checkpoint SET epoch = 8 WHERE relay = 'default'")
	b.lead(8)
	_, err := b.store.Drop(t.Context(), id, ada)
	require.NoError(t, err)
	require.ErrorIs(t, b.store.Add(t.Context(), 7, r, errTooLong), relay.ErrFenced)
	entries, _ := b.list()
	require.Empty(t, entries)
}

func TestAListGoesOnBehindTheLastOneSeen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var ids []uint64
	for range 5 {
		ids = append(ids, b.add(row()))
	}
	var seen []uint64
	for after := uint64(0); ; {
		entries, total, err := b.store.List(t.Context(), 2, after)
		require.NoError(t, err)
		require.Equal(t, 5, total)
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			seen = append(seen, e.ID)
		}
		after = seen[len(seen)-1]
	}
	require.Equal(t, ids, seen)
}

func TestARetriedEventIsPublishedAsItWasReadAndLeaves(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := row(func(e *schema.Event) {
		e.ID, e.AggregateID = "\xff\x00binary", "\xe9" // a column can have any bytes
		e.AggregateVersion = 1<<64 - 1
		e.Payload = []byte(`{ "n": 1.0, "s":"\u00e9🚀" }`)
		e.Headers = map[string]string{"traceparent": "00-x", strings.Repeat("h", 300): ""}
	})
	id := b.add(r)
	entry, err := b.store.Retry(t.Context(), id, ada)
	require.NoError(t, err)
	require.Equal(t, errTooLong.Error(), entry.Reason)

	r.Seq = 1
	require.Equal(t, []relay.Row{r}, b.broker.given())
	_, total := b.list()
	require.Zero(t, total)
	_, err = b.store.Retry(t.Context(), id, ada)
	require.ErrorIs(t, err, quarantine.ErrNotFound)

	records, err := b.audit.List(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, records, 1)
	require.Equal(t, []any{"ada", "it was mended", "quarantine_retry", uint64(7)},
		[]any{records[0].Actor, records[0].Why, records[0].Action, records[0].Epoch})
	require.JSONEq(t, `{"published":true}`, string(records[0].After))
}

func TestAnEventThatIsStillNoMessageStaysAndSaysWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.add(row())
	b.broker.Unbind(true)
	_, err := b.store.Retry(t.Context(), id, ada)
	var still *quarantine.StillError
	require.ErrorAs(t, err, &still)
	require.Equal(t, relay.Unroutable, still.Why)

	b.broker.poison = errors.New("the payload has 9 bytes, MAX_MESSAGE_BYTES allows 8")
	_, err = b.store.Retry(t.Context(), id, ada)
	require.ErrorAs(t, err, &still)
	require.Equal(t, relay.PoisonEvent, still.Why)
	entry, err := b.store.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, 2, entry.Attempts)
	require.Equal(t, b.broker.poison.Error(), entry.Reason)
	records, err := b.audit.List(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, records, 2)
}

func TestWithoutTheBrokersWordTheEventStaysAsItWas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.add(row())
	before, err := b.store.Get(t.Context(), id)
	require.NoError(t, err)
	unknown := (*quarantine.UnknownError)(nil)

	b.broker.Silence(true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	retried := make(chan error, 1)
	go func() {
		_, err := b.store.Retry(ctx, id, ada)
		retried <- err
	}()
	require.Eventually(t, func() bool { return len(b.broker.given()) == 1 }, 30*time.Second, time.Millisecond)
	cancel()
	require.ErrorAs(t, <-retried, &unknown)
	b.broker.Down(true)
	_, err = b.store.Retry(t.Context(), id, ada)
	require.ErrorAs(t, err, &unknown)
	after, err := b.store.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestOnlyTheLeaderChangesTheQuarantine(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.add(row())
	unchanged := func(said error, published int) {
		t.Helper()
		require.ErrorIs(t, said, quarantine.ErrNotLeading)
		_, total := b.list()
		require.Equal(t, 1, total)
		require.Len(t, b.broker.given(), published)
		records, err := b.audit.List(t.Context(), 10)
		require.NoError(t, err)
		require.Empty(t, records)
	}
	retry := func() error { _, err := b.store.Retry(t.Context(), id, ada); return err }
	drop := func() error { _, err := b.store.Drop(t.Context(), id, ada); return err }

	b.lead(0)
	unchanged(retry(), 0)
	unchanged(drop(), 0)

	// It ceases to lead while the session is opened.
	b.lead(7)
	b.broker.onOpen = func() { b.lead(8) }
	unchanged(retry(), 0)

	// It does not know yet that another one leads: what it sends then cannot be helped, the table can.
	b.broker.onOpen = nil
	b.lead(7)
	b.exec("UPDATE relay_checkpoint SET epoch = 8 WHERE relay = 'default'")
	unchanged(retry(), 1)
	unchanged(drop(), 1)
}

// TestATakeoverDoesNotWaitForAnEventThatIsWritten: an insert may take long, and whoever it keeps from the row of the lease is
// lost. A trigger says that the insert is under way, and waits.
func TestATakeoverDoesNotWaitForAnEventThatIsWritten(t *testing.T) {
	t.Parallel()
	const patience = 20 * time.Second
	b := setup(t)
	barrier, err := b.db.Conn(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = barrier.Close() })
	_, err = barrier.ExecContext(t.Context(), "DO GET_LOCK(CONCAT(DATABASE(), '.go'), 0)")
	require.NoError(t, err)
	b.exec("CREATE TRIGGER slow BEFORE INSERT ON relay_quarantine FOR EACH ROW " +
		"BEGIN DO GET_LOCK(CONCAT(DATABASE(), '.begun'), 0); DO GET_LOCK(CONCAT(DATABASE(), '.go'), 60); END")
	added := make(chan error, 1)
	go func() { added <- b.store.Add(t.Context(), 7, row(), errTooLong) }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for begun := false; !begun; {
		require.NoError(t, b.db.QueryRowContext(ctx, "SELECT IS_USED_LOCK(CONCAT(DATABASE(), '.begun')) IS NOT NULL").Scan(&begun))
	}

	_, err = b.db.ExecContext(ctx, "UPDATE relay_checkpoint SET epoch = 8 WHERE relay = 'default'")
	require.NoError(t, err)

	_, err = barrier.ExecContext(t.Context(), "DO RELEASE_LOCK(CONCAT(DATABASE(), '.go'))")
	require.NoError(t, err)
	require.ErrorIs(t, <-added, relay.ErrFenced)
	_, total := b.list()
	require.Zero(t, total)
}

func TestADroppedEventIsNeverPublished(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.add(row())
	_, err := b.of("other").Drop(t.Context(), id, ada)
	require.ErrorIs(t, err, quarantine.ErrNotFound, "another relay's quarantine has it not")
	_, err = b.store.Drop(t.Context(), id, ada)
	require.NoError(t, err)
	_, total := b.list()
	require.Zero(t, total)
	require.Empty(t, b.broker.given())
	records, err := b.audit.List(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, records, 1)
	require.Equal(t, "quarantine_drop", records[0].Action)
	_, err = b.store.Drop(t.Context(), id, ada)
	require.ErrorIs(t, err, quarantine.ErrNotFound)
}

func TestManyRetriesAtATimePublishOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.add(row())
	var group sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		group.Go(func() { _, errs[i] = b.store.Retry(t.Context(), id, ada) })
	}
	group.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
			continue
		}
		require.ErrorIs(t, err, quarantine.ErrNotFound)
	}
	require.Equal(t, 1, done)
	require.Len(t, b.broker.given(), 1)
}

func TestAPayloadTooLargeToBeWrittenTwiceIsReadFromTheOutbox(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var most int
	require.NoError(t, b.db.QueryRowContext(t.Context(), "SELECT @@max_allowed_packet").Scan(&most))
	r := row(func(e *schema.Event) { e.Payload = bytes.Repeat([]byte("x"), most+1) })
	id := b.add(r)
	entry, err := b.store.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, most+1, entry.PayloadBytes)

	_, err = b.store.Retry(t.Context(), id, ada)
	require.ErrorIs(t, err, quarantine.ErrPayloadGone)
	b.outbox[r.Event.ID] = r.Event.Payload
	_, err = b.store.Retry(t.Context(), id, ada)
	require.NoError(t, err)
	require.Equal(t, r.Event.Payload, b.broker.given()[0].Event.Payload)

	// One that just fits is kept.
	r = row(func(e *schema.Event) { e.Payload = bytes.Repeat([]byte(`"`), most-300<<10) })
	id = b.add(r)
	_, err = b.store.Retry(t.Context(), id, ada)
	require.NoError(t, err)
	require.Equal(t, r.Event.Payload, b.broker.given()[1].Event.Payload)
}

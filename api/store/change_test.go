package store_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/api/handler/handlertest"
	"tailbox/api/store"
	"tailbox/schema"
)

func TestEachChangeHasItsEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trace := map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
	c := handlertest.Customer()
	require.NoError(t, b.store.Create(t.Context(), c, trace))
	name, version := "Countess", uint64(2)
	updated, err := b.store.Update(t.Context(), c.ID, store.Change{Name: &name}, nil, trace)
	require.NoError(t, err)
	require.NoError(t, b.store.Delete(t.Context(), c.ID, &version, trace))

	events := b.events()
	require.Len(t, events, 3)
	for i, want := range []struct{ kind, name string }{
		{"CustomerCreated", c.Name}, {"CustomerUpdated", name}, {"CustomerDeleted", name},
	} {
		e := events[i]
		require.Equal(t, "customer", e.AggregateType)
		require.Equal(t, c.ID, e.AggregateID)
		require.Equal(t, uint64(i+1), e.AggregateVersion)
		require.Equal(t, want.kind, e.Type)
		require.Equal(t, trace, e.Headers)
		require.JSONEq(t, fmt.Sprintf(`{"id":%q,"name":%q,"email":%q,"version":%d,"created_at":%q,"updated_at":%q}`,
			c.ID, want.name, c.Email, i+1, c.CreatedAt.Format(schema.TimeFormat), e.CreatedAt.Format(schema.TimeFormat)), string(e.Payload))
	}
	require.Equal(t, updated.UpdatedAt, events[1].CreatedAt)
	b.holds(0, 3, 0)
}

func TestChangeOfNothingMakesNoEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.created()
	require.NoError(t, b.rename(c.ID, c.Name))
	b.holds(1, 1, 0)
}

func TestRolledBackChangeLeavesNoEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kept := b.created()
	tooMuch := map[string]string{"traceparent": strings.Repeat("x", schema.MaxHeaders)}
	c, name := handlertest.Customer(), "Countess"

	require.Error(t, b.store.Create(t.Context(), c, tooMuch))
	_, err := b.store.CreateOnce(t.Context(), c, tooMuch, handlertest.Once("key", c))
	require.Error(t, err)
	_, err = b.store.Update(t.Context(), kept.ID, store.Change{Name: &name}, nil, tooMuch)
	require.Error(t, err)
	require.NotErrorIs(t, err, store.ErrUnavailable)
	require.Error(t, b.store.Delete(t.Context(), kept.ID, nil, tooMuch))

	b.holds(1, 1, 0)
	now, err := b.store.Get(t.Context(), kept.ID)
	require.NoError(t, err)
	require.Equal(t, kept, now)
}

func TestWithoutAnOutboxNothingChanges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kept := b.created()
	_, err := b.direct.ExecContext(t.Context(), "RENAME TABLE outbox TO elsewhere")
	require.NoError(t, err)

	require.ErrorIs(t, b.store.Create(t.Context(), handlertest.Customer(), nil), store.ErrUnavailable)
	require.ErrorIs(t, b.rename(kept.ID, "Countess"), store.ErrUnavailable)
	require.ErrorIs(t, b.store.Delete(t.Context(), kept.ID, nil, nil), store.ErrUnavailable)

	require.Equal(t, 1, b.count("customers"))
	now, err := b.store.Get(t.Context(), kept.ID)
	require.NoError(t, err)
	require.Equal(t, kept, now)
}

func TestVersionsHaveNoGapWhateverRuns(t *testing.T) {
	t.Parallel()
	const writers = 16
	b := setup(t)
	c := b.created()
	errs := make([]error, writers)
	var wait sync.WaitGroup
	for i := range writers {
		wait.Go(func() { errs[i] = b.rename(c.ID, fmt.Sprintf("Ada %d", i)) })
	}
	wait.Wait()

	for _, err := range errs {
		require.NoError(t, err)
	}
	events := b.events()
	require.Len(t, events, writers+1)
	for i, e := range events {
		require.Equal(t, uint64(i+1), e.AggregateVersion)
		var payload struct{ Version uint64 }
		require.NoError(t, json.Unmarshal(e.Payload, &payload))
		require.Equal(t, e.AggregateVersion, payload.Version)
		require.False(t, i > 0 && e.CreatedAt.Before(events[i-1].CreatedAt), "time runs backwards")
	}
	now, err := b.store.Get(t.Context(), c.ID)
	require.NoError(t, err)
	require.Equal(t, uint64(writers+1), now.Version)
}

func TestOneOfManyWithTheSameVersionWins(t *testing.T) {
	t.Parallel()
	const writers = 8
	b := setup(t)
	c := b.created()
	errs := make([]error, writers)
	var wait sync.WaitGroup
	for i := range writers {
		wait.Go(func() {
			name := fmt.Sprintf("Ada %d", i)
			_, errs[i] = b.store.Update(t.Context(), c.ID, store.Change{Name: &name}, &c.Version, nil)
		})
	}
	wait.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			require.ErrorIs(t, err, store.ErrStale)
		}
	}
	require.Equal(t, 1, won)
	b.holds(1, 2, 0)
}

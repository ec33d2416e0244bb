package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/api/handler/handlertest"
	"tailbox/api/store"
)

func (b *bundle) once(ctx context.Context, key string) (store.Answer, error) {
	c := handlertest.Customer()
	return b.store.CreateOnce(ctx, c, nil, handlertest.Once(key, c))
}

func TestOneKeyMakesOneCustomerHoweverOftenItIsSent(t *testing.T) {
	t.Parallel()
	const requests = 50
	b := setup(t)
	answers, errs := make([]store.Answer, requests), make([]error, requests)
	var wait sync.WaitGroup
	for i := range requests {
		wait.Go(func() { answers[i], errs[i] = b.once(t.Context(), "key") })
	}
	wait.Wait()

	first, err := b.once(t.Context(), "key")
	require.NoError(t, err)
	answered := 0
	for i := range requests {
		if errs[i] != nil {
			require.ErrorIs(t, errs[i], store.ErrRunning)
			continue
		}
		answered++
		require.Equal(t, first, answers[i])
	}
	require.Positive(t, answered)
	b.holds(1, 1, 1)
}

func TestRepeatsOfAnEndedRequestNeverWaitForEachOther(t *testing.T) {
	t.Parallel()
	const requests = 32
	b := setup(t)
	first, err := b.once(t.Context(), "key")
	require.NoError(t, err)
	answers, errs := make([]store.Answer, requests), make([]error, requests)
	var wait sync.WaitGroup
	for i := range requests {
		wait.Go(func() { answers[i], errs[i] = b.once(t.Context(), "key") })
	}
	wait.Wait()
	for i := range requests {
		require.NoError(t, errs[i])
		require.Equal(t, first, answers[i])
	}
}

func TestRepeatIsToldAtOnceThatTheFirstIsRunning(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := setup(t)
	barrier := b.barrier("outbox")
	first := make(chan error, 1)
	go func() {
		_, err := b.once(t.Context(), "key")
		first <- err
	}()
	barrier.waiting()

	_, err := b.once(t.Context(), "key")
	require.ErrorIs(t, err, store.ErrRunning)
	_, err = other.once(t.Context(), "key")
	require.NoError(t, err, "another database's keys are its own")

	barrier.lift()
	require.NoError(t, <-first)
	_, err = b.once(t.Context(), "key")
	require.NoError(t, err)
	b.holds(1, 1, 1)
}

// The named lock is a courtesy: it does not survive a failover. The key's row must be enough.
func TestKeyIsSafeWithoutTheNamedLock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := handlertest.Customer()
	once := handlertest.Once("key", c)
	tx, err := b.direct.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?, ?, NOW(6))",
		once.Key, once.RequestHash[:], once.Answer.Status, once.Answer.Location, once.Answer.Body)
	require.NoError(t, err)

	var answer store.Answer
	done := make(chan error, 1)
	go func() {
		var err error
		answer, err = b.once(t.Context(), "key")
		done <- err
	}()
	b.inLockWait("INSERT INTO idempotency_keys%")
	require.NoError(t, tx.Commit())
	require.NoError(t, <-done)
	require.Equal(t, once.Answer, answer)
	b.holds(0, 0, 1)
}

func TestRequestThatWasGivenUpFreesItsKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	barrier := b.barrier("outbox")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := b.once(ctx, "key")
		done <- err
	}()
	barrier.waiting()
	cancel()
	require.ErrorIs(t, <-done, store.ErrUnavailable)
	barrier.lift()

	b.eventually(func(ctx context.Context) bool {
		_, err := b.once(ctx, "key")
		require.True(t, err == nil || errors.Is(err, store.ErrRunning), "%v", err)
		return err == nil
	})
	b.holds(1, 1, 1)
}

func TestOldKeysAreForgottenInBatches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := "('%d', REPEAT('h', 32), 201, '', '', NOW(6) - INTERVAL 25 HOUR)"
	rows := make([]string, 2500)
	for i := range rows {
		rows[i] = fmt.Sprintf(old, i)
	}
	_, err := b.direct.ExecContext(t.Context(), "INSERT INTO idempotency_keys VALUES "+strings.Join(rows, ","))
	require.NoError(t, err)
	_, err = b.once(t.Context(), "fresh")
	require.NoError(t, err)

	pruned, err := b.store.Prune(t.Context(), time.Now().Add(-24*time.Hour))
	require.NoError(t, err)
	require.Equal(t, int64(len(rows)), pruned)
	b.holds(1, 1, 1)
	pruned, err = b.store.Prune(t.Context(), time.Now().Add(-24*time.Hour))
	require.NoError(t, err)
	require.Zero(t, pruned)
}

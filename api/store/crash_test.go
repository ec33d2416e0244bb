package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/api/handler/handlertest"
	"tailbox/api/store"
)

// inLockWait returns once a statement like this waits for a row lock in this database. InnoDB shows a copy that it renews
// only when nobody has looked for a tenth of a second, so this does not look all the time.
func (b *bundle) inLockWait(statement string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		var one int
		return b.direct.QueryRowContext(b.t.Context(), "SELECT 1 FROM information_schema.innodb_trx t JOIN information_schema.processlist p "+
			"ON p.id = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE() AND p.info LIKE ?", statement).Scan(&one) == nil
	}, time.Minute, 300*time.Millisecond)
}

func TestKilledConnectionLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, stop := range []string{"outbox", "idempotency_keys"} { // behind the customer, behind customer and event
		t.Run(stop, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			barrier := b.barrier(stop)
			done := make(chan error, 1)
			go func() {
				_, err := b.once(t.Context(), "key")
				done <- err
			}()
			b.kill(barrier.waiting())
			require.ErrorIs(t, <-done, store.ErrUnavailable)
			barrier.lift()
			b.holds(0, 0, 0)

			b.eventually(func(ctx context.Context) bool {
				_, err := b.once(ctx, "key")
				return err == nil
			})
			b.holds(1, 1, 1)
		})
	}
}

func TestKilledUpdateLeavesTheCustomerAsItWas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.created()
	barrier := b.barrier("outbox")
	done := make(chan error, 1)
	go func() { done <- b.rename(c.ID, "Countess") }()
	b.kill(barrier.waiting())
	require.ErrorIs(t, <-done, store.ErrUnavailable)
	barrier.lift()
	now, err := b.store.Get(t.Context(), c.ID)
	require.NoError(t, err)
	require.Equal(t, c, now)
	require.NoError(t, b.rename(c.ID, "Countess"))
	b.holds(1, 2, 0)
}

func TestACommitWithoutAnAnswerIsGivenUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	line := proxy(t, b.dsn)
	far := open(t, line.dsn)
	line.cutNext(noAnswer)
	began := time.Now()
	customer := handlertest.Customer()
	require.ErrorIs(t, far.Create(t.Context(), customer, nil), store.ErrUnavailable)
	require.Less(t, time.Since(began), 20*time.Second, "the server would cut the client off without a word")
	_, err := b.store.Get(t.Context(), customer.ID)
	require.NoError(t, err, "the database did commit")
	b.holds(1, 1, 0)
}

// A connection can be lost before the server hears COMMIT, or before the client hears that it was done. The client cannot
// tell one from the other; it sends the request again.
func TestRepeatIsSafeWhenTheCommitIsLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cut  cut
		left int
	}{"Request": {beforeCommit, 0}, "Answer": {afterCommit, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			line := proxy(t, b.dsn)
			far := open(t, line.dsn)
			customer := handlertest.Customer()
			once := handlertest.Once("key", customer)
			line.cutNext(c.cut)
			_, err := far.CreateOnce(t.Context(), customer, nil, once)
			require.ErrorIs(t, err, store.ErrUnavailable)
			b.eventually(func(ctx context.Context) bool { // the server notices that the client is gone
				_, err = b.once(ctx, "key")
				return err == nil
			})
			b.holds(1, 1, 1)
			got, err := far.Get(t.Context(), customer.ID)
			if c.left == 0 {
				require.ErrorIs(t, err, store.ErrNotFound)
				return
			}
			require.NoError(t, err)
			require.Equal(t, customer, got)
			again, err := far.CreateOnce(t.Context(), customer, nil, once)
			require.NoError(t, err)
			require.Equal(t, once.Answer, again)
		})
	}
}

func TestDeadlockIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.created()

	// The other transaction has written more, so the server takes the update for its victim.
	other, err := b.direct.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = other.Rollback() }()
	for i := range 50 {
		_, err = other.ExecContext(t.Context(), "INSERT INTO idempotency_keys VALUES (?, REPEAT('h', 32), 201, '', '', NOW(6))", i)
		require.NoError(t, err)
	}
	rows, err := other.QueryContext(t.Context(), "SELECT id FROM outbox FOR UPDATE") // nobody inserts behind the last row
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() { // each row is locked when it is read
	}
	require.NoError(t, rows.Err())

	done := make(chan error, 1)
	go func() { done <- b.rename(c.ID, "Countess") }()
	b.inLockWait("INSERT INTO outbox%")
	var id string
	require.NoError(t, other.QueryRowContext(t.Context(), "SELECT id FROM customers WHERE id = ? FOR UPDATE", c.ID).Scan(&id),
		"the update gave up its lock")
	require.NoError(t, other.Rollback())
	require.NoError(t, <-done)
	now, err := b.store.Get(t.Context(), c.ID)
	require.NoError(t, err)
	require.Equal(t, uint64(2), now.Version)
	b.holds(1, 2, 0)
}

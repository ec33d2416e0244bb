package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/api/store"
	"tailbox/deploy/faults"
	"tailbox/deploy/ops"
	"tailbox/schema/schematest"
)

// TestACustomerIsNotLockedByAnAPIThatIsGone: its host has lost power in the middle of a transaction, and the database is never
// told.
func TestACustomerIsNotLockedByAnAPIThatIsGone(t *testing.T) {
	t.Parallel()
	const patience = 30 * time.Second
	b := setup(t)
	customer := b.created()
	server := schematest.Servers(t).MySQL.Addr()
	proxy, err := faults.New(server)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	gone, err := store.Open(ops.Secret(strings.Replace(b.dsn, server, proxy.Addr(), 1)), ops.TLSFiles{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = gone.Close() }) // its link is broken, which is what the test is about
	tx, err := gone.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "UPDATE customers SET name = 'Gone' WHERE id = ?", customer.ID)
	require.NoError(t, err)
	proxy.Swallow(faults.ToServer, true)

	began := time.Now()
	for err = b.rename(customer.ID, "Ada"); err != nil; err = b.rename(customer.ID, "Ada") { // each waits for the lock
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.Less(t, time.Since(began), patience)
	}
	c, err := b.store.Get(t.Context(), customer.ID)
	require.NoError(t, err)
	require.Equal(t, "Ada", c.Name)
}

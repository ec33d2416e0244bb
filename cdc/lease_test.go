package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/checkpoint"
	"tailbox/deploy/faults"
	"tailbox/deploy/ops"
	"tailbox/schema/schematest"
)

// TestALeaderThatIsGoneKeepsNobodyFromItsRow: its host has lost power in the middle of a transaction that locks the row, and the
// database is never told.
func TestALeaderThatIsGoneKeepsNobodyFromItsRow(t *testing.T) {
	t.Parallel()
	const name, ttl, patience = "default", 3 * time.Second, 15 * time.Second
	server := schematest.Servers(t).MySQL.Addr()
	proxy, err := faults.New(server)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	p := setup(t)
	gone := Config{MySQLDSN: ops.Secret(strings.Replace(p.dsn, server, proxy.Addr(), 1)), LeaseTTL: ttl}
	pool, err := gone.openLeased(2)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pool.Close() }) // its link is broken, which is what the test is about
	leader := checkpoint.New(pool, name, "gone", ttl)
	seen, err := leader.Look(t.Context())
	require.NoError(t, err)
	lease, _, err := leader.Acquire(t.Context(), seen)
	require.NoError(t, err)

	tx, err := pool.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "SELECT epoch FROM relay_checkpoint WHERE relay = ? FOR UPDATE", name)
	require.NoError(t, err)
	proxy.Swallow(faults.ToServer, true)
	began := time.Now()

	standby := Config{MySQLDSN: ops.Secret(p.dsn), LeaseTTL: ttl}
	others, err := standby.openLeased(2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, others.Close()) })
	taken, _, err := checkpoint.New(others, name, "standby", ttl).Acquire(t.Context(), lease)
	require.NoError(t, err)
	require.Equal(t, lease.Epoch+1, taken.Epoch)
	require.Less(t, time.Since(began), patience)
}

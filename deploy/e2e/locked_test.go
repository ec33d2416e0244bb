package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestALockedCheckpointStopsTheRelayUntilItIsFree: somebody holds the row of the checkpoint for longer than the lease. Nobody can
// renew it, so nobody sends; then the relays go on by themselves.
func TestALockedCheckpointStopsTheRelayUntilItIsFree(t *testing.T) {
	t.Parallel()
	p := standbyWorld(t)
	audit, stop := p.audit("#"), p.trickle()
	for range count(10) {
		p.leader()
		lock, err := p.db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		var holder string
		require.NoError(t, lock.QueryRowContext(t.Context(), "SELECT holder FROM relay_checkpoint WHERE relay = 'default' FOR UPDATE").Scan(&holder))
		p.waitFor("the leader to give up", leaseTTL+patience, p.nobodyLeads)
		sent := len(audit.settled())
		pause(t, leaseTTL)
		require.False(t, p.somebodyLeads())
		require.Len(t, audit.read(), sent, "nothing is sent without a lease")
		require.NoError(t, lock.Rollback())
		began := time.Now()
		p.leader()
		require.Less(t, time.Since(began), leaseTTL+patience)
	}
	p.everythingOnce(stop())
	p.firstDeliveriesFollowVersions(audit.settled())
}

// somebodyLeads tells whether an instance says that it leads. Who does not answer says nothing.
func (p *pair) somebodyLeads() bool {
	for _, s := range p.cdcs {
		if said, ok := p.asks(s); ok && said.Leader.Me {
			return true
		}
	}
	return false
}

// nobodyLeads tells whether all instances say that they do not lead.
func (p *pair) nobodyLeads() bool {
	for _, s := range p.cdcs {
		if said, ok := p.asks(s); !ok || said.Leader.Me {
			return false
		}
	}
	return true
}

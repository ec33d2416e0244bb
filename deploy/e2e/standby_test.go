package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/faults"
	"tailbox/deploy/mysql"
	"tailbox/deploy/services"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

func TestAKilledLeaderIsReplacedWithinTheLease(t *testing.T) {
	t.Parallel()
	p := standbyWorld(t)
	audit, stop := p.audit("#"), p.trickle()
	var longest time.Duration
	for range count(50) {
		leader := p.leader()
		pause(t, time.Duration(rand.IntN(500))*time.Millisecond)
		require.NoError(t, leader.Process().Kill())
		behind, before := p.behind(audit), repeated(audit.ids)
		longest = max(longest, p.leads(p.other(leader), leaseTTL+patience))
		require.Less(t, behind, 10*standbyWindow, "the window, and what was committed while a save took its time")
		require.LessOrEqual(t, repeated(audit.read())-before, behind+standbyWindow, "a takeover sends no more than that again")
		require.NoError(t, leader.Start())
		p.ready(leader)
	}
	t.Logf("the longest takeover took %s of at most %s", longest, leaseTTL+patience)
	p.everythingOnce(stop())
	p.firstDeliveriesFollowVersions(audit.settled())
}

func TestAFrozenLeaderComesBackAsAStandby(t *testing.T) {
	t.Parallel()
	p := standbyWorld(t)
	audit, stop := p.audit("#"), p.trickle()
	for range count(50) {
		leader := p.leader()
		took := p.takeovers(leader)
		pause(t, time.Duration(rand.IntN(300))*time.Millisecond)
		require.NoError(t, leader.Process().Pause())
		heir := p.other(leader)
		p.leads(heir, leaseTTL+patience)
		pause(t, 3*leaseTTL-leaseTTL-time.Duration(rand.IntN(500))*time.Millisecond)
		holder := p.holder()
		behind, before := p.behind(audit), repeated(audit.ids)
		require.NoError(t, leader.Process().Resume())
		require.Eventually(t, func() bool {
			said, ok := p.asks(leader)
			return ok && said.State == "standby" && said.Leader.ID == holder
		}, 20*time.Second, 20*time.Millisecond, "it says that it stands by, and for whom")
		require.Equal(t, holder, p.holder(), "no flapping")
		require.Equal(t, took, p.takeovers(leader), "not for a moment either")
		require.LessOrEqual(t, repeated(audit.read())-before, behind+standbyWindow, "what the zombie still sends is at most a window")
		p.leads(heir, patience)
	}
	p.everythingOnce(stop())
	p.firstDeliveriesFollowVersions(audit.settled())
}

func TestARollingRestartMakesNoDuplicateAndNoGap(t *testing.T) {
	t.Parallel()
	p := standbyWorld(t)
	audit, stop := p.audit("#"), p.trickle()
	var longest time.Duration
	for range count(50) {
		leader := p.leader()
		pause(t, time.Duration(rand.IntN(300))*time.Millisecond)
		began := time.Now()
		require.NoError(t, leader.Process().Signal(syscall.SIGTERM))
		p.leads(p.other(leader), 10*time.Second)
		longest = max(longest, time.Since(began))
		require.NoError(t, leader.Process().Wait(t.Context()))
		require.Zero(t, leader.Process().ExitCode())
		require.NoError(t, leader.Start())
		p.ready(leader)
	}
	require.Less(t, longest, 2*time.Second, "from SIGTERM until the other relays")
	t.Logf("the longest gap was %s", longest)
	p.everythingOnce(stop())
	routed := audit.settled()
	require.Zero(t, repeated(routed), "no event was published twice")
	p.firstDeliveriesFollowVersions(routed)
}

// TestALeaderThatIsCutOffIsReplacedOnce cuts the leader off from the database, the broker or both, by links that swallow.
func TestALeaderThatIsCutOffIsReplacedOnce(t *testing.T) {
	t.Parallel()
	var database, broker [2]*faults.Proxy
	p := standbyWorld(t, func(p *pair, i int, cfg *services.Config) {
		database[i], broker[i] = p.proxy(p.stack.MySQL.Addr()), p.proxy(p.stack.Rabbit.Addr())
		cfg.MySQLAddr = database[i].Addr()
		cfg.AMQPURL = strings.Replace(p.stack.Rabbit.URL("/"), p.stack.Rabbit.Addr(), broker[i].Addr(), 1)
	})
	audit, stop := p.audit("#"), p.trickle()
	for _, cut := range []struct {
		what             string
		database, broker bool
	}{{"database", true, false}, {"broker", false, true}, {"both", true, true}} {
		leader := p.leader()
		i := 0
		if leader == p.cdcs[1] {
			i = 1
		}
		holder := p.holder()
		took := p.takeovers(p.other(leader))
		swallow := func(on bool) {
			for _, d := range []faults.Direction{faults.ToServer, faults.ToClient} {
				database[i].Swallow(d, on && cut.database)
				broker[i].Swallow(d, on && cut.broker)
			}
		}
		swallow(true)
		if cut.database {
			p.leads(p.other(leader), leaseTTL+patience+5*time.Second)
			holder = p.holder()
			took = p.takeovers(leader)
		} else {
			// The lease is not about the broker: the leader keeps it, says that the broker is away, and goes on when it is back.
			p.waitFor("the leader to miss the broker", 30*time.Second, func() bool {
				said, ok := p.asks(leader)
				return ok && said.Leader.Me && said.State == "blocked"
			})
		}
		pause(t, 2*leaseTTL)
		require.Equal(t, holder, p.holder(), "cut off from %s: no flapping", cut.what)
		if cut.database {
			require.Equal(t, took, p.takeovers(leader), "who is cut off takes nothing")
		} else {
			require.Equal(t, took, p.takeovers(p.other(leader)), "the lease is not about the broker")
		}
		swallow(false)
		database[i].Reset()
		broker[i].Reset()
		p.ready(p.cdcs[0], p.cdcs[1])
	}
	p.everythingOnce(stop())
	p.firstDeliveriesFollowVersions(audit.settled())
}

// TestClocksThatAreSetMakeNoTakeover: the database's clock jumps by a day for one instance after the other.
func TestClocksThatAreSetMakeNoTakeover(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for what, skew := range map[string]time.Duration{"ahead": 24 * time.Hour, "behind": -24 * time.Hour} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := standbyWorld(t, func(p *pair, i int, cfg *services.Config) {
				if i == 1 { // the standby's sessions live in another time
					cfg.Env = append(cfg.Env, fmt.Sprintf("MYSQL_DSN=cdc:%s@tcp(%s)/%s?timestamp=%d",
						mysql.Password("cdc"), p.stack.MySQL.Addr(), mysql.Database, now.Add(skew).Unix()))
				}
			})
			holder := p.holder()
			took := p.takeovers(p.cdcs[1])
			pause(t, 3*leaseTTL)
			require.Equal(t, took, p.takeovers(p.cdcs[1]))
			require.Equal(t, holder, p.holder(), "the standby does not take the lease of a leader that lives")

			leader := p.leader()
			require.NoError(t, leader.Process().Kill())
			p.leads(p.other(leader), leaseTTL+patience)
			require.NoError(t, leader.Start())
			p.ready(leader)
			holder = p.holder()
			took = p.takeovers(leader)
			pause(t, 3*leaseTTL)
			require.Equal(t, took, p.takeovers(leader))
			require.Equal(t, holder, p.holder(), "nor the other way round")
		})
	}
}

// TestRelaysOfDifferentNamesWorkSideBySide: another table, another exchange, another checkpoint.
func TestRelaysOfDifferentNamesWorkSideBySide(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, statement := range []string{"CREATE TABLE orders_outbox LIKE outbox", "GRANT SELECT, DELETE ON tailbox.orders_outbox TO 'cdc'@'%'"} {
		_, err := w.db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	ch := w.channel()
	require.NoError(t, topology.DeclareExchange(ch, "orders.events"))
	_, err := ch.QueueDeclare("orders", true, false, false, false, nil)
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind("orders", "#", "orders.events", false, nil))
	orders := services.New(w.config("cdc", "orders", "RELAY_NAME=orders", "OUTBOX_TABLE=orders_outbox", "EXCHANGE=orders.events"))
	t.Cleanup(func() { _ = orders.Process().Kill() })
	w.start(orders)

	audit := w.audit("#")
	var mine, theirs []string
	for range 20 {
		e := schematest.Event(func(e *schema.Event) { e.AggregateID = schema.NewID() })
		require.NoError(t, insert(t.Context(), w.db, true, e))
		mine = append(mine, e.ID)
		_, err := w.db.ExecContext(t.Context(), "INSERT INTO orders_outbox SELECT UUID(), aggregate_type, aggregate_id, aggregate_version, type, payload, headers, created_at FROM outbox WHERE id = ?", e.ID)
		require.NoError(t, err)
	}
	rows, err := w.db.QueryContext(t.Context(), "SELECT id FROM orders_outbox")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		require.NoError(t, rows.Scan(&id))
		theirs = append(theirs, id)
	}
	require.NoError(t, rows.Err())

	w.waitFor("this relay's events", 20*time.Second, func() bool { return len(audit.read()) >= len(mine) })
	require.Equal(t, mine, audit.settled())
	w.waitFor("the other relay's events", 20*time.Second, func() bool { return w.messages("orders") == len(theirs) })
	var got []string
	for range theirs {
		m, ok, err := ch.Get("orders", true)
		require.NoError(t, err)
		require.True(t, ok)
		got = append(got, m.MessageId)
	}
	require.ElementsMatch(t, theirs, got)
	w.waitFor("two checkpoints", 20*time.Second, func() bool {
		return w.number("SELECT COUNT(DISTINCT relay) FROM relay_checkpoint WHERE position IS NOT NULL") == 2
	})
}

package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/services"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

func TestACustomersEventTravelsFromPostToEffect(t *testing.T) {
	t.Parallel()
	w := setup(t)
	id, err := w.post(t.Context(), 1)
	require.NoError(t, err)
	require.NoError(t, w.patch(t.Context(), id, 1))
	require.NoError(t, w.call(t.Context(), http.MethodDelete, w.api.URL("/customers/"+id), "", http.StatusNoContent, nil))
	w.everythingOnce(3)
	require.Equal(t, 1, w.number("SELECT COUNT(*) FROM customer_profiles WHERE customer_id = ? AND status = 'deleted' AND version = 3", id))

	w.waitFor("the position to be checkpointed", 10*time.Second, func() bool {
		p := w.position()
		return p.Totals.Confirmed == 3 && p.Checkpoint.EventID != "" && p.Checkpoint.EventID == w.checkpointed()
	})
	require.Equal(t, "streaming", w.position().State)
}

// load posts customers, and changes every third once, from a number of clients: at least n, and until it is stopped.
type load struct {
	w        *world
	accepted atomic.Int64
	unknown  atomic.Int64 // answers that were lost: committed or not
	enough   chan struct{}
	group    sync.WaitGroup
}

func (w *world) load(clients, n int) *load {
	l := &load{w: w, enough: make(chan struct{})}
	var next atomic.Int64
	for range clients {
		l.group.Go(func() {
			for w.t.Context().Err() == nil {
				i := int(next.Add(1))
				if i > n {
					select {
					case <-l.enough:
						return
					case <-time.After(50 * time.Millisecond): // from here on only a trickle is needed
					}
				}
				l.one(i)
			}
		})
	}
	return l
}

// stop ends the load and returns how many events were accepted.
func (l *load) stop() int {
	close(l.enough)
	l.group.Wait()
	return int(l.accepted.Load())
}

// one posts a customer and, every third time, changes it once.
func (l *load) one(i int) {
	ctx := l.w.t.Context()
	for ctx.Err() == nil {
		id, err := l.w.post(ctx, i)
		if err != nil {
			l.unknown.Add(1)
			continue
		}
		l.accepted.Add(1)
		if i%3 == 0 {
			if err := l.w.patch(ctx, id, i); err != nil {
				l.unknown.Add(1)
			} else {
				l.accepted.Add(1)
			}
		}
		return
	}
}

// TestNothingIsLostWhenCdcAndWorkerAreKilled: SIGKILL at random, under load. At each kill the checkpoint in the table is
// compared with what the audit queue has got.
func TestNothingIsLostWhenCdcAndWorkerAreKilled(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit("#")
	customers, kills := count(10000), count(20)
	l := w.load(16, customers)

	for kill := range kills {
		pause(t, time.Duration(200+rand.IntN(1000))*time.Millisecond)
		require.NoError(t, w.cdc.Process().Kill())
		w.checkpointIsInTheQueue(audit)
		require.NoError(t, w.worker.Process().Kill())
		require.NoError(t, w.cdc.Start())
		require.NoError(t, w.worker.Start())
		if kill%4 == 3 { // now and then let them get going before the next kill
			w.ready(w.cdc, w.worker)
		}
	}
	accepted := l.stop()
	w.ready(w.cdc, w.worker)
	require.Zero(t, l.unknown.Load(), "the api was never hurt")
	w.everythingOnce(accepted)
	w.firstDeliveriesFollowVersions(audit.settled())
}

// checkpointIsInTheQueue: with the relay dead, the event that the checkpoint names is in the audit queue. That none before it
// is missing shows in the end: what the checkpoint has passed is never sent again, so it would be in no queue and no inbox.
func (w *world) checkpointIsInTheQueue(a *audit) {
	w.t.Helper()
	id := w.checkpointed()
	if id == "" {
		return
	}
	routed := a.read()
	at := slices.Index(routed, id)
	require.GreaterOrEqual(w.t, at, 0, "the checkpoint has passed event %s, which the queue has not got", id)
}

// event is what order is checked by.
type event struct {
	aggregate string
	version   int
}

// whereabouts tells where the events of an aggregate before one of them are, for who has to find out why they are not where
// they should be.
func whereabouts(routed []string, events map[string]event, of event) (places []string) {
	for id, e := range events {
		if e.aggregate == of.aggregate && e.version < of.version {
			places = append(places, fmt.Sprintf("%s (version %d) is first at %d", id, e.version, slices.Index(routed, id)))
		}
	}
	return places
}

// firstDeliveriesFollowVersions checks that per aggregate the first delivery of each event followed the order of commits.
func (w *world) firstDeliveriesFollowVersions(routed []string) {
	w.t.Helper()
	events := map[string]event{}
	rows, err := w.db.QueryContext(w.t.Context(), "SELECT id, aggregate_id, aggregate_version FROM outbox")
	require.NoError(w.t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		var e event
		require.NoError(w.t, rows.Scan(&id, &e.aggregate, &e.version))
		events[id] = e
	}
	require.NoError(w.t, rows.Err())

	seen, last := map[string]bool{}, map[string]int{}
	for at, id := range routed {
		e, ok := events[id]
		require.True(w.t, ok, "event %s was invented", id)
		if seen[id] {
			continue
		}
		seen[id] = true
		if last[e.aggregate]+1 != e.version { // only then: whereabouts goes through all of them
			require.Fail(w.t, "first deliveries out of order", "version %d of aggregate %s comes after version %d: event %s is the %dth of %d messages; those before it: %q",
				e.version, e.aggregate, last[e.aggregate], id, at, len(routed), whereabouts(routed, events, e))
		}
		last[e.aggregate] = e.version
	}
	require.Len(w.t, seen, len(events), "every event was routed")
}

// pause waits between two blows of a fault test: that is the test's rhythm, no condition is waited for.
func pause(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// TestWhatReachedNoQueueIsNeverPassed kills the relay at the worst moment: of three events in one transaction the first and the
// third are confirmed, the second is not, and time enough to save has passed.
func TestWhatReachedNoQueueIsNeverPassed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	ch := w.channel()
	const createdAlone = "customer.CustomerCreated"
	for round := range count(20) {
		require.NoError(t, ch.QueueBind(topology.CustomersQueue, createdAlone, topology.Exchange, false, nil))
		require.NoError(t, ch.QueueUnbind(topology.CustomersQueue, topology.CustomersBinding, topology.Exchange, nil))

		first := schematest.Event()
		second := schematest.Event(func(e *schema.Event) {
			e.AggregateID, e.AggregateVersion, e.Type = first.AggregateID, 2, "CustomerUpdated"
		})
		require.NoError(t, insert(t.Context(), w.db, true, first, second, schematest.Event()))
		w.waitFor("the checkpoint to pass the first event", time.Minute, func() bool { return w.checkpointed() == first.ID })
		w.waitFor("the relay to say why", time.Minute, func() bool { return w.position().Reason == "unroutable" })
		require.Never(t, func() bool { return w.checkpointed() != first.ID }, time.Second, 100*time.Millisecond,
			"the checkpoint has passed an event that is in no queue")

		require.NoError(t, w.cdc.Process().Kill())
		require.NoError(t, ch.QueueBind(topology.CustomersQueue, topology.CustomersBinding, topology.Exchange, false, nil))
		w.start(w.cdc)
		w.everythingOnce(3 * (round + 1))
	}
}

func TestServersMayBeKilledUnderLoad(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit("#")
	l := w.load(8, count(3000))
	for range count(20) {
		pause(t, time.Duration(300+rand.IntN(700))*time.Millisecond)
		require.NoError(t, w.stack.MySQL.Kill())
		require.NoError(t, w.stack.MySQL.Start(t.Context()))
		pause(t, time.Duration(300+rand.IntN(700))*time.Millisecond)
		require.NoError(t, w.stack.Rabbit.Kill())
		require.NoError(t, w.stack.Rabbit.Start(t.Context()))
	}
	accepted := l.stop()
	w.ready(w.api, w.cdc, w.worker)
	for _, s := range []*services.Service{w.api, w.cdc, w.worker} {
		require.Equal(t, -1, s.Process().ExitCode(), "no service of ours was restarted")
	}
	require.Positive(t, l.unknown.Load(), "the kills were felt")
	events := w.number("SELECT COUNT(*) FROM outbox")
	require.GreaterOrEqual(t, events, accepted, "what was accepted is there")
	w.everythingOnce(events)
	w.firstDeliveriesFollowVersions(audit.settled())
}

func TestAMessageThatReachesNoQueueIsHeldUntilTheBindingIsBack(t *testing.T) {
	t.Parallel()
	w := setup(t)
	_, err := w.post(t.Context(), 1)
	require.NoError(t, err)
	w.everythingOnce(1)

	ch := w.channel()
	require.NoError(t, ch.QueueUnbind(topology.CustomersQueue, topology.CustomersBinding, topology.Exchange, nil))
	for i := range 20 {
		_, err := w.post(t.Context(), 2+i)
		require.NoError(t, err)
	}
	w.waitFor("the relay to say that messages are unroutable", 10*time.Second, func() bool {
		p := w.position()
		return p.State == "blocked" && p.Reason == "unroutable" && p.Totals.Returned > 0
	})
	require.Equal(t, 1, w.number("SELECT COUNT(*) FROM inbox"))
	err = w.call(t.Context(), http.MethodGet, w.cdc.URL("/readyz"), "", http.StatusOK, nil)
	require.ErrorContains(t, err, "unroutable")

	require.NoError(t, ch.QueueBind(topology.CustomersQueue, topology.CustomersBinding, topology.Exchange, false, nil))
	w.everythingOnce(21)
	w.ready(w.cdc)
}

func TestAMessageThatReachesNoQueueIsParkedAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	w := setup(t, option{cdcEnv: []string{"ON_UNROUTABLE=park", "STRICT_ORDER=true"}})
	var kept, lost []string
	for i := range 40 {
		kind, list := "customer", &kept
		if i%4 == 3 {
			kind, list = "nobody", &lost
		}
		e := schematest.Event(func(e *schema.Event) { e.AggregateType = kind })
		require.NoError(t, insert(t.Context(), w.db, true, e))
		*list = append(*list, e.ID)
	}
	w.waitFor("all others in the inbox", time.Minute, func() bool { return w.number("SELECT COUNT(*) FROM inbox") == len(kept) })
	w.waitFor("the rest in the unrouted queue", time.Minute, func() bool { return w.messages(topology.Unrouted) == len(lost) })
	require.Equal(t, "streaming", w.position().State)
	w.ready(w.cdc)
}

func TestSigtermUnderLoadMakesNoDuplicateAndNoRedelivery(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit("#")
	l := w.load(8, count(4000))
	for range count(30) {
		pause(t, time.Duration(200+rand.IntN(400))*time.Millisecond)
		for _, s := range []*services.Service{w.cdc, w.worker} {
			require.NoError(t, s.Process().Signal(syscall.SIGTERM))
			require.NoError(t, s.Process().Wait(t.Context()))
			require.Zero(t, s.Process().ExitCode())
			require.NoError(t, s.Start())
			w.ready(s)
			if s == w.worker {
				require.Zero(t, w.duplicates(), "no message that was applied came again")
			}
		}
	}
	w.everythingOnce(l.stop())
	require.Zero(t, w.duplicates())
	routed := audit.settled()
	require.Len(t, routed, w.number("SELECT COUNT(*) FROM outbox"), "no event was published twice")
	w.firstDeliveriesFollowVersions(routed)
}

// duplicates is how many messages the running worker found to be applied already.
func (w *world) duplicates() (n int) {
	w.t.Helper()
	return w.metric(w.worker, `tailbox_worker_messages_total{outcome="duplicate"}`)
}

func TestRolledBackTransactionsAreNeverPublished(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit("#")
	var kept []string
	for i := range 200 {
		e := schematest.Event(func(e *schema.Event) { e.AggregateID = schema.NewID() })
		require.NoError(t, insert(t.Context(), w.db, i%2 == 0, e))
		if i%2 == 0 {
			kept = append(kept, e.ID)
		}
	}
	w.everythingOnce(len(kept))
	require.Equal(t, kept, audit.settled())
}

func TestBadServersAreNamedWithTheStatementThatMendsThem(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true})
	require.NoError(t, topology.DeclareExchange(w.channel(), topology.Exchange)) // the doctor would miss it, too
	for _, v := range []struct{ name, bad, good string }{
		{"binlog_format", "STATEMENT", "ROW"},
		{"binlog_row_image", "MINIMAL", "FULL"},
		{"binlog_row_metadata", "MINIMAL", "FULL"},
	} {
		_, err := w.db.ExecContext(t.Context(), fmt.Sprintf("SET GLOBAL %s = '%s'", v.name, v.bad))
		require.NoError(t, err)
		w.refuses(2, v.name+" is "+v.bad, v.name+"="+v.good)
		w.doctorSays("fail  "+v.name, v.name+" is "+v.bad+", the relay needs "+v.good, v.name+"="+v.good)
		_, err = w.db.ExecContext(t.Context(), fmt.Sprintf("SET GLOBAL %s = '%s'", v.name, v.good))
		require.NoError(t, err)
	}
	for _, v := range []struct{ name, bad, good string }{
		{"sync_binlog", "0", "1"}, {"innodb_flush_log_at_trx_commit", "2", "1"}, {"binlog_expire_logs_seconds", "60", "604800"},
		{"binlog_checksum", "NONE", "CRC32"},
	} {
		_, err := w.db.ExecContext(t.Context(), fmt.Sprintf("SET GLOBAL %s = %s", v.name, v.bad))
		require.NoError(t, err)
		w.doctorSays("warn  "+v.name, v.name+"="+v.good)
		_, err = w.db.ExecContext(t.Context(), fmt.Sprintf("SET GLOBAL %s = %s", v.name, v.good))
		require.NoError(t, err)
	}
	_, err := w.db.ExecContext(t.Context(), "SET GLOBAL read_only = ON")
	require.NoError(t, err)
	w.doctorSays("fail  read_only", "SET GLOBAL read_only=OFF")
	_, err = w.db.ExecContext(t.Context(), "SET GLOBAL read_only = OFF")
	require.NoError(t, err)
	_, err = w.db.ExecContext(t.Context(), "REVOKE REPLICATION SLAVE, REPLICATION CLIENT ON *.* FROM 'cdc'@'%'")
	require.NoError(t, err)
	w.refuses(2, "may not read the binlog", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'cdc'")
	_, err = w.db.ExecContext(t.Context(), "DROP TABLE outbox")
	require.NoError(t, err)
	w.refuses(2, "the table tailbox.outbox does not exist", "MIGRATE=true")
}

// doctorSays runs cdc doctor and wants one line that is not ok, with these words in it.
func (w *world) doctorSays(words ...string) {
	w.t.Helper()
	code, printed := w.command("doctor")
	var unwell []string
	for line := range strings.Lines(printed) {
		if !strings.HasPrefix(line, "ok ") && !strings.HasPrefix(line, "error: not all is well") {
			unwell = append(unwell, line)
		}
	}
	require.Len(w.t, unwell, 1, printed)
	for _, word := range words {
		require.Contains(w.t, unwell[0], word)
	}
	require.Equal(w.t, strings.HasPrefix(unwell[0], "fail"), code == 1, printed)
}

// command runs a command of cdc to its end.
func (w *world) command(args ...string) (code int, printed string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	w.logs["command"] = &bytes.Buffer{}
	s := services.New(services.Config{Name: "cdc", Args: args, Bin: binaries, Stack: w.stack, Addr: "127.0.0.1:0", Output: w.log("command")})
	require.NoError(w.t, s.Start())
	require.NoError(w.t, s.Process().Wait(ctx))
	return s.Process().ExitCode(), w.printed("command")
}

func TestAServerWithoutABinlogIsRefused(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true, mysql: []string{"--skip-log-bin"}})
	w.refuses(2, "log_bin is OFF", "--log-bin")
}

func TestBadConfigurationNamesEveryWrongSetting(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true})
	w.cdc = w.service("cdc", "WINDOW=many", "START=never", "AMQP_URL=nonsense")
	w.refuses(2, `WINDOW: "many" is not a whole number`, `START: "never" is not one of snapshot, latest, earliest`, "AMQP_URL: it begins with neither")
	w.cdc = w.service("cdc", "MYSQL_DSN=cdc:wrong@tcp("+w.stack.MySQL.Addr()+")/tailbox")
	w.refuses(2, "the server refuses the login", "MYSQL_DSN")
	require.NotContains(t, w.printed("cdc"), "cdc:wrong", "no secret is printed")
}

// refuses starts the relay and waits for it to end with the code, having printed the words.
func (w *world) refuses(code int, words ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(w.t, w.cdc.Start())
	require.NoError(w.t, w.cdc.Process().Wait(ctx))
	require.Equal(w.t, code, w.cdc.Process().ExitCode(), w.printed("cdc"))
	for _, word := range words {
		require.Contains(w.t, w.printed("cdc"), word)
	}
}

func TestTheRelayMigratesWhereItIsTold(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true})
	_, err := w.db.ExecContext(t.Context(), "CREATE DATABASE fresh")
	require.NoError(t, err)
	cdcDSN := "root@tcp(" + w.stack.MySQL.Addr() + ")/fresh"
	w.cdc = w.service("cdc", "MYSQL_DSN="+cdcDSN)
	w.refuses(2, "the table fresh.outbox does not exist", "MIGRATE=true")
	w.cdc = w.service("cdc", "MYSQL_DSN="+cdcDSN, "MIGRATE=true")
	w.start(w.cdc)
	require.Equal(t, 1, w.number("SELECT COUNT(*) FROM fresh.relay_checkpoint"))
}

package relay_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"tailbox/cdc/relay"
	"tailbox/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func row(seq uint64) relay.Row {
	e := schema.Event{ID: fmt.Sprint("event-", seq), AggregateType: "customer", AggregateID: aggregateOf(seq), Payload: make([]byte, 100)}
	return relay.Row{Seq: seq, Event: e}
}

// aggregateOf spreads rows over three aggregates, unevenly.
func aggregateOf(seq uint64) string { return fmt.Sprint(seq * seq % 3) }

func ignore(*relay.Row) {}

func seqs(rows []relay.Row) (list []uint64) {
	for _, r := range rows {
		list = append(list, r.Seq)
	}
	return list
}

// leading is a core that has read n rows and has a session.
func leading(window, n int) *relay.Core {
	c := relay.NewCore(relay.Config{Window: window, WindowBytes: 1 << 20})
	c.OnLeading()
	c.OnSession()
	for i := range n {
		c.OnRow(row(uint64(i + 1)))
	}
	return c
}

func TestATopologyThatCouldLoseMessagesIsToldWithWhatMendsIt(t *testing.T) {
	t.Parallel()
	c := leading(10, 3)
	c.OnSessionLost(&relay.TopologyError{Err: errors.New("delete it")})
	state, reason := c.State()
	require.Equal(t, relay.Stalled, state)
	require.Equal(t, relay.Topology, reason)
	require.Equal(t, "delete it", c.Fault())
	c.OnBrokerError(errors.New("refused"))
	_, reason = c.State()
	require.Equal(t, relay.BrokerDown, reason)
	require.Empty(t, c.Fault())
}

func TestWindowBoundsRowsAndBytesButOneRowAlwaysFits(t *testing.T) {
	t.Parallel()
	c := relay.NewCore(relay.Config{Window: 2, WindowBytes: 1 << 20})
	require.True(t, c.Room())
	c.OnRow(row(1))
	require.True(t, c.Room())
	c.OnRow(row(2))
	require.False(t, c.Room())

	c = relay.NewCore(relay.Config{Window: 10, WindowBytes: 50})
	require.True(t, c.Room(), "larger than all the bytes, and alone")
	c.OnRow(row(1))
	require.False(t, c.Room())
}

func TestALostSessionIsReplayedFromTheFirstUnconfirmedRow(t *testing.T) {
	t.Parallel()
	c := leading(10, 5)
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, seqs(c.Next(nil)))
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 2}, ignore)
	c.OnSessionLost(errors.New("gone"))
	require.Empty(t, c.Next(nil), "no session, nothing to send")
	state, reason := c.State()
	require.Equal(t, relay.Stalled, state)
	require.Equal(t, relay.BrokerDown, reason)
	c.OnSession()
	require.Equal(t, []uint64{3, 4, 5}, seqs(c.Next(nil)))
	require.Equal(t, uint64(2), c.Watermark())
	require.Equal(t, "event-2", c.LastEvent())
}

func TestAReturnedRowIsHeldAndNothingNewOvertakesIt(t *testing.T) {
	t.Parallel()
	c := leading(10, 3)
	c.Next(nil)
	c.OnOutcome(relay.Outcome{Kind: relay.Returned, Seq: 1}, ignore)
	_, due := c.Retry()
	require.False(t, due, "rows 2 and 3 are not settled yet")
	c.OnRow(row(4))
	require.Empty(t, c.Next(nil))
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 2}, ignore)
	c.OnOutcome(relay.Outcome{Kind: relay.Returned, Seq: 3}, ignore)
	require.Zero(t, c.Watermark())
	state, reason := c.State()
	require.Equal(t, relay.Stalled, state)
	require.Equal(t, relay.Unroutable, reason)

	attempt, due := c.Retry()
	require.True(t, due)
	require.Equal(t, 1, attempt)
	c.OnRetry()
	require.Equal(t, []uint64{1, 3, 4}, seqs(c.Next(nil)), "row 2 is confirmed")
	state, _ = c.State()
	require.Equal(t, relay.Stalled, state, "a retry is no success yet")
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 3}, ignore)
	require.Equal(t, uint64(3), c.Watermark())
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 4}, ignore)
	require.Equal(t, uint64(4), c.Watermark())
	state, _ = c.State()
	require.Equal(t, relay.Streaming, state)
}

func TestAnAlarmStopsSendingUntilItIsOver(t *testing.T) {
	t.Parallel()
	c := leading(10, 1)
	c.OnOutcome(relay.Outcome{Kind: relay.Blocked}, ignore)
	require.Empty(t, c.Next(nil))
	_, reason := c.State()
	require.Equal(t, relay.BrokerAlarm, reason)
	c.OnOutcome(relay.Outcome{Kind: relay.Unblocked}, ignore)
	require.Len(t, c.Next(nil), 1)
}

func TestAPoisonousRowHaltsBehindWhatIsConfirmed(t *testing.T) {
	t.Parallel()
	c := leading(10, 3)
	c.Next(nil)
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 1}, ignore)
	c.OnOutcome(relay.Outcome{Kind: relay.Poison, Seq: 2, Err: errors.New("too long")}, ignore)
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 3}, ignore)
	state, reason := c.State()
	require.Equal(t, relay.Halted, state)
	require.Equal(t, relay.PoisonEvent, reason)
	require.Equal(t, uint64(1), c.Watermark())
	require.True(t, c.Idle())
	require.False(t, c.Room())
}

func TestStrictOrderKeepsOneEventPerAggregateInFlight(t *testing.T) {
	t.Parallel()
	c := relay.NewCore(relay.Config{Window: 10, WindowBytes: 1 << 20, StrictOrder: true})
	c.OnLeading()
	c.OnSession()
	for seq := range uint64(6) { // aggregates 1 1 0 1 1 0
		c.OnRow(row(seq + 1))
	}
	require.Equal(t, []uint64{1, 3}, seqs(c.Next(nil)))
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 3}, ignore)
	require.Equal(t, uint64(1), c.Watermark())
	require.Equal(t, []uint64{2, 6}, seqs(c.Next(nil)))
	c.OnOutcome(relay.Outcome{Kind: relay.Returned, Seq: 2}, ignore)
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 6}, ignore)
	require.Empty(t, c.Next(nil))
	c.OnRetry()
	require.Equal(t, []uint64{2}, seqs(c.Next(nil)))
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 2}, ignore)
	require.Equal(t, []uint64{4}, seqs(c.Next(nil)))
}

func TestAnUnroutableRowIsParkedOnceThenHeld(t *testing.T) {
	t.Parallel()
	c := relay.NewCore(relay.Config{Window: 10, WindowBytes: 1 << 20, ParkUnroutable: true})
	c.OnLeading()
	c.OnSession()
	c.OnRow(row(1))
	c.OnRow(row(2))
	c.Next(nil)
	c.OnOutcome(relay.Outcome{Kind: relay.Returned, Seq: 1}, ignore)
	again := c.Next(nil)
	require.Equal(t, []uint64{1}, seqs(again))
	require.True(t, again[0].Parked)
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 2}, ignore)
	require.Zero(t, c.Watermark(), "parked is not confirmed")
	c.OnOutcome(relay.Outcome{Kind: relay.Returned, Seq: 1}, ignore)
	_, reason := c.State()
	require.Equal(t, relay.Unroutable, reason, "not even the unrouted queue is there")
	c.OnRetry()
	require.Equal(t, []uint64{1}, seqs(c.Next(nil)))
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 1}, ignore)
	require.Equal(t, uint64(2), c.Watermark())
}

// TestCoreKeepsItsInvariants drives the core through random rows, outcomes, returns, refusals, losses, alarms and retries
// against a broker model that knows which rows really reached a queue.
func TestCoreKeepsItsInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cfg := relay.Config{Window: 8, WindowBytes: 1 << 20,
			StrictOrder: rapid.Bool().Draw(t, "strict"), ParkUnroutable: rapid.Bool().Draw(t, "park")}
		m := &model{t: t, core: relay.NewCore(cfg), cfg: cfg, routed: map[uint64]bool{}, last: map[string]uint64{}}
		m.core.OnLeading()
		// An action that is not possible at a moment says so by t.Skip: rapid draws another one, and no test is left out.
		t.Repeat(map[string]func(*rapid.T){
			"row":    m.row,
			"send":   m.send,
			"settle": m.settle,
			"lose":   m.lose,
			"open":   m.open,
			"alarm":  m.alarm,
			"retry":  func(*rapid.T) { m.core.OnRetry() },
			"":       m.check,
		})
	})
}

// model is the broker and the session on the other side of the core.
type model struct {
	t        *rapid.T
	core     *relay.Core
	cfg      relay.Config
	read     uint64
	session  bool
	blocked  bool
	inFlight []uint64          // sent in this session and not reported, in order
	routed   map[uint64]bool   // really in a queue
	last     map[string]uint64 // per aggregate, the row that reached a queue last for the first time
	returned bool
	mark     uint64
}

func (m *model) row(t *rapid.T) {
	if !m.core.Room() {
		t.Skip()
	}
	m.read++
	m.core.OnRow(row(m.read))
}

func (m *model) send(t *rapid.T) {
	rows := m.core.Next(nil)
	if len(rows) > 0 && (!m.session || m.blocked) {
		t.Fatalf("rows were sent without a session that takes them")
	}
	for _, r := range rows {
		m.inFlight = append(m.inFlight, r.Seq)
	}
	busy := map[string]bool{}
	for _, seq := range m.inFlight {
		if m.cfg.StrictOrder && busy[aggregateOf(seq)] {
			t.Fatalf("two rows of an aggregate in flight: %v", m.inFlight)
		}
		busy[aggregateOf(seq)] = true
	}
	if len(m.inFlight) > m.cfg.Window {
		t.Fatalf("%d rows in flight", len(m.inFlight))
	}
}

func (m *model) settle(t *rapid.T) {
	if len(m.inFlight) == 0 {
		t.Skip()
	}
	n := rapid.IntRange(1, len(m.inFlight)).Draw(t, "through")
	seq := m.inFlight[n-1]
	for _, s := range m.inFlight[:n-1] {
		m.arrive(s)
	}
	if n > 1 {
		m.core.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: m.inFlight[n-2]}, ignore)
	}
	m.inFlight = m.inFlight[n:]
	switch kind := rapid.SampledFrom([]relay.OutcomeKind{relay.Confirmed, relay.Confirmed, relay.Returned, relay.Refused}).Draw(t, "kind"); kind {
	case relay.Confirmed:
		m.arrive(seq)
		m.core.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: seq}, ignore)
	default:
		m.returned = true
		m.core.OnOutcome(relay.Outcome{Kind: kind, Seq: seq}, ignore)
	}
}

// arrive puts a row into a queue. First arrivals follow the order of commits per aggregate: with strict order always, else
// until something was returned or refused.
func (m *model) arrive(seq uint64) {
	key := aggregateOf(seq)
	if !m.routed[seq] && (m.cfg.StrictOrder || !m.returned) {
		for earlier := m.last[key] + 1; earlier < seq; earlier++ {
			if aggregateOf(earlier) == key {
				m.t.Fatalf("row %d arrived for the first time before row %d of the same aggregate", seq, earlier)
			}
		}
		m.last[key] = seq
	}
	m.routed[seq] = true
}

func (m *model) lose(t *rapid.T) {
	if !m.session {
		t.Skip()
	}
	n := rapid.IntRange(0, len(m.inFlight)).Draw(t, "arrived") // and nobody hears of it
	for _, seq := range m.inFlight[:n] {
		m.arrive(seq)
	}
	m.inFlight, m.session, m.blocked = nil, false, false
	m.core.OnSessionLost(errors.New("lost"))
}

func (m *model) open(t *rapid.T) {
	if m.session {
		t.Skip()
	}
	m.session = true
	m.core.OnSession()
}

func (m *model) alarm(t *rapid.T) {
	if !m.session {
		t.Skip()
	}
	m.blocked = !m.blocked
	kind := relay.Unblocked
	if m.blocked {
		kind = relay.Blocked
	}
	m.core.OnOutcome(relay.Outcome{Kind: kind}, ignore)
}

// check: the watermark never passes a row that reached no queue, and never goes back; a wait is for a first time at least.
func (m *model) check(t *rapid.T) {
	if attempt, due := m.core.Retry(); due && attempt < 1 {
		t.Fatalf("rows are to be sent again for the %dth time", attempt)
	}
	mark := m.core.Watermark()
	if mark < m.mark || mark > m.read {
		t.Fatalf("watermark %d after %d, %d rows read", mark, m.mark, m.read)
	}
	for seq := m.mark + 1; seq <= mark; seq++ {
		if !m.routed[seq] {
			t.Fatalf("watermark %d has passed row %d, which is in no queue", mark, seq)
		}
	}
	m.mark = mark
}

// TestARowHeldBackWhileOthersPassIsTriedForTheFirstTime: of rows of two aggregates, with strict order, the third reaches no
// queue while the second is still under way.
func TestARowHeldBackWhileOthersPassIsTriedForTheFirstTime(t *testing.T) {
	t.Parallel()
	c := relay.NewCore(relay.Config{Window: 10, WindowBytes: 1 << 20, StrictOrder: true})
	c.OnLeading()
	c.OnSession()
	for seq, aggregate := range []string{"a", "a", "b"} {
		r := row(uint64(seq + 1))
		r.Event.AggregateID = aggregate
		c.OnRow(r)
	}
	require.Equal(t, []uint64{1, 3}, seqs(c.Next(nil)))
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 1}, ignore)
	require.Equal(t, []uint64{2}, seqs(c.Next(nil)))
	c.OnOutcome(relay.Outcome{Kind: relay.Returned, Seq: 3}, ignore)
	c.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: 2}, ignore)
	attempt, due := c.Retry()
	require.True(t, due)
	require.Equal(t, 1, attempt)
	state, reason := c.State()
	require.Equal(t, []any{relay.Stalled, relay.Unroutable}, []any{state, reason})
}

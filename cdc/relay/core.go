package relay

import (
	"errors"
	"fmt"
)

// Core holds every decision of a relay and does no I/O: no clock, no goroutine, no driver. The engine tells it what
// happened (On...) and asks what to do (Room, Next, Watermark, Retry, Idle). It is not safe for concurrent use.
type Core struct {
	window window
	limit  int  // rows
	most   int  // bytes
	park   bool // what reaches no queue goes to the unrouted queue instead of being held
	spare  bool // what cannot be a message goes to the quarantine instead of halting the relay

	leading  bool
	session  bool
	alarm    bool   // the broker is short of memory or disk
	trouble  Reason // why there is no session
	fault    string // what is wrong with the topology, and what mends it
	hold     Reason // why rows are held back; nothing new is sent while it is set
	attempts int    // holds in a row without progress
	why      Reason // of the last hold
	aside    int    // rows that the quarantine does not have yet
	unkept   bool   // it did not take one of them
	paused   bool
	draining bool
	halt     *Halt

	counts Totals
}

// Totals count rows since the process started; one sent twice is published twice.
type Totals struct {
	Read, Published, Confirmed, Returned, Parked, Refused, Quarantined, Repaired uint64
	SourceReconnects, BrokerReconnects                                           uint64
}

// NewCore returns the core of a relay with nothing in its window. Of the configuration it heeds Window, WindowBytes,
// StrictOrder, ParkUnroutable and whether there is a Quarantine.
func NewCore(cfg Config) *Core {
	return &Core{window: newWindow(cfg.Window, cfg.StrictOrder), limit: cfg.Window, most: cfg.WindowBytes,
		park: cfg.ParkUnroutable, spare: cfg.Quarantine != nil}
}

// Anew returns a core with nothing in its window that goes on with the same session, on which nothing is in flight, and the
// same totals.
func (c *Core) Anew(cfg Config) *Core {
	next := NewCore(cfg)
	next.session, next.alarm, next.trouble, next.counts = c.session, c.alarm, c.trouble, c.counts
	return next
}

// OnLeading says that the checkpoint is ours.
func (c *Core) OnLeading() { c.leading = true }

// Room tells whether another row may be taken in. One row always fits an empty window, whatever its size.
func (c *Core) Room() bool {
	if c.paused || c.draining || c.halt != nil {
		return false
	}
	n := c.window.len()
	return n == 0 || n < c.limit && c.window.bytes < c.most
}

// OnRow takes the next row in. Ask Room first.
func (c *Core) OnRow(row Row) {
	c.window.add(row)
	c.counts.Read++
}

// OnSession says that a fresh session is there: nothing is in flight on it.
func (c *Core) OnSession() {
	c.session, c.alarm, c.trouble = true, false, ""
}

// OnSessionClosed says that the session was closed by us.
func (c *Core) OnSessionClosed() { c.session, c.alarm = false, false }

// OnPause stops sending, and taking rows in, or goes on.
func (c *Core) OnPause(paused bool) { c.paused = paused }

// OnSessionLost says that the session is gone. What it had not settled is unknown, so all of it is sent again, in order.
func (c *Core) OnSessionLost(err error) {
	c.session, c.alarm = false, false
	c.hold = ""
	c.window.requeue()
	c.counts.BrokerReconnects++
	c.OnBrokerError(err)
}

// OnBrokerError says why there is no session.
func (c *Core) OnBrokerError(err error) {
	c.trouble, c.fault = BrokerDown, ""
	if topology := (*TopologyError)(nil); errors.As(err, &topology) {
		c.trouble, c.fault = Topology, topology.Error()
	}
}

// Fault is what is wrong with the topology, and what mends it; empty when it is not the reason.
func (c *Core) Fault() string { return c.fault }

// Next appends to rows what is to be published now, in commit order, and counts it as sent.
//
// Invariant: nothing is sent while a row is held back, so that no row overtakes it a second time.
func (c *Core) Next(rows []Row) []Row {
	if !c.session || c.alarm || c.hold != "" || c.paused || c.draining || c.halt != nil {
		return rows
	}
	before := len(rows)
	rows = c.window.send(rows)
	c.counts.Published += uint64(len(rows) - before)
	return rows
}

// OnOutcome takes one report of the session; observe is called with each row that is confirmed now.
func (c *Core) OnOutcome(o Outcome, observe func(row *Row)) {
	switch o.Kind {
	case Confirmed:
		c.confirm(o.Seq, observe)
	case Returned:
		c.counts.Returned++
		c.onReturn(o.Seq)
	case Refused:
		c.counts.Refused++
		c.holdBack(o.Seq, BrokerRefused)
	case Poison:
		if c.spare {
			c.window.settle(o.Seq, aside)
			c.aside++
			return
		}
		c.holdBack(o.Seq, PoisonEvent)
		c.OnHalt(&Halt{Reason: PoisonEvent, Err: o.Err})
	case Blocked:
		c.alarm = true
	case Unblocked:
		c.alarm = false
	}
}

// confirm settles the rows that were sent up to and including seq, in the order of sending.
func (c *Core) confirm(seq uint64, observe func(row *Row)) {
	for settled := uint64(0); settled != seq; {
		if len(c.window.flights) == 0 {
			panic(fmt.Sprintf("relay: row %d was confirmed and is not in flight", seq))
		}
		settled = c.window.flights[0]
		s := c.window.settle(settled, confirmed)
		c.counts.Confirmed++
		if s.row.Repaired {
			c.counts.Repaired++
		}
		observe(&s.row)
	}
	c.advance()
}

// OnQuarantined says that the quarantine has a row that a Poison outcome named, durably.
//
// Invariant: the watermark passes such a row only then.
func (c *Core) OnQuarantined(seq uint64) {
	s := c.window.at(seq)
	if s.state != aside || s.row.Seq != seq {
		panic(fmt.Sprintf("relay: row %d is in the quarantine and was not set aside", seq))
	}
	s.state = confirmed
	c.window.vacate(&s.row)
	c.aside--
	c.unkept = false
	c.counts.Quarantined++
	c.advance()
}

// OnQuarantineError says that the quarantine did not take a row that was set aside; it is asked again.
func (c *Core) OnQuarantineError() { c.unkept = true }

func (c *Core) advance() {
	before := c.window.base
	c.window.advance()
	switch {
	case c.window.base == before:
	case c.hold != "": // what is held back now is so for the first time since
		c.attempts = 1
	default:
		c.attempts = 0
	}
}

// Row is a row in the window.
func (c *Core) Row(seq uint64) Row { return c.window.at(seq).row }

// onReturn parks a row that reached no queue, or holds it back: always when even the unrouted queue is not there.
func (c *Core) onReturn(seq uint64) {
	if !c.park || c.window.at(seq).row.Parked {
		c.holdBack(seq, Unroutable)
		return
	}
	s := c.window.settle(seq, queued)
	s.row.Parked = true
	c.window.next = min(c.window.next, seq)
	c.counts.Parked++
}

func (c *Core) holdBack(seq uint64, why Reason) {
	c.window.settle(seq, held)
	if c.hold == "" {
		c.attempts++
	}
	c.hold, c.why = why, why
}

// Retry tells whether rows are held back and all else is settled, so that they can be sent again after a wait, and for
// which time in a row that is.
func (c *Core) Retry() (attempt int, due bool) {
	return c.attempts, c.hold != "" && len(c.window.flights) == 0 && c.halt == nil && !c.draining && !c.paused
}

// OnRetry sends what was held back once more, in order, before anything new. Call it when Retry says so and the wait is
// over; at any other time it does nothing.
func (c *Core) OnRetry() {
	if _, due := c.Retry(); !due {
		return
	}
	c.hold = ""
	c.window.requeue()
}

// Watermark is the Seq up to which every row is confirmed and was routed.
//
// Invariant: no checkpoint is saved beyond it.
func (c *Core) Watermark() uint64 { return c.window.base - 1 }

// LastEvent is the id of the event right at the watermark, empty before the first.
func (c *Core) LastEvent() string { return c.window.last }

// OnDrain stops taking rows in and sending them.
func (c *Core) OnDrain() { c.draining = true }

// OnHalt stops for good. The first reason stays.
func (c *Core) OnHalt(halt *Halt) {
	if c.halt == nil {
		c.halt = halt
	}
}

// Halted is why the core stopped for good, or nil.
func (c *Core) Halted() *Halt { return c.halt }

// Idle tells that nothing is under way any more: all that was sent is settled, or its session is lost, and the quarantine has
// what was set aside.
func (c *Core) Idle() bool { return len(c.window.flights) == 0 && c.aside == 0 }

// Oldest is the oldest row that is not confirmed, without its payload; false when there is none.
func (c *Core) Oldest() (Row, bool) {
	if c.window.len() == 0 {
		return Row{}, false
	}
	row := c.window.at(c.window.base).row
	row.Event.Payload = nil
	return row, true
}

// State is what the relay does, and why if it is blocked or halted.
func (c *Core) State() (State, Reason) {
	switch {
	case c.halt != nil:
		return Halted, c.halt.Reason
	case c.draining:
		return Draining, ""
	case !c.leading:
		return Starting, ""
	case c.paused:
		return Paused, ""
	case !c.session && c.trouble != "":
		return Stalled, c.trouble
	case !c.session:
		return Starting, ""
	case c.alarm:
		return Stalled, BrokerAlarm
	case c.attempts > 0: // until one of them gets through, a retry that is under way changes nothing
		return Stalled, c.why
	case c.unkept:
		return Stalled, QuarantineOff
	}
	return Streaming, ""
}

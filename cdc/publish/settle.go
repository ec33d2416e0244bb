package publish

import (
	"fmt"
	"time"

	"tailbox/cdc/relay"
	"tailbox/schema/topology"
)

var errNoUnrouted = fmt.Errorf("the queue %q, or its binding to the exchange of that name, was deleted", topology.Unrouted)

// settler reports what became of each event, oldest first.
//
// Invariant: the returns that are there are counted before a confirm is believed. The broker sends a return before the
// confirm of the same message, and the library hands both out on one goroutine in that order, so when the confirm can be
// seen its return can be, too.
type settler struct {
	*Session
	returned map[string]int // message id → returns not yet matched with their event
	through  uint64         // confirmed and not yet reported
	pending  bool
	blocked  bool
	tick     *time.Ticker // when to look how long the broker has been silent
}

func (s *Session) settle() {
	t := &settler{Session: s, returned: map[string]int{}, tick: time.NewTicker(s.cfg.ConfirmTimeout / 10)}
	defer t.tick.Stop()
	for {
		f, ok := t.next()
		if !ok || !t.wait(f) || !t.report(f) {
			break
		}
	}
	t.flush()
	// The outcomes may only be closed when the session has ended; until it has, the watcher may have an alarm to hand over.
	for {
		select {
		case <-t.alarm:
		case <-t.ended:
			return
		}
	}
}

// next is the oldest event that is not settled. Before it waits for one, it reports what is confirmed.
func (t *settler) next() (flight, bool) {
	select {
	case f := <-t.flights:
		return f, true
	default:
	}
	t.flush()
	for {
		select {
		case f := <-t.flights:
			return f, true
		case active := <-t.alarm:
			t.onAlarm(active)
		case <-t.ended:
			return flight{}, false
		}
	}
}

// wait returns when the event is settled; false when the session ended first.
//
// The broker owes the confirm of the oldest event from the moment on at which it was sent, all before it are settled, nothing
// is left to write, and there is no alarm. So neither many slow confirms nor a large message on a slow link are taken for
// silence.
func (t *settler) wait(f flight) bool {
	if f.poison != nil {
		return true
	}
	select {
	case <-f.confirm.Done():
		return true
	default:
	}
	t.flush()
	since := time.Now()
	for {
		select {
		case <-f.confirm.Done():
			return true
		case active := <-t.alarm:
			t.onAlarm(active)
			since = time.Now()
		case now := <-t.tick.C:
			if t.blocked || !t.wire.drained() {
				since = now
			}
			if now.Sub(since) >= t.cfg.ConfirmTimeout {
				t.end(ErrConfirmTimeout)
				return false
			}
		case <-t.ended:
			return false
		}
	}
}

func (t *settler) onAlarm(active bool) {
	t.blocked = active
	kind := relay.Unblocked
	if active {
		kind = relay.Blocked
	}
	t.outcomes <- relay.Outcome{Kind: kind}
}

// report judges one settled event; false when its outcome is unknown because the session is gone.
func (t *settler) report(f flight) bool {
	t.drainReturns()
	switch {
	case f.poison != nil:
		t.single(relay.Outcome{Kind: relay.Poison, Seq: f.seq, Err: f.poison})
	case !f.confirm.Acked():
		// The library resolves what is unconfirmed as refused when the channel ends: that is not the broker's no.
		if t.ch.IsClosed() {
			return false
		}
		t.single(relay.Outcome{Kind: relay.Refused, Seq: f.seq})
	case t.returned[f.id] > 0 && f.parked:
		t.end(&relay.TopologyError{Err: errNoUnrouted}) // the next session declares it
		return false
	case t.returned[f.id] > 0:
		t.returned[f.id]--
		if t.returned[f.id] == 0 {
			delete(t.returned, f.id)
		}
		t.single(relay.Outcome{Kind: relay.Returned, Seq: f.seq})
	default:
		t.through, t.pending = f.seq, true
	}
	return true
}

func (t *settler) drainReturns() {
	for {
		select {
		case r, ok := <-t.returns:
			if !ok {
				t.returns = nil
				return
			}
			t.returned[r.MessageId]++
		default:
			return
		}
	}
}

// single reports one event, after all that were confirmed before it.
func (t *settler) single(o relay.Outcome) {
	t.flush()
	t.outcomes <- o
}

// flush reports what is confirmed. The relay reads until the channel is closed, and it has room for the window: it never
// holds the settler back for long.
func (t *settler) flush() {
	if t.pending {
		t.pending = false
		t.outcomes <- relay.Outcome{Kind: relay.Confirmed, Seq: t.through}
	}
}

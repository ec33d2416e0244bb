package relay

import "time"

// Status is what a relay knows of itself, at one moment.
type Status struct {
	State  State
	Reason Reason
	Detail string // why it halted or what is wrong with the topology, for a person

	// Leader is who holds the lease, as it was seen last; empty when it was handed over. Me tells that it is this instance.
	Leader    string
	Me        bool
	Epoch     uint64
	ExpiresAt time.Time // of the lease unless it is renewed; for people
	// Takeovers is how often this instance became the leader.
	Takeovers uint64

	// InFlight is how many rows are read and not confirmed without a gap.
	InFlight int
	// Oldest is when the oldest of them was committed; zero when there is none.
	Oldest time.Time
	// Waiting is that row, without its payload: the one at fault when rows are held back. Zero when there is none.
	Waiting Row
	// ConfirmedAt is the place behind the last row that is confirmed without a gap, and EventID that row's event.
	ConfirmedAt Position
	EventID     string

	// Saved is the checkpoint: the place that was saved last, by this process or the one before.
	Saved        Position
	SavedEventID string
	SavedAt      time.Time // zero before this process saved

	Totals Totals
}

// Status answers at once, whatever the servers do. It may be called at any time, from any goroutine.
func (r *Relay) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{
		Leader: r.lease.Holder, Epoch: r.lease.Epoch, ExpiresAt: r.lease.ExpiresAt, Takeovers: r.terms,
		InFlight: r.core.window.len(),
		EventID:  r.core.LastEvent(),
		Saved:    r.last.Place, SavedEventID: r.last.EventID, SavedAt: r.last.At,
		Totals: r.core.counts,
	}
	s.State, s.Reason = r.core.State()
	if s.Reason == Topology {
		s.Detail = r.core.Fault()
	}
	if s.Me = r.tenure != nil; s.Me {
		s.ExpiresAt = r.tenure.Until().Add(r.cfg.LeaseTTL * 3 / 10)
	} else {
		s.State, s.Reason, s.Detail = r.idle.state, r.idle.reason, r.idle.detail
	}
	if halt := r.core.Halted(); s.Me && halt != nil {
		s.Detail = halt.Err.Error()
	}
	s.Waiting, _ = r.core.Oldest()
	s.Oldest = s.Waiting.CommittedAt
	// Invariant: the source is asked about a watermark of the place that it began at. The core is changed, under the lock, before
	// the source begins anew: a watermark from before would tell it that rows are confirmed which were not even sent.
	place, _, ok := r.source.Confirmed(r.core.Watermark())
	s.ConfirmedAt = place
	switch {
	case s.State != Streaming:
	case !r.source.Connected():
		s.State, s.Reason = Stalled, SourceDown
	case !ok && r.source.Repairing():
		s.State = Repairing
	case !ok && s.Totals.Read == 0: // START=latest has not asked yet where that is: what is committed now may be passed over
		s.State = Starting
	case !ok:
		s.State = Snapshot
	case s.Saved.IsZero(): // a process that begins anew where START says could find another place
		s.State = Starting
	}
	return s
}

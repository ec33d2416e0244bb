package relay

import "time"

// Status is what a relay knows of itself, at one moment.
type Status struct {
	State  State
	Reason Reason
	Detail string // why it halted, for a person
	Epoch  uint64

	// InFlight is how many rows are read and not confirmed without a gap.
	InFlight int
	// Oldest is when the oldest of them was committed; zero when there is none.
	Oldest time.Time
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
	s := Status{
		Epoch:    r.epoch,
		InFlight: r.core.window.len(),
		EventID:  r.core.LastEvent(),
		Saved:    r.last.Place, SavedEventID: r.last.EventID, SavedAt: r.last.At,
		Totals: r.core.counts,
	}
	s.State, s.Reason = r.core.State()
	if halt := r.core.Halted(); halt != nil {
		s.Detail = halt.Err.Error()
	}
	s.Oldest, _ = r.core.Oldest()
	watermark := r.core.Watermark()
	r.mu.Unlock()

	place, _, ok := r.source.Confirmed(watermark)
	s.ConfirmedAt = place
	switch {
	case s.State != Streaming:
	case !r.source.Connected():
		s.State, s.Reason = Stalled, SourceDown
	case !ok:
		s.State = Snapshot
	}
	return s
}

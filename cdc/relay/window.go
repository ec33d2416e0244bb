package relay

import "fmt"

// window is the rows that were read and are not confirmed without a gap, in order, as a ring, and those of them that are
// under way to the broker, in the order in which they were sent.
//
//	base            next          end
//	 ▼               ▼             ▼
//	[c s c s s h s a q q s q q q q]
//
// q queued, s sent, c confirmed, h held back after a return or refusal, a set aside for the quarantine. A row behind next is sent already only with strict
// order, past a row that waits for its aggregate.
//
// Invariant: base ≤ next ≤ end; the row at base is not confirmed; next is the first queued row; flights are the sent rows.
type window struct {
	slots   []slot
	base    uint64 // Seq of the oldest row that is not confirmed
	next    uint64 // Seq of the first row that waits to be sent
	end     uint64 // Seq of the next row to arrive
	bytes   int
	flights []uint64 // Seqs of the sent rows, oldest first
	last    string   // id of the event right before base

	// With strict order: the aggregates that have a row sent or held. Nil otherwise.
	busy map[aggregate]struct{}
}

type slot struct {
	row   Row
	state slotState
}

type slotState uint8

const (
	queued slotState = iota
	sent
	confirmed
	held
	aside
)

// aggregate names what order is kept for.
type aggregate struct{ kind, id string }

func newWindow(size int, strict bool) window {
	capacity := 16
	for capacity < size+1 {
		capacity *= 2
	}
	w := window{slots: make([]slot, capacity), base: 1, next: 1, end: 1}
	if strict {
		w.busy = make(map[aggregate]struct{})
	}
	return w
}

func (w *window) at(seq uint64) *slot { return &w.slots[seq&uint64(len(w.slots)-1)] }

func (w *window) len() int { return int(w.end - w.base) }

// add takes the next row in.
func (w *window) add(row Row) {
	if row.Seq != w.end {
		panic(fmt.Sprintf("relay: row %d arrived, %d was expected", row.Seq, w.end))
	}
	if w.len() >= len(w.slots) {
		panic(fmt.Sprintf("relay: row %d arrived at a full window", row.Seq))
	}
	*w.at(row.Seq) = slot{row: row}
	w.end++
	w.bytes += row.size()
}

// send appends the rows that are to be sent now, and marks them sent.
func (w *window) send(rows []Row) []Row {
	waiting := uint64(0) // the first row that has to wait for its aggregate
	for seq := w.next; seq < w.end; seq++ {
		s := w.at(seq)
		if s.state != queued {
			continue
		}
		if !w.occupy(&s.row) {
			if waiting == 0 {
				waiting = seq
			}
			continue
		}
		s.state = sent
		w.flights = append(w.flights, seq)
		rows = append(rows, s.row)
	}
	w.next = w.end
	if waiting > 0 {
		w.next = waiting
	}
	return rows
}

// occupy tells whether a row may be sent, with strict order: no other of its aggregate is sent or held, nor waits before it.
func (w *window) occupy(row *Row) bool {
	if w.busy == nil {
		return true
	}
	key := aggregate{row.Event.AggregateType, row.Event.AggregateID}
	if _, taken := w.busy[key]; taken {
		return false
	}
	w.busy[key] = struct{}{}
	return true
}

// settle marks the oldest row in flight, which has to be seq.
func (w *window) settle(seq uint64, state slotState) *slot {
	if len(w.flights) == 0 || w.flights[0] != seq {
		panic(fmt.Sprintf("relay: row %d was settled out of turn, in flight are %d rows", seq, len(w.flights)))
	}
	w.flights = w.flights[1:]
	s := w.at(seq)
	s.state = state
	if state != held && state != aside {
		w.vacate(&s.row)
	}
	return s
}

// vacate lets the next row of the aggregate go, with strict order.
func (w *window) vacate(row *Row) {
	delete(w.busy, aggregate{row.Event.AggregateType, row.Event.AggregateID})
}

// advance lets the rows go that are confirmed without a gap.
func (w *window) advance() {
	for w.base < w.end && w.at(w.base).state == confirmed {
		s := w.at(w.base)
		w.last = s.row.Event.ID
		w.bytes -= s.row.size()
		*s = slot{}
		w.base++
	}
	w.next = max(w.next, w.base)
}

// requeue makes every row that is sent or held wait to be sent again, in order.
func (w *window) requeue() {
	w.next = w.end
	clear(w.busy)
	for seq := w.end; seq > w.base; seq-- {
		switch s := w.at(seq - 1); s.state {
		case confirmed:
		case aside:
			w.occupy(&s.row) // it still goes before the others of its aggregate
		default:
			s.state = queued
			w.next = seq - 1
		}
	}
	w.flights = w.flights[:0]
}

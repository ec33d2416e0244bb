package relay

import "fmt"

// window is the rows that were read and are not confirmed without a gap, in order, as a ring that grows as far as the
// window's limit lets it.
//
//	base            next          end
//	 ▼               ▼             ▼
//	[c s c s s h s s q q q q q q q]
//
// q queued, s sent, c confirmed, h held back after a return or refusal.
//
// Invariant: base ≤ next ≤ end; the row at base is not confirmed; no row from next on was handed to the session.
type window struct {
	slots []slot
	base  uint64 // Seq of the oldest row that is not confirmed
	next  uint64 // Seq of the next row to send
	end   uint64 // Seq of the next row to arrive
	bytes int
	sent  int    // rows handed to the session and not settled
	last  string // id of the event right before base
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
)

func newWindow(size int) window {
	capacity := 16
	for capacity < size+1 {
		capacity *= 2
	}
	return window{slots: make([]slot, capacity), base: 1, next: 1, end: 1}
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

// send appends the rows that are to be sent, and marks them sent.
func (w *window) send(rows []Row) []Row {
	for ; w.next < w.end; w.next++ {
		s := w.at(w.next)
		if s.state != queued {
			continue
		}
		s.state = sent
		w.sent++
		rows = append(rows, s.row)
	}
	return rows
}

// settle marks one sent row.
func (w *window) settle(seq uint64, state slotState) {
	if seq < w.base || seq >= w.next {
		panic(fmt.Sprintf("relay: row %d was settled outside of the window %d to %d", seq, w.base, w.next))
	}
	s := w.at(seq)
	if s.state != sent {
		panic(fmt.Sprintf("relay: row %d was settled in state %d", seq, s.state))
	}
	s.state = state
	w.sent--
}

// advance lets the rows go that are confirmed without a gap.
func (w *window) advance() {
	for w.base < w.next && w.at(w.base).state == confirmed {
		s := w.at(w.base)
		w.last = s.row.Event.ID
		w.bytes -= s.row.size()
		*s = slot{}
		w.base++
	}
}

// requeue makes the rows in the given state to be sent again, in order.
func (w *window) requeue(from slotState) {
	first := w.next
	for seq := w.base; seq < w.next; seq++ {
		if s := w.at(seq); s.state == from {
			s.state = queued
			first = min(first, seq)
		}
	}
	w.next = first
	if from == sent {
		w.sent = 0
	}
}

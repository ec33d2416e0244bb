package relaytest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tailbox/cdc/relay"
)

// Source is a relay.Source over a Log. A position's Pos is the number of transactions before it.
type Source struct {
	log  *Log
	mu   sync.Mutex
	cut  chan struct{} // closed and replaced when the stream is cut
	halt *relay.Halt
	from relay.Position
	rows uint64 // delivered since Begin
	gap  bool
	lost bool // has no place to begin at yet

	slow      atomic.Int64 // nanoseconds
	connected atomic.Bool
}

var _ relay.Source = (*Source)(nil)

// NewSource returns a source over the log.
func NewSource(log *Log) *Source { return &Source{log: log, cut: make(chan struct{})} }

// Cut breaks the stream.
func (s *Source) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.cut)
	s.cut = make(chan struct{})
}

// Halt makes the stream end for good.
func (s *Source) Halt(halt *relay.Halt) {
	s.mu.Lock()
	s.halt = halt
	s.mu.Unlock()
	s.Cut()
}

// Begin implements relay.Source.
func (s *Source) Begin(from relay.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.rows = from, 0
}

// Repair makes rows those of a repair, during which there is no place, or ends it.
func (s *Source) Repair(under bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gap = under
}

// Seek makes the source have no place to begin at yet, or have one.
func (s *Source) Seek(lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = lost
}

// Slow makes it take its time before it answers what is confirmed.
func (s *Source) Slow(by time.Duration) { s.slow.Store(int64(by)) }

// Repairing implements relay.Source.
func (s *Source) Repairing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gap
}

// Connected implements relay.Source.
func (s *Source) Connected() bool { return s.connected.Load() }

// Stream implements relay.Source.
func (s *Source) Stream(ctx context.Context, deliver func(relay.Row) error) error {
	s.connected.Store(true)
	defer s.connected.Store(false)
	for {
		row, ok, more, cut, halt := s.next()
		if halt != nil {
			return halt
		}
		if ok {
			if err := deliver(row); err != nil {
				return err
			}
			continue
		}
		select {
		case <-more:
		case <-cut:
			return ErrBroken
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// next is the row behind the last one delivered.
func (s *Source) next() (row relay.Row, ok bool, more, cut <-chan struct{}, halt *relay.Halt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	before := s.from.SkipRows + s.rows // rows behind s.from.Pos
	for i, txn := range s.log.txns[s.from.Pos:] {
		if before < uint64(len(txn)) {
			s.rows++
			row = relay.Row{Seq: s.rows, Event: txn[before], Position: fmt.Sprint(int(s.from.Pos) + i), CommittedAt: time.Now(), Repaired: s.gap}
			return row, true, s.log.more, s.cut, s.halt
		}
		before -= uint64(len(txn))
	}
	return row, false, s.log.more, s.cut, s.halt
}

// Confirmed implements relay.Source.
func (s *Source) Confirmed(seq uint64) (relay.Position, uint64, bool) {
	time.Sleep(time.Duration(s.slow.Load()))
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq > s.rows {
		panic(fmt.Sprintf("relaytest: row %d is said to be confirmed, %d were delivered", seq, s.rows))
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	at := relay.Position{Flavor: "fake", Pos: s.from.Pos, SkipRows: s.from.SkipRows + seq, Unsent: s.from.Unsent, Late: s.from.Late}
	for _, txn := range s.log.txns[s.from.Pos:] {
		if at.SkipRows < uint64(len(txn)) {
			break
		}
		at.SkipRows -= uint64(len(txn))
		at.Pos++
	}
	return at, at.Pos, !s.gap && !s.lost
}

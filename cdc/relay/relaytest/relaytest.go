// Package relaytest has stand-ins for what the relay works with, which fail on demand, and the contract that each
// interface of package relay has to keep, to be run against the stand-in and against the real thing.
package relaytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tailbox/cdc/relay"
	"tailbox/schema"
)

// ErrBroken is the error of everything that was broken on demand.
var ErrBroken = errors.New("broken on demand")

// Log is the transactions that sources read: the binlog of the stand-ins.
type Log struct {
	mu     sync.Mutex
	txns   [][]schema.Event
	more   chan struct{} // closed and replaced when a transaction is committed
	events int
}

// NewLog returns a log without transactions.
func NewLog() *Log { return &Log{more: make(chan struct{})} }

// Commit adds a transaction of n events and returns their ids.
func (l *Log) Commit(n int) (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var txn []schema.Event
	for range n {
		l.events++
		e := schema.Event{ID: fmt.Sprintf("event-%06d", l.events), AggregateType: "customer", AggregateID: "1",
			Type: "CustomerCreated", Payload: []byte("{}"), CreatedAt: time.Now()}
		txn, ids = append(txn, e), append(ids, e.ID)
	}
	l.txns = append(l.txns, txn)
	close(l.more)
	l.more = make(chan struct{})
	return ids
}

// Index is how many events are before a position.
func (l *Log) Index(p relay.Position) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := int(p.SkipRows)
	for _, txn := range l.txns[:p.Pos] {
		n += len(txn)
	}
	return n
}

// Source is a relay.Source over a Log. A position's Pos is the number of transactions before it.
type Source struct {
	log  *Log
	mu   sync.Mutex
	cut  chan struct{} // closed and replaced when the stream is cut
	halt *relay.Halt
	from relay.Position
	rows uint64 // delivered since Begin

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
			row = relay.Row{Seq: s.rows, Event: txn[before], Position: fmt.Sprint(int(s.from.Pos) + i), CommittedAt: time.Now()}
			return row, true, s.log.more, s.cut, s.halt
		}
		before -= uint64(len(txn))
	}
	return row, false, s.log.more, s.cut, s.halt
}

// Confirmed implements relay.Source.
func (s *Source) Confirmed(seq uint64) (relay.Position, uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	at := relay.Position{Flavor: "fake", Pos: s.from.Pos, SkipRows: s.from.SkipRows + seq}
	for _, txn := range s.log.txns[s.from.Pos:] {
		if at.SkipRows < uint64(len(txn)) {
			break
		}
		at.SkipRows -= uint64(len(txn))
		at.Pos++
	}
	return at, at.Pos, true
}

// Checkpoints is a relay.Checkpoints in memory.
type Checkpoints struct {
	mu     sync.Mutex
	epoch  uint64
	place  relay.Position
	saves  int
	broken bool
	// Check, if set, is called with each place before it is stored.
	Check func(relay.Position)
}

var _ relay.Checkpoints = (*Checkpoints)(nil)

// Acquire implements relay.Checkpoints.
func (c *Checkpoints) Acquire(context.Context) (uint64, relay.Position, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return 0, relay.Position{}, ErrBroken
	}
	c.epoch++
	return c.epoch, c.place, nil
}

// Save implements relay.Checkpoints.
func (c *Checkpoints) Save(_ context.Context, epoch uint64, place relay.Position, _ string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return ErrBroken
	}
	if epoch != c.epoch {
		return relay.ErrFenced
	}
	if c.Check != nil {
		c.Check(place)
	}
	c.place = place
	c.saves++
	return nil
}

// Break makes every call fail, or work again.
func (c *Checkpoints) Break(broken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = broken
}

// Saved is the place that was saved last, and how often any was.
func (c *Checkpoints) Saved() (relay.Position, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.place, c.saves
}

// Broker is a relay.Publisher that keeps what it routed.
type Broker struct {
	mu       sync.Mutex
	routed   []string
	unbound  bool
	silent   bool
	delay    time.Duration
	down     bool
	sessions []*session
}

var _ relay.Publisher = (*Broker)(nil)

// NewBroker returns a broker that confirms everything.
func NewBroker() *Broker { return &Broker{} }

// Routed are the ids of the events that reached a queue, in order, duplicates included.
func (b *Broker) Routed() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.routed)
}

// Unbind makes messages reach no queue, or reach one again.
func (b *Broker) Unbind(unbound bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unbound = unbound
}

// Silence makes the broker keep its confirms to itself: messages arrive, nobody hears of it.
func (b *Broker) Silence(silent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.silent = silent
}

// Delay makes each confirm take so long, in sessions opened from now on.
func (b *Broker) Delay(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.delay = d
}

// Down refuses new sessions and loses those that are open, or accepts sessions again.
func (b *Broker) Down(down bool) {
	b.mu.Lock()
	b.down = down
	lost := b.sessions
	if down {
		b.sessions = nil
	} else {
		lost = nil
	}
	b.mu.Unlock()
	for _, s := range lost {
		s.end(ErrBroken)
	}
}

// Open implements relay.Publisher.
func (b *Broker) Open(context.Context) (relay.Session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, ErrBroken
	}
	s := &session{broker: b, delay: b.delay, due: make(chan report, 4096), outcomes: make(chan relay.Outcome, 4096), ended: make(chan struct{})}
	b.sessions = append(b.sessions, s)
	go s.run()
	return s, nil
}

type session struct {
	broker   *Broker
	delay    time.Duration
	due      chan report // in order of publishing
	outcomes chan relay.Outcome
	mu       sync.Mutex
	ended    chan struct{}
	err      error
}

var _ relay.Session = (*session)(nil)

// report is an outcome and when it is due.
type report struct {
	relay.Outcome
	at time.Time
}

func (s *session) run() {
	defer close(s.outcomes)
	for {
		select {
		case r := <-s.due:
			select {
			case <-time.After(time.Until(r.at)):
				s.outcomes <- r.Outcome
			case <-s.ended:
				return
			}
		case <-s.ended:
			return
		}
	}
}

// Publish implements relay.Session.
func (s *session) Publish(rows []relay.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	for _, row := range rows {
		s.broker.mu.Lock()
		unbound, silent := s.broker.unbound, s.broker.silent
		if !unbound {
			s.broker.routed = append(s.broker.routed, row.Event.ID)
		}
		s.broker.mu.Unlock()
		switch {
		case silent:
		case unbound:
			s.due <- report{relay.Outcome{Kind: relay.Returned, Seq: row.Seq}, time.Now().Add(s.delay)}
		default:
			s.due <- report{relay.Outcome{Kind: relay.Confirmed, Seq: row.Seq}, time.Now().Add(s.delay)}
		}
	}
}

// Outcomes implements relay.Session.
func (s *session) Outcomes() <-chan relay.Outcome { return s.outcomes }

// Err implements relay.Session.
func (s *session) Err() error {
	<-s.ended
	return s.err
}

// Close implements relay.Session.
func (s *session) Close(context.Context) error {
	s.end(errors.New("closed"))
	return nil
}

func (s *session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.ended)
	}
}

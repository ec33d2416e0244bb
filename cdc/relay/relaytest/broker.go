package relaytest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"tailbox/cdc/relay"
)

// Broker is a relay.Publisher that keeps what it routed.
type Broker struct {
	mu       sync.Mutex
	routed   []string
	unbound  bool
	silent   bool
	delay    time.Duration
	poison   map[string]bool
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

// Poison makes the events with these ids fail to be messages.
func (b *Broker) Poison(ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.poison = map[string]bool{}
	for _, id := range ids {
		b.poison[id] = true
	}
}

// Open implements relay.Publisher.
func (b *Broker) Open(context.Context) (relay.Session, error) {
	s, err := b.open()
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (b *Broker) open() (*session, error) {
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

// Link is one instance's way to the broker, which can be cut for it alone.
type Link struct {
	broker *Broker
	mu     sync.Mutex
	cut    bool
	open   []*session
}

var _ relay.Publisher = (*Link)(nil)

// Link gives another way to the broker.
func (b *Broker) Link() *Link { return &Link{broker: b} }

// Cut loses the sessions of the link and refuses others, or lets them through again.
func (l *Link) Cut(cut bool) {
	l.mu.Lock()
	l.cut = cut
	lost := l.open
	l.open = nil
	l.mu.Unlock()
	for _, s := range lost {
		s.end(ErrBroken)
	}
}

// Open implements relay.Publisher.
func (l *Link) Open(context.Context) (relay.Session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, ErrBroken
	}
	s, err := l.broker.open()
	if err != nil {
		return nil, err
	}
	l.open = append(l.open, s)
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
		unbound, silent, poison := s.broker.unbound, s.broker.silent, s.broker.poison[row.Event.ID]
		if !unbound && !poison {
			s.broker.routed = append(s.broker.routed, row.Event.ID)
		}
		s.broker.mu.Unlock()
		switch {
		case poison:
			s.due <- report{relay.Outcome{Kind: relay.Poison, Seq: row.Seq, Err: ErrBroken}, time.Now().Add(s.delay)}
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

package publish

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/cdc/relay"
)

// Session is a relay.Session: one connection with one channel, and three goroutines that end together. The writer alone
// publishes. The settler waits for the confirm of the oldest event and so sees all of them in order. The watcher takes
// what the broker says of itself.
type Session struct {
	cfg  Config
	conn *amqp.Connection
	ch   *amqp.Channel
	wire *wire
	most *atomic.Int64 // for the next session: the largest message that the broker takes

	batches  chan []relay.Row   // to the writer
	flights  chan flight        // from the writer to the settler, in order of publishing
	outcomes chan relay.Outcome // to the relay
	returns  chan amqp.Return   // from the library; room for the whole window, so that it never drops one
	headers  amqp.Table         // of the message that is being written, by the writer alone
	closed   chan *amqp.Error   // from the library: the channel ended
	lost     chan *amqp.Error   // from the library: the connection ended
	blocked  chan amqp.Blocking // from the library
	alarm    chan bool          // from the watcher to the settler
	ended    chan struct{}      // closed when the session has ended
	endOnce  sync.Once
	err      error
	group    sync.WaitGroup
}

// flight is one event that was handed to the broker, or that cannot be a message.
type flight struct {
	seq     uint64
	id      string
	parked  bool
	confirm *amqp.DeferredConfirmation
	poison  error
}

var _ relay.Session = (*Session)(nil)

// ErrConfirmTimeout ends a session in which the broker settled nothing for too long.
var ErrConfirmTimeout = errors.New("the broker did not confirm in time")

func newSession(cfg Config, conn *amqp.Connection, ch *amqp.Channel, link *wire, most *atomic.Int64) *Session {
	return &Session{
		cfg: cfg, conn: conn, ch: ch, wire: link, most: most,
		batches:  make(chan []relay.Row, cfg.Window+1), // a batch has at least one row
		flights:  make(chan flight, cfg.Window+1),
		outcomes: make(chan relay.Outcome, cfg.Window+1),
		headers:  amqp.Table{},
		returns:  ch.NotifyReturn(make(chan amqp.Return, cfg.Window+1)),
		closed:   ch.NotifyClose(make(chan *amqp.Error, 1)),
		lost:     conn.NotifyClose(make(chan *amqp.Error, 1)),
		blocked:  conn.NotifyBlocked(make(chan amqp.Blocking, 8)),
		alarm:    make(chan bool),
		ended:    make(chan struct{}),
	}
}

func (s *Session) start() {
	s.group.Go(s.write)
	s.group.Go(s.watch)
	s.group.Go(func() {
		s.settle()
		close(s.outcomes)
	})
}

// Publish implements relay.Session.
func (s *Session) Publish(rows []relay.Row) {
	select {
	case s.batches <- rows:
	case <-s.ended: // unsettled rows of an ended session are unknown, these too
	}
}

// Outcomes implements relay.Session.
func (s *Session) Outcomes() <-chan relay.Outcome { return s.outcomes }

// Err implements relay.Session.
func (s *Session) Err() error {
	<-s.ended
	return s.err
}

// Close implements relay.Session.
func (s *Session) Close(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.wire.abort)
	defer stop()
	var err error
	select {
	case <-s.ended:
	default:
		err = s.conn.Close()
		s.end(amqp.ErrClosed)
	}
	for range s.outcomes { // nobody else reads them now
	}
	s.group.Wait()
	if err != nil {
		return fmt.Errorf("close the connection: %w", err)
	}
	return nil
}

// end ends the session, once, and cuts its connection.
func (s *Session) end(err error) {
	s.endOnce.Do(func() {
		s.err = err
		close(s.ended)
		s.wire.abort()
	})
}

// write publishes in order. It is the only goroutine that uses the channel.
func (s *Session) write() {
	for {
		select {
		case rows := <-s.batches:
			for i := range rows {
				if !s.send(&rows[i]) {
					return
				}
			}
		case <-s.ended:
			return
		}
	}
}

func (s *Session) send(row *relay.Row) bool {
	f := flight{seq: row.Seq, id: row.Event.ID, parked: row.Parked}
	to, m, err := s.cfg.message(row, s.headers)
	switch {
	case err != nil:
		f.poison = fmt.Errorf("event %s of %s cannot be a message: %w", row.Event.ID, row.Position, err)
	case !s.wire.wait():
		return false // the library sees it too and reports it
	default:
		if f.confirm, err = s.ch.PublishWithDeferredConfirm(to.exchange, to.key, true, false, m); err != nil {
			if !errors.Is(err, amqp.ErrClosed) { // else the watcher is told why, and ends the session with that
				s.end(fmt.Errorf("publish: %w", err))
			}
			return false
		}
	}
	select {
	case s.flights <- f:
		return true
	case <-s.ended:
		return false
	}
}

// watch takes what the broker says of the connection and the channel.
func (s *Session) watch() {
	for {
		select {
		case e, ok := <-s.closed:
			s.learn(e)
			s.end(whyClosed(e, ok))
			return
		case e, ok := <-s.lost:
			s.end(whyClosed(e, ok))
			return
		case b, ok := <-s.blocked:
			if !ok {
				s.blocked = nil
				continue
			}
			s.wire.bePatient(b.Active)
			select {
			case s.alarm <- b.Active:
			case <-s.ended:
				return
			}
		case <-s.ended:
			return
		}
	}
}

// tooLarge is what the broker says when it closes the channel over a message.
var tooLarge = regexp.MustCompile(`^PRECONDITION_FAILED - message size \d+ is larger than (?:configured )?max size (\d+)`)

// learn takes the broker's limit for messages from its complaint, so that what is larger is poison in the next session.
func (s *Session) learn(e *amqp.Error) {
	if e == nil {
		return
	}
	if parts := tooLarge.FindStringSubmatch(e.Reason); parts != nil {
		most, _ := strconv.ParseInt(parts[1], 10, 64) // digits; too many of them are the largest number
		s.most.Store(most)
	}
}

func whyClosed(e *amqp.Error, ok bool) error {
	switch {
	case !ok || e == nil:
		return amqp.ErrClosed
	case e.Code == amqp.NotFound || e.Code == amqp.AccessRefused: // no such exchange, or none that we may publish to
		return topologyError(e)
	}
	return e
}

package consume

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	probeEvery    = 5 * time.Second
	answerTimeout = 10 * time.Second // without an answer and without leastProgress
	leastProgress = 4 << 10          // bytes in answerTimeout: a slow link that works brings more
)

var errSilent = errors.New("the broker does not answer, though the connection looks open")

// meter counts the bytes that come from the broker.
type meter struct {
	net.Conn
	received atomic.Int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.received.Add(int64(n))
	return n, err
}

// ask waits for the answer to a question for as long as the link shows that it works: that bytes come, or that the broker has
// said that it does not read for a while. Else it gives the link up, once, which has to get the question to return.
func (l *link) ask(question func() error, giveUp func()) error {
	answered := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for before := l.meter.received.Load(); sleep(answerTimeout, answered); {
			now := l.meter.received.Load()
			if now-before < leastProgress && !l.blocked.Load() {
				giveUp()
				return
			}
			before = now
		}
	})
	err := question()
	close(answered)
	watching.Wait()
	return err
}

// probe asks the broker from time to time on both links, on channels of their own, how many messages wait. A link that is dead
// and looks open is found this way whichever direction is dead; the heartbeats of the library do not notice that the broker
// gets nothing from here.
func (s *session) probe() {
	queued := question{s: s, link: s.in, queue: s.w.queue.Queue, tell: &s.w.status.queued}
	dead := question{s: s, link: s.out.link, queue: s.w.queue.DeadQueue(), tell: &s.w.status.dead}
	for {
		for _, q := range []*question{&queued, &dead} {
			if err := q.link.ask(q.ask, func() { s.fail(errSilent) }); err != nil && !s.over.isSet() {
				s.fail(err)
			}
		}
		if !sleepEither(probeEvery, s.lost.done, s.over.done) {
			return
		}
	}
}

// question is how many messages a queue has.
type question struct {
	s     *session
	link  *link
	queue string
	tell  *atomic.Int64
	ch    *amqp.Channel
}

func (q *question) ask() (err error) {
	if q.ch == nil {
		if q.ch, err = q.link.conn.Channel(); err != nil {
			return fmt.Errorf("open channel: %w", err)
		}
	}
	answer, err := q.ch.QueueDeclarePassive(q.queue, true, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("ask for the length of queue %q: %w", q.queue, err)
	}
	q.tell.Store(int64(answer.Messages))
	return nil
}

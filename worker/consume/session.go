package consume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
)

var (
	errConnectionClosed  = errors.New("the connection was closed")
	errChannelFailed     = errors.New("the broker closed the channel")
	errConsumerCancelled = errors.New("the broker cancelled the consumer: its queue was deleted or moved, or a message was held too long")
)

// session is one stretch of consuming, on connections and channels that are opened for it and thrown away with it.
//
// Invariant: a delivery is settled on the channel that it came from, or not at all: deliveries never leave the session, and
// a lost session settles nothing more. A tag of an old channel would name another message on a new one.
type session struct {
	w          *Worker
	in         *link
	out        *publisher
	tag        string
	deliveries <-chan amqp.Delivery
	cancelled  <-chan string

	shards  []*shard
	running sync.WaitGroup // shards
	waiting atomic.Int64   // events that came too early, in all shards

	stop *latch // no message may be begun any more
	lost *latch // no message may be settled any more; its cause is the session's end
	over *latch // it has ended by itself, what the library reports now means nothing

	settling sync.Mutex // one acknowledgement at a time
	open     tags       // what the broker waits to hear about; guarded by settling
}

// open connects, declares the queues and begins to consume.
func (w *Worker) open(ctx context.Context, epoch uint64) (*session, error) {
	name := "tailbox worker " + w.cfg.Name
	turn := w.brokers.Turn() // one for both links, so that a lost session is followed by one on the next address
	in, err := dial(ctx, turn, name+" (consume)")
	if err != nil {
		return nil, err
	}
	out, err := openPublisher(ctx, turn, name+" (retry and dead letters)", w.cfg.Concurrency)
	if err != nil {
		in.abort()
		return nil, err
	}

	s := &session{w: w, in: in, out: out, tag: fmt.Sprintf("worker-%d", epoch), stop: newLatch(), lost: newLatch(), over: newLatch()}
	for range w.cfg.Concurrency {
		s.shards = append(s.shards, &shard{s: s, w: w, in: make(chan amqp.Delivery, w.cfg.Prefetch), gaps: newGaps(&s.waiting), lines: newLines(&s.waiting)})
	}
	if err := in.bounded(ctx, setupTimeout, s.consume); err != nil {
		s.abort()
		return nil, err
	}
	return s, nil
}

func (s *session) consume() error {
	if err := s.w.queue.Ensure(s.in.conn); err != nil {
		return err
	}
	if err := s.in.ch.Qos(s.w.cfg.Prefetch, 0, false); err != nil {
		return fmt.Errorf("set prefetch: %w", err)
	}
	s.cancelled = s.in.ch.NotifyCancel(make(chan string, 1))
	var err error
	if s.deliveries, err = s.in.ch.Consume(s.w.queue.Queue, s.tag, false, false, false, false, nil); err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return nil
}

// serve hands deliveries to the shards until the context ends, then drains, or until the session is lost. It returns after
// all its goroutines have ended; nil after a drain. The patient context lives on while draining; when it ends too, what is
// left is given up.
func (s *session) serve(ctx, patient context.Context) error {
	var watching sync.WaitGroup
	watching.Go(s.watch)
	watching.Go(s.probe)
	defer watching.Wait()
	defer s.over.set(nil)
	release := context.AfterFunc(patient, func() { s.fail(context.Cause(patient)) })
	defer release()

	for _, sh := range s.shards {
		s.running.Go(func() { sh.run(patient) })
	}
	s.dispatch(ctx)
	s.stop.set(nil)
	if s.lost.isSet() {
		s.w.status.set(StateConnecting, NotConnected) // no new session yet: handlers in hand come first
	} else {
		s.drain(patient)
	}
	s.running.Wait() // handlers in hand go on to their commit even if the session is lost
	s.abort()
	if s.lost.isSet() {
		return s.lost.cause
	}
	return nil
}

// watch ends the session when the broker or the network does, and notes when the broker stops reading.
func (s *session) watch() {
	blocking := s.out.blocking
	for {
		select {
		case <-s.over.done:
			return
		case <-s.lost.done:
			return
		case b, open := <-blocking:
			if !open {
				blocking = nil // whatever closed it is told below
			}
			s.out.blocked.Store(b.Active)
		case _, open := <-s.cancelled:
			if open {
				s.fail(errConsumerCancelled)
			} else {
				s.fail(closed(<-s.in.chClosed)) // the channel's end closes this one too
			}
		case err := <-s.in.connClosed:
			s.fail(closed(err))
		case err := <-s.in.chClosed:
			s.fail(closed(err))
		case err := <-s.out.connClosed:
			s.fail(closed(err))
		case err := <-s.out.chClosed:
			s.fail(closed(err))
		}
	}
}

// closed is why a connection or a channel ended under a session. Up to RabbitMQ 4.2, a message that was held longer than the
// consumer timeout ends the channel with PRECONDITION_FAILED, from 4.3 on it cancels the consumer. Neither is for a person to
// mend before another session can work, as the same code is while a session is opened.
func closed(err *amqp.Error) error {
	switch {
	case err == nil:
		return errConnectionClosed
	case err.Code == amqp.PreconditionFailed:
		return fmt.Errorf("%w: %s", errChannelFailed, err.Reason)
	}
	return err
}

func (s *session) dispatch(ctx context.Context) {
	deliveries := s.deliveries
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.lost.done:
			return
		case d, open := <-deliveries:
			if !open {
				deliveries = nil // whatever closed it reaches watch too
				continue
			}
			s.took(d)
			select {
			case s.shards[shardOf(d, len(s.shards))].in <- d: // has room for the whole prefetch
			case <-s.lost.done:
			}
		}
	}
}

// took notes a message that the broker has delivered.
func (s *session) took(d amqp.Delivery) {
	s.w.status.active()
	s.w.status.inFlight.Add(1)
	s.settling.Lock()
	defer s.settling.Unlock()
	s.open.add(d.DeliveryTag)
}

// finish counts what became of a message, which is so whether or not the broker hears of it, and settles it for good.
func (s *session) finish(d amqp.Delivery, outcome string) {
	s.w.metrics.count(outcome)
	s.acknowledge(d.DeliveryTag)
}

// acknowledge settles messages for good. One acknowledgement is for all that nothing unsettled was delivered before; each of
// the others has its own.
func (s *session) acknowledge(tags ...uint64) {
	s.w.status.inFlight.Add(-int64(len(tags)))
	s.settle(func() error {
		upTo, singly := s.open.settle(tags)
		if upTo != 0 {
			if err := s.in.ch.Ack(upTo, true); err != nil {
				return err
			}
		}
		for _, tag := range singly {
			if err := s.in.ch.Ack(tag, false); err != nil {
				return err
			}
		}
		return nil
	})
}

// giveBack returns a message to the queue. A nack, not a reject: it is no failure of the message.
func (s *session) giveBack(d amqp.Delivery) {
	s.w.status.inFlight.Add(-1)
	s.settle(func() error {
		s.open.settle([]uint64{d.DeliveryTag})
		return s.in.ch.Nack(d.DeliveryTag, false, true)
	})
}

// settle tells the broker, unless the session is lost.
func (s *session) settle(tell func() error) {
	s.settling.Lock()
	defer s.settling.Unlock()
	if s.lost.isSet() {
		return
	}
	if err := tell(); err != nil {
		s.fail(fmt.Errorf("settle message: %w", err))
	}
}

// fail ends the session: nothing is begun and nothing is settled any more. Only the first cause counts.
func (s *session) fail(cause error) {
	s.lost.set(cause)
	s.stop.set(nil)
	s.abort()
}

func (s *session) abort() {
	s.in.abort()
	s.out.abort()
}

package consume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"
)

// drain ends the session so that nothing which was applied is delivered again: what handlers have in hand is finished and
// acknowledged, what was not begun goes back to the queue. The consumer is cancelled only after that, lest another one
// becomes active and works on the same aggregates at the same time.
func (s *session) drain(patient context.Context) {
	s.w.status.set(StateDraining, "")
	s.running.Wait()
	// From the answer on, the broker sends nothing; what it sent before is still in the channel, which closes behind it.
	if err := s.in.ch.Cancel(s.tag, false); err != nil {
		s.fail(fmt.Errorf("cancel consumer: %w", err))
	}
	for _, d := range s.unsettled() {
		s.giveBack(d)
	}
	if err := s.farewell(patient); err != nil {
		s.fail(err)
	}
}

// unsettled is all that was delivered and not settled, in the order of delivery. Shards and consumer have ended.
func (s *session) unsettled() []amqp.Delivery {
	var left []amqp.Delivery
	for _, sh := range s.shards {
		close(sh.in)
		for d := range sh.in {
			left = append(left, d)
		}
		left = append(left, sh.left...)
	}
	for d := range s.deliveries {
		s.took(d)
		left = append(left, d)
	}
	slices.SortFunc(left, func(a, b amqp.Delivery) int { return cmp.Compare(a.DeliveryTag, b.DeliveryTag) })
	return left
}

// farewell closes both links after the broker has worked off the acknowledgements. While a quorum queue is busy, its
// channel holds some back until it hears from the queue, and forgets them when it closes. The cancellation has gone
// through the queue's log and so waited for those before it; one more question lets the channel send the rest.
func (s *session) farewell(patient context.Context) error {
	if s.lost.isSet() {
		return nil
	}
	s.over.set(nil)
	err := s.in.bounded(patient, closeTimeout, func() error {
		_, err := s.in.ch.QueueDeclarePassive(s.w.queue.Queue, true, false, false, false, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for the acknowledgements: %w", err)
	}
	return errors.Join(s.in.close(patient), s.out.close(patient))
}

package quarantine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tailbox/cdc/relay"
)

// publishTimeout bounds one retry: opening the session and waiting for the broker's word.
const publishTimeout = 10 * time.Second

// publish sends one row through a session of its own and tells what became of it: nil when the broker confirmed and routed
// it, a *StillError when it is no message, an *UnknownError when there was no answer. Nothing is sent once the epoch is over.
func (s *Store) publish(ctx context.Context, row relay.Row, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	session, err := s.cfg.Publisher.Open(ctx)
	if err != nil {
		return &UnknownError{fmt.Errorf("open a session: %w", err)}
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = session.Close(closing) // what it had to say, it has said
	}()
	if now, leading := s.cfg.Leading(); !leading || now != epoch {
		return ErrNotLeading
	}
	session.Publish([]relay.Row{row})
	for outcomes := session.Outcomes(); ; {
		select {
		case o, open := <-outcomes:
			if !open {
				return &UnknownError{session.Err()}
			}
			if o.Seq == row.Seq {
				return settled(o)
			}
		case <-ctx.Done():
			return &UnknownError{errors.New("it gave no confirm in time")}
		}
	}
}

const closeTimeout = 2 * time.Second

func settled(o relay.Outcome) error {
	switch o.Kind {
	case relay.Returned:
		return &StillError{relay.Unroutable, errors.New("it reached no queue: bind one to its routing key")}
	case relay.Refused:
		return &StillError{relay.BrokerRefused, errors.New("the broker refused it")}
	case relay.Poison:
		return &StillError{relay.PoisonEvent, o.Err}
	case relay.Confirmed, relay.Blocked, relay.Unblocked: // those of the broker itself name no row
	}
	return nil
}

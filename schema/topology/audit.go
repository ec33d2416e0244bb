package topology

import (
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Connection opens channels; *amqp.Connection is one. The broker closes a channel to say no, so each question needs its own.
type Connection interface {
	Channel() (*amqp.Channel, error)
}

// ask calls f on a channel of its own.
func ask(conn Connection, f func(ch *amqp.Channel) error) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	if err := f(ch); err != nil {
		_ = ch.Close() // the broker may have done so
		return err
	}
	return ch.Close()
}

// EnsureExchange declares the exchange as a durable topic exchange if it is missing. One that is there is used whatever its
// type and its arguments, which can lose nothing, since what it routes nowhere is returned; but it has to outlive a restart of
// the broker and the last binding, and take messages. A user without the right to configure the exchange cannot look at it,
// and uses it as it is.
//
// It looks by declaring: the broker compares, in this order, type, durable, auto_delete, internal and arguments, changes
// nothing, and names the first that differs.
func EnsureExchange(conn Connection, name string) error {
	kind := amqp.ExchangeTopic
	err := ask(conn, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(name, kind, true, false, false, false, nil)
	})
	for err == nil {
		differs := ask(conn, func(ch *amqp.Channel) error { return declareExchange(ch, name, kind) })
		m := (*Mismatch)(nil)
		switch {
		case !errors.As(differs, &m):
			return allowed(differs)
		case m.Property == "type" && m.Found != kind:
			kind = m.Found
		case m.Property == "durable" || m.Property == "auto_delete" || m.Property == "internal":
			return differs
		default:
			return nil // arguments, such as an alternate exchange
		}
	}
	if refused, ok := errors.AsType[*amqp.Error](err); ok && refused.Code == amqp.NotFound {
		return ask(conn, func(ch *amqp.Channel) error { return DeclareExchange(ch, name) })
	}
	return allowed(err)
}

// Ensure declares the exchange as EnsureExchange does, and the consumer's queues and binding, and tells all that is there with
// other properties.
func (c Consumer) Ensure(conn Connection) error {
	if err := errors.Join(EnsureExchange(conn, c.Exchange), ensureQueues(conn, c.queues()...)); err != nil {
		return err
	}
	return ask(conn, func(ch *amqp.Channel) error { return c.bind(ch) })
}

// EnsureUnrouted declares the exchange and the queue for events that reached no queue, and tells all that is there with other
// properties.
func EnsureUnrouted(conn Connection) error {
	if err := errors.Join(EnsureUnroutedExchange(conn), EnsureUnroutedQueue(conn)); err != nil {
		return err
	}
	return ask(conn, func(ch *amqp.Channel) error {
		if err := ch.QueueBind(Unrouted, "", Unrouted, false, nil); err != nil {
			return fmt.Errorf("bind queue %q to its exchange: %w", Unrouted, err)
		}
		return nil
	})
}

// EnsureUnroutedExchange declares the exchange alone. One that is there as it has to be is not changed.
func EnsureUnroutedExchange(conn Connection) error {
	return ask(conn, func(ch *amqp.Channel) error { return declareExchange(ch, Unrouted, amqp.ExchangeFanout) })
}

// EnsureUnroutedQueue declares the queue alone, likewise.
func EnsureUnroutedQueue(conn Connection) error {
	return ensureQueues(conn, queue{Unrouted, resting()})
}

func ensureQueues(conn Connection, queues ...queue) error {
	var errs []error
	for _, q := range queues {
		errs = append(errs, ask(conn, func(ch *amqp.Channel) error { return declareQueue(ch, q.name, q.args) }))
	}
	return errors.Join(errs...)
}

// allowed forgets that the user may not look.
func allowed(err error) error {
	if refused, ok := errors.AsType[*amqp.Error](err); ok && refused.Code == amqp.AccessRefused {
		return nil
	}
	return err
}

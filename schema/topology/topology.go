// Package topology declares, from one place, what Tailbox has in RabbitMQ: the exchange that the relay publishes to, and
// for each consumer its queue, its retry queues and its dead-letter queue. Everything is durable; queues are quorum queues.
//
//	outbox.events (topic) ──customer.*──▶ customers ──(poison, attempts used up)──▶ customers.dead
//	                                       ▲    │
//	                                       └────┴─▶ customers.retry.1s · 5s · 30s · 2m · 10m   (wait, then go back)
//	outbox.unrouted (fanout) ──▶ outbox.unrouted                     (what reached no queue, if the relay is to park it)
//
// Declaring is idempotent, and an audit: where all is as it has to be it changes nothing, and what is there with another
// property is refused by the broker and named in a *Mismatch, with what it costs and what mends it. Who declares what, at the
// start and on every reconnect: the relay the exchange (when it is missing) and what it parks in, each consumer the exchange
// and its own queues. What a policy sets cannot be seen over AMQP; but arguments win over it where it could make a queue drop
// messages for their number or misdirect dead letters. Queues of others cannot be seen at all.
package topology

import (
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Exchange is the default name of the exchange that carries every event.
const Exchange = "outbox.events"

// Unrouted is the name of the exchange, and of the queue behind it, for events that reached no queue: the relay sends them
// there when it is told to park them. They keep their routing key, so that they can be sent on when a binding is there.
const Unrouted = "outbox.unrouted"

// CustomersQueue and CustomersBinding are the queue of the customer worker and the routing keys it takes.
const (
	CustomersQueue   = "customers"
	CustomersBinding = "customer.*"
)

// RetryDelays are how long a message waits in each retry queue, growing: the first failure waits for the first delay, and
// all beyond the last wait for the last.
var RetryDelays = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}

// deliveryLimit bounds how often the broker hands out one message that no consumer settles, which only crashes of the
// consumer use up: failures that the consumer sees are counted and limited by the consumer itself. It is set explicitly
// because RabbitMQ 3.10 has no default and, without one, puts a returned message at the *end* of a quorum queue.
const deliveryLimit = 1000

// deadDeliveryLimit is as good as none. Looking at a dead letter is a delivery of it on some versions; by the default limit of
// 4.x, the twentieth look would drop it. RabbitMQ 3.10 knows no way to say "none".
const deadDeliveryLimit = 1 << 30

// Channel is the part of *amqp.Channel that declaring needs.
type Channel interface {
	ExchangeDeclare(name, kind string, durable, autoDelete, internal, noWait bool, args amqp.Table) error
	QueueDeclare(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)
	QueueBind(name, key, exchange string, noWait bool, args amqp.Table) error
}

// Consumer names what one consumer has in the broker.
type Consumer struct {
	Exchange string // where the events come from
	Queue    string // the work queue
	Binding  string // the routing keys it takes, a topic pattern
}

// Customers is the consumer that comes with Tailbox, on a queue of the given name.
func Customers(queue string) Consumer {
	return Consumer{Exchange: Exchange, Queue: queue, Binding: CustomersBinding}
}

// DeadQueue is where messages go that will not be tried again by themselves.
func (c Consumer) DeadQueue() string { return c.Queue + ".dead" }

// RetryQueue is where a message waits for the given delay, one of RetryDelays, before it goes back to the work queue.
func (c Consumer) RetryQueue(delay time.Duration) string { return c.Queue + ".retry." + short(delay) }

// DeclareExchange declares the durable topic exchange.
func DeclareExchange(ch Channel, name string) error {
	return declareExchange(ch, name, amqp.ExchangeTopic)
}

func declareExchange(ch Channel, name, kind string) error {
	return declared("exchange", name, ch.ExchangeDeclare(name, kind, true, false, false, false, nil))
}

// Declare declares the consumer's exchange, queues and binding, and stops at the first that cannot be.
func (c Consumer) Declare(ch Channel) error {
	if err := DeclareExchange(ch, c.Exchange); err != nil {
		return err
	}
	for _, queue := range c.queues() {
		if err := declareQueue(ch, queue.name, queue.args); err != nil {
			return err
		}
	}
	return c.bind(ch)
}

// queue is the name and the arguments of one.
type queue struct {
	name string
	args amqp.Table
}

// queues are all that the consumer needs, in an order in which dead letters always have where to go.
func (c Consumer) queues() []queue {
	list := []queue{{c.DeadQueue(), resting()}}
	for _, delay := range RetryDelays {
		list = append(list, queue{c.RetryQueue(delay), deadLetterTo(c.Queue, amqp.Table{"x-message-ttl": delay.Milliseconds()})})
	}
	return append(list, queue{c.Queue, deadLetterTo(c.DeadQueue(), amqp.Table{
		"x-single-active-consumer": true, // order per aggregate needs one active consumer
		"x-delivery-limit":         int64(deliveryLimit),
	})})
}

func (c Consumer) bind(ch Channel) error {
	if err := ch.QueueBind(c.Queue, c.Binding, c.Exchange, false, nil); err != nil {
		return fmt.Errorf("bind queue %q to exchange %q with %q: %w", c.Queue, c.Exchange, c.Binding, err)
	}
	return nil
}

// deadLetterTo makes a quorum queue hand messages over to another queue without ever losing one on the way: at-least-once
// dead-lettering keeps a message until the target confirmed it, and asks for reject-publish.
func deadLetterTo(queue string, args amqp.Table) amqp.Table {
	args["x-dead-letter-exchange"] = "" // the default exchange: straight to the queue, past everybody else's bindings
	args["x-dead-letter-routing-key"] = queue
	args["x-dead-letter-strategy"] = "at-least-once"
	args["x-overflow"] = "reject-publish"
	return args
}

// resting is a queue where messages wait for a person. Full by somebody's policy, it refuses more instead of dropping the
// oldest.
func resting() amqp.Table {
	return amqp.Table{"x-delivery-limit": int64(deadDeliveryLimit), "x-overflow": "reject-publish"}
}

func declareQueue(ch Channel, name string, args amqp.Table) error {
	args["x-queue-type"] = "quorum"
	_, err := ch.QueueDeclare(name, true, false, false, false, args)
	return declared("queue", name, err)
}

// short writes a whole delay as an operator says it: 1s, 30s, 2m.
func short(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

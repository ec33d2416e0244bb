// Package publish is the publishing session: it sends outbox events to RabbitMQ in confirm mode and reports what became
// of each. It is the only room of the relay that knows amqp091-go, and owns the connection that events are published on.
//
// What it promises: an event is reported as confirmed only when the broker confirmed it *and* did not return it, so it is
// in at least one queue; reports come in the order of publishing; a session that fails in any way is thrown away whole,
// with every connection, channel and goroutine that it had, and nothing of it reaches the next one. The library's own
// recovery is off: it restarts delivery tags while old confirms are still under way.
package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/topology"
)

// Config of a Publisher.
type Config struct {
	// URL is amqp:// or amqps:// with user, password and vhost; several, with commas between them, are tried in turn.
	URL ops.Secret
	// TLS are the files for amqps://. Defaults to the system's authorities and no certificate.
	TLS ops.TLSFiles
	// Exchange is where events go, made for each event. One of a fixed name is declared as a durable topic exchange if it
	// is missing; those that a template makes have to be there.
	Exchange Template
	// RoutingKey is made for each event.
	RoutingKey Template
	// Format is the form of the messages.
	Format Format
	// Park declares the unrouted exchange and queue, where rows go that are Parked.
	Park bool
	// Name is what the broker shows as the connection's name.
	Name string
	// Window is how many events may be unsettled in a session; Session.Publish does not block below it.
	Window int
	// MaxMessageBytes is the largest payload that is sent. The broker closes the channel over a larger one than its own
	// max_message_size, and the next session finds it before it is sent. Defaults to DefaultMaxMessageBytes.
	MaxMessageBytes int
	brokerMost      int // what the broker said about that; 0 if nothing
	frameMost       int // the largest frame that was agreed with the broker; 0 without a limit
	// ConfirmTimeout is how long the broker may settle nothing while it has all that it needs to, before the session is given
	// up. Defaults to DefaultConfirmTimeout.
	ConfirmTimeout time.Duration
}

// Defaults and fixed times of a session.
const (
	DefaultConfirmTimeout  = 15 * time.Second
	DefaultMaxMessageBytes = 16 << 20 // that of RabbitMQ 4
	setupTimeout           = 15 * time.Second
	heartbeat              = 10 * time.Second // a broker that says nothing for one and a half is gone, says the library
)

// Publisher is a relay.Publisher.
type Publisher struct {
	cfg     Config
	brokers *ops.Brokers
	most    atomic.Int64 // the largest message that the broker takes, as the last session came to know; 0 if it did not
}

var _ relay.Publisher = (*Publisher)(nil)

// New checks the configuration. An error names the settings and holds no secret.
func New(cfg Config) (*Publisher, error) {
	brokers, err := ops.ParseBrokers(cfg.URL, cfg.TLS)
	if err != nil {
		return nil, err
	}
	if cfg.Format.Prefix == "" {
		cfg.Format.Prefix = DefaultPrefix
	}
	if cfg.Window <= 0 {
		cfg.Window = relay.DefaultWindow
	}
	if cfg.MaxMessageBytes <= 0 {
		cfg.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if cfg.ConfirmTimeout <= 0 {
		cfg.ConfirmTimeout = DefaultConfirmTimeout
	}
	return &Publisher{cfg: cfg, brokers: brokers}, nil
}

// RoutingKey is the routing key that an event is published with.
func (p *Publisher) RoutingKey(e *schema.Event) string { return p.cfg.RoutingKey.For(e) }

// Open implements relay.Publisher: a fresh connection, a channel in confirm mode, and an exchange that is there and loses
// nothing; likewise the unrouted queue. Sessions begin with one address after the other.
func (p *Publisher) Open(ctx context.Context) (relay.Session, error) {
	conn, wire, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, wire.abort)() // calls of the library have no time limit of their own
	session, err := p.setUp(conn, wire)
	if err != nil {
		wire.abort()
		return nil, err
	}
	session.start()
	return session, nil
}

// dial logs in on one address after the other, until one takes it.
func (p *Publisher) dial(ctx context.Context) (conn *amqp.Connection, wire *wire, err error) {
	err = p.brokers.Turn().Connect(ctx, func(ctx context.Context, link ops.BrokerLink) (err error) {
		conn, wire, err = p.connect(ctx, link)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the broker: %w", err)
	}
	return conn, wire, nil
}

// connect logs in on a link. What it returns does not outlive an error.
func (p *Publisher) connect(ctx context.Context, link ops.BrokerLink) (*amqp.Connection, *wire, error) {
	wire := newWire(link.Conn, link.Socket)
	defer context.AfterFunc(ctx, wire.abort)()
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(p.cfg.Name)
	conn, err := amqp.DialConfig(link.URL.Reveal(), amqp.Config{ // made anew for each connection: the library changes it
		Heartbeat: heartbeat, Properties: properties,
		Dial: func(_, _ string) (net.Conn, error) { return wire, nil },
	})
	if err != nil {
		wire.abort()
		return nil, nil, fmt.Errorf("log in: %w", err)
	}
	return conn, wire, nil
}

// setUp declares what has to be there and returns a session in confirm mode that is not started.
func (p *Publisher) setUp(conn *amqp.Connection, wire *wire) (*Session, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	if name, fixed := p.cfg.Exchange.Fixed(); fixed {
		if err := topology.EnsureExchange(conn, name); err != nil {
			return nil, topologyError(err)
		}
	}
	if p.cfg.Park {
		if err := topology.EnsureUnrouted(conn); err != nil {
			return nil, topologyError(err)
		}
	}
	// What one session came to know holds for the next one alone: the broker's limit may be raised meanwhile.
	cfg := p.cfg
	cfg.brokerMost = int(p.most.Swap(0))
	cfg.frameMost = conn.Config.FrameSize
	session := newSession(cfg, conn, ch, wire, &p.most)
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("ask for confirms: %w", err)
	}
	return session, nil
}

// topologyError marks what the broker says no to because of an exchange, a queue or a right; a link that broke, or a broker
// that stops, is no fault of the topology.
func topologyError(err error) error {
	refused, ok := errors.AsType[*amqp.Error](err)
	if !ok || !refused.Server {
		return err
	}
	switch refused.Code {
	case amqp.NotFound, amqp.PreconditionFailed, amqp.AccessRefused, amqp.ResourceLocked:
		return &relay.TopologyError{Err: err}
	}
	return err
}

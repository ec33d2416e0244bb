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
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/cdc/relay"
	"tailbox/schema/topology"
)

// Config of a Publisher.
type Config struct {
	// URL is amqp:// or amqps:// with user, password and vhost.
	URL string
	// TLS is used with amqps://. Nil verifies the server with the system's roots.
	TLS *tls.Config
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
	// max_message_size. Defaults to DefaultMaxMessageBytes.
	MaxMessageBytes int
	// ConfirmTimeout is how long the oldest event may wait for its confirm before the session is given up. Time during
	// which the broker is blocked does not count. Defaults to DefaultConfirmTimeout.
	ConfirmTimeout time.Duration
}

// Defaults and fixed times of a session.
const (
	DefaultConfirmTimeout  = 30 * time.Second
	DefaultMaxMessageBytes = 16 << 20 // that of RabbitMQ 4
	setupTimeout           = 15 * time.Second
	heartbeat              = 10 * time.Second
)

// Publisher is a relay.Publisher.
type Publisher struct{ cfg Config }

var _ relay.Publisher = (*Publisher)(nil)

// New checks the configuration. An error names the setting.
func New(cfg Config) (*Publisher, error) {
	if _, err := amqp.ParseURI(cfg.URL); err != nil {
		return nil, errors.New("AMQP_URL is not of the form amqp://user:password@host:5672/vhost")
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
	return &Publisher{cfg: cfg}, nil
}

// Open implements relay.Publisher: a fresh connection, a channel in confirm mode, and an exchange that is there.
func (p *Publisher) Open(ctx context.Context) (relay.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	// Calls of the library have no time limit of their own: cutting the link ends them.
	link := &link{ctx: ctx}
	defer link.disarm()

	conn, err := amqp.DialConfig(p.cfg.URL, p.config(link))
	if err != nil {
		link.abort()
		return nil, fmt.Errorf("connect to the broker: %w", redact(err))
	}
	session, err := p.setUp(conn, link.wire)
	if err != nil {
		link.abort()
		return nil, err
	}
	session.start()
	return session, nil
}

// setUp declares what has to be there and returns a session in confirm mode that is not started.
func (p *Publisher) setUp(conn *amqp.Connection, wire *wire) (*Session, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	if name, fixed := p.cfg.Exchange.Fixed(); fixed {
		if err := ensureExchange(conn, name); err != nil {
			return nil, err
		}
	}
	if p.cfg.Park {
		if err := topology.DeclareUnrouted(ch); err != nil {
			return nil, topologyError(err)
		}
	}
	session := newSession(p.cfg, conn, ch, wire)
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("ask for confirms: %w", err)
	}
	return session, nil
}

// link is a connection that is being set up: until it is disarmed, the end of ctx cuts it.
type link struct {
	ctx  context.Context //nolint:containedctx // it lives as long as one call of Open
	wire *wire
	stop func() bool
}

func (l *link) dial(network, addr string) (net.Conn, error) {
	raw, err := (&net.Dialer{KeepAlive: heartbeat}).DialContext(l.ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(time.Now().Add(setupTimeout)); err != nil { // the library takes it off when it is open
		return nil, err
	}
	l.wire = newWire(raw)
	l.stop = context.AfterFunc(l.ctx, l.wire.abort)
	return l.wire, nil
}

func (l *link) disarm() {
	if l.stop != nil {
		l.stop()
	}
}

func (l *link) abort() {
	if l.wire != nil {
		l.wire.abort()
	}
}

// config is made anew for each connection: the library changes what it is given.
func (p *Publisher) config(link *link) amqp.Config {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(p.cfg.Name)
	cfg := amqp.Config{Heartbeat: heartbeat, Properties: properties, Dial: link.dial}
	if p.cfg.TLS != nil {
		cfg.TLSClientConfig = p.cfg.TLS.Clone()
	}
	return cfg
}

// topologyError marks what the broker itself said no to; a link that broke is no fault of the topology.
func topologyError(err error) error {
	if refused, ok := errors.AsType[*amqp.Error](err); ok && refused.Server {
		return &relay.TopologyError{Err: err}
	}
	return err
}

// ensureExchange declares the exchange if it is missing. One that is there is used as it is, whatever its type. It works
// on a channel of its own, because the broker closes the channel to say no.
func ensureExchange(conn *amqp.Connection, name string) error {
	asked, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	err = asked.ExchangeDeclarePassive(name, amqp.ExchangeTopic, true, false, false, false, nil)
	if err == nil {
		return asked.Close()
	}
	if refused, ok := errors.AsType[*amqp.Error](err); !ok || refused.Code != amqp.NotFound {
		return topologyError(fmt.Errorf("look for the exchange %q: %w", name, err))
	}
	declare, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	if err := topology.DeclareExchange(declare, name); err != nil {
		return topologyError(err)
	}
	return declare.Close()
}

// redact takes the password out of an error that quotes the URL.
func redact(err error) error {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		return parse.Err
	}
	return err
}

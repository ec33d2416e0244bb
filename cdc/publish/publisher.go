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
	// ConfirmTimeout is how long the oldest event may wait for its confirm before the session is given up. Time during
	// which the broker is blocked does not count. Defaults to DefaultConfirmTimeout.
	ConfirmTimeout time.Duration
}

// Defaults and fixed times of a session.
const (
	DefaultConfirmTimeout = 30 * time.Second
	setupTimeout          = 15 * time.Second
	heartbeat             = 10 * time.Second
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
	if cfg.ConfirmTimeout <= 0 {
		cfg.ConfirmTimeout = DefaultConfirmTimeout
	}
	return &Publisher{cfg: cfg}, nil
}

// Open implements relay.Publisher: a fresh connection, a channel in confirm mode, and an exchange that is there.
func (p *Publisher) Open(ctx context.Context) (relay.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()

	var link *wire
	conn, err := amqp.DialConfig(p.cfg.URL, p.config(ctx, &link))
	if err != nil {
		if link != nil {
			link.abort()
		}
		return nil, fmt.Errorf("connect to the broker: %w", redact(err))
	}
	// Calls on a channel have no time limit of their own: cutting the link ends them.
	stop := context.AfterFunc(ctx, link.abort)
	defer stop()

	ch, err := conn.Channel()
	if err != nil {
		link.abort()
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	if name, fixed := p.cfg.Exchange.Fixed(); fixed {
		if err := ensureExchange(conn, name); err != nil {
			link.abort()
			return nil, err
		}
	}
	if p.cfg.Park {
		if err := topology.DeclareUnrouted(ch); err != nil {
			link.abort()
			return nil, &relay.TopologyError{Err: err}
		}
	}
	session := newSession(p.cfg, conn, ch, link)
	if err := ch.Confirm(false); err != nil {
		link.abort()
		return nil, fmt.Errorf("ask for confirms: %w", err)
	}
	session.start()
	return session, nil
}

// config is made anew for each connection: the library changes what it is given.
func (p *Publisher) config(ctx context.Context, link **wire) amqp.Config {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(p.cfg.Name)
	cfg := amqp.Config{
		Heartbeat:  heartbeat,
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			raw, err := (&net.Dialer{KeepAlive: heartbeat}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if err := raw.SetDeadline(time.Now().Add(setupTimeout)); err != nil { // the library takes it off when it is open
				return nil, err
			}
			*link = newWire(raw)
			return *link, nil
		},
	}
	if p.cfg.TLS != nil {
		cfg.TLSClientConfig = p.cfg.TLS.Clone()
	}
	return cfg
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
		return &relay.TopologyError{Err: fmt.Errorf("look for the exchange %q: %w", name, err)}
	}
	declare, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	if err := topology.DeclareExchange(declare, name); err != nil {
		return &relay.TopologyError{Err: err}
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

package consume

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/deploy/ops"
)

const (
	heartbeat    = 6 * time.Second // RabbitMQ gives up what it has not heard of for two to three of them
	setupTimeout = 10 * time.Second
	closeTimeout = 5 * time.Second
)

// link is one connection with one channel and the socket under them. It is never mended: whatever breaks it, a new link
// takes its place.
type link struct {
	conn *amqp.Connection
	ch   *amqp.Channel

	// Closing the socket is the one thing that always gets every call of the library to return: its own Close waits for
	// locks that a write to a peer which stopped reading may hold for ever.
	socket net.Conn
	meter  *meter // the connection that the library reads

	blocked atomic.Bool // the broker is short of memory or disk and has stopped reading from this connection

	connClosed <-chan *amqp.Error
	chClosed   <-chan *amqp.Error
}

// dial connects to the first address that takes it and opens a channel, or gives up in bounded time.
func dial(ctx context.Context, turn ops.Turn, name string) (*link, error) {
	l := &link{}
	err := turn.Connect(ctx, func(ctx context.Context, to ops.BrokerLink) error {
		l.socket, l.meter = to.Socket, &meter{Conn: to.Conn}
		return l.bounded(ctx, setupTimeout, func() error { return l.open(to, name) })
	})
	if err != nil {
		return nil, fmt.Errorf("dial broker: %w", err)
	}
	return l, nil
}

func (l *link) open(to ops.BrokerLink, name string) error {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(name)
	var err error
	l.conn, err = amqp.DialConfig(to.URL.Reveal(), amqp.Config{ // fresh each time: the library writes into it
		Heartbeat:  heartbeat,
		Properties: properties,
		Dial:       func(_, _ string) (net.Conn, error) { return l.meter, nil },
	})
	if err != nil {
		return fmt.Errorf("open connection: %w", err)
	}
	if l.ch, err = l.conn.Channel(); err != nil {
		return fmt.Errorf("open channel: %w", err)
	}
	l.connClosed = l.conn.NotifyClose(make(chan *amqp.Error, 1))
	l.chClosed = l.ch.NotifyClose(make(chan *amqp.Error, 1))
	return nil
}

// bounded runs steps that cannot be interrupted otherwise: when they take longer than the limit, or the context ends
// first, the socket is closed under them.
func (l *link) bounded(ctx context.Context, limit time.Duration, steps func() error) error {
	guard := time.AfterFunc(limit, l.abort)
	defer guard.Stop()
	release := context.AfterFunc(ctx, l.abort)
	defer release()
	return steps()
}

// abort closes the socket. It never blocks and may be called at any time, any number of times.
func (l *link) abort() { _ = l.socket.Close() }

// close says goodbye: the channel first, whose answer tells that the broker has worked off everything sent on it.
func (l *link) close(ctx context.Context) error {
	defer l.abort()
	return l.bounded(ctx, closeTimeout, func() error {
		if err := l.ch.Close(); err != nil {
			return fmt.Errorf("close channel: %w", err)
		}
		if err := l.conn.Close(); err != nil {
			return fmt.Errorf("close connection: %w", err)
		}
		return nil
	})
}

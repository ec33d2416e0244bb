package publish

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/cdc/relay"
	"tailbox/schema/topology"
)

// Checks connects once and looks for what the relay publishes to. What is there is compared with what it has to be, by a
// declaration that changes nothing of it; what is missing is not declared.
func (p *Publisher) Checks(ctx context.Context) []relay.Check {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	conn, wire, err := p.dial(ctx)
	if err != nil {
		return []relay.Check{{Name: "broker", Level: relay.CheckFail, Found: "cannot be used (" + err.Error() + ")", Mend: "look at AMQP_URL, and at the broker"}}
	}
	defer wire.abort()
	defer context.AfterFunc(ctx, wire.abort)()
	checks := []relay.Check{{Name: "broker", Level: relay.CheckOK, Found: "takes the login"}}

	if name, fixed := p.cfg.Exchange.Fixed(); fixed {
		checks = append(checks, look(conn, "exchange", name, func(ch *amqp.Channel) error {
			return ch.ExchangeDeclarePassive(name, amqp.ExchangeTopic, true, false, false, false, nil)
		}, func() error { return topology.EnsureExchange(conn, name) }))
	} else {
		checks = append(checks, relay.Check{Name: "exchange", Level: relay.CheckOK, Found: "is chosen for each event by EXCHANGE: each has to be there"})
	}
	if p.cfg.Park {
		checks = append(checks, look(conn, "unrouted exchange", topology.Unrouted, func(ch *amqp.Channel) error {
			return ch.ExchangeDeclarePassive(topology.Unrouted, amqp.ExchangeFanout, true, false, false, false, nil)
		}, func() error { return topology.EnsureUnroutedExchange(conn) }), look(conn, "unrouted queue", topology.Unrouted, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(topology.Unrouted, true, false, false, false, nil)
			return err
		}, func() error { return topology.EnsureUnroutedQueue(conn) }))
	}
	return checks
}

// look asks for an object on a channel of its own, which the broker closes to say no, and compares it if it is there.
func look(conn *amqp.Connection, what, name string, ask func(*amqp.Channel) error, compare func() error) relay.Check {
	check := relay.Check{Name: what, Level: relay.CheckOK, Found: fmt.Sprintf("%q is there", name)}
	ch, err := conn.Channel()
	if err == nil {
		err = ask(ch)
	}
	refused, byBroker := errors.AsType[*amqp.Error](err)
	switch {
	case err == nil:
		if err = ch.Close(); err == nil {
			err = compare()
		}
	case byBroker && refused.Code == amqp.NotFound:
		check.Level = relay.CheckWarn
		check.Found, check.Mend = fmt.Sprintf("%q does not exist", name), "start the relay, which declares it if its user may"
		return check
	}
	if mismatch := (*topology.Mismatch)(nil); errors.As(err, &mismatch) {
		check.Level, check.Found, check.Mend = relay.CheckFail, mismatch.Problem(), mismatch.Mend()
		return check
	}
	if err != nil {
		check.Level, check.Found = relay.CheckFail, fmt.Sprintf("%q cannot be used (%s)", name, err)
		check.Mend = "look at the rights of the user in AMQP_URL"
	}
	return check
}

// Package schema holds the contracts that the api, the relay and the workers share: the Event envelope, the tables
// (embedded migrations) and the insert into the outbox. It imports nothing else of this module, so that any Go service
// can use it to write events inside its own transactions.
//
// What it promises: an Event that passes Validate fits the outbox table and an AMQP 0-9-1 message, so nothing that was
// committed through Insert is refused later on the way to the broker.
package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Names of the message headers that every published event carries. The pairs of Event.Headers travel beside them and
// may not use these names.
const (
	HeaderAggregateType    = "aggregate_type"
	HeaderAggregateID      = "aggregate_id"
	HeaderAggregateVersion = "aggregate_version" // int64
	HeaderCreatedAt        = "created_at"        // RFC 3339, microseconds, UTC
	HeaderSourcePosition   = "source_position"   // GTID of the transaction, or file:pos of its first event
)

// Limits of an event, in bytes unless said otherwise. They follow from the columns of the outbox table and from AMQP's
// short strings (255 bytes), which the routing key, the message id, the type and every header name are.
const (
	MaxAggregateType = 100
	MaxAggregateID   = 255
	MaxType          = 150
	MaxHeaderName    = 255
	MaxHeaders       = 16 << 10 // the JSON object as a whole
	MaxPayload       = 1 << 20
)

// TimeFormat is RFC 3339 with microseconds, the form of every time that Tailbox writes as text. Times are in UTC.
const TimeFormat = "2006-01-02T15:04:05.000000Z07:00"

// Event is one change of one aggregate, as the outbox row holds it and as the message carries it.
type Event struct {
	// ID identifies the event for ever; consumers deduplicate by it. A UUIDv7 in its 36-character form.
	ID string
	// AggregateType and AggregateID name the aggregate that changed. Order is kept per aggregate.
	AggregateType string
	AggregateID   string
	// AggregateVersion grows by one with each event of the aggregate, from 1, raised under the aggregate's row lock.
	// Zero means that the writer keeps no versions.
	AggregateVersion uint64
	// Type is the event's name, such as CustomerCreated.
	Type string
	// Payload is a JSON text. These bytes are published unchanged.
	Payload []byte
	// Headers are extra pairs for the message, traceparent among them. May be nil.
	Headers map[string]string
	// CreatedAt is the writer's clock, in UTC with microseconds.
	CreatedAt time.Time
}

// Validate tells all that is wrong with an event, joined, or nil when it fits both the table and a message.
func (e Event) Validate() error {
	var errs []error
	text := func(field, value string, most int, required bool) {
		switch {
		case required && value == "":
			errs = append(errs, fmt.Errorf("%s is empty", field))
		case len(value) > most:
			errs = append(errs, fmt.Errorf("%s has %d bytes, at most %d are allowed", field, len(value), most))
		case !utf8.ValidString(value):
			errs = append(errs, fmt.Errorf("%s is not UTF-8", field))
		}
	}

	if len(e.ID) != 36 {
		errs = append(errs, fmt.Errorf("id has %d characters, a UUID has 36", len(e.ID)))
	}
	text("aggregate_type", e.AggregateType, MaxAggregateType, true)
	text("aggregate_id", e.AggregateID, MaxAggregateID, true)
	text("type", e.Type, MaxType, true)

	switch {
	case len(e.Payload) > MaxPayload:
		errs = append(errs, fmt.Errorf("payload has %d bytes, at most %d are allowed", len(e.Payload), MaxPayload))
	case !json.Valid(e.Payload):
		errs = append(errs, errors.New("payload is not a JSON text"))
	}

	size := 0
	for name, value := range e.Headers {
		size += len(name) + len(value)
		text("header name", name, MaxHeaderName, true)
		if !utf8.ValidString(value) {
			errs = append(errs, fmt.Errorf("header %q is not UTF-8", name))
		}
		if reserved(name) {
			errs = append(errs, fmt.Errorf("header %q has a meaning of its own, choose another name", name))
		}
	}
	if size > MaxHeaders {
		errs = append(errs, fmt.Errorf("headers have %d bytes, at most %d are allowed", size, MaxHeaders))
	}
	return errors.Join(errs...)
}

func reserved(name string) bool {
	switch name {
	case HeaderAggregateType, HeaderAggregateID, HeaderAggregateVersion, HeaderCreatedAt, HeaderSourcePosition:
		return true
	case "CC", "BCC": // RabbitMQ's own: lists of further routing keys
		return true
	}
	return false
}

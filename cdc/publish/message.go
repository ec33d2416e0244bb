package publish

import (
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/cdc/relay"
	"tailbox/schema"
	"tailbox/schema/topology"
)

// maxShortString is AMQP's limit for keys, names and the short properties. A longer one closes the whole connection, so
// it is found before it is sent.
const maxShortString = 255

const appID = "tailbox"

// Format is the form of a message.
type Format struct {
	// CloudEvents adds the attributes of a CloudEvent 1.0 in binary mode as headers; the content type is the property.
	CloudEvents bool
	// Prefix is what the attributes' names begin with. Defaults to DefaultPrefix.
	Prefix string
	// Source is the attribute source of every event, a URI reference; the aggregate's type is appended as a last segment.
	Source string
}

// DefaultPrefix is that of the CloudEvents binding for AMQP 1.0, which RabbitMQ's conversion of headers arrives at.
const DefaultPrefix = "cloudEvents_"

// target is where a message goes.
type target struct{ exchange, key string }

// message makes the message of a row and its target, or says why it cannot be one. The error holds no value. The headers
// are cleared and filled: the message is valid until the next one is made with them.
func (c *Config) message(row *relay.Row, headers amqp.Table) (to target, m amqp.Publishing, err error) {
	e := &row.Event
	to = target{exchange: c.Exchange.For(e), key: c.RoutingKey.For(e)}
	if row.Parked {
		to.exchange = topology.Unrouted
	}
	for _, short := range []struct{ name, value string }{
		{"exchange", to.exchange}, {"routing key", to.key}, {"message id", e.ID}, {"type", e.Type},
	} {
		if len(short.value) > maxShortString {
			return to, m, fmt.Errorf("the %s has %d bytes, AMQP allows %d", short.name, len(short.value), maxShortString)
		}
	}

	switch {
	case to.exchange == "":
		return to, m, errors.New("the exchange's name is empty, which stands for the default exchange")
	case len(e.Payload) > c.MaxMessageBytes:
		return to, m, fmt.Errorf("the payload has %d bytes, MAX_MESSAGE_BYTES allows %d", len(e.Payload), c.MaxMessageBytes)
	case c.brokerMost > 0 && len(e.Payload) > c.brokerMost:
		return to, m, fmt.Errorf("the payload has %d bytes, the broker's max_message_size allows %d", len(e.Payload), c.brokerMost)
	}
	clear(headers)
	for name, value := range e.Headers {
		if len(name) > maxShortString {
			return to, m, fmt.Errorf("a header's name has %d bytes, AMQP allows %d", len(name), maxShortString)
		}
		if name == "CC" || name == "BCC" {
			return to, m, fmt.Errorf("a header has the name %s, which RabbitMQ takes for a list of routing keys and refuses as a text", name)
		}
		headers[name] = value
	}
	headers[schema.HeaderAggregateType] = e.AggregateType
	headers[schema.HeaderAggregateID] = e.AggregateID
	headers[schema.HeaderAggregateVersion] = int64(e.AggregateVersion)
	headers[schema.HeaderCreatedAt] = e.CreatedAt.UTC().Format(schema.TimeFormat)
	headers[schema.HeaderSourcePosition] = row.Position
	if c.Format.CloudEvents {
		c.Format.attributes(headers, e)
	}

	m = amqp.Publishing{
		MessageId:    e.ID,
		Type:         e.Type,
		Timestamp:    e.CreatedAt,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		AppId:        appID,
		Headers:      headers,
		Body:         e.Payload,
	}
	if size := headerFrame(&m); c.frameMost > 0 && size > c.frameMost {
		return to, m, fmt.Errorf("the headers and properties take a frame of %d bytes, the broker's frame_max is %d", size, c.frameMost)
	}
	return to, m, nil
}

// headerFrame is the size of the frame that has a message's properties, all of them in one, at most: AMQP does not split it,
// and a broker that is sent a larger one than was agreed closes the connection.
func headerFrame(m *amqp.Publishing) int {
	const around, fixed = 8, 2 + 2 + 8 + 2 + 1 + 8 // of a frame; class, weight, body size, flags, delivery mode, timestamp
	size := around + fixed + 4
	for _, short := range []string{m.ContentType, m.MessageId, m.Type, m.AppId} {
		size += 1 + len(short)
	}
	for name, value := range m.Headers {
		size += 1 + len(name) + 1 + 8 // of a number, which is the most of all but texts
		if text, ok := value.(string); ok {
			size += len(text)
		}
	}
	return size
}

// attributes adds those of a CloudEvent. Times are text: AMQP's own have no fractions of a second.
func (f Format) attributes(headers amqp.Table, e *schema.Event) {
	headers[f.Prefix+"specversion"] = "1.0"
	headers[f.Prefix+"id"] = e.ID
	headers[f.Prefix+"source"] = f.Source + "/" + e.AggregateType
	headers[f.Prefix+"type"] = e.Type
	headers[f.Prefix+"subject"] = e.AggregateID
	headers[f.Prefix+"time"] = e.CreatedAt.UTC().Format(schema.TimeFormat)
}

package publish

import (
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/cdc/relay"
	"tailbox/schema"
)

// maxShortString is AMQP's limit for keys, names and the short properties. A longer one closes the whole connection, so
// it is found before it is sent.
const maxShortString = 255

const appID = "tailbox"

// Template makes a text for each event from the event's fields in braces.
type Template struct{ parts []part }

// part is a literal, or a field when get is set.
type part struct {
	literal string
	get     func(e *schema.Event) string
}

var fields = map[string]func(e *schema.Event) string{
	"aggregate_type": func(e *schema.Event) string { return e.AggregateType },
	"aggregate_id":   func(e *schema.Event) string { return e.AggregateID },
	"type":           func(e *schema.Event) string { return e.Type },
}

// ParseTemplate reads a template such as {aggregate_type}.{type}.
func ParseTemplate(text string) (Template, error) {
	var t Template
	for rest := text; rest != ""; {
		literal, tail, found := strings.Cut(rest, "{")
		if literal != "" {
			t.parts = append(t.parts, part{literal: literal})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(tail, "}")
		get := fields[name]
		if !closed || get == nil {
			return Template{}, fmt.Errorf("%q: a brace encloses one of aggregate_type, aggregate_id and type", text)
		}
		t.parts = append(t.parts, part{get: get})
		rest = after
	}
	if len(t.parts) == 0 {
		return Template{}, errors.New("the template is empty")
	}
	return t, nil
}

// For is the template's text for an event.
func (t Template) For(e *schema.Event) string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.get != nil {
			b.WriteString(p.get(e))
		} else {
			b.WriteString(p.literal)
		}
	}
	return b.String()
}

// message makes the routing key and the message of a row, or says why it cannot be one. The error holds no value.
func message(routing Template, row *relay.Row) (key string, m amqp.Publishing, err error) {
	e := &row.Event
	key = routing.For(e)
	for _, short := range []struct{ name, value string }{
		{"routing key", key}, {"message id", e.ID}, {"type", e.Type},
	} {
		if len(short.value) > maxShortString {
			return "", m, fmt.Errorf("the %s has %d bytes, AMQP allows %d", short.name, len(short.value), maxShortString)
		}
	}

	headers := make(amqp.Table, len(e.Headers)+5)
	for name, value := range e.Headers {
		if len(name) > maxShortString {
			return "", m, fmt.Errorf("a header's name has %d bytes, AMQP allows %d", len(name), maxShortString)
		}
		headers[name] = value
	}
	headers[schema.HeaderAggregateType] = e.AggregateType
	headers[schema.HeaderAggregateID] = e.AggregateID
	headers[schema.HeaderAggregateVersion] = int64(e.AggregateVersion)
	headers[schema.HeaderCreatedAt] = e.CreatedAt.UTC().Format(schema.TimeFormat)
	headers[schema.HeaderSourcePosition] = row.Position

	return key, amqp.Publishing{
		MessageId:    e.ID,
		Type:         e.Type,
		Timestamp:    e.CreatedAt,
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		AppId:        appID,
		Headers:      headers,
		Body:         e.Payload,
	}, nil
}

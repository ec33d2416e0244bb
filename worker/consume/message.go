package consume

import (
	"encoding/json"
	"hash/fnv"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/schema"
	"tailbox/worker/inbox"
)

// message is a delivery that could be read, on its way through a shard.
type message struct {
	delivery amqp.Delivery
	event    schema.Event
	hash     [32]byte
	attempts int       // made before this delivery
	waitsFor awaited   // when it went to the retry queue
	since    time.Time // when it began to wait in memory, or zero
	behind   string    // the message id of an event that it waits for in memory, or empty
	unknown  bool      // an earlier try may have committed

	acceptOld bool // a person has said that it was not applied
	dropped   bool // a person has given it up
	isNew     bool // it has come right from its publisher, not from a retry queue or the dead letters
}

// awaited is what an event waits for that did not fail by itself; zero when it waits for nothing.
type awaited struct {
	version uint64 // of its aggregate, or 0
	event   string // the message id of one in a retry queue, or empty
}

// key names the aggregate; order is kept per key.
func (m *message) key() string { return m.event.AggregateType + "\x00" + m.event.AggregateID }

// aggregateKey is the key of a delivery that may not be readable.
func aggregateKey(d amqp.Delivery) string {
	kind, _ := d.Headers[schema.HeaderAggregateType].(string)
	id, _ := d.Headers[schema.HeaderAggregateID].(string)
	return kind + "\x00" + id
}

// namesAggregate tells whether a delivery that may not be readable has both parts of the key.
func namesAggregate(d amqp.Delivery) bool {
	kind, _ := d.Headers[schema.HeaderAggregateType].(string)
	id, _ := d.Headers[schema.HeaderAggregateID].(string)
	return kind != "" && id != ""
}

// shardOf picks one of n shards, always the same one for an aggregate. A message that names no aggregate goes anywhere.
func shardOf(d amqp.Delivery, n int) int {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(aggregateKey(d))) // never fails
	return int(hash.Sum64() % uint64(n))
}

// read takes the event out of a delivery, or tells why no delivery of it can ever be read.
func read(d amqp.Delivery) (*message, *problem) {
	fields := fields{headers: d.Headers}
	event := schema.Event{
		ID:               fields.named("message_id", d.MessageId),
		Type:             fields.named("type", d.Type),
		AggregateType:    fields.text(schema.HeaderAggregateType),
		AggregateID:      fields.text(schema.HeaderAggregateID),
		AggregateVersion: fields.number(schema.HeaderAggregateVersion),
		CreatedAt:        fields.time(schema.HeaderCreatedAt),
		Payload:          d.Body,
		Headers:          extraHeaders(d.Headers),
	}
	m := &message{
		delivery: d, event: event, hash: inbox.Hash(d.Body),
		attempts: attemptsOf(d), waitsFor: awaited{version: uint64(max(0, integer(d.Headers[headerWaitsFor])))},
	}
	m.waitsFor.event, _ = d.Headers[headerWaitsBehind].(string)
	_, tried := d.Headers[HeaderAttempts]
	_, redriven := d.Headers[headerRedrive]
	m.isNew = !tried && !redriven
	m.acceptOld, _ = d.Headers[HeaderAcceptOld].(bool)
	m.dropped, _ = d.Headers[HeaderDropped].(bool)
	switch {
	case m.dropped && utf8.ValidString(d.MessageId) && d.MessageId != "" && namesAggregate(d):
		return m, nil // the rest may be why it was given up
	case len(fields.wrong) > 0:
		return nil, &problem{codeUnreadable, strings.Join(fields.wrong, ", ")}
	case !json.Valid(d.Body):
		return nil, &problem{code: codeNotJSON}
	}
	return m, nil
}

// attemptsOf is how often a message was tried before.
func attemptsOf(d amqp.Delivery) int {
	return int(min(max(0, integer(d.Headers[HeaderAttempts])), math.MaxInt32))
}

// fields reads properties and headers and remembers what is wrong, by name only.
type fields struct {
	headers amqp.Table
	wrong   []string
}

func (f *fields) named(name, value string) string {
	switch {
	case value == "":
		f.wrong = append(f.wrong, name+" missing")
	case !utf8.ValidString(value):
		f.wrong = append(f.wrong, name+" not UTF-8")
	}
	return value
}

func (f *fields) text(name string) string {
	value, _ := f.headers[name].(string)
	return f.named(name, value)
}

func (f *fields) number(name string) uint64 {
	n := integer(f.headers[name])
	if n < 0 {
		f.wrong = append(f.wrong, name+" missing or not a whole number")
		return 0
	}
	return uint64(n)
}

func (f *fields) time(name string) time.Time {
	text, _ := f.headers[name].(string)
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		f.wrong = append(f.wrong, name+" missing or not RFC 3339")
	}
	return t.UTC()
}

// integer reads a header of any of AMQP's integer types; -1 when it is none.
func integer(header any) int64 {
	switch n := header.(type) {
	case int64:
		return n
	case int32:
		return int64(n)
	case int16:
		return int64(n)
	case int8:
		return int64(n)
	case uint8:
		return int64(n)
	case uint16:
		return int64(n)
	case uint32:
		return int64(n)
	}
	return -1
}

// extraHeaders are the pairs that the writer of the event added, traceparent among them.
func extraHeaders(headers amqp.Table) map[string]string {
	extra := map[string]string{}
	for name, value := range headers {
		if text, ok := value.(string); ok && !strings.HasPrefix(name, "x-") {
			extra[name] = text
		}
	}
	for _, own := range []string{schema.HeaderAggregateType, schema.HeaderAggregateID, schema.HeaderAggregateVersion,
		schema.HeaderCreatedAt, schema.HeaderSourcePosition, HeaderBlockedBy} {
		delete(extra, own)
	}
	return extra
}

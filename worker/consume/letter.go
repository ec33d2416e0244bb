package consume

import (
	"maps"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Headers of a message in a retry or dead-letter queue.
const (
	HeaderAttempts = "x-attempts"  // int64: how often it was tried since it last got ahead
	HeaderError    = "x-error"     // the reason, a code and at times a detail behind a colon
	HeaderFailedAt = "x-failed-at" // RFC 3339, microseconds, UTC

	// HeaderBlockedBy is the message id of the event that this one only follows: an earlier one of its aggregate.
	HeaderBlockedBy = "blocked_by"

	// HeaderAcceptOld lets a message pass that is older than the inbox remembers: a person has said that it was not applied.
	HeaderAcceptOld = "x-accept-old"

	// HeaderDropped marks a message of which only the version is wanted: a person has given it up.
	HeaderDropped = "x-dropped"

	// headerRedrive tells which call sent a message back last, so that it knows the message when that dies again meanwhile.
	headerRedrive = "x-redrive"

	// headerWaitsFor is the version that a message in a retry queue waited for; absent when it waited for none.
	headerWaitsFor = "x-waits-for"

	// headerWaitsBehind is the message id of the event in a retry queue that a message went behind; absent when it is none.
	headerWaitsBehind = "x-waits-behind"
)

// problem is why a message was not applied.
type problem struct {
	code   string // stable, in snake_case
	detail string // for a person; never holds anything of the payload
}

func (p problem) String() string {
	if p.detail == "" {
		return p.code
	}
	return p.code + ": " + p.detail
}

// Codes of the problems that this package finds itself.
const (
	codeUnreadable  = "unreadable_message" // a property or header is missing or makes no sense
	codeNotJSON     = "payload_not_json"
	codeUnknownType = "unknown_type"
	codeIDReused    = "id_reused"
	codeGap         = "gap"
	codeFailed      = "handler_failed"
	codePanicked    = "handler_panicked"
	codeTimeout     = "handler_timeout"
	codeBlocked     = "blocked"
	codeBehind      = "behind_a_retry"
	codeForgotten   = "older_than_inbox"
)

// copyOf is the message for another queue: the same body and properties, and headers with some more.
func copyOf(d amqp.Delivery, more amqp.Table) amqp.Publishing {
	headers := amqp.Table{}
	maps.Copy(headers, d.Headers)
	for name := range headers {
		if brokers(name) {
			delete(headers, name)
		}
	}
	maps.Copy(headers, more)
	return amqp.Publishing{
		Headers:         headers,
		ContentType:     d.ContentType,
		ContentEncoding: d.ContentEncoding,
		DeliveryMode:    amqp.Persistent,
		Priority:        d.Priority,
		CorrelationId:   d.CorrelationId,
		ReplyTo:         d.ReplyTo,
		MessageId:       d.MessageId,
		Timestamp:       d.Timestamp,
		Type:            d.Type,
		AppId:           d.AppId,
		Body:            d.Body,
		// Left out: Expiration, which would delete a dead letter, and UserId, which has to be the publisher's own.
	}
}

// brokers tells the headers that mean something to the broker itself: the history of dead-lettering, by which 3.x drops a
// message that it takes for running in a circle, counts of deliveries, and further routing keys. What an earlier try left
// is also dropped.
func brokers(header string) bool {
	switch header {
	case "CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count",
		HeaderAttempts, HeaderError, HeaderFailedAt, HeaderBlockedBy, HeaderAcceptOld, headerWaitsFor, headerWaitsBehind:
		return true
	}
	return strings.HasPrefix(header, "x-first-death-") || strings.HasPrefix(header, "x-last-death-")
}

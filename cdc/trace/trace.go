// Package trace makes the relay's spans: for each event that carries a traceparent, one for its way through the relay, and in
// it those of waiting for the commit to be read, of publishing and of waiting for the confirm. The message carries the relay's span
// on, so that what a consumer does with it hangs below.
//
// It owns the spans of events that are under way, and nothing else: they begin at the commit, by the database's clock, so
// they are made when the event is sent. A crash loses those that are under way.
package trace

import (
	"context"
	"maps"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
)

// Tracer is a relay.Tracer.
type Tracer struct {
	tracer   trace.Tracer
	underway map[uint64]flight
}

type flight struct {
	ctx    context.Context //nolint:containedctx // it holds the span that the later ones hang below
	span   trace.Span
	sentAt time.Time
}

var _ relay.Tracer = (*Tracer)(nil)

// New returns a tracer that gives its spans to that one.
func New(tracer trace.Tracer) *Tracer {
	return &Tracer{tracer: tracer, underway: map[uint64]flight{}}
}

// Sent implements relay.Tracer.
func (t *Tracer) Sent(row *relay.Row, at time.Time) {
	t.drop(row.Seq, "sent again")
	from := ops.TraceHeaders.Extract(context.Background(), propagation.MapCarrier(row.Event.Headers))
	if !trace.SpanContextFromContext(from).IsSampled() {
		return
	}
	ctx, span := t.tracer.Start(from, "relay "+row.Event.Type, trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(row.CommittedAt),
		trace.WithAttributes(
			attribute.String("messaging.system", "rabbitmq"),
			attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.message.id", row.Event.ID),
			attribute.String("tailbox.source_position", row.Position),
		))
	t.step(ctx, "commit wait", row.CommittedAt, row.ReadAt)
	t.step(ctx, "publish", row.ReadAt, at)
	t.underway[row.Seq] = flight{ctx, span, at}

	headers := propagation.MapCarrier{} // the row keeps its own: it may be sent again
	maps.Copy(headers, row.Event.Headers)
	ops.TraceHeaders.Inject(ctx, headers)
	row.Event.Headers = headers
}

// Confirmed implements relay.Tracer.
func (t *Tracer) Confirmed(row *relay.Row, at time.Time) {
	f, ok := t.underway[row.Seq]
	if !ok {
		return
	}
	delete(t.underway, row.Seq)
	t.step(f.ctx, "confirm", f.sentAt, at)
	f.span.End(trace.WithTimestamp(at))
}

// Dropped implements relay.Tracer.
func (t *Tracer) Dropped(row *relay.Row) { t.drop(row.Seq, "quarantined") }

// Lost implements relay.Tracer.
func (t *Tracer) Lost() {
	for seq := range t.underway {
		t.drop(seq, "unknown")
	}
}

func (t *Tracer) drop(seq uint64, why string) {
	if f, ok := t.underway[seq]; ok {
		delete(t.underway, seq)
		f.span.SetStatus(codes.Error, why)
		f.span.End()
	}
}

// step is a span below another, from one time to the next; the database's clock may be ahead of ours.
func (t *Tracer) step(ctx context.Context, name string, from, to time.Time) {
	if to.Before(from) {
		to = from
	}
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(from))
	span.End(trace.WithTimestamp(to))
}

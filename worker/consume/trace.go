package consume

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"tailbox/deploy/ops"
)

// span begins the span of one try of a message, in the trace that the message came with. Without a tracer it costs nothing.
func (w *Worker) span(ctx context.Context, m *message) (context.Context, trace.Span) {
	if w.cfg.Tracer == nil {
		return ctx, noop.Span{}
	}
	ctx = ops.TraceHeaders.Extract(ctx, propagation.MapCarrier(m.event.Headers))
	return w.cfg.Tracer.Start(ctx, "process "+m.event.Type, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.system", "rabbitmq"),
		attribute.String("messaging.operation.type", "process"),
		attribute.String("messaging.message.id", m.event.ID),
		attribute.String("messaging.consumer.group.name", w.cfg.Name),
		attribute.Bool("messaging.rabbitmq.redelivered", m.delivery.Redelivered),
	))
}

// endSpan ends it with what the try came to.
func endSpan(span trace.Span, v verdict) {
	if !span.IsRecording() {
		return
	}
	switch v.kind {
	case applied, duplicate:
		span.SetAttributes(attribute.Bool("tailbox.duplicate", v.kind == duplicate))
	default:
		span.SetStatus(codes.Error, v.problem.code)
	}
	span.End()
}

package ops

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// TraceHeaders are how a trace travels: W3C Trace Context, in HTTP headers and in those of events and messages.
var TraceHeaders = propagation.TraceContext{}

// Traces makes the spans of a service and sends them to OTEL_EXPORTER_OTLP_ENDPOINT, over HTTP. With that unset there are none:
// Tracer is nil, and nothing is spent on them.
type Traces struct{ provider *sdk.TracerProvider }

// NewTraces returns the traces of a service. What cannot be delivered is dropped, and logged: a trace is never worth the work.
func NewTraces(ctx context.Context, c Common, service string, log *zap.Logger) (*Traces, error) {
	if c.OTLPEndpoint == "" {
		return &Traces{}, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(c.OTLPEndpoint+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("%w: OTEL_EXPORTER_OTLP_ENDPOINT: %w", ErrBadConfig, err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) { // its text may quote the collector's answer
		log.Warn("spans were not delivered")
	}))
	return &Traces{sdk.NewTracerProvider(
		sdk.WithBatcher(exporter, sdk.WithBatchTimeout(time.Second)),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "tailbox-"+service))),
	)}, nil
}

// Provider gives the tracers of libraries; nil when there are no traces.
func (t *Traces) Provider() trace.TracerProvider {
	if t.provider == nil {
		return nil
	}
	return t.provider
}

// Tracer gives the spans of one part of the service; nil when there are no traces.
func (t *Traces) Tracer(part string) trace.Tracer {
	if t.provider == nil {
		return nil
	}
	return t.provider.Tracer(part)
}

// Close delivers what is left, for two seconds at most.
func (t *Traces) Close() {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // what could not be delivered was logged
}

// validateEndpoint tells when OTEL_EXPORTER_OTLP_ENDPOINT is set and is no base URL.
func validateEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
		return errors.New("OTEL_EXPORTER_OTLP_ENDPOINT is not of the form http://collector:4318")
	}
	return nil
}

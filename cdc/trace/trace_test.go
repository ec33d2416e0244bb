package trace_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"tailbox/cdc/relay"
	"tailbox/cdc/trace"
	"tailbox/schema"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func setup(t testing.TB) (tracer *trace.Tracer, ended func() tracetest.SpanStubs) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	return trace.New(provider.Tracer("test")), spans.GetSpans
}

func row(headers map[string]string) relay.Row {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return relay.Row{Seq: 1, Event: schema.Event{ID: "e", Type: "CustomerCreated", Headers: headers}, CommittedAt: at, ReadAt: at.Add(time.Second)}
}

func names(spans tracetest.SpanStubs) (list []string) {
	for _, s := range spans {
		list = append(list, s.Name)
	}
	return list
}

func TestARowWithoutASampledTraceIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, headers := range []map[string]string{nil, {"traceparent": parent[:len(parent)-1] + "0"}, {"traceparent": "nonsense"}} {
		tracer, ended := setup(t)
		r := row(headers)
		tracer.Sent(&r, r.ReadAt)
		tracer.Confirmed(&r, r.ReadAt)
		require.Equal(t, headers, r.Event.Headers)
		require.Empty(t, ended())
	}
}

func TestTheMessageCarriesTheRelaysSpanAndTheRowKeepsItsOwn(t *testing.T) {
	t.Parallel()
	tracer, ended := setup(t)
	own := map[string]string{"traceparent": parent}
	for range 2 { // sent again, after a lost session
		sent := row(own)
		tracer.Sent(&sent, sent.ReadAt)
		require.NotEqual(t, parent, sent.Event.Headers["traceparent"])
		require.Equal(t, parent[:36], sent.Event.Headers["traceparent"][:36], "the same trace")
		require.Equal(t, parent, own["traceparent"])
	}
	r := row(own)
	tracer.Confirmed(&r, r.ReadAt.Add(time.Second))
	require.Equal(t, []string{"commit wait", "publish", "relay CustomerCreated", "commit wait", "publish", "confirm", "relay CustomerCreated"}, names(ended()))
	require.Equal(t, "sent again", ended()[2].Status.Description)
	require.Equal(t, r.CommittedAt, ended()[6].StartTime)
	require.Equal(t, r.ReadAt.Add(time.Second), ended()[6].EndTime)
}

func TestWhatIsLostIsNotKept(t *testing.T) {
	t.Parallel()
	tracer, ended := setup(t)
	r := row(map[string]string{"traceparent": parent})
	tracer.Sent(&r, r.ReadAt)
	tracer.Lost()
	require.Equal(t, "unknown", ended()[2].Status.Description)
	tracer.Confirmed(&r, r.ReadAt)
	require.Len(t, ended(), 3)
}

func BenchmarkARowWithoutATrace(b *testing.B) {
	tracer, _ := setup(b)
	r := row(map[string]string{"other": "header"})
	for b.Loop() {
		tracer.Sent(&r, r.ReadAt)
		tracer.Confirmed(&r, r.ReadAt)
	}
}

package e2e_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is an OTLP collector that keeps the spans of one trace by name.
type receiver struct {
	*httptest.Server
	trace string
	mu    sync.Mutex
	spans map[string]*otlp.Span
}

func newReceiver(t *testing.T, trace string) *receiver {
	r := &receiver{trace: trace, spans: map[string]*otlp.Span{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		r.take(body)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) take(body []byte) {
	var sent collector.ExportTraceServiceRequest
	if proto.Unmarshal(body, &sent) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range sent.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				if hex.EncodeToString(span.TraceId) == r.trace {
					r.spans[span.Name] = span
				}
			}
		}
	}
}

func (r *receiver) span(name string) *otlp.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spans[name]
}

func TestOneTraceLeadsFromThePostToTheEffect(t *testing.T) {
	t.Parallel()
	const trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	r := newReceiver(t, trace)
	w := setup(t, option{env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL}})

	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.api.URL("/customers"), strings.NewReader(`{"email":"a@example.com","name":"A"}`))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", "00-"+trace+"-"+caller+"-01")
	began := time.Now()
	answer, err := client.Do(request)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusCreated, answer.StatusCode)
	answered := time.Now()

	const post, relay, effect = "POST /customers", "relay CustomerCreated", "process CustomerCreated"
	for _, step := range []struct{ name, below string }{
		{post, ""}, {"transaction", post}, {relay, "transaction"},
		{"commit wait", relay}, {"publish", relay}, {"confirm", relay}, {effect, relay},
	} {
		w.waitFor("the span "+step.name, 20*time.Second, func() bool { return r.span(step.name) != nil })
		parent := caller
		if step.below != "" {
			parent = hex.EncodeToString(r.span(step.below).SpanId)
		}
		span := r.span(step.name)
		require.Equal(t, parent, hex.EncodeToString(span.ParentSpanId), "%s hangs below %s", step.name, step.below)
		require.LessOrEqual(t, span.StartTimeUnixNano, span.EndTimeUnixNano, step.name)
	}

	// The relay's way begins at the commit, which MariaDB logs to the second only.
	commit := time.Unix(0, int64(r.span(relay).StartTimeUnixNano))
	require.WithinRange(t, commit, began.Add(-time.Second), answered)
	require.Equal(t, r.span("commit wait").EndTimeUnixNano, r.span("publish").StartTimeUnixNano)
	require.Equal(t, r.span("publish").EndTimeUnixNano, r.span("confirm").StartTimeUnixNano)
	require.Equal(t, r.span("confirm").EndTimeUnixNano, r.span(relay).EndTimeUnixNano)
}

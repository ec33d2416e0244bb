package handler_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tailbox/api/handler"
	"tailbox/api/handler/handlertest"
	"tailbox/deploy/openapitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFakeKeepsTheContract(t *testing.T) {
	t.Parallel()
	handlertest.Contract(t, func(*testing.T) handler.Customers { return &handlertest.Fake{} })
}

// bundle is a handler over a fake store. Every answer that goes through it is held to openapi.yaml.
type bundle struct {
	t        testing.TB
	fake     *handlertest.Fake
	engine   *gin.Engine
	spec     *openapitest.Spec
	logs     *observer.ObservedLogs
	registry *prometheus.Registry
}

func setup(t testing.TB, change ...func(*handler.Config)) *bundle {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	cfg := handler.Config{Log: zap.New(core), Metrics: prometheus.NewRegistry()}
	for _, c := range change {
		c(&cfg)
	}
	fake := &handlertest.Fake{}
	engine, err := handler.New(fake, openAPI(t), cfg)
	require.NoError(t, err)
	return &bundle{t: t, fake: fake, engine: engine, spec: openapitest.Read(t, openAPI(t)), logs: logs, registry: cfg.Metrics}
}

func openAPI(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("../openapi.yaml")
	require.NoError(t, err)
	return text
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t testing.TB) map[string]any {
	t.Helper()
	var document map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &document), a.body)
	return document
}

// request is a call; an empty Content-Type in the pairs of headers takes it away.
func (b *bundle) request(method, target, body string, headers ...string) *http.Request {
	r := httptest.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func (b *bundle) send(r *http.Request) answer {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.engine.ServeHTTP(w, r)
	result := w.Result()
	body, err := io.ReadAll(result.Body)
	require.NoError(b.t, err)
	a := answer{status: result.StatusCode, header: result.Header, body: string(body)}
	b.spec.Hold(b.t, r, openapitest.Answer{Status: a.status, Header: a.header, Body: a.body})
	return a
}

func (b *bundle) do(method, target, body string, headers ...string) answer {
	b.t.Helper()
	return b.send(b.request(method, target, body, headers...))
}

// refused asserts a problem with this status and code.
func (b *bundle) refused(a answer, status int, code string) map[string]any {
	b.t.Helper()
	require.Equal(b.t, status, a.status, a.body)
	require.Equal(b.t, "application/problem+json; charset=utf-8", a.header.Get("Content-Type"))
	problem := a.json(b.t)
	require.Equal(b.t, code, problem["code"], a.body)
	require.InDelta(b.t, status, problem["status"], 0)
	return problem
}

const ada = `{"email":"ada@example.com","name":"Ada Lovelace"}`

// create makes a customer and returns its path.
func (b *bundle) create() string {
	b.t.Helper()
	a := b.do("POST", "/customers", ada)
	require.Equal(b.t, http.StatusCreated, a.status, a.body)
	return a.header.Get("Location")
}

func short(c *handler.Config) { c.RequestTimeout = time.Millisecond }

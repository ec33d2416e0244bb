// Package handler owns the HTTP side of the api: routes, limits, the form of requests and answers, and the page that
// describes them. Its caller owns the listener, the metrics' registry and the store behind Customers.
//
// What it promises: every refusal is application/problem+json and carries no text of a driver or of a panic; no log line
// carries an e-mail address, a name, a payload or a key; and what is answered is in openapi.yaml, which a test holds it to.
package handler

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tailbox/api/store"
	"tailbox/deploy/ops"
)

// Reader reads committed customers. It is used concurrently.
type Reader interface {
	// Get returns a customer or store.ErrNotFound.
	Get(ctx context.Context, id string) (store.Customer, error)
	// List returns at most limit customers, newest first, behind the id in after when it is not empty.
	List(ctx context.Context, after string, limit int) ([]store.Customer, error)
}

// Writer changes customers. A change that returned without an error is durable, its event included; one that failed with
// store.ErrUnavailable may be. It is used concurrently.
type Writer interface {
	// Create inserts the customer as given.
	Create(ctx context.Context, c store.Customer, headers map[string]string) error
	// CreateOnce is Create under a key: it returns the answer that the first request was given, or store.ErrRunning or
	// store.ErrKeyReused.
	CreateOnce(ctx context.Context, c store.Customer, headers map[string]string, once store.Once) (store.Answer, error)
	// Update returns the customer after the change, or store.ErrNotFound or store.ErrStale.
	Update(ctx context.Context, id string, change store.Change, expect *uint64, headers map[string]string) (store.Customer, error)
	// Delete returns store.ErrNotFound or store.ErrStale when nothing was deleted.
	Delete(ctx context.Context, id string, expect *uint64, headers map[string]string) error
}

// Customers is all that the handler needs of a store.
type Customers interface {
	Reader
	Writer
}

var _ Customers = (*store.Store)(nil)

// Defaults of Config.
const (
	DefaultRequestTimeout = 10 * time.Second
	DefaultMaxBody        = 1 << 20
)

// Config is what a handler needs beside its store.
type Config struct {
	// Log takes what goes wrong, a few lines a second at most. Defaults to no log.
	Log *zap.Logger
	// Metrics is what the handler registers with and what GET /metrics shows. Defaults to a registry of its own.
	Metrics *prometheus.Registry
	// Ready is what GET /readyz answers from. Defaults to always ready.
	Ready ops.Reasons
	// Traces, if set, gives each request a span.
	Traces trace.TracerProvider
	// RequestTimeout bounds the work for one request, but for the wait for its commit, which the store bounds. Defaults to
	// DefaultRequestTimeout.
	RequestTimeout time.Duration
	// MaxBody bounds a request's body, in bytes. Defaults to DefaultMaxBody.
	MaxBody int64
}

func (c *Config) validate() error {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	if c.Ready == nil {
		c.Ready = func() []string { return nil }
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = DefaultRequestTimeout
	}
	if c.MaxBody == 0 {
		c.MaxBody = DefaultMaxBody
	}
	if c.RequestTimeout < 0 || c.MaxBody < 0 {
		return fmt.Errorf("request timeout %s and body limit %d must be above zero", c.RequestTimeout, c.MaxBody)
	}
	return nil
}

type api struct {
	Config
	customers Customers
}

// New returns the handler of all routes. The description is openapi.yaml, which it serves as it is and as a page.
func New(customers Customers, description []byte, cfg Config) (*gin.Engine, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure handler: %w", err)
	}
	page, err := renderDocs(description)
	if err != nil {
		return nil, fmt.Errorf("render openapi.yaml: %w", err)
	}
	measure, err := newMeasure(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	cfg.Log = cfg.Log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		// An outage under load must not become a flood: of equal lines, the first few of each second are written.
		return zapcore.NewSamplerWithOptions(core, time.Second, 5, 0)
	}))
	a := &api{Config: cfg, customers: customers}

	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.RedirectTrailingSlash = false
	if err := engine.SetTrustedProxies(nil); err != nil {
		return nil, fmt.Errorf("trust no proxy: %w", err)
	}
	if cfg.Traces != nil {
		engine.Use(otelgin.Middleware("api", otelgin.WithTracerProvider(cfg.Traces), otelgin.WithPropagators(ops.TraceHeaders)))
	}
	engine.Use(measure.each, a.recovered, a.bounded)
	engine.NoRoute(refuse(http.StatusNotFound, "no_such_path", "Nothing is served under this path."))
	engine.NoMethod(refuse(http.StatusMethodNotAllowed, "method_not_allowed", "The header Allow names what this path takes."))
	a.route(engine, description, page)
	return engine, nil
}

func (a *api) route(engine *gin.Engine, description, page []byte) {
	engine.POST("/customers", a.answer(a.create))
	get(engine, "/customers", a.answer(a.list))
	get(engine, "/customers/:id", a.answer(a.get))
	engine.PATCH("/customers/:id", a.answer(a.update))
	engine.DELETE("/customers/:id", a.answer(a.remove))

	get(engine, "/openapi.yaml", static("application/yaml; charset=utf-8", description))
	get(engine, "/docs", static("text/html; charset=utf-8", page))

	probes := http.NewServeMux()
	ops.Probes(probes, a.Ready, nil, a.Metrics)
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		get(engine, path, gin.WrapH(probes))
	}
}

// get serves HEAD beside GET, as HTTP asks for; the server drops the body.
func get(engine *gin.Engine, path string, handle gin.HandlerFunc) {
	engine.GET(path, handle)
	engine.HEAD(path, handle)
}

func static(contentType string, body []byte) gin.HandlerFunc {
	return func(c *gin.Context) { c.Data(http.StatusOK, contentType, body) }
}

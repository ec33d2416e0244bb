package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of the HTTP server: a slow or greedy client is cut off, whatever the handler does.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 25 * time.Second // longer than a handler takes, or it has to extend it: its answer would be cut off
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
)

// Reasons says why a service is not doing its job; none means that it is. It must answer at once, from memory.
type Reasons func() []string

// State says in a word what a service does, such as standby. It must answer at once, from memory.
type State func() string

// Probes adds GET /healthz (alive), GET /readyz (doing its job; 503 with the reasons when not) and GET /metrics to mux. state
// is shown by /readyz; it may be nil.
func Probes(mux *http.ServeMux, ready Reasons, state State, metrics prometheus.Gatherer) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		WriteJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status, answer := http.StatusOK, readiness{Status: "ready", Reasons: ready()}
		if len(answer.Reasons) > 0 {
			status, answer.Status = http.StatusServiceUnavailable, "unready"
		} else {
			answer.Reasons = []string{} // not null
		}
		if state != nil {
			answer.State = state()
		}
		WriteJSON(w, status, answer)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
}

// readiness is the answer of /readyz.
type readiness struct {
	Status  string   `json:"status"`
	State   string   `json:"state,omitempty"`
	Reasons []string `json:"reasons"`
}

// Metrics returns a registry that holds the metrics of the process and the Go runtime.
func Metrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// Serve serves HTTP on the address until the context ends, then lets running requests finish for at most the shutdown
// timeout. The address is bound before ready is called, if ready is not nil.
func Serve(ctx context.Context, c Common, handler http.Handler, ready func(addr net.Addr)) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.HTTPAddr)
	if err != nil {
		return fmt.Errorf("%w: listen on HTTP_ADDR: %w", ErrBadConfig, err)
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	if ready != nil {
		ready(listener.Addr())
	}

	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.ShutdownTimeout)
		defer cancel()
		stopped <- server.Shutdown(bounded)
	})
	defer stop()

	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("finish HTTP requests: %w", err)
	}
	return nil
}

// WriteJSON answers with a JSON document.
func WriteJSON(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(document) // the client went away: nobody is left to tell
}

// Problem is an error answer as RFC 9457 has it.
type Problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail,omitempty"`
	Code   string       `json:"code,omitempty"`
	Leader string       `json:"leader,omitempty"` // who does answer, where this instance stands by
	Errors []FieldError `json:"errors,omitempty"`
}

// FieldError names one field of the request and what is wrong with it.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// WriteProblem answers with application/problem+json.
func WriteProblem(w http.ResponseWriter, p Problem) {
	if p.Type == "" {
		p.Type = "about:blank"
	}
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client went away: nobody is left to tell
}

package console_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/console"
	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
	"tailbox/deploy/openapitest"
	"tailbox/deploy/ops"
)

func description(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../openapi.yaml")
	require.NoError(t, err)
	return text
}

// A mux does not tell its routes: they are read from the source.
func TestDescriptionNamesExactlyTheRoutes(t *testing.T) {
	t.Parallel()
	spec := openapitest.Read(t, description(t))
	require.Empty(t, spec.Dead())
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	files = append(files, "../../deploy/ops/http.go")
	var routes []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, route := range openapitest.Routes(t, file) {
			method, routed, _ := strings.Cut(route, " ")
			path := map[string]string{"/{$}": "/", "/assets/": "/assets/{file}"}[routed]
			if path == "" {
				path = routed
			}
			if file == "http.go" && regexp.MustCompile("^/(stats|dead-letters)").MatchString(path) {
				path = "/worker" + path
			}
			routes = append(routes, method+" "+path)
		}
	}
	require.ElementsMatch(t, routes, spec.Calls())
}

// newOffice is a desk whose worker is the given handler, with all that the relay serves.
func newOffice(t *testing.T, worker http.HandlerFunc) (*desk, *console.Console) {
	t.Helper()
	d := newDesk(t)
	server := httptest.NewServer(worker)
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	require.NoError(t, err)
	c := console.New(d.view, console.Config{Worker: base})
	admin := console.Admin{Token: "open sesame", View: d.view, Course: d, Places: d, Quarantine: (*ward)(d), Audit: (*book)(d)}
	registry := prometheus.NewRegistry()
	registry.MustRegister(console.NewCollector(d.view))
	d.handler = c.Handler(registry, admin.Routes, console.Description(description(t)))
	return d, c
}

// Every answer that the document describes is given here, and desk.call holds each to its description.
func TestEveryDescribedAnswerIsGiven(t *testing.T) {
	t.Parallel()
	var refuses atomic.Bool
	d, c := newOffice(t, func(w http.ResponseWriter, _ *http.Request) {
		if refuses.Load() {
			ops.WriteProblem(w, ops.Problem{Status: http.StatusUnauthorized, Code: "unauthorized"})
			return
		}
		_, _ = io.WriteString(w, `{"redriven":1}`)
	})

	// What is only looked at.
	for _, path := range []string{"/", "/assets/main.js", "/assets/console.css", "/position", "/history", "/quarantine", "/audit", "/openapi.yaml",
		"/healthz", "/readyz", "/metrics", "/worker/stats", "/worker/dead-letters"} {
		d.call(t, "GET", path, "", http.StatusOK, "")
	}
	for _, path := range []string{"/quarantine?limit=0", "/audit?limit=0"} {
		d.call(t, "GET", path, "", http.StatusUnprocessableEntity, "invalid")
	}
	d.status.Reason = relay.BrokerDown
	d.call(t, "GET", "/readyz", "", http.StatusServiceUnavailable, "")
	d.watch(t, http.StatusOK)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, c.Run(ended))
	d.watch(t, http.StatusServiceUnavailable)

	// What is changed, and refused.
	long := `{"why":"` + strings.Repeat("x", ops.MaxBody) + `"}`
	for i, change := range changes {
		d.call(t, change.method, change.target, change.body, http.StatusOK, "")
		d.call(t, change.method, change.target, `{`, http.StatusBadRequest, "bad_body")
		d.call(t, change.method, change.target, long, http.StatusRequestEntityTooLarge, "too_large")
		d.call(t, change.method, change.target, "", http.StatusUnauthorized, "unauthorized", "Authorization", "")
		d.standby, d.broken = true, quarantine.ErrNotLeading
		d.call(t, change.method, change.target, change.body, http.StatusConflict, "standby")
		d.standby, d.broken = false, errors.New("away")
		if change.target != "/position?dry_run=true" {
			d.call(t, change.method, change.target, change.body, http.StatusServiceUnavailable, map[bool]string{true: "not_done", false: "source_unreachable"}[i < 3])
		}
		d.broken = nil
	}
	d.call(t, "PUT", "/position", "{}", http.StatusUnprocessableEntity, "invalid")
	d.broken = quarantine.ErrNotFound
	d.call(t, "POST", "/quarantine/3/retry", "", http.StatusNotFound, "no_such_event")
	d.call(t, "DELETE", "/quarantine/3", "", http.StatusNotFound, "no_such_event")
	d.broken = &quarantine.StillError{Why: relay.Unroutable, Err: errors.New("it reached no queue")}
	d.call(t, "POST", "/quarantine/3/retry", "", http.StatusUnprocessableEntity, "unroutable")
	d.broken = errors.New("away")
	d.call(t, "GET", "/quarantine", "", http.StatusServiceUnavailable, "source_unreachable")
	d.call(t, "GET", "/audit", "", http.StatusServiceUnavailable, "source_unreachable")
	d.broken = nil

	// The worker behind it: there, not there, and none at all.
	posts := []string{"/worker/dead-letters/redrive", "/worker/dead-letters/drop"}
	gets := []string{"/worker/stats", "/worker/dead-letters"}
	for _, path := range posts {
		d.call(t, "POST", path, "{}", http.StatusOK, "")
		d.call(t, "POST", path, long, http.StatusRequestEntityTooLarge, "")
		refuses.Store(true)
		d.call(t, "POST", path, "{}", http.StatusUnauthorized, "unauthorized")
		refuses.Store(false)
	}
	gone, _ := newOffice(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	alone := newDesk(t)
	gone.spec, alone.spec = d.spec, d.spec
	for _, call := range slices.Concat(prefixed("GET ", gets), prefixed("POST ", posts)) {
		method, path, _ := strings.Cut(call, " ")
		gone.call(t, method, path, "", http.StatusBadGateway, "worker_unreachable")
		alone.call(t, method, path, "", http.StatusNotFound, "worker_not_configured")
	}

	// No token is configured.
	alone.handler = console.New(d.view, console.Config{}).Handler(prometheus.NewRegistry(), console.Admin{View: d.view, Course: d}.Routes)
	for _, change := range changes {
		alone.call(t, change.method, change.target, change.body, http.StatusForbidden, "admin_disabled")
	}
	require.Empty(t, d.spec.Missing(), "no answer like these was given")
}

func prefixed(prefix string, list []string) (all []string) {
	for _, text := range list {
		all = append(all, prefix+text)
	}
	return all
}

// watch opens the stream of events and leaves it at once.
func (d *desk) watch(t *testing.T, status int) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	leave()
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil)
	answer := httptest.NewRecorder()
	d.handler.ServeHTTP(answer, request)
	require.Equal(t, status, answer.Code)
	d.spec.Hold(t, request, openapitest.Answer{Status: status, Header: answer.Header(), Body: answer.Body.String()})
}

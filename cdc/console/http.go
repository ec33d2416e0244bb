package console

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"tailbox/deploy/ops"
)

// Handler serves the relay's HTTP calls; more adds those of other parts, such as Admin.Routes.
func (c *Console) Handler(metrics prometheus.Gatherer, more ...func(*http.ServeMux)) http.Handler {
	mux := http.NewServeMux()
	for _, routes := range more {
		routes(mux)
	}
	ops.Probes(mux, c.view.Ready, c.view.State, metrics)
	mux.HandleFunc("GET /position", func(w http.ResponseWriter, _ *http.Request) {
		ops.WriteJSON(w, http.StatusOK, c.view.Position())
	})
	mux.HandleFunc("GET /history", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(c.history.json()) // the client went away: nobody is left to tell
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { c.watchers.serve(w, r, c.greet) })
	servePage(mux)
	for _, call := range []string{"GET /stats", "GET /dead-letters", "POST /dead-letters/redrive", "POST /dead-letters/drop"} {
		method, path, _ := strings.Cut(call, " ")
		mux.HandleFunc(method+" /worker"+path, func(w http.ResponseWriter, r *http.Request) { c.worker.forward(w, r, path) })
	}
	return ops.Strict(mux)
}

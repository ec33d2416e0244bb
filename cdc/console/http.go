package console

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"tailbox/deploy/ops"
)

// Handler serves the relay's HTTP calls.
func Handler(view View, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	ops.Probes(mux, view.Ready, view.State, metrics)
	mux.HandleFunc("GET /position", func(w http.ResponseWriter, _ *http.Request) {
		ops.WriteJSON(w, http.StatusOK, view.Position())
	})
	return mux
}

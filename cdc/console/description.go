package console

import "net/http"

// Description returns the routes of the description of all calls, GET /openapi.yaml.
func Description(text []byte) func(*http.ServeMux) {
	return func(mux *http.ServeMux) {
		mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
			_, _ = w.Write(text) // the client went away: nobody is left to tell
		})
	}
}

package ops

import "net/http"

// Strict is a mux that answers with a problem where http.ServeMux answers in plain text: to an unknown path, and to a method
// that the path does not take.
func Strict(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		answer := refusal{header: http.Header{}, status: http.StatusNotFound}
		refuse.ServeHTTP(&answer, r)
		if allow := answer.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
		}
		WriteProblem(w, Problem{Status: answer.status})
	})
}

// refusal takes what a mux says to a call that it has no handler for, without its text.
type refusal struct {
	header http.Header
	status int
}

func (r *refusal) Header() http.Header         { return r.header }
func (r *refusal) Write(p []byte) (int, error) { return len(p), nil }
func (r *refusal) WriteHeader(status int)      { r.status = status }

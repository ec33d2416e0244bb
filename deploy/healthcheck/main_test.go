package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyOKIsHealthyAndTheAnswerTellsWhy(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ready":
			_, _ = io.WriteString(w, "{\"status\":\"ready\"}\n")
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("x", 10*maxAnswer))
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "{\"reasons\":[\"no database\"]}\n")
		}
	}))
	defer server.Close()

	answer, err := ask(t.Context(), server.URL+"/ready")
	require.NoError(t, err)
	require.JSONEq(t, `{"status":"ready"}`, answer)

	_, err = ask(t.Context(), server.URL+"/unready")
	require.EqualError(t, err, `503 Service Unavailable: {"reasons":["no database"]}`)

	answer, err = ask(t.Context(), server.URL+"/long")
	require.NoError(t, err)
	require.Len(t, answer, maxAnswer)

	server.Close()
	_, err = ask(t.Context(), server.URL+"/ready")
	require.ErrorContains(t, err, "ask service")
}

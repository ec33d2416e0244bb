package ops_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
)

// Half of the connections stop within the header, half within the body of a call.
func TestSlowConnectionsDoNotStopHealthz(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	ops.Probes(mux, func() []string { return nil }, nil, prometheus.NewRegistry())
	mux.HandleFunc("POST /change", ops.Guard("token", func(w http.ResponseWriter, r *http.Request) {
		if ops.ReadObject(w, r, &struct{}{}, "{}") {
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	addr, done := make(chan string, 1), make(chan error, 1)
	common := ops.Common{HTTPAddr: "127.0.0.1:0", ShutdownTimeout: 10 * time.Second}
	go func() { done <- ops.Serve(ctx, common, ops.Strict(mux), func(a net.Addr) { addr <- a.String() }) }()
	server := <-addr

	const connections = 500
	var slow []net.Conn
	for i := range connections {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		text := "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: "
		if i%2 == 1 {
			text = "POST /change HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer token\r\nContent-Length: 100\r\n\r\n{"
		}
		_, err = io.WriteString(conn, text)
		require.NoError(t, err)
		slow = append(slow, conn)
	}
	client := &http.Client{Timeout: 4 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 10 {
		answer, err := client.Get("http://" + server + "/healthz")
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, http.StatusOK, answer.StatusCode)
	}
	for _, conn := range slow { // in the end each is cut off
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		_, err := io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server has let it wait")
	}
	cancel()
	require.NoError(t, <-done)
}

func TestUnknownCallsAreProblems(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /there", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	strict := ops.Strict(mux).ServeHTTP
	answer, problem := call(t, strict, "/nowhere", "", nil)
	require.Equal(t, http.StatusNotFound, answer.Code)
	require.Equal(t, "Not Found", problem.Title)
	answer, problem = call(t, strict, "/there", "", nil)
	require.Equal(t, http.StatusMethodNotAllowed, answer.Code)
	require.Equal(t, "Method Not Allowed", problem.Title)
	require.Equal(t, "GET, HEAD", answer.Header().Get("Allow"))
}

package console_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/console"
)

// fakeWorker answers as a worker does, on more than one line.
func fakeWorker(t *testing.T) *url.URL {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{\"state\":\n\"consuming\"}\n")
	})
	mux.HandleFunc("GET /dead-letters", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "limit="+r.URL.RawQuery)
	})
	mux.HandleFunc("POST /dead-letters/redrive", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer dev" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.Copy(w, r.Body)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	return at
}

func (r *running) call(t *testing.T, method, path, token, body string) (status int, kind, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://relay"+path, strings.NewReader(body))
	require.NoError(t, err)
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	response, err := r.client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, response.Header.Get("Content-Type"), string(text)
}

func TestTheWorkersCallsAreForwarded(t *testing.T) {
	t.Parallel()
	r := setup().run(t, console.Config{Worker: fakeWorker(t)}, nil)
	status, _, answer := r.call(t, http.MethodGet, "/worker/stats", "", "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, answer, "consuming")

	_, kind, answer := r.call(t, http.MethodGet, "/worker/dead-letters?limit=5&other=x", "", "")
	require.Equal(t, "limit=limit=5", answer)
	require.Equal(t, "application/json; charset=utf-8", kind, "it must not become a page of the relay's origin")

	status, kind, _ = r.call(t, http.MethodPost, "/worker/dead-letters/redrive", "", `{"all":true}`)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Equal(t, "application/problem+json; charset=utf-8", kind)
	status, _, answer = r.call(t, http.MethodPost, "/worker/dead-letters/redrive", "Bearer dev", `{"all":true}`)
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"all":true}`, answer)
	status, _, _ = r.call(t, http.MethodPost, "/worker/dead-letters/redrive", "Bearer dev", strings.Repeat("x", 64<<10+1))
	require.Equal(t, http.StatusRequestEntityTooLarge, status)
}

func TestAWorkerThatIsNotThereIsSaidToBe(t *testing.T) {
	t.Parallel()
	for reason, worker := range map[string]*url.URL{"not_configured": nil, "unreachable": {Scheme: "http", Host: "127.0.0.1:1"}} {
		r := setup().run(t, console.Config{Worker: worker, Interval: 100 * time.Millisecond}, nil)
		var news struct {
			Connected bool
			Reason    string
		}
		for watch := r.watch(t); news.Reason != reason; {
			require.True(t, watch.next("worker", &news))
			require.False(t, news.Connected)
		}
		status, _, answer := r.call(t, http.MethodGet, "/worker/stats", "", "")
		if worker == nil {
			require.Equal(t, http.StatusNotFound, status)
			continue
		}
		require.Equal(t, http.StatusBadGateway, status)
		require.NotContains(t, answer, "127.0.0.1:1", "where it is, is nobody's business")
	}
}

func TestWatchersAreToldTheWorkersNumbers(t *testing.T) {
	t.Parallel()
	r := setup().run(t, console.Config{Worker: fakeWorker(t), Interval: 100 * time.Millisecond}, nil)
	var news struct {
		Connected bool
		Stats     struct{ State string }
	}
	watch := r.watch(t)
	for !news.Connected {
		require.True(t, watch.next("worker", &news))
	}
	require.Equal(t, "consuming", news.Stats.State)
}

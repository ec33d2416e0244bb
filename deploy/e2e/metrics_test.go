package e2e_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/services"
)

// metric is the value of one series, as the service gives it to Prometheus.
func (w *world) metric(s *services.Service, series string) int {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, s.URL("/metrics"), nil)
	require.NoError(w.t, err)
	answer, err := client.Do(request)
	require.NoError(w.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(w.t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(w.t, err)
			return int(n)
		}
	}
	w.t.Fatalf("no series %s", series)
	return 0
}

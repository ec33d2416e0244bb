// Package bench measures the whole path on real servers. Figures depend on the machine; quote them with the command.
package bench_test

import (
	"context"
	"database/sql"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/mysql"
	"tailbox/deploy/services"
)

// BenchmarkPostToEffect measures, event by event, the time from the end of POST /customers until a SELECT sees its effect.
// The SELECT is asked again and again without a pause, which costs a core and makes the figures larger, not smaller.
func BenchmarkPostToEffect(b *testing.B) {
	db, api := system(b)
	statement, err := db.PrepareContext(b.Context(), "SELECT COUNT(*) FROM customer_profiles WHERE customer_id = ?")
	require.NoError(b, err)
	b.Cleanup(func() { _ = statement.Close() })

	const warm, events = 50, 500
	var delays []time.Duration
	for i := range warm + events {
		id := post(b, api)
		posted := time.Now()
		for n := 0; n == 0; {
			require.NoError(b, statement.QueryRowContext(b.Context(), id).Scan(&n))
			require.Less(b, time.Since(posted), time.Minute, "the effect does not come")
		}
		if i >= warm {
			delays = append(delays, time.Since(posted))
		}
	}
	slices.Sort(delays)
	at := func(q float64) float64 {
		return float64(delays[int(q*float64(len(delays)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(1), "max-ms")
	require.Less(b, at(0.5), 50.0, "the median must be milliseconds: something in the path polls or sleeps")
}

// system is servers and services for one benchmark.
func system(b *testing.B) (db *sql.DB, api *services.Service) {
	b.Helper()
	servers := startServers(b)
	bin := b.TempDir()
	require.NoError(b, services.Build(b.Context(), filepath.Join("..", ".."), bin))
	for _, name := range services.Names {
		addr, err := services.FreeAddr(b.Context())
		require.NoError(b, err)
		s := services.New(services.Config{Name: name, Bin: bin, Stack: servers, Addr: addr, Env: []string{"LOG_LEVEL=warn"}, Output: os.Stderr})
		require.NoError(b, s.Start())
		b.Cleanup(func() { _ = s.Process().Stop(context.Background()) })
		require.NoError(b, s.Ready(b.Context()))
		if name == "api" {
			api = s
		}
	}
	var err error
	db, err = sql.Open("mysql", servers.MySQL.DSN(mysql.Database))
	require.NoError(b, err)
	b.Cleanup(func() { _ = db.Close() })
	return db, api
}

// post posts a customer and returns its id.
func post(b *testing.B, api *services.Service) (id string) {
	b.Helper()
	answer, err := http.Post(api.URL("/customers"), "application/json", strings.NewReader(`{"email":"ada@example.com","name":"Ada"}`))
	require.NoError(b, err)
	_, err = io.Copy(io.Discard, answer.Body)
	require.NoError(b, err)
	require.NoError(b, answer.Body.Close())
	require.Equal(b, http.StatusCreated, answer.StatusCode)
	return strings.TrimPrefix(answer.Header.Get("Location"), "/customers/")
}

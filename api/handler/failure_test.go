package handler_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"tailbox/api/handler"
	"tailbox/api/store"
)

func TestUnknownPathAndMethodAreProblems(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/", "/customers/", "/customers/a/b", "/Customers", "/openapi.json", "/customers/%2f", "/../customers"} {
		b.refused(b.do("GET", path, ""), 404, "no_such_path")
	}
	a := b.do("PUT", "/customers", ada)
	b.refused(a, 405, "method_not_allowed")
	require.Equal(t, "GET, HEAD, POST", sorted(a.header.Get("Allow")))
	b.refused(b.do("POST", "/healthz", ""), 405, "method_not_allowed")
	b.refused(b.do("BREW", "/customers", ""), 405, "method_not_allowed")
}

func TestPanicIsAnsweredAndItsValueIsNotLogged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fake.PanicWith(fmt.Errorf("row of ada@example.com"))
	b.refused(b.do("POST", "/customers", ada), 500, "internal")
	require.Equal(t, 1, b.logs.FilterMessage("handler panicked").Len())
	b.silentOf("ada@example.com", "Ada Lovelace")
}

func TestErrorTextStaysInside(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, err := range []error{
		&mysql.MySQLError{Number: 1062, Message: "Duplicate entry 'ada@example.com' for key 'email'"},
		fmt.Errorf("%w: dial tcp 10.1.2.3:3306: ada@example.com", store.ErrUnavailable),
		errors.New("ada@example.com"),
	} {
		b.fake.FailWith(err)
		for _, target := range []string{"POST /customers", "GET /customers"} {
			method, path, _ := strings.Cut(target, " ")
			a := b.do(method, path, ada, "Idempotency-Key", "secret-key")
			require.NotContains(t, a.body, "10.1.2.3")
			require.NotContains(t, a.body, "Duplicate")
			require.NotContains(t, a.body, "example.com")
		}
	}
	require.Equal(t, uint16(1062), b.logs.FilterMessage("request failed").All()[0].ContextMap()["mysql_code"])
	b.silentOf("ada@example.com", "Ada Lovelace", "secret-key", "10.1.2.3")
}

func TestOutageIsNotAFloodOfLines(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fake.FailWith(store.ErrUnavailable)
	for range 500 {
		b.do("GET", "/customers", "")
	}
	require.Less(t, b.logs.Len(), 100)
}

func TestStalledDatabaseIsAnsweredWithinTheDeadline(t *testing.T) {
	t.Parallel()
	b := setup(t, short)
	b.fake.Hang()
	b.refused(b.do("GET", "/customers", ""), 503, "unavailable")
}

func TestClientThatWentAwayIsNoFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fake.Hang()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.engine.ServeHTTP(nowhere{}, b.request("GET", "/customers", "").WithContext(ctx))
	require.Zero(t, b.logs.Len())
	require.Contains(t, b.do("GET", "/metrics", "").body, `status="499"`)
}

type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}

func TestMetricsNamePatternsNeverPaths(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create()
	for range 3 {
		b.do("GET", path, "")
	}
	b.do("GET", "/a/made/up/path", "")
	b.do("BREW", "/another", "")
	require.NoError(t, testutil.GatherAndCompare(b.registry, strings.NewReader(`
# HELP tailbox_api_requests_total Requests answered, by route pattern and status. 499: the client went away first.
# TYPE tailbox_api_requests_total counter
tailbox_api_requests_total{method="GET",route="/customers/:id",status="200"} 3
tailbox_api_requests_total{method="GET",route="other",status="404"} 1
tailbox_api_requests_total{method="POST",route="/customers",status="201"} 1
tailbox_api_requests_total{method="other",route="other",status="404"} 1
`), "tailbox_api_requests_total"))
	require.Contains(t, b.do("GET", "/metrics", "").body, `tailbox_api_request_seconds_count{method="GET",route="/customers/:id"} 3`)
}

func TestNonsenseIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	_, err := handler.New(nil, openAPI(t), handler.Config{MaxBody: -1})
	require.Error(t, err)
	registry := prometheus.NewRegistry()
	_, err = handler.New(nil, openAPI(t), handler.Config{Metrics: registry})
	require.NoError(t, err)
	_, err = handler.New(nil, openAPI(t), handler.Config{Metrics: registry})
	require.Error(t, err, "two handlers on one registry would count each other's requests")
}

func (b *bundle) silentOf(texts ...string) {
	b.t.Helper()
	for _, line := range b.logs.All() {
		for _, text := range texts {
			require.NotContains(b.t, fmt.Sprint(line.Message, line.ContextMap()), text)
		}
	}
}

func sorted(list string) string {
	names := strings.Split(list, ", ")
	for i := range names {
		for j := range i {
			if names[i] < names[j] {
				names[i], names[j] = names[j], names[i]
			}
		}
	}
	return strings.Join(names, ", ")
}

package handler_test

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/api/handler"
	"tailbox/api/store"
	"tailbox/deploy/openapitest"
)

var parameters = regexp.MustCompile(`:([a-z]+)`)

func TestDescriptionNamesExactlyTheRoutes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var routed []string
	for _, route := range b.engine.Routes() {
		if route.Method != http.MethodHead { // comes with every GET
			routed = append(routed, route.Method+" "+parameters.ReplaceAllString(route.Path, "{$1}"))
		}
	}
	require.ElementsMatch(t, routed, b.spec.Calls())
}

func TestDescriptionHasNoDeadReference(t *testing.T) {
	t.Parallel()
	require.Empty(t, openapitest.Read(t, openAPI(t)).Dead())
}

// Every answer that the document describes is given somewhere below, and bundle.send holds each to its description.
func TestEveryDescribedAnswerIsGiven(t *testing.T) {
	t.Parallel()
	ready := []string{}
	b := setup(t, func(c *handler.Config) { c.Ready = func() []string { return ready } })
	customer := b.create()
	calls := []struct{ method, target, body string }{
		{"POST", "/customers", ada}, {"GET", "/customers", ""}, {"GET", customer, ""},
		{"PATCH", customer, `{"name":"Countess"}`}, {"DELETE", customer, ""},
	}
	long := `{"name":"` + strings.Repeat("x", handler.DefaultMaxBody) + `"}`

	for _, c := range calls {
		b.fake.FailWith(store.ErrUnavailable)
		require.Equal(t, "1", b.do(c.method, c.target, c.body).header.Get("Retry-After"))
		b.fake.FailWith(errors.New("Error 1366: Incorrect string value"))
		b.refused(b.do(c.method, c.target, c.body), 500, "internal")
		b.fake.FailWith(nil)
	}
	for _, target := range []string{"/customers", customer} {
		method := map[bool]string{true: "POST", false: "PATCH"}[target == "/customers"]
		b.refused(b.do(method, target, "{"), 400, "not_json")
		b.refused(b.do(method, target, long), 413, "too_large")
		b.refused(b.do(method, target, ada, "Content-Type", "text/plain"), 415, "not_json_type")
		b.refused(b.do(method, target, `{"name":""}`), 422, "invalid")
	}
	b.fake.Run("running")
	b.refused(b.do("POST", "/customers", ada, "Idempotency-Key", "running"), 409, "idempotency_key_running")
	b.refused(b.do("GET", "/customers?limit=0", ""), 400, "bad_limit")
	require.Equal(t, 200, b.do("GET", "/customers", "").status)
	require.Equal(t, 200, b.do("GET", customer, "").status)
	for _, method := range []string{"PATCH", "DELETE"} {
		b.refused(b.do(method, customer, `{"name":"x"}`, "If-Match", `"9"`), 412, "stale")
		b.refused(b.do(method, customer, `{"name":"x"}`, "If-Match", `9`), 400, "bad_if_match")
	}
	require.Equal(t, 200, b.do("PATCH", customer, `{"name":"Countess"}`).status)
	require.Equal(t, 204, b.do("DELETE", customer, "").status)
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		b.refused(b.do(method, customer, `{"name":"x"}`), 404, "no_such_customer")
	}
	for _, target := range []string{"/openapi.yaml", "/docs", "/healthz", "/readyz", "/metrics"} {
		require.Equal(t, 200, b.do("GET", target, "").status)
	}
	ready = []string{"the database does not answer"}
	require.Equal(t, ready[0], b.do("GET", "/readyz", "").json(t)["reasons"].([]any)[0])

	require.Empty(t, b.spec.Missing(), "no answer like these was given")
}

func TestDocsNeedNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	page := b.do("GET", "/docs", "")
	require.NotRegexp(t, `<script|<link|<img|src=|@import|url\(|https?://`, page.body)
	require.Contains(t, page.header.Get("Content-Security-Policy"), "default-src 'none'")
	for _, item := range b.spec.Root["paths"].(openapitest.Object) {
		for _, operation := range item.(openapitest.Object) {
			require.Contains(t, page.body, fmt.Sprintf(`<section id="%s">`, operation.(openapitest.Object)["operationId"]))
			require.Contains(t, page.body, operation.(openapitest.Object)["summary"].(string))
		}
	}
	for _, link := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page.body, -1) {
		require.Contains(t, page.body, `id="`+link[1]+`"`, link[1])
	}
	require.Equal(t, string(openAPI(t)), b.do("GET", "/openapi.yaml", "").body)
}

func TestDescriptionThatCannotBeReadIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "paths: 7", "info: {title: x}", "{", "info: {title: x}\npaths: {/a: {get: {responses: {'200': {$ref: '#/none'}}}}}"} {
		_, err := handler.New(setup(t).fake, []byte(text), handler.Config{})
		require.Error(t, err, text)
	}
}

package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/openapitest"
	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

func TestDescriptionNamesExactlyTheCalls(t *testing.T) {
	t.Parallel()
	spec := openapitest.Read(t, description)
	require.Empty(t, spec.Dead())
	require.ElementsMatch(t, openapitest.Routes(t, "main.go", "../deploy/ops/http.go"), spec.Calls())
}

// Every answer that the document describes is given here, and service.call holds each to its description.
func TestEveryDescribedAnswerIsGiven(t *testing.T) {
	t.Parallel()
	const token = "Bearer open sesame"
	url := schematest.Vhost(t)
	s := start(t, func(c *Config) {
		c.MySQLDSN, c.AMQPURL, c.AdminToken = ops.Secret(schematest.DB(t)), ops.Secret(url), "open sesame"
	})
	eventually(t, func() bool { status, _ := s.get(t, "/readyz"); return status == http.StatusOK })
	poison := schematest.Event(func(e *schema.Event) { e.Payload = []byte(`{}`) })
	publish(t, url, poison)
	eventually(t, func() bool { _, body := s.get(t, "/dead-letters"); return strings.Contains(body, poison.ID) })
	for _, path := range []string{"/openapi.yaml", "/healthz", "/metrics", "/stats"} {
		status, _ := s.get(t, path)
		require.Equal(t, http.StatusOK, status, path)
	}
	s.get(t, "/dead-letters?limit=0")

	away := start(t, func(c *Config) { c.AdminToken = "open sesame" }) // of servers that are not there
	locked := start(t, func(*Config) {})
	away.spec, locked.spec = s.spec, s.spec
	away.get(t, "/readyz")
	away.get(t, "/dead-letters")
	long := `{"message_id":"` + strings.Repeat("x", ops.MaxBody) + `"}`
	for _, path := range []string{"/dead-letters/redrive", "/dead-letters/drop"} {
		for _, c := range []struct {
			to                  service
			authorization, body string
			status              int
		}{
			{s, token, `{"message_id":"` + poison.ID + `"}`, http.StatusOK},
			{s, token, `{`, http.StatusBadRequest},
			{s, token, long, http.StatusRequestEntityTooLarge},
			{s, token, `{}`, http.StatusUnprocessableEntity},
			{s, token, `{"message_id":"none"}`, http.StatusNotFound},
			{s, "Bearer open", `{"message_id":"none"}`, http.StatusUnauthorized},
			{locked, token, `{"message_id":"none"}`, http.StatusForbidden},
			{away, token, `{"message_id":"none"}`, http.StatusServiceUnavailable},
		} {
			if c.status == http.StatusOK { // it may be on its way back from the redrive before
				eventually(t, func() bool { status, _ := c.to.post(t, path, c.authorization, c.body); return status == c.status })
				continue
			}
			status, _ := c.to.post(t, path, c.authorization, c.body)
			require.Equal(t, c.status, status, path)
		}
	}
	require.Empty(t, s.spec.Missing(), "no answer like these was given")

	for _, call := range []string{"GET /nowhere", "DELETE /stats"} { // not described: refused in the form of a problem
		method, path, _ := strings.Cut(call, " ")
		s.call(t, method, path, token, "")
	}
}

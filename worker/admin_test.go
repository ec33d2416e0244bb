package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

func (s service) post(t *testing.T, path, authorization, body string) (int, string) {
	t.Helper()
	return s.call(t, http.MethodPost, path, authorization, body)
}

func TestDeadLettersAreListedAndRedrivenOverHTTP(t *testing.T) {
	t.Parallel()
	url := schematest.Vhost(t)
	s := start(t, func(c *Config) {
		c.MySQLDSN, c.AMQPURL, c.AdminToken = ops.Secret(schematest.DB(t)), ops.Secret(url), "open sesame"
	})
	eventually(t, func() bool { status, _ := s.get(t, "/readyz"); return status == http.StatusOK })
	poison := schematest.Event(func(e *schema.Event) { e.Payload = []byte(`{"id":"ada@example.com"}`) })
	publish(t, url, poison)
	var body string
	eventually(t, func() bool { _, body = s.get(t, "/dead-letters?limit=5"); return strings.Contains(body, poison.ID) })
	require.Contains(t, body, `"reason":"payload_of_another_customer"`)
	require.NotContains(t, body, "ada@example.com")
	for _, limit := range []string{"0", "1001", "many"} {
		status, _ := s.get(t, "/dead-letters?limit="+limit)
		require.Equal(t, http.StatusUnprocessableEntity, status, limit)
	}

	const token, redrive, drop = "Bearer open sesame", "/dead-letters/redrive", "/dead-letters/drop"
	for _, c := range []struct {
		path, authorization, body string
		status                    int
		part                      string
	}{
		{redrive, "", `{"all":true}`, http.StatusUnauthorized, ""},
		{redrive, "Bearer open", `{"all":true}`, http.StatusUnauthorized, ""},
		{redrive, "Basic open sesame", `{"all":true}`, http.StatusUnauthorized, ""},
		{redrive, token, `{"all":`, http.StatusBadRequest, ""},
		{redrive, token, `{"every":true}`, http.StatusBadRequest, ""},
		{redrive, token, `{"all":true,"message_id":"x"}`, http.StatusUnprocessableEntity, ""},
		{redrive, token, `{}`, http.StatusUnprocessableEntity, ""},
		{redrive, token, `{"message_id":"x"}`, http.StatusNotFound, `"no_dead_letter"`},
		{redrive, token, `{"message_id":"` + poison.ID + `"}`, http.StatusOK, `{"redriven":1,"remaining":0}`},
		{drop, "", `{"message_id":"x"}`, http.StatusUnauthorized, ""},
		{drop, token, `{"message_id":"x","all":true}`, http.StatusBadRequest, ""},
		{drop, token, `{}`, http.StatusUnprocessableEntity, ""},
		{drop, token, `{"message_id":"x"}`, http.StatusNotFound, `"no_dead_letter"`},
	} {
		status, body := s.post(t, c.path, c.authorization, c.body)
		require.Equal(t, c.status, status, c.body)
		require.Contains(t, body, c.part)
	}
	eventually(t, func() bool { _, stats := s.get(t, "/stats"); return strings.Contains(stats, `"dead":2`) })

	eventually(t, func() bool {
		_, body = s.post(t, drop, token, `{"message_id":"`+poison.ID+`"}`)
		return !strings.Contains(body, "no_dead_letter") // the broker may not have it ready yet
	})
	require.JSONEq(t, `{"dropped":1,"redriven":0,"remaining":0}`, body)
	eventually(t, func() bool { _, stats := s.get(t, "/stats"); return strings.Contains(stats, `"dropped":1`) })
	next := schematest.Event(func(e *schema.Event) {
		e.AggregateID, e.AggregateVersion, e.Type = poison.AggregateID, 2, "CustomerUpdated"
	})
	publish(t, url, next)
	eventually(t, func() bool { _, stats := s.get(t, "/stats"); return strings.Contains(stats, `"applied":1`) })
	for _, line := range []string{"dropping a dead letter", "passed over an event that was dropped"} {
		require.Equal(t, poison.ID, s.lines.FilterMessage(line).All()[0].ContextMap()["event_id"])
	}
}

func TestNothingCanBeChangedWithoutATokenConfigured(t *testing.T) {
	t.Parallel()
	s := start(t, func(*Config) {})
	status, body := s.post(t, "/dead-letters/redrive", "Bearer ", `{"all":true}`)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, body, `"code":"admin_disabled"`)
	status, body = s.get(t, "/dead-letters")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, `"code":"broker_not_connected"`)
}

package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

func (s service) post(t *testing.T, authorization, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/dead-letters/redrive", strings.NewReader(body))
	require.NoError(t, err)
	req.Close = true
	req.Header.Set("Authorization", authorization)
	answer, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, answer.Body.Close()) }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
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

	const token = "Bearer open sesame"
	for _, c := range []struct {
		authorization, body string
		status              int
		part                string
	}{
		{"", `{"all":true}`, http.StatusUnauthorized, ""},
		{"Bearer open", `{"all":true}`, http.StatusUnauthorized, ""},
		{"Basic open sesame", `{"all":true}`, http.StatusUnauthorized, ""},
		{token, `{"all":`, http.StatusBadRequest, ""},
		{token, `{"every":true}`, http.StatusBadRequest, ""},
		{token, `{"all":true,"message_id":"x"}`, http.StatusUnprocessableEntity, ""},
		{token, `{}`, http.StatusUnprocessableEntity, ""},
		{token, `{"message_id":"x"}`, http.StatusNotFound, `"no_dead_letter"`},
		{token, `{"message_id":"` + poison.ID + `"}`, http.StatusOK, `{"redriven":1,"remaining":0}`},
	} {
		status, body := s.post(t, c.authorization, c.body)
		require.Equal(t, c.status, status, c.body)
		require.Contains(t, body, c.part)
	}
	eventually(t, func() bool { _, stats := s.get(t, "/stats"); return strings.Contains(stats, `"dead":2`) })
}

func TestNothingCanBeChangedWithoutATokenConfigured(t *testing.T) {
	t.Parallel()
	s := start(t, func(*Config) {})
	status, body := s.post(t, "Bearer ", `{"all":true}`)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, body, `"code":"admin_disabled"`)
	status, body = s.get(t, "/dead-letters")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, `"code":"broker_not_connected"`)
}

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

// canaries are what may be in the database and in messages, and in no log, metric or answer of an operator's call.
var canaries = map[string]string{
	"e-mail address": "canary.address@example.com", "name": "Canary Finchley", "payload": "canary-payload",
	"database password": "canary-mysql-secret", "broker password": "canary-amqp-secret", "admin token": "canary-admin-token",
}

// TestNoSecretAndNoPersonShowsInLogsMetricsOrAnswers runs everything at debug level, through success, refusal, poison, dead letters
// and outages, and then looks at all that was said.
func TestNoSecretAndNoPersonShowsInLogsMetricsOrAnswers(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true})
	for _, statement := range []string{
		"CREATE USER canary IDENTIFIED BY '" + canaries["database password"] + "'", "GRANT ALL ON *.* TO canary",
	} {
		_, err := w.db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	for _, args := range [][]string{
		{"add_user", "canary", canaries["broker password"]}, {"set_permissions", "canary", ".*", ".*", ".*"},
	} {
		_, err := w.stack.Rabbit.Ctl(t.Context(), args...)
		require.NoError(t, err)
	}
	env := []string{
		"LOG_LEVEL=debug", "ADMIN_TOKEN=" + canaries["admin token"], "MAX_ATTEMPTS=1",
		fmt.Sprintf("MYSQL_DSN=canary:%s@tcp(%s)/tailbox", canaries["database password"], w.stack.MySQL.Addr()),
		fmt.Sprintf("AMQP_URL=amqp://canary:%s@%s/", canaries["broker password"], w.stack.Rabbit.Addr()),
	}
	w.api, w.worker, w.cdc = w.service("api", env...), w.service("worker", env...), w.service("cdc", append(env, "MAX_MESSAGE_BYTES=4096")...)
	w.start(w.api, w.worker, w.cdc)

	w.sing()
	var said []string
	for _, name := range []string{"api", "worker", "cdc"} {
		said = append(said, w.printed(name))
	}
	said = append(said, w.answers()...)
	require.Contains(t, strings.Join(said, ""), "published", "the relay was heard at debug level")
	for what, canary := range canaries {
		for _, text := range said {
			at := strings.Index(text, canary)
			require.Negative(t, at, "the %s shows: ...%s", what, text[max(0, at-200):max(0, min(len(text), at+100))])
		}
	}
}

// sing makes the services meet each canary, in good and in bad times.
func (w *world) sing() {
	ctx := w.t.Context()
	body := fmt.Sprintf(`{"email":%q,"name":%q}`, canaries["e-mail address"], canaries["name"])
	require.NoError(w.t, w.call(ctx, http.MethodPost, w.api.URL("/customers"), body, http.StatusCreated, nil))
	bad := fmt.Sprintf(`{"email":%q,"name":%q,"more":1}`, canaries["e-mail address"], canaries["name"])
	require.NoError(w.t, w.call(ctx, http.MethodPost, w.api.URL("/customers"), bad, http.StatusBadRequest, nil))

	payload := []byte(fmt.Sprintf(`{"canary":%q,"fill":"`, canaries["payload"]))
	dead := schematest.Event(func(e *schema.Event) { e.Payload = append(payload, `"}`...) }) // no customer: the handler refuses it
	poison := schematest.Event(func(e *schema.Event) { e.Payload = append(append(payload, strings.Repeat("x", 5000)...), `"}`...) })
	require.NoError(w.t, insert(ctx, w.db, true, dead, poison))
	w.waitFor("a dead letter", time.Minute, func() bool { return w.messages(topology.Customers(topology.CustomersQueue).DeadQueue()) == 1 })
	w.waitFor("the poison to be found", time.Minute, func() bool {
		return strings.Contains(w.printed("cdc"), "cannot be a message")
	})

	// In an outage what libraries say is logged. RabbitMQ 3.10 does not recover a quorum queue that it has just declared.
	pause(w.t, time.Second)
	require.NoError(w.t, w.stack.Rabbit.Kill())
	require.NoError(w.t, w.stack.MySQL.Kill())
	_ = w.call(ctx, http.MethodPost, w.api.URL("/customers"), body, http.StatusServiceUnavailable, nil) // or it is cut off
	w.waitFor("the relay to miss its servers", time.Minute, func() bool { return w.position().State != "streaming" })
	require.NoError(w.t, w.stack.Start(ctx))
	w.ready(w.api, w.worker)
}

// answers are those to every call that an operator may make, with the token and without.
func (w *world) answers() (texts []string) {
	for _, one := range []struct{ method, url string }{
		{"GET", w.api.URL("/readyz")}, {"GET", w.api.URL("/metrics")}, {"GET", w.api.URL("/openapi.yaml")},
		{"GET", w.cdc.URL("/position")}, {"GET", w.cdc.URL("/readyz")}, {"GET", w.cdc.URL("/metrics")}, {"GET", w.cdc.URL("/")}, {"GET", w.cdc.URL("/history")},
		{"GET", w.cdc.URL("/history")}, {"GET", w.cdc.URL("/events")}, {"GET", w.cdc.URL("/quarantine")}, {"GET", w.cdc.URL("/audit")},
		{"POST", w.cdc.URL("/pause")}, {"POST", w.cdc.URL("/resume")}, {"PUT", w.cdc.URL("/position")},
		{"GET", w.worker.URL("/stats")}, {"GET", w.worker.URL("/metrics")}, {"GET", w.worker.URL("/dead-letters")},
		{"POST", w.worker.URL("/dead-letters/redrive")},
	} {
		for _, token := range []string{"", "Bearer wrong", "Bearer " + canaries["admin token"]} {
			request, err := http.NewRequestWithContext(w.t.Context(), one.method, one.url, strings.NewReader("{}"))
			require.NoError(w.t, err)
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Authorization", token)
			answer, err := client.Do(request)
			require.NoError(w.t, err)
			texts = append(texts, one.method+" "+one.url+"\n"+beginning(answer))
		}
	}
	return texts
}

// beginning is all of an answer, or of an endless one what it says at once.
func beginning(answer *http.Response) string {
	defer answer.Body.Close()
	if !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		text, _ := io.ReadAll(answer.Body)
		return string(text)
	}
	lines := bufio.NewReader(answer.Body)
	var text strings.Builder
	for range 4 {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		text.WriteString(line)
	}
	return text.String()
}

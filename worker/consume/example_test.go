package consume_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
	"tailbox/worker/consume"
)

// errBadAddress is an error that no further try will mend: its event goes to the dead letters at once.
type errBadAddress struct{}

func (errBadAddress) Error() string           { return "the payload has no e-mail address" }
func (errBadAddress) PermanentReason() string { return "no_email_address" }

// welcome is a handler. All it does goes through the transaction, so that a letter is in the outgoing mail exactly once,
// however often the event is delivered.
func welcome(ctx context.Context, tx *sql.Tx, event schema.Event) error {
	var customer struct {
		Email string `json:"email"`
	}
	if json.Unmarshal(event.Payload, &customer) != nil || customer.Email == "" {
		return errBadAddress{}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO outgoing_mail (event_id, recipient) VALUES (?, ?)", event.ID, customer.Email); err != nil {
		return fmt.Errorf("write letter: %w", err)
	}
	return nil
}

// TestExample is a complete small consumer: a table of its own, a handler, and a queue of its own, next to the customer
// worker's on the same exchange. Besides its table it needs those of schema.Migrate.
func TestExample(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	_, err := db.ExecContext(t.Context(), "CREATE TABLE outgoing_mail (event_id VARCHAR(255) PRIMARY KEY, recipient VARCHAR(320) NOT NULL)")
	require.NoError(t, err)
	broker := schematest.Vhost(t)

	// The queue takes every new customer. Its retry and dead-letter queues are declared with it.
	queue := topology.Consumer{Exchange: topology.Exchange, Queue: "welcome", Binding: "customer.CustomerCreated"}
	handlers := map[string]consume.Handler{"CustomerCreated": welcome}
	worker, err := consume.New(db, ops.Secret(broker), queue, handlers, consume.Config{Concurrency: 2})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	eventually(t, "ready", func() bool { return len(worker.Unready()) == 0 })

	b := &bundle{db: db, url: broker, queue: queue}
	b.reconnect(t)
	ada := schematest.Event()
	nobody := schematest.Event(func(e *schema.Event) { e.Payload = []byte(`{}`) })
	b.publish(t, ada, nobody, ada)
	eventually(t, "all three are settled", func() bool {
		m := worker.Stats().Messages
		return m["applied"] == 1 && m["duplicate"] == 1 && m["dead"] == 1
	})
	require.Equal(t, 1, b.count(t, "outgoing_mail"))
	letters, _, err := worker.DeadLetters(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, "no_email_address", letters[0].Reason)

	stop()
	require.NoError(t, <-ended)
}

package outbox_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/outbox"
	"tailbox/schema"
)

var at = time.Date(2026, 11, 23, 12, 30, 15, 123456000, time.UTC)

func TestColumnsAreFoundByNameWhateverTheirOrder(t *testing.T) {
	t.Parallel()
	m, err := outbox.NewMapping([]string{"extra", "created_at", "payload", "type", "aggregate_version", "aggregate_id", "aggregate_type", "headers", "ID"})
	require.NoError(t, err)
	e, err := m.Event([]any{1, "2026-11-23 12:30:15.123456", []byte(`{"a":1}`), "T", uint64(3), "a1", "customer", `{"x":"y","n":1}`, "id-1"}, time.Time{})
	require.NoError(t, err)
	require.Equal(t, schema.Event{
		ID: "id-1", AggregateType: "customer", AggregateID: "a1", AggregateVersion: 3, Type: "T", Payload: []byte(`{"a":1}`),
		Headers: map[string]string{"x": "y", "n": "1"}, CreatedAt: at,
	}, e)
}

func TestDebeziumsTableIsReadAsItIs(t *testing.T) {
	t.Parallel()
	m, err := outbox.NewMapping([]string{"id", "aggregatetype", "aggregateid", "type", "payload"})
	require.NoError(t, err)
	e, err := m.Event([]any{"id-1", "customer", "a1", "T", `{}`}, at)
	require.NoError(t, err)
	require.Equal(t, schema.Event{ID: "id-1", AggregateType: "customer", AggregateID: "a1", Type: "T", Payload: []byte("{}"), CreatedAt: at}, e)
}

func TestAMissingColumnIsNamed(t *testing.T) {
	t.Parallel()
	_, err := outbox.NewMapping([]string{"id", "aggregate_type", "payload"})
	require.ErrorContains(t, err, "aggregate_id or aggregateid, type")
}

func TestAnEventKeepsNoReferenceToItsImage(t *testing.T) {
	t.Parallel()
	m, err := outbox.NewMapping([]string{"id", "aggregate_type", "aggregate_id", "type", "payload"})
	require.NoError(t, err)
	packet := []byte(`{"a":1}`)
	e, err := m.Event([]any{"i", "c", "a", "T", packet}, at)
	require.NoError(t, err)
	packet[2] = 'X'
	require.Equal(t, `{"a":1}`, string(e.Payload))
}

func TestABadRowIsNamedByColumnWithoutItsValues(t *testing.T) {
	t.Parallel()
	m, err := outbox.NewMapping([]string{"id", "aggregate_type", "aggregate_id", "type", "payload", "aggregate_version", "headers", "created_at"})
	require.NoError(t, err)
	for column, values := range map[string][]any{
		"id":                {nil, "c", "a", "T", "{}", uint64(1), nil, nil},
		"payload":           {"i", "c", "a", "T", nil, uint64(1), nil, nil},
		"aggregate_version": {"i", "c", "a", "T", "{}", "secret", nil, nil},
		"headers":           {"i", "c", "a", "T", "{}", uint64(1), `["secret"]`, nil},
		"created_at":        {"i", "c", "a", "T", "{}", uint64(1), nil, "secret"},
	} {
		_, err := m.Event(values, at)
		require.ErrorContains(t, err, "column "+column)
		require.NotContains(t, err.Error(), "secret")
	}
	_, err = m.Event([]any{"i"}, at)
	require.ErrorContains(t, err, "1 columns")
}

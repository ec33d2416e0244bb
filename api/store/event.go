package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"tailbox/deploy/ops"
	"tailbox/schema"
)

// AggregateType is the aggregate type of every event written here.
const AggregateType = "customer"

// Types of the events written here.
const (
	CustomerCreated = "CustomerCreated"
	CustomerUpdated = "CustomerUpdated"
	CustomerDeleted = "CustomerDeleted"
)

// payload is what all three events carry: the customer as the change left it, or as it was when it was deleted.
type payload struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Email     string `json:"email"`
	Version   uint64 `json:"version"`
	CreatedAt string `json:"created_at"`
	UpdatedAt string `json:"updated_at"`
}

// record writes the event of a change into the outbox, in the transaction of the change.
func record(ctx context.Context, tx *sql.Tx, kind string, c Customer, headers map[string]string) error {
	body, err := json.Marshal(payload{
		ID: c.ID, Name: c.Name, Email: c.Email, Version: c.Version,
		CreatedAt: c.CreatedAt.Format(schema.TimeFormat),
		UpdatedAt: c.UpdatedAt.Format(schema.TimeFormat),
	})
	if err != nil {
		return fmt.Errorf("encode payload: %w", err)
	}
	return schema.Insert(ctx, tx, schema.Event{
		AggregateType:    AggregateType,
		AggregateID:      c.ID,
		AggregateVersion: c.Version,
		Type:             kind,
		Payload:          body,
		Headers:          traced(ctx, headers),
		CreatedAt:        c.UpdatedAt,
	})
}

// traced are the headers with the trace that the transaction belongs to, if it belongs to one.
func traced(ctx context.Context, headers map[string]string) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return headers
	}
	own := propagation.MapCarrier{}
	maps.Copy(own, headers)
	ops.TraceHeaders.Inject(ctx, own)
	return own
}

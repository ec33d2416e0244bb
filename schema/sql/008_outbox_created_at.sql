-- +goose Up
-- Retention looks for the oldest rows, and a repair for the youngest.
CREATE INDEX created_at ON outbox (created_at);

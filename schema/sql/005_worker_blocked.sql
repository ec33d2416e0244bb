-- +goose Up
-- Aggregates of which an event is a dead letter: each consumer's later events of them follow it. A row is written before its
-- event goes to the dead letters and deleted in the transaction that applies it.
CREATE TABLE blocked_aggregates (
  consumer   VARCHAR(64)     NOT NULL,
  aggregate  BINARY(32)      NOT NULL, -- SHA-256 of type, a zero byte and id, which may be of any length
  blocked_by VARCHAR(255)    NOT NULL, -- the message id of the dead event
  version    BIGINT UNSIGNED NOT NULL, -- of the dead event; 0 when it has none
  blocked_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (consumer, aggregate)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Up
-- What each consumer has applied. A row is written in the transaction of its message's effect.
CREATE TABLE inbox (
  consumer     VARCHAR(64)  NOT NULL,
  message_id   VARCHAR(255) NOT NULL,
  payload_hash BINARY(32)   NOT NULL,
  processed_at DATETIME(6)  NOT NULL,
  PRIMARY KEY (consumer, message_id),
  KEY processed_at (processed_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

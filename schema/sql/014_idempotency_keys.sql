-- +goose Up
-- The answer to a request that carried an Idempotency-Key, written in the transaction of its effect.
CREATE TABLE idempotency_keys (
  idempotency_key VARCHAR(255)      NOT NULL,
  request_hash    BINARY(32)        NOT NULL,
  status          SMALLINT UNSIGNED NOT NULL,
  location        VARCHAR(255)      NOT NULL,
  body            MEDIUMBLOB        NOT NULL,
  created_at      DATETIME(6)       NOT NULL,
  PRIMARY KEY (idempotency_key),
  KEY created_at (created_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

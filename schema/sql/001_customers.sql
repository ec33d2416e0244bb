-- +goose Up
CREATE TABLE customers (
  id         CHAR(36)        CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  email      VARCHAR(320)    NOT NULL,
  name       VARCHAR(200)    NOT NULL,
  version    BIGINT UNSIGNED NOT NULL,
  created_at DATETIME(6)     NOT NULL,
  updated_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

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

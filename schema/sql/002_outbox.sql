-- +goose Up
-- The payload is text, not JSON: the bytes that are written here are the bytes that are published.
CREATE TABLE outbox (
  id                CHAR(36)        CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  aggregate_type    VARCHAR(100)    NOT NULL,
  aggregate_id      VARCHAR(255)    NOT NULL,
  aggregate_version BIGINT UNSIGNED NOT NULL,
  type              VARCHAR(150)    NOT NULL,
  payload           LONGTEXT        NOT NULL,
  headers           TEXT            NULL,
  created_at        DATETIME(6)     NOT NULL,
  PRIMARY KEY (id),
  CONSTRAINT outbox_payload_is_json CHECK (JSON_VALID(payload))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

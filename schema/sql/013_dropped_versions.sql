-- +goose Up
-- Versions of customers whose events were given up by a person: the read model goes on with the next version.
CREATE TABLE dropped_versions (
  customer_id CHAR(36)        CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  version     BIGINT UNSIGNED NOT NULL,
  event_id    VARCHAR(255)    NOT NULL,
  dropped_at  DATETIME(6)     NOT NULL,
  PRIMARY KEY (customer_id, version)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

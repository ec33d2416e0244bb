-- +goose Up
-- Old rows of one consumer are found by their age, without walking past those of another that keeps its own longer.
ALTER TABLE inbox DROP KEY processed_at, ADD KEY age (consumer, processed_at);

-- How far each consumer's inbox has been pruned: processed_at of the newest row that was. It grows in the transaction that deletes.
-- What was created later and has no row was never applied; what was created before may have been.
CREATE TABLE inbox_horizon (
  consumer      VARCHAR(64) NOT NULL,
  pruned_before DATETIME(6) NOT NULL,
  PRIMARY KEY (consumer)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Versions of customers whose events were given up by a person: the read model goes on with the next version.
CREATE TABLE dropped_versions (
  customer_id CHAR(36)        CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  version     BIGINT UNSIGNED NOT NULL,
  event_id    VARCHAR(255)    NOT NULL,
  dropped_at  DATETIME(6)     NOT NULL,
  PRIMARY KEY (customer_id, version)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

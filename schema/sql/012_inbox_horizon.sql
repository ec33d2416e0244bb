-- +goose Up
-- How far each consumer's inbox has been pruned: processed_at of the newest row that was. It grows in the transaction that deletes.
-- What was created later and has no row was never applied; what was created before may have been.
CREATE TABLE inbox_horizon (
  consumer      VARCHAR(64) NOT NULL,
  pruned_before DATETIME(6) NOT NULL,
  PRIMARY KEY (consumer)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

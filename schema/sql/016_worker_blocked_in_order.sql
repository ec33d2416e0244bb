-- +goose Up
-- Not only the first event that failed holds back its aggregate, but each that has not been applied, in the order in which they
-- failed: dead letters, those that followed them, and those in retry queues. A row goes in the transaction that applies its event.
ALTER TABLE blocked_aggregates
  DROP PRIMARY KEY,
  ADD COLUMN seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY FIRST,
  ADD COLUMN dead BOOLEAN NOT NULL DEFAULT TRUE AFTER version, -- or in a retry queue
  ADD UNIQUE KEY event (consumer, aggregate, blocked_by),
  ADD KEY in_order (consumer, aggregate, seq),
  ADD KEY of_version (consumer, aggregate, version);

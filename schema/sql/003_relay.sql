-- +goose Up
-- One row per relay: who writes it, and how far every event before it is confirmed. Saves are fenced by the epoch.
CREATE TABLE relay_checkpoint (
  relay    VARCHAR(64)     NOT NULL,
  holder   VARCHAR(255)    NOT NULL,
  epoch    BIGINT UNSIGNED NOT NULL,
  position MEDIUMTEXT      NULL,
  crc32    INT UNSIGNED    NULL,
  event_id VARCHAR(255)    NULL,
  saved_at DATETIME(6)     NULL,
  PRIMARY KEY (relay)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

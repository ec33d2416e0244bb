-- +goose Up
-- The worker's effect: a read model of customers, built from their events alone.
CREATE TABLE customer_profiles (
  customer_id    CHAR(36)        CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  email          VARCHAR(320)    NOT NULL,
  name           VARCHAR(200)    NOT NULL,
  status         ENUM('active', 'deleted') NOT NULL,
  version        BIGINT UNSIGNED NOT NULL,
  events_applied BIGINT UNSIGNED NOT NULL,
  last_event_id  VARCHAR(255)    NOT NULL,
  updated_at     DATETIME(6)     NOT NULL,
  PRIMARY KEY (customer_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

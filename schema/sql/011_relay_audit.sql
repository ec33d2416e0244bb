-- +goose Up
-- What changed a relay's course, and who did it: calls of operators, and repairs that the relay did itself.
CREATE TABLE relay_audit (
  id           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  relay        VARCHAR(64)     NOT NULL,
  at           DATETIME(6)     NOT NULL,
  epoch        BIGINT UNSIGNED NOT NULL,
  actor        VARCHAR(255)    NOT NULL,
  action       VARCHAR(64)     NOT NULL,
  why          TEXT            NOT NULL,
  before_state MEDIUMTEXT      NULL,
  after_state  MEDIUMTEXT      NULL,
  PRIMARY KEY (id),
  KEY of_relay (relay, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

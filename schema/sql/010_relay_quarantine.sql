-- +goose Up
-- Events that cannot be messages. A row is written before the checkpoint passes its event, and deleted when the event was
-- published after all or given up by a person. event_key is the SHA-256 of the event's id, which can be too long for a key.
-- payload is NULL when it was too large to be written twice: then the outbox row has it. Names are bytes: what cannot be a
-- message need not be text either, and a retry must send it unchanged.
CREATE TABLE relay_quarantine (
  id                BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  relay             VARCHAR(64)     NOT NULL,
  event_key         BINARY(32)      NOT NULL,
  event_id          MEDIUMBLOB      NOT NULL,
  aggregate_type    MEDIUMBLOB      NOT NULL,
  aggregate_id      MEDIUMBLOB      NOT NULL,
  aggregate_version BIGINT UNSIGNED NOT NULL,
  type              MEDIUMBLOB      NOT NULL,
  payload           LONGBLOB        NULL,
  payload_bytes     INT UNSIGNED    NOT NULL,
  headers           MEDIUMTEXT      NULL,
  created_at        DATETIME(6)     NOT NULL,
  source_position   VARCHAR(255)    NOT NULL,
  committed_at      DATETIME(6)     NOT NULL,
  reason            TEXT            NOT NULL,
  attempts          INT UNSIGNED    NOT NULL DEFAULT 0,
  quarantined_at    DATETIME(6)     NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY event (relay, event_key)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

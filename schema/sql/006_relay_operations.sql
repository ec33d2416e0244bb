-- +goose Up
-- The lease of a relay: beat grows with every renewal, so that a standby can see by its own clock that none came for lease_ms.
-- An empty holder has handed the lease over. expires_at is for people: no decision compares it with a clock. saves numbers the
-- saves of one epoch, so that one that was given up and is applied after all cannot take the place back.
ALTER TABLE relay_checkpoint
  ADD COLUMN beat       BIGINT UNSIGNED NOT NULL DEFAULT 0,
  ADD COLUMN saves      BIGINT UNSIGNED NOT NULL DEFAULT 0,
  ADD COLUMN lease_ms   INT UNSIGNED    NOT NULL DEFAULT 0,
  ADD COLUMN expires_at DATETIME(6)     NULL,
  ADD COLUMN paused     BOOLEAN         NOT NULL DEFAULT FALSE;

-- Every running instance of a relay, the leader and its standbys, as each said of itself last. For people.
CREATE TABLE relay_member (
  relay     VARCHAR(64)     NOT NULL,
  member    VARCHAR(255)    NOT NULL,
  server_id INT UNSIGNED    NOT NULL,
  state     VARCHAR(32)     NOT NULL,
  seen_at   DATETIME(6)     NOT NULL,
  PRIMARY KEY (relay, member)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

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

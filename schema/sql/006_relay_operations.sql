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

-- +goose Up
-- Every running instance of a relay, the leader and its standbys, as each said of itself last. For people.
CREATE TABLE relay_member (
  relay     VARCHAR(64)     NOT NULL,
  member    VARCHAR(255)    NOT NULL,
  server_id INT UNSIGNED    NOT NULL,
  state     VARCHAR(32)     NOT NULL,
  seen_at   DATETIME(6)     NOT NULL,
  PRIMARY KEY (relay, member)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

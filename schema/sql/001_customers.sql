-- +goose Up
CREATE TABLE customers (
  id         CHAR(36)        CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  email      VARCHAR(320)    NOT NULL,
  name       VARCHAR(200)    NOT NULL,
  version    BIGINT UNSIGNED NOT NULL,
  created_at DATETIME(6)     NOT NULL,
  updated_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Up
-- Old rows of one consumer are found by their age, without walking past those of another that keeps its own longer.
ALTER TABLE inbox DROP KEY processed_at, ADD KEY age (consumer, processed_at);

-- The users of the three services and of the migrations, each with no more rights than it needs. ${...} are passwords,
-- filled in by who runs it.
-- Tables may not exist yet: a grant that has CREATE in it is accepted all the same, and CREATE is taken back at once.

-- For MIGRATE_DSN: the only one that may change tables.
CREATE USER IF NOT EXISTS 'owner'@'%' IDENTIFIED BY '${OWNER_PASSWORD}';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES ON tailbox.* TO 'owner'@'%';

CREATE USER IF NOT EXISTS 'api'@'%' IDENTIFIED BY '${API_PASSWORD}';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON tailbox.customers TO 'api'@'%';
GRANT SELECT, INSERT, DELETE, CREATE ON tailbox.idempotency_keys TO 'api'@'%';
GRANT INSERT, CREATE ON tailbox.outbox TO 'api'@'%';
REVOKE CREATE ON tailbox.customers FROM 'api'@'%';
REVOKE CREATE ON tailbox.idempotency_keys FROM 'api'@'%';
REVOKE CREATE ON tailbox.outbox FROM 'api'@'%';

-- REPLICATION SLAVE reads every table's changes from the binlog: treat this password as one that reads everything.
CREATE USER IF NOT EXISTS 'cdc'@'%' IDENTIFIED BY '${CDC_PASSWORD}';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'cdc'@'%';
GRANT SELECT, DELETE, CREATE ON tailbox.outbox TO 'cdc'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON tailbox.relay_checkpoint TO 'cdc'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON tailbox.relay_member TO 'cdc'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON tailbox.relay_quarantine TO 'cdc'@'%';
GRANT SELECT, INSERT, CREATE ON tailbox.relay_audit TO 'cdc'@'%';
REVOKE CREATE ON tailbox.outbox FROM 'cdc'@'%';
REVOKE CREATE ON tailbox.relay_checkpoint FROM 'cdc'@'%';
REVOKE CREATE ON tailbox.relay_member FROM 'cdc'@'%';
REVOKE CREATE ON tailbox.relay_quarantine FROM 'cdc'@'%';
REVOKE CREATE ON tailbox.relay_audit FROM 'cdc'@'%';

CREATE USER IF NOT EXISTS 'worker'@'%' IDENTIFIED BY '${WORKER_PASSWORD}';
GRANT SELECT, INSERT, DELETE, CREATE ON tailbox.inbox TO 'worker'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON tailbox.customer_profiles TO 'worker'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON tailbox.blocked_aggregates TO 'worker'@'%';
GRANT SELECT, INSERT, UPDATE, CREATE ON tailbox.inbox_horizon TO 'worker'@'%';
GRANT SELECT, INSERT, CREATE ON tailbox.dropped_versions TO 'worker'@'%';
REVOKE CREATE ON tailbox.inbox FROM 'worker'@'%';
REVOKE CREATE ON tailbox.customer_profiles FROM 'worker'@'%';
REVOKE CREATE ON tailbox.blocked_aggregates FROM 'worker'@'%';
REVOKE CREATE ON tailbox.inbox_horizon FROM 'worker'@'%';
REVOKE CREATE ON tailbox.dropped_versions FROM 'worker'@'%';

#!/bin/bash
# Run by the mysql image at its first start, as docker-entrypoint-initdb.d/10-users.sh. Makes the users of users.sql.
set -euo pipefail

statements=$(</etc/tailbox/users.sql)
for name in OWNER_PASSWORD API_PASSWORD CDC_PASSWORD WORKER_PASSWORD; do
  password=${!name//\\/\\\\} # as it is written between quotes in SQL
  password=${password//\'/\'\'}
  statements=${statements//"\${$name}"/"$password"}
done
MYSQL_PWD=$MYSQL_ROOT_PASSWORD mysql --user=root <<<"$statements"

#!/bin/bash
# Run by the mysql image at its first start, as docker-entrypoint-initdb.d/10-users.sh. Makes the services' users.
set -eu
sed -e "s|\${API_PASSWORD}|$API_PASSWORD|" \
    -e "s|\${CDC_PASSWORD}|$CDC_PASSWORD|" \
    -e "s|\${WORKER_PASSWORD}|$WORKER_PASSWORD|" /etc/tailbox/users.sql |
  mysql --user=root --password="$MYSQL_ROOT_PASSWORD"

#!/usr/bin/env bash
# Install what the tests of the `sql` token store and of whole deployments need and Debian packages: PostgreSQL,
# pgbouncer, MariaDB, what pip needs to build MariaDB's driver (mysqlclient), and Redis.
exec bash "$(dirname "${BASH_SOURCE[0]}")/debian.sh" \
    postgresql pgbouncer mariadb-server libmariadb-dev pkg-config gcc redis-server

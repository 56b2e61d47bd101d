#!/usr/bin/env bash
# Install what the tests of the `sql` token store need and Debian packages: PostgreSQL, pgbouncer, MariaDB, and what
# pip needs to build MariaDB's driver (mysqlclient).
exec bash "$(dirname "${BASH_SOURCE[0]}")/debian.sh" postgresql pgbouncer mariadb-server libmariadb-dev pkg-config gcc

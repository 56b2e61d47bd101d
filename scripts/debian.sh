#!/usr/bin/env bash
# Install the named Debian packages, those that are missing: instant when all are there; needs root when not.
set -euo pipefail

missing=()
for package in "$@"; do
    [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "the tests need these Debian packages: ${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]} ..."
log=$(mktemp)
# While this installs, PostgreSQL's package makes no cluster of its own: the tests bring theirs.
no_cluster=/etc/postgresql-common/createcluster.d/feedamp-tests.conf
trap 'rm -f "$log" "$no_cluster"' EXIT
export DEBIAN_FRONTEND=noninteractive
mkdir -p "${no_cluster%/*}"
printf 'create_main_cluster = false\n' > "$no_cluster"
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then
    tail -n 30 "$log" >&2
    exit 1
fi

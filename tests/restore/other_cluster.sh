#!/bin/bash
# On the backup host: puts the backup of a database that was never this site's into its repository, under the site's name and with its key, and
# takes it out again: other_cluster.sh make | remove. Either can be repeated.
set -euo pipefail
repository=/var/lib/pgbackrest aside=/var/lib/pgbackrest/of-the-site work=/var/tmp/other-cluster
configuration=/etc/pgbackrest/pgbackrest.conf
programs=$(find /usr/lib/postgresql -path '*/bin/initdb' | sort -V | tail -n 1 | xargs dirname)
as_postgres() { runuser -u postgres -- env -C / "$@"; }

# shellcheck disable=SC2317  # called below by its name
make() {
    stanza=$(sed -nE 's/^\[([^]:]+)\]$/\1/p' "$configuration" | grep -vx global | head -n 1)
    remove
    install -d -o postgres -g postgres -m 0700 "$work" "$work/lock" "$aside"
    for kind in archive backup; do
        if [ -d "$repository/$kind" ]; then mv "$repository/$kind" "$aside/"; fi
    done
    # Only this file is read: pgBackRest's own would name the site's hosts.
    {
        printf '[global]\nrepo1-path=%s\nlock-path=%s\nlog-level-file=off\nlog-level-console=warn\nstart-fast=y\n' "$repository" "$work/lock"
        grep -E '^repo1-cipher-(type|pass)=' "$configuration"
        printf '[%s]\npg1-path=%s\npg1-socket-path=%s\npg1-port=5499\n' "$stanza" "$work/data" "$work"
    } >"$work/pgbackrest.conf"
    chown postgres:postgres "$work/pgbackrest.conf"
    as_postgres "$programs/initdb" --no-sync -D "$work/data" >/dev/null
    cat >>"$work/data/postgresql.conf" <<CONFIGURATION
port = 5499
listen_addresses = ''
unix_socket_directories = '$work'
shared_buffers = 16MB
archive_mode = on
archive_command = 'pgbackrest --config=$work/pgbackrest.conf --stanza=$stanza archive-push %p'
CONFIGURATION
    as_postgres "$programs/pg_ctl" -D "$work/data" -l "$work/log" -w start >/dev/null
    as_postgres pgbackrest --config="$work/pgbackrest.conf" --stanza="$stanza" stanza-create
    as_postgres pgbackrest --config="$work/pgbackrest.conf" --stanza="$stanza" --type=full --repo1-retention-full=1 backup
}

# shellcheck disable=SC2317  # called below by its name
remove() {
    if [ -f "$work/data/postmaster.pid" ]; then as_postgres "$programs/pg_ctl" -D "$work/data" -m immediate stop >/dev/null || true; fi
    rm -rf "$work"
    if [ -d "$aside" ]; then
        for kind in archive backup; do
            # What has no copy aside is the site's own: a run before was ended before it could move it.
            if [ -d "$aside/$kind" ]; then
                rm -rf "${repository:?}/$kind"
                mv "$aside/$kind" "$repository/"
            fi
        done
        rmdir "$aside"
    fi
}

case "${1:-}" in
    make | remove) "$1" ;;
    *) echo 'usage: other_cluster.sh make | remove' >&2; exit 2 ;;
esac

# What a guest does on the export that is mounted on /mnt/nfs; one function a step. Read by init.sh, and run as
# `bash steps.sh STEP`, as root or as a user whom nobody knows. A step fails if anything it checks does not hold.

options="vers=3,proto=tcp,nolock,hard,port=$port,mountport=$mount_port,mountproto=tcp,addr=$server"
here=/mnt/nfs/$(id -u)

# The kernel asks for the handle itself: neither mount.nfs nor rpcbind is needed.
mount_export() { # [OPTIONS]
    mount -i -t nfs -o "$options${1:+,$1}" "$server:$export" /mnt/nfs
}

as() { # WHO COMMAND...
    case $1 in
        # The one thing it may do beyond others: read sources and tools below folders that are this machine's root's own. The
        # server decides about files on the export, and does not know of it.
        user) shift; HOME=/run/user setpriv --reuid 1077 --regid 1077 --clear-groups \
            --inh-caps=-all,+dac_read_search --ambient-caps=+dac_read_search "$@" ;;
        *) shift; "$@" ;;
    esac
}

# Steps of root that prepare others.

make_places() {
    chmod 1777 /mnt/nfs
    mkdir -p /mnt/nfs/0 /mnt/nfs/1077
    chown 1077:1077 /mnt/nfs/1077
}

# What this kernel has cached goes; what the server says from now on counts.
remount() {
    umount /mnt/nfs
    mount_export
}

# Names and attributes are asked for every time, so that what two guests do to each other is seen at once.
remount_uncached() {
    umount /mnt/nfs
    mount_export actimeo=0,lookupcache=none
}

# The work.

andrew_run() {
    mkdir "$here/andrew"
    /run/tools/andrew run --jobs 1 --releases "$(cat /run/share/releases)" "$here/andrew"
}

andrew_verify() {
    /run/tools/andrew verify --releases "$(cat /run/share/releases)" "$here/andrew"
    rm -r "$here/andrew"
}

# One piece of work of `andrew`, timed, and its calls counted.
measured() {
    git config --global --replace-all safe.directory '*'
    rm -rf "$here/measured"
    mkdir "$here/measured"
    cat /proc/self/mountstats > /run/share/calls.before
    /run/tools/andrew $(cat /run/share/arguments) --json /run/share/figures.json "$here/measured"
    cat /proc/self/mountstats > /run/share/calls.after
    rm -r "$here/measured"
}

pjdfstest() {
    mkdir -m 777 "$here/pjdfstest"
    cd "$here/pjdfstest"
    /run/tools/pjdfstest -c /run/tools/pjdfstest.toml -p "$here/pjdfstest"
}

fsx() {
    mkdir -p "$here/fsx"
    cp /run/tools/fsx.toml /tmp/plain.toml
    { cat /tmp/plain.toml; echo 'mapread = 10'; echo 'mapwrite = 10'; } > /tmp/mapped.toml
    failed=0
    for seed in $(cat /run/share/seeds); do
        kind=plain; [ $((seed % 2)) = 1 ] || kind=mapped
        if /run/tools/fsx -q -S "$seed" -N "$(cat /run/share/operations)" -f /tmp/$kind.toml -P /tmp "$here/fsx/$seed" > /tmp/fsx.out 2>&1; then
            echo "seed $seed ($kind) ok"
        else
            echo "seed $seed ($kind) FAILED"
            tail -n 30 /tmp/fsx.out
            failed=1
        fi
        rm -f "$here/fsx/$seed"
    done
    rm -f /tmp/*.toml /tmp/fsx.out
    return $failed
}

# The same bytes, and the server has said whose they are.
compare_with_libnfs() {
    cmp "$here/from-libnfs" /run/share/from-libnfs
    test "$(stat -c %u "$here/from-libnfs")" = "$(id -u)"
    rm "$here/from-libnfs"
}

git_keeps_a_repository() {
    # It belongs to whoever owns it outside of the guest.
    git config --global --replace-all safe.directory '*'
    cd "$here"
    git clone --quiet --no-hardlinks --no-local "file:///run/share/repository" clone
    cd clone
    git fsck --full --strict --no-progress
    git checkout --quiet -b work
    find . -name '*.rs' -not -path './.git/*' | head -20 | while read -r file; do echo '// changed' >> "$file"; done
    git -c user.name=x -c user.email=x@y commit --quiet --all --message work
    git gc --quiet --prune=now
    git fsck --full --strict --no-progress
    git checkout --quiet -
    git status --porcelain | { ! grep .; }
    test "$(git log --format=%H -1)" = "$(git -C /run/share/repository log --format=%H -1)"
    cd ..
    rm -rf clone
}

sqlite_two_processes() { # JOURNAL_MODE
    mkdir "$here/sqlite"
    cd "$here/sqlite"
    sqlite3 db "pragma journal_mode=$1; create table t(who int, n int, text);" | grep -qix "$1"
    for who in 1 2; do
        {
            echo 'pragma busy_timeout=120000;'
            seq 1 60 | sed "s/.*/insert into t values($who, &, hex(randomblob(200)));/"
        } > "/tmp/$who.sql"
        sqlite3 -bail db < "/tmp/$who.sql" > /dev/null &
        eval "process$who=\$!"
    done
    wait "$process1" && wait "$process2"
    test "$(sqlite3 db 'select count(*), count(distinct who * 1000 + n) from t')" = '120|120'
    test "$(sqlite3 db 'pragma integrity_check')" = ok
    sqlite3 db 'delete from t where n % 2 = 0; vacuum;'
    test "$(sqlite3 db 'select count(*) from t; pragma integrity_check')" = "$(printf '60\nok')"
    cd ..
    rm -r sqlite /tmp/1.sql /tmp/2.sql
}

sqlite_with_a_rollback_journal() { sqlite_two_processes delete; }
sqlite_with_a_write_ahead_log() { sqlite_two_processes wal; }

# The rest needs single system calls and exact times: /run/tools/suites knows it.
in_guest() { # WORK [ARGUMENT...]
    work=$1; shift
    mkdir -p "$here/$work"
    /run/tools/suites in-guest "$work" "$here/$work" "$@"
}

unlink_open() { in_guest unlink-open; }
list_while_it_changes() { /run/tools/suites in-guest listing /mnt/nfs/large --names "$(cat /run/share/staying)"; }
pair() { mkdir -p /mnt/nfs/pair; /run/tools/suites in-guest pair /mnt/nfs/pair --side "$(cat /run/share/side)"; }
steady() { in_guest steady --seconds "$(cat /run/share/seconds)"; }
steady_verify() { in_guest steady --verify; rm -r "$here/steady"; }

if [ "${0##*/}" = steps.sh ]; then
    # Who reads the log of a step that failed sees how far it came.
    set -eux
    umask 022
    "$1"
fi

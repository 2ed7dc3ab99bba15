# What real programs do on the mount, each checked. One function a program; it runs in an empty folder of the mount, and
# fails if anything it checks does not hold. $PROJECT is this project's folder, $SCRATCH one outside of the mount.

git_keeps_a_repository() {
    git clone --quiet --no-hardlinks "$SCRATCH/repository" clone
    cd clone
    git gc --quiet --aggressive --prune=now
    git fsck --full --strict --no-progress
    git checkout --quiet -b work
    find . -name '*.rs' -not -path './.git/*' | head -50 | while read -r file; do echo '// changed' >> "$file"; done
    git -c user.name=x -c user.email=x@y commit --quiet --all --message work
    git checkout --quiet -
    git status --porcelain | { ! grep .; }
    git -C "$SCRATCH/repository" log --format=%H -1 > "$SCRATCH/head"
    git log --format=%H -1 | cmp - "$SCRATCH/head"
}

sqlite_two_processes() { # JOURNAL_MODE
    sqlite3 db "pragma journal_mode=$1; create table t(who int, n int, text);" | grep -qix "$1"
    for who in 1 2; do
        seq 1 150 | sed "s/.*/insert into t values($who, &, hex(randomblob(200)));/" > "$SCRATCH/$1-$who.sql"
        (
            { echo 'pragma busy_timeout=60000;'; cat "$SCRATCH/$1-$who.sql"; } | sqlite3 -bail db > /dev/null
        ) &
        eval "process$who=\$!"
    done
    wait "$process1" && wait "$process2"
    test "$(sqlite3 db 'select count(*), count(distinct who * 1000 + n) from t')" = '300|300'
    test "$(sqlite3 db 'pragma integrity_check')" = ok
    sqlite3 db 'delete from t where n % 2 = 0; vacuum;'
    test "$(sqlite3 db 'select count(*) from t; pragma integrity_check')" = "$(printf '150\nok')"
}

sqlite_with_a_rollback_journal() {
    sqlite_two_processes delete
}

sqlite_with_a_write_ahead_log() {
    sqlite_two_processes wal
}

rsync_copies_a_tree() {
    rsync --archive --hard-links --xattrs "$SCRATCH/tree/" copy/
    rsync --archive --hard-links --checksum --dry-run --itemize-changes "$SCRATCH/tree/" copy/ | { ! grep .; }
    diff --recursive --no-dereference "$SCRATCH/tree" copy
    echo changed >> copy/stdio.h
    rsync --archive --hard-links "$SCRATCH/tree/" copy/
    cmp "$SCRATCH/tree/stdio.h" copy/stdio.h
}

tar_packs_and_unpacks() {
    tar --create --file tree.tar --directory "$SCRATCH" tree
    tar --extract --file tree.tar
    tar --compare --file tree.tar
    diff --recursive --no-dereference "$SCRATCH/tree" tree
}

cargo_builds_a_project() {
    git clone --quiet --no-hardlinks "$SCRATCH/repository" project
    cd project
    cargo build --locked --offline --quiet --package bfs-fs --target-dir built
    # Times are kept, so there is nothing to do a second time.
    cargo build --locked --offline --package bfs-fs --target-dir built 2> "$SCRATCH/again"
    ! grep Compiling "$SCRATCH/again"
    find built -name 'libbfs_fs*.rlib' | grep -q .
}

fio_verifies() {
    fio --minimal --name=mixed --rw=randrw --bs=4k --size=32m --ioengine=psync --fsync=32 \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 > "$SCRATCH/fio.log"
    # Blocks of many sizes are only written: what overlaps is no mismatch, but fio takes it for one when it also reads.
    fio --minimal --name=sizes --rw=randwrite --bsrange=512-64k --size=16m --ioengine=psync --fsync=32 \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 > "$SCRATCH/fio.log"
    fio --minimal --name=mapped --rw=randwrite --bs=4k --size=8m --ioengine=mmap \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 > "$SCRATCH/fio.log"
}

stress_ng_exercises() {
    # These ask for what the kernel gives no FUSE file system, and count that as failed.
    stress-ng --class filesystem --exclude binderfs,fiemap,verity --sequential 1 --timeout 1s --verify --temp-path . --metrics-brief \
        > "$SCRATCH/stress.log" 2>&1 || { grep -i 'fail\|warn\|error' "$SCRATCH/stress.log"; return 1; }
    rm -rf ./*
}

a_hundred_thousand_files_in_a_directory() {
    mkdir many
    seq -f many/%06g 1 100000 | xargs -n 2000 touch
    test "$(find many -type f | wc -l)" = 100000
    ls many | cmp - "$SCRATCH/names"
    test -f many/054321 && ! test -e many/100001
    seq -f many/%06g 1 2 100000 | xargs -n 2000 rm
    test "$(find many -type f | wc -l)" = 50000
    rm -r many
}

set -eu
mkdir "$1"
cd "$1"
"$1"
cd "$MOUNT"
rm -rf "$1"

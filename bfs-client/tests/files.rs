//! Real programs and system calls on a real kernel mount: the FUSE front translates each as it should.

mod common;

use common::{Mounted, has, sh};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, FcntlArg, RenameFlags, fallocate, fcntl, renameat2};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::statvfs::statvfs;
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, mkfifo};
use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

fn errno<T>(result: io::Result<T>) -> Errno {
    Errno::from_raw(result.err().expect("an error").raw_os_error().expect("a system error"))
}

#[test]
fn what_is_written_is_read_back() {
    // Strict reads bypass the page cache.
    for options in ["", "strict"] {
        let Some(m) = Mounted::new(options) else { return };
        let data: Vec<u8> = (0..3_000_001u32).map(|i| (i * 7 / 3) as u8).collect();
        fs::write(m.path("f"), &data).unwrap();
        assert_eq!(fs::read(m.path("f")).unwrap(), data);
        let mut tail = [0; 10];
        File::open(m.path("f")).unwrap().read_exact_at(&mut tail, 2_999_991).unwrap();
        assert_eq!(tail, data[2_999_991..]);
        assert_eq!(fs::metadata(m.path("f")).unwrap().len(), 3_000_001);
    }
}

#[test]
fn appends_go_to_the_end() {
    let Some(m) = Mounted::new("") else { return };
    for part in ["one ", "two ", "three"] {
        let mut file = OpenOptions::new().append(true).create(true).open(m.path("log")).unwrap();
        file.write_all(part.as_bytes()).unwrap();
        file.sync_all().unwrap();
    }
    assert_eq!(fs::read_to_string(m.path("log")).unwrap(), "one two three");
}

#[test]
fn truncation_shrinks_grows_and_starts_over() {
    let Some(m) = Mounted::new("") else { return };
    let path = m.path("f");
    fs::write(&path, [7; 10_000]).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(5000).unwrap();
    file.set_len(9000).unwrap();
    let data = fs::read(&path).unwrap();
    assert_eq!(data.len(), 9000);
    assert!(data[..5000].iter().all(|b| *b == 7) && data[5000..].iter().all(|b| *b == 0));
    fs::write(&path, "short").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "short");
}

#[test]
fn a_sparse_file_takes_no_room_for_its_hole() {
    let Some(m) = Mounted::new("") else { return };
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).open(m.path("sparse")).unwrap();
    file.seek(SeekFrom::Start(50 << 20)).unwrap();
    file.write_all(b"end").unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), (50 << 20) + 3);
    assert!(metadata.blocks() < 1000, "{} blocks", metadata.blocks());
    let mut hole = vec![1; 100_000];
    file.read_exact_at(&mut hole, 20 << 20).unwrap();
    assert!(hole.iter().all(|b| *b == 0));
    let mut end = String::new();
    file.seek(SeekFrom::Start(50 << 20)).unwrap();
    file.read_to_string(&mut end).unwrap();
    assert_eq!(end, "end");
}

#[test]
fn directories_are_made_moved_and_removed() {
    let Some(m) = Mounted::new("") else { return };
    fs::create_dir_all(m.path("a/b/c")).unwrap();
    fs::write(m.path("a/b/c/f"), "x").unwrap();
    assert_eq!(fs::metadata(m.path("a")).unwrap().nlink(), 3);
    assert_eq!(errno(fs::remove_dir(m.path("a/b"))), Errno::ENOTEMPTY);
    fs::rename(m.path("a/b"), m.path("moved")).unwrap();
    assert_eq!(fs::read_to_string(m.path("moved/c/f")).unwrap(), "x");
    assert_eq!(errno(fs::rename(m.path("moved"), m.path("moved/c/in"))), Errno::EINVAL);
    assert_eq!(errno(fs::create_dir(m.path("moved"))), Errno::EEXIST);
    fs::remove_dir_all(m.path("moved")).unwrap();
    assert_eq!(errno(fs::metadata(m.path("moved"))), Errno::ENOENT);
    assert_eq!(fs::metadata(m.path("a")).unwrap().nlink(), 2);
}

#[test]
fn rename_replaces_refuses_and_exchanges() {
    let Some(m) = Mounted::new("") else { return };
    let (a, b) = (m.path("a"), m.path("b"));
    let rename = |flags| renameat2(AT_FDCWD, &a, AT_FDCWD, &b, flags);
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    assert_eq!(rename(RenameFlags::RENAME_NOREPLACE), Err(Errno::EEXIST));
    rename(RenameFlags::RENAME_EXCHANGE).unwrap();
    assert_eq!(
        (fs::read_to_string(&a).unwrap(), fs::read_to_string(&b).unwrap()),
        ("b".into(), "a".into())
    );
    fs::rename(&a, &b).unwrap();
    assert_eq!(fs::read_to_string(&b).unwrap(), "b");
    assert!(!a.exists());
}

#[test]
fn symbolic_links_lead_where_they_say() {
    let Some(m) = Mounted::new("") else { return };
    fs::write(m.path("target"), "here").unwrap();
    symlink("target", m.path("link")).unwrap();
    symlink("nowhere", m.path("dangling")).unwrap();
    assert_eq!(fs::read_link(m.path("link")).unwrap(), Path::new("target"));
    assert_eq!(fs::read_to_string(m.path("link")).unwrap(), "here");
    assert!(fs::symlink_metadata(m.path("link")).unwrap().is_symlink());
    assert_eq!(errno(fs::read(m.path("dangling"))), Errno::ENOENT);
}

#[test]
fn hard_links_share_one_file_until_the_last_goes() {
    let Some(m) = Mounted::new("") else { return };
    fs::write(m.path("one"), "x").unwrap();
    fs::hard_link(m.path("one"), m.path("two")).unwrap();
    let (one, two) = (fs::metadata(m.path("one")).unwrap(), fs::metadata(m.path("two")).unwrap());
    assert_eq!((one.ino(), two.nlink()), (two.ino(), 2));
    fs::write(m.path("two"), "changed").unwrap();
    fs::remove_file(m.path("one")).unwrap();
    assert_eq!(fs::read_to_string(m.path("two")).unwrap(), "changed");
    assert_eq!(fs::metadata(m.path("two")).unwrap().nlink(), 1);
}

#[test]
fn an_open_file_outlives_its_names() {
    for options in ["", "strict"] {
        let Some(m) = Mounted::new(options) else { return };
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(m.path(name))
        };
        let (a, b) = (open("a").unwrap(), open("b").unwrap());
        (&a).write_all(b"a lives").unwrap();
        (&b).write_all(b"b lives").unwrap();
        fs::remove_file(m.path("a")).unwrap();
        // Another one opened for long enough that the group holds it.
        std::thread::sleep(Duration::from_millis(1700));
        fs::write(m.path("c"), "c").unwrap();
        fs::rename(m.path("c"), m.path("b")).unwrap();
        for (file, text) in [(&a, b"a lives"), (&b, b"b lives")] {
            let mut found = [0; 7];
            file.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(&found, text);
            assert_eq!(file.metadata().unwrap().nlink(), 0);
            file.set_len(3).unwrap();
            file.write_all_at(b"more", 10_000).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 10_004);
        }
        assert_eq!(fs::read_to_string(m.path("b")).unwrap(), "c");
        fs::create_dir(m.path("d")).unwrap();
        let d = File::open(m.path("d")).unwrap();
        fs::remove_dir(m.path("d")).unwrap();
        assert_eq!(d.metadata().unwrap().nlink(), 0);
        drop((a, b, d));
        sh(m.dir(), "exec 3>f; rm f; echo text >&3; cat /proc/self/fd/3 | grep text");
        // With the last handle the memory comes back.
        fs::remove_file(m.path("b")).unwrap();
        let inodes = || {
            let s = statvfs(m.dir()).unwrap();
            s.files() - s.files_free()
        };
        common::eventually("only the root is left", || inodes() == 1);
    }
}

#[test]
fn ten_thousand_names_are_listed_once_each() {
    let Some(m) = Mounted::new("") else { return };
    let dir = m.path("many");
    fs::create_dir(&dir).unwrap();
    let name = |i: usize| format!("file-{i:05}-{}", "x".repeat(i % 60));
    for i in 0..10_000 {
        File::create(dir.join(name(i))).unwrap();
    }
    let listed: Vec<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed.len(), 10_000);
    let unique: BTreeSet<_> = listed.into_iter().collect();
    assert_eq!(unique, (0..10_000).map(name).collect());
    assert_eq!(sh(&dir, "ls -a | wc -l").trim(), "10002");
    assert_eq!(sh(&dir, "ls -l | wc -l").trim(), "10001");
    // Names go away while they are listed.
    sh(m.dir(), "rm -r many");
    assert!(!dir.exists());
}

#[test]
fn exclusive_creation_happens_once() {
    let Some(m) = Mounted::new("") else { return };
    let create = || OpenOptions::new().write(true).create_new(true).open(m.path("lock"));
    create().unwrap();
    assert_eq!(create().unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn modes_follow_the_umask_and_chmod() {
    let Some(m) = Mounted::new("") else { return };
    sh(m.dir(), "umask 027; touch f; mkdir d; mkfifo p");
    let mode = |name: &str| fs::metadata(m.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("f"), mode("d"), mode("p")), (0o640, 0o750, 0o640));
    fs::set_permissions(m.path("f"), Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(mode("f"), 0o4755);
    chown(m.path("f"), Some(12345), Some(54321)).unwrap();
    let metadata = fs::metadata(m.path("f")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (12345, 54321));
}

#[test]
fn special_files_keep_their_type() {
    let Some(m) = Mounted::new("dev") else { return };
    mkfifo(&m.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(fs::metadata(m.path("fifo")).unwrap().file_type().is_fifo());
    let _socket = std::os::unix::net::UnixListener::bind(m.path("socket")).unwrap();
    assert!(fs::metadata(m.path("socket")).unwrap().file_type().is_socket());
    sh(m.dir(), "mknod null c 1 3; echo gone > null; mknod regular-by-cp b 7 0");
    assert_eq!(fs::metadata(m.path("null")).unwrap().rdev(), (1 << 8) | 3);
}

#[test]
fn times_are_set_to_the_nanosecond_even_before_1970() {
    let Some(m) = Mounted::new("") else { return };
    let file = File::create(m.path("f")).unwrap();
    let before = UNIX_EPOCH - Duration::new(1, 500_000_000);
    let after = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    file.set_times(FileTimes::new().set_accessed(before).set_modified(after)).unwrap();
    let metadata = fs::metadata(m.path("f")).unwrap();
    assert_eq!(metadata.accessed().unwrap(), before);
    assert_eq!(metadata.modified().unwrap(), after);
    sh(m.dir(), "touch f");
    assert!(fs::metadata(m.path("f")).unwrap().mtime() > 1_700_000_000);
}

#[test]
fn no_time_that_a_user_may_set_ends_the_mount() {
    let Some(m) = Mounted::new("") else { return };
    let path = m.path("f");
    File::create(&path).unwrap();
    for seconds in [i64::MIN, i64::MIN + 1, -1, i64::MAX] {
        let time = TimeSpec::new(seconds, 5);
        utimensat(AT_FDCWD, &path, &time, &time, UtimensatFlags::FollowSymlink).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mtime(), seconds);
    }
}

#[test]
fn free_space_shrinks_as_files_grow() {
    let Some(m) = Mounted::new("") else { return };
    let free = || {
        let s = statvfs(m.dir()).unwrap();
        s.blocks_free() * s.fragment_size()
    };
    let before = free();
    fs::write(m.path("f"), vec![1; 8 << 20]).unwrap();
    assert!(before - free() >= 8 << 20, "{before} {}", free());
    assert_eq!(statvfs(m.dir()).unwrap().name_max(), 255);
}

#[test]
fn a_name_too_long_and_a_file_as_directory_are_refused() {
    let Some(m) = Mounted::new("") else { return };
    assert_eq!(errno(File::create(m.path(&"x".repeat(256)))), Errno::ENAMETOOLONG);
    File::create(m.path(&"x".repeat(255))).unwrap();
    File::create(m.path("f")).unwrap();
    assert_eq!(errno(File::create(m.path("f/in"))), Errno::ENOTDIR);
    assert_eq!(errno(fs::read(m.dir())), Errno::EISDIR);
}

#[test]
fn holes_are_punched_found_and_copied() {
    let Some(m) = Mounted::new("") else { return };
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(m.path("a")).unwrap();
    file.write_all_at(&[5; 300_000], 0).unwrap();
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, punch, 100_000, 100_000).unwrap();
    let seek = |offset, whence| nix::unistd::lseek(&file, offset, whence);
    assert_eq!(seek(0, Whence::SeekHole), Ok(102_400));
    assert_eq!(seek(102_400, Whence::SeekData), Ok(196_608));
    assert_eq!(seek(300_000, Whence::SeekData), Err(Errno::ENXIO));
    let mut hole = [1; 100_000];
    file.read_exact_at(&mut hole, 100_000).unwrap();
    assert!(hole.iter().all(|byte| *byte == 0));
    assert_eq!(fs::copy(m.path("a"), m.path("b")).unwrap(), 300_000);
    sh(m.dir(), "cp --sparse=always a c; cmp a b; cmp a c");
    fallocate(&file, FallocateFlags::empty(), 250_000, 100_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 350_000);
    fallocate(&file, FallocateFlags::FALLOC_FL_ZERO_RANGE, 0, 50).unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap()[49..51], [0, 5]);
    let collapse = FallocateFlags::FALLOC_FL_COLLAPSE_RANGE;
    assert_eq!(fallocate(&file, collapse, 0, 4096), Err(Errno::EOPNOTSUPP));
    // More than there is memory for is refused before any of it is taken.
    let blocks = file.metadata().unwrap().blocks();
    assert_eq!(fallocate(&file, FallocateFlags::empty(), 0, 1 << 40), Err(Errno::ENOSPC));
    assert_eq!(file.metadata().unwrap().blocks(), blocks);
}

#[test]
fn a_large_file_is_cut_in_steps_that_nobody_sees() {
    let Some(m) = Mounted::new("") else { return };
    let file = File::create(m.path("f")).unwrap();
    for i in 0..6000 {
        file.write_all_at(b"x", i * 32_768).unwrap();
    }
    file.set_len(5).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!((metadata.len(), metadata.blocks()), (5, 8));
    file.set_len(1 << 40).unwrap();
    assert_eq!(fs::metadata(m.path("f")).unwrap().len(), 1 << 40);
}

const XATTRS: &str = r#"
import errno, os
def fails(number, call, *args):
    try: call(*args)
    except OSError as e: assert e.errno == number, e
    else: raise AssertionError(args)
open("f", "w").write("x"); os.mkdir("d"); os.symlink("f", "l")
assert os.listxattr("f") == []
os.setxattr("f", "user.colour", b"blue")
os.setxattr("f", "trusted.t", b"")
os.setxattr("d", "user.on", b"dir")
assert os.getxattr("f", "user.colour") == b"blue" and os.getxattr("f", "trusted.t") == b""
assert sorted(os.listxattr("f")) == ["trusted.t", "user.colour"] and os.getxattr("d", "user.on") == b"dir"
fails(errno.EEXIST, os.setxattr, "f", "user.colour", b"", os.XATTR_CREATE)
fails(errno.ENODATA, os.setxattr, "f", "user.none", b"", os.XATTR_REPLACE)
os.removexattr("f", "user.colour")
fails(errno.ENODATA, os.getxattr, "f", "user.colour")
for size in (0, 40000, 65536):
    os.setxattr("f", "user.big", b"x" * size)
    assert os.getxattr("f", "user.big") == b"x" * size
fails(errno.E2BIG, os.setxattr, "f", "user.big", b"x" * 65537)
fails(errno.EOPNOTSUPP, os.setxattr, "f", "system.posix_acl_access", b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff")
fails(errno.EPERM, lambda: os.setxattr("l", "user.a", b"", follow_symlinks=False))
os.setxattr("f", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
open("f", "a").write("y")
fails(errno.ENODATA, os.getxattr, "f", "security.capability")
# What was written before is no reason to take away what is set now.
f = os.open("c", os.O_CREAT | os.O_WRONLY)
os.write(f, b"x")
os.setxattr(f, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
os.close(f)
assert len(os.getxattr("c", "security.capability")) == 20
"#;

#[test]
fn extended_attributes_are_kept_and_lists_of_rights_refused() {
    if !has("python3") {
        return;
    }
    for options in ["", "strict"] {
        let Some(m) = Mounted::new(options) else { return };
        let program = m.0.beside("xattrs.py");
        fs::write(&program, XATTRS).unwrap();
        sh(m.dir(), &format!("python3 '{}'", program.display()));
        sh(m.dir(), "cp -a f g; cmp f g; ls -l f g");
    }
}

const LOCKS: &str = r#"
import errno, fcntl, os, signal, subprocess, sys, time
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock, lockf
def fails(number, call, *args):
    try: call(*args)
    except OSError as e: assert e.errno == number, e
    else: raise AssertionError(args)
def child(body):
    "Runs in another process, and says with its first line that it has begun."
    head = "import errno, fcntl, os, signal, sys, time\nfrom fcntl import *\nf = open('f', 'r+b')\nprint(flush=True)\n"
    process = subprocess.Popen([sys.executable, "-c", head + body], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process
def said(process):
    out = process.stdout.read().strip()
    process.wait()
    return out
def ends(process, text="", code=0):
    out = said(process)
    assert (out, process.returncode) == (text, code), (out, process.returncode)
signal.alarm(60)
open("f", "wb").write(b"x" * 100)
a, b = open("f", "r+b"), open("f", "r+b")
# flock: between open files, also of one process, and not seen by record locks.
flock(a, LOCK_EX)
fails(errno.EAGAIN, flock, b, LOCK_EX | LOCK_NB)
lockf(b, LOCK_EX | LOCK_NB)
lockf(b, LOCK_UN)
flock(a, LOCK_SH)
flock(b, LOCK_SH | LOCK_NB)
fails(errno.EAGAIN, flock, b, LOCK_EX | LOCK_NB)
a.close()
flock(b, LOCK_EX | LOCK_NB)
flock(b, LOCK_UN)
# Record locks: between processes, by ranges.
lockf(b, LOCK_EX, 10, 0)
ends(child("try: lockf(f, LOCK_EX | LOCK_NB, 5, 9)\nexcept OSError as e: print(errno.errorcode[e.errno])"), "EAGAIN")
ends(child("lockf(f, LOCK_EX | LOCK_NB, 5, 10); print('got')"), "got")
import struct
ends(child("import struct; l = fcntl(f, F_GETLK, struct.pack('hhqqi', F_WRLCK, 0, 0, 0, 0)); print(struct.unpack('hhqqi', l))"),
     str((fcntl.F_WRLCK, 0, 0, 10, os.getpid())))
# Who waits gets it when it is free, and soon.
waiter = child("lockf(f, LOCK_EX, 1, 0); print(time.time())")
time.sleep(0.5)
assert waiter.poll() is None
free = time.time()
lockf(b, LOCK_UN, 10, 0)
out = said(waiter)
assert float(out) - free < 0.5, float(out) - free
# Who waits in vain can be interrupted and killed.
flock(b, LOCK_EX)
alarmed = child("def h(*_): raise KeyboardInterrupt\nsignal.signal(signal.SIGALRM, h); signal.alarm(1)\ntry: flock(f, LOCK_EX)\nexcept KeyboardInterrupt: print('interrupted')")
killed = child("flock(f, LOCK_EX)")
time.sleep(0.3)
killed.kill()
ends(alarmed, "interrupted")
ends(killed, "", -signal.SIGKILL)
flock(b, LOCK_UN)
ends(child("flock(f, LOCK_EX | LOCK_NB); print('nobody waits any more')"), "nobody waits any more")
# Closing any descriptor of a file gives up the process's record locks on it.
lockf(b, LOCK_EX)
open("f", "rb").close()
ends(child("lockf(f, LOCK_EX | LOCK_NB); print('closed')"), "closed")
# A process that dies gives up what it has.
holder = child("lockf(f, LOCK_EX); flock(f, LOCK_EX); print(flush=True); time.sleep(60)")
holder.stdout.readline()
fails(errno.EAGAIN, flock, b, LOCK_EX | LOCK_NB)
holder.kill(); holder.wait()
flock(b, LOCK_EX | LOCK_NB); lockf(b, LOCK_EX | LOCK_NB)
# A circle of waits is refused to one of them.
lockf(b, LOCK_UN); lockf(b, LOCK_EX, 1, 0)
other = child("lockf(f, LOCK_EX, 1, 1); print(flush=True); lockf(f, LOCK_EX, 1, 0); print('then')")
other.stdout.readline()
time.sleep(0.3)
fails(errno.EDEADLK, lockf, b, LOCK_EX, 1, 1)
lockf(b, LOCK_UN)
ends(other, "then")
"#;

#[test]
fn locks_hold_between_processes_and_end_with_them() {
    if !has("python3") {
        return;
    }
    for options in ["", "strict"] {
        let Some(m) = Mounted::new(options) else { return };
        let program = m.0.beside("locks.py");
        fs::write(&program, LOCKS).unwrap();
        sh(m.dir(), &format!("python3 '{}'", program.display()));
    }
}

/// A shell script as another user, in `dir`; whether it succeeds.
fn as_user(dir: &Path, groups: &str, script: &str) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "12345", "--regid", "12345", groups, "sh", "-euc", script]);
    command.current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn another_user_gets_what_the_modes_allow() {
    if !has("setpriv") {
        return;
    }
    let Some(m) = Mounted::new("") else { return };
    let user = |script: &str| as_user(m.dir(), "--clear-groups", script);
    sh(
        m.dir(),
        "mkdir -m 755 closed; mkdir -m 777 open; echo secret > s; chmod 600 s; echo public > p",
    );
    assert!(!user("touch closed/f"));
    assert!(user("touch open/f && test -O open/f"));
    assert!(!user("cat s"));
    assert!(user("test \"$(cat p)\" = public"));
    assert!(!user("echo x >> p"));
    assert!(!user("rm s"), "the root directory is sticky");
    assert!(!user("chmod 777 p") && !user("chown 12345 p"));
    // What one creates one may fill, whatever its mode.
    assert!(user("umask 222; echo filled > open/r && test \"$(cat open/r)\" = filled"));
}

#[test]
fn supplementary_groups_count() {
    if !has("setpriv") {
        return;
    }
    let Some(m) = Mounted::new("") else { return };
    sh(
        m.dir(),
        "mkdir -m 770 team; chgrp 4242 team; echo plan > team/f; chgrp 4242 team/f; chmod 660 team/f",
    );
    assert!(as_user(m.dir(), "--groups=1,4242,9", "cat team/f; echo more >> team/f; touch team/g"));
    assert!(!as_user(m.dir(), "--groups=1,9", "cat team/f"));
    assert_eq!(fs::read_to_string(m.path("team/f")).unwrap(), "plan\nmore\n");
}

#[test]
fn a_write_takes_set_id_bits_away_also_by_who_may_not_chmod() {
    if !has("setpriv") {
        return;
    }
    let Some(m) = Mounted::new("suid,actimeo=0") else { return };
    sh(m.dir(), "echo a > tool; chgrp 4242 tool; chmod 6775 tool");
    assert!(as_user(m.dir(), "--groups=4242", "echo b >> tool"));
    assert_eq!(fs::read_to_string(m.path("tool")).unwrap(), "a\nb\n");
    assert_eq!(fs::metadata(m.path("tool")).unwrap().mode() & 0o7777, 0o775);
}

#[test]
fn an_open_file_stays_open_to_who_was_handed_it() {
    if !has("setpriv") {
        return;
    }
    let Some(m) = Mounted::new("strict") else { return };
    fs::write(m.path("s"), "handed over").unwrap();
    fs::set_permissions(m.path("s"), Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "12345", "--regid", "12345", "--clear-groups", "cat"]);
    let output = command.stdin(File::open(m.path("s")).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "handed over");
    // And the name stays closed.
    assert!(!as_user(m.dir(), "--clear-groups", "cat s"));
}

#[test]
fn an_open_file_is_locked_by_whom_it_was_handed_to() {
    if !has("setpriv") || !has("flock") {
        return;
    }
    for options in ["", "strict"] {
        let Some(m) = Mounted::new(options) else { return };
        let locked =
            "setpriv --reuid 12345 --regid 12345 --clear-groups flock --nonblock 9 && echo locked";
        assert_eq!(sh(m.dir(), &format!("umask 077; exec 9<>f; {locked}")), "locked\n");
        assert_eq!(sh(m.dir(), &format!("exec 8<>f 9<>f; flock 8; {locked} || echo not")), "not\n");
    }
}

/// The whole file, as fcntl(2) names it.
fn whole(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 }
}

#[test]
fn open_file_description_locks_end_with_the_open_file() {
    let Some(m) = Mounted::new("") else { return };
    let path = m.path("f");
    fs::write(&path, "").unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let lock = |file: &File| fcntl(file, FcntlArg::F_OFD_SETLK(&whole(libc::F_WRLCK)));
    let (first, second) = (open(), open());
    lock(&first).unwrap();
    assert_eq!(lock(&second), Err(Errno::EAGAIN));
    drop(first);
    // The kernel tells of the end of the open file when it comes to it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while lock(&second) == Err(Errno::EAGAIN) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_lock_that_comes_after_a_close_of_the_file_can_be_unlocked() {
    let Some(m) = Mounted::new("") else { return };
    let path = m.path("f");
    fs::write(&path, "").unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (other, mine) = (open(), open());
    let try_other = |kind| fcntl(&other, FcntlArg::F_OFD_SETLK(&whole(kind)));
    try_other(libc::F_WRLCK).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| fcntl(&mine, FcntlArg::F_SETLKW(&whole(libc::F_WRLCK))));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waiter.is_finished());
        // Takes away all that the process has on the file, and it has nothing yet. [fcntl(2)]
        drop(open());
        try_other(libc::F_UNLCK).unwrap();
        waiter.join().unwrap().unwrap();
    });
    assert_eq!(try_other(libc::F_WRLCK), Err(Errno::EAGAIN));
    fcntl(&mine, FcntlArg::F_SETLK(&whole(libc::F_UNLCK))).unwrap();
    try_other(libc::F_WRLCK).unwrap();
}

#[test]
fn a_source_tree_is_copied_and_compared() {
    for options in ["", "strict"] {
        let Some(m) = Mounted::new(options) else { return };
        let source = m.0.beside("source");
        fs::create_dir_all(source.join("deep/er/and/deeper")).unwrap();
        sh(&source, "ln -s deep link; mkdir empty");
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        sh(
            &source,
            &format!("cp -r '{}/src' '{}/tests' deep/er/and/deeper/", own.display(), own.display()),
        );
        sh(
            m.dir(),
            &format!("cp -a '{0}' copy; diff -r --no-dereference '{0}' copy", source.display()),
        );
        sh(
            m.dir(),
            "tar cf t.tar copy; mkdir un; tar xf t.tar -C un; diff -r --no-dereference copy un/copy",
        );
        sh(
            m.dir(),
            "find copy -type f | xargs cat | cksum > x; find un/copy -type f | xargs cat | cksum > y; rm -r copy un t.tar",
        );
        assert_eq!(sh(m.dir(), "ls"), "x\ny\n");
    }
}

/// Maps a file shared, changes it through the map, and reads it back through the descriptor.
const PROGRAM: &str = r#"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
    char back[6] = {0};
    int fd = open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || ftruncate(fd, 8192)) return 1;
    char *map = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return 2;
    memcpy(map + 5000, "hello", 5);
    if (msync(map, 8192, MS_SYNC) || munmap(map, 8192)) return 3;
    if (pread(fd, back, 5, 5000) != 5 || strcmp(back, "hello")) return 4;
    return fsync(fd) || close(fd) ? 5 : 0;
}
"#;

#[test]
fn a_program_is_compiled_there_runs_there_and_maps_files_there() {
    if !has("cc") {
        return;
    }
    for options in ["", "strict"] {
        let Some(m) = Mounted::new(options) else { return };
        fs::write(m.path("main.c"), PROGRAM).unwrap();
        sh(m.dir(), "cc -O1 -c main.c -o main.o; cc main.o -o main; ./main");
        assert_eq!(&fs::read(m.path("mapped")).unwrap()[5000..5005], b"hello", "{options}");
    }
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let Some(m) = Mounted::new("ro") else { return };
    assert_eq!(errno(File::create(m.path("f"))), Errno::EROFS);
    assert_eq!(fs::read_dir(m.dir()).unwrap().count(), 0);
}

#[test]
fn many_writers_at_once_lose_nothing() {
    let Some(m) = Mounted::new("") else { return };
    std::thread::scope(|scope| {
        for writer in 0..8u8 {
            let m = &m;
            scope.spawn(move || {
                for i in 0..50 {
                    let path = m.path(&format!("{writer}-{i}"));
                    fs::write(&path, vec![writer; 10_000]).unwrap();
                    assert_eq!(fs::read(&path).unwrap(), vec![writer; 10_000]);
                }
            });
        }
    });
    assert_eq!(fs::read_dir(m.dir()).unwrap().count(), 400);
}

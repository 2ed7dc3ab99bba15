//! Real groups of real processes on this machine: what users meet when replicas come and go.

use bfs_client::local_group::LocalGroup;
use bfs_client::{mount_state, mount_table};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Without the right to mount there is nothing to test here.
fn can_mount() -> bool {
    let able = nix::unistd::geteuid().is_root() && fs::File::open("/dev/fuse").is_ok();
    if !able {
        println!("skipped: mounting wants root and /dev/fuse");
    }
    able
}

fn mounted(group: &mut LocalGroup, options: &str) -> PathBuf {
    let point = group.dir().join("mnt");
    fs::create_dir_all(&point).unwrap();
    group.mount(&point, options).unwrap();
    point
}

fn until_healthy(group: &LocalGroup) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let health = group.status().map(|status| status.health).unwrap_or_default();
        if health == "HEALTHY" {
            return;
        }
        assert!(Instant::now() < deadline, "still {health}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_wiped_backup_comes_back_by_state_transfer() {
    if !can_mount() {
        return;
    }
    let mut group = LocalGroup::create(4, 1).unwrap();
    let point = mounted(&mut group, "");
    until_healthy(&group);
    let write = |from: usize, to: usize| {
        for i in from..to {
            fs::write(point.join(format!("f{i}")), format!("contents of {i}").repeat(100)).unwrap();
        }
    };
    write(0, 300);
    group.kill(2).unwrap();
    assert_eq!(group.status().unwrap().health, "NO SPARE");
    write(300, 900);
    group.start_replica(2).unwrap();
    until_healthy(&group);
    // With another replica gone, every answer needs the one that came back.
    group.kill(3).unwrap();
    group.unmount(&point).unwrap();
    group.mount(&point, "").unwrap();
    for i in 0..900 {
        let read = fs::read_to_string(point.join(format!("f{i}"))).unwrap();
        assert_eq!(read, format!("contents of {i}").repeat(100));
    }
    group.unmount(&point).unwrap();
}

#[test]
fn mount_8_finds_a_line_of_fstab_mounted_already() {
    if !can_mount() {
        return;
    }
    let mut group = LocalGroup::create(1, 0).unwrap();
    let point = mounted(&mut group, "");
    let fstab = group.dir().join("fstab");
    let line =
        format!("bfs:{} {} bfs defaults 0 0\n", group.group_file().display(), point.display());
    fs::write(&fstab, line).unwrap();
    let output = Command::new("mount").args(["-a", "-v", "-T"]).arg(&fstab).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("already mounted"), "{output:?}");
    group.unmount(&point).unwrap();
}

#[test]
fn without_a_quorum_a_soft_mount_gives_up_and_a_group_that_is_back_goes_on() {
    if !can_mount() {
        return;
    }
    let mut group = LocalGroup::create(4, 1).unwrap();
    let point = mounted(&mut group, "soft,timeo=20");
    fs::write(point.join("before"), "before").unwrap();
    group.pause(2).unwrap();
    group.pause(3).unwrap();
    let error = fs::write(point.join("meanwhile"), "lost?").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EIO as i32), "{error}");
    group.resume(2).unwrap();
    group.resume(3).unwrap();
    until_healthy(&group);
    fs::write(point.join("after"), "after").unwrap();
    assert_eq!(fs::read_to_string(point.join("before")).unwrap(), "before");
    assert_eq!(fs::read_to_string(point.join("after")).unwrap(), "after");
    group.unmount(&point).unwrap();
}

#[test]
fn a_stalled_group_keeps_a_hard_mount_waiting_and_loses_nothing() {
    if !can_mount() {
        return;
    }
    let mut group = LocalGroup::create(4, 1).unwrap();
    let point = mounted(&mut group, "");
    group.pause(1).unwrap();
    group.pause(2).unwrap();
    let file = point.join("patient");
    let writer = std::thread::spawn(move || fs::write(file, "written in the end"));
    std::thread::sleep(Duration::from_millis(700));
    assert!(!writer.is_finished(), "nobody can have agreed to it");
    group.resume(1).unwrap();
    group.resume(2).unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(fs::read_to_string(point.join("patient")).unwrap(), "written in the end");
    group.unmount(&point).unwrap();
}

/// P6: the default view timeout is one second, and nobody waits for more than two.
#[test]
fn the_primary_is_killed_under_load_and_users_wait_for_at_most_two_view_timeouts() {
    if !can_mount() {
        return;
    }
    let mut group = LocalGroup::create(4, 1).unwrap();
    let point = mounted(&mut group, "");
    until_healthy(&group);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let worker = |name: &str| {
        let (mut written, mut longest) = (0, Duration::ZERO);
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let start = Instant::now();
            fs::write(point.join(format!("{name}{written}")), format!("{name} {written}")).unwrap();
            longest = longest.max(start.elapsed());
            written += 1;
        }
        (written, longest)
    };
    let ((first, a), (second, b)) = std::thread::scope(|scope| {
        let workers = [scope.spawn(|| worker("a")), scope.spawn(|| worker("b"))];
        std::thread::sleep(Duration::from_millis(500));
        let (primary, _) = group.status().unwrap().primary().unwrap();
        group.kill(primary).unwrap();
        std::thread::sleep(Duration::from_secs(4));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let [first, second] = workers.map(|worker| worker.join().unwrap());
        (first, second)
    });
    println!("gaps {a:?} {b:?}, {first} and {second} files");
    assert!(a.max(b) <= Duration::from_secs(2), "{a:?} {b:?}");
    assert!(first > 100 && second > 100, "{first} {second}");
    for (name, count) in [("a", first), ("b", second)] {
        for i in 0..count {
            let read = fs::read_to_string(point.join(format!("{name}{i}"))).unwrap();
            assert_eq!(read, format!("{name} {i}"));
        }
    }
    assert_eq!(group.status().unwrap().health, "NO SPARE");
    group.start_replica(0).unwrap();
    until_healthy(&group);
    group.unmount(&point).unwrap();
}

#[test]
fn an_open_file_without_a_name_outlives_its_primary_and_goes_with_its_client() {
    if !can_mount() {
        return;
    }
    let mut group = LocalGroup::create(4, 1).unwrap();
    let point = mounted(&mut group, "");
    until_healthy(&group);
    let inodes = |point: &PathBuf| {
        let s = nix::sys::statvfs::statvfs(point).unwrap();
        s.files() - s.files_free()
    };
    let empty = inodes(&point);
    let mut file =
        fs::File::options().read(true).write(true).create_new(true).open(point.join("f")).unwrap();
    file.write_all(b"nobody can name it").unwrap();
    fs::remove_file(point.join("f")).unwrap();
    // It lives in the replicated state: a new primary knows of it, and a wiped replica learns of it.
    group.kill(0).unwrap();
    for i in 0..300 {
        fs::write(point.join(format!("g{i}")), "another").unwrap();
        fs::remove_file(point.join(format!("g{i}"))).unwrap();
    }
    group.start_replica(0).unwrap();
    until_healthy(&group);
    group.kill(1).unwrap();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "nobody can name it");
    assert_eq!(inodes(&point), empty + 1);
    group.start_replica(1).unwrap();
    until_healthy(&group);
    // The client dies. When it is back, in another session, what it held is gone.
    let entry = mount_table::bfs_at(&point).unwrap();
    let server = mount_state::find(&entry.dir, entry.id).unwrap();
    server.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
    drop(file);
    mount_table::detach(&entry.dir, mount_table::Detach::Lazy).unwrap();
    group.mount(&point, "").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while inodes(&point) != empty {
        assert!(Instant::now() < deadline, "{} inodes", inodes(&point));
        fs::write(point.join("g"), "an operation that clears away").unwrap();
        fs::remove_file(point.join("g")).unwrap();
    }
    group.unmount(&point).unwrap();
}

/// Another client of the group, mounted beside the first one.
struct SecondMount(PathBuf);

impl SecondMount {
    fn new(group: &LocalGroup, options: &str) -> Self {
        let point = group.dir().join("second");
        fs::create_dir_all(&point).unwrap();
        let mut mount = Command::new(&group.programs().bfs);
        mount.arg("mount").arg(group.group_file()).arg(&point).arg("--key");
        mount.arg(group.operator_key()).arg("--log-file").arg(group.dir().join("second.log"));
        mount.args(["-o", options]);
        let output = mount.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(point)
    }

    fn signal(&self, signal: Signal) {
        let entry = mount_table::bfs_at(&self.0).unwrap();
        let server = mount_state::find(&entry.dir, entry.id).unwrap();
        server.signal(signal).unwrap();
    }

    /// As a machine ends it that shuts down.
    fn end(&self) {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(60);
        while mount_table::bfs_at(&self.0).is_ok() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for SecondMount {
    fn drop(&mut self) {
        // It ends its own process; after a kill only the mount is left.
        while mount_table::bfs_at(&self.0).is_ok() {
            if mount_table::detach(&self.0, mount_table::Detach::Lazy).is_err() {
                break;
            }
        }
    }
}

/// A command of the client's, by the administrator's keys: no mount may use them meanwhile.
fn ask(group: &LocalGroup, verb: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(&group.programs().bfs);
    command.arg(verb).arg(group.group_file()).arg("--key").arg(group.key_dir()).args(arguments);
    command.output().unwrap()
}

/// As [`ask`], where it must succeed.
fn administer(group: &LocalGroup, verb: &str, arguments: &[&str]) -> String {
    let output = ask(group, verb, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn exports_quotas_and_fsck() {
    if !can_mount() {
        return;
    }
    let mut group = LocalGroup::create(4, 1).unwrap();
    let point = mounted(&mut group, "");
    fs::create_dir(point.join("theirs")).unwrap();
    fs::write(point.join("mine"), "private").unwrap();
    // A command by the keys of a live mount would end the mount's session.
    for (verb, arguments) in [("export", &[][..]), ("nfs", &["--listen", "127.0.0.1:0"])] {
        let refused = ask(&group, verb, arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("uses them") && said.contains("bfs umount"), "{said}");
        assert_eq!(refused.status.code(), Some(6), "{said}");
    }
    assert_eq!(fs::read_to_string(point.join("mine")).unwrap(), "private");
    group.unmount(&point).unwrap();
    let first = administer(&group, "export", &["1"]);
    assert!(
        first.contains("the whole tree · read-write · root is nobody · all uids · all gids"),
        "{first}"
    );
    let second = administer(&group, "export", &["1", "--subtree", "/theirs", "--no-root-squash"]);
    assert!(second.contains("the subtree of inode 2 · read-write · root is root"), "{second}");
    let limits = ["--subtree", "/theirs", "--bytes", "1M", "--inodes", "10"];
    let quota = administer(&group, "quota", &limits);
    assert_eq!(quota.trim(), "0 bytes, of 1048576 · 1 inodes, of 10");
    {
        let second = SecondMount::new(&group, "");
        let root = &second.0;
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
        fs::write(root.join("f"), [7; 4096]).unwrap();
        gathered_writes_fail_where_programs_look(&root.join("large"));
        let all = nix::sys::statvfs::statvfs(root).unwrap();
        assert_eq!((all.blocks() * all.fragment_size(), all.files()), (1 << 20, 10));
        fs::remove_file(root.join("large")).unwrap();
        for i in 0..8 {
            fs::write(root.join(format!("f{i}")), "").unwrap();
        }
        let make = fs::create_dir(root.join("one more")).unwrap_err();
        assert_eq!(make.raw_os_error(), Some(libc::EDQUOT));
    }
    let third = administer(&group, "export", &["1", "--read-only"]);
    assert!(third.contains("the subtree of inode 2 · read-only · root is root"), "{third}");
    let whole = administer(&group, "export", &["1", "--subtree", "/"]);
    assert!(whole.contains("the whole tree · read-only · root is root"), "{whole}");
    {
        let second = SecondMount::new(&group, "");
        assert_eq!(fs::read(second.0.join("theirs/f")).unwrap(), [7; 4096]);
        let write = fs::write(second.0.join("g"), "").unwrap_err();
        assert_eq!(write.raw_os_error(), Some(libc::EROFS));
    }
    let found = administer(&group, "fsck", &["--data"]);
    assert_eq!(
        found.trim(),
        "2 directories, 10 other files, 0 without a name, 4103 bytes read: 0 faults"
    );
}

/// `path` is in a subtree that has room for less than 1 MiB.
fn gathered_writes_fail_where_programs_look(path: &Path) {
    let large = vec![7; 1 << 20];
    let mut file = fs::File::create(path).unwrap();
    let quota = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EDQUOT));
    };
    // Room for it is found out later.
    file.write_all(&large).unwrap();
    quota(file.sync_all());
    file.sync_all().expect("it was told");
    file.write_all(&large).unwrap();
    // Its child closes a copy of the file, and takes the error from nobody.
    assert!(Command::new("true").status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(60);
    // The write after one that has failed is told of it.
    while let Ok(()) = file.write_all(b"x") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    file.write_all(&large).unwrap();
    assert_eq!(nix::unistd::close(file), Err(Errno::EDQUOT));
    // The kernel's page of a write that fails goes with it, though the file itself has not changed.
    let seen = fs::File::options().read(true).write(true).open(path).unwrap();
    seen.set_len(1 << 20).unwrap();
    let mut page = [1; 4];
    seen.read_exact_at(&mut page, 1 << 19).unwrap();
    assert_eq!(page, [0; 4]);
    seen.write_all_at(&large, 0).unwrap();
    quota(seen.sync_all());
    let deadline = Instant::now() + Duration::from_secs(10);
    while page != fs::read(path).unwrap()[1 << 19..][..4] {
        assert!(Instant::now() < deadline, "what was refused is read");
        std::thread::sleep(Duration::from_millis(20));
    }
    seen.set_len(0).unwrap();
    // Who waits for each write is told by the write.
    let mut file = fs::File::options().write(true).custom_flags(libc::O_DSYNC).open(path).unwrap();
    quota(file.write_all(&large));
    file.set_len(0).unwrap();
}

#[test]
fn a_file_that_is_replaced_all_the_time_is_always_there() {
    if !can_mount() {
        return;
    }
    for options in ["", "strict", "nocto"] {
        let mut group = LocalGroup::create(4, 1).unwrap();
        let point = mounted(&mut group, options);
        let (name, new) = (point.join("configuration"), point.join("configuration.new"));
        fs::write(&name, "0").unwrap();
        let end = Instant::now() + Duration::from_secs(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for version in 1.. {
                    fs::write(&new, version.to_string()).unwrap();
                    fs::rename(&new, &name).unwrap();
                    if Instant::now() > end {
                        return;
                    }
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    while Instant::now() < end {
                        let found = fs::read_to_string(&name).expect(options);
                        found.parse::<u64>().unwrap();
                    }
                });
            }
        });
        group.unmount(&point).unwrap();
    }
}

#[test]
fn a_file_that_comes_and_goes_is_there_or_is_not() {
    if !can_mount() {
        return;
    }
    for options in ["", "strict", "nocto"] {
        let mut group = LocalGroup::create(4, 1).unwrap();
        let point = mounted(&mut group, options);
        let name = point.join("lock");
        let end = Instant::now() + Duration::from_secs(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < end {
                    fs::write(&name, "held").unwrap();
                    fs::remove_file(&name).unwrap();
                }
            });
            scope.spawn(|| {
                while Instant::now() < end {
                    match fs::File::open(&name) {
                        Ok(mut file) => {
                            file.read_to_string(&mut String::new()).expect(options);
                        }
                        Err(error) => {
                            let code = error.raw_os_error().unwrap();
                            assert!(
                                [libc::ENOENT, libc::ESTALE].contains(&code),
                                "{options}: {error}"
                            );
                        }
                    }
                }
            });
        });
        group.unmount(&point).unwrap();
    }
}

#[test]
fn a_mount_that_is_ended_while_it_is_used_loses_no_write() {
    if !can_mount() {
        return;
    }
    let mut group = LocalGroup::create(4, 1).unwrap();
    administer(&group, "export", &["1", "--no-root-squash"]);
    let point = mounted(&mut group, "");
    let second = SecondMount::new(&group, "");
    let mut file = fs::File::create(second.0.join("f")).unwrap();
    file.write_all(b"written").unwrap();
    second.end();
    assert_eq!(fs::read_to_string(point.join("f")).unwrap(), "written");
    drop(file);
    group.unmount(&point).unwrap();
}

#[test]
fn two_clients_of_a_group_share_locks_and_open_files() {
    if !can_mount() {
        return;
    }
    let mut group = LocalGroup::create(4, 1).unwrap();
    administer(&group, "export", &["1", "--no-root-squash"]);
    let point = mounted(&mut group, "");
    let second = SecondMount::new(&group, "");
    let open = |folder: &PathBuf| {
        fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("f"))
    };
    let try_lock = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock);
    let (mine, theirs) = (open(&point).unwrap(), open(&second.0).unwrap());
    let mine = try_lock(mine).unwrap();
    let (theirs, error) = try_lock(theirs).unwrap_err();
    assert_eq!(error, Errno::EAGAIN);
    let waiter = std::thread::spawn(move || Flock::lock(theirs, FlockArg::LockExclusive).unwrap());
    std::thread::sleep(Duration::from_millis(1300));
    assert!(!waiter.is_finished());
    let start = Instant::now();
    let mine = mine.unlock().unwrap();
    let theirs = waiter.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    drop(try_lock(mine).unwrap_err());
    // The other one has had it open for a while, so removing it here leaves it alive there.
    let mut theirs = theirs.unlock().unwrap();
    theirs.write_all(b"alive").unwrap();
    fs::remove_file(point.join("f")).unwrap();
    theirs.rewind().unwrap();
    let mut text = String::new();
    theirs.read_to_string(&mut text).unwrap();
    assert_eq!(text, "alive");
    drop(theirs);
    // A client that dies keeps its lock until it is back, or its lease ends.
    let theirs = try_lock(open(&second.0).unwrap()).unwrap();
    second.signal(Signal::SIGKILL);
    // Nobody is there to unlock it.
    std::mem::forget(theirs);
    drop(second);
    drop(try_lock(open(&point).unwrap()).unwrap_err());
    let _again = SecondMount::new(&group, "");
    let deadline = Instant::now() + Duration::from_secs(10);
    while try_lock(open(&point).unwrap()).is_err() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    group.unmount(&point).unwrap();
}

/// Two clients that change and look in turns.
struct Pair {
    group: LocalGroup,
    first: PathBuf,
    second: SecondMount,
}

impl Pair {
    fn new(options: &str) -> Self {
        let mut group = LocalGroup::create(4, 1).unwrap();
        administer(&group, "export", &["1", "--no-root-squash"]);
        let first = mounted(&mut group, options);
        let second = SecondMount::new(&group, options);
        Self { group, first, second }
    }

    fn end(mut self) {
        drop(self.second);
        self.group.unmount(&self.first).unwrap();
    }
}

#[test]
fn appends_under_a_lock_are_all_there() {
    if !can_mount() {
        return;
    }
    for options in ["", "strict"] {
        let pair = Pair::new(options);
        let open =
            |place: &PathBuf| fs::File::options().append(true).create(true).open(place.join("log"));
        let mut handles = [open(&pair.first).unwrap(), open(&pair.second.0).unwrap()];
        for round in 0..20 {
            let file = &mut handles[round % 2];
            let lock = |file: &fs::File, kind| {
                let whole = libc::flock {
                    l_type: kind as i16,
                    l_whence: 0,
                    l_start: 0,
                    l_len: 0,
                    l_pid: 0,
                };
                nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_SETLKW(&whole)).unwrap();
            };
            lock(file, libc::F_WRLCK);
            file.write_all(format!("line {round}\n").as_bytes()).unwrap();
            lock(file, libc::F_UNLCK);
        }
        drop(handles);
        let log = fs::read_to_string(pair.first.join("log")).unwrap();
        assert_eq!(log.lines().count(), 20, "{options}: {log}");
        pair.end();
    }
}

#[test]
fn under_strict_each_client_sees_what_the_other_has_done() {
    if !can_mount() {
        return;
    }
    let pair = Pair::new("strict");
    let places = [&pair.first, &pair.second.0];
    let file = |place: &PathBuf, name: &str| place.join(name);
    fs::write(file(places[0], "f"), "").unwrap();
    // Both have it open all the time, so what one reads was not asked for at open(2).
    let open = |place| fs::File::options().read(true).write(true).open(file(place, "f")).unwrap();
    let handles = [open(places[0]), open(places[1])];
    for round in 0..100usize {
        let (one, other) = (round % 2, 1 - round % 2);
        let text = format!("round {round}: {}", "x".repeat(round * 97 % 5000));
        handles[one].write_all_at(text.as_bytes(), round as u64).unwrap();
        let mut seen = vec![0; text.len()];
        handles[other].read_exact_at(&mut seen, round as u64).unwrap();
        assert_eq!(String::from_utf8(seen).unwrap(), text);
        handles[one].set_len(round as u64).unwrap();
        assert_eq!(handles[other].metadata().unwrap().len(), round as u64);
        let name = format!("g{round}");
        assert!(!file(places[other], &name).exists());
        fs::rename(file(places[one], "f"), file(places[one], &name)).unwrap();
        assert!(file(places[other], &name).exists() && !file(places[other], "f").exists());
        fs::rename(file(places[other], &name), file(places[other], "f")).unwrap();
        assert!(!file(places[one], &name).exists() && file(places[one], "f").exists());
    }
    drop(handles);
    pair.end();
}

#[test]
fn without_questions_at_open_changes_show_within_the_time_that_the_mount_says() {
    if !can_mount() {
        return;
    }
    let pair = Pair::new("actimeo=1,nocto");
    let (writer, reader) = (pair.first.join("f"), pair.second.0.join("f"));
    fs::write(&writer, "0").unwrap();
    // A name that was looked for in vain is not remembered.
    assert_eq!(fs::read_to_string(&reader).unwrap(), "0");
    for round in 1..=4usize {
        let (old, new) = (
            (round - 1).to_string().repeat(round * 3000 - 2999),
            round.to_string().repeat(round * 3000 + 1),
        );
        fs::write(&writer, &new).unwrap();
        let changed = Instant::now();
        loop {
            let asked = changed.elapsed();
            let seen = fs::read_to_string(&reader).unwrap();
            if seen == new {
                break;
            }
            assert!(asked < Duration::from_millis(1500), "{asked:?}: {} bytes", seen.len());
            // What is cached is old as a whole, or ends where the new size has been learnt.
            assert!(old.starts_with(&seen), "{} bytes", seen.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    pair.end();
}

#[test]
fn what_was_closed_is_seen_by_the_next_open_elsewhere() {
    if !can_mount() {
        return;
    }
    // What is known of names and attributes alone would be trusted to the end of the test.
    let pair = Pair::new("actimeo=600");
    let places = [&pair.first, &pair.second.0];
    let file = |place: usize, name: &str| places[place].join(name);
    fs::write(file(0, "f"), "first").unwrap();
    // What is changed under one name shows under the other.
    fs::write(file(0, "g"), "one").unwrap();
    fs::hard_link(file(0, "g"), file(0, "h")).unwrap();
    for round in 0..60usize {
        let (one, other) = (round % 2, 1 - round % 2);
        assert!(fs::metadata(file(other, "f")).unwrap().is_file());
        let text = format!("round {round}: {}", "x".repeat(round * 977 % 50_000));
        match round % 3 {
            0 => fs::write(file(one, "f"), &text).unwrap(),
            1 => {
                let new = file(one, "new");
                fs::write(&new, &text).unwrap();
                fs::rename(new, file(one, "f")).unwrap();
            }
            _ => {
                // In place, of the same size, in many small writes.
                let old = fs::read(file(one, "f")).unwrap();
                let mut f = fs::File::options().write(true).open(file(one, "f")).unwrap();
                let changed: Vec<u8> = old.iter().map(|byte| byte ^ 1).collect();
                changed.chunks(61).for_each(|chunk| f.write_all(chunk).unwrap());
                drop(f);
                assert_eq!(fs::read(file(other, "f")).unwrap(), changed);
                fs::write(file(one, "f"), &text).unwrap();
            }
        }
        assert_eq!(fs::read_to_string(file(other, "f")).unwrap(), text, "round {round}");
        assert_eq!(fs::metadata(file(other, "f")).unwrap().len(), text.len() as u64);
        fs::write(file(one, "g"), &text).unwrap();
        assert_eq!(fs::read_to_string(file(other, "h")).unwrap(), text, "round {round}");
    }
    pair.end();
}

/// What is in a file that it has created itself a mount knows, but no better than the group.
#[test]
fn what_another_has_put_into_a_new_file_is_seen_under_any_name() {
    if !can_mount() {
        return;
    }
    let pair = Pair::new("actimeo=600");
    let (here, there) = (&pair.first, &pair.second.0);
    for how in ["renamed", "linked", "listed"] {
        let mut new = fs::File::options();
        let held = new.read(true).write(true).create_new(true).open(here.join(how)).unwrap();
        assert_eq!(held.read_at(&mut [0], 0).unwrap(), 0);
        fs::write(there.join(how), "another's").unwrap();
        let name = match how {
            "listed" => {
                assert!(fs::read_dir(here).unwrap().count() > 0);
                how.to_owned()
            }
            _ => format!("{how} now"),
        };
        match how {
            "renamed" => fs::rename(there.join(how), there.join(&name)).unwrap(),
            "linked" => fs::hard_link(there.join(how), there.join(&name)).unwrap(),
            _ => {}
        }
        // May see either.
        held.read_at(&mut [0], 0).unwrap();
        assert_eq!(fs::read_to_string(here.join(&name)).unwrap(), "another's", "{how}");
    }
    pair.end();
}

#[test]
fn under_strict_a_new_file_is_held_before_it_is_open() {
    if !can_mount() {
        return;
    }
    let pair = Pair::new("strict");
    for i in 0..20 {
        let name = format!("f{i}");
        let mut new = fs::File::options();
        let file = new.read(true).write(true).create(true).truncate(true);
        let file = file.open(pair.first.join(&name)).unwrap();
        fs::remove_file(pair.second.0.join(&name)).unwrap();
        file.write_all_at(b"still here", 0).unwrap();
        let mut seen = [0; 10];
        file.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"still here");
    }
    pair.end();
}

#[test]
fn who_gets_a_lock_sees_what_was_written_under_it() {
    if !can_mount() {
        return;
    }
    let pair = Pair::new("actimeo=600");
    fs::write(pair.first.join("f"), "").unwrap();
    let open = |place: &PathBuf| fs::File::options().read(true).write(true).open(place.join("f"));
    let handles = [open(&pair.first).unwrap(), open(&pair.second.0).unwrap()];
    let lock = |file: &fs::File, kind| {
        let whole =
            libc::flock { l_type: kind as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_SETLKW(&whole)).unwrap();
    };
    for round in 0..40u64 {
        let (one, other) = (&handles[round as usize % 2], &handles[1 - round as usize % 2]);
        let text = format!("{round:06}").repeat(1 + round as usize * 31);
        lock(one, libc::F_WRLCK);
        text.as_bytes().chunks(6).zip(0..).for_each(|(c, i)| one.write_all_at(c, i * 6).unwrap());
        lock(one, libc::F_UNLCK);
        lock(other, libc::F_RDLCK);
        let mut seen = vec![0; text.len()];
        other.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(String::from_utf8(seen).unwrap(), text);
        lock(other, libc::F_UNLCK);
    }
    drop(handles);
    pair.end();
}

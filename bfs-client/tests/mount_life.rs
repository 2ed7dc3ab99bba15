//! From `bfs mount` to the last trace removed, with everything that can go wrong on the way.

mod common;

use common::{Mounted, Place, errors, eventually, process_exists, sh, text};
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn kill(signal: &str, pid: i32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn fails(output: &Output, code: i32, words: &[&str]) {
    let message = errors(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    for word in words {
        assert!(message.contains(word), "'{word}' is not in: {message}");
    }
    let first_lines = message.lines().filter(|line| line.starts_with("bfs: ")).count();
    assert_eq!(first_lines, 1, "one clear error: {message}");
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

#[test]
fn mount_returns_when_files_work_and_umount_when_all_is_gone() {
    let Some(place) = Place::new() else { return };
    let output = place.mount("");
    succeeds(&output);
    assert!(text(&output).contains("mounted local on"), "{}", text(&output));
    assert!(text(&output).contains("close-to-open"), "{}", text(&output));
    fs::write(place.dir.join("f"), "x").unwrap();
    let line = place.mount_line();
    assert!(line.starts_with("bfs:local ") && line.contains(" fuse.bfs "), "{line}");
    assert!(
        line.contains("nosuid,nodev") && line.contains("default_permissions,allow_other"),
        "{line}"
    );
    let served_by = place.served_by();
    assert_eq!(served_by.len(), 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.beside(&format!("run/{}.json", served_by[0]))), 0o600);
    assert_eq!(mode(&place.beside("run")), 0o700);
    succeeds(&place.umount(&[]));
    assert!(!place.is_mounted() && !process_exists(served_by[0]));
    assert_eq!(place.served_by(), []);
    assert_eq!(fs::read_dir(&place.dir).unwrap().count(), 0);
}

#[test]
fn the_options_reach_the_kernel_and_generic_ones_are_dropped() {
    let Some(m) = Mounted::new("ro,noexec,_netdev,nofail,noauto,x-systemd.automount,noallow_other")
    else {
        return;
    };
    let line = m.0.mount_line();
    assert!(line.contains(" ro,") && line.contains("noexec"), "{line}");
    assert!(!line.contains("allow_other"), "{line}");
}

#[test]
fn what_to_log_reaches_the_serving_process() {
    let Some(place) = Place::new() else { return };
    for (level, told) in [("info", true), ("error", false)] {
        let log = place.beside(level);
        let args = ["mount", "--local", "--log", level, "--log-file"];
        succeeds(&place.bfs(&args).arg(&log).arg(&place.dir).output().unwrap());
        succeeds(&place.umount(&[]));
        let log = fs::read_to_string(log).unwrap();
        assert_eq!(log.contains("mounted local on"), told, "{level}: {log}");
    }
}

#[test]
fn the_serving_process_keeps_nothing_busy_and_outlives_the_terminal() {
    let Some(m) = Mounted::new("") else { return };
    let pid = m.0.served_by()[0];
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session: i32 =
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert_eq!(session, pid, "a session of its own");
}

#[test]
fn what_cannot_be_mounted_on_gets_one_clear_error() {
    let Some(place) = Place::new() else { return };
    let mount = |dir: &Path, options: &str| {
        place.bfs(&["mount", "--local", "-o", options]).arg(dir).output().unwrap()
    };
    fails(&mount(&place.beside("missing"), ""), 1, &["does not exist", "try: mkdir -p"]);
    File::create(place.beside("file")).unwrap();
    fails(&mount(&place.beside("file"), ""), 1, &["is not a directory"]);
    fails(&mount(Path::new("/proc"), ""), 1, &["already a mount point (of type proc)"]);
    fails(&mount(&place.dir, "rw,fast"), 2, &["'fast'", "not known", "close-to-open"]);
    fails(&mount(&place.dir, "timeo=x"), 2, &["'timeo=x'"]);
    succeeds(&place.mount(""));
    fails(&place.mount(""), 1, &["is already mounted there, served by process", "bfs umount"]);
    assert_eq!(place.served_by().len(), 1);
}

/// `bfs mount` in a world made by `prefix`, if that world exists here.
fn mount_under(place: &Place, prefix: &[&str]) -> Option<Output> {
    let under = |args: &[&str]| {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).arg(env!("CARGO_BIN_EXE_bfs")).args(args);
        command.env("BFS_RUNTIME_DIR", place.beside("run"));
        command
    };
    if !under(&["--version"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: {prefix:?} does not work here");
        return None;
    }
    Some(under(&["mount", "--local"]).arg(&place.dir).output().unwrap())
}

#[test]
fn a_machine_without_fuse_gets_one_clear_error() {
    let Some(place) = Place::new() else { return };
    let hide = "mount -t tmpfs none /dev && exec \"$@\"";
    if let Some(output) = mount_under(&place, &["unshare", "-m", "sh", "-c", hide, "sh"]) {
        fails(&output, 1, &["cannot open /dev/fuse", "no FUSE", "try: modprobe fuse"]);
    }
}

#[test]
fn who_may_not_mount_gets_one_clear_error() {
    let Some(place) = Place::new() else { return };
    let powerless = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    if let Some(output) = mount_under(&place, &powerless) {
        fails(&output, 1, &["cannot mount on", "try: "]);
    }
    let somebody = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"];
    if let Some(output) = mount_under(&place, &somebody) {
        fails(&output, 1, &["cannot ", "try: "]);
    }
    assert!(!place.is_mounted());
    assert_eq!(place.served_by(), []);
}

#[test]
fn umount_of_what_is_not_ours_gets_one_clear_error() {
    let Some(place) = Place::new() else { return };
    fails(&place.umount(&[]), 1, &["nothing is mounted there"]);
    let output = place.bfs(&["umount", "/proc"]).output().unwrap();
    fails(&output, 1, &["of type proc"]);
    assert!(Path::new("/proc/self").exists());
    let output = place.bfs(&["umount", "/no/such/place"]).output().unwrap();
    fails(&output, 1, &["No such file"]);
}

/// A process that keeps the mount busy.
fn holder(dir: &Path) -> Child {
    Command::new("sleep").arg("60").current_dir(dir).spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_busy_mount_names_its_holders() {
    let Some(m) = Mounted::new("") else { return };
    fs::create_dir(m.path("in")).unwrap();
    let holder = holder(&m.path("in"));
    let output = m.0.umount(&[]);
    let named =
        format!("sleep (pid {}): working directory {}", holder.id(), m.path("in").display());
    fails(&output, 1, &["in use", &named, "--lazy", "--force"]);
    assert!(m.0.is_mounted());
    end(holder);
    succeeds(&m.0.umount(&[]));
}

#[test]
fn lazy_lets_its_users_finish() {
    let Some(m) = Mounted::new("") else { return };
    fs::write(m.path("f"), "still here").unwrap();
    let mut open = File::open(m.path("f")).unwrap();
    let pid = m.0.served_by()[0];
    succeeds(&m.0.umount(&["--lazy"]));
    assert!(!m.0.is_mounted());
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    drop(open);
    eventually("the end of the serving process", || !process_exists(pid));
}

#[test]
fn force_ends_it_whoever_uses_it() {
    let Some(m) = Mounted::new("strict") else { return };
    fs::write(m.path("f"), "x").unwrap();
    let mut open = File::open(m.path("f")).unwrap();
    let (pid, holder) = (m.0.served_by()[0], holder(m.dir()));
    succeeds(&m.0.umount(&["--force"]));
    assert!(!m.0.is_mounted() && !process_exists(pid));
    assert!(open.read_to_string(&mut String::new()).is_err());
    assert_eq!(m.0.served_by(), []);
    end(holder);
}

#[test]
fn a_stopped_serving_process_does_not_stop_force() {
    let Some(m) = Mounted::new("") else { return };
    let pid = m.0.served_by()[0];
    kill("-STOP", pid);
    succeeds(&m.0.umount(&["--force"]));
    assert!(!m.0.is_mounted() && !process_exists(pid));
}

#[test]
fn the_signal_of_force_answers_everything_with_an_io_error() {
    let Some(m) = Mounted::new("strict") else { return };
    fs::write(m.path("f"), "x").unwrap();
    kill("-USR1", m.0.served_by()[0]);
    let error = || fs::read(m.path("f")).err().and_then(|error| error.raw_os_error());
    eventually("EIO", || error() == Some(Errno::EIO as i32));
    assert!(m.0.is_mounted());
    succeeds(&m.0.umount(&["--force"]));
}

#[test]
fn a_dead_mount_is_found_and_cleaned_by_the_next_mount() {
    let Some(m) = Mounted::new("") else { return };
    let pid = m.0.served_by()[0];
    kill("-9", pid);
    eventually("its death", || !process_exists(pid));
    assert!(m.0.is_mounted());
    eventually("its end in the kernel", || statvfs(m.dir()) == Err(Errno::ENOTCONN));
    let output = m.0.mount("");
    succeeds(&output);
    assert!(errors(&output).contains("detached a dead mount"), "{}", errors(&output));
    fs::write(m.path("f"), "works").unwrap();
    let served_by = m.0.served_by();
    assert!(served_by.len() == 1 && served_by[0] != pid, "{served_by:?}");
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let name = m.0.mount_line().split(' ').nth(1).unwrap().to_owned();
    assert_eq!(
        mounts.lines().filter(|line| line.contains(&name)).count(),
        1,
        "one mount, not a pile"
    );
}

#[test]
fn a_dead_mount_of_unknown_state_is_found_too() {
    let Some(m) = Mounted::new("") else { return };
    let pid = m.0.served_by()[0];
    fs::remove_file(m.0.beside(&format!("run/{pid}.json"))).unwrap();
    let output = m.0.mount("");
    fails(&output, 1, &["bfs:local is already mounted there"]);
    kill("-9", pid);
    eventually("its death", || !process_exists(pid));
    succeeds(&m.0.mount(""));
    fs::write(m.path("f"), "works").unwrap();
}

#[test]
fn a_dead_mount_is_unmounted_even_while_it_is_used() {
    let Some(m) = Mounted::new("") else { return };
    let (pid, holder) = (m.0.served_by()[0], holder(m.dir()));
    kill("-9", pid);
    eventually("its death", || !process_exists(pid));
    succeeds(&m.0.umount(&[]));
    assert!(!m.0.is_mounted());
    assert_eq!(m.0.served_by(), [], "its state is forgotten");
    end(holder);
}

#[test]
fn the_plain_umount_command_ends_the_serving_process_too() {
    let Some(m) = Mounted::new("") else { return };
    let pid = m.0.served_by()[0];
    sh(Path::new("/"), &format!("umount '{}'", m.dir().display()));
    eventually("the end of the serving process", || {
        !process_exists(pid) && m.0.served_by().is_empty()
    });
}

#[test]
fn an_old_serving_process_leaves_a_new_mount_alone() {
    let Some(m) = Mounted::new("") else { return };
    fs::write(m.path("f"), "x").unwrap();
    let open = File::open(m.path("f")).unwrap();
    let old = m.0.served_by()[0];
    succeeds(&m.0.umount(&["--lazy"]));
    succeeds(&m.0.mount(""));
    fs::write(m.path("new"), "x").unwrap();
    drop(open);
    eventually("the end of the old process", || !process_exists(old));
    assert!(m.0.is_mounted());
    assert_eq!(fs::read_to_string(m.path("new")).unwrap(), "x");
}

#[test]
fn terminate_unmounts_cleanly_or_detaches_what_is_busy() {
    for busy in [false, true] {
        let Some(m) = Mounted::new("") else { return };
        let pid = m.0.served_by()[0];
        let holder = busy.then(|| holder(m.dir()));
        kill("-TERM", pid);
        eventually("the end of the serving process", || !process_exists(pid));
        assert!(!m.0.is_mounted());
        assert_eq!(m.0.served_by(), []);
        holder.into_iter().for_each(end);
    }
}

/// A mount in the foreground that is up.
fn in_foreground(place: &Place) -> Child {
    let mut command = place.bfs(&["mount", "--local", "--foreground"]);
    let child =
        command.arg(&place.dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the mount", || !place.served_by().is_empty());
    child
}

#[test]
fn ctrl_c_in_the_foreground_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    let mut child = in_foreground(&place);
    fs::write(place.dir.join("f"), "x").unwrap();
    kill("-INT", i32::try_from(child.id()).unwrap());
    assert!(child.wait().unwrap().success());
    assert!(!place.is_mounted());
    assert_eq!(fs::read_dir(place.beside("run")).unwrap().count(), 0);
}

#[test]
fn an_unmount_ends_the_foreground() {
    let Some(place) = Place::new() else { return };
    let mut child = in_foreground(&place);
    succeeds(&place.umount(&[]));
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_mount_that_nobody_waits_for_is_taken_back() {
    let Some(place) = Place::new() else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = place.bfs(&["mount", "--serve", "--local"]);
    let output = command.arg(&place.dir).stdout(writer).output().unwrap();
    fails(&output, 1, &["did not mount", "the end of the command that asked for it"]);
    assert!(!place.is_mounted());
    assert_eq!(place.served_by(), []);
}

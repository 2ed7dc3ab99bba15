//! The group's own logic, with stand-ins for the two programs: what is left behind, and what errors say.

use super::*;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

const BFS: &str = r#"#!/bin/sh
home=$(dirname "$0")
case "$1 $2" in
"init "*) mkdir -p "$2"; echo client > "$2/public.toml" ;;
"group create") echo "$@" > "$4" ;;
"group show") echo '{"id":"9f3c-77a1"}' ;;
"mount "*)
    echo "$@" > "$home/mount.args"
    if [ -e "$home/refuse" ]; then
        printf 'bfs: cannot open /dev/fuse: this machine has no FUSE\n  try: modprobe fuse\n' >&2
        exit 1
    fi
    if [ -e "$home/hang" ]; then sleep 300 & echo $! > "$home/hanging"; wait; fi ;;
"status "*)
    echo '{"health":"NO SPARE","agreeing":3,"replicas":[{"id":0,"standing":"agrees","primary":false,"view":4},{"id":1,"standing":"suspected","primary":true,"view":4}]}'
    exit 3 ;;
esac
"#;

/// `exec` keeps the process number, so that signals reach what listens.
const REPLICA: &str = r#"#!/bin/sh
home=$(dirname "$0")
if [ "$1" = init ]; then
    mkdir -p "$2"; echo replica > "$2/public.toml"; echo "$4" > "$2/listen"
    exit
fi
if [ -e "$home/die" ]; then
    for n in 1 2 3 4 5 6 7 8 9 10; do echo "line $n" >&2; done
    exit 7
fi
STAND_IN_LISTEN=$(cat "$2/listen") exec "THIS" --exact local_group::tests::stand_in --nocapture
"#;

/// The stand-in for a replica that runs: listens, and ends well on SIGTERM. Does nothing unless it is asked to be one.
#[test]
fn stand_in() {
    let Some(address) = std::env::var_os("STAND_IN_LISTEN") else { return };
    let stop = Stop::on_signals().unwrap();
    let _listener = TcpListener::bind(address.to_str().unwrap()).unwrap_or_else(|error| {
        eprintln!("bfs-replica: cannot listen on {}: {error}", address.display());
        std::process::exit(1)
    });
    stop.sleep(Duration::from_secs(300));
    std::process::exit(0);
}

/// A folder with the stand-ins, where their groups are made too.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "bfs-stand-ins-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let home = std::env::temp_dir().canonicalize().unwrap().join(name);
        fs::create_dir_all(home.join("groups")).unwrap();
        let this = std::env::current_exe().unwrap();
        let replica = REPLICA.replace("THIS", this.to_str().unwrap());
        for (name, text) in [("bfs", BFS), ("bfs-replica", &replica)] {
            let path = home.join(name);
            // Written by another process: one that is forked meanwhile by another test must not hold it open for writing.
            let script =
                format!("cat > '{}' <<'END_OF_SCRIPT'\n{text}END_OF_SCRIPT\n", path.display());
            assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(home)
    }

    fn set(&self, mode: &str) {
        fs::write(self.0.join(mode), "").unwrap();
    }

    fn plan(&self, stop: &Stop) -> Plan {
        let programs = Programs { bfs: self.0.join("bfs"), replica: self.0.join("bfs-replica") };
        Plan { programs, n: 4, f: 1, parent: self.0.join("groups"), stop: stop.clone() }
    }

    fn group(&self) -> LocalGroup {
        LocalGroup::start(&self.plan(&Stop::default())).unwrap()
    }

    fn groups(&self) -> usize {
        fs::read_dir(self.0.join("groups")).unwrap().count()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn exists(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn running(group: &LocalGroup) -> Vec<u32> {
    group.pids().into_iter().flatten().collect()
}

#[test]
fn a_dropped_group_leaves_no_process_and_no_folder() {
    let home = Home::new();
    let group = home.group();
    assert_eq!((group.id(), home.groups()), ("9f3c-77a1", 1));
    let created = fs::read_to_string(group.group_file()).unwrap();
    assert!(
        created.contains("--f 1 --memory 4GiB --replica")
            && created.contains("r3/public.toml --client"),
        "{created}"
    );
    assert_eq!(fs::metadata(group.dir()).unwrap().permissions().mode() & 0o777, 0o700);
    let pids = running(&group);
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|pid| exists(*pid)));
    assert!(group.resident_bytes(0).unwrap() > 100_000);
    drop(group);
    assert!(!pids.iter().any(|pid| exists(*pid)));
    assert_eq!(home.groups(), 0);
}

#[test]
fn a_panic_leaves_nothing_either_even_with_a_paused_replica() {
    let home = Home::new();
    let mut pids = Vec::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let group = home.group();
        pids = running(&group);
        group.pause(1).unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err() && pids.len() == 4);
    assert!(!pids.iter().any(|pid| exists(*pid)));
    assert_eq!(home.groups(), 0);
}

#[test]
fn replicas_are_killed_stopped_and_started_again() {
    let home = Home::new();
    let mut group = home.group();
    let pids = running(&group);
    group.kill(2).unwrap();
    assert!(!exists(pids[2]) && !group.is_running(2) && group.is_running(1));
    assert!(group.kill(2).unwrap_err().to_string().contains("r2"));
    group.pause(3).unwrap();
    group.stop(3).unwrap();
    assert!(!exists(pids[3]) && group.pids()[3].is_none());
    group.start_replica(2).unwrap();
    assert!(group.is_running(2) && group.pids()[2] != Some(pids[2]));
    assert!(group.start_replica(2).unwrap_err().to_string().contains("runs already"));
}

#[test]
fn a_replica_that_does_not_start_shows_the_end_of_its_log() {
    let home = Home::new();
    home.set("die");
    let failure =
        LocalGroup::start(&home.plan(&Stop::default())).map(|_| ()).unwrap_err().to_string();
    assert!(failure.contains("r0 did not start") && failure.contains("7"), "{failure}");
    assert!(failure.contains("line 3\n") && failure.contains("line 10"), "{failure}");
    assert!(!failure.contains("line 2\n"), "{failure}");
    assert_eq!(home.groups(), 0);
}

#[test]
fn a_replica_that_is_down_keeps_its_port() {
    let home = Home::new();
    let mut group = home.group();
    group.stop(2).unwrap();
    let taken = SocketAddr::from((Ipv4Addr::LOCALHOST, group.port(2)));
    let stranger = TcpSocket::new_v4().unwrap().bind(taken).unwrap_err();
    assert_eq!(stranger.kind(), io::ErrorKind::AddrInUse);
    group.start_replica(2).unwrap();
}

#[test]
fn mounting_passes_options_on_and_its_error_is_what_the_program_says() {
    let home = Home::new();
    let mut group = home.group();
    let dir = group.dir().join("mnt");
    group.mount(&dir, "strict,ro").unwrap();
    let arguments = fs::read_to_string(home.0.join("mount.args")).unwrap();
    let key = format!("--key {}", group.key_dir().display());
    assert!(arguments.contains("-o strict,ro") && arguments.contains(&key), "{arguments}");
    home.set("refuse");
    let failure = group.mount(&dir, "").unwrap_err();
    assert_eq!(failure.message, "cannot open /dev/fuse: this machine has no FUSE");
    assert_eq!(failure.advice.as_deref(), Some("modprobe fuse"));
}

#[test]
fn a_stop_ends_a_command_that_hangs_with_all_its_processes() {
    let home = Home::new();
    home.set("hang");
    let stop = Stop::default();
    let mut group = LocalGroup::start(&home.plan(&stop)).unwrap();
    let dir = group.dir().join("mnt");
    let hanging = home.0.join("hanging");
    let failure = thread::scope(|scope| {
        scope.spawn(|| {
            while fs::read_to_string(&hanging).unwrap_or_default().is_empty() {
                thread::sleep(POLL);
            }
            stop.request();
        });
        group.mount(&dir, "").unwrap_err()
    });
    assert!(failure.to_string().contains("stopped"), "{failure}");
    let pid: u32 = fs::read_to_string(&hanging).unwrap().trim().parse().unwrap();
    let deadline = Instant::now() + END_LIMIT;
    while exists(pid) {
        assert!(Instant::now() < deadline, "it still runs");
        thread::sleep(POLL);
    }
}

#[test]
fn a_degraded_status_is_an_answer() {
    let home = Home::new();
    let status = home.group().status().unwrap();
    assert_eq!((status.health.as_str(), status.agreeing), ("NO SPARE", 3));
    assert_eq!(status.primary(), Some((1, 4)));
    assert_eq!(status.standing(1).as_deref(), Some("suspected"));
    assert_eq!(status.standing(7), None);
}

#[test]
fn work_is_supervised_from_here_and_its_panic_is_passed_on() {
    let home = Home::new();
    let mut group = home.group();
    let (told, hears) = std::sync::mpsc::channel();
    let mut killed = false;
    let heard = group.supervise(
        move || hears.recv().unwrap(),
        |group| {
            if !killed {
                group.kill(2).unwrap();
                killed = true;
                told.send(42).unwrap();
            }
        },
    );
    assert_eq!((heard, group.is_running(2)), (42, false));
    let panicked =
        catch_unwind(AssertUnwindSafe(|| group.supervise(|| panic!("on purpose"), |_| {})));
    assert!(panicked.is_err());
}

#[test]
fn what_runs_on_after_all_can_be_left() {
    let home = Home::new();
    let group = home.group();
    let (pids, dir) = (running(&group), group.dir().to_owned());
    group.leave_running();
    assert!(pids.iter().all(|pid| exists(*pid)) && dir.is_dir());
    for pid in pids {
        kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    }
}

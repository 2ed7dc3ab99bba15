//! Clients that come and go while a group runs, as users meet it.

use bfs_client::local_group::LocalGroup;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const USAGE: i32 = 2;
const KEYS: i32 = 6;

struct Desk {
    group: LocalGroup,
    key: PathBuf,
}

impl Desk {
    /// A group, and the keys of somebody whom it does not know.
    fn new() -> Self {
        let group = LocalGroup::create(4, 1).unwrap();
        let key = group.dir().join("newcomer");
        let desk = Self { group, key };
        let made = desk.bfs(&["init", "--name", "newcomer"], &[&desk.key]);
        assert!(made.status.success(), "{}", text(&made));
        desk
    }

    fn bfs(&self, words: &[&str], paths: &[&Path]) -> Output {
        let mut command = Command::new(&self.group.programs().bfs);
        command.env("BFS_RUNTIME_DIR", self.group.dir().join("run")).args(words).args(paths);
        command.output().unwrap()
    }

    /// `bfs client VERB GROUP …` by the keys in `key`.
    fn client(&self, verb: &str, key: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.group.programs().bfs);
        command.args(["client", verb]).arg(self.group.group_file()).args(arguments);
        command.arg("--key").arg(key).output().unwrap()
    }

    fn public(&self) -> String {
        self.key.join("public.toml").to_str().unwrap().into()
    }

    fn administrator(&self) -> PathBuf {
        self.group.key_dir()
    }

    fn list(&self) -> String {
        let listed = self.client("list", &self.administrator(), &[]);
        assert!(listed.status.success(), "{}", text(&listed));
        String::from_utf8(listed.stdout).unwrap()
    }

    fn mount(&self, point: &Path) -> Output {
        let mut command = Command::new(&self.group.programs().bfs);
        command.env("BFS_RUNTIME_DIR", self.group.dir().join("run"));
        command.arg("mount").arg(self.group.group_file()).arg(point);
        command.arg("--key").arg(&self.key).output().unwrap()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_client_is_added_to_a_running_group_and_revoked() {
    let able = nix::unistd::geteuid().is_root() && fs::File::open("/dev/fuse").is_ok();
    let mut desk = Desk::new();
    // Nobody knows it yet.
    let stranger = desk.client("list", &desk.key, &[]);
    assert_eq!(stranger.status.code(), Some(KEYS), "{}", text(&stranger));
    assert!(text(&stranger).contains("bfs client add"), "{}", text(&stranger));
    let status = desk.bfs(&["status"], &[&desk.group.group_file(), Path::new("--key"), &desk.key]);
    assert_eq!(status.status.code(), Some(KEYS), "{}", text(&status));
    assert!(text(&status).contains("bfs client add"), "{}", text(&status));
    // One replica is away while it is added, and learns of it when it is back.
    desk.group.kill(3).unwrap();
    let added = desk.client("add", &desk.administrator(), &[&desk.public()]);
    assert!(added.status.success(), "{}", text(&added));
    assert!(text(&added).contains("is newcomer"), "{}", text(&added));
    assert!(desk.list().contains("newcomer"));
    let again = desk.client("add", &desk.administrator(), &[&desk.public()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("another client has one of these keys"), "{}", text(&again));
    let listed = desk.client("list", &desk.key, &[]);
    assert!(listed.status.success(), "{}", text(&listed));
    let presumption = desk.client("revoke", &desk.key, &["newcomer"]);
    assert!(text(&presumption).contains("only the administrator may"), "{}", text(&presumption));
    desk.group.start_replica(3).unwrap();
    until_healthy(&desk.group);
    desk.group.kill(0).unwrap();
    // Now the one that was away is needed.
    let listed = desk.client("list", &desk.key, &[]);
    assert!(listed.status.success(), "{}", text(&listed));
    if able {
        work_until_revoked(&desk);
    }
    let unknown = desk.client("revoke", &desk.administrator(), &["nobody"]);
    assert_eq!(unknown.status.code(), Some(USAGE), "{}", text(&unknown));
    if !able {
        let revoked = desk.client("revoke", &desk.administrator(), &["newcomer"]);
        assert!(revoked.status.success(), "{}", text(&revoked));
    }
    assert!(!desk.list().contains("newcomer"));
    let gone = desk.client("list", &desk.key, &[]);
    assert_eq!(gone.status.code(), Some(KEYS), "{}", text(&gone));
}

/// The newcomer mounts and works; its mount fails at once when it is revoked, and for good.
fn work_until_revoked(desk: &Desk) {
    let point = desk.group.dir().join("theirs");
    fs::create_dir(&point).unwrap();
    let mounted = desk.mount(&point);
    assert!(mounted.status.success(), "{}", text(&mounted));
    fs::write(point.join("f"), "before").unwrap();
    let revoked = desk.client("revoke", &desk.administrator(), &["newcomer"]);
    assert!(revoked.status.success(), "{}", text(&revoked));
    let asked = Instant::now();
    let error = fs::write(point.join("g"), "after").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let unmounted = desk.bfs(&["umount", "--force"], &[&point]);
    assert!(unmounted.status.success(), "{}", text(&unmounted));
}

fn until_healthy(group: &LocalGroup) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while group.status().map(|status| status.health).unwrap_or_default() != "HEALTHY" {
        assert!(Instant::now() < deadline, "not healthy in time");
        std::thread::sleep(Duration::from_millis(100));
    }
}

//! What `bfs-replica` says when something is wrong, and that it stops when it is asked.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("bfs-replica-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bfs-replica"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn init(dir: &Path, listen: &str) -> Output {
    program().arg("init").arg(dir).args(["--listen", listen]).output().unwrap()
}

fn run(dir: &Path, more: &[&str]) -> Output {
    program().arg("run").arg(dir).args(more).output().unwrap()
}

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A replica that is a whole group: its folder and its port.
fn group_of_one(folder: &Folder) -> (PathBuf, u16) {
    let (dir, port) = (folder.join("r0"), port());
    assert!(init(&dir, &format!("127.0.0.1:{port}")).status.success());
    let public = fs::read_to_string(dir.join("public.toml")).unwrap();
    let group = format!("name = \"one\"\nf = 0\nmemory = \"64MiB\"\n[[replica]]\n{public}");
    fs::write(dir.join("group.toml"), group).unwrap();
    (dir, port)
}

/// The command failed with this code, and said all of these words in one message.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no '{word}' in: {said}");
    }
}

#[test]
fn a_folder_without_settings_is_refused() {
    let folder = Folder::new("settings");
    refused(&run(&folder.join("nowhere"), &[]), 1, &["replica.toml", "bfs-replica init"]);
    let (dir, _) = group_of_one(&folder);
    fs::write(dir.join("replica.toml"), "listen = \"127.0.0.1:1\"\ncolour = 3\n").unwrap();
    refused(&run(&dir, &[]), 1, &["replica.toml", "colour"]);
}

#[test]
fn a_group_file_that_is_missing_or_wrong_is_refused() {
    let folder = Folder::new("group");
    let (dir, _) = group_of_one(&folder);
    refused(
        &run(&dir, &["--group", "/nowhere/group.toml"]),
        6,
        &["/nowhere/group.toml", "bfs group create"],
    );
    let text = fs::read_to_string(dir.join("group.toml")).unwrap();
    fs::write(dir.join("group.toml"), text.replace("f = 0", "f = 1")).unwrap();
    refused(&run(&dir, &[]), 6, &["f = 1", "4 to 64 replicas"]);
}

#[test]
fn keys_that_others_could_read_or_that_the_group_does_not_list_are_refused() {
    let folder = Folder::new("keys");
    let (dir, _) = group_of_one(&folder);
    let key = dir.join("signing.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&run(&dir, &[]), 6, &["signing.key", "0644", "chmod 600"]);
    let other = folder.join("other");
    assert!(init(&other, "127.0.0.1:1").status.success());
    let group = dir.join("group.toml");
    refused(&run(&other, &["--group", group.to_str().unwrap()]), 6, &["not a replica's of group"]);
}

#[test]
fn keys_are_made_once() {
    let folder = Folder::new("once");
    let dir = folder.join("r0");
    assert!(init(&dir, "127.0.0.1:1").status.success());
    let before = fs::read(dir.join("link.key")).unwrap();
    refused(&init(&dir, "127.0.0.1:1"), 6, &["link.key", "exist"]);
    assert_eq!(fs::read(dir.join("link.key")).unwrap(), before);
    let mode = fs::metadata(dir.join("link.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_port_in_use_and_an_unknown_option_are_refused() {
    let folder = Folder::new("port");
    let (dir, port) = group_of_one(&folder);
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    refused(&run(&dir, &[]), 1, &[&port.to_string(), "--listen"]);
    refused(&run(&dir, &["--colour"]), 2, &["--colour"]);
}

fn serve(dir: &Path, port: u16) -> Child {
    let child = program().arg("run").arg(dir).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn it_stops_when_it_is_asked_and_strangers_do_not_stop_it() {
    let folder = Folder::new("stop");
    let (dir, port) = group_of_one(&folder);
    for signal in ["TERM", "INT"] {
        let mut child = serve(&dir, port);
        for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0xff; 300], b"BFS\0", b""] {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            // It may hang up before all is written.
            let _ = std::io::Write::write_all(&mut stream, garbage);
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none(), "garbage ended it");
        let kill =
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert!(child.wait().unwrap().success(), "SIG{signal} is a clean end");
    }
}

#[test]
fn one_folder_is_run_by_one_process() {
    let folder = Folder::new("twice");
    let (dir, first) = group_of_one(&folder);
    let mut child = serve(&dir, first);
    let second = format!("127.0.0.1:{}", port());
    let alone = ["for this process alone", "stop the bfs-replica"];
    refused(&run(&dir, &["--listen", &second]), 1, &alone);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = serve(&dir, first);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_production_build_does_not_attack() {
    let folder = Folder::new("attack");
    let (dir, _) = group_of_one(&folder);
    let refusal = ["cannot attack by B-01", "production build", "bfs-replica-lab"];
    refused(&run(&dir, &["--attack", "B-01"]), 2, &refusal);
    let program = fs::read(env!("CARGO_BIN_EXE_bfs-replica")).unwrap();
    let holds = |words: &[u8]| program.windows(words.len()).any(|window| window == words);
    assert!(holds(b"production build"));
    assert!(!holds(b"different requests for each half"), "it holds the catalogue of attacks");
}

#[cfg(feature = "lab")]
mod lab {
    use super::*;

    fn lab() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bfs-replica-lab"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Waits until the replica in `dir` says these words of itself.
    fn says(dir: &Path, words: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let said = || fs::read_to_string(dir.join("lab.json")).unwrap_or_default();
        while !said().contains(words) {
            assert!(Instant::now() < deadline, "no {words} in {}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn it_says_what_it_is_and_which_attacks_there_are() {
        let version = lab().arg("--version").output().unwrap();
        assert!(String::from_utf8_lossy(&version.stdout).contains("LAB BUILD"));
        let folder = Folder::new("lab-names");
        let (dir, _) = group_of_one(&folder);
        let output = lab().arg("run").arg(&dir).args(["--attack", "B-99"]).output().unwrap();
        refused(&output, 2, &["cannot attack by B-99", "B-01", "B-48"]);
        let client = lab().arg("run").arg(&dir).args(["--attack", "B-50"]).output().unwrap();
        refused(&client, 2, &["no attack of replicas"]);
    }

    #[test]
    fn the_documentation_lists_the_whole_catalogue() {
        let documented = include_str!("../../docs/attacks.md");
        for attack in bft_sim::adversary::ATTACKS {
            let row =
                documented.lines().find(|row| row.starts_with(&format!("| {} |", attack.name)));
            let row = row.unwrap_or_else(|| panic!("{} is not in docs/attacks.md", attack.name));
            assert!(row.contains(attack.title) && row.contains(attack.expected), "{row}");
        }
    }

    #[test]
    fn it_begins_and_ends_attacks_as_it_is_told_and_forgets_them_when_it_starts() {
        let folder = Folder::new("lab-orders");
        let (dir, _) = group_of_one(&folder);
        let mut child = lab().arg("run").arg(&dir).args(["--attack", "b-48"]).spawn().unwrap();
        says(&dir, "\"attack\":\"B-48\"");
        fs::write(dir.join("attack"), "B-99").unwrap();
        says(&dir, "no attack of replicas is called ");
        fs::write(dir.join("attack"), "B-01 1 2").unwrap();
        says(&dir, "\"attack\":\"B-01\"");
        fs::write(dir.join("attack"), "").unwrap();
        says(&dir, "\"attack\":null,\"refused\":null");
        fs::write(dir.join("attack"), "B-01").unwrap();
        says(&dir, "\"attack\":\"B-01\"");
        child.kill().unwrap();
        child.wait().unwrap();
        let mut child = lab().arg("run").arg(&dir).spawn().unwrap();
        says(&dir, "\"attack\":null");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

//! `bfs init` and `bfs group` as a user types them.

mod common;

use common::{Place, errors, text};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("bfs-keys-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bfs"));
        command.args(line.split_whitespace()).current_dir(&self.0);
        command.env("BFS_RUNTIME_DIR", self.0.join("run"));
        command
    }

    fn bfs(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn done(&self, line: &str) -> String {
        let output = self.bfs(line);
        assert!(output.status.success(), "{line}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, line: &str, code: i32, words: &[&str]) {
        let output = self.bfs(line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output));
        for word in words {
            assert!(errors(&output).contains(word), "'{word}' is not in: {}", errors(&output));
        }
    }

    /// The public files of replicas and one client, made from clients' keys by giving them addresses.
    fn members(&self, replicas: usize) -> String {
        let mut line = String::from("--replica");
        for i in 0..replicas {
            self.done(&format!("init r{i} --name r{i}"));
            let path = self.0.join(format!("r{i}/public.toml"));
            let public = fs::read_to_string(&path).unwrap();
            let replica = public.replace(
                &format!("name = \"r{i}\""),
                &format!("address = \"127.0.0.1:{}\"", 7100 + i),
            );
            assert_ne!(public, replica);
            fs::write(&path, replica).unwrap();
            line.push_str(&format!(" r{i}/public.toml"));
        }
        self.done("init me --name alice");
        line + " --client me/public.toml"
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn keys_are_made_once_and_only_their_owner_reads_them() {
    let folder = Folder::new();
    let said = folder.done("init new/keys --name alice");
    assert!(said.contains("alice") && said.contains("public.toml"), "{said}");
    let mode = |name: &str| fs::metadata(folder.0.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("new/keys"), mode("new/keys/link.key"), mode("new/keys/signing.key")),
        (0o700, 0o600, 0o600)
    );
    let before = fs::read(folder.0.join("new/keys/link.key")).unwrap();
    folder.refused("init new/keys", 6, &["exists", "try: "]);
    assert_eq!(fs::read(folder.0.join("new/keys/link.key")).unwrap(), before);
}

#[test]
fn a_group_is_described_and_shown() {
    let folder = Folder::new();
    let members = folder.members(4);
    let said = folder
        .done(&format!("group create --output g.toml --f 1 --name team --memory 512MiB {members}"));
    let shown = folder.done("group show g.toml");
    let id = shown.split_whitespace().nth(1).unwrap();
    assert!(said.contains(&format!("group {id} (team): 4 replicas, 1 clients")), "{said}");
    for line in ["any 1 of which", "512MiB", "r3    127.0.0.1:7103", "c0    alice"] {
        assert!(shown.contains(line), "'{line}' is not in {shown}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&folder.done("group show g.toml --json")).unwrap();
    assert_eq!(
        (json["id"].as_str(), json["f"].as_u64(), json["quorum"].as_u64()),
        (Some(id), Some(1), Some(3))
    );
    assert_eq!(json["clients"][0], "alice");
    // Again with the same content changes nothing; with other content it is refused, with what differs.
    folder.done(&format!("group create --output g.toml --name team --memory 512MiB {members}"));
    folder.refused(
        &format!("group create --output g.toml --name team --memory 1GiB {members}"),
        1,
        &["describes another group", "- memory = \"512MiB\"", "+ memory = \"1GiB\""],
    );
}

#[test]
fn a_command_that_nobody_reads_ends_quietly() {
    let folder = Folder::new();
    let members = folder.members(4);
    folder.done(&format!("group create --output g.toml {members}"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child =
        folder.command("group show g.toml").stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().signal(), said.as_str()), (Some(libc::SIGPIPE), ""));
}

#[test]
fn an_impossible_group_is_refused_with_a_reason() {
    let folder = Folder::new();
    let members = folder.members(3);
    folder.refused(&format!("group create --output g --f 1 {members}"), 1, &["f = 1 needs 4"]);
    folder.refused(&format!("group create --output g --memory lots {members}"), 2, &["lots"]);
    folder.refused(
        "group create --output g --replica me/public.toml",
        1,
        &["is a client's", "--client"],
    );
    folder.refused(
        "group create --output g --replica r0/public.toml --client r1/public.toml",
        1,
        &["is a replica's"],
    );
    folder.refused(
        "group create --output g --replica r0/public.toml r0/public.toml",
        1,
        &["two replicas"],
    );
    folder.refused(
        "group create --output g --replica none.toml",
        6,
        &["none.toml", "No such file"],
    );
    folder.refused("group create --output g", 2, &["--replica"]);
    assert!(!folder.0.join("g").exists());
}

#[test]
fn a_wrong_group_file_is_refused() {
    let folder = Folder::new();
    folder.refused("group show none.toml", 6, &["none.toml", "No such file"]);
    fs::write(folder.0.join("g.toml"), "name = 7").unwrap();
    folder.refused("group show g.toml", 6, &["g.toml", "name"]);
}

#[test]
fn a_mount_with_a_wrong_group_or_wrong_keys_is_refused_before_anything_is_mounted() {
    let Some(place) = Place::new() else { return };
    let folder = Folder::new();
    let members = folder.members(1);
    folder.done(&format!("group create --output g.toml {members}"));
    folder.done("init stranger");
    fs::create_dir(folder.0.join("mnt")).unwrap();
    let mode = |mode| {
        let key = folder.0.join("me/link.key");
        fs::set_permissions(key, fs::Permissions::from_mode(mode)).unwrap();
    };
    folder.refused("mount none.toml mnt --key me", 6, &["none.toml", "No such file"]);
    folder.refused("mount g.toml mnt --key nowhere", 6, &["nowhere", "bfs init"]);
    folder.refused("mount g.toml mnt --key stranger", 6, &["does not list them"]);
    mode(0o640);
    folder.refused("mount g.toml mnt --key me", 6, &["link.key", "0640", "chmod 600"]);
    folder.refused("status g.toml --key me", 6, &["link.key", "0640"]);
    mode(0o600);
    folder.refused("mount g.toml mnt --key me -o nonsense", 2, &["'nonsense'"]);
    assert!(!place.is_mounted());
}

#[test]
fn the_status_of_a_group_that_is_down_is_stalled_with_its_own_exit_code() {
    let folder = Folder::new();
    let members = folder.members(4);
    folder.done(&format!("group create --output g.toml {members}"));
    let output = folder.bfs("status g.toml --key me --json");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (report["health"].as_str(), report["agreeing"].as_u64()),
        (Some("STALLED"), Some(0))
    );
    assert_eq!(report["replicas"][3]["reachable"], false);
}

/// What is done is done, whether anybody can be told or not.
#[test]
fn a_standard_output_that_takes_nothing_is_no_panic() {
    let folder = Folder::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = folder.command("init full").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(errors(&output).contains("did what was asked"), "{}", errors(&output));
    assert!(folder.0.join("full/public.toml").exists());

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = folder.command("init unread").stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(errors(&output), "");
}

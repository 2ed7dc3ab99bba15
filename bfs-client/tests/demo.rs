//! The demo as a user runs it: real processes, a real mount, and nothing left behind.
//!
//! Needs the built programs beside this test and, for most of it, a machine that can mount; says so where it has not.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The demo's command, with a folder for temporary files of its own; nothing where it cannot run.
struct Demo {
    bfs: PathBuf,
    temporary: PathBuf,
}

impl Demo {
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: only root mounts here");
            return None;
        }
        if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            println!("skipped: /dev/fuse: {error}");
            return None;
        }
        Some(Self::anywhere(name))
    }

    /// For what needs no mount.
    fn anywhere(name: &str) -> Self {
        let bfs = PathBuf::from(env!("CARGO_BIN_EXE_bfs"));
        for program in ["bfs-replica-lab", "bfs-client-lab"] {
            assert!(
                bfs.with_file_name(program).is_file(),
                "first: cargo build --release --bins --features bfs-replica/lab"
            );
        }
        let temporary =
            std::env::temp_dir().join(format!("bfs-demo-test-{name}-{}", std::process::id()));
        fs::create_dir(&temporary).unwrap();
        Self { bfs, temporary: temporary.canonicalize().unwrap() }
    }

    fn start(&self, more: &[&str]) -> Child {
        let mut demo = Command::new(&self.bfs);
        demo.arg("demo").args(more).arg("--json").arg(self.json()).env("TMPDIR", &self.temporary);
        demo.stdout(Stdio::piped()).spawn().unwrap()
    }

    fn json(&self) -> PathBuf {
        self.temporary.join("out.json")
    }

    /// What is still there of it: folders, mounts and processes that name its folder.
    fn left_behind(&self) -> Vec<String> {
        let place = self.temporary.to_str().unwrap();
        let folders = fs::read_dir(&self.temporary).unwrap().map(|entry| entry.unwrap().path());
        let folders =
            folders.filter(|path| *path != self.json()).map(|path| path.display().to_string());
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(place)).map(str::to_owned);
        let processes = fs::read_dir("/proc").unwrap().filter_map(|process| {
            let line = fs::read(process.unwrap().path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(place).then_some(line)
        });
        folders.chain(mounts).chain(processes).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // What a failed test leaves may still be mounted: only what is the test's own goes.
        let _ = fs::remove_file(self.json());
        let _ = fs::remove_dir(&self.temporary);
    }
}

/// One demo at a time: the machine should be busy with one.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn one_replica_after_the_other_is_compromised_and_everything_holds() {
    let _alone = alone();
    let Some(demo) = Demo::new("whole") else { return };
    let output = demo.start(&[]).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for step in 1..=6 {
        assert!(text.contains(&format!("[{step}/6]")), "{text}");
    }
    let out: serde_json::Value = serde_json::from_slice(&fs::read(demo.json()).unwrap()).unwrap();
    assert_eq!((&out["replicas"], &out["f"], &out["errors"]), (&4.into(), &1.into(), &0.into()));
    assert_eq!(out["digests_match"], true);
    assert_eq!((&out["git_fsck"], &out["sqlite"]), (&"ok".into(), &"ok".into()));
    assert!(out["compiled"].as_u64().unwrap() >= 60 && out["files"].as_u64().unwrap() > 100);
    assert!(out["commits"].as_u64().unwrap() > 0 && out["rows"].as_u64().unwrap() > 0);
    let attacks = out["attacks"].as_array().unwrap();
    expect_survived(attacks);
    // Only a mount tells `bfs status` what it saw outvoted.
    for liar in attacks.iter().filter(|attack| attack["outvoted"].as_u64() > Some(0)) {
        assert_eq!(liar["standing"], "proved faulty", "{liar}");
    }
    let operations = out["series"]["operations"].as_array().unwrap();
    let seconds = operations.len() as f64 * out["series"]["step_ms"].as_f64().unwrap() / 1000.0;
    let last = attacks.last().unwrap()["at_seconds"].as_f64().unwrap();
    assert!(seconds >= last, "{seconds} s of throughput, the last attack began at {last} s");
    assert!(operations.iter().map(|n| n.as_u64().unwrap()).sum::<u64>() > 500);
    assert!(attacks.iter().any(|attack| attack["view_changes"].as_u64().unwrap() > 0));
    assert!(out["control"]["corrupted_reads"].as_u64().unwrap() > 0, "it harms nobody");
    assert_eq!(demo.left_behind(), Vec::<String>::new());
    let svg = demo.temporary.join("run.svg");
    let mut draw = Command::new(&demo.bfs);
    draw.args(["demo", "--picture"]).arg(demo.json()).arg("--svg").arg(&svg);
    assert!(draw.status().unwrap().success());
    let picture = fs::read_to_string(&svg).unwrap();
    fs::remove_file(&svg).unwrap();
    assert_eq!(picture.matches("data-attack=").count(), attacks.len());
}

/// Every attack was made, and nobody noticed.
fn expect_survived(attacks: &[serde_json::Value]) {
    assert!(attacks.len() >= 10);
    for attack in attacks {
        assert_eq!((&attack["client_errors"], &attack["recovered"]), (&0.into(), &true.into()));
        let by_messages = attack["id"] != "wipe";
        let did =
            ["forged", "withheld", "delayed", "ignored"].map(|name| attack[name].as_u64().unwrap());
        assert!(!by_messages || did.iter().sum::<u64>() > 0, "{attack}");
    }
    let of = |id: &str| attacks.iter().find(|attack| attack["id"] == id).unwrap();
    for liar in ["forged-files", "B-47", "B-48"] {
        assert!(of(liar)["outvoted"].as_u64().unwrap() > 20, "{}", of(liar));
    }
    assert_eq!(of("B-35")["standing"], "proved faulty");
}

#[test]
fn without_a_mount_the_built_in_client_is_attacked_all_the_same() {
    let _alone = alone();
    let demo = Demo::anywhere("unmounted");
    let output = demo.start(&["--no-mount"]).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("nothing is mounted: --no-mount says so"), "{text}");
    let out: serde_json::Value = serde_json::from_slice(&fs::read(demo.json()).unwrap()).unwrap();
    assert_eq!((&out["mounted"], &out["errors"]), (&false.into(), &0.into()), "{text}");
    // What did not run is not said to be well.
    let skipped = "skipped: nothing is mounted";
    assert_eq!((&out["git_fsck"], &out["sqlite"]), (&skipped.into(), &skipped.into()));
    assert_eq!((&out["compiled"], &out["commits"]), (&0.into(), &0.into()));
    assert_eq!(out["digests_match"], true);
    assert!(out["files"].as_u64().unwrap() > 100, "{text}");
    expect_survived(out["attacks"].as_array().unwrap());
    assert!(out["control"]["corrupted_reads"].as_u64().unwrap() > 0, "it harms nobody");
    assert_eq!(demo.left_behind(), Vec::<String>::new());
}

/// Nothing is started, so it needs no mount.
#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let bfs = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bfs")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = bfs(&["demo", "--break-it", "--keep"]);
    assert!(code == Some(2) && said.contains("cannot be used with"), "{said}");
    let (code, said) = bfs(&["demo", "--picture", "/nowhere.json"]);
    assert!(code == Some(2) && said.contains("--svg"), "{said}");
    let (code, said) = bfs(&["demo", "--picture", "/nowhere.json", "--svg", "/tmp/never.svg"]);
    assert!(code == Some(1) && said.contains("./x demo --json FILE"), "{said}");
}

#[test]
fn a_recording_holds_what_was_shown_in_every_form() {
    let _alone = alone();
    let Some(demo) = Demo::new("recorded") else { return };
    let dir = demo.temporary.join("recording");
    let mut record = Command::new(&demo.bfs);
    record.arg("demo").arg("--record").arg(&dir).env("TMPDIR", &demo.temporary);
    let output = record.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let (text, cast) = (read("demo.txt"), read("demo.cast"));
    assert!(text.contains("[1/6]") && text.contains("verdict") && !text.contains('\x1b'), "{text}");
    let mut lines =
        cast.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert_eq!(lines.next().unwrap()["version"], 2);
    let events: Vec<_> = lines.collect();
    assert!(events.windows(2).all(|two| two[0][0].as_f64() <= two[1][0].as_f64()));
    let seen: String = events.iter().map(|event| event[2].as_str().unwrap()).collect();
    assert!(seen.contains("\x1b[1m[5/6]") && seen.contains("\x1b[32mHEALTHY"), "in colour");
    assert_eq!(seen, shown, "what was recorded is what was shown");
    let run: serde_json::Value = serde_json::from_str(&read("demo.json")).unwrap();
    let attacks = run["attacks"].as_array().unwrap().len();
    assert_eq!(read("demo.svg").matches("data-attack=").count(), attacks);
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(demo.left_behind(), Vec::<String>::new());
}

#[test]
fn more_attackers_than_f_are_noticed_and_nobody_is_told_anything_wrong() {
    let _alone = alone();
    let mounted = Demo::new("broken");
    for (demo, more) in
        [(mounted, &[][..]), (Some(Demo::anywhere("broken-unmounted")), &["--no-mount"])]
    {
        let Some(demo) = demo else { continue };
        expect_noticed(&demo, &[&["--break-it"][..], more].concat());
    }
}

fn expect_noticed(demo: &Demo, options: &[&str]) {
    let output = demo.start(options).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{text}");
    let out: serde_json::Value = serde_json::from_slice(&fs::read(demo.json()).unwrap()).unwrap();
    assert_eq!((&out["wrong_reads"], &out["went_on"]), (&0.into(), &true.into()), "{text}");
    assert!(out["failed_reads"].as_u64().unwrap() > 0, "{text}");
    assert!(!out["alarms"].as_array().unwrap().is_empty(), "{text}");
    assert_eq!(demo.left_behind(), Vec::<String>::new());
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    let _alone = alone();
    let mounted: &[&str] = if Demo::new("signal").is_some() { &[] } else { &["--no-mount"] };
    let demo = Demo::anywhere("signalled");
    for (step, signal, options) in [
        ("[3/6]", "-INT", mounted),
        ("[5/6]", "-TERM", mounted),
        ("[5/6]", "-INT", &["--no-mount"]),
    ] {
        let mut process = demo.start(options);
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let seen = lines.map_while(Result::ok).find(|line| line.starts_with(step));
        assert!(seen.is_some(), "it ended before {step}");
        let killed =
            Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(process.wait().unwrap().code(), Some(1));
        assert!(!demo.json().exists(), "a stopped demo found nothing");
        assert_eq!(demo.left_behind(), Vec::<String>::new());
    }
}

//! The demo as a user runs it: real processes, a real mount, and nothing left behind.
//!
//! Needs the built programs beside this test and a machine that can mount; says so where it has not.

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
        let this = std::env::current_exe().unwrap();
        let programs = this.ancestors().nth(2).unwrap();
        let bfs = programs.join("bfs");
        if !bfs.is_file() || !programs.join("bfs-replica").is_file() {
            println!("skipped: build the programs first, cargo build --release --bins");
            return None;
        }
        if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            println!("skipped: /dev/fuse: {error}");
            return None;
        }
        let temporary =
            std::env::temp_dir().join(format!("bfs-demo-test-{name}-{}", std::process::id()));
        fs::create_dir(&temporary).unwrap();
        Some(Self { bfs, temporary: temporary.canonicalize().unwrap() })
    }

    fn start(&self) -> Child {
        let mut demo = Command::new(&self.bfs);
        demo.arg("demo").arg("--json").arg(self.json()).env("TMPDIR", &self.temporary);
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

#[test]
fn a_backup_dies_and_everything_holds() {
    let Some(demo) = Demo::new("whole") else { return };
    let output = demo.start().wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for step in 1..=6 {
        assert!(text.contains(&format!("[{step}/6]")), "{text}");
    }
    let out: serde_json::Value = serde_json::from_slice(&fs::read(demo.json()).unwrap()).unwrap();
    assert_eq!((&out["replicas"], &out["f"], &out["errors"]), (&4.into(), &1.into(), &0.into()));
    assert_eq!(out["digests_match"], true);
    assert!(out["compiled"].as_u64().unwrap() >= 60 && out["files"].as_u64().unwrap() > 100);
    let fault = &out["faults"][0];
    assert_eq!((&fault["kind"], &fault["survived"]), (&"kill-backup".into(), &true.into()));
    assert!(fault["longest_stall_ms"].as_f64().unwrap() > 0.0);
    assert!(
        fault["compiled_before"].as_u64().unwrap() < out["compiled"].as_u64().unwrap(),
        "in the middle of the work"
    );
    assert_eq!(demo.left_behind(), Vec::<String>::new());
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    let Some(demo) = Demo::new("signal") else { return };
    for (step, signal) in [("[3/6]", "-INT"), ("[5/6]", "-TERM")] {
        let mut process = demo.start();
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

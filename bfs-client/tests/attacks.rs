//! Compromised replicas among real processes: the adversaries of the simulator inside `bfs-replica-lab`, while a program
//! works on real files in a mount. Every attack must leave the files right, the program without an error, and the group
//! healthy once the compromised replica is back.

use bfs_client::local_group::LocalGroup;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an attack lasts at least.
const LASTS: Duration = Duration::from_millis(1500);
/// How long one round of about ten operations may take under attack: a few view changes on a busy machine.
const ROUND_MAX: Duration = Duration::from_secs(15);
/// How long a group may take until all of it is well again.
const HEAL_MAX: Duration = Duration::from_secs(40);

/// One group at a time: the machine should be busy with the attack, not with others.
static ALONE: Mutex<()> = Mutex::new(());

/// A group with a mount on which a program works.
struct Stage {
    group: LocalGroup,
    point: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

/// What the program met.
#[derive(Debug, Default)]
struct Met {
    rounds: u64,
    longest: Duration,
}

impl Met {
    fn was_bearable(&self, what: &str) {
        let Self { rounds, longest } = self;
        println!("{what}: {rounds} rounds of work, the longest {} ms", longest.as_millis());
        assert!(*longest < ROUND_MAX, "{what}: a round took {longest:?}");
    }
}

struct EndsWork<'a>(&'a AtomicBool);

impl Drop for EndsWork<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Stage {
    /// Nothing where this machine cannot mount; says so.
    fn new(n: usize, f: usize) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || fs::File::open("/dev/fuse").is_err() {
            println!("skipped: mounting wants root and /dev/fuse");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut group = LocalGroup::create_lab(n, f).unwrap();
        let point = group.dir().join("mnt");
        fs::create_dir_all(&point).unwrap();
        group.mount(&point, "strict").unwrap();
        Some(Self { group, point, _alone: alone })
    }

    fn primary(&self) -> usize {
        let deadline = Instant::now() + HEAL_MAX;
        loop {
            if let Some((primary, _)) = self.group.status().unwrap().primary() {
                return primary;
            }
            assert!(Instant::now() < deadline, "no primary");
        }
    }

    /// Works until `meanwhile` is done, and a few rounds more. Any error and any wrong byte fails.
    fn work(&mut self, meanwhile: impl FnOnce(&mut LocalGroup)) -> Met {
        let (point, stop) = (self.point.clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut met = Met::default();
                while !stop.load(Ordering::Relaxed) || met.rounds < 3 {
                    let start = Instant::now();
                    round(&point, met.rounds);
                    met.longest = met.longest.max(start.elapsed());
                    met.rounds += 1;
                }
                met
            });
            // Also where `meanwhile` panics: the scope waits for the worker.
            let ends = EndsWork(&stop);
            meanwhile(&mut self.group);
            drop(ends);
            worker.join().unwrap()
        })
    }

    /// `attacker` attacks by `name` while the program works, then is reinstalled.
    fn survives(&mut self, name: &str, attacker: usize, accomplices: &[usize]) {
        let mut misdeeds = 0;
        let met = self.work(|group| {
            group.attack(attacker, Some(name), accomplices).unwrap();
            misdeeds = lasts(group, attacker);
        });
        self.judge(name, attacker, misdeeds, &met);
        self.reinstall(attacker);
        self.heals(name);
    }

    fn judge(&self, name: &str, attacker: usize, misdeeds: u64, met: &Met) {
        met.was_bearable(&format!("{name} by r{attacker}, {misdeeds} misdeeds"));
        assert!(misdeeds > 0, "{name}: nothing was attacked");
    }

    /// A compromised machine is trusted again once it is set up anew.
    fn reinstall(&mut self, attacker: usize) {
        if self.group.is_running(attacker) {
            self.group.kill(attacker).unwrap();
        }
        self.group.start_replica(attacker).unwrap();
    }

    fn heals(&mut self, name: &str) {
        let start = Instant::now();
        // A replica catches up by what others order.
        let met = self.work(|group| {
            while group.status().unwrap().health != "HEALTHY" {
                if start.elapsed() > HEAL_MAX {
                    let logs: Vec<_> =
                        (0..group.pids().len()).map(|id| group.log_tail(id)).collect();
                    panic!(
                        "{name}: not well after {HEAL_MAX:?}: {:?}\n{}",
                        group.status(),
                        logs.join("\n--\n")
                    );
                }
            }
        });
        println!("{name}: all well after {:?}, {} rounds of work", start.elapsed(), met.rounds);
    }
}

/// Waits until the attack has lasted and has done something; returns how much.
fn lasts(group: &LocalGroup, attacker: usize) -> u64 {
    let (start, mut misdeeds) = (Instant::now(), 0);
    while start.elapsed() < LASTS || misdeeds == 0 && start.elapsed() < HEAL_MAX {
        // An attacker may stop itself: then what it did last counts.
        misdeeds = group.misdeeds(attacker).map_or(misdeeds, |told| told.misdeeds());
        std::thread::sleep(Duration::from_millis(20));
    }
    misdeeds
}

/// Writes a file, reads it back, changes it, renames it and removes it.
fn round(point: &Path, number: u64) {
    let (a, b) = (point.join(format!("a{}", number % 7)), point.join("b"));
    let small = format!("round {number}\n").repeat(20);
    fs::write(&a, &small).unwrap();
    assert_eq!(fs::read_to_string(&a).unwrap(), small, "round {number}");
    fs::rename(&a, &b).unwrap();
    assert!(!a.exists(), "round {number}: renamed away");
    let large = vec![number as u8; 50_000];
    fs::write(&a, &large).unwrap();
    assert!(fs::read(&a).unwrap() == large, "round {number}: another large file");
    assert_eq!(fs::metadata(&b).unwrap().len(), small.len() as u64, "round {number}");
    fs::remove_file(&b).unwrap();
    assert!(fs::metadata(&b).is_err(), "round {number}: removed");
}

/// What state transfer has to carry besides the program's files.
const STATE: usize = 24;

#[test]
fn b37_a_donor_whose_parts_of_the_state_are_damaged() {
    let Some(mut stage) = Stage::new(4, 1) else { return };
    let primary = stage.primary();
    let (donor, lost) = ((primary + 2) % 4, (primary + 3) % 4);
    let file = |i: usize| stage.point.join(format!("large{i}"));
    (0..STATE).for_each(|i| fs::write(file(i), vec![i as u8 + 1; 1 << 20]).unwrap());
    stage.group.kill(lost).unwrap();
    let mut misdeeds = 0;
    let met = stage.work(|group| {
        group.attack(donor, Some("B-37"), &[]).unwrap();
        group.start_replica(lost).unwrap();
        let start = Instant::now();
        while group.status().unwrap().health != "HEALTHY" {
            assert!(start.elapsed() < HEAL_MAX, "{:?}", group.status());
        }
        misdeeds = group.misdeeds(donor).unwrap().misdeeds();
    });
    stage.judge("B-37", donor, misdeeds, &met);
    stage.reinstall(donor);
    stage.heals("B-37");
    // The replica that was lost votes on what it was given: the primary goes, and every byte is still right.
    stage.group.kill(primary).unwrap();
    for i in 0..STATE {
        let bytes = fs::read(stage.point.join(format!("large{i}"))).unwrap();
        assert!(
            bytes.len() == 1 << 20 && bytes.iter().all(|byte| *byte == i as u8 + 1),
            "large{i}"
        );
    }
}

#[test]
fn of_seven_the_primary_equivocates_and_the_next_one_lies_about_the_new_view() {
    let Some(mut stage) = Stage::new(7, 2) else { return };
    let first = stage.primary();
    let next = (first + 1) % 7;
    let mut misdeeds = 0;
    let met = stage.work(|group| {
        group.attack(next, Some("B-32"), &[first]).unwrap();
        group.attack(first, Some("B-01"), &[next]).unwrap();
        misdeeds = lasts(group, first);
        let lies = lasts(group, next);
        assert!(lies > 0, "the next primary lied about nothing");
    });
    stage.judge("B-01 and B-32", first, misdeeds, &met);
    stage.reinstall(first);
    stage.work(|group| {
        status_says(group, first, "agrees");
        let (_, said) = status_says(group, next, "proved faulty");
        // Nothing of it is signed twice: f+1 have seen it, each for itself.
        assert!(said.matches("misdeeds: it ").count() >= 3, "{said}");
    });
    stage.reinstall(next);
    stage.heals("B-01 and B-32");
}

/// The next primary lies while the view changes: the primary stands still, and goes on when the lies have been told.
fn a_next_primary_that(attack: &str) {
    let Some(mut stage) = Stage::new(4, 1) else { return };
    let (primary, next) = (stage.primary(), (stage.primary() + 1) % 4);
    let mut misdeeds = 0;
    let met = stage.work(|group| {
        group.attack(next, Some(attack), &[]).unwrap();
        group.pause(primary).unwrap();
        misdeeds = lasts(group, next);
        group.resume(primary).unwrap();
    });
    stage.judge(attack, next, misdeeds, &met);
    stage.reinstall(next);
    stage.heals(attack);
}

#[test]
fn b26_a_next_primary_that_forges_what_was_prepared() {
    a_next_primary_that("B-26");
}

#[test]
fn b29_a_next_primary_that_sends_everyone_another_view_change() {
    a_next_primary_that("B-29");
}

#[test]
fn b32_a_next_primary_whose_new_view_does_not_follow() {
    a_next_primary_that("B-32");
}

#[test]
fn b33_a_next_primary_that_begins_no_view() {
    a_next_primary_that("B-33");
}

/// Waits until `bfs status` says of `id` what begins with `words`; returns all of what it prints, and its exit code.
fn status_says(group: &LocalGroup, id: usize, words: &str) -> (Option<i32>, String) {
    let start = Instant::now();
    loop {
        let output = Command::new(env!("CARGO_BIN_EXE_bfs"))
            .arg("status")
            .arg(group.group_file())
            .arg("--key")
            .arg(group.operator_key())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let own = format!("  r{id} ");
        let line = said.lines().find(|line| line.starts_with(&own)).unwrap_or_default();
        let primary = " · primary";
        if line.strip_suffix(primary).unwrap_or(line).ends_with(words) {
            return (output.status.code(), said);
        }
        assert!(start.elapsed() < HEAL_MAX, "r{id} is not called {words}:\n{said}");
    }
}

#[test]
fn who_lies_is_called_proved_faulty_with_the_evidence_until_it_is_set_up_anew() {
    let Some(mut stage) = Stage::new(4, 1) else { return };
    let liar = (stage.primary() + 2) % 4;
    for (attack, evidence) in [("forged-files", "of its replies outvoted here"), ("B-35", " at n=")]
    {
        stage.work(|group| {
            group.attack(liar, Some(attack), &[]).unwrap();
            let (code, said) = status_says(group, liar, "proved faulty");
            assert_eq!(code, Some(5), "{attack}: {said}");
            assert!(said.contains(evidence) && said.contains("NO SPARE"), "{attack}: {said}");
            assert_eq!(said.matches("evidence:").count(), 1, "nobody else: {said}");
        });
        stage.reinstall(liar);
        stage.heals(attack);
        let (code, said) = status_says(&stage.group, liar, "agrees");
        assert_eq!(code, Some(0), "{attack}: {said}");
    }
}

#[test]
fn a_primary_that_was_given_up_is_suspected_and_one_that_is_gone_is_unreachable() {
    let Some(mut stage) = Stage::new(4, 1) else { return };
    let primary = stage.primary();
    stage.work(|group| {
        group.attack(primary, Some("B-01"), &[]).unwrap();
        lasts(group, primary);
        group.attack(primary, None, &[]).unwrap();
        let (code, said) = status_says(group, primary, "suspected");
        assert_ne!(code, Some(5), "what only links carried proves nothing: {said}");
        assert!(said.contains("given up as primary by r"), "{said}");
        group.kill(primary).unwrap();
        status_says(group, primary, "unreachable");
    });
}

/// Clients that attack: nobody else's work suffers, and the primary keeps its place.
fn a_client_that(attack: &str) {
    let Some(mut stage) = Stage::new(4, 1) else { return };
    let before = stage.group.status().unwrap().primary();
    let met = stage.work(|group| {
        group.intrude(attack).unwrap();
        std::thread::sleep(LASTS);
        let did: serde_json::Value = group.intruders_misdeeds().unwrap();
        assert!(did["forged"].as_u64().unwrap() > 0, "{attack}: nothing was attacked: {did}");
        assert!(group.end_intrusion(), "the intruder gave up");
    });
    met.was_bearable(&format!("{attack} by a client"));
    stage.heals(attack);
    assert_eq!(stage.group.status().unwrap().primary(), before, "{attack}");
}

#[test]
fn a_client_whose_authenticators_are_good_for_the_primary_only() {
    a_client_that("bad-mac");
}

#[test]
fn a_client_whose_authenticators_are_bad_for_the_primary_only() {
    a_client_that("reverse-mac");
}

#[test]
fn b30_a_client_that_replays_what_it_has_heard_and_said() {
    a_client_that("B-30");
}

#[test]
fn b52_a_client_that_floods() {
    a_client_that("B-52");
}

#[test]
fn a_backup_that_forges_files() {
    a_backup_that("forged-files");
}

/// What `bfs drill` and `bfs top` say and do, as a user runs them.
#[test]
fn drills_are_ordered_and_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut group = LocalGroup::create_lab(4, 1).unwrap();
    let bfs = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bfs")).args(args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let folders: Vec<_> = (0..4).map(|id| group.dir().join(format!("r{id}"))).collect();
    let folder = |id: usize| folders[id].to_str().unwrap();
    let refused = |args: &[&str], words: &[&str]| {
        let (code, said) = bfs(args);
        assert_eq!(code, Some(2), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    refused(&["drill", folder(1), "--attack", "B-99"], &["B-99", "B-01", "B-48"]);
    refused(&["drill", "/nowhere", "--attack", "B-01"], &["no lab build runs there"]);
    let (code, said) = bfs(&["drill", folder(1), "--attack", "b-47"]);
    assert!(code == Some(0) && said.contains("r1") && said.contains("attacks by B-47"), "{said}");
    refused(&["drill", folder(2), "--attack", "B-47"], &["r1 attacks already", "--break-it"]);
    assert_eq!(bfs(&["drill", folder(2), "--attack", "B-47", "--break-it"]).0, Some(0));
    assert!(bfs(&["drill", folder(1)]).1.contains("r1 of group"));
    assert!(group.misdeeds(1).unwrap().attack.is_none());
    group.kill(1).unwrap();
    refused(&["drill", folder(1), "--attack", "B-01"], &["no lab build runs there"]);
    let file = group.group_file();
    let key = group.operator_key();
    let look = ["top", file.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let (code, said) = bfs(&[&look[..], &["--count", "2", "--interval", "0.1"]].concat());
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(said.matches("NO SPARE").count(), 2, "{said}");
    assert!(said.contains("unreachable") && said.contains("batches a second"), "{said}");
}

fn a_primary_that(attack: &str) {
    let Some(mut stage) = Stage::new(4, 1) else { return };
    let primary = stage.primary();
    stage.survives(attack, primary, &[]);
}

fn a_backup_that(attack: &str) {
    let Some(mut stage) = Stage::new(4, 1) else { return };
    let backup = (stage.primary() + 2) % 4;
    stage.survives(attack, backup, &[]);
}

#[test]
fn b01_a_primary_that_equivocates() {
    a_primary_that("B-01");
}

#[test]
fn b02_a_primary_that_equivocates_on_order_or_time_only() {
    a_primary_that("B-02");
}

#[test]
fn b03_a_primary_that_withholds_what_it_orders() {
    a_primary_that("B-03");
}

#[test]
fn b07_a_primary_that_delays_everything_to_just_under_the_timeout() {
    a_primary_that("B-07");
}

#[test]
fn b08_a_primary_that_drops_one_client() {
    a_primary_that("B-08");
}

#[test]
fn b09_a_primary_that_starves_a_replica_and_answers_no_client() {
    a_primary_that("B-09");
}

#[test]
fn b12_a_primary_that_proposes_false_times() {
    a_primary_that("B-12");
}

#[test]
fn b17_a_backup_that_says_some_things_to_some_only() {
    a_backup_that("B-17");
}

#[test]
fn b30_a_backup_that_replays_everything() {
    a_backup_that("B-30");
}

#[test]
fn b35_a_backup_that_signs_wrong_checkpoints() {
    a_backup_that("B-35");
}

#[test]
fn b47_a_backup_that_answers_reads_with_wrong_and_stale_contents() {
    a_backup_that("B-47");
}

#[test]
fn b48_a_backup_that_forges_replies() {
    a_backup_that("B-48");
}

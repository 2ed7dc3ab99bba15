//! The attacks of the demo, one at a time and each recovered from before the next.

use super::work::Work;
use crate::failure::Outcome;
use crate::local_group::LocalGroup;
use serde::Serialize;
use std::time::{Duration, Instant};
use workloads::progress::Console;
use workloads::stall::StallWatcher;
use workloads::stop::Stop;

/// How long each lasts at least, and at most if it finds nothing to do.
const LASTS: Duration = Duration::from_millis(2000);
const LASTS_MAX: Duration = Duration::from_secs(15);
/// How long the group may take until all of it is well again.
const RECOVERY_MAX: Duration = Duration::from_secs(40);

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Primary,
    Backup,
    /// A backup, while another one that was wiped asks for its state.
    Donor,
    /// Nobody: the primary is killed and its memory is lost.
    Wipe,
    Client,
}

/// Names of the catalogue, who makes them, and what it means.
const SCRIPT: [(&str, Who, &str); 14] = [
    ("forged-files", Who::Backup, "answers with forged file contents and attributes"),
    ("B-47", Who::Backup, "answers reads with what was true before, or never was"),
    ("B-48", Who::Backup, "forges replies to writes, withholds large ones"),
    ("B-35", Who::Backup, "signs wrong checkpoints, hundreds of them"),
    ("B-37", Who::Donor, "gives a wiped replica damaged parts of the state"),
    ("B-01", Who::Primary, "orders different writes as one sequence number"),
    ("B-08", Who::Primary, "drops one client: this one"),
    ("B-07", Who::Primary, "delays everything to just under the timeout"),
    ("B-12", Who::Primary, "proposes false times for files"),
    ("wipe", Who::Wipe, "killed with SIGKILL, its state lost"),
    ("bad-mac", Who::Client, "authenticates to the primary only"),
    ("reverse-mac", Who::Client, "authenticates to everyone but the primary"),
    ("B-30", Who::Client, "replays whatever it has heard and said"),
    ("B-52", Who::Client, "floods requests and never listens"),
];

/// How many there are.
pub const COUNT: usize = SCRIPT.len();

/// What came of one attack. The field names are a stable interface.
#[derive(Debug, Serialize)]
pub struct Attack {
    /// Its name in docs/attacks.md.
    pub id: &'static str,
    pub title: &'static str,
    /// Which replica attacked; nothing where a client did.
    pub replica: Option<usize>,
    pub was_primary: bool,
    /// Messages that it changed or made up, withheld, sent late, would not hear.
    pub forged: u64,
    pub withheld: u64,
    pub delayed: u64,
    pub ignored: u64,
    /// Forged replies to clients of which none was believed.
    pub outvoted: u64,
    pub client_errors: u64,
    /// Files read and compared meanwhile, and how many were wrong.
    pub reads: u64,
    pub wrong_reads: u64,
    pub longest_stall_ms: f64,
    pub view_changes: u64,
    /// Whether the whole group was well again, and how long that took.
    pub recovered: bool,
    pub recovery_ms: f64,
    /// When it began, since the first one. Units: seconds.
    pub at_seconds: f64,
}

impl Attack {
    /// All that it did which no honest replica does.
    fn misdeeds(&self) -> u64 {
        self.forged + self.withheld + self.delayed + self.ignored
    }

    /// Whether nobody noticed.
    pub fn held(&self) -> bool {
        self.client_errors == 0 && self.wrong_reads == 0 && self.recovered
    }
}

/// What the attacks are made on.
pub struct Scene<'a> {
    pub group: &'a mut LocalGroup,
    pub work: &'a Work<'a>,
    pub watcher: &'a StallWatcher,
    pub console: &'a Console,
    pub stop: &'a Stop,
    pub begun: Instant,
}

/// Makes every attack, and shows each when it is over.
///
/// Errors: the group cannot be attacked. An attack that does harm is a result.
pub fn run(scene: &mut Scene<'_>, indent: &str) -> Outcome<Vec<Attack>> {
    let mut attacks = Vec::new();
    for (id, who, title) in SCRIPT {
        if scene.stop.requested() {
            break;
        }
        let attack = scene.make(id, who, title)?;
        scene.console.note(&format!("{indent}{}", line(&attack)));
        attacks.push(attack);
    }
    Ok(attacks)
}

fn line(attack: &Attack) -> String {
    let who = match attack.replica {
        Some(id) if attack.was_primary => format!("r{id}, primary,"),
        Some(id) => format!("r{id}, backup,"),
        None => "a client".into(),
    };
    let mut met = Vec::new();
    if attack.outvoted > 0 {
        met.push(format!("{} forged replies outvoted", attack.outvoted));
    } else if attack.misdeeds() > 0 {
        met.push(format!("{} misdeeds", attack.misdeeds()));
    }
    if attack.view_changes > 0 {
        met.push(format!("view +{}", attack.view_changes));
    }
    met.push(format!("{} errors", attack.client_errors));
    met.push(format!("stall {:.0} ms", attack.longest_stall_ms));
    met.push(match attack.recovered {
        true => format!("well after {:.1} s", attack.recovery_ms / 1000.0),
        false => "NOT WELL AGAIN".into(),
    });
    let what = format!("{who} {}", attack.title);
    format!("{:<12} {what:<66} {}", attack.id, met.join(" · "))
}

impl Scene<'_> {
    fn make(&mut self, id: &'static str, who: Who, title: &'static str) -> Outcome<Attack> {
        let (primary, view) = self.primary()?;
        let attacker = match who {
            Who::Primary | Who::Wipe => Some(primary),
            Who::Backup | Who::Donor => Some((primary + 2) % self.group.pids().len()),
            Who::Client => None,
        };
        let before = (self.work.errors() + self.watcher.errors(), self.work.reads());
        self.watcher.next_window();
        let at_seconds = self.begun.elapsed().as_secs_f64();
        let told = self.attack(id, who, attacker)?;
        let over = Instant::now();
        if let Some(id) = attacker {
            self.reinstall(id)?;
        }
        let recovered = self.is_well_again()?;
        let window = self.watcher.next_window();
        let after = (self.work.errors() + self.watcher.errors(), self.work.reads());
        let told = told.unwrap_or_default();
        let wrong_reads = after.1.1 - before.1.1;
        Ok(Attack {
            id,
            title,
            replica: attacker,
            was_primary: matches!(who, Who::Primary | Who::Wipe),
            forged: told.forged,
            withheld: told.withheld,
            delayed: told.delayed,
            ignored: told.ignored,
            outvoted: told.forged_replies.saturating_sub(wrong_reads),
            client_errors: after.0 - before.0,
            reads: after.1.0 - before.1.0,
            wrong_reads,
            longest_stall_ms: window.longest.as_secs_f64() * 1000.0,
            view_changes: self.primary()?.1.saturating_sub(view),
            recovered,
            recovery_ms: over.elapsed().as_secs_f64() * 1000.0,
            at_seconds,
        })
    }

    /// Lets it happen; returns what a replica says that it did.
    fn attack(&mut self, id: &str, who: Who, attacker: Option<usize>) -> Outcome<Option<Did>> {
        match (who, attacker) {
            (Who::Client, _) | (_, None) => {
                self.group.intrude(id)?;
                self.stop.sleep(LASTS);
                self.group.end_intrusion();
                Ok(None)
            }
            (Who::Wipe, Some(primary)) => {
                self.group.kill(primary)?;
                self.stop.sleep(LASTS);
                Ok(None)
            }
            (Who::Donor, Some(donor)) => {
                let wiped = (donor + 1) % self.group.pids().len();
                self.group.kill(wiped)?;
                self.stop.sleep(LASTS / 2);
                self.group.attack(donor, Some(id), &[])?;
                self.group.start_replica(wiped)?;
                self.is_well_again()?;
                Ok(self.group.misdeeds(donor).map(Did::from))
            }
            (Who::Primary | Who::Backup, Some(attacker)) => {
                self.group.attack(attacker, Some(id), &[])?;
                Ok(self.lasts(attacker))
            }
        }
    }

    /// Waits until the attack has lasted and has done something.
    fn lasts(&self, attacker: usize) -> Option<Did> {
        let (start, mut did) = (Instant::now(), None);
        loop {
            // An attacker that stops itself says nothing more: then what it did last counts.
            did = self.group.misdeeds(attacker).map(Did::from).or(did);
            let nothing = did.as_ref().is_none_or(Did::is_nothing);
            let enough = if nothing { LASTS_MAX } else { LASTS };
            if start.elapsed() >= enough || !self.stop.sleep(Duration::from_millis(20)) {
                return did;
            }
        }
    }

    /// A machine that was compromised is trusted again once it is set up anew.
    fn reinstall(&mut self, id: usize) -> Outcome {
        if self.group.is_running(id) {
            self.group.kill(id)?;
        }
        self.group.start_replica(id)
    }

    fn is_well_again(&mut self) -> Outcome<bool> {
        let start = Instant::now();
        loop {
            if self.group.status()?.health == "HEALTHY" {
                return Ok(true);
            }
            let sleeps = self.stop.sleep(Duration::from_millis(50));
            if start.elapsed() >= RECOVERY_MAX || !sleeps {
                return Ok(false);
            }
        }
    }

    /// The primary and its view, once the group agrees on one.
    fn primary(&mut self) -> Outcome<(usize, u64)> {
        let start = Instant::now();
        loop {
            let status = self.group.status()?;
            match status.primary() {
                Some(primary) => return Ok(primary),
                None if start.elapsed() >= RECOVERY_MAX => return Ok((0, 0)),
                None => drop(self.stop.sleep(Duration::from_millis(50))),
            }
        }
    }
}

/// What an attacker did, by its own count.
#[derive(Debug, Default)]
struct Did {
    forged: u64,
    forged_replies: u64,
    withheld: u64,
    delayed: u64,
    ignored: u64,
}

impl Did {
    fn is_nothing(&self) -> bool {
        self.forged + self.withheld + self.delayed + self.ignored == 0
    }
}

impl From<crate::drill::Told> for Did {
    fn from(told: crate::drill::Told) -> Self {
        let crate::drill::Told { forged, forged_replies, withheld, delayed, ignored, .. } = told;
        Self { forged, forged_replies, withheld, delayed, ignored }
    }
}

//! The attacks of the demo, one at a time and each recovered from before the next.

use super::load::Tally;
use super::place::Place;
use crate::failure::Outcome;
use crate::local_group::{LocalGroup, Status};
use serde::{Deserialize, Serialize};
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
const SCRIPT: [(&str, Who, &str); 15] = [
    ("forged-files", Who::Backup, "answers with forged file contents and attributes"),
    ("B-47", Who::Backup, "answers reads with what was true before, or never was"),
    ("B-48", Who::Backup, "forges replies to writes, withholds large ones"),
    ("B-35", Who::Backup, "signs wrong checkpoints, hundreds of them"),
    ("B-37", Who::Donor, "gives a wiped replica damaged parts of the state"),
    ("B-01", Who::Primary, "orders different writes as one sequence number"),
    ("B-03", Who::Primary, "names requests and withholds what they say"),
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
    /// Its replies that the demo's own client saw refuted by a quorum.
    pub outvoted: u64,
    /// What `bfs status` called it before it was set up anew; nothing where a client attacked.
    pub standing: Option<String>,
    pub client_errors: u64,
    /// Files read and compared meanwhile, and how many were wrong.
    pub reads: u64,
    pub wrong_reads: u64,
    pub longest_stall_ms: f64,
    pub view_changes: u64,
    /// Whether the whole group was well again, and how long that took.
    pub recovered: bool,
    /// How each replica that was not well stood at last, where the group did not recover.
    pub unwell: Vec<String>,
    pub recovery_ms: f64,
    /// When it began, since the first one. Units: seconds.
    pub at_seconds: f64,
    /// How long it went on, until the attacker was taken away.
    pub lasted_ms: f64,
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
    pub place: &'a Place,
    pub tally: &'a Tally<'a>,
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
    for (done, (id, who, title)) in SCRIPT.into_iter().enumerate() {
        if scene.stop.requested() {
            break;
        }
        scene.console.follow(format!("{id}: {title}"), done as u64, COUNT as u64);
        let attack = scene.make(id, who, title);
        scene.console.unfollow();
        let attack = attack?;
        scene.console.note(&format!("{indent}{}", line(&attack)));
        attacks.push(attack);
    }
    Ok(attacks)
}

/// Whether these words of `bfs status` say that something speaks against a replica.
fn speaks_against(standing: &str) -> bool {
    standing.starts_with("proved faulty") || standing.starts_with("suspected")
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
    if let Some(standing) = attack.standing.as_ref().filter(|said| speaks_against(said)) {
        met.push(standing.clone());
    }
    if attack.view_changes > 0 {
        met.push(format!("view +{}", attack.view_changes));
    }
    met.push(format!("{} errors", attack.client_errors));
    met.push(format!("stall {:.0} ms", attack.longest_stall_ms));
    met.push(match attack.recovered {
        true => format!("well after {:.1} s", attack.recovery_ms / 1000.0),
        false => format!("NOT WELL AGAIN: {}", attack.unwell.join(", ")),
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
        let before = (self.tally.failures() + self.watcher.errors(), self.tally.reads());
        let outvoted = self.outvoted(attacker);
        self.watcher.next_window();
        let at_seconds = self.begun.elapsed().as_secs_f64();
        let (told, standing) = self.attack(id, who, attacker)?;
        let over = Instant::now();
        if let Some(id) = attacker {
            self.reinstall(id)?;
        }
        let recovered = self.is_well_again()?;
        let unwell = if recovered { Vec::new() } else { self.group.status()?.unwell() };
        let window = self.watcher.next_window();
        let after = (self.tally.failures() + self.watcher.errors(), self.tally.reads());
        let told = told.unwrap_or_default();
        Ok(Attack {
            id,
            title,
            replica: attacker,
            was_primary: matches!(who, Who::Primary | Who::Wipe),
            forged: told.forged,
            withheld: told.withheld,
            delayed: told.delayed,
            ignored: told.ignored,
            outvoted: self.outvoted(attacker).saturating_sub(outvoted),
            standing,
            client_errors: after.0 - before.0,
            reads: after.1.0 - before.1.0,
            wrong_reads: after.1.1 - before.1.1,
            longest_stall_ms: window.longest.as_secs_f64() * 1000.0,
            view_changes: self.primary()?.1.saturating_sub(view),
            recovered,
            unwell,
            recovery_ms: over.elapsed().as_secs_f64() * 1000.0,
            at_seconds,
            lasted_ms: over.duration_since(self.begun).as_secs_f64() * 1000.0 - at_seconds * 1000.0,
        })
    }

    /// How often a quorum has outvoted `attacker`, as this demo's client has seen it.
    fn outvoted(&self, attacker: Option<usize>) -> u64 {
        let seen = self.place.outvoted(self.group);
        attacker.and_then(|id| seen.get(id)).map_or(0, |seen| seen.total)
    }

    /// Lets it happen; returns what the attacker says that it did, and what `bfs status` calls it.
    fn attack(
        &mut self,
        id: &str,
        who: Who,
        attacker: Option<usize>,
    ) -> Outcome<(Option<Did>, Option<String>)> {
        let mut did = self.attack_by(id, who, attacker)?;
        let standing = match attacker.filter(|_| who != Who::Wipe) {
            Some(attacker) => self.group.status()?.standing(attacker),
            None => None,
        };
        if let Some(told) = attacker.and_then(|attacker| self.group.misdeeds(attacker)) {
            // It went on meanwhile; one that has stopped itself says nothing more.
            did = Some(told.into());
        }
        Ok((did, standing))
    }

    fn attack_by(&mut self, id: &str, who: Who, attacker: Option<usize>) -> Outcome<Option<Did>> {
        match (who, attacker) {
            (Who::Client, _) | (_, None) => {
                self.group.intrude(id)?;
                self.stop.sleep(LASTS);
                let did = self.group.intruders_misdeeds();
                self.group.end_intrusion();
                Ok(did)
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
                self.all_but_agree(donor)?;
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
        self.wait(|status| status.health == "HEALTHY")
    }

    /// Waits until every replica but `one` agrees: that one may be known for what it is.
    fn all_but_agree(&mut self, one: usize) -> Outcome<bool> {
        let n = self.group.pids().len();
        self.wait(|status| {
            let agrees = |id: &usize| status.standing(*id).is_some_and(|said| said == "agrees");
            (0..n).filter(|id| *id != one).all(|id| agrees(&id))
        })
    }

    fn wait(&mut self, is_so: impl Fn(&Status) -> bool) -> Outcome<bool> {
        let start = Instant::now();
        loop {
            if is_so(&self.group.status()?) {
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
#[derive(Debug, Default, Deserialize)]
pub struct Did {
    forged: u64,
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
        let crate::drill::Told { forged, withheld, delayed, ignored, .. } = told;
        Self { forged, withheld, delayed, ignored }
    }
}

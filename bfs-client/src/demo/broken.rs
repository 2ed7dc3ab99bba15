//! `--break-it`: more replicas are faulty than the group is built to bear. What fails then, and what does not.

use super::place::{Place, Terms};
use crate::failure::{Failure, Outcome};
use crate::local_group::{LocalGroup, Plan};
use serde::Serialize;
use std::time::{Duration, Instant};
use workloads::progress::Console;
use workloads::stop::Stop;

/// How long a program waits for an answer before it is told of an error: of a mount, and the same without one.
const OPTIONS: &str = "strict,soft,timeo=20";
const PATIENCE: Duration = Duration::from_secs(2);
/// How long two liars go on.
const LIES: Duration = Duration::from_secs(5);
/// How long the group has to go on again once they stop.
const BACK_MAX: Duration = Duration::from_secs(20);
/// How long two equivocators go on, at most: until a replica finds out.
const COLLUSION_MAX: Duration = Duration::from_secs(40);
/// How many files are written and read.
const FILES: usize = 16;

/// What was found. The field names are a stable interface.
#[derive(Debug, Serialize)]
pub struct Broken {
    pub faulty: usize,
    pub f: usize,
    /// Reads that were answered with what was written, with an error, and with anything else.
    pub good_reads: u64,
    pub failed_reads: u64,
    pub wrong_reads: u64,
    /// Whether work went on by itself when the two liars stopped.
    pub went_on: bool,
    /// What correct replicas stopped for, with the evidence in their logs.
    pub alarms: Vec<Alarm>,
}

/// A replica that has stopped itself.
#[derive(Debug, Serialize)]
pub struct Alarm {
    pub replica: usize,
    pub text: String,
}

impl Broken {
    /// Whether no program was given anything wrong, and the group has noticed.
    pub fn was_honest(&self) -> bool {
        self.wrong_reads == 0 && self.failed_reads > 0 && self.went_on && !self.alarms.is_empty()
    }
}

/// What a program was told.
#[derive(Default)]
struct Met {
    good: u64,
    failed: u64,
    wrong: u64,
}

/// Lets two replicas of four lie, first alike in their answers, then as equivocating primary and its accomplice.
pub fn run(
    plan: &Plan,
    mounted: bool,
    console: &Console,
    indent: &str,
    stop: &Stop,
) -> Outcome<Broken> {
    let mut group = LocalGroup::start(plan)?;
    let terms = Terms { mounted, options: OPTIONS, patience: PATIENCE };
    let place = &Place::open(&mut group, &terms)?;
    let written = group.supervise(|| (0..FILES).try_for_each(|i| write(place, i)), |_| {});
    written.map_err(|error| Failure::new("cannot write before anything is broken", error))?;
    let (primary, _) = group.status()?.primary().unwrap_or_default();
    let other = (primary + 2) % plan.n;
    let note = |text: String| console.note(&format!("{indent}{text}"));

    for (id, accomplice) in [(primary, other), (other, primary)] {
        group.attack(id, Some("forged-files"), &[accomplice])?;
    }
    let lied = group.supervise(|| read_for(place, LIES, stop), |_| {});
    note(format!(
        "r{primary} and r{other} forge the same answers: {} reads right, {} failed, {} wrong",
        lied.good, lied.failed, lied.wrong
    ));
    for id in [primary, other] {
        group.attack(id, None, &[])?;
    }
    let went_on = group.supervise(|| works_again(place, stop), |_| {});
    note(format!("both honest again: work {}", if went_on { "goes on" } else { "does NOT go on" }));

    let (primary, _) = group.status()?.primary().unwrap_or_default();
    // One of each half, so that the two correct ones are told different things.
    let accomplice = (primary + plan.n / 2) % plan.n;
    for (id, other) in [(accomplice, primary), (primary, accomplice)] {
        group.attack(id, Some("collude"), &[other])?;
    }
    let (colluded, alarms) = collude(&mut group, place, [primary, accomplice], stop);
    note(format!(
        "r{primary} equivocates and r{accomplice} votes for both: {} reads right, {} failed, {} wrong",
        colluded.good, colluded.failed, colluded.wrong
    ));
    for alarm in &alarms {
        note(format!("r{} stopped on an alarm: {}", alarm.replica, alarm.text));
    }
    Ok(Broken {
        faulty: 2,
        f: plan.f,
        good_reads: lied.good + colluded.good,
        failed_reads: lied.failed + colluded.failed,
        wrong_reads: lied.wrong + colluded.wrong,
        went_on,
        alarms,
    })
}

fn name(i: usize) -> String {
    format!("file{i}")
}

fn contents(i: usize) -> Vec<u8> {
    format!("file {i}: nobody may change this\n").repeat(50).into_bytes()
}

fn write(place: &Place, i: usize) -> std::io::Result<()> {
    place.write(&name(i), &contents(i))
}

/// Reads until `limit` has passed.
fn read_for(place: &Place, limit: Duration, stop: &Stop) -> Met {
    let (start, mut met) = (Instant::now(), Met::default());
    for i in (0..FILES).cycle() {
        if start.elapsed() >= limit || stop.requested() {
            break;
        }
        match place.read(&name(i)) {
            Ok(found) if found == contents(i) => met.good += 1,
            Ok(_) => met.wrong += 1,
            Err(_) => met.failed += 1,
        }
    }
    met
}

fn works_again(place: &Place, stop: &Stop) -> bool {
    let start = Instant::now();
    while start.elapsed() < BACK_MAX && !stop.requested() {
        if write(place, 0).is_ok() && place.read(&name(0)).is_ok_and(|f| f == contents(0)) {
            return true;
        }
    }
    false
}

/// Works on while two collude, until a correct replica stops.
fn collude(
    group: &mut LocalGroup,
    place: &Place,
    liars: [usize; 2],
    stop: &Stop,
) -> (Met, Vec<Alarm>) {
    let enough = Stop::default();
    let start = Instant::now();
    let mut alarms: Vec<Alarm> = Vec::new();
    let work = || {
        let mut met = Met::default();
        while !enough.requested() && !stop.requested() {
            // Whether a write is acknowledged or fails is the group's to say; what is read is compared.
            let _ = place.write("new", b"something to order");
            let read = read_for(place, Duration::from_millis(20), stop);
            met.good += read.good;
            met.failed += read.failed;
            met.wrong += read.wrong;
        }
        met
    };
    let met = group.supervise(work, |group| {
        for id in (0..group.pids().len()).filter(|id| !liars.contains(id)) {
            if !group.is_running(id) && alarms.iter().all(|alarm| alarm.replica != id) {
                alarms.push(Alarm { replica: id, text: reason(&group.log_tail(id)) });
            }
        }
        if !alarms.is_empty() || start.elapsed() >= COLLUSION_MAX {
            enough.request();
        }
    });
    (met, alarms)
}

/// Why a replica says that it stopped.
fn reason(log: &str) -> String {
    const SAID: &str = "this replica stopped on an alarm: ";
    let found = log.lines().find_map(|line| line.split_once(SAID).map(|(_, why)| why.to_owned()));
    found.unwrap_or_else(|| "it ended by itself".into())
}

//! `bfs drill`: a lab replica of a running group is told to attack, or to stop.
//!
//! The order is a file in the replica's folder, so only who owns the replica can give it; a production build never reads it.

use crate::failure::{Exit, Failure, Outcome, say};
use clap::Args;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a replica may take to obey, on a busy machine.
const OBEY_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Arguments of `bfs drill`.
#[derive(Args, Clone, Debug)]
pub struct DrillArgs {
    /// The folder of a replica that runs a lab build (bfs-replica-lab)
    #[arg(value_name = "REPLICA")]
    pub dir: PathBuf,
    /// What it is to do, by the name in docs/attacks.md; without it, the replica is honest again
    #[arg(long, value_name = "B-nn", env = "BFS_ATTACK")]
    pub attack: Option<String>,
    /// Allow more than f attackers in one group, which breaks what the group promises
    #[arg(long, env = "BFS_BREAK_IT")]
    pub break_it: bool,
}

/// What a lab replica says of itself, in its file `lab.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    /// The process that said it.
    pub pid: u32,
    /// Which group, in words.
    pub group: String,
    /// i: which replica.
    pub replica: usize,
    /// n.
    pub n: usize,
    /// f.
    pub f: usize,
    /// The attack that runs.
    pub attack: Option<String>,
    /// Why the last order was not obeyed.
    pub refused: Option<String>,
    /// Messages changed or made up since the attack began.
    pub forged: u64,
    /// Those of them that went to clients.
    pub forged_replies: u64,
    /// Messages that were not sent.
    pub withheld: u64,
    /// Messages that were sent late.
    pub delayed: u64,
    /// Messages that it would not hear.
    pub ignored: u64,
}

impl Told {
    /// All that it did which no honest replica does.
    pub fn misdeeds(&self) -> u64 {
        self.forged + self.withheld + self.delayed + self.ignored
    }
}

/// What the lab replica in `dir` says; nothing if none runs there.
pub fn told(dir: &Path) -> Option<Told> {
    let told: Told = serde_json::from_slice(&fs::read(dir.join("lab.json")).ok()?).ok()?;
    Path::new(&format!("/proc/{}", told.pid)).exists().then_some(told)
}

/// Tells the lab replica in `dir` to attack, with the replicas `accomplices`; returns when it does.
///
/// Errors: no lab replica runs there; it knows no such attack; it does not answer.
pub fn order(dir: &Path, attack: Option<&str>, accomplices: &[usize]) -> Outcome<Told> {
    let what = || format!("cannot drill the replica in {}", dir.display());
    let Some(before) = told(dir) else {
        let why =
            "no lab build runs there; production builds hold no attacks and take no such orders";
        let next = "build with --features bfs-replica/lab and start it: bfs-replica-lab run DIR";
        return Err(Failure::new(what(), why).exit(Exit::Usage).advise(next));
    };
    let mut text = attack.unwrap_or_default().to_owned();
    accomplices.iter().for_each(|id| text.push_str(&format!(" {id}")));
    let (file, new) = (dir.join("attack"), dir.join("attack.new"));
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &file));
    written.map_err(|error| Failure::new(what(), error))?;
    let deadline = Instant::now() + OBEY_LIMIT;
    // The same refusal as before may still be that of the last order.
    let is_answer = |why: &str| {
        before.refused.as_deref() != Some(why) || Instant::now() + OBEY_LIMIT / 2 > deadline
    };
    while Instant::now() < deadline {
        match told(dir) {
            Some(Told { refused: Some(why), .. }) if attack.is_some() && is_answer(&why) => {
                return Err(Failure::new(what(), why).exit(Exit::Usage));
            }
            Some(told) if same(told.attack.as_deref(), attack) => return Ok(told),
            _ => sleep(POLL),
        }
    }
    Err(Failure::new(what(), "it runs, and does not answer").exit(Exit::Timeout))
}

fn same(runs: Option<&str>, ordered: Option<&str>) -> bool {
    match (runs, ordered) {
        (Some(runs), Some(ordered)) => runs.eq_ignore_ascii_case(ordered),
        (runs, ordered) => runs.is_none() && ordered.is_none(),
    }
}

/// The replicas of the same group beside `dir` that attack.
fn others_that_attack(dir: &Path, me: &Told) -> Vec<usize> {
    let beside = dir.canonicalize().ok().and_then(|dir| dir.parent().map(Path::to_owned));
    let folders = beside.and_then(|beside| fs::read_dir(beside).ok()).into_iter().flatten();
    let told = folders.filter_map(|folder| told(&folder.ok()?.path()));
    let same_group = told.filter(|other| other.group == me.group && other.replica != me.replica);
    same_group.filter(|other| other.attack.is_some()).map(|other| other.replica).collect()
}

/// Begins or ends an attack.
pub fn run(args: &DrillArgs) -> Outcome<Exit> {
    if let (Some(me), Some(_)) = (told(&args.dir), &args.attack) {
        let others = others_that_attack(&args.dir, &me);
        if others.len() >= me.f && !args.break_it {
            let what = format!("will not let r{} attack", me.replica);
            let list: Vec<_> = others.iter().map(|id| format!("r{id}")).collect();
            let why = match list.is_empty() {
                true => format!("a group of {} bears no faulty replica", me.n),
                false => format!(
                    "{} attacks already, and a group of {} bears f = {}",
                    list.join(", "),
                    me.n,
                    me.f
                ),
            };
            let next = "end the other one: bfs drill ITS-FOLDER; or see what breaks: --break-it";
            return Err(Failure::new(what, why).exit(Exit::Usage).advise(next));
        }
    }
    let told = order(&args.dir, args.attack.as_deref(), &[])?;
    let what = match told.attack {
        Some(name) => format!("attacks by {name}"),
        None => "is honest again".into(),
    };
    say(format_args!("r{} of group {} {what}", told.replica, told.group))?;
    Ok(Exit::Fine)
}

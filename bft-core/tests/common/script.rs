//! The commands of a trace. `docs/testing.md` explains them.

#[path = "stage.rs"]
pub mod stage;

use crate::common::{Cluster, Counter};
use crate::forgery::{self, Batch};
use bft_core::io::{Input, Timer};
use bft_core::messages::{
    BatchBody, BatchEntry, Claim, Commit, Committed, Held, Message, Operation, Outcome, Phase,
    PrePrepare, Prepare, ResultBody, Status, Suspect, ViewChange, null_request,
};
use bft_core::replica::{Config, Replica};
use bft_core::types::*;
use datadriven::TestCase;
use stage::{Filter, Rule, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};
use std::str::FromStr;

pub type Script = Stage;
type Output = Result<String, String>;

/// Runs one command of a trace.
pub fn run(script: &mut Option<Script>, command: &TestCase) -> Output {
    let mut args = Arguments(command.clone());
    let done = match (command.directive.as_str(), script.as_mut()) {
        ("cluster", _) => cluster(&mut args).map(|stage| {
            *script = Some(stage);
            "ok\n".into()
        }),
        (_, None) => Err("a trace begins with `cluster`".into()),
        (directive, Some(stage)) => perform(stage, directive, &mut args),
    };
    let done = done.map_err(|why| format!("{}: {why}", command.directive))?;
    args.0.expect_empty().map_err(|error| error.to_string())?;
    Ok(if done.is_empty() { "ok\n".into() } else { done })
}

fn perform(stage: &mut Stage, directive: &str, args: &mut Arguments) -> Output {
    match directive {
        "request" => request(stage, args),
        "batch" => batch(stage, args),
        "forge" => forge(stage, args),
        "equivocate" => equivocate(stage, args),
        "deliver" => deliver(stage, args),
        "hold" | "drop" => {
            let rule = Rule { filter: args.filter()?, drop: directive == "drop" };
            stage.rules.push(rule);
            stage.lose();
            Ok(String::new())
        }
        "heal" => {
            stage.rules.clear();
            Ok(String::new())
        }
        "replay" => replay(stage, args),
        "advance" => {
            let ms: u64 = args.one("ms")?;
            pass(stage, ms);
            Ok(String::new())
        }
        "timeout" => timeout(stage, args),
        "status" => {
            each(stage, args, |stage, i, _| stage.group.input(i, Input::Timeout(Timer::Status)))
        }
        "restart" => each(stage, args, |stage, i, out| {
            let config = Config { me: ReplicaId(i), ..stage.group.config };
            let snapshot = stage.group.replicas[i as usize].stable_snapshot();
            let (authority, records) = (stage.group.authority(i), &stage.group.records[i as usize]);
            let again = Replica::recover(config, authority, Counter, snapshot, records);
            stage.replace(i, again.expect("the records are whole"), out);
        }),
        "wipe" => {
            let incarnation: u64 = args.one("incarnation")?;
            each(stage, args, |stage, i, out| {
                let config = Config { me: ReplicaId(i), ..stage.group.config };
                stage.group.records[i as usize].clear();
                let empty = Replica::rejoin(config, stage.group.authority(i), Counter, incarnation);
                stage.replace(i, empty, out);
            })
        }
        "show" => Ok(stage.table()),
        "wire" => Ok(wire(stage)),
        "stabilize" => stabilize(stage),
        "expect" => expect(stage, args),
        "assert-invariants" => assert_invariants(stage),
        other => Err(format!("no such command: {other}")),
    }
}

/// What stands behind a command. Every argument must be used.
pub struct Arguments(TestCase);

impl Arguments {
    fn optional<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        let Some(mut values) = self.0.args.remove(name) else { return Ok(None) };
        match (values.pop(), values.is_empty()) {
            (Some(value), true) => {
                value.parse().map(Some).map_err(|why| format!("{name}={value}: {why}"))
            }
            _ => Err(format!("{name} takes one value")),
        }
    }

    fn one<T: FromStr>(&mut self, name: &str) -> Result<T, String>
    where
        T::Err: Display,
    {
        self.optional(name)?.ok_or(format!("{name}= is missing"))
    }

    fn list<T: FromStr>(&mut self, name: &str) -> Result<Option<Vec<T>>, String>
    where
        T::Err: Display,
    {
        let Some(values) = self.0.args.remove(name) else { return Ok(None) };
        let parse = |value: String| value.parse().map_err(|why: T::Err| format!("{value}: {why}"));
        values.into_iter().map(parse).collect::<Result<_, _>>().map(Some)
    }

    fn flag(&mut self, name: &str) -> bool {
        self.0.args.remove(name).is_some()
    }

    fn filter(&mut self) -> Result<Filter, String> {
        let (from, to) = (self.list("from")?, self.list("to")?);
        Ok(Filter { from, to, kind: self.list("kind")?, n: self.optional("n")? })
    }
}

/// `cluster n=4 f=1 byzantine=(0) k=4 l=8 clients=2`: a group whose clients have opened their sessions.
fn cluster(args: &mut Arguments) -> Result<Stage, String> {
    let (n, f) = (args.one("n")?, args.one("f")?);
    let (k, l) = (args.optional("k")?.unwrap_or(4), args.optional("l")?.unwrap_or(8));
    let clients: u32 = args.optional("clients")?.unwrap_or(1);
    let byzantine: BTreeSet<u32> =
        args.list("byzantine")?.unwrap_or_default().into_iter().collect();
    if byzantine.len() > f as usize {
        return Err("more than f are byzantine".into());
    }
    let mut group = Cluster::with(n, f, |config| config.with_window(k, l));
    group.open_session();
    for client in 1..clients {
        for i in 0..n {
            let peer = Peer::Client(ClientId(client));
            group.input(i, Input::Connected { peer, entropy: [i as u8; 32] });
        }
        group.ask_as(client, 0, Cluster::open_session_of(client));
        group.deliver_all();
    }
    group.replies.clear();
    Ok(Stage::new(group, byzantine))
}

/// `request c=0 slot=0 seq=1 add=5 to=(0,1) good=(0)`: client c asks those replicas, by its own link; signed unless `good`
/// says for which replicas its MACs fit.
fn request(stage: &mut Stage, args: &mut Arguments) -> Output {
    let c = args.optional("c")?.unwrap_or(0);
    let (slot, seq) = (args.optional("slot")?.unwrap_or(0), args.one("seq")?);
    let (add, to) = (args.one("add")?, args.list("to")?.ok_or("to= is missing")?);
    let good: Option<Vec<u32>> = args.list("good")?;
    let request = forgery::request(c, slot, seq, add, good.as_deref());
    let mut out = String::new();
    for i in to {
        let _ = writeln!(out, "c{c} -> r{i}  REQUEST seq={seq} of slot {slot} add={add}");
        stage.group.give(Peer::Client(ClientId(c)), i, Message::Request(request.clone()));
        stage.observe(&mut out);
    }
    Ok(out)
}

/// `batch name=a c=0 seq=1 add=5 later=0 sooner=0 unsigned`: names a batch, of which a byzantine replica can then speak.
fn batch(stage: &mut Stage, args: &mut Arguments) -> Output {
    let name: String = args.one("name")?;
    let clients: Vec<u32> = args.list("c")?.unwrap_or_default();
    let seqs: Vec<u64> = args.list("seq")?.unwrap_or_default();
    let adds: Vec<u8> = args.list("add")?.unwrap_or_default();
    let good: Option<Vec<u32>> = args.list("good")?;
    let unsigned = args.flag("unsigned");
    if seqs.len() != adds.len() {
        return Err("as many seq as add".into());
    }
    let (later, sooner): (Option<u64>, Option<u64>) =
        (args.optional("later")?, args.optional("sooner")?);
    let wall = stage.group.now.wall.0 + later.unwrap_or(0) * 1_000_000;
    let time = Time(wall - sooner.unwrap_or(0) * 1_000_000);
    let each = seqs.iter().zip(&adds).enumerate().map(|(k, (seq, add))| {
        let c = clients.get(k).copied().unwrap_or(0);
        let request = forgery::request(c, 0, *seq, *add, good.as_deref());
        BatchEntry::Inline(if unsigned { forgery::unsigned(request) } else { request })
    });
    let batch = Batch { time, entries: each.collect() };
    stage.label(batch.digest(), name.clone());
    stage.batches.insert(name, batch);
    Ok(String::new())
}

/// `equivocate from=0 v=0 n=2 d=(a,b) to=(1,2) rest=(3)`: one batch to some, another to the rest.
fn equivocate(stage: &mut Stage, args: &mut Arguments) -> Output {
    let (from, view, n) = (byzantine(stage, args)?, args.one("v")?, args.one("n")?);
    let names: Vec<String> = args.list("d")?.ok_or("d= is missing")?;
    let (to, rest): (Option<Vec<u32>>, Option<Vec<u32>>) = (args.list("to")?, args.list("rest")?);
    let (Some(to), Some(rest), [first, second]) = (to, rest, &names[..]) else {
        return Err("d=(a,b) to=(…) rest=(…)".into());
    };
    let mut out = String::new();
    for (name, targets) in [(first, to), (second, rest)] {
        let message = pre_prepare(stage, view, n, name)?;
        stage.hand_over(from, &targets, message, &mut out);
    }
    Ok(out)
}

fn byzantine(stage: &Stage, args: &mut Arguments) -> Result<u32, String> {
    let from = args.one("from")?;
    if !stage.byzantine.contains(&from) {
        return Err(format!("r{from} is not byzantine"));
    }
    Ok(from)
}

fn pre_prepare(stage: &Stage, view: u64, n: u64, name: &str) -> Result<Message, String> {
    let Batch { time, entries } = named_batch(stage, name)?.clone();
    let m = PrePrepare { view: View(view), n: SequenceNumber(n), time, batch: entries };
    Ok(Message::PrePrepare(m))
}

fn named_batch<'a>(stage: &'a Stage, name: &str) -> Result<&'a Batch, String> {
    stage.batches.get(name).ok_or(format!("no batch is called {name}"))
}

/// A digest by the name that traces print.
fn digest(stage: &Stage, name: &str) -> Result<Digest, String> {
    if name == "null" {
        return Ok(null_request());
    }
    stage.digest(name).ok_or(format!("nothing is called {name}"))
}

/// Claims written as `n.name.v`.
fn claims(stage: &Stage, args: &mut Arguments, of: &str) -> Result<Vec<Claim>, String> {
    let written: Vec<String> = args.list(of)?.unwrap_or_default();
    let each = written.iter().map(|claim| {
        let (n, rest) = claim.split_once('.').ok_or("a claim is n.name.v")?;
        let (name, view) = rest.rsplit_once('.').ok_or("a claim is n.name.v")?;
        let (n, view) = (n.parse().map_err(|_| "n")?, view.parse().map_err(|_| "v")?);
        let digest = digest(stage, name)?;
        Ok(Claim { n: SequenceNumber(n), digest, view: View(view) })
    });
    each.collect()
}

/// `forge from=0 kind=PREPARE … to=(1,2)`: a byzantine replica says this to those, past every rule.
fn forge(stage: &mut Stage, args: &mut Arguments) -> Output {
    let from = byzantine(stage, args)?;
    let (kind, to): (String, Option<Vec<u32>>) = (args.one("kind")?, args.list("to")?);
    let message = forged(stage, from, &kind, args)?;
    if let (Message::ViewChange(m), Some(name)) = (&message, args.optional::<String>("as")?) {
        stage.view_changes.insert(name, m.clone());
    }
    let mut out = String::new();
    if let Some(to) = to {
        stage.hand_over(from, &to, message, &mut out);
    }
    Ok(out)
}

fn forged(
    stage: &mut Stage,
    from: u32,
    kind: &str,
    args: &mut Arguments,
) -> Result<Message, String> {
    match kind {
        "PRE-PREPARE" => {
            let (view, n, name) = (args.one("v")?, args.one("n")?, args.one::<String>("d")?);
            pre_prepare(stage, view, n, &name)
        }
        "PREPARE" | "COMMIT" => {
            let (view, n) = (View(args.one("v")?), SequenceNumber(args.one("n")?));
            let digest = digest(stage, &args.one::<String>("d")?)?;
            Ok(match kind {
                "PREPARE" => Message::Prepare(Prepare { view, n, digest }),
                _ => Message::Commit(Commit { view, n, digest }),
            })
        }
        "COMMITTED" => {
            let n = SequenceNumber(args.one("n")?);
            let Batch { time, entries } = named_batch(stage, &args.one::<String>("d")?)?.clone();
            Ok(Message::Committed(Committed { n, time, batch: entries }))
        }
        "BATCH" => {
            let Batch { time, entries } = named_batch(stage, &args.one::<String>("d")?)?.clone();
            Ok(Message::Batch(BatchBody { time, batch: entries }))
        }
        "CHECKPOINT" => {
            let (n, byte): (u64, u8) = (args.one("n")?, args.one("lie")?);
            Ok(Message::Checkpoint(forgery::checkpoint(from, n, Digest([byte; 32]))))
        }
        "SUSPECT" => Ok(Message::Suspect(Suspect { view: View(args.one("v")?) })),
        "STATUS" => Ok(status(args)?),
        "VIEW-CHANGE" => view_change(stage, from, args),
        "NEW-VIEW" => new_view(stage, from, args),
        other => Err(format!("{other} cannot be forged")),
    }
}

fn status(args: &mut Arguments) -> Result<Message, String> {
    Ok(Message::Status(Status {
        view: View(args.one("v")?),
        begun: Some(Digest([0; 32])),
        view_changes: Vec::new(),
        missing_view_changes: Vec::new(),
        missing_batches: Vec::new(),
        stable: SequenceNumber(0),
        executed: SequenceNumber(args.one("executed")?),
        held: vec![Held::Nothing; 8],
        missing: Vec::new(),
    }))
}

/// P and Q as given, h without its proof; or `copy=r3.1`, what r3 has sent for view 1.
fn view_change(stage: &Stage, from: u32, args: &mut Arguments) -> Result<Message, String> {
    if let Some(name) = args.optional::<String>("copy")? {
        return sent_view_change(stage, &name).map(Message::ViewChange);
    }
    let (p, q) = (claims(stage, args, "p")?, claims(stage, args, "q")?);
    let mut m = forgery::view_change(from, args.one("v")?, p, q);
    if let Some(stable) = args.optional("h")? {
        m.stable = SequenceNumber(stable);
        forgery::sign_view_change(&mut m);
    }
    Ok(Message::ViewChange(m))
}

fn sent_view_change(stage: &Stage, name: &str) -> Result<ViewChange, String> {
    stage.view_changes.get(name).cloned().ok_or(format!("no VIEW-CHANGE is called {name}"))
}

fn new_view(stage: &Stage, from: u32, args: &mut Arguments) -> Result<Message, String> {
    let (view, stable) = (args.one("v")?, args.optional("h")?.unwrap_or(0));
    let names: Vec<String> = args.list("of")?.ok_or("of= is missing")?;
    let found = names.iter().map(|name| sent_view_change(stage, name));
    let grounds = found.collect::<Result<Vec<_>, _>>()?;
    let chosen: Vec<String> = args.list("x")?.unwrap_or_default();
    let batches = chosen.iter().map(|name| digest(stage, name)).collect::<Result<_, _>>()?;
    Ok(Message::NewView(forgery::new_view(from, view, stable, &grounds, batches)))
}

fn deliver(stage: &mut Stage, args: &mut Arguments) -> Output {
    let quiet = args.flag("quiet");
    let filter = args.filter()?;
    let mut out = String::new();
    stage.deliver(&filter, &mut out);
    Ok(if quiet { quietly(&out) } else { out })
}

/// Only what the replicas did, without what they said and were told.
fn quietly(out: &str) -> String {
    let done = |line: &&str| line.starts_with("  ") && !line.contains(" rejects: ");
    out.lines().filter(done).map(|line| format!("{line}\n")).collect()
}

/// `replay kind=(…) from=… to=…`: everything that was delivered before and matches comes again, to the same replicas.
fn replay(stage: &mut Stage, args: &mut Arguments) -> Output {
    let filter = args.filter()?;
    let (mut out, mut count) = (String::new(), 0);
    let before = (stage.executed(), stage.counts());
    for old in stage.delivered.clone() {
        for to in old.to.iter().copied() {
            if filter.matches(old.from, to, &old.message) {
                count += 1;
                stage.group.give(Peer::Replica(ReplicaId(old.from)), to, old.message.clone());
                stage.observe(&mut out);
            }
        }
    }
    if count == 0 {
        return Err("nothing of the kind was delivered".into());
    }
    let mut why: BTreeMap<String, usize> = BTreeMap::new();
    for line in out.lines() {
        if let Some((_, reason)) = line.split_once(" rejects: ") {
            *why.entry(reason.to_string()).or_default() += 1;
        }
    }
    let changed = before != (stage.executed(), stage.counts());
    let mut told = format!("{count} messages came again; the state changed: {changed}\n");
    for (reason, times) in why {
        let _ = writeln!(told, "  rejected as {reason}: {times}");
    }
    Ok(told)
}

fn pass(stage: &mut Stage, ms: u64) {
    stage.group.now.tick = Tick(stage.group.now.tick.0 + ms * 1_000);
    stage.group.now.wall.0 += ms * 1_000_000;
}

/// `timeout at=(1,2) ms=1000`: time passes to each one's deadline; the first must be that far off.
fn timeout(stage: &mut Stage, args: &mut Arguments) -> Output {
    let (ms, start): (Option<u64>, _) = (args.optional("ms")?, stage.group.now.tick);
    let first: u32 = args.0.args.get("at").and_then(|at| at.first()?.parse().ok()).unwrap_or(0);
    let due = stage.group.view_timers[first as usize].map(|at| at.since(start).as_millis() as u64);
    if ms.is_some() && due != ms {
        return Err(format!("not met: r{first} is due in {due:?} ms"));
    }
    each(stage, args, |stage, i, out| {
        let waited = stage.group.view_timeout(i);
        let _ = writeln!(out, "r{i}: the view timer fires, {} ms from now", waited.as_millis());
    })
}

fn each(
    stage: &mut Stage,
    args: &mut Arguments,
    act: impl Fn(&mut Stage, u32, &mut String),
) -> Output {
    let mut out = String::new();
    for i in args.list("at")?.ok_or("at= is missing")? {
        act(stage, i, &mut out);
        stage.observe(&mut out);
    }
    Ok(out)
}

fn wire(stage: &Stage) -> String {
    let lines = stage.wire.iter().map(|transit| {
        let to: Vec<_> = transit.to.iter().map(|i| format!("r{i}")).collect();
        format!("r{} .. {}  {}\n", transit.from, to.join(" "), stage.line(&transit.message))
    });
    lines.collect()
}

/// The network heals for the correct replicas, the byzantine ones fall silent for ever, and the correct ones must come to
/// agree on everything: I-7.
fn stabilize(stage: &mut Stage) -> Output {
    let silent: Vec<u32> = stage.byzantine.iter().copied().collect();
    let (from, to) = (Filter { from: Some(silent.clone()), ..Filter::default() }, Some(silent));
    stage.rules =
        [from, Filter { to, ..Filter::default() }].map(|filter| Rule { filter, drop: true }).into();
    stage.lose();
    let mut out = String::new();
    for round in 0..60 {
        stage.deliver(&Filter::default(), &mut out);
        if round > 1 && stage.at_rest() {
            return Ok(quietly(&out) + &stage.table());
        }
        pass(stage, 150);
        for i in stage.correct() {
            stage.group.input(i, Input::Timeout(Timer::Status));
            let due = stage.group.view_timers[i as usize];
            if due.is_some_and(|at| at <= stage.group.now.tick) {
                stage.group.view_timers[i as usize] = None;
                stage.group.input(i, Input::Timeout(Timer::ViewChange));
            }
            stage.observe(&mut out);
        }
    }
    Err(format!("the group never comes to rest:\n{}", stage.table()))
}

impl Stage {
    fn executed(&self) -> Vec<u64> {
        self.group.executed()
    }

    fn counts(&self) -> Vec<u64> {
        (0..self.n()).map(|i| self.count(i)).collect()
    }

    fn at_rest(&mut self) -> bool {
        let correct = self.correct();
        let digests = self.group.digests();
        let states = correct.iter().map(|i| {
            let (replica, i) = (&self.group.replicas[*i as usize], *i as usize);
            (replica.view(), replica.executed(), replica.tentative(), digests[i])
        });
        let states: Vec<_> = states.collect();
        states.windows(2).all(|pair| pair[0] == pair[1])
            && states
                .first()
                .is_some_and(|((_, active), _, tentative, _)| *active && tentative.is_none())
            && correct
                .iter()
                .all(|i| self.group.replicas[*i as usize].health(0).phase == Phase::Active)
    }
}

/// I-1 for all that was ever executed, equal states at equal sequence numbers, and each replica's own invariants.
fn assert_invariants(stage: &mut Stage) -> Output {
    let digests = stage.group.digests();
    let mut states: BTreeMap<SequenceNumber, Digest> = BTreeMap::new();
    for i in stage.correct() {
        let replica = &stage.group.replicas[i as usize];
        replica.check_invariants();
        if replica.is_stopped() {
            return Err(format!("r{i} has stopped on an alarm"));
        }
        if replica.tentative().is_none() {
            let state = digests[i as usize];
            if *states.entry(replica.executed()).or_insert(state) != state {
                return Err(format!("r{i} holds another state at n={}", replica.executed()));
            }
        }
    }
    Ok(format!("{} batches agreed on\n", stage.ledger.len()))
}

/// What must be so, whatever was printed.
fn expect(stage: &mut Stage, args: &mut Arguments) -> Output {
    if let Some(seq) = args.optional::<u64>("accepted")? {
        let (c, slot) = (args.optional("c")?.unwrap_or(0), args.optional("slot")?.unwrap_or(0));
        let count: u64 = args.one("count")?;
        let accepted = accepted(stage, c, slot, seq);
        return met(accepted == Some(count), || format!("the client accepts {accepted:?}"));
    }
    if let Some(seq) = args.optional::<u64>("unanswered")? {
        let (c, slot) = (args.optional("c")?.unwrap_or(0), args.optional("slot")?.unwrap_or(0));
        let accepted = accepted(stage, c, slot, seq);
        return met(accepted.is_none(), || format!("the client accepts {accepted:?}"));
    }
    if let Some(n) = args.optional::<u64>("committed")? {
        let (name, found) = (args.one::<String>("d")?, stage.ledger.get(&n).copied());
        let wanted = if name == "none" { None } else { Some(digest(stage, &name)?) };
        return met(found == wanted, || format!("committed at n={n}: {found:?}"));
    }
    if let Some(why) = args.optional::<String>("rejected")? {
        let (at, times) = (args.one::<u32>("at")?, args.optional::<usize>("times")?);
        let same = |(i, found): &&(u32, _)| *i == at && format!("{found:?}") == why;
        let found = stage.rejections.iter().filter(same).count();
        let fits = times.map_or(found > 0, |times| found == times);
        return met(fits, || format!("r{at} has rejected {found} for that"));
    }
    if let Some(kind) = args.optional::<String>("nothing-sent")? {
        let filter = Filter { kind: Some(vec![kind]), ..args.filter()? };
        let sent = stage
            .wire
            .iter()
            .find(|t| t.to.iter().any(|to| filter.matches(t.from, *to, &t.message)));
        let sent = sent.map(|transit| stage.line(&transit.message));
        return met(sent.is_none(), || format!("on its way: {sent:?}"));
    }
    expect_of_replicas(stage, args)
}

fn met(holds: bool, found: impl FnOnce() -> String) -> Output {
    if holds { Ok(String::new()) } else { Err(format!("not met: {}", found())) }
}

fn expect_of_replicas(stage: &mut Stage, args: &mut Arguments) -> Output {
    let of = args.list("of")?.unwrap_or_else(|| stage.correct());
    let wanted = ["executed", "view", "count", "stable", "phase", "tentative", "clock"];
    let mut given = Vec::new();
    for name in wanted {
        if let Some(value) = args.optional::<String>(name)? {
            given.push((name, value));
        }
    }
    if given.is_empty() {
        return Err("expects nothing".into());
    }
    for i in of {
        let replica = &stage.group.replicas[i as usize];
        let health = replica.health(0);
        for (name, value) in &given {
            let found = match *name {
                "executed" => health.executed.to_string(),
                "view" => health.view.to_string(),
                "count" => stage.count(i).to_string(),
                "stable" => health.stable.to_string(),
                "phase" => format!("{:?}", health.phase),
                // How far agreed time is ahead of the clocks. Units: milliseconds.
                "clock" => {
                    let (agreed, wall) = (replica.objects().clock().0, stage.group.now.wall.0);
                    ((agreed as i64 - wall as i64) / 1_000_000).to_string()
                }
                _ => replica.tentative().map_or("none".into(), |n| n.to_string()),
            };
            if found != *value {
                return Err(format!("not met: r{i} has {name}={found}, not {value}"));
            }
        }
    }
    Ok(String::new())
}

/// What client `c` accepts for `seq`: 2f+1 replies that match, the tentative ones of one view. (decision 2)
fn accepted(stage: &Stage, c: u32, slot: u16, seq: u64) -> Option<u64> {
    let mut voters: BTreeMap<(u64, u64, Digest), BTreeMap<u32, Option<View>>> = BTreeMap::new();
    for (i, message) in &stage.answers {
        let Message::Reply(m) = message else { continue };
        let Outcome::Result(ResultBody::Whole(result)) = &m.outcome else { continue };
        if (m.slot.0, m.seq) != (slot, seq) || !asked_by(stage, c, slot, seq, &m.request) {
            continue;
        }
        let count = u64::from_le_bytes(result[..].try_into().ok()?);
        let view = Some(m.view).filter(|_| m.tentative);
        voters.entry((m.n.0, count, m.request)).or_default().insert(*i, view);
    }
    let quorum = stage.group.config.size.quorum();
    voters.iter().find_map(|((_, count, _), by)| {
        let final_ones = by.values().filter(|view| view.is_none()).count();
        let views: BTreeSet<View> = by.values().flatten().copied().collect();
        let of_view = |v: View| by.values().filter(|view| **view == Some(v)).count();
        let most = views.into_iter().map(of_view).max().unwrap_or(0);
        (final_ones + most >= quorum).then_some(*count)
    })
}

/// Whether `digest` is of a request of client `c`. Its operation is one byte, so all can be tried.
fn asked_by(_: &Stage, c: u32, slot: u16, seq: u64, digest: &Digest) -> bool {
    (0..=255).any(|add| {
        let request = forgery::request(c, slot, seq, add, None).request;
        matches!(request.operation, Operation::Service(_)) && request.digest() == *digest
    })
}

//! One replica after the other loses its state, or lies and is set up anew with none. (P9)
//!
//! At most f at a time count as faulty: the liars, those whose process is down, and those that have not spoken again. As
//! soon as one speaks again it is held to every promise, and the next one may be hurt, before the first is in the view even.
//! Whatever is hurt, all that are up must be well within a bounded time of quiet.

use super::{Event, World};
use crate::adversary::{Adversary, Both, Replay};
use crate::faults::{Fault, cut};
use crate::plan::{Plan, Scenario, draw_adversary};
use bft_core::io::Record;
use bft_core::messages::{Message, Phase};
use bft_core::types::{ClusterSize, SequenceNumber, View};
use fastrand::Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How often it is looked at how everyone is. Units: microseconds of virtual time.
pub(super) const PERIOD: u64 = 5_000;
/// How long a replica may be unwell, from when nothing more goes wrong on, beside [`TIMEOUTS`]. Units: microseconds of virtual time.
const BOUND: u64 = 5_000_000;
/// How many first view timeouts more: primaries may be unwell too, one after the other, and timeouts may have doubled.
const TIMEOUTS: u32 = 10;
/// The longest that a liar lies. Units: microseconds of virtual time.
const LONGEST_LIE: u64 = 1_500_000;
/// How many old messages may be replayed.
const REMEMBERED: usize = 256;
/// Sets these draws apart from those of the rest of the world.
const SALT: u64 = 0x726f_6c6c_696e_6721;

/// Who is hurt, and what is still to come.
pub(super) struct Rolling {
    rng: Rng,
    /// How many are still to be hurt, and no sooner than when.
    left: u32,
    next_at: u64,
    /// Whether the next one is hurt only when all are well.
    patient: bool,
    /// How many operations clients ask for each time.
    share: u64,
    hurts: Vec<Hurt>,
    /// Who has spoken again and is not well yet, and since when it has had all it needs.
    unwell: Vec<(usize, u64)>,
    /// Who may have left the view alone since it was last well: f liars, or lost SUSPECTs, have made it.
    astray: Vec<bool>,
    /// Who has suspected the primary of each view.
    suspects: BTreeMap<View, BTreeSet<usize>>,
    storm_until: Option<u64>,
    /// When something went wrong last.
    disturbed_at: u64,
    /// How far everyone must come, and whether that is all that clients asked for.
    target: SequenceNumber,
    settled: bool,
    done: bool,
    /// Signed messages of the past, and lies.
    past: VecDeque<Message>,
}

/// What one replica suffers.
struct Hurt {
    host: usize,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Lies {
        until: u64,
    },
    Down {
        until: u64,
        wiped: bool,
    },
    /// Begun with nothing; with the second crash that some have.
    Mute {
        since: u64,
        stumbles_at: Option<u64>,
    },
}

impl Rolling {
    /// What is drawn for `plan`, where that is its scenario.
    pub fn draw(plan: &Plan, size: ClusterSize) -> Option<Self> {
        if plan.scenario != Scenario::Rolling {
            return None;
        }
        let mut rng = Rng::with_seed(plan.seed ^ SALT);
        let n = size.n() as u32;
        let left = if size.f() == 0 { 0 } else { rng.u32(n..=2 * n) };
        Some(Self {
            left,
            next_at: rng.u64(10_000..300_000),
            patient: rng.bool(),
            share: (plan.operations / (u64::from(left) + 2)).max(1),
            hurts: Vec::new(),
            unwell: Vec::new(),
            suspects: BTreeMap::new(),
            astray: vec![false; size.n()],
            storm_until: None,
            disturbed_at: 0,
            target: SequenceNumber(0),
            settled: false,
            done: false,
            past: VecDeque::new(),
            rng,
        })
    }

    /// How many operations each client begins with.
    pub fn share(&self) -> u64 {
        self.share
    }

    /// Whether everyone has had enough, and is well.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl World {
    /// Time has passed: goes on with what is under way, looks at how everyone is, and hurts another.
    pub(super) fn roll(&mut self) {
        let Some(mut rolling) = self.rolling.take() else { return };
        self.end_storm(&mut rolling);
        for hurt in core::mem::take(&mut rolling.hurts) {
            let stage = self.go_on_hurting(&mut rolling, hurt.host, hurt.stage);
            rolling.hurts.extend(stage.map(|stage| Hurt { host: hurt.host, stage }));
        }
        let ailing = self.look_around(&mut rolling);
        let ready = ailing.is_none() || !rolling.patient;
        if rolling.left > 0
            && ready
            && rolling.next_at <= self.now
            && rolling.hurts.len() < self.size.f()
        {
            self.hurt_another(&mut rolling);
        } else if rolling.left == 0 && rolling.hurts.is_empty() && ailing.is_none() {
            rolling.done = true;
        }
        if !rolling.done {
            self.schedule(PERIOD, Event::Roll);
        }
        self.rolling = Some(rolling);
    }

    /// A signed message that may come again, from whoever lies then.
    pub(super) fn remember(&mut self, message: &Message) {
        let Some(rolling) = &mut self.rolling else { return };
        let signed = matches!(
            message,
            Message::ViewChange(_)
                | Message::NewView(_)
                | Message::Checkpoint(_)
                | Message::Request(_)
        );
        if !signed {
            return;
        }
        if rolling.past.len() == REMEMBERED {
            rolling.past.swap_remove_back(rolling.rng.usize(..REMEMBERED));
        }
        rolling.past.push_back(message.clone());
    }

    /// A replica suspects the primary of `view`.
    pub(super) fn note_suspect(&mut self, host: usize, view: View) {
        if let Some(rolling) = &mut self.rolling {
            rolling.suspects.entry(view).or_default().insert(host);
        }
    }

    /// Whether `host` knows for good that it may speak: before, another crash makes it mute again.
    fn has_come_back(&self, host: usize) -> bool {
        let node = &self.nodes[host];
        let over = |record: &Record| matches!(record, Record::Amnesia { incarnation, over: true } if *incarnation == node.incarnation);
        !node.faulty && node.disk.records.iter().any(over)
    }

    /// One that lost its state speaks again: from now on it is held to everything.
    pub(super) fn acquit_if_it_speaks(&mut self, host: usize) {
        let node = &mut self.nodes[host];
        let phase = node.replica.as_ref().map(|replica| replica.health(0).phase);
        let speaks = node.wiped && node.evil.is_none() && phase != Some(Phase::Recovering);
        if self.rolling.is_some() && speaks {
            node.faulty = false;
            self.evidence.acquit(node.id);
        }
    }

    fn disturb(&mut self, rolling: &mut Rolling) {
        rolling.disturbed_at = self.now;
        rolling.target = self.oracle.executed();
        rolling.settled = false;
    }

    fn end_storm(&mut self, rolling: &mut Rolling) {
        if rolling.storm_until.is_some_and(|until| until <= self.now) {
            rolling.storm_until = None;
            self.network.heal();
            self.note(format_args!("the storm is over"));
            self.disturb(rolling);
        }
    }

    /// Half of the hurts come in a storm.
    fn begin_storm(&mut self, rolling: &mut Rolling) {
        let rng = &mut rolling.rng;
        if rng.bool() {
            return;
        }
        let until = self.now + rng.u64(20_000..400_000);
        let addresses = self.nodes.len() + self.clients.len();
        self.network.loss_permille = rng.u32(..200);
        self.network.duplication_permille = rng.u32(..100);
        if rng.bool() {
            self.network.cut = cut(rng, self.nodes.len(), addresses).into_iter().collect();
        }
        for _ in 0..rng.u32(..4) {
            let link = (rng.usize(..addresses), rng.usize(..addresses));
            self.network.clogged.insert(link, until);
        }
        if rng.u32(..4) == 0 {
            let host = rng.usize(..self.nodes.len());
            self.nodes[host].paused_until = until;
        }
        rolling.storm_until = Some(until);
        rolling.astray.fill(true);
        self.note(format_args!("a storm until {until}"));
    }

    fn hurt_another(&mut self, rolling: &mut Rolling) {
        let up = |i: &usize| {
            let node = &self.nodes[*i];
            node.replica.is_some() && !node.faulty && rolling.hurts.iter().all(|h| h.host != *i)
        };
        let up: Vec<usize> = (0..self.nodes.len()).filter(up).collect();
        if up.is_empty() {
            return;
        }
        let view = up.iter().map(|i| self.nodes[*i].view).max().unwrap_or_default();
        let primary = self.size.primary(view).index();
        let drawn = up[rolling.rng.usize(..up.len())];
        let host = if rolling.rng.u32(..3) == 0 && up.contains(&primary) { primary } else { drawn };
        rolling.left -= 1;
        rolling.next_at = self.now + rolling.rng.u64(1_000..400_000);
        rolling.patient = rolling.rng.bool();
        self.begin_storm(rolling);
        let rng = &mut rolling.rng;
        let until = self.now + rng.u64(1_000..300_000);
        let stage = match rng.u32(..8) {
            0 => Stage::Down { until, wiped: false },
            1..=3 => Stage::Down { until, wiped: true },
            _ => Stage::Lies { until: self.now + rng.u64(20_000..LONGEST_LIE) },
        };
        match stage {
            Stage::Lies { .. } => self.corrupt(rolling, host),
            _ => self.crash(host),
        }
        if !matches!(stage, Stage::Down { wiped: false, .. }) {
            self.nodes[host].faulty = true;
            self.evidence.convict(self.nodes[host].id);
        }
        rolling.hurts.push(Hurt { host, stage });
        self.disturb(rolling);
        for c in 0..self.clients.len() {
            self.clients[c].workload.go_on(rolling.share);
            self.ask(c);
        }
    }

    /// From now on `host` lies; some liars know what was signed before.
    fn corrupt(&mut self, rolling: &mut Rolling, host: usize) {
        let mut attacks = Vec::new();
        rolling.astray.fill(true);
        let mut adversary = draw_adversary(&mut rolling.rng, &mut attacks);
        if rolling.rng.bool() {
            let replay: Box<dyn Adversary> = Box::new(Replay::of(rolling.past.iter().cloned()));
            adversary = Box::new(Both(adversary, replay));
        }
        self.note(format_args!("r{host} lies: {attacks:?}"));
        for name in attacks {
            *self.report.attacks.entry(name).or_default() += 1;
        }
        self.knowledge.accomplices.push(self.nodes[host].id);
        let evil = self.evil(adversary);
        let node = &mut self.nodes[host];
        node.evil = Some(evil);
        node.lied = true;
        self.schedule(self.tick, Event::Tick { address: host });
    }

    /// What becomes of a hurt replica; nothing once it needs no more help.
    fn go_on_hurting(&mut self, rolling: &mut Rolling, host: usize, stage: Stage) -> Option<Stage> {
        let now = self.now;
        match stage {
            Stage::Lies { until } if until <= now => {
                self.crash(host);
                let node = &mut self.nodes[host];
                node.evil = None;
                let id = node.id;
                self.knowledge.accomplices.retain(|liar| *liar != id);
                self.disturb(rolling);
                let until = now + rolling.rng.u64(1_000..100_000);
                Some(Stage::Down { until, wiped: true })
            }
            Stage::Down { until, wiped } if until <= now => {
                self.disturb(rolling);
                if !wiped {
                    self.suffer(Fault::Restart { host });
                    rolling.unwell.push((host, now));
                    return None;
                }
                // Its old connections end where its new ones begin.
                let former =
                    |event: &Event| matches!(event, Event::Frame { from, .. } if *from == host);
                self.events.retain(|Reverse(due)| !former(&due.event));
                self.suffer(Fault::RestartWiped { host });
                let stumbles = rolling.rng.u32(..5) == 0;
                let stumbles_at = stumbles.then(|| now + rolling.rng.u64(1_000..300_000));
                Some(Stage::Mute { since: now, stumbles_at })
            }
            Stage::Mute { since, .. } if self.has_come_back(host) => {
                rolling.unwell.push((host, since));
                None
            }
            Stage::Mute { since, stumbles_at: Some(at) } if at <= now => {
                self.suffer(Fault::Crash { host });
                self.suffer(Fault::Restart { host });
                self.disturb(rolling);
                Some(Stage::Mute { since, stumbles_at: None })
            }
            stage => Some(stage),
        }
    }

    /// What ails anyone who is up and no liar, or the clients. Some time after the last trouble nothing does.
    fn look_around(&mut self, rolling: &mut Rolling) -> Option<String> {
        let correct = self.clients.iter().filter(|c| c.evil.is_none());
        let asking = correct.map(|c| c.workload.pending()).sum::<usize>();
        if asking == 0 && !rolling.settled {
            (rolling.target, rolling.settled) = (self.oracle.executed(), true);
        }
        let calm = rolling.storm_until.is_none();
        let (disturbed, target) = (rolling.disturbed_at, rolling.target);
        let lies = self.nodes.iter().any(|node| node.evil.is_some());
        let mut ailing: Vec<String> = Vec::new();
        for host in 0..self.nodes.len() {
            let what = self.ails(host, target, self.may_be_alone(rolling, host));
            rolling.astray[host] &= !calm || lies || self.ails(host, target, false).is_some();
            ailing.extend(what.map(|what| format!("r{host} {what}")));
        }
        for (host, since) in core::mem::take(&mut rolling.unwell) {
            if self.ails(host, target, self.may_be_alone(rolling, host)).is_some() {
                rolling.unwell.push((host, since));
                continue;
            }
            self.report.returns += 1;
            let quiet = self.now - since.max(disturbed);
            self.report.slowest_return = self.report.slowest_return.max(quiet);
        }
        if asking > 0 {
            ailing.push(format!("{asking} operations wait"));
        }
        let ailing = (!ailing.is_empty()).then(|| ailing.join("; "));
        let allowed = self.config.view_timeout * TIMEOUTS + Duration::from_micros(BOUND);
        let late = calm && self.now > disturbed + allowed.as_micros() as u64;
        if let (Some(what), true) = (&ailing, late) {
            self.violation(format!("P9: {allowed:?} after the last trouble {what}"));
        }
        ailing.filter(|_| calm).or((!calm).then(|| "a storm".into()))
    }

    /// Whether `host` may have left its last view without anyone else: it is astray, or f others had lost patience too, at other
    /// times than those who stayed.
    fn may_be_alone(&self, rolling: &Rolling, host: usize) -> bool {
        let left = View(self.nodes[host].view.0.saturating_sub(1));
        let suspects = rolling.suspects.get(&left).map_or(0, BTreeSet::len);
        rolling.astray[host] || suspects > self.size.f()
    }

    /// What is wrong with `host`, which is expected to have come to `target`. One that went `astray` may be alone in a later
    /// view, until the others come there: it votes no more in theirs, and executes what they do.
    fn ails(&self, host: usize, target: SequenceNumber, astray: bool) -> Option<String> {
        let node = &self.nodes[host];
        let replica = node.replica.as_ref().filter(|_| node.evil.is_none())?;
        let health = replica.health(0);
        let sound = self.nodes.iter().filter(|node| node.evil.is_none());
        let views = sound.filter_map(|node| node.replica.as_ref()).map(|replica| replica.view());
        let newest = views.filter(|(_, active)| *active).map(|(view, _)| view).max();
        let is_ahead = newest.is_some_and(|view| view < health.view);
        match health.phase {
            Phase::ChangingView if astray && is_ahead && health.executed >= target => None,
            Phase::Recovering => Some("is mute".into()),
            Phase::ChangingView => Some(format!("has not entered {:?}", health.view)),
            Phase::Active if newest.is_some_and(|view| view > health.view) => {
                Some(format!("is still in {:?}", health.view))
            }
            Phase::Active if health.executed < target => {
                Some(format!("is at {:?}, {target:?} executed before", health.executed))
            }
            Phase::Active => None,
        }
    }
}

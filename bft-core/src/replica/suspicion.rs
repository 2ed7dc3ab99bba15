//! When a backup gives up its primary. [CL99 §4.4; CL02 §4.5; decision 6; `docs/decisions/0007`]
//!
//! Four things make it suspect: a batch that is under way and does not commit; a client whose request everyone can check
//! and that is not served; a view that a quorum wants and that does not begin; and a primary that lets requests lie for
//! much longer than the network needs, again and again, each time for less than the timeout.

use super::Replica;
use crate::io::{Destination, Output, Rejection, Timer};
use crate::log::NamedBatch;
use crate::messages::{Message, Suspect};
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::types::{ClientId, ReplicaId, Tick};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// A request may wait for so many timeouts although its client is served meanwhile.
const MAX_WAIT: u32 = 4;
/// How far a primary may exceed what the network needs, before that counts.
const SLACK: Duration = Duration::from_millis(10);
/// One of so many moments may pass with requests lying about.
const TOLERATED: u32 = 4;

/// What speaks against the primary of the current view.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    /// How long it has. Doubles with every view that brings nothing new.
    timeout: Duration,
    /// Whether anything new has committed in the current view.
    progressed: bool,
    /// When the timer will fire; that may be too early, and it is then set again.
    wakes_at: Option<Tick>,
    /// Since when a batch is under way and nothing commits.
    under_way_since: Option<Tick>,
    /// Since when a quorum wants the view that has not begun.
    awaited_since: Option<Tick>,
    /// Who has said SUSPECT in this view, and when last.
    suspects: BTreeMap<ReplicaId, Tick>,
    /// When clients that wait were last served.
    served: BTreeMap<ClientId, Tick>,
    /// Waits are counted from here on: before, this replica itself stood still.
    resumed: Tick,
    idle: Idleness,
}

/// How long requests have been lying about while the primary ordered nothing.
#[derive(Clone, Debug, Default)]
struct Idleness {
    since: Option<Tick>,
    /// Beyond what the network explains; drains at one [`TOLERATED`]th of the time that passes.
    excess: Duration,
    drained_at: Tick,
    /// How long a batch takes from its PRE-PREPARE to committed-local here: what the network needs, smoothed.
    phases: Option<Duration>,
}

impl Suspicion {
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            progressed: false,
            wakes_at: None,
            under_way_since: None,
            awaited_since: None,
            suspects: BTreeMap::new(),
            served: BTreeMap::new(),
            resumed: Tick(0),
            idle: Idleness::default(),
        }
    }

    /// How many replicas suspect the primary of this view.
    pub fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// How long the primary of this view has.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The view ends. One that brought nothing new doubles the next one's time, up to `max`; any other resets it to `base`.
    pub fn end_view(&mut self, base: Duration, max: Duration) {
        let doubles = !self.progressed || planted(Planted::TimerNeverResets);
        let doubles = doubles && !planted(Planted::TimerNeverDoubles);
        self.timeout = if doubles { (self.timeout * 2).min(max) } else { base };
        self.progressed = false;
        // The next view has its own time.
        self.wakes_at = None;
        self.suspects.clear();
        self.under_way_since = None;
        self.awaited_since = None;
        self.idle = Idleness { phases: self.idle.phases, ..Idleness::default() };
    }

    /// The view begins.
    pub fn begin_view(&mut self, now: Tick) {
        self.awaited_since = None;
        self.suspects.clear();
        // What waited for the old primary is not the new one's fault.
        self.resumed = now;
    }

    /// A batch came from PRE-PREPARE to committed-local in `took`.
    pub fn measure(&mut self, took: Duration) {
        let took = took.min(self.timeout);
        self.idle.phases = Some(self.idle.phases.map_or(took, |before| (before * 7 + took) / 8));
    }

    /// How long requests may lie about, as far as the network explains it.
    fn allowance(&self) -> Duration {
        self.idle.phases.unwrap_or(self.timeout / 8) * 4 + SLACK
    }

    /// Takes note of whether requests lie about. Says whether the primary has exhausted this replica's patience.
    fn observe(&mut self, now: Tick, idle: bool) -> bool {
        match (idle, self.idle.since) {
            (true, None) => self.idle.since = Some(now),
            (false, Some(since)) => {
                self.idle.since = None;
                let excess = now.since(since).saturating_sub(self.allowance());
                let drained = now.since(self.idle.drained_at) / TOLERATED;
                self.idle.drained_at = now;
                self.idle.excess = self.idle.excess.saturating_sub(drained) + excess;
                return self.idle.excess >= self.timeout;
            }
            _ => {}
        }
        false
    }
}

impl<S: Service> Replica<S> {
    /// After every input: takes note of what waits, and sets the timer if something does.
    pub(super) fn update_suspicion(&mut self, out: &mut Vec<Output>) {
        let now = self.now.tick;
        if self.is_mute() {
            return;
        }
        let waits = if self.is_active() {
            // Who is mute depends on the primary too.
            let under_way = self.is_under_way() || self.recovery_is_open();
            let timed = self.requests.any_timed();
            if !under_way {
                self.suspicion.under_way_since = None;
            } else {
                self.suspicion.under_way_since.get_or_insert(now);
            }
            let lie_about = timed && !under_way && !self.is_primary();
            if self.suspicion.observe(now, lie_about) {
                self.suspect(out);
            }
            !self.is_primary() && (under_way || timed)
        } else {
            if self.is_wanted() || self.view_changes.announced.is_some() {
                self.suspicion.awaited_since.get_or_insert(now);
            }
            self.suspicion.awaited_since.is_some()
        };
        if waits && self.suspicion.wakes_at.is_none() {
            self.wake_at(now.after(self.suspicion.timeout), out);
        }
    }

    fn wake_at(&mut self, at: Tick, out: &mut Vec<Output>) {
        self.suspicion.wakes_at = Some(at);
        out.push(Output::SetTimer { timer: Timer::ViewChange, at });
    }

    /// The timer fired: gives up the primary if what waits has waited long enough.
    pub(super) fn on_view_change_timeout(&mut self, out: &mut Vec<Output>) {
        let now = self.now.tick;
        let Some(woken) = self.suspicion.wakes_at.take().filter(|_| !self.is_mute()) else {
            return;
        };
        // A timer that fires late says more about this replica than about the primary: what it waits for may lie unread.
        if now.since(woken) > self.suspicion.timeout / 2 {
            self.suspicion.resumed = now;
        }
        match self.patience_ends_at() {
            Some(at) if at <= now => self.suspect(out),
            Some(at) => self.wake_at(at, out),
            None => {}
        }
    }

    /// Tells everyone that this replica has lost patience with the primary, and goes on as before: also where the view has not
    /// begun here, for it may have elsewhere, and who leaves it alone is out of the group until the others follow.
    pub(super) fn suspect(&mut self, out: &mut Vec<Output>) {
        let (me, now) = (self.config.me, self.now.tick);
        self.note_impatience();
        self.send(Destination::Replicas, Message::Suspect(Suspect { view: self.view }), None, out);
        self.wake_at(now.after(self.suspicion.timeout), out);
        self.suspicion.suspects.insert(me, now);
        self.count_suspects(out);
    }

    fn note_impatience(&mut self) {
        let primary = self.primary();
        self.evidence.give_up(primary, self.agreed_incarnation(primary), self.now.tick);
    }

    /// SUSPECT from `from`.
    ///
    /// Errors: `WrongView`.
    pub(super) fn on_suspect(
        &mut self,
        from: ReplicaId,
        m: Suspect,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        if m.view != self.view {
            return Err(Rejection::WrongView);
        }
        self.suspicion.suspects.insert(from, self.now.tick);
        self.count_suspects(out);
        Ok(())
    }

    /// Leaves the view once f+1 replicas, one of them correct, have lost patience at about the same time. Who has left it
    /// already has lost it for good.
    pub(super) fn count_suspects(&mut self, out: &mut Vec<Output>) {
        let (now, lasts) = (self.now.tick, self.suspicion.timeout * 2);
        self.suspicion.suspects.retain(|_, at| now.since(*at) < lasts);
        let gone = self.view_changes.newest.iter().filter(|(_, (_, m))| m.view > self.view);
        let gone = gone.filter(|_| !planted(Planted::LeaversNotCounted));
        let against: BTreeSet<_> =
            gone.map(|(i, _)| *i).chain(self.suspicion.suspects.keys().copied()).collect();
        if against.len() >= self.config.size.weak() {
            self.start_view_change(self.view.next(), out);
        }
    }

    /// When the longest wait has lasted long enough.
    fn patience_ends_at(&self) -> Option<Tick> {
        let Suspicion { timeout, resumed, served, .. } = &self.suspicion;
        if !self.is_active() {
            return self.suspicion.awaited_since.map(|since| since.after(*timeout));
        }
        if self.is_primary() {
            return None;
        }
        let under_way = self.suspicion.under_way_since.map(|at| at.max(*resumed).after(*timeout));
        let clients = self.requests.timed().map(|(client, since)| {
            let since = since.max(*resumed);
            let last = served.get(&client).map_or(since, |served| since.max(*served));
            last.after(*timeout).min(since.after(*timeout * MAX_WAIT))
        });
        clients.chain(under_way).min()
    }

    /// `batch` has committed: only that speaks for the primary. (decision 3)
    pub(super) fn note_progress(&mut self, batch: &NamedBatch, is_new: bool) {
        let now = self.now.tick;
        self.suspicion.under_way_since = None;
        self.suspicion.progressed |= is_new && !batch.requests.is_empty();
        if self.requests.any_timed() {
            self.suspicion.served.extend(batch.requests.iter().map(|named| (named.client, now)));
        } else {
            self.suspicion.served.clear();
        }
    }

    /// Whether a batch is pre-prepared here that has not executed.
    fn is_under_way(&self) -> bool {
        let executed = self.tentative().filter(|_| planted(Planted::TimerStopsTentatively));
        let executed = executed.unwrap_or(self.executed);
        let next = self.log.numbers().rev().take_while(|n| *n > executed);
        let mut entries = next.filter_map(|n| self.log.get(n));
        entries.any(|entry| entry.pre_prepare.is_some() || entry.awaited.is_some())
    }
}

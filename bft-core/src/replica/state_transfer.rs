//! State transfer: a replica that has been left behind fetches the state at a stable checkpoint. [CL02 §6.2.2]
//!
//! The digest comes from 2f+1 signed CHECKPOINTs; from there down every part is checked against the digest that the part
//! above gave it, so no donor needs to be trusted. Subtrees that are the same here are kept. Several donors serve at once,
//! each one FETCH at a time.

use super::Replica;
use crate::io::{Destination, Output, Record, Rejection, Timer};
use crate::messages::{Checkpoint, Fetch, Message, Parts, TransferProgress};
use crate::objects::{Objects, StateObject};
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::tree::Object;
use crate::tree::parts::{Address, Assembly, state_digest};
use crate::types::{Digest, ReplicaId, SequenceNumber, Tick};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// About how many bytes of parts one message carries.
const MAX_PARTS: usize = 256 * 1024;
/// How long a donor may take before another one is asked.
const DONOR_PATIENCE: Duration = Duration::from_millis(500);
/// How long parts are awaited from one donor alone: then one with nothing else to do is asked for them too.
const OVERDUE: Duration = Duration::from_millis(50);
/// How much may be spent ahead of the rate.
const BURST: Duration = Duration::from_millis(20);

/// A transfer under way.
#[derive(Clone)]
pub(super) struct Transfer<O> {
    n: SequenceNumber,
    /// What 2f+1 replicas signed.
    certificate: Arc<[Checkpoint]>,
    digest: Digest,
    /// Whether some donor does not have this checkpoint any more, or does not answer, so that a newer one is better.
    stale: bool,
    /// Whether the topmost part is known, to which the signed digest leads.
    aimed: bool,
    assembly: Assembly<StateObject<O>>,
    /// What each donor was asked for and has not sent.
    asked: BTreeMap<ReplicaId, Asked>,
    /// How often each donor has failed: those who answer are asked first, or one silent donor would be asked for ever.
    failures: BTreeMap<ReplicaId, u32>,
    /// Who has not what is aimed at, as far as that is known.
    without: BTreeSet<ReplicaId>,
    /// The newest older state that one of them has instead.
    offered: Option<Arc<[Checkpoint]>>,
    /// Nobody had a state that is newer than what is aimed at, up to this one.
    lost: SequenceNumber,
    pace: Pace,
    bytes: u64,
    since: Tick,
}

/// What a donor was asked for.
#[derive(Clone)]
struct Asked {
    addresses: BTreeSet<Address>,
    at: Tick,
    /// Whether it has sent a certificate since. If that was its answer, it has not what it was asked for, so others are asked
    /// too; if it was not, the parts come still.
    declined: bool,
}

impl Asked {
    /// When others may be asked for the same.
    fn overdue_at(&self) -> Tick {
        if self.declined { self.at } else { self.at.after(OVERDUE) }
    }
}

/// Keeps to a rate: what was spent too early is waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When everything that was spent is earned.
    earned_at: Tick,
}

impl Pace {
    /// Spends `bytes` at `rate` a second.
    fn spend(&mut self, now: Tick, bytes: usize, rate: u64) {
        let micros = (bytes as u64).saturating_mul(1_000_000) / rate.max(1);
        self.earned_at = self.earned_at.max(now).after(Duration::from_micros(micros));
    }

    /// Whether more may be spent now, or when.
    fn ready_at(&self, now: Tick) -> Option<Tick> {
        (self.earned_at.since(now) > BURST).then_some(self.earned_at)
    }
}

impl<O> Transfer<O> {
    fn new(certificate: Arc<[Checkpoint]>, since: Tick) -> Self {
        let mut transfer = Self {
            n: SequenceNumber(0),
            certificate: Arc::new([]),
            digest: Digest::default(),
            stale: false,
            aimed: false,
            assembly: Assembly::default(),
            asked: BTreeMap::new(),
            failures: BTreeMap::new(),
            without: BTreeSet::new(),
            offered: None,
            lost: SequenceNumber(0),
            pace: Pace::default(),
            bytes: 0,
            since,
        };
        transfer.aim_at(certificate);
        transfer
    }

    /// What to aim at instead, where somebody does not have what is aimed at: the `newest` state, as far as that is newer;
    /// or, where none of `donors` has it, what they have.
    ///
    /// 2f+1 replicas have signed a state, and it may be nowhere all the same: those who came back from their disks have the
    /// one before and all that followed, and the last one who had both crashed. Who waits for it waits for ever.
    fn better(&mut self, newest: Arc<[Checkpoint]>, donors: usize) -> Option<Arc<[Checkpoint]>> {
        if !self.stale {
            // What donors keep for this transfer is not given up for every newer state: the difference comes afterwards.
            return None;
        }
        if number(&newest) > self.n.max(self.lost) {
            return Some(newest);
        }
        if self.without.len() < donors {
            return None;
        }
        self.lost = self.lost.max(self.n);
        self.offered.take().or_else(|| {
            // They do not have that either. Whoever has the newest may be back.
            self.lost = SequenceNumber(0);
            (number(&newest) > self.n).then_some(newest)
        })
    }

    fn aim_at(&mut self, certificate: Arc<[Checkpoint]>) {
        self.n = number(&certificate);
        self.digest = certificate.first().map_or_else(Digest::default, |m| m.digest);
        self.certificate = certificate;
        self.stale = false;
        self.aimed = false;
        self.asked.clear();
        self.without.clear();
        self.offered = None;
    }

    /// `donor` has not what is aimed at, or does not say.
    fn do_without(&mut self, donor: ReplicaId) {
        self.without.insert(donor);
        self.stale = true;
    }

    /// `donor` was asked in vain: from now on it is asked after those who were not.
    fn fail(&mut self, donor: ReplicaId) {
        *self.failures.entry(donor).or_default() += 1;
    }

    /// `donor` has sent less than it could, or what is wrong: others are asked for what it was asked for, and it for nothing
    /// until its patience ends.
    fn dismiss(&mut self, donor: ReplicaId) {
        self.fail(donor);
        if let Some(asked) = self.asked.get_mut(&donor) {
            asked.addresses.clear();
        }
    }
}

impl<O: Object> Transfer<O> {
    /// What to ask an idle donor for: what nobody was asked for, or else what others have been asked for long ago.
    ///
    /// One that sends a little, and late, would else hold up all that is below what it was asked for.
    fn open(&self, now: Tick) -> BTreeSet<Address> {
        if !self.aimed {
            return BTreeSet::from([Address::ROOT]);
        }
        let wanted = |held: &dyn Fn(&Asked) -> bool| {
            let held: Vec<_> = self.asked.values().filter(|asked| held(asked)).collect();
            let asked = |address: &Address| held.iter().any(|a| a.addresses.contains(address));
            self.assembly.wanted(Fetch::MAX_ADDRESSES, asked)
        };
        let mut open = wanted(&|asked| !asked.declined);
        if open.is_empty() && !planted(Planted::DeadDonor) {
            open = wanted(&|asked| now < asked.overdue_at());
        }
        open.into_iter().collect()
    }
}

/// At which sequence number the state is that `certificate` proves.
fn number(certificate: &[Checkpoint]) -> SequenceNumber {
    certificate.first().map_or(SequenceNumber(0), |m| m.n)
}

impl<S: Service> Replica<S> {
    /// How far the transfer under way has come.
    pub(super) fn transfer_progress(&self) -> Option<TransferProgress> {
        self.transfer.as_ref().map(|transfer| TransferProgress {
            n: transfer.n,
            permille: if transfer.aimed { transfer.assembly.permille() } else { 0 },
            bytes: transfer.bytes,
            elapsed_ms: self.now.tick.since(transfer.since).as_millis() as u64,
        })
    }

    /// Whether a transfer is under way.
    pub(super) fn is_transferring(&self) -> bool {
        self.transfer.is_some()
    }

    /// Starts a transfer if this replica has been left behind, or aims a running one at a better state.
    pub(super) fn consider_transfer(&mut self, out: &mut Vec<Output>) {
        let (quorum, donors) = (self.config.size.quorum(), self.config.size.n() - 1);
        let Some(newest) = self.checkpoints.certified_beyond(self.executed, quorum) else { return };
        if let Some(transfer) = &mut self.transfer {
            let Some(better) = transfer.better(newest, donors) else { return };
            transfer.aim_at(better);
        } else {
            // Digests must be fresh, so that what is the same here is recognised.
            self.objects.digest();
            self.transfer = Some(Transfer::new(newest, self.now.tick));
        }
        self.ask_donors(out);
    }

    /// Once in a while: gives up on slow donors, and starts where this replica has made no progress by itself.
    pub(super) fn pursue_transfer(&mut self, out: &mut Vec<Output>) {
        if let Some(transfer) = &mut self.transfer {
            if transfer.n <= self.executed {
                self.transfer = None;
                return;
            }
            let now = self.now.tick;
            let slow = |at: Tick| now.since(at) >= DONOR_PATIENCE;
            let late = transfer.asked.iter().filter(|(_, asked)| slow(asked.at));
            let late: Vec<_> = late.map(|(donor, _)| *donor).collect();
            late.iter().for_each(|donor| drop(transfer.asked.remove(donor)));
            let given_up = late.into_iter().filter(|_| !planted(Planted::DeadDonor));
            given_up.for_each(|donor| {
                transfer.fail(donor);
                transfer.do_without(donor);
            });
            self.consider_transfer(out);
            self.ask_donors(out);
        } else if self.stuck_at == self.executed {
            self.consider_transfer(out);
        }
        self.stuck_at = self.executed;
    }

    /// Gives every idle donor something to fetch, and comes back when there is more for one that has nothing.
    pub(super) fn ask_donors(&mut self, out: &mut Vec<Output>) {
        let mut donors: Vec<_> = self.others().collect();
        let (now, Some(transfer)) = (self.now.tick, &mut self.transfer) else { return };
        if let Some(at) = transfer.pace.ready_at(now) {
            out.push(Output::SetTimer { timer: Timer::Transfer, at });
            return;
        }
        donors.sort_by_key(|donor| transfer.failures.get(donor).copied().unwrap_or(0));
        for donor in donors {
            if transfer.asked.contains_key(&donor) {
                continue;
            }
            let addresses = transfer.open(now);
            if addresses.is_empty() {
                let overdue = transfer.asked.values().map(Asked::overdue_at);
                if let Some(at) = overdue.filter(|at| *at > now).min() {
                    out.push(Output::SetTimer { timer: Timer::Transfer, at });
                }
                return;
            }
            let fetch = Fetch { n: transfer.n, addresses: addresses.iter().copied().collect() };
            transfer.asked.insert(donor, Asked { addresses, at: now, declined: false });
            let (to, message) = (Destination::Replica(donor), Message::Fetch(fetch));
            out.push(Output::Send { to, message, after: None });
        }
    }

    /// A FETCH from a replica that has been left behind.
    ///
    /// Effects: sends the first parts asked for, as many as one message should hold.
    /// Errors: `NoSuchCheckpoint`, where it is gone; the asker is told of the newest. `TooOften`, beyond what this replica
    /// serves a second.
    pub(super) fn on_fetch(
        &mut self,
        from: ReplicaId,
        m: &Fetch,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        self.may_serve(from)?;
        if !self.checkpoints.holds(m.n) {
            let newest = self.checkpoints.stable_certificate().to_vec();
            // Nothing proves the genesis, and nobody needs it proved.
            if !newest.is_empty() {
                let newest = Message::StableCertificate(newest);
                self.send(Destination::Replica(from), newest, None, out);
            }
            return Err(Rejection::NoSuchCheckpoint);
        }
        let objects =
            self.checkpoints.serve(self.now.tick, m.n).ok_or(Rejection::NoSuchCheckpoint)?;
        let (mut parts, mut bytes) = (Vec::new(), 0);
        for address in &m.addresses {
            let Some(part) = objects.tree.part(*address) else { continue };
            bytes += part.size();
            parts.push((*address, part));
            if bytes > MAX_PARTS {
                break;
            }
        }
        self.spend_serving(from, bytes);
        let message = Message::Parts(Parts { n: m.n, parts });
        self.send(Destination::Replica(from), message, None, out);
        Ok(())
    }

    /// Errors: `TooOften`, where `to` has been served more than its share a second.
    ///
    /// Each has a pace of its own: whoever asks without end takes nothing from one that has been left behind.
    pub(super) fn may_serve(&self, to: ReplicaId) -> Result<(), Rejection> {
        let pace = self.serving.get(to.index()).ok_or(Rejection::WrongSender)?;
        pace.ready_at(self.now.tick).map_or(Ok(()), |_| Err(Rejection::TooOften))
    }

    /// `to` has been served so many bytes.
    pub(super) fn spend_serving(&mut self, to: ReplicaId, bytes: usize) {
        // One that has been left behind has 2f donors at least.
        let rate = self.config.transfer_rate / self.config.size.f().max(1) as u64;
        if let Some(pace) = self.serving.get_mut(to.index()) {
            pace.spend(self.now.tick, bytes, rate);
        }
    }

    /// Whether a certificate for `n` from `donor` would be its answer to a FETCH.
    pub(super) fn awaits_answer_of(&self, donor: ReplicaId, n: SequenceNumber) -> bool {
        let Some(transfer) = &self.transfer else { return false };
        n != transfer.n && transfer.asked.get(&donor).is_some_and(|asked| !asked.declined)
    }

    /// `donor` has sent a certificate: where it was asked for parts, that is its answer, perhaps, and the others are asked too.
    ///
    /// It is not asked again before its patience has ended: while every other donor is silent, FETCH and answer would chase
    /// each other as fast as the network carries them, and every frame that is duplicated on the way would double them. Nor
    /// has it failed yet: a STATUS is answered by a certificate too, by whoever is ahead.
    pub(super) fn heed_donor(
        &mut self,
        donor: ReplicaId,
        newest: &Arc<[Checkpoint]>,
        out: &mut Vec<Output>,
    ) {
        if let Some(transfer) = &mut self.transfer
            && number(newest) != transfer.n
            && let Some(asked) = transfer.asked.get_mut(&donor)
            && !asked.declined
        {
            asked.declined = true;
            transfer.do_without(donor);
            let usable = self.executed.next()..transfer.n;
            let best = transfer.offered.as_deref().map(number);
            if usable.contains(&number(newest)) && best < Some(number(newest)) {
                transfer.offered = Some(newest.clone());
            }
            self.ask_donors(out);
        }
    }

    /// PARTS from a donor.
    ///
    /// Effects: installs the state once it is whole.
    /// Errors: `Duplicate`, for what was not asked of it; `WrongPart`, where a part does not lead to the signed digest.
    pub(super) fn on_parts(
        &mut self,
        from: ReplicaId,
        m: Parts,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let Some(transfer) = &mut self.transfer else { return Err(Rejection::Duplicate) };
        let asked = transfer.asked.get_mut(&from).ok_or(Rejection::Duplicate)?;
        let sent: BTreeSet<_> = m.parts.iter().map(|(address, _)| *address).collect();
        let is_once = !sent.is_empty() && sent.len() == m.parts.len();
        if m.n != transfer.n || !is_once || !sent.is_subset(&asked.addresses) {
            return Err(Rejection::Duplicate);
        }
        // Sent again, they would spend the pace again.
        asked.addresses.retain(|address| !sent.contains(address));
        let bytes: usize = m.parts.iter().map(|(_, part)| part.size()).sum();
        transfer.bytes += bytes as u64;
        transfer.pace.spend(self.now.tick, bytes, self.config.transfer_rate);
        for (address, part) in m.parts {
            if !transfer.aimed && address == Address::ROOT {
                let root = part.digest();
                if state_digest(Some(root)) != transfer.digest {
                    return Err(Rejection::WrongPart);
                }
                transfer.aimed = true;
                transfer.assembly.aim(root, &self.objects.tree);
            }
            // A part that another donor sent meanwhile is not wanted any more, and no harm.
            let wanted = transfer.assembly.wants(address);
            if wanted && !transfer.assembly.supply(address, part, &self.objects.tree) {
                transfer.dismiss(from);
                self.ask_donors(out);
                return Err(Rejection::WrongPart);
            }
        }
        transfer.without.remove(&from);
        // A correct donor sends all that it was asked for, or more than a message should hold.
        let withholds = |asked: &Asked| bytes <= MAX_PARTS && !asked.addresses.is_empty();
        if transfer.asked.get(&from).is_some_and(withholds) {
            transfer.dismiss(from);
        } else {
            transfer.asked.remove(&from);
        }
        if transfer.aimed && transfer.assembly.is_whole() {
            self.install(out);
        } else {
            self.ask_donors(out);
        }
        Ok(())
    }

    /// The state is whole: it becomes this replica's own, and its stable checkpoint.
    fn install(&mut self, out: &mut Vec<Output>) {
        let Some(transfer) = self.transfer.take() else { return };
        let (n, certificate) = (transfer.n, transfer.certificate);
        let Some(tree) = transfer.assembly.finish().filter(|_| n > self.executed) else { return };
        self.tentative = None;
        self.drop_held_reads();
        self.objects = Objects { tree, ..Objects::default() };
        let digest = self.objects.digest();
        assert_eq!(digest, transfer.digest, "every part was checked");
        if planted(Planted::TableLostInTransfer) {
            self.objects.forget_slots();
        }
        self.update_clients(out);
        self.recoveries_until = self.recoveries_end_at();
        self.forget_former_view_changes();
        self.forget_former_checkpoints();
        self.executed = n;
        self.proposed = self.proposed.max(n);
        let record = self.persist(Record::Stable { certificate: certificate.clone() }, out);
        self.shown_after = record;
        self.checkpoints.install(record, certificate, n, digest, self.objects.clone());
        self.log.truncate(n);
        self.requests.forget_wanted(n);
        self.authority.forget_dismissed(n);
        self.review_pending(out);
        self.place_chosen(out);
        self.execute_ready(out);
        self.seek_new_view(out);
    }
}

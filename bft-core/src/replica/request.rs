//! Clients' requests: admission, the bodies that batches name, and answers that are already known. [CL99 §4.1]

use super::{Config, Replica};
use crate::auth::Proof;
use crate::io::{Destination, Output, Rejection};
use crate::log::{Entry, NamedBatch};
use crate::messages::{
    Message, Operation, Outcome, Read, ReadReply, Reply, Request, ResultBody, SessionId,
    SignedRequest, Unauthenticated, ViewChange, result_digest,
};
use crate::planted::{Planted, planted};
use crate::service::{Context, Service};
use crate::sessions::Standing;
use crate::types::{ClientId, Digest, Peer, ReplicaId, SequenceNumber, Slot, Tick};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Results up to this size travel whole from every replica; of larger ones one replica sends the bytes. Units: bytes.
const ALWAYS_WHOLE: usize = 256;
/// About how many bytes of requests a backup hands to a new primary; what is left must come again.
const MAX_HANDED_OVER: usize = 4 << 20;
/// How many answers may wait for the tentative batch to commit.
pub(super) const MAX_HELD_READS: usize = 4096;
/// How many requests that came by digest are remembered; one that should have come whole is enough.
const MAX_REFERENCED: usize = 4096;
/// So few clients may err all at once, as after a restart of theirs.
const MANY_SPOILT: usize = 4;
/// How many requests may wait on a slot: the next and the one after it, a third that came while the first was executed
/// tentatively and that was undone, and a CREATE-SESSION.
const MAX_ON_LANE: usize = 4;
/// How often the span for which a client must sign doubles. Each relapse may hold up a batch until a view change, so it must
/// become rare; but one faulty replica can name honest clients in its VIEW-CHANGEs, and these should not sign for ever.
const MAX_DOUBLINGS: u32 = 7;

/// A request that has not executed here.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub digest: Digest,
    pub request: Arc<SignedRequest>,
    pub proof: Proof,
    /// The batch in which this replica, as the primary, proposed it.
    pub proposed: Option<SequenceNumber>,
}

impl Pending {
    fn lane(&self) -> (ClientId, Slot) {
        (self.request.request.client, self.request.request.slot)
    }
}

/// The requests that wait, and the bodies that accepted batches lack.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    pending: BTreeMap<Digest, Pending>,
    /// What waits on each slot: its next request, and perhaps the ones after that, where this replica lags its client's quorum.
    lanes: BTreeMap<(ClientId, Slot), Vec<Digest>>,
    /// What the primary has yet to propose, oldest first.
    queue: VecDeque<Digest>,
    /// Bytes of pending operations, by client.
    bytes: BTreeMap<ClientId, usize>,
    /// Digests that logged batches name and whose request is not here, with the batch. Bounded by the window.
    wanted: BTreeSet<(Digest, SequenceNumber)>,
    /// Pending requests that everyone can check and whose turn it is, so that they are timed: whose, and since when.
    /// (decision 6) One that came early waits for its client, not for the primary.
    timed: BTreeMap<Digest, (ClientId, Tick)>,
    /// Clients that must sign, because some replica could not authenticate them. (decision 6)
    demoted: BTreeMap<ClientId, Demotion>,
    /// What the primary of this view has named without its body, and that is not here.
    referenced: BTreeSet<Digest>,
    /// Which backups complain to this replica, the primary, of a client's MACs, and since when.
    complaints: BTreeMap<ClientId, BTreeMap<ReplicaId, SequenceNumber>>,
    /// Up to which sequence number this replica need not complain of a client again.
    complained: BTreeMap<ClientId, SequenceNumber>,
}

/// How long a client has to sign.
#[derive(Clone, Copy, Debug)]
struct Demotion {
    until: SequenceNumber,
    /// How many times in a row: each doubles the span.
    times: u32,
}

impl Requests {
    pub fn bytes(&self, client: ClientId) -> usize {
        self.bytes.get(&client).copied().unwrap_or(0)
    }

    pub fn get(&self, digest: Digest) -> Option<&Pending> {
        self.pending.get(&digest)
    }

    pub fn get_mut(&mut self, digest: Digest) -> Option<&mut Pending> {
        self.pending.get_mut(&digest)
    }

    /// What waits on a slot.
    fn on_lane(&self, client: ClientId, slot: Slot) -> impl Iterator<Item = &Pending> {
        let digests = self.lanes.get(&(client, slot)).into_iter().flatten();
        digests.filter_map(|digest| self.pending.get(digest))
    }

    fn insert(&mut self, pending: Pending) {
        self.remove(pending.digest);
        let (digest, lane) = (pending.digest, pending.lane());
        self.lanes.entry(lane).or_default().push(digest);
        *self.bytes.entry(lane.0).or_default() += pending.request.request.size();
        self.pending.insert(digest, pending);
    }

    /// From now on the primary has to order `digest`, if everyone can check it. Says whether it had not to before.
    fn time(&mut self, digest: Digest, now: Tick) -> bool {
        let signed = self.pending.get(&digest).filter(|p| p.proof == Proof::Signature);
        let Some(pending) = signed.filter(|_| !self.timed.contains_key(&digest)) else {
            return false;
        };
        self.timed.insert(digest, (pending.lane().0, now));
        true
    }

    pub fn remove(&mut self, digest: Digest) {
        let Some(pending) = self.pending.remove(&digest) else { return };
        self.timed.remove(&digest);
        let lane = pending.lane();
        if let Some(waiting) = self.lanes.get_mut(&lane) {
            waiting.retain(|other| *other != digest);
            if waiting.is_empty() {
                self.lanes.remove(&lane);
            }
        }
        if let Some(bytes) = self.bytes.get_mut(&lane.0) {
            *bytes -= pending.request.request.size();
            if *bytes == 0 {
                self.bytes.remove(&lane.0);
            }
        }
    }

    /// Puts a request in the line of those to be proposed.
    fn enqueue(&mut self, digest: Digest) {
        if self.queue.len() > 2 * self.pending.len() + 64 {
            // A backup proposes nothing, so what has executed is still in its line.
            let waits = |p: &Pending| p.proposed.is_none();
            self.queue.retain(|digest| self.pending.get(digest).is_some_and(waits));
        }
        self.queue.push_back(digest);
    }

    /// About how many requests wait to be proposed.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The next request to be proposed, if it is still pending and not proposed yet.
    pub fn dequeue(&mut self) -> Option<Digest> {
        while let Some(digest) = self.queue.pop_front() {
            if self.pending.get(&digest).is_some_and(|pending| pending.proposed.is_none()) {
                return Some(digest);
            }
        }
        None
    }

    /// Puts back what did not fit the batch.
    pub fn requeue(&mut self, digest: Digest) {
        self.queue.push_front(digest);
    }

    /// Forgets what can no longer execute on a slot, and lets what came early be proposed: the slot has moved on. Says whose
    /// turn it is.
    fn advance(&mut self, executed: &Request) -> Option<Digest> {
        let Request { client, slot, session, seq, .. } = *executed;
        let waiting = self.lanes.get(&(client, slot)).cloned()?;
        let mut next = None;
        for digest in waiting {
            let Some(pending) = self.pending.get(&digest) else { continue };
            let age = pending.request.request.age();
            if age <= (session, seq) {
                self.remove(digest);
                continue;
            }
            if pending.proposed.is_none() {
                self.enqueue(digest);
            }
            if age == (session, seq.saturating_add(1)) {
                next = Some(digest);
            }
        }
        next
    }

    /// Forgets what ended sessions of `client` left behind: it can never execute.
    pub fn forget_sessions_before(&mut self, client: ClientId, session: SessionId) {
        let lanes = self.lanes.range((client, Slot(0))..=(client, Slot(u16::MAX)));
        let digests: Vec<_> = lanes.flat_map(|(_, waiting)| waiting.iter().copied()).collect();
        for digest in digests {
            let old = |pending: &Pending| pending.request.request.session < session;
            if self.pending.get(&digest).is_some_and(old) {
                self.remove(digest);
            }
        }
    }

    /// Forgets a client that is not one any more: nothing that it asked for can execute.
    pub fn forget_client(&mut self, client: ClientId) {
        self.forget_sessions_before(client, SessionId::REVOKED);
        self.demoted.remove(&client);
        self.complaints.remove(&client);
        self.complained.remove(&client);
    }

    pub fn want(&mut self, digest: Digest, n: SequenceNumber) {
        self.wanted.insert((digest, n));
    }

    /// The primary has named these without their bodies.
    pub fn note_references(&mut self, batch: &NamedBatch) {
        let missing = batch.requests.iter().filter(|named| named.body.is_none());
        let room = MAX_REFERENCED.saturating_sub(self.referenced.len());
        self.referenced.extend(missing.take(room).map(|named| named.digest));
    }

    /// Whether some batch lacks the request with this digest.
    pub fn wants(&self, digest: Digest) -> bool {
        let mut all = self.wanted.range((digest, SequenceNumber(0))..);
        all.next().is_some_and(|(wanted, _)| *wanted == digest)
    }

    /// The batches that waited for `digest`.
    fn take_wanted(&mut self, digest: Digest) -> Vec<SequenceNumber> {
        let all = (digest, SequenceNumber(0))..=(digest, SequenceNumber(u64::MAX));
        let batches: Vec<_> = self.wanted.range(all).map(|(_, n)| *n).collect();
        for n in &batches {
            self.wanted.remove(&(digest, *n));
        }
        batches
    }

    /// Batches up to `stable` want nothing any more.
    pub fn forget_wanted(&mut self, stable: SequenceNumber) {
        self.wanted.retain(|(_, n)| *n > stable);
        let mut referenced = core::mem::take(&mut self.referenced);
        referenced.retain(|digest| self.wants(*digest));
        self.referenced = referenced;
    }

    /// Whether some batch lacks a request.
    pub fn lacks_bodies(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The requests that batches lack, each with the batch that lacks it.
    pub fn all_wanted(&self) -> impl Iterator<Item = (Digest, SequenceNumber)> {
        self.wanted.iter().copied()
    }

    /// A view ends: whatever was proposed in it may be proposed again, and only `still_wanted` is asked for.
    pub fn end_view(&mut self, still_wanted: BTreeSet<(Digest, SequenceNumber)>) {
        self.wanted = still_wanted;
        self.queue.clear();
        self.referenced.clear();
        self.complaints.clear();
        self.complained.clear();
        for pending in self.pending.values_mut() {
            pending.proposed = None;
        }
    }

    /// The requests of `batch` are under way at `n`.
    pub fn mark_proposed(&mut self, batch: &NamedBatch, n: SequenceNumber) {
        for named in &batch.requests {
            if let Some(pending) = self.pending.get_mut(&named.digest) {
                pending.proposed = Some(n);
            }
        }
    }

    /// Whose timed requests wait, and since when.
    pub fn timed(&self) -> impl Iterator<Item = (ClientId, Tick)> {
        self.timed.values().copied()
    }

    /// Whether a request that everyone can check waits.
    pub fn any_timed(&self) -> bool {
        !self.timed.is_empty()
    }

    /// What is held of `clients`, replicas that ask for themselves included, on their `lanes`, each kind beside its limit.
    pub fn held(
        &self,
        lanes: usize,
        clients: usize,
        config: &Config,
    ) -> [(&'static str, usize, usize); 6] {
        let pending = lanes * MAX_ON_LANE;
        let of_one = usize::from(config.slots) * MAX_ON_LANE * config.limits.operation_bytes;
        let (complaints, weak) = (self.complaints.values().map(BTreeMap::len), config.size.weak());
        let logged = config.window as usize * config.size.n() * config.limits.batch_requests;
        [
            ("requests that wait", self.pending.len(), pending),
            (
                "bytes that wait for one client",
                self.bytes.values().copied().max().unwrap_or(0),
                of_one,
            ),
            ("requests to be proposed", self.queue.len(), 2 * pending + 65),
            ("bodies that batches lack", self.wanted.len(), logged),
            ("clients that must sign", self.demoted.len().max(self.complained.len()), clients),
            ("complaints of clients", complaints.sum(), clients * weak),
        ]
    }

    pub fn check_invariants(&self) {
        let mut bytes: BTreeMap<ClientId, usize> = BTreeMap::new();
        for pending in self.pending.values() {
            *bytes.entry(pending.lane().0).or_default() += pending.request.request.size();
        }
        bytes.retain(|_, bytes| *bytes > 0);
        let mut counted = self.bytes.clone();
        counted.retain(|_, bytes| *bytes > 0);
        assert_eq!(bytes, counted, "the byte budget counts what is pending");
        assert!(self.timed.keys().all(|digest| self.pending.contains_key(digest)));
        let on_lanes: usize = self.lanes.values().map(Vec::len).sum();
        assert_eq!(on_lanes, self.pending.len());
        assert!(self.lanes.values().all(|waiting| (1..=MAX_ON_LANE).contains(&waiting.len())));
    }
}

impl<S: Service> Replica<S> {
    /// Holds what waits against a state that was fetched: what has executed elsewhere goes, and what came too early or was
    /// proposed in a batch that this replica never executed is proposed again.
    pub(super) fn review_pending(&mut self, out: &mut Vec<Output>) {
        let digests: Vec<_> = self.requests.pending.keys().copied().collect();
        for digest in digests {
            let Some(pending) = self.requests.pending.get_mut(&digest) else { continue };
            let request = pending.request.clone();
            if pending.proposed.is_some_and(|n| n <= self.executed) {
                pending.proposed = None;
            }
            let waits = pending.proposed.is_none();
            let standing = self.objects.standing(&request.request, digest, self.config.slots);
            if standing == Standing::Next {
                self.hold_primary_to(digest, out);
            }
            match standing {
                Standing::Next | Standing::Later if waits => self.requests.enqueue(digest),
                Standing::Next | Standing::Later => {}
                _ => self.requests.remove(digest),
            }
        }
    }

    /// A view has begun: its primary proposes what waits and was not chosen.
    pub(super) fn requeue_pending(&mut self) {
        let waiting = self.requests.pending.values().filter(|pending| pending.proposed.is_none());
        // By age of the lanes' requests, so that nobody's place depends on a digest.
        let mut waiting: Vec<_> = waiting.map(|p| (p.request.request.seq, p.digest)).collect();
        waiting.sort_unstable();
        self.requests.queue = waiting.into_iter().map(|(_, digest)| digest).collect();
    }

    /// These clients must sign from now on: where the list is full, all must. (decision 6)
    pub(super) fn demote(&mut self, named: &[ClientId]) {
        let all = named.len() >= ViewChange::MAX_NAMED;
        if all && planted(Planted::NamingManyDemotesNobody) {
            return;
        }
        let everyone = self.authority.clients().map(|(client, _)| client).filter(|_| all);
        let registered = |client: &ClientId| self.authority.knows(*client);
        let one_by_one = named.iter().copied().filter(|_| !all).filter(registered);
        // Who must sign already is named for the same reason by others, or for what a faulty primary did to its signature.
        let named = one_by_one.chain(everyone).filter(|client| !self.must_sign(*client));
        for client in named.collect::<Vec<_>>() {
            let before = self.requests.demoted.get(&client);
            let span = 2 * self.config.window;
            // A client that kept out of trouble for as long as it had to sign starts over.
            let as_long = |before: &Demotion| before.until.plus(span << before.times);
            let recent = before.filter(|before| self.executed <= as_long(before));
            let times = recent.map_or(0, |before| (before.times + 1).min(MAX_DOUBLINGS));
            let until = self.executed.plus(span << times);
            self.requests.demoted.insert(client, Demotion { until, times });
        }
    }

    /// Tells the primary of clients whose requests hold up `batch` here, once a window each. A client whose MACs are good for
    /// the primary alone would else hold up every batch until somebody else vouches.
    pub(super) fn complain(&mut self, batch: &NamedBatch, out: &mut Vec<Output>) {
        let until = self.executed.plus(self.config.window);
        let mut clients: Vec<_> = batch.unauthenticated().collect();
        clients.retain(|client| !self.complains_of(*client));
        clients.truncate(ViewChange::MAX_NAMED);
        if clients.is_empty() {
            return;
        }
        self.requests.complained.extend(clients.iter().map(|client| (*client, until)));
        let message = Message::Unauthenticated(Unauthenticated { clients });
        self.send(Destination::Replica(self.primary()), message, None, out);
        if self.most_are_spoilt() {
            self.suspect(out);
        }
    }

    /// Whether this replica has told the primary of this view, within a window, that it cannot check `client`.
    fn complains_of(&self, client: ClientId) -> bool {
        self.requests.complained.get(&client).is_some_and(|until| self.executed <= *until)
    }

    /// Whether this replica complains of so many clients that it is rather the primary who spoils their tags. (B-14, B-19)
    ///
    /// If it is the clients after all, each of them must sign in the next view, so this deposes one primary and not all.
    fn most_are_spoilt(&self) -> bool {
        let requests = self.log.batches().flat_map(|batch| &batch.requests);
        let clients: BTreeSet<_> = requests.map(|named| named.client).collect();
        let spoilt = clients.iter().filter(|client| self.complains_of(**client)).count();
        spoilt >= MANY_SPOILT && 2 * spoilt > clients.len()
    }

    /// UNAUTHENTICATED from `from`: f+1 of them within a window, one correct, have a client sign.
    ///
    /// Errors: `WrongView`, where another one is the primary; `UnknownClient`.
    pub(super) fn on_unauthenticated(
        &mut self,
        from: ReplicaId,
        m: &Unauthenticated,
    ) -> Result<(), Rejection> {
        if !self.is_primary() {
            return Err(Rejection::WrongView);
        }
        let (executed, window) = (self.executed, self.config.window);
        for client in &m.clients {
            if !self.authority.knows(*client) {
                return Err(Rejection::UnknownClient);
            }
            let complaints = self.requests.complaints.entry(*client).or_default();
            complaints.insert(from, executed);
            complaints.retain(|_, since| since.plus(window) >= executed);
            if complaints.len() >= self.config.size.weak() {
                self.requests.complaints.remove(client);
                self.demote(core::slice::from_ref(client));
            }
        }
        Ok(())
    }

    /// Whether what `client` asks for, with this proof, must not be proposed.
    pub(super) fn is_demoted(&self, client: ClientId, proof: Proof) -> bool {
        proof < Proof::Signature && self.must_sign(client)
    }

    fn must_sign(&self, client: ClientId) -> bool {
        self.requests.demoted.get(&client).is_some_and(|demotion| self.executed <= demotion.until)
    }

    /// Whether a signature of `client` changes what this replica does: the primary proposes by it what a client asks for who
    /// must sign, and a backup holds the primary to it.
    ///
    /// To one of them at a time: the primary that ignores the others would be suspected for this one, or for what the client
    /// sends again. A client that signs all it asks for would else take from the others as much as checking costs.
    pub(super) fn has_to_prove(&self, client: ClientId) -> bool {
        let is_held_to_one = || self.requests.timed().any(|(timed, _)| timed == client);
        self.must_sign(client) || !self.is_leading() && !is_held_to_one()
    }

    /// What waits by this digest, and its proof: where its client has to sign by now, the signature is looked at.
    pub(super) fn proved(&mut self, digest: Digest) -> Option<(Proof, Arc<SignedRequest>)> {
        let pending = self.requests.get(digest)?;
        let (proof, request) = (pending.proof, pending.request.clone());
        if !self.is_demoted(request.request.client, proof) || !self.authority.is_signed(&request) {
            return Some((proof, request));
        }
        self.requests.get_mut(digest)?.proof = Proof::Signature;
        Some((Proof::Signature, request))
    }

    /// A request, from its client or relayed by a replica.
    ///
    /// Effects: answers it if it has executed; else keeps it, at most one a slot, and supplies it to the batch that waits for it.
    /// Errors: whatever makes it impossible to execute; `Duplicate`.
    pub(super) fn on_request(
        &mut self,
        from: Peer,
        m: SignedRequest,
        proofs: &[(Digest, Proof)],
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let Some(&(digest, proof)) = proofs.first() else { return Err(Rejection::Malformed) };
        let request = Arc::new(m);
        let supplied = self.supply(digest, &request, proof, out);
        let standing = self.objects.standing(&request.request, digest, self.config.slots);
        match standing {
            Standing::Executed(n, outcome) => {
                self.send_reply(&request, digest, n, outcome, out);
                return Ok(());
            }
            Standing::Ended => {
                let ended = Message::SessionEnded(request.request.session);
                self.send(request.request.client.into(), ended, None, out);
                return Ok(());
            }
            Standing::Refused(why) => return Err(why),
            Standing::Next | Standing::Later => {}
        }
        if proof == Proof::Unchecked {
            // A replica relayed what this one cannot check: good as a body by its digest, never as a reason to act.
            return if supplied { Ok(()) } else { Err(Rejection::Unauthenticated) };
        }
        let from_client = matches!(from, Peer::Client(_));
        match self.keep(digest, &request, proof, out) {
            // Brought again, after a view change that let it go.
            Err(Rejection::Duplicate) if standing == Standing::Next && from_client => {
                self.hold_primary_to(digest, out).then_some(()).ok_or(Rejection::Duplicate)
            }
            kept => kept,
        }
    }

    /// It is the turn of `digest`, so that the primary has to order it from now on, if everyone can check it. Says whether it
    /// had not to before.
    ///
    /// Effects: tells the primary of it, whoever brought it here: no faulty client or replica that goes to the backups alone
    /// deposes a correct primary.
    fn hold_primary_to(&mut self, digest: Digest, out: &mut Vec<Output>) -> bool {
        if !self.requests.time(digest, self.now.tick) {
            return false;
        }
        let request = self.requests.get(digest).map(|pending| pending.request.clone());
        // A view that has not begun is told when it does.
        if let (Some(request), true, false) = (request, self.is_active(), self.is_primary()) {
            let relayed = Message::Request((*request).clone());
            self.send(Destination::Replica(self.primary()), relayed, None, out);
        }
        true
    }

    /// What made it the turn of a request may have been undone: the primary is not held to what nobody can order.
    ///
    /// Every primary would be suspected else, one after the other, of a request whose client has gone away.
    pub(super) fn release_primary(&mut self) {
        let timed: Vec<_> = self.requests.timed.keys().copied().collect();
        for digest in timed {
            let Some(pending) = self.requests.get(digest) else { continue };
            let request = &pending.request.request;
            match self.objects.standing(request, digest, self.config.slots) {
                Standing::Next => {}
                // Timed again when its turn comes.
                Standing::Later => drop(self.requests.timed.remove(&digest)),
                _ => self.requests.remove(digest),
            }
        }
    }

    /// A slot has moved on: forgets what can no longer execute on it, and lets what came early be proposed.
    pub(super) fn advance_slot(&mut self, executed: &Request, out: &mut Vec<Output>) {
        if let Some(next) = self.requests.advance(executed) {
            self.hold_primary_to(next, out);
        }
    }

    /// A view has begun, and its primary need not know of what waits here: tells it, of so much as fits, the oldest first. It
    /// is not held to the rest, which its clients send again.
    pub(super) fn hand_over_timed(&mut self, out: &mut Vec<Output>) {
        let mut timed: Vec<_> =
            self.requests.timed.iter().map(|(digest, (_, since))| (*since, *digest)).collect();
        timed.sort_unstable();
        let (to, mut bytes) = (Destination::Replica(self.primary()), 0);
        for (_, digest) in timed {
            let Some(pending) = self.requests.get(digest) else { continue };
            if pending.proposed.is_some() {
                continue;
            }
            bytes += pending.request.request.size();
            if bytes > MAX_HANDED_OVER {
                self.requests.timed.remove(&digest);
                continue;
            }
            let message = Message::Request((*pending.request).clone());
            self.send(to, message, None, out);
        }
    }

    /// Keeps a request that has not executed.
    ///
    /// Effects: takes the place of another one of the same seq that has a lesser proof and is not proposed. Its client may have
    /// to sign and this one be what the backups time: kept out by the other, it would cost an honest primary its view.
    /// Errors: `Duplicate`; `SlotConflict` where another request of the same seq came first.
    pub(super) fn keep(
        &mut self,
        digest: Digest,
        request: &Arc<SignedRequest>,
        proof: Proof,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        let Request { client, slot, .. } = request.request;
        let known = self.requests.get(digest);
        if known.is_some_and(|known| proof <= known.proof) {
            return Err(Rejection::Duplicate);
        }
        // A retransmission with a better proof keeps its place; from now on a backup may time it.
        let (is_known, proposed) = (known.is_some(), known.and_then(|known| known.proposed));
        if !is_known {
            let age = request.request.age();
            let same_seq = |other: &&Pending| other.request.request.age() == age;
            let rival = self.requests.on_lane(client, slot).find(same_seq).cloned();
            if let Some(rival) = rival {
                if rival.proof >= proof || rival.proposed.is_some() {
                    return Err(Rejection::SlotConflict);
                }
                self.requests.remove(rival.digest);
            }
            self.make_room_for_session(&request.request)?;
        }
        if proposed.is_none() {
            // Also where it was known: a demoted client's request waited for this proof.
            self.requests.enqueue(digest);
        }
        let pending = Pending { digest, request: request.clone(), proof, proposed };
        let standing = self.objects.standing(&request.request, digest, self.config.slots);
        let is_its_turn = standing == Standing::Next;
        self.requests.insert(pending);
        if is_its_turn {
            self.hold_primary_to(digest, out);
        }
        self.vouch(digest, proof, out);
        Ok(())
    }

    /// One CREATE-SESSION of a client waits at a time, the newest; any number would fit otherwise.
    ///
    /// Errors: `SlotConflict`, where a newer one waits.
    fn make_room_for_session(&mut self, request: &Request) -> Result<(), Rejection> {
        if request.operation != Operation::CreateSession {
            return Ok(());
        }
        let mut on_lane = self.requests.on_lane(request.client, request.slot);
        let other = on_lane.find(|p| p.request.request.operation == Operation::CreateSession);
        let other = other.map(|other| (other.digest, other.request.request.session));
        drop(on_lane);
        let Some((older, session)) = other else { return Ok(()) };
        if session > request.session {
            return Err(Rejection::SlotConflict);
        }
        self.requests.remove(older);
        Ok(())
    }

    /// Gives the body of `digest` to the batch that lacks it. Says whether one did.
    fn supply(
        &mut self,
        digest: Digest,
        request: &Arc<SignedRequest>,
        proof: Proof,
        out: &mut Vec<Output>,
    ) -> bool {
        let batches = self.requests.take_wanted(digest);
        for n in &batches {
            if let Some(entry) = self.log.get_mut(*n) {
                entry.batches_mut().for_each(|batch| batch.supply(digest, request, proof));
            }
            self.decide(*n, out);
            self.advance(*n, out);
        }
        if !batches.is_empty() {
            self.seek_new_view(out);
        }
        let was_referenced = self.requests.referenced.remove(&digest);
        let is_small = request.request.size() <= self.config.inline_bytes;
        if was_referenced && is_small && self.is_active() {
            // Clients send only large requests to everyone: a correct primary passes small ones on whole. (B-03)
            self.suspect(out);
        }
        !batches.is_empty()
    }

    /// Lets a batch that could not authenticate `digest` itself profit from a proof that came another way. (decision 6)
    fn vouch(&mut self, digest: Digest, proof: Proof, out: &mut Vec<Output>) {
        for n in self.log.numbers().filter(|n| *n > self.executed) {
            let entry = self.log.get_mut(n);
            let Some(accepted) = entry.and_then(|entry| entry.pre_prepare.as_mut()) else {
                continue;
            };
            let mut improved = false;
            for named in &mut accepted.batch.requests {
                if named.digest == digest && named.proof < proof {
                    named.proof = proof;
                    improved = true;
                }
            }
            if improved {
                self.advance(n, out);
                return;
            }
        }
    }

    /// A read, answered from the state as it is, once that has committed. (decisions 2 and 3)
    ///
    /// Errors: `UnknownSession`; `TooOften` before the read gate opens.
    pub(super) fn on_read(
        &mut self,
        client: ClientId,
        m: Read,
        out: &mut Vec<Output>,
    ) -> Result<(), Rejection> {
        if self.executed < self.read_gate {
            return Err(Rejection::TooOften);
        }
        match self.objects.session(client) {
            Some(session) if session.id == m.session => {}
            Some(session) if m.session.epoch < session.id.epoch => {
                let ended = Message::SessionEnded(m.session);
                self.send(Destination::Client(client), ended, None, out);
                return Ok(());
            }
            _ => return Err(Rejection::UnknownSession),
        }
        // What is missing may have been removed by the tentative batch.
        let now = self.tentative().unwrap_or(self.executed);
        let ctx = Context { client, time: self.objects.clock(), n: now };
        let query = |objects: &_| self.service.query(&ctx, objects, &m.op).ok();
        let (result, version) = self.objects.versioned(now, query);
        let reply = ReadReply {
            view: self.view,
            session: m.session,
            attempt: m.attempt,
            version,
            result: result.map(|result| self.share(result, m.replier)),
        };
        if reply.version <= self.executed {
            let after = Some(self.shown_after);
            self.send(Destination::Client(client), Message::ReadReply(reply), after, out);
            return Ok(());
        }
        // It saw the tentative batch, and its answer waits until that commits. (decision 3)
        if self.held_reads.len() >= MAX_HELD_READS {
            return Err(Rejection::TooOften);
        }
        self.held_reads.push((client, reply));
        Ok(())
    }

    /// What the held reads saw has committed.
    pub(super) fn release_reads(&mut self, out: &mut Vec<Output>) {
        for (client, reply) in core::mem::take(&mut self.held_reads) {
            let after = Some(self.shown_after);
            self.send(Destination::Client(client), Message::ReadReply(reply), after, out);
        }
    }

    /// What the held reads saw was undone: nobody is told.
    pub(super) fn drop_held_reads(&mut self) {
        self.held_reads.clear();
    }

    /// A result whole, or only its digest where another replica sends it.
    fn share(&self, result: bytes::Bytes, replier: ReplicaId) -> ResultBody {
        if result.len() <= ALWAYS_WHOLE || replier == self.config.me {
            ResultBody::Whole(result)
        } else {
            ResultBody::Digest(result_digest(&result))
        }
    }

    /// Tells the client what became of its request in batch `n`, once the record that allows it is durable.
    pub(super) fn send_reply(
        &self,
        signed: &SignedRequest,
        digest: Digest,
        n: SequenceNumber,
        outcome: Outcome,
        out: &mut Vec<Output>,
    ) {
        let request = &signed.request;
        let outcome = match outcome {
            Outcome::Result(ResultBody::Whole(result)) => {
                Outcome::Result(self.share(result, signed.replier))
            }
            other => other,
        };
        let reply = Reply {
            view: self.view,
            session: request.session,
            slot: request.slot,
            seq: request.seq,
            request: digest,
            n,
            tentative: n > self.executed,
            sign: self.must_sign(request.client) || self.complains_of(request.client),
            outcome,
        };
        let stable = Some(self.checkpoints.stable_record()).filter(|_| n <= self.log.low());
        let after = stable.or_else(|| self.log.get(n).and_then(Entry::executable_after));
        let early = n > self.executed && planted(Planted::TentativeReplyBeforeDurable);
        let after = after.filter(|_| !early);
        self.send(request.client.into(), Message::Reply(reply), after, out);
    }
}

impl Request {
    /// Orders the requests of one slot by age.
    fn age(&self) -> (SessionId, u64) {
        (self.session, self.seq)
    }
}

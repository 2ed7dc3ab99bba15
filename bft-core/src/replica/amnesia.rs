//! A replica that restarts without its log has forgotten votes and promises, which is Byzantine. It may come back, mute,
//! until nothing that it may have said before matters any more. [CL02 §6.1-6.2; decision 13]
//!
//! It has RECOVER ordered: a CREATE-SESSION of the replica itself, whose epoch is its new incarnation. Its former votes are
//! for sequence numbers up to the window after that batch, so it stays mute until a stable checkpoint has passed them; its
//! former VIEW-CHANGEs carry an older incarnation, and whoever has executed RECOVER refuses them.

use super::Replica;
use crate::auth::{Credential, Signature};
use crate::io::{Destination, Output, Record};
use crate::messages::{Message, Operation, Outcome, Reply, Request, SessionId, SignedRequest};
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::types::{ClientId, PersistId, ReplicaId, SequenceNumber, Slot, View};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What a mute replica waits for.
#[derive(Clone, Debug)]
pub(super) struct Amnesia {
    /// RECOVER.
    request: SignedRequest,
    /// n_R and the view, as the others report them, committed.
    replies: BTreeMap<ReplicaId, (SequenceNumber, View)>,
    /// Who refused this incarnation or one before it, and which one they know, which is not below this one.
    refusals: BTreeMap<ReplicaId, u64>,
    /// H_R: the sequence number that a stable checkpoint must reach, once 2f+1 agree on n_R.
    until: Option<SequenceNumber>,
    /// The record that makes it mute again after another restart, before anything is said under this incarnation.
    persisted: Option<PersistId>,
}

impl<S: Service> Replica<S> {
    /// A replica of a group that it has served before, without anything it persisted then.
    ///
    /// Requires: `incarnation` is above every one that this replica used before; a clock will do.
    /// Effects: it is mute until it has recovered, and counts as faulty until then.
    pub fn rejoin(
        config: super::Config,
        authority: crate::auth::Authority,
        service: S,
        incarnation: u64,
    ) -> Self {
        let mut replica = Self::new(config, authority, service);
        // A group of one has nobody to ask, and nobody to contradict.
        if replica.config.size.n() > 1 && !planted(Planted::UnmutedAtOnce) {
            replica.forget(incarnation);
        }
        replica
    }

    /// From now on this replica is mute.
    pub(super) fn forget(&mut self, incarnation: u64) {
        self.incarnation = incarnation;
        self.view_changes.active = false;
        let mut refusals = self.amnesia.take().map(|former| former.refusals).unwrap_or_default();
        refusals.retain(|_, known| *known >= incarnation);
        let request = Request {
            client: ClientId::of_replica(self.config.me),
            session: SessionId { epoch: incarnation, nonce: 0 },
            slot: Slot(0),
            seq: 0,
            operation: Operation::CreateSession,
        };
        let mut request = SignedRequest {
            request,
            credential: Credential::Signature(Signature([0; 64])),
            replier: self.config.me,
        };
        self.authority.sign_request(&mut request);
        let replies = BTreeMap::new();
        self.amnesia = Some(Amnesia { request, replies, refusals, until: None, persisted: None });
    }

    /// Whether this replica must not vote, promise or answer.
    pub(super) fn is_mute(&self) -> bool {
        self.amnesia.is_some()
    }

    /// Whether a mute replica may send `message`: it asks, and serves what its receiver checks by digest.
    pub(super) fn may_send(message: &Message) -> bool {
        matches!(
            message,
            Message::Request(_)
                | Message::Status(_)
                | Message::Fetch(_)
                | Message::Parts(_)
                | Message::NewKey(_)
                | Message::Health(_)
        )
    }

    /// Whether a mute replica heeds `message`: nothing that would have it vote.
    pub(super) fn heeds(message: &Message) -> bool {
        !matches!(
            message,
            Message::PrePrepare(_)
                | Message::Prepare(_)
                | Message::Commit(_)
                | Message::Unauthenticated(_)
                | Message::Suspect(_)
                | Message::ViewChange(_)
                | Message::NewView(_)
                | Message::Read(_)
        )
    }

    /// Asks everyone to order RECOVER, again and again until 2f+1 have.
    pub(super) fn ask_to_recover(&mut self, out: &mut Vec<Output>) {
        let asks = |amnesia: &&Amnesia| amnesia.until.is_none();
        let Some(amnesia) = self.amnesia.as_ref().filter(asks) else { return };
        let (message, written) = (Message::Request(amnesia.request.clone()), amnesia.persisted);
        let record = Record::Amnesia { incarnation: self.incarnation, over: false };
        let after = written.unwrap_or_else(|| self.persist(record, out));
        self.send(Destination::Replicas, message, Some(after), out);
        if let Some(amnesia) = &mut self.amnesia {
            amnesia.persisted = Some(after);
        }
    }

    /// What became of RECOVER at `from`.
    pub(super) fn on_reply(&mut self, from: ReplicaId, m: &Reply) {
        let (weak, quorum) = (self.config.size.weak(), self.config.size.quorum());
        let (interval, window) = (self.config.checkpoint_interval, self.config.window);
        let Some(amnesia) = self.amnesia.as_mut() else { return };
        if m.request != amnesia.request.request.digest() {
            return;
        }
        match m.outcome {
            // What is tentative may be undone; the others are asked again until they have it for good.
            Outcome::SessionCreated { .. } if m.tentative => return,
            Outcome::SessionCreated { .. } => drop(amnesia.replies.insert(from, (m.n, m.view))),
            // Nobody refuses an incarnation that is above all that it knows.
            Outcome::SessionRefused { epoch } if epoch < self.incarnation => return,
            Outcome::SessionRefused { epoch } => drop(amnesia.refusals.insert(from, epoch)),
            Outcome::Result(_) => return,
        }
        let agree = amnesia.replies.values().filter(|(n, _)| *n == m.n).count();
        if agree >= quorum && amnesia.until.is_none() {
            // Its former self voted in no window that begins after n_R.
            let checkpoint = m.n.0.div_ceil(interval).saturating_mul(interval);
            amnesia.until = Some(SequenceNumber(checkpoint).plus(window));
        }
        let mut known: Vec<u64> = amnesia.refusals.values().copied().collect();
        known.sort_unstable_by(|a, b| b.cmp(a));
        // At most f lie, so a correct replica knows one that is as high. A liar alone would name one that nobody can exceed.
        if let Some(known) = known.get(weak - 1) {
            self.forget(known.saturating_add(1));
        }
    }

    /// Speaks again once a stable checkpoint has passed whatever it may have voted for.
    pub(super) fn end_amnesia(&mut self, out: &mut Vec<Output>) {
        let low = self.log.low();
        let recovered = |amnesia: &mut Amnesia| amnesia.until.is_some_and(|until| until <= low);
        let Some(amnesia) = self.amnesia.take_if(recovered) else { return };
        self.persist(Record::Amnesia { incarnation: self.incarnation, over: true }, out);
        let mut views: Vec<View> = amnesia.replies.values().map(|(_, view)| *view).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        let view = views.get(self.config.size.f()).copied().unwrap_or_default();
        let view = if planted(Planted::UnmutedIntoOldView) { View(0) } else { view };
        if view > self.view {
            // It asks for the view like anyone who lags, and is sent the NEW-VIEW if it has begun.
            self.start_view_change(view, out);
        } else {
            self.view_changes.active = true;
        }
    }

    /// The incarnation of `i` that the group has agreed on.
    pub(super) fn agreed_incarnation(&self, i: ReplicaId) -> u64 {
        self.objects.session(ClientId::of_replica(i)).map_or(0, |session| session.id.epoch)
    }

    /// H_R of the recovery that ends last: until a stable checkpoint is there, an idle primary orders null requests.
    pub(super) fn recoveries_end_at(&self) -> SequenceNumber {
        let sessions = self.config.size.replicas().map(ClientId::of_replica);
        let begun = sessions.filter_map(|c| self.objects.session(c)).map(|session| session.n);
        begun.max().map_or(SequenceNumber(0), |n| self.recovery_ends_at(n))
    }

    /// H_R of a recovery whose RECOVER executed at `n`.
    fn recovery_ends_at(&self, n: SequenceNumber) -> SequenceNumber {
        let interval = self.config.checkpoint_interval;
        SequenceNumber(n.0.div_ceil(interval).saturating_mul(interval)).plus(self.config.window)
    }

    /// Up to where `i`, as it calls itself now, signs nothing.
    pub(super) fn silent_until(&self, i: ReplicaId) -> SequenceNumber {
        let session = self.objects.session(ClientId::of_replica(i));
        session.map_or(SequenceNumber(0), |session| self.recovery_ends_at(session.n))
    }

    /// Which of its incarnations has signed something for `n`, in `i`'s name: one before the agreed one, where that is mute
    /// until later.
    pub(super) fn incarnation_at(&self, i: ReplicaId, n: SequenceNumber) -> u64 {
        let session = self.objects.session(ClientId::of_replica(i));
        session.map_or(0, |session| {
            let former = n <= self.silent_until(i);
            session.id.epoch.saturating_sub(u64::from(former))
        })
    }

    /// Whether some replica is mute until the group has come further.
    pub(super) fn recovery_is_open(&self) -> bool {
        self.log.low() < self.recoveries_until
    }
}

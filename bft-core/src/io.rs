//! The one way in and the one way out of a replica: [`Input`] and [`Output`], both plain data.
//!
//! The driver's whole duty:
//!
//! ```text
//! loop {
//!     wait for a frame, a timer, a finished job, a finished write
//!     replica.handle(now, input, &mut outputs)
//!     for each output, in order: do what its variant says
//! }
//! ```

use crate::auth::{Signature, Verified};
use crate::messages::{Checkpoint, Message, NewView, SignedRequest, ViewChange};
use crate::types::{
    ClientId, Digest, Peer, PersistId, ReplicaId, SequenceNumber, Slot, Tick, Time, View,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// What can happen to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message came by a link and passed [`crate::auth::Authority::verify`].
    Message(Verified<Message>),
    /// The deadline of a timer has passed.
    Timeout(Timer),
    /// A link came up. `entropy` is fresh and secret: a client's new MAC key is made of it.
    Connected {
        /// Who is at the other end.
        peer: Peer,
        /// 32 bytes from the operating system.
        entropy: [u8; 32],
    },
    /// It is time for new MAC keys: every client gets another one, made of this fresh and secret `entropy`. (decision 12)
    RefreshKeys {
        /// 32 bytes from the operating system.
        entropy: [u8; 32],
    },
    /// Everything up to and including this record is durable.
    Persisted(PersistId),
    /// A job is finished.
    JobDone(JobResult),
}

/// What the driver must do, in this order. Nothing here touches the outside world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make durable, then report `Input::Persisted`. A driver without a disk reports at once.
    Persist {
        /// Ascending by one.
        id: PersistId,
        /// What to write.
        record: Record,
    },
    /// Send, but not before the record `after` is durable. TCP may lose it at a reconnection; STATUS repairs that.
    Send {
        /// To whom.
        to: Destination,
        /// What.
        message: Message,
        /// What must be durable first.
        after: Option<PersistId>,
    },
    /// Replaces an earlier deadline for the same timer.
    SetTimer {
        /// Which.
        timer: Timer,
        /// When `Input::Timeout` is due.
        at: Tick,
    },
    /// The timer is not wanted any more.
    CancelTimer(Timer),
    /// Independent work that may run elsewhere; its result comes back as `Input::JobDone`.
    Job(Job),
    /// The input was dropped. Count it.
    Rejected {
        /// Who sent it.
        from: Peer,
        /// Why it was dropped.
        why: Rejection,
    },
    /// The group has taken in a client whose links prove this key, or, without one, has dismissed it: what was sent before is
    /// still written, then its link ends, and no other is accepted.
    Client {
        /// Who.
        client: ClientId,
        /// The key that its link proves.
        link: Option<[u8; 32]>,
    },
    /// Impossible with at most f faults: stop the replica, keep the evidence.
    Alarm(Alarm),
}

/// Who is to receive a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Every replica but this one.
    Replicas,
    /// One replica.
    Replica(ReplicaId),
    /// One client.
    Client(ClientId),
}

impl From<ClientId> for Destination {
    /// A client, or the replica whose principal it is.
    fn from(client: ClientId) -> Self {
        client.replica().map_or(Destination::Client(client), Destination::Replica)
    }
}

impl From<Peer> for Destination {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Replica(i) => Destination::Replica(i),
            Peer::Client(c) => Destination::Client(c),
        }
    }
}

/// Why a replica wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// A request waits for execution: if it fires, the primary is suspected. [CL99 §4.4]
    ViewChange,
    /// A state transfer has kept its rate, and may go on.
    Transfer,
    /// Nothing has been ordered for a while: the primary orders a heartbeat, a backup wonders why it does not. (decision 7)
    Heartbeat,
    /// Tell the others what is held here, so that they can send what is missing. [CL02 §5.2]
    Status,
}

/// What a replica must find again after a restart. (contract 5)
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The view that was promised: no vote in a lower one leaves any more.
    View(View),
    /// This replica has lost its memory: until the same record says that it is over, it is mute.
    Amnesia {
        /// What it calls itself since.
        incarnation: u64,
        /// Whether it speaks again.
        over: bool,
    },
    /// The view that began here.
    NewView {
        /// The NEW-VIEW by which it did.
        new_view: Arc<NewView>,
        /// The VIEW-CHANGEs that it names, without which nobody can check it, each with its digest.
        grounds: Vec<(Digest, Arc<ViewChange>)>,
    },
    /// Q: a batch was pre-prepared here.
    Q {
        /// n: sequence number.
        n: SequenceNumber,
        /// v: the view in which it was.
        view: View,
        /// d: digest of the batch.
        digest: Digest,
        /// The batch itself.
        batch: Arc<Batch>,
    },
    /// P: a batch prepared here.
    P {
        /// n: sequence number.
        n: SequenceNumber,
        /// v: the view in which it did.
        view: View,
        /// d: digest of the batch.
        digest: Digest,
    },
    /// A batch was installed on the word of others, without P.
    Decided {
        /// n: sequence number.
        n: SequenceNumber,
        /// d: digest of the batch.
        digest: Digest,
        /// The batch itself.
        batch: Arc<Batch>,
    },
    /// A checkpoint became stable; once this is durable, P, Q and Decided up to n may go.
    Stable {
        /// 2f+1 signed CHECKPOINTs for the same n and digest, ascending by replica.
        certificate: Arc<[Checkpoint]>,
    },
    /// No vote above this sequence number leaves before a higher ceiling is durable.
    Ceiling(SequenceNumber),
}

/// A whole batch: what executes at one sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The agreed time that its primary proposed.
    pub time: Time,
    /// The requests, each with its digest, in the order of execution.
    pub requests: Vec<(Digest, Arc<SignedRequest>)>,
}

/// Independent work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Sign this digest, which covers the CHECKPOINT for n and d.
    SignCheckpoint {
        /// n: the checkpoint.
        n: SequenceNumber,
        /// d: the digest of its state.
        digest: Digest,
        /// What the signature covers.
        signed: Digest,
    },
}

/// What a job found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// The signature for a CHECKPOINT.
    CheckpointSigned {
        /// n: the checkpoint.
        n: SequenceNumber,
        /// d: the digest of its state.
        digest: Digest,
        /// The signature.
        signature: Signature,
    },
}

macro_rules! rejections {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// A peer or a client misbehaved, or was merely late. The input is dropped and counted; nothing changed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rejection { $($(#[$doc])* $name,)* }

        impl Rejection {
            /// Every kind, for counters.
            pub const ALL: &[Rejection] = &[$(Rejection::$name,)*];

            /// A short phrase for people, and the label of the counter.
            pub fn as_str(self) -> &'static str {
                match self { $(Rejection::$name => $text,)* }
            }
        }
    };
}

rejections! {
    /// Not the canonical bytes of any message.
    Malformed => "malformed",
    /// A part is larger than its limit.
    TooLarge => "too large",
    /// The sender may not send this, or claims to be another.
    WrongSender => "wrong sender",
    /// A signature does not fit.
    BadSignature => "bad signature",
    /// A request that was relayed, that this replica cannot check and that no batch lacks.
    Unauthenticated => "unauthenticated",
    /// The message belongs to another view.
    WrongView => "wrong view",
    /// A PRE-PREPARE that does not come from the primary of its view.
    NotPrimary => "not the primary",
    /// A PREPARE from the primary of its view.
    SenderIsPrimary => "sender is the primary",
    /// A VIEW-CHANGE whose checkpoint is not proved by 2f+1 signatures.
    UnprovedCheckpoint => "unproved checkpoint",
    /// A VIEW-CHANGE that its sender made before it lost its memory.
    OldIncarnation => "old incarnation",
    /// A NEW-VIEW whose batches do not follow from the VIEW-CHANGEs that it names. Evidence.
    WrongNewView => "wrong new view",
    /// n is not between the water marks.
    OutsideWaterMarks => "outside the water marks",
    /// A second PRE-PREPARE with another digest for the same view and sequence number. Evidence.
    ConflictingPrePrepare => "conflicting pre-prepare",
    /// A second vote with another digest for the same view and sequence number. Evidence.
    ConflictingVote => "conflicting vote",
    /// A second signed message where its maker may sign one: a state, a VIEW-CHANGE, a NEW-VIEW. Evidence against whoever
    /// signed, who need not be whoever sent it.
    SignedTwice => "signed twice",
    /// A batch names one slot twice.
    DuplicateInBatch => "duplicate in batch",
    /// No such client is registered.
    UnknownClient => "unknown client",
    /// The request or read names a session that this replica does not know.
    UnknownSession => "unknown session",
    /// The session has fewer slots.
    NoSuchSlot => "no such slot",
    /// The slot has executed a later request.
    OldRequest => "old request",
    /// seq is not one more than the slot's last.
    SequenceGap => "gap in the slot's sequence",
    /// The slot's seq was used for another request. Evidence.
    SlotConflict => "slot used for two requests",
    /// A FETCH for a checkpoint that is not here.
    NoSuchCheckpoint => "no such checkpoint",
    /// A part of the state that is not what was asked for. Evidence where its sender had announced the checkpoint.
    WrongPart => "wrong part",
    /// Already known; nothing to do.
    Duplicate => "duplicate",
    /// The sender asks more often than is answered.
    TooOften => "too often",
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What cannot happen with at most f faulty replicas. The replica stops and keeps the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A quorum signed another state for a sequence number that this replica has executed: either this replica is itself
    /// corrupt, or more than f others are.
    StateDiverged {
        /// n: the checkpoint.
        n: SequenceNumber,
        /// The digest here.
        own: Digest,
        /// 2f+1 signed CHECKPOINTs with another digest.
        certificate: Arc<[Checkpoint]>,
    },
    /// A new view leaves out a batch that is committed-local here.
    CommittedLost {
        /// v: the new view.
        view: View,
        /// n: sequence number.
        n: SequenceNumber,
        /// The digest committed here.
        committed: Digest,
        /// What the new view has in its place, if anything.
        chosen: Option<Digest>,
        /// The NEW-VIEW, whose VIEW-CHANGEs are all genuine.
        new_view: Arc<NewView>,
    },
    /// A quorum committed another batch than the one that is pre-prepared here.
    ConflictingCommit {
        /// v: view.
        view: View,
        /// n: sequence number.
        n: SequenceNumber,
        /// The digest pre-prepared here.
        own: Digest,
        /// The digest that a quorum committed.
        committed: Digest,
    },
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alarm::StateDiverged { n, own, certificate } => write!(
                f,
                "the state at n={n} is {} here, but {} replicas signed another: this replica is corrupt, or more than f others are",
                own.short(4),
                certificate.len()
            ),
            Alarm::CommittedLost { view, n, committed, chosen, .. } => write!(
                f,
                "v={view} n={n}: {} is committed here, but the new view has {}",
                committed.short(4),
                chosen.map_or("nothing there".into(), |digest| digest.short(4))
            ),
            Alarm::ConflictingCommit { view, n, own, committed } => write!(
                f,
                "v={view} n={n}: pre-prepared {} here, but a quorum committed {}",
                own.short(4),
                committed.short(4)
            ),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Replicas => f.write_str("all"),
            Destination::Replica(i) => write!(f, "{i:?}"),
            Destination::Client(c) => write!(f, "{c:?}"),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Persist { id, record } => write!(f, "persist {id:?} {record}"),
            Output::Send { to, message, after: None } => write!(f, "-> {to} {message}"),
            Output::Send { to, message, after: Some(id) } => {
                write!(f, "-> {to} {message} after {id:?}")
            }
            Output::SetTimer { timer, at } => write!(f, "set {timer:?} at {}us", at.0),
            Output::CancelTimer(timer) => write!(f, "cancel {timer:?}"),
            Output::Job(Job::SignCheckpoint { n, digest, .. }) => {
                write!(f, "job sign CHECKPOINT n={n} d={}", digest.short(2))
            }
            Output::Rejected { from, why } => write!(f, "rejected from {from}: {why}"),
            Output::Client { client, link: Some(_) } => write!(f, "admit {client:?}"),
            Output::Client { client, link: None } => write!(f, "dismiss {client:?}"),
            Output::Alarm(alarm) => write!(f, "ALARM {alarm}"),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::View(v) => write!(f, "View v={v}"),
            Record::Amnesia { incarnation, over } => {
                write!(f, "Amnesia incarnation={incarnation}{}", if *over { " over" } else { "" })
            }
            Record::NewView { new_view, .. } => write!(f, "NewView v={}", new_view.view),
            Record::Q { n, view, digest, .. } => {
                write!(f, "Q v={view} n={n} d={}", digest.short(2))
            }
            Record::P { n, view, digest } => write!(f, "P v={view} n={n} d={}", digest.short(2)),
            Record::Decided { n, digest, .. } => write!(f, "Decided n={n} d={}", digest.short(2)),
            Record::Stable { certificate } => {
                write!(f, "Stable n={}", certificate.first().map_or(0, |c| c.n.0))
            }
            Record::Ceiling(n) => write!(f, "Ceiling n={n}"),
        }
    }
}

impl fmt::Display for Message {
    /// One line for traces: the name and the fields that tell messages apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Message::Request(m) => {
                let Slot(slot) = m.request.slot;
                write!(f, " {:?} slot={slot} seq={}", m.request.client, m.request.seq)
            }
            Message::Reply(m) => {
                write!(f, " v={} slot={} seq={} n={}", m.view, m.slot, m.seq, m.n)
            }
            Message::Read(m) => write!(f, " attempt={}", m.attempt),
            Message::ReadReply(m) => write!(f, " attempt={} version={}", m.attempt, m.version),
            Message::PrePrepare(m) => {
                write!(f, " v={} n={} requests={}", m.view, m.n, m.batch.len())
            }
            Message::Prepare(m) => write!(f, " v={} n={} d={}", m.view, m.n, m.digest.short(2)),
            Message::Commit(m) => write!(f, " v={} n={} d={}", m.view, m.n, m.digest.short(2)),
            Message::Committed(m) => write!(f, " n={} requests={}", m.n, m.batch.len()),
            Message::Checkpoint(m) => {
                write!(f, " n={} d={} {:?}", m.n, m.digest.short(2), m.replica)
            }
            Message::StableCertificate(all) => {
                write!(f, " n={} signers={}", all.first().map_or(0, |m| m.n.0), all.len())
            }
            Message::Unauthenticated(m) => write!(f, " {:?}", m.clients),
            Message::Suspect(m) => write!(f, " v={}", m.view),
            Message::ViewChange(m) => write!(
                f,
                " v={} h={} P={} Q={} {:?}",
                m.view,
                m.stable,
                m.prepared.len(),
                m.pre_prepared.len(),
                m.replica
            ),
            Message::NewView(m) => {
                write!(
                    f,
                    " v={} V={} h={} X={}",
                    m.view,
                    m.view_changes.len(),
                    m.stable,
                    m.batches.len()
                )
            }
            Message::FetchBatch(m) => write!(f, " n={} d={}", m.n, m.digest.short(2)),
            Message::Batch(m) => write!(f, " requests={}", m.batch.len()),
            Message::Status(m) => {
                let pending = if m.begun.is_some() { "" } else { " pending" };
                write!(f, " v={}{pending} h={} executed={}", m.view, m.stable, m.executed)
            }
            Message::Fetch(m) => write!(f, " n={} parts={}", m.n, m.addresses.len()),
            Message::Parts(m) => write!(f, " n={} parts={}", m.n, m.parts.len()),
            Message::NewKey(m) => write!(f, " id={}", m.id.0),
            Message::SessionEnded(m) => write!(f, " epoch={}", m.epoch),
            Message::HealthQuery(_) => Ok(()),
            Message::Health(m) => write!(f, " v={} executed={}", m.view, m.executed),
        }
    }
}

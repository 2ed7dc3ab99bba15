//! One struct per message of the protocol, fields in the papers' order. [CL02 §4; `docs/paper-map.md`]
//!
//! PRE-PREPARE, PREPARE and COMMIT name no sender: the link they came by does, and it is the only proof they need, for
//! nobody relays them. What is relayed (requests, CHECKPOINTs) carries its own.

use crate::auth::{Credential, KeyId, Signature, Tag};
use crate::clients::ClientsOp;
use crate::evidence::Accusation;
use crate::tree::parts::{Address, Part};
use crate::types::{ClientId, Digest, Domain, Hasher, ReplicaId, SequenceNumber, Slot, Time, View};
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

/// Names one session of one client. (decision 5)
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
)]
pub struct SessionId {
    /// Ascends with every session of the same key.
    pub epoch: u64,
    /// Chosen at random, so that two sessions of one epoch cannot be taken for each other.
    pub nonce: u64,
}

impl SessionId {
    /// The session of a client that was revoked: newer than any, and nobody's, as no session has its epoch.
    pub const REVOKED: Self = Self { epoch: u64::MAX, nonce: 0 };
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Operation {
    /// Begins the session that the request names and ends the client's older one. Slot 0, seq 0.
    CreateSession,
    /// An operation of the replicated service.
    Service(#[borsh(deserialize_with = "crate::codec::payload")] Bytes),
    /// Asks about the table of clients.
    Clients(ClientsOp),
}

/// REQUEST: o, t, c. Its digest is its identity.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Request {
    /// c: the client.
    pub client: ClientId,
    /// The session in which it asks.
    pub session: SessionId,
    /// The lane of the session.
    pub slot: Slot,
    /// t: one more than the last request of the same slot; the first is 1.
    pub seq: u64,
    /// o: the operation.
    pub operation: Operation,
}

impl Request {
    /// The digest that names this request everywhere.
    pub fn digest(&self) -> Digest {
        Digest::of(Domain::Request, self)
    }

    /// How many bytes of the operation it carries: what it costs of a byte budget.
    pub fn size(&self) -> usize {
        match &self.operation {
            Operation::CreateSession => 0,
            Operation::Service(op) => op.len(),
            Operation::Clients(op) => op.size(),
        }
    }
}

/// A request with what proves that its client made it, and hints that are not part of its identity.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedRequest {
    /// What is asked.
    pub request: Request,
    /// A MAC for every replica, or a signature.
    pub credential: Credential,
    /// Which replica sends a large result whole; the others send its digest.
    pub replier: ReplicaId,
}

impl SignedRequest {
    /// At most how many bytes of a message it takes.
    pub fn weight(&self) -> usize {
        let credential = match &self.credential {
            Credential::Authenticator(entries) => entries.len() * size_of::<(KeyId, Tag)>(),
            Credential::Signature(_) => size_of::<Signature>(),
        };
        self.request.size() + credential + FIXED
    }
}

/// What else a request has than its operation and its credential, at most. Units: bytes of a message.
const FIXED: usize = 96;

/// A request as a batch names it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum BatchEntry {
    /// A small request, whole.
    Inline(SignedRequest),
    /// A large one, which its client sends to every replica itself. (decision 8)
    Reference {
        /// The digest of the request.
        digest: Digest,
        /// Its client.
        client: ClientId,
        /// Its slot.
        slot: Slot,
    },
}

impl BatchEntry {
    /// At most how many bytes of a message it takes.
    pub fn weight(&self) -> usize {
        match self {
            BatchEntry::Inline(request) => request.weight(),
            BatchEntry::Reference { .. } => FIXED,
        }
    }

    /// Whose request it is said to be, and on which slot: no batch that is proposed names one twice.
    pub fn lane(&self) -> (ClientId, Slot) {
        match self {
            BatchEntry::Inline(request) => (request.request.client, request.request.slot),
            BatchEntry::Reference { client, slot, .. } => (*client, *slot),
        }
    }
}

/// PRE-PREPARE: v, n, the batch and its agreed time. The digest d that votes name is computed, never believed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PrePrepare {
    /// v: view.
    pub view: View,
    /// n: sequence number.
    pub n: SequenceNumber,
    /// The primary's clock: the non-deterministic choice.
    pub time: Time,
    /// The requests, in the order in which they execute.
    pub batch: Vec<BatchEntry>,
}

/// d: the digest of a batch, over the agreed time and the requests' digests in order.
pub fn batch_digest(time: Time, requests: impl ExactSizeIterator<Item = Digest>) -> Digest {
    let mut hasher = Hasher::new(Domain::Batch);
    hasher.value(&time).value(&(requests.len() as u64));
    for digest in requests {
        hasher.value(&digest);
    }
    hasher.finish()
}

/// d of a batch that is still as a message named it.
pub fn named_digest(time: Time, batch: &[BatchEntry]) -> Digest {
    let digests = batch.iter().map(|entry| match entry {
        BatchEntry::Inline(request) => request.request.digest(),
        BatchEntry::Reference { digest, .. } => *digest,
    });
    batch_digest(time, digests)
}

/// PREPARE: v, n, d. Never from the primary of v.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Prepare {
    /// v: view.
    pub view: View,
    /// n: sequence number.
    pub n: SequenceNumber,
    /// d: digest of the batch.
    pub digest: Digest,
}

/// COMMIT: v, n, d.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Commit {
    /// v: view.
    pub view: View,
    /// n: sequence number.
    pub n: SequenceNumber,
    /// d: digest of the batch.
    pub digest: Digest,
}

/// A result, or its digest where another replica sends it whole.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ResultBody {
    /// The whole result.
    Whole(#[borsh(deserialize_with = "crate::codec::payload")] Bytes),
    /// Its digest, in `Domain::Result`.
    Digest(Digest),
}

impl ResultBody {
    /// The digest of the result.
    pub fn digest(&self) -> Digest {
        match self {
            ResultBody::Whole(result) => result_digest(result),
            ResultBody::Digest(digest) => *digest,
        }
    }

    /// The result, where it is here whole.
    pub fn into_whole(self) -> Option<Bytes> {
        match self {
            ResultBody::Whole(result) => Some(result),
            ResultBody::Digest(_) => None,
        }
    }
}

/// The digest by which results are compared.
pub fn result_digest(result: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Domain::Result);
    hasher.bytes(result);
    hasher.finish()
}

/// What became of an ordered request.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// The service's result.
    Result(ResultBody),
    /// The session exists now; the client may use this many slots.
    SessionCreated {
        /// How many slots the session has.
        slots: u16,
    },
    /// The session was not made: the key has used an epoch at least this high before.
    SessionRefused {
        /// The highest epoch used.
        epoch: u64,
    },
}

/// REPLY: v, t, c, i, r, and where in the order it happened. (decision 2)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// v: the replica's view.
    pub view: View,
    /// The session of the request.
    pub session: SessionId,
    /// The slot of the request.
    pub slot: Slot,
    /// t: the seq of the request.
    pub seq: u64,
    /// The digest of the request that this answers.
    pub request: Digest,
    /// n: the batch that executed it.
    pub n: SequenceNumber,
    /// Whether the batch was only prepared when it executed.
    pub tentative: bool,
    /// Whether the client must sign its requests for a while: some replica could not check its MACs. (decision 6)
    pub sign: bool,
    /// r: what became of it.
    pub outcome: Outcome,
}

/// A read that every replica answers from its own state, without an order. (decision 2)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Read {
    /// The session in which it is asked.
    pub session: SessionId,
    /// A number that this session never uses again.
    pub attempt: u64,
    /// Which replica sends a large result whole.
    pub replier: ReplicaId,
    /// o: the operation.
    pub op: Bytes,
}

/// The answer to a [`Read`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReadReply {
    /// v: the replica's view.
    pub view: View,
    /// The session of the read.
    pub session: SessionId,
    /// The attempt that this answers.
    pub attempt: u64,
    /// The highest sequence number that changed anything the read saw; two answers match only where it does.
    pub version: SequenceNumber,
    /// r, or nothing where the operation is not read-only and must be ordered.
    pub result: Option<ResultBody>,
}

/// COMMITTED: its sender is committed-local at n, for the batch that this holds. f+1 that agree decide n for whoever lags.
/// (decision 4)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Committed {
    /// n: sequence number.
    pub n: SequenceNumber,
    /// The agreed time of the batch.
    pub time: Time,
    /// The requests, in the order in which they execute.
    pub batch: Vec<BatchEntry>,
}

/// CHECKPOINT: n, d, i. Signed, so that 2f+1 of them prove the state at n to anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Checkpoint {
    /// n: the last batch that the state contains.
    pub n: SequenceNumber,
    /// d: the digest of the state.
    pub digest: Digest,
    /// i: the replica that signed.
    pub replica: ReplicaId,
    /// Over (n, d, i) and the group.
    pub signature: Signature,
}

/// UNAUTHENTICATED: clients whose requests its sender holds and cannot authenticate. (decision 6)
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Unauthenticated {
    /// Who. At most [`ViewChange::MAX_NAMED`].
    pub clients: Vec<ClientId>,
}

/// SUSPECT: v. Its sender has lost patience with the primary of v, and promises nothing. (`docs/decisions/0007`)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Suspect {
    /// v: view.
    pub view: View,
}

/// An entry of P or Q: the batch that was prepared, or pre-prepared, at n in v. A claim of its sender, no more.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Claim {
    /// n: sequence number.
    pub n: SequenceNumber,
    /// d: digest of the batch.
    pub digest: Digest,
    /// v: the latest view in which it was.
    pub view: View,
}

/// VIEW-CHANGE: v+1, h, C, P, Q, i. Signed, so that anyone may pass it on. [CL02 §4.5; `docs/decisions/0006`]
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ViewChange {
    /// v+1: the view that its sender wants to enter. It votes in no lower one any more.
    pub view: View,
    /// h: its stable checkpoint.
    pub stable: SequenceNumber,
    /// C: 2f+1 signed CHECKPOINTs for h, ascending by replica; none where h = 0.
    pub certificate: Vec<Checkpoint>,
    /// P: for each n above h, the batch that prepared in the latest view. Ascending by n, one each.
    pub prepared: Vec<Claim>,
    /// Q: for each n above h, the batches that were pre-prepared and in which view last. Ascending by (n, d), at most
    /// f+2 each.
    pub pre_prepared: Vec<Claim>,
    /// The clients whose requests its sender could not authenticate. At most [`ViewChange::MAX_NAMED`]. (decision 6)
    pub unauthenticated: Vec<ClientId>,
    /// How often its sender has lost its memory: an older incarnation's promises and claims are void. (decision 13)
    pub incarnation: u64,
    /// i: its sender.
    pub replica: ReplicaId,
    /// Over all of the above and the group.
    pub signature: Signature,
}

impl ViewChange {
    /// How many clients one VIEW-CHANGE may name. One more than that are too many to tell apart: this many mean all.
    pub const MAX_NAMED: usize = 16;
}

/// NEW-VIEW: v+1, V, X. The batches follow from V by the P/Q rules, and every backup computes them again. [CL02 §4.5]
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NewView {
    /// v+1: the view that begins.
    pub view: View,
    /// V: the VIEW-CHANGEs that decide, by replica, ascending, and digest.
    pub view_changes: Vec<(ReplicaId, Digest)>,
    /// The checkpoint at which the view begins.
    pub stable: SequenceNumber,
    /// X: the digests of the batches for `stable + 1`, `stable + 2`, …; that of [`null_request`] where nothing could have
    /// committed.
    pub batches: Vec<Digest>,
    /// Over all of the above and the group, by the primary of v+1.
    pub signature: Signature,
}

/// The digest of a null request: a batch without requests and without a time. [CL99 §4.4]
pub fn null_request() -> Digest {
    batch_digest(Time(0), core::iter::empty())
}

/// FETCH-BATCH: n, d. Its sender sees that the batch commits and was not told of it, or of another. (decision 4)
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FetchBatch {
    /// n: sequence number.
    pub n: SequenceNumber,
    /// d: digest of the batch.
    pub digest: Digest,
    /// Whether the batch alone does not help, so that COMMITTED is wanted as soon as it can be said.
    pub claim: bool,
}

/// A batch that its receiver knows by digest and lacks.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BatchBody {
    /// The agreed time of the batch.
    pub time: Time,
    /// The requests, in the order in which they execute.
    pub batch: Vec<BatchEntry>,
}

/// STATUS-ACTIVE and STATUS-PENDING: v, h, the last batch executed, which later ones are prepared or committed here, and
/// what is missing. [CL02 §5.2]
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Status {
    /// v: view.
    pub view: View,
    /// The NEW-VIEW by which v has begun here, by digest; zeros for view 0, which has none. Nothing while v has not begun.
    pub begun: Option<Digest>,
    /// Whose VIEW-CHANGEs for v are here, while it has not begun.
    pub view_changes: Vec<ReplicaId>,
    /// VIEW-CHANGEs that the NEW-VIEW for v names and that are not here, by digest.
    pub missing_view_changes: Vec<Digest>,
    /// Batches that the NEW-VIEW for v names and that are not here. At most [`Status::MAX_MISSING`].
    pub missing_batches: Vec<Digest>,
    /// h: the last stable checkpoint.
    pub stable: SequenceNumber,
    /// The last batch executed.
    pub executed: SequenceNumber,
    /// What is held of `executed + 1`, `executed + 2`, … At most the window.
    pub held: Vec<Held>,
    /// Requests that a batch names and that have not arrived. At most [`Status::MAX_MISSING`].
    pub missing: Vec<Digest>,
}

impl Status {
    /// How many missing requests, or batches, one STATUS may ask for.
    pub const MAX_MISSING: usize = 64;
}

/// How far one sequence number has come at one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Held {
    /// Not even a PRE-PREPARE.
    Nothing,
    /// The PRE-PREPARE.
    PrePrepared,
    /// A prepared certificate.
    Prepared,
    /// Committed-local.
    Committed,
}

/// FETCH: parts of the state at a stable checkpoint. [CL02 §6.2.2]
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Fetch {
    /// n: the checkpoint.
    pub n: SequenceNumber,
    /// Which parts. At most [`Fetch::MAX_ADDRESSES`].
    pub addresses: Vec<Address>,
}

impl Fetch {
    /// How many parts one FETCH may ask for.
    pub const MAX_ADDRESSES: usize = 64;
}

/// META-DATA and DATA: parts of the state, each checked against a digest that its receiver trusts already.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Parts {
    /// n: the checkpoint.
    pub n: SequenceNumber,
    /// The first of those asked for; as many as one message should hold.
    pub parts: Vec<(Address, Part)>,
}

/// NEW-KEY: the key that its receiver is to use towards its sender. Travels inside the link. [CL02 §4.3.1]
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NewKey {
    /// c: the receiver's number, which it may not know yet.
    pub client: ClientId,
    /// Names the key in authenticators.
    pub id: KeyId,
    /// The secret.
    pub secret: [u8; 32],
}

/// A replica's own account of itself and of the others, for `bfs status`. Proves nothing but by the proofs in it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Health {
    /// Echoed from the question.
    pub nonce: u64,
    /// v: view.
    pub view: View,
    /// The last batch executed.
    pub executed: SequenceNumber,
    /// h: the last stable checkpoint.
    pub stable: SequenceNumber,
    /// The digest of the state at h.
    pub digest: Digest,
    /// What it is about.
    pub phase: Phase,
    /// How many inputs were rejected since start.
    pub rejected: u64,
    /// The state transfer that is under way.
    pub transfer: Option<TransferProgress>,
    /// What it holds against others: ascending by replica, at most [`crate::evidence::Evidence::MAX_ACCUSATIONS`].
    pub accusations: Vec<Accusation>,
}

/// How far a state transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TransferProgress {
    /// n: the checkpoint that is fetched.
    pub n: SequenceNumber,
    /// About how much of it is here. Units: thousandths.
    pub permille: u32,
    /// What has come over the network. Units: bytes.
    pub bytes: u64,
    /// Since it began. Units: milliseconds.
    pub elapsed_ms: u64,
}

/// What a replica is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Phase {
    /// It votes in its view.
    Active,
    /// It has given up the last view, and the one that it names has not begun.
    ChangingView,
    /// It has lost its memory and is mute until the group has passed whatever it may have said.
    Recovering,
}

/// Everything that travels.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Client to replicas; also replica to replica, where one lacks the body.
    Request(SignedRequest),
    /// Replica to client.
    Reply(Reply),
    /// Client to replicas.
    Read(Read),
    /// Replica to client.
    ReadReply(ReadReply),
    /// Primary to backups.
    PrePrepare(PrePrepare),
    /// Backup to all.
    Prepare(Prepare),
    /// Replica to all.
    Commit(Commit),
    /// Replica to one that lags.
    Committed(Committed),
    /// Replica to all.
    Checkpoint(Checkpoint),
    /// 2f+1 CHECKPOINTs that prove one state, ascending by replica: whoever holds them to whoever lags.
    StableCertificate(Vec<Checkpoint>),
    /// Backup to primary.
    Unauthenticated(Unauthenticated),
    /// Backup to all.
    Suspect(Suspect),
    /// Replica to all, and whoever holds it to whoever lacks it.
    ViewChange(ViewChange),
    /// Primary of the new view to backups, and whoever holds it to whoever lacks it.
    NewView(NewView),
    /// Replica to those who sent COMMIT.
    FetchBatch(FetchBatch),
    /// Whoever holds it to whoever lacks it.
    Batch(BatchBody),
    /// Replica to all, now and then.
    Status(Status),
    /// Replica to one that holds a checkpoint.
    Fetch(Fetch),
    /// The answer to a FETCH.
    Parts(Parts),
    /// Replica to client.
    NewKey(NewKey),
    /// Replica to client: the session it uses has been ended by a newer one.
    SessionEnded(SessionId),
    /// Anyone to a replica: how are you? Carries a nonce.
    HealthQuery(u64),
    /// Replica to whoever asked.
    Health(Health),
}

impl Message {
    /// The name that the papers and the traces use.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Request(_) => "REQUEST",
            Message::Reply(_) => "REPLY",
            Message::Read(_) => "READ",
            Message::ReadReply(_) => "READ-REPLY",
            Message::PrePrepare(_) => "PRE-PREPARE",
            Message::Prepare(_) => "PREPARE",
            Message::Commit(_) => "COMMIT",
            Message::Committed(_) => "COMMITTED",
            Message::Checkpoint(_) => "CHECKPOINT",
            Message::StableCertificate(_) => "STABLE",
            Message::Unauthenticated(_) => "UNAUTHENTICATED",
            Message::Suspect(_) => "SUSPECT",
            Message::ViewChange(_) => "VIEW-CHANGE",
            Message::NewView(_) => "NEW-VIEW",
            Message::FetchBatch(_) => "FETCH-BATCH",
            Message::Batch(_) => "BATCH",
            Message::Status(_) => "STATUS",
            Message::Fetch(_) => "FETCH",
            Message::Parts(_) => "PARTS",
            Message::NewKey(_) => "NEW-KEY",
            Message::SessionEnded(_) => "SESSION-ENDED",
            Message::HealthQuery(_) => "HEALTH-QUERY",
            Message::Health(_) => "HEALTH",
        }
    }
}

//! Who made what: MAC authenticators, signatures, and [`Verified`], which can be made here only.
//!
//! Replicas prove PRE-PREPARE, PREPARE and COMMIT to each other by the link alone. A client proves a request by one MAC
//! per replica; each MAC key is picked by the replica that will check it and handed over inside the link. (decisions 6, 12)

use crate::clients::ClientIdentity;
use crate::io::Rejection;
use crate::messages::{
    BatchEntry, Checkpoint, Claim, Fetch, Message, NewKey, NewView, SignedRequest, Status,
    ViewChange,
};
use crate::planted::{Planted, planted};
use crate::types::{
    ClientId, ClusterSize, Digest, Domain, GroupId, Hasher, Peer, ReplicaId, SequenceNumber,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use core::fmt;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

/// Names a MAC key among those its maker handed to one client.
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
pub struct KeyId(pub u32);

/// A truncated MAC, 16 bytes.
#[derive(Clone, Copy, Debug, Eq, BorshSerialize, BorshDeserialize)]
pub struct Tag([u8; 16]);

impl PartialEq for Tag {
    /// Takes the same time wherever the two differ.
    fn eq(&self, other: &Tag) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Tag {
    /// Wraps what a [`Crypto`] computed.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "sig {a:02x}{b:02x}{c:02x}{d:02x}..")
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct PublicKey(pub [u8; 32]);

/// What proves that a client made a request.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Credential {
    /// One entry per replica, in the order of their ids. An entry without a key has `KeyId(0)`.
    Authenticator(Vec<(KeyId, Tag)>),
    /// A signature, which every replica can check.
    Signature(Signature),
}

/// A MAC key, its schedule computed. Bound to one group and one use, so a tag means nothing anywhere else.
#[derive(Clone)]
pub struct MacKey {
    secret: [u8; 32],
    schedule: Hmac<Sha256>,
}

impl MacKey {
    /// Derives the key that authenticates requests in `group` from a shared `secret`.
    pub fn for_requests(secret: [u8; 32], group: GroupId) -> Self {
        let mut derivation = keyed(&secret);
        derivation.update(b"BFS request authenticator v1");
        derivation.update(&group.0.0);
        let schedule = keyed(&derivation.finalize().into_bytes());
        Self { secret, schedule }
    }

    /// The shared secret: what a symbolic provider tells keys apart by.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey")
    }
}

impl Drop for MacKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    match Hmac::new_from_slice(secret) {
        Ok(hmac) => hmac,
        // HMAC takes keys of any length.
        Err(_) => unreachable!(),
    }
}

/// The cryptography of one principal. Three providers: [`RealCrypto`], and the simulator's symbolic and counting ones.
pub trait Crypto: Send + Sync {
    /// The MAC of `digest` under `key`.
    fn mac(&self, key: &MacKey, digest: &Digest) -> Tag;
    /// Signs `digest` with this principal's own key.
    fn sign(&self, digest: &Digest) -> Signature;
    /// Whether `signature` over `digest` was made by the holder of `public`.
    fn verify(&self, public: &PublicKey, digest: &Digest, signature: &Signature) -> bool;
}

/// HMAC-SHA-256 truncated to 128 bits, and Ed25519.
pub struct RealCrypto(SigningKey);

impl RealCrypto {
    /// Signs with the key made from `seed`.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The key under which its signatures are genuine.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
}

impl Crypto for RealCrypto {
    fn mac(&self, key: &MacKey, digest: &Digest) -> Tag {
        let mut mac = key.schedule.clone();
        mac.update(&digest.0);
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; 16];
        tag.copy_from_slice(full.split_at(16).0);
        Tag(tag)
    }

    fn sign(&self, digest: &Digest) -> Signature {
        Signature(self.0.sign(&digest.0).to_bytes())
    }

    fn verify(&self, public: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        VerifyingKey::from_bytes(&public.0)
            .is_ok_and(|key| key.verify_strict(&digest.0, &signature).is_ok())
    }
}

/// What a signature on a request covers: the group and the request.
pub fn request_signing_digest(group: GroupId, request: &Digest) -> Digest {
    let mut hasher = Hasher::new(Domain::Signed);
    hasher.value(&group).bytes(b"REQUEST").value(request);
    hasher.finish()
}

/// What a signature on a CHECKPOINT covers: the group, n, d and i.
pub fn checkpoint_signing_digest(
    group: GroupId,
    n: SequenceNumber,
    digest: &Digest,
    replica: ReplicaId,
) -> Digest {
    let mut hasher = Hasher::new(Domain::Signed);
    hasher.value(&group).bytes(b"CHECKPOINT").value(&n).value(digest).value(&replica);
    hasher.finish()
}

/// D(m) of a VIEW-CHANGE: what its signature covers and what a NEW-VIEW names it by.
pub fn view_change_digest(group: GroupId, m: &ViewChange) -> Digest {
    let mut hasher = Hasher::new(Domain::Signed);
    hasher.value(&group).bytes(b"VIEW-CHANGE").value(&m.view).value(&m.stable);
    hasher.value(&m.certificate).value(&m.prepared).value(&m.pre_prepared);
    hasher.value(&m.unauthenticated).value(&m.incarnation).value(&m.replica);
    hasher.finish()
}

/// D(m) of a NEW-VIEW: what its signature covers and what names it.
pub fn new_view_digest(group: GroupId, m: &NewView) -> Digest {
    let mut hasher = Hasher::new(Domain::Signed);
    hasher.value(&group).bytes(b"NEW-VIEW").value(&m.view).value(&m.view_changes);
    hasher.value(&m.stable).value(&m.batches);
    hasher.finish()
}

/// How a request was authenticated. (contract 2)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// Not at all: no entry for this replica, an unknown key, or a tag that does not fit. Not necessarily its relayer's fault.
    Unchecked,
    /// By this replica's entry of its authenticator.
    Mac,
    /// It came over its own client's link.
    Link,
    /// By its client's signature.
    Signature,
}

/// A message whose sender and contents have been checked as far as they can be on arrival.
///
/// Only [`Authority::verify`] makes one.
#[derive(Clone, Debug)]
pub struct Verified<M> {
    message: M,
    from: Peer,
    proofs: Vec<(Digest, Proof)>,
}

impl<M> Verified<M> {
    /// Who sent it, as the link proved.
    pub fn from(&self) -> Peer {
        self.from
    }

    /// The message.
    pub fn message(&self) -> &M {
        &self.message
    }

    /// The message, and for each request that it carries or names, in order, its digest and how it was authenticated.
    pub fn into_parts(self) -> (M, Vec<(Digest, Proof)>) {
        (self.message, self.proofs)
    }
}

/// The limits that a message must keep before anything of it is looked at more closely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most requests in a batch.
    pub batch_requests: usize,
    /// The most bytes of operations in a batch, inline or by reference. A larger one gets no vote.
    pub batch_bytes: usize,
    /// The most bytes in one operation.
    pub operation_bytes: usize,
    /// L: the size of the window between the water marks.
    pub window: u64,
}

/// A client, and the MAC keys that this replica handed to it: the newest, and the one before it.
#[derive(Clone, Debug)]
struct ClientKeys {
    identity: ClientIdentity,
    current: Option<(KeyId, MacKey)>,
    previous: Option<(KeyId, MacKey)>,
}

/// What one replica knows of everyone's keys.
#[derive(Clone)]
pub struct Authority {
    group: GroupId,
    size: ClusterSize,
    me: ReplicaId,
    limits: Limits,
    replicas: Arc<[PublicKey]>,
    /// Those in the replicated table as of the last committed batch.
    clients: BTreeMap<ClientId, ClientKeys>,
    /// Those that are not clients any more, and since when.
    dismissed: BTreeMap<ClientId, (SequenceNumber, ClientKeys)>,
    crypto: Arc<dyn Crypto>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({} of {})", self.me, self.group)
    }
}

impl Authority {
    /// Requires: `replicas` holds n keys, in the order of ids; `clients` are those with whom the group begins, in the order of
    /// ids too.
    pub fn new(
        group: GroupId,
        size: ClusterSize,
        me: ReplicaId,
        limits: Limits,
        replicas: Arc<[PublicKey]>,
        clients: impl IntoIterator<Item = ClientIdentity>,
        crypto: Arc<dyn Crypto>,
    ) -> Self {
        assert!(replicas.len() == size.n() && size.contains(me));
        let (none, nobody) = (BTreeMap::new(), BTreeMap::new());
        let mut authority =
            Self { group, size, me, limits, replicas, clients: none, dismissed: nobody, crypto };
        let ids = (0..).map(ClientId);
        ids.zip(clients).for_each(|(client, identity)| authority.admit(client, identity));
        authority
    }

    /// Which group this speaks for.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Who is registered, ascending.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = (ClientId, &ClientIdentity)> {
        self.clients.iter().map(|(client, keys)| (*client, &keys.identity))
    }

    /// Whether `client` is registered.
    pub fn knows(&self, client: ClientId) -> bool {
        self.clients.contains_key(&client)
    }

    /// From now on `client` can prove what it asks.
    pub(crate) fn admit(&mut self, client: ClientId, identity: ClientIdentity) {
        self.clients.insert(client, ClientKeys { identity, current: None, previous: None });
    }

    /// `client` is none any more since batch `n`.
    ///
    /// Effects: what it proves is still believed. A primary that had not executed n may have proposed what the client asked
    /// for; a backup that could not check it would hold up the batch, which executes without doing that.
    pub(crate) fn dismiss(&mut self, client: ClientId, n: SequenceNumber) {
        self.dismissed.extend(self.clients.remove(&client).map(|keys| (client, (n, keys))));
    }

    /// Forgets who was dismissed a window before the stable checkpoint: no batch that is voted on can name them.
    pub(crate) fn forget_dismissed(&mut self, stable: SequenceNumber) {
        let window = self.limits.window;
        self.dismissed.retain(|_, (n, _)| n.plus(window) > stable);
    }

    fn keys_of(&self, client: ClientId) -> Option<&ClientKeys> {
        let dismissed = || self.dismissed.get(&client).map(|(_, keys)| keys);
        self.clients.get(&client).or_else(dismissed)
    }

    /// The cryptography in use.
    pub fn crypto(&self) -> &Arc<dyn Crypto> {
        &self.crypto
    }

    /// Picks a fresh key for `client` to use towards this replica.
    ///
    /// Effects: the key before it stays valid, the one before that does not.
    pub fn issue_key(&mut self, client: ClientId, secret: [u8; 32]) -> Option<NewKey> {
        let keys = self.clients.get_mut(&client)?;
        let id = KeyId(keys.current.as_ref().map_or(1, |(id, _)| id.0.saturating_add(1)));
        keys.previous = keys.current.take();
        keys.current = Some((id, MacKey::for_requests(secret, self.group)));
        Some(NewKey { client, id, secret })
    }

    /// Checks what `from` sent. `known` says how a request with this digest was authenticated before: that is not done again.
    /// `convinces` says whether what a client signs has to convince others than this replica.
    ///
    /// Errors: what is wrong with it. The message is then dropped and counted; it changed nothing.
    pub fn verify(
        &self,
        from: Peer,
        message: Message,
        known: impl Fn(&Digest) -> Proof,
        convinces: impl Fn(ClientId) -> bool,
    ) -> Result<Verified<Message>, Rejection> {
        let mut proofs = Vec::new();
        match (&message, from) {
            (Message::Request(request), Peer::Client(client)) => {
                self.check_limits(request)?;
                if request.request.client != client && !planted(Planted::SenderUnchecked) {
                    return Err(Rejection::WrongSender);
                }
                // Its link proves it to this replica. The signature of one who is no client any more convinces nobody; it is told
                // so, and nothing else.
                let is_signed = matches!(request.credential, Credential::Signature(_));
                if is_signed && self.keys_of(client).is_some() && convinces(client) {
                    let signed =
                        |digest: &Digest| Some(known(digest)).filter(|p| *p == Proof::Signature);
                    match self.prove(request, |digest| signed(digest).unwrap_or(Proof::Unchecked)) {
                        (digest, Proof::Signature) => proofs.push((digest, Proof::Signature)),
                        _ => return Err(Rejection::BadSignature),
                    }
                } else {
                    proofs.push((request.request.digest(), Proof::Link));
                }
            }
            (Message::Request(request), Peer::Replica(_)) => {
                self.check_limits(request)?;
                proofs.push(self.prove(request, &known));
            }
            (Message::PrePrepare(m), Peer::Replica(_)) => {
                self.check_size(&m.batch)?;
                check_lanes(&m.batch)?;
                proofs = self.prove_all(&m.batch, &known);
            }
            (Message::Committed(m), Peer::Replica(_)) => {
                self.check_size(&m.batch)?;
                // f+1 replicas decide such a batch, and no client's word.
                proofs = m.batch.iter().map(|entry| known_proof(entry, &known)).collect();
            }
            (Message::Checkpoint(m), Peer::Replica(_)) => self.check_checkpoint(m)?,
            (Message::StableCertificate(m), Peer::Replica(_)) => {
                let n = m.first().ok_or(Rejection::Malformed)?.n;
                self.check_certificate(n, m)?;
            }
            (Message::ViewChange(m), Peer::Replica(_)) => {
                proofs.push((self.check_view_change(m)?, Proof::Signature));
            }
            (Message::Unauthenticated(m), Peer::Replica(_)) => {
                if m.clients.len() > ViewChange::MAX_NAMED {
                    return Err(Rejection::TooLarge);
                }
            }
            (Message::NewView(m), Peer::Replica(_)) => self.check_new_view(m)?,
            (Message::Batch(m), Peer::Replica(_)) => {
                self.check_size(&m.batch)?;
                proofs = self.prove_all(&m.batch, &known);
            }
            (Message::Status(m), Peer::Replica(_)) => self.check_status(m)?,
            (Message::Fetch(m), Peer::Replica(_)) => {
                if m.addresses.len() > Fetch::MAX_ADDRESSES {
                    return Err(Rejection::TooLarge);
                }
            }
            (
                Message::Prepare(_)
                | Message::Commit(_)
                | Message::Suspect(_)
                | Message::FetchBatch(_)
                | Message::Parts(_)
                | Message::Reply(_),
                Peer::Replica(_),
            ) => {}
            (Message::Read(m), Peer::Client(_)) => {
                if m.op.len() > self.limits.operation_bytes {
                    return Err(Rejection::TooLarge);
                }
            }
            (Message::HealthQuery(_), _) => {}
            _ => return Err(Rejection::WrongSender),
        }
        Ok(Verified { message, from, proofs })
    }

    fn check_limits(&self, request: &SignedRequest) -> Result<(), Rejection> {
        if request.request.size() > self.limits.operation_bytes {
            return Err(Rejection::TooLarge);
        }
        match &request.credential {
            Credential::Authenticator(entries) if entries.len() != self.size.n() => {
                Err(Rejection::Malformed)
            }
            _ => Ok(()),
        }
    }

    fn check_size(&self, batch: &[BatchEntry]) -> Result<(), Rejection> {
        if batch.len() > self.limits.batch_requests {
            return Err(Rejection::TooLarge);
        }
        let mut inline = 0usize;
        for entry in batch {
            if let BatchEntry::Inline(request) = entry {
                self.check_limits(request)?;
                inline = inline.saturating_add(request.request.size());
            }
        }
        if inline <= self.limits.batch_bytes { Ok(()) } else { Err(Rejection::TooLarge) }
    }

    /// How each request of `batch` proves itself to this replica.
    fn prove_all(
        &self,
        batch: &[BatchEntry],
        known: impl Fn(&Digest) -> Proof,
    ) -> Vec<(Digest, Proof)> {
        let proofs = batch.iter().map(|entry| match entry {
            BatchEntry::Inline(request) => self.prove(request, &known),
            BatchEntry::Reference { digest, .. } => (*digest, Proof::Unchecked),
        });
        proofs.collect()
    }

    fn check_checkpoint(&self, m: &Checkpoint) -> Result<(), Rejection> {
        let public = self.replicas.get(m.replica.index()).ok_or(Rejection::WrongSender)?;
        let signed = checkpoint_signing_digest(self.group, m.n, &m.digest, m.replica);
        let genuine = self.crypto.verify(public, &signed, &m.signature);
        let genuine = genuine || planted(Planted::SignatureUnchecked);
        if genuine { Ok(()) } else { Err(Rejection::BadSignature) }
    }

    /// Signs `m`, whose sender this replica is, and returns the digest that names it.
    pub fn sign_view_change(&self, m: &mut ViewChange) -> Digest {
        let digest = view_change_digest(self.group, m);
        m.signature = self.crypto.sign(&digest);
        digest
    }

    /// Signs `m`, which this replica asks for itself.
    pub fn sign_request(&self, m: &mut SignedRequest) {
        let signed = request_signing_digest(self.group, &m.request.digest());
        m.credential = Credential::Signature(self.crypto.sign(&signed));
    }

    /// Signs `m`, as the primary of its view.
    pub fn sign_new_view(&self, m: &mut NewView) {
        m.signature = self.crypto.sign(&self.new_view_digest(m));
    }

    /// What names `m`.
    pub fn new_view_digest(&self, m: &NewView) -> Digest {
        new_view_digest(self.group, m)
    }

    /// Whether `m` is whole in itself: signed by its sender, h proved, P and Q in order, inside the window, and of earlier
    /// views. Cheap tests come first.
    fn check_view_change(&self, m: &ViewChange) -> Result<Digest, Rejection> {
        let high = m.stable.plus(self.limits.window);
        let in_place = |claim: &Claim| m.stable < claim.n && claim.n <= high && claim.view < m.view;
        let most = self.size.f() + 2;
        let window = usize::try_from(self.limits.window).unwrap_or(usize::MAX);
        if m.prepared.len() > window || m.pre_prepared.len() > window.saturating_mul(most) {
            return Err(Rejection::TooLarge);
        }
        let well_formed = m.prepared.iter().chain(&m.pre_prepared).all(in_place)
            && m.prepared.is_sorted_by(|a, b| a.n < b.n)
            && m.pre_prepared.is_sorted_by(|a, b| (a.n, a.digest) < (b.n, b.digest))
            && m.pre_prepared.chunk_by(|a, b| a.n == b.n).all(|of_n| of_n.len() <= most)
            && m.unauthenticated.len() <= ViewChange::MAX_NAMED
            && m.certificate.len() <= self.size.n();
        if !well_formed {
            return Err(Rejection::Malformed);
        }
        let public = self.replicas.get(m.replica.index()).ok_or(Rejection::WrongSender)?;
        let digest = view_change_digest(self.group, m);
        if !self.crypto.verify(public, &digest, &m.signature) {
            return Err(Rejection::BadSignature);
        }
        self.check_certificate(m.stable, &m.certificate)?;
        Ok(digest)
    }

    /// Whether `certificate` proves the stable checkpoint at `n`: 2f+1 replicas signed one state. Nothing proves the genesis.
    fn check_certificate(
        &self,
        n: SequenceNumber,
        certificate: &[Checkpoint],
    ) -> Result<(), Rejection> {
        let Some(first) = certificate.first() else {
            return if n.0 == 0 { Ok(()) } else { Err(Rejection::UnprovedCheckpoint) };
        };
        let proves = (self.size.quorum()..=self.size.n()).contains(&certificate.len())
            && certificate.is_sorted_by(|a, b| a.replica < b.replica)
            && certificate.iter().all(|m| m.n == n && m.digest == first.digest)
            && certificate.iter().all(|m| self.check_checkpoint(m).is_ok());
        if proves { Ok(()) } else { Err(Rejection::UnprovedCheckpoint) }
    }

    fn check_new_view(&self, m: &NewView) -> Result<(), Rejection> {
        if m.batches.len() as u64 > self.limits.window || m.view_changes.len() > self.size.n() {
            return Err(Rejection::TooLarge);
        }
        let ordered = m.view_changes.is_sorted_by(|(a, _), (b, _)| a < b);
        if !ordered || m.view_changes.len() < self.size.quorum() {
            return Err(Rejection::Malformed);
        }
        let primary = self.size.primary(m.view);
        let public = self.replicas.get(primary.index()).ok_or(Rejection::WrongSender)?;
        let genuine = self.crypto.verify(public, &self.new_view_digest(m), &m.signature);
        if genuine { Ok(()) } else { Err(Rejection::BadSignature) }
    }

    fn check_status(&self, m: &Status) -> Result<(), Rejection> {
        let fits = m.held.len() as u64 <= self.limits.window
            && m.missing.len() <= Status::MAX_MISSING
            && m.missing_batches.len() <= Status::MAX_MISSING
            && m.view_changes.len() <= self.size.n()
            && m.missing_view_changes.len() <= self.size.n();
        if fits { Ok(()) } else { Err(Rejection::TooLarge) }
    }

    /// Whether the client itself has signed `request`.
    pub(crate) fn is_signed(&self, request: &SignedRequest) -> bool {
        self.prove(request, |_| Proof::Unchecked).1 == Proof::Signature
    }

    /// How the request proves itself to this replica, whoever brought it.
    fn prove(&self, request: &SignedRequest, known: impl Fn(&Digest) -> Proof) -> (Digest, Proof) {
        let digest = request.request.digest();
        let before = known(&digest);
        if before > Proof::Unchecked {
            return (digest, before);
        }
        let client = request.request.client;
        let proof = match &request.credential {
            Credential::Authenticator(entries) => entries
                .get(self.me.index())
                .filter(|(id, tag)| self.tag_fits(client, *id, &digest, tag))
                .map(|_| Proof::Mac),
            Credential::Signature(signature) => self
                .public_key(client)
                .filter(|public| {
                    let signed = request_signing_digest(self.group, &digest);
                    self.crypto.verify(public, &signed, signature)
                })
                .map(|_| Proof::Signature),
        };
        (digest, proof.unwrap_or(Proof::Unchecked))
    }

    /// The key of a client, or of the replica whose principal it is.
    fn public_key(&self, client: ClientId) -> Option<&PublicKey> {
        match client.replica() {
            Some(i) => self.replicas.get(i.index()),
            None => self.keys_of(client).map(|keys| &keys.identity.signing),
        }
    }

    fn tag_fits(&self, client: ClientId, id: KeyId, digest: &Digest, tag: &Tag) -> bool {
        let Some(keys) = self.keys_of(client) else { return false };
        [&keys.current, &keys.previous]
            .into_iter()
            .flatten()
            .find(|(known, _)| *known == id)
            .is_some_and(|(_, key)| self.crypto.mac(key, digest) == *tag)
    }
}

/// Errors: `DuplicateInBatch`.
fn check_lanes(batch: &[BatchEntry]) -> Result<(), Rejection> {
    let mut seen = BTreeSet::new();
    let once = batch.iter().all(|entry| seen.insert(entry.lane()));
    if once { Ok(()) } else { Err(Rejection::DuplicateInBatch) }
}

/// How the request of `entry` was authenticated before.
fn known_proof(entry: &BatchEntry, known: impl Fn(&Digest) -> Proof) -> (Digest, Proof) {
    match entry {
        BatchEntry::Inline(request) => {
            let digest = request.request.digest();
            (digest, known(&digest))
        }
        BatchEntry::Reference { digest, .. } => (*digest, Proof::Unchecked),
    }
}

//! What a Byzantine replica of a trace says: anything, under its own name and with its own signature.

use crate::common::{Cluster, GROUP, Named, SESSION};
use bft_core::auth::{
    Credential, Crypto, KeyId, MacKey, RealCrypto, Signature, Tag, checkpoint_signing_digest,
    new_view_digest, view_change_digest,
};
use bft_core::messages::{
    BatchEntry, Checkpoint, Claim, NewView, Operation, Request, SignedRequest, ViewChange,
    batch_digest,
};
use bft_core::types::*;
use bytes::Bytes;

/// A batch that a trace has named.
#[derive(Clone)]
pub struct Batch {
    pub time: Time,
    pub entries: Vec<BatchEntry>,
}

impl Batch {
    pub fn digest(&self) -> Digest {
        let digests = self.entries.iter().map(|entry| match entry {
            BatchEntry::Inline(request) => request.request.digest(),
            BatchEntry::Reference { digest, .. } => *digest,
        });
        batch_digest(self.time, digests.collect::<Vec<_>>().into_iter())
    }
}

/// The request of client `c` that adds `add`, signed; or with an authenticator that is good for the replicas of `good`.
pub fn request(c: u32, slot: u16, seq: u64, add: u8, good: Option<&[u32]>) -> SignedRequest {
    let operation = Operation::Service(Bytes::from(vec![add]));
    let client = ClientId(c);
    let request = Request { client, session: SESSION, slot: Slot(slot), seq, operation };
    match good {
        None => Cluster::signed_by(c, request),
        Some(good) => {
            let credential = authenticator(&request, good);
            SignedRequest { request, credential, replier: ReplicaId(0) }
        }
    }
}

/// A MAC for each replica of a group of four; those for the replicas outside `good` do not fit.
fn authenticator(request: &Request, good: &[u32]) -> Credential {
    let digest = request.digest();
    let entry = |i: u32| {
        // Every replica's key is made of the entropy that `Cluster::new` gives it.
        let key = MacKey::for_requests([i as u8; 32], GROUP);
        let tag = RealCrypto::new(&[0; 32]).mac(&key, &digest);
        (KeyId(1), if good.contains(&i) { tag } else { Tag::new([0; 16]) })
    };
    Credential::Authenticator((0..4).map(entry).collect())
}

/// A request whose signature nobody made.
pub fn unsigned(mut request: SignedRequest) -> SignedRequest {
    request.credential = Credential::Signature(Signature([0; 64]));
    request
}

/// The VIEW-CHANGE that `i` makes up.
pub fn view_change(i: u32, view: u64, mut prepared: Vec<Claim>, mut pre: Vec<Claim>) -> ViewChange {
    prepared.sort();
    pre.sort();
    let mut m = ViewChange {
        view: View(view),
        stable: SequenceNumber(0),
        certificate: Vec::new(),
        prepared,
        pre_prepared: pre,
        unauthenticated: Vec::new(),
        incarnation: 0,
        replica: ReplicaId(i),
        signature: Signature([0; 64]),
    };
    sign_view_change(&mut m);
    m
}

/// Signs `m` for its sender.
pub fn sign_view_change(m: &mut ViewChange) {
    m.signature = Named(m.replica.0 as u8).sign(&view_change_digest(GROUP, m));
}

/// The NEW-VIEW of `primary` with these grounds and batches above `stable`.
pub fn new_view(
    primary: u32,
    view: u64,
    stable: u64,
    grounds: &[ViewChange],
    batches: Vec<Digest>,
) -> NewView {
    let named = grounds.iter().map(|m| (m.replica, view_change_digest(GROUP, m)));
    let mut view_changes: Vec<_> = named.collect();
    view_changes.sort();
    let mut m = NewView {
        view: View(view),
        view_changes,
        stable: SequenceNumber(stable),
        batches,
        signature: Signature([0; 64]),
    };
    m.signature = Named(primary as u8).sign(&new_view_digest(GROUP, &m));
    m
}

/// The CHECKPOINT of `i` for a state of its choice.
pub fn checkpoint(i: u32, n: u64, digest: Digest) -> Checkpoint {
    let (n, replica) = (SequenceNumber(n), ReplicaId(i));
    let signature = Named(i as u8).sign(&checkpoint_signing_digest(GROUP, n, &digest, replica));
    Checkpoint { n, digest, replica, signature }
}

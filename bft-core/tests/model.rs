//! Every schedule of a small group, one by one: the real core under a model checker.
//!
//! Four replicas, one request, one Byzantine replica with a menu of lies that it may tell each other in any order and
//! combination, and at most one view change. The group has a stable checkpoint, so that only the request is under way.
//! All of these states are visited; what has more requests or views is the simulator's part.
//!
//! Two states are taken for one where every replica prints alike (`inspect.rs` in the core says why that suffices), the same
//! messages are on their way, and the same lies are left. Vote order is not part of it, so each set of votes counts once.

#[path = "common/checker.rs"]
mod checker;
mod common;
#[path = "common/forgery.rs"]
#[allow(dead_code)]
mod forgery;

use bft_core::messages::*;
use bft_core::types::*;
use checker::{Group, Lie, VIOLATIONS};
use common::Cluster;
use stateright::{Checker, HasDiscoveries, Model};

/// Where the request comes to stand: after the session and three others.
const N: SequenceNumber = SequenceNumber(5);
const OP: &[u8] = b"\x05";
const COMMITS: &str = "a batch commits in view 0";
const SURVIVES: &str = "a batch survives its view";
const IS_REPLACED: &str = "another batch takes its place";

/// A group at a stable checkpoint whose correct replicas have all heard of the request.
fn waiting(byzantine: &[u32]) -> Cluster {
    let mut group = Cluster::new(4, 1);
    group.open_session();
    for seq in 1..=3 {
        group.ask(0, Cluster::request(seq, OP));
        group.deliver_all();
    }
    assert!(group.replicas.iter().all(|replica| replica.health(0).stable.0 == 4));
    for i in (0..4).filter(|i| !byzantine.contains(i)) {
        group.ask(i, Cluster::request(4, OP));
    }
    group
}

/// A batch of one request, `later` than the first, and its digest.
fn batch(group: &Cluster, request: SignedRequest, later: u64) -> (Time, Vec<BatchEntry>, Digest) {
    let time = Time(group.now.wall.0 + later);
    let digest = batch_digest(time, [request.request.digest()].into_iter());
    (time, vec![BatchEntry::Inline(request)], digest)
}

/// What `from` may say of `digest`, in view 0 and when it leaves that.
fn votes(from: u32, digest: Digest) -> Vec<Lie> {
    let (view, n) = (View(0), N);
    let claim = || vec![Claim { n, digest, view }];
    let m = forgery::view_change(from, 1, claim(), claim());
    let commit = Message::Commit(Commit { view, n, digest });
    let view_change = Message::ViewChange(m);
    let mut lies =
        vec![Lie::new(from, "COMMIT", commit), Lie::new(from, "VIEW-CHANGE", view_change)];
    if from != 0 {
        // The primary's would be refused.
        let prepare = Message::Prepare(Prepare { view, n, digest });
        lies.push(Lie::new(from, "PREPARE", prepare));
    }
    lies
}

/// What the Byzantine primary of view 0 may say of these batches: one of them to each, a COMMIT for any, and either of
/// them or neither in its VIEW-CHANGE.
fn equivocation(batches: &[(Time, Vec<BatchEntry>, Digest)]) -> Vec<Lie> {
    let mut lies = vec![Lie::new(0, "VIEW-CHANGE", blank_view_change(0))];
    for (time, batch, digest) in batches.iter().cloned() {
        let m = PrePrepare { view: View(0), n: N, time, batch };
        lies.push(Lie::new(0, "PRE-PREPARE", Message::PrePrepare(m)));
        lies.extend(votes(0, digest));
    }
    lies
}

fn blank_view_change(from: u32) -> Message {
    Message::ViewChange(forgery::view_change(from, 1, Vec::new(), Vec::new()))
}

/// A group whose primary is Byzantine and has two batches to choose from. Another one may vote for both of them.
fn equivocating(another: Option<u32>) -> Group {
    let byzantine: Vec<u32> = another.into_iter().chain([0]).collect();
    let cluster = waiting(&byzantine);
    let of_time = |later| batch(&cluster, Cluster::request(4, OP), later);
    let [again, first, second] = [0, 1, 2].map(of_time);
    let valid = [again.2, first.2, second.2];
    let mut lies = equivocation(&[first, second]);
    lies.extend(another.iter().flat_map(|i| [votes(*i, valid[1]), votes(*i, valid[2])].concat()));
    Group::new(cluster, &byzantine, lies, &valid)
}

/// Visits every state, and says what it found; stops once it finds one of `until`.
fn explore(name: &str, group: Group, until: &[&'static str]) -> Vec<&'static str> {
    let until = HasDiscoveries::AnyOf(until.iter().copied().collect());
    let checker = group.checker().finish_when(until).spawn_bfs().join();
    let mut found: Vec<&'static str> = checker.discoveries().into_keys().collect();
    found.sort();
    let (unique, all) = (checker.unique_state_count(), checker.state_count());
    println!("{name}: {unique} states, {all} steps, depth {}, {found:?}", checker.max_depth());
    found
}

#[test]
fn a_primary_equivocates_and_is_left() {
    let found = explore("Byzantine primary", equivocating(None).impatient(), &VIOLATIONS);
    assert_eq!(found, [COMMITS, SURVIVES, IS_REPLACED]);
}

#[test]
fn a_primary_forges_a_request() {
    let cluster = waiting(&[0]);
    let first = batch(&cluster, Cluster::request(4, OP), 1);
    let forged = forgery::unsigned(Cluster::request(4, b"\x64"));
    let (valid, lies) = ([first.2], equivocation(&[batch(&cluster, forged, 1), first]));
    let group = Group::new(cluster, &[0], lies, &valid);
    assert_eq!(explore("Byzantine primary, forged request", group, &VIOLATIONS), [COMMITS]);
}

#[test]
fn a_backup_lies_and_the_view_is_left() {
    let cluster = waiting(&[3]);
    let [first, other] = [0, 1].map(|later| batch(&cluster, Cluster::request(4, OP), later).2);
    let mut lies = vec![Lie::new(3, "VIEW-CHANGE", blank_view_change(3))];
    lies.extend([first, other].into_iter().flat_map(|digest| votes(3, digest)));
    let group = Group::new(cluster, &[3], lies, &[first]).impatient();
    assert_eq!(explore("Byzantine backup", group, &VIOLATIONS), [COMMITS, SURVIVES]);
}

/// The check can fail: with more than f faulty replicas two correct ones come to disagree.
#[test]
fn two_faulty_replicas_are_too_many() {
    let found = explore("two Byzantine replicas", equivocating(Some(3)), &VIOLATIONS[..1]);
    assert!(found.contains(&VIOLATIONS[0]), "{found:?}");
}

/// And so they do where correct ones forget, as they leave a view, what they prepared in it.
#[test]
fn a_forgotten_certificate_is_found() {
    let group = equivocating(None).impatient().forgetful();
    let found = explore("forgotten certificates", group, &VIOLATIONS[..1]);
    assert!(found.contains(&VIOLATIONS[0]), "{found:?}");
}

//! A replica that has been left behind fetches the state, whatever some of its donors do. [CL02 §6.2.2]

mod common;

use bft_core::io::{Input, Rejection, Timer};
use bft_core::messages::{Message, Operation, Parts, Request, SignedRequest};
use bft_core::tree::parts::Address;
use bft_core::types::*;
use bytes::Bytes;
use common::{Cluster, SESSION};
use std::collections::VecDeque;
use std::time::Duration;

fn replica(i: u32) -> Peer {
    Peer::Replica(ReplicaId(i))
}

/// The first request on a slot of its own, so that each changes another part of the state.
fn on_slot(slot: u16) -> SignedRequest {
    let operation = Operation::Service(Bytes::from_static(b"\x01"));
    let request =
        Request { client: ClientId(0), session: SESSION, slot: Slot(slot), seq: 1, operation };
    Cluster::signed(request)
}

/// `group`, whose last replica has missed much more than a window and hears of it now.
fn left_behind(mut group: Cluster) -> Cluster {
    let last = group.config.size.n() as u32 - 1;
    group.open_session();
    for slot in 0..40 {
        group.ask(0, on_slot(slot));
        group.deliver(|from, to, _| from.0 != last && to.0 != last);
    }
    group.wire.clear();
    group.rejections.clear();
    for i in 0..last {
        group.input(i, Input::Connected { peer: replica(last), entropy: [1; 32] });
        group.input(last, Input::Connected { peer: replica(i), entropy: [1; 32] });
    }
    group
}

fn pass(group: &mut Cluster, span: Duration) {
    group.now.tick = group.now.tick.after(span);
    group.now.wall.0 += span.as_nanos() as u64;
}

/// How long r3 takes to fetch the state, where the network takes no time and r0 does nothing but answer each FETCH after the
/// first so `late`, with what `donate` makes of an honest answer.
fn transfer_time(late: Duration, donate: impl Fn(&mut Parts)) -> Duration {
    let mut group = left_behind(Cluster::new(4, 1));
    let (began, reached) = (group.now.tick, group.executed()[0]);
    let mut due: VecDeque<(Tick, Message)> = VecDeque::new();
    for step in 1..10_000 {
        let mut answers = Vec::new();
        group.deliver(|from, to, m| match m {
            Message::Parts(m) if (from.0, to.0) == (0, 3) => {
                let is_first = m.parts[0].0 == Address::ROOT;
                if !is_first {
                    answers.push(m.clone());
                }
                is_first
            }
            _ => (from.0, to.0) != (0, 3),
        });
        for mut m in answers {
            donate(&mut m);
            due.push_back((group.now.tick.after(late), Message::Parts(m)));
        }
        if group.executed()[3] + group.config.window >= reached {
            return group.now.tick.since(began);
        }
        pass(&mut group, Duration::from_millis(10));
        group.input(3, Input::Timeout(Timer::Transfer));
        if step % 10 == 0 {
            (0..4).for_each(|i| group.input(i, Input::Timeout(Timer::Status)));
        }
        while due.front().is_some_and(|(at, _)| *at <= group.now.tick) {
            let (_, answer) = due.pop_front().expect("there is one");
            group.give(replica(0), 3, answer);
        }
    }
    panic!("r3 never catches up");
}

/// A donor that sends one part of those asked for, and that just before it would be given up, holds up the others for a moment.
#[test]
fn a_donor_that_drips_keeps_nobody_from_catching_up() {
    let honest = transfer_time(Duration::ZERO, |_| {});
    let drips = transfer_time(Duration::from_millis(450), |m| m.parts.truncate(1));
    assert!(drips < honest + Duration::from_millis(500), "{drips:?} instead of {honest:?}");
}

/// Nor does one that sends all of it, and always late.
#[test]
fn a_slow_donor_keeps_nobody_from_catching_up() {
    let honest = transfer_time(Duration::ZERO, |_| {});
    let slow = transfer_time(Duration::from_millis(450), |_| {});
    assert!(slow < honest + Duration::from_millis(500), "{slow:?} instead of {honest:?}");
}

/// What does not lead to the signed digest spends the rate at which a replica fetches once, however often it is sent.
#[test]
fn a_donor_spends_the_rate_only_on_what_it_was_asked_for() {
    let mut group = left_behind(Cluster::new(4, 1));
    let mut answer = None;
    group.deliver(|from, to, m| {
        match m {
            Message::Parts(m) if to.0 == 3 && m.parts.len() > 1 && answer.is_none() => {
                answer = Some((from, m.clone()));
            }
            _ => {}
        }
        answer.is_none()
    });
    let (from, mut m) = answer.expect("somebody sends parts");
    m.parts[0].1 = m.parts[1].1.clone();
    let fetched = |group: &Cluster| group.replicas[3].health(0).transfer.map(|t| t.bytes);
    group.give(Peer::Replica(from), 3, Message::Parts(m.clone()));
    let once = fetched(&group);
    group.give(Peer::Replica(from), 3, Message::Parts(m));
    assert_eq!(fetched(&group), once);
    let refused = [Rejection::WrongPart, Rejection::Duplicate].map(|why| (ReplicaId(3), why));
    assert!(group.rejections.ends_with(&refused), "{:?}", group.rejections);
}

//! What a call costs here, with a group that answers at once.

use super::*;
use crate::nfs::handle::Named;
use crate::nfs::xdr::Writer;
use bfs_fs::op::{Attributes, FsOp, Inode, Kind, Timestamp};
use std::sync::atomic::{AtomicU64, Ordering};

/// A group that knows one answer.
struct Trivial(Attributes);

impl Backend for Trivial {
    fn call(&self, request: FsRequest, done: Box<dyn FnOnce(FsResult) + Send>) {
        assert!(matches!(request.op, FsOp::GetAttributes { .. }));
        done(Ok(FsReply::Attributes(self.0)));
    }

    fn fail_all(&self) {}
}

fn attributes() -> Attributes {
    let time = Timestamp { seconds: 1, nanoseconds: 2 };
    Attributes {
        inode: Inode(7),
        generation: 3,
        kind: Kind::File,
        mode: 0o644,
        links: 1,
        uid: 5,
        gid: 6,
        device: 0,
        size: 99,
        blocks: 8,
        accessed: time,
        modified: time,
        changed: time,
        has_xattrs: false,
    }
}

/// GETATTR of `handle` by a user in 16 groups.
fn get_attr(handle: &[u8], xid: u32) -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(1).opaque(b"machine").u32(1000).u32(1000).u32(16);
    (0..16).for_each(|gid| {
        body.u32(gid);
    });
    let mut call = Writer::default();
    call.u32(xid).u32(0).u32(2).u32(100_003).u32(3).u32(1).u32(1).opaque(&body.0);
    call.u32(0).u32(0).opaque(handle);
    call.0
}

/// What this thread has used of a processor. Units: nanoseconds. [proc(5): schedstat]
fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_call_costs_little_and_the_millionth_as_much_as_the_first() {
    const CALLS: u32 = 1_000_000;
    const PARTS: u32 = 10;
    let keys = Keys::new(&[1; 32]);
    let handle = keys.handle(Named::from(&attributes()));
    let front = Arc::new(Front::new(Arc::new(Trivial(attributes())), keys, Vec::new()));
    let sender = Sender { address: IpAddr::from([127, 0, 0, 1]), is_believed: true };
    let answered = Arc::new(AtomicU64::new(0));
    let template = get_attr(&handle, 0);
    let run = |from: u32| {
        for xid in from..from + CALLS / PARTS {
            let mut record = template.clone();
            record[..4].copy_from_slice(&xid.to_be_bytes());
            let Next::Ask(question) = front.read(record.into(), sender) else { panic!() };
            let answered = answered.clone();
            front.ask(question, move |reply| {
                let reply = reply.unwrap();
                assert_eq!((reply.len(), &reply[4..8]), (4 + 24 + 4 + 84, &xid.to_be_bytes()[..]));
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
    };
    // The first calls of a thread touch memory for the first time.
    run(0);
    let parts: Vec<f64> = (0..PARTS)
        .map(|part| {
            let start = processor_time();
            run(part * (CALLS / PARTS));
            (processor_time() - start) as f64 / f64::from(CALLS / PARTS) / 1000.0
        })
        .collect();
    assert_eq!(answered.load(Ordering::Relaxed), u64::from(CALLS + CALLS / PARTS));
    let mean = parts.iter().sum::<f64>() / f64::from(PARTS);
    println!("GETATTR without the group: {mean:.2} µs; by parts of 100,000: {parts:.2?}");
    assert!(mean <= 10.0, "{mean:.2} µs a call");
    let half = PARTS as usize / 2;
    let (early, late) = (&parts[..half], &parts[half..]);
    let least = |parts: &[f64]| parts.iter().copied().fold(f64::MAX, f64::min);
    assert!(least(late) <= least(early) * 1.3, "it grows: {parts:.2?}");
}

/// Notes under which names calls are to be done once.
#[derive(Default)]
struct Names(std::sync::Mutex<Vec<OnceKey>>);

impl Backend for Names {
    fn call(&self, request: FsRequest, done: Box<dyn FnOnce(FsResult) + Send>) {
        let FsOp::Watched(watched) = request.op else { panic!() };
        self.0.lock().unwrap().push(watched.once.unwrap());
        done(Err(FsError::NotFound));
    }

    fn fail_all(&self) {}
}

/// REMOVE of "f". Linux before 5.1 puts the time at which it sends into the stamp, also when it sends again.
fn remove(handle: &[u8], xid: u32, stamp: u32) -> Bytes {
    let mut body = Writer::default();
    body.u32(stamp).opaque(b"machine").u32(1000).u32(1000).u32(0);
    let mut call = Writer::default();
    call.u32(xid).u32(0).u32(2).u32(100_003).u32(3).u32(12).u32(1).opaque(&body.0);
    call.u32(0).u32(0).opaque(handle).opaque(b"f");
    call.0.into()
}

#[test]
fn a_call_that_is_sent_again_a_second_later_is_the_same() {
    let keys = Keys::new(&[1; 32]);
    let handle = keys.handle(Named::from(&attributes()));
    let names = Arc::new(Names::default());
    let front = Arc::new(Front::new(names.clone(), keys, Vec::new()));
    let sender = Sender { address: IpAddr::from([127, 0, 0, 1]), is_believed: true };
    for (xid, stamp) in [(7, 100), (7, 101), (8, 100)] {
        let Next::Ask(question) = front.read(remove(&handle, xid, stamp), sender) else { panic!() };
        front.ask(question, drop);
    }
    let names = names.0.lock().unwrap();
    assert_eq!(names[0], names[1], "the stamp is no part of the call");
    assert_ne!(names[0], names[2]);
}

//! A group and a session with it, and what is asked of them.

use crate::figures::{Latency, latency};
use anyhow::{Context, Result, bail};
use bfs_client::local_group::{LocalGroup, Plan, Programs};
use bfs_client::options::Patience;
use bfs_client::session::{Session, connect};
use bfs_fs::op::{Caller, FsOp, FsRequest, encode_request};
use bytes::Bytes;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use workloads::stop::Stop;

/// An operation that does nothing, by the sizes of its argument and its result. Units: bytes.
#[derive(Clone, Copy)]
pub struct Null {
    pub argument: usize,
    pub result: u32,
    pub read_only: bool,
}

impl Null {
    pub const SMALL: Self = Self { argument: 0, result: 0, read_only: false };
    pub const READ: Self = Self { read_only: true, ..Self::SMALL };

    fn encoded(self) -> Bytes {
        request(FsOp::Null { argument: vec![7; self.argument], result: self.result })
    }
}

/// An operation in the name of root.
pub fn request(op: FsOp) -> Bytes {
    encode_request(&FsRequest { caller: Caller { uid: 0, gid: 0, groups: Vec::new() }, op })
}

pub struct Bed {
    // Before the group: it ends first.
    pub session: Arc<Session>,
    pub group: LocalGroup,
    stop: Stop,
}

impl Bed {
    /// A group of `n` replicas as users run it.
    pub fn new(n: usize, stop: &Stop) -> Result<Self> {
        Self::start(&Plan::new(n, (n - 1) / 3, stop)?, stop)
    }

    /// One whose replicas can be told to attack.
    pub fn lab(n: usize, stop: &Stop) -> Result<Self> {
        let mut plan = Plan::new(n, (n - 1) / 3, stop)?;
        plan.programs = Programs::lab_beside_this()?;
        Self::start(&plan, stop)
    }

    fn start(plan: &Plan, stop: &Stop) -> Result<Self> {
        let group = LocalGroup::start(plan)?;
        let (session, _) = connect(&group.group_file(), &group.key_dir(), Patience::Hard)?;
        let bed = Self { session, group, stop: stop.clone() };
        bed.one_at_a_time(500, Null::SMALL)?;
        Ok(bed)
    }

    /// `operations` of them, one at a time.
    pub fn one_at_a_time(&self, operations: usize, null: Null) -> Result<Latency> {
        let (sender, receiver) = mpsc::channel();
        let op = null.encoded();
        let mut samples = Vec::with_capacity(operations);
        for _ in 0..operations {
            if self.stop.requested() {
                bail!("interrupted");
            }
            let sender = sender.clone();
            let start = Instant::now();
            self.session
                .submit(op.clone(), null.read_only, move |result| drop(sender.send(result)));
            match receiver.recv()? {
                Ok(_) => samples.push(start.elapsed()),
                Err(why) => bail!("a null operation failed: {why}"),
            }
        }
        Ok(latency(samples))
    }

    /// Operations a second with `width` in flight, for `time`.
    pub fn throughput(&self, time: Duration, width: usize, null: Null) -> Result<f64> {
        let op = null.encoded();
        let start = Instant::now();
        let done = self.keep_busy(width, || (start.elapsed() < time).then(|| op.clone()), null)?;
        Ok(done as f64 / start.elapsed().as_secs_f64())
    }

    /// Has `width` of what `next` gives in flight until it gives nothing; says how many were answered.
    pub fn keep_busy(
        &self,
        width: usize,
        mut next: impl FnMut() -> Option<Bytes>,
        null: Null,
    ) -> Result<u64> {
        let (sender, receiver) = mpsc::channel();
        let mut submit = || {
            let Some(op) = next().filter(|_| !self.stop.requested()) else { return false };
            let sender = sender.clone();
            self.session.submit(op, null.read_only, move |result| {
                // Nobody listens only where this run has failed already.
                let _ = sender.send(result.is_ok());
            });
            true
        };
        let mut under_way = (0..width).filter(|_| submit()).count();
        let mut done = 0;
        while under_way > 0 {
            if !receiver.recv_timeout(Duration::from_secs(30)).context("no answer in 30 s")? {
                bail!("an operation failed");
            }
            done += 1;
            under_way -= usize::from(!submit());
        }
        match self.stop.requested() {
            true => bail!("interrupted"),
            false => Ok(done),
        }
    }
}

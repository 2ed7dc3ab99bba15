//! A group and a session with it, and what is asked of them.

use crate::figures::{Latency, latency};
use anyhow::{Context, Result, anyhow, bail};
use bfs_client::local_group::{LocalGroup, Plan, Programs};
use bfs_client::options::Patience;
use bfs_client::session::{Session, connect};
use bfs_fs::op::{Caller, FsOp, FsRequest, encode_request};
use bytes::Bytes;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak, mpsc};
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

/// When a load ends.
#[derive(Clone, Copy)]
pub enum Until {
    Done(usize),
    Over(Duration),
}

/// What a load found.
pub struct Loaded {
    /// Units: operations a second.
    pub rate: f64,
    pub latency: Latency,
}

/// What the lanes of a load have in common. A lane is a chain of answers that ask.
struct Load {
    /// Not kept alive by its own answers.
    session: Weak<Session>,
    op: Bytes,
    read_only: bool,
    end: Option<Instant>,
    left: AtomicI64,
    stop: Stop,
    sender: mpsc::Sender<Result<Vec<Duration>>>,
}

impl Load {
    /// Asks for the next operation of a lane that has taken `samples` so far, or ends the lane.
    fn ask(self: &Arc<Self>, mut samples: Vec<Duration>) {
        let start = Instant::now();
        let over = self.stop.requested() || self.end.is_some_and(|end| start >= end);
        let session = self.session.upgrade().filter(|_| !over);
        let Some(session) = session.filter(|_| self.left.fetch_sub(1, Ordering::Relaxed) > 0)
        else {
            return drop(self.sender.send(Ok(samples)));
        };
        let load = self.clone();
        session.submit(self.op.clone(), self.read_only, move |result| match result {
            Ok(_) => {
                samples.push(start.elapsed());
                load.ask(samples);
            }
            Err(why) => {
                drop(load.sender.send(Err(anyhow!("a null operation failed: {why}"))));
            }
        });
    }
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
        Ok(self.load(1, Until::Done(operations), null)?.latency)
    }

    /// Operations a second with `width` in flight, for `time`.
    pub fn throughput(&self, time: Duration, width: usize, null: Null) -> Result<f64> {
        Ok(self.load(width, Until::Over(time), null)?.rate)
    }

    /// Keeps `width` operations in flight; each asks for the next from where it is answered, as the floor's client does.
    pub fn load(&self, width: usize, until: Until, null: Null) -> Result<Loaded> {
        let (sender, receiver) = mpsc::channel();
        let start = Instant::now();
        let load = Arc::new(Load {
            session: Arc::downgrade(&self.session),
            op: null.encoded(),
            read_only: null.read_only,
            end: match until {
                Until::Over(time) => Some(start + time),
                Until::Done(_) => None,
            },
            left: AtomicI64::new(match until {
                Until::Over(_) => i64::MAX,
                Until::Done(operations) => i64::try_from(operations)?,
            }),
            stop: self.stop.clone(),
            sender,
        });
        (0..width).for_each(|_| load.ask(Vec::new()));
        drop(load);
        let mut samples: Vec<Duration> = Vec::new();
        for _ in 0..width {
            // A lane ends where an operation fails or nothing is left to do.
            let limit = Duration::from_secs(60);
            samples.extend(receiver.recv_timeout(limit).context("no end after 60 s")??);
        }
        if self.stop.requested() || samples.is_empty() {
            bail!("interrupted");
        }
        let rate = samples.len() as f64 / start.elapsed().as_secs_f64();
        Ok(Loaded { rate, latency: latency(samples) })
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

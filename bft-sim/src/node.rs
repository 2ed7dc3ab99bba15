//! A replica's process and its disk, as a world holds them.

use crate::adversary::Adversary;
use crate::cost::Processor;
use crate::crypto::Symbolic;
use crate::patience::Patience;
use bfs_fs::FileSystem;
use bfs_fs::object::Object;
use bft_core::io::{Batch, Destination, Record, Timer};
use bft_core::messages::Message;
use bft_core::replica::{Replica, Snapshot};
use bft_core::types::{Digest, PersistId, ReplicaId, SequenceNumber, Tick, View};
use fastrand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Someone who lies: what it does, and its own entropy.
pub struct Evil {
    /// What it does.
    pub adversary: Box<dyn Adversary>,
    /// Its entropy.
    pub rng: Rng,
}

/// One process that runs as a replica.
pub struct Node {
    /// Whom it speaks for: twins share an id.
    pub id: ReplicaId,
    /// The process, while it runs.
    pub replica: Option<Replica<FileSystem>>,
    /// Its keys.
    pub crypto: Arc<Symbolic>,
    /// What stands between it and the wire.
    pub evil: Option<Evil>,
    /// Whether it counts as faulty: an adversary, a twin, or one that lost its disk.
    pub faulty: bool,
    /// Whether it has ever been an adversary.
    pub lied: bool,
    /// Whether it has lost its disk.
    pub wiped: bool,
    /// How often it has.
    pub losses: u64,
    /// What it has called itself since.
    pub incarnation: u64,
    /// Counts restarts: what an earlier life had under way does not reach a later one.
    pub life: u64,
    /// When each of its timers is due.
    pub timers: BTreeMap<Timer, Tick>,
    /// What survives it.
    pub disk: Disk,
    /// Sends that wait for a record.
    pub held: Vec<(PersistId, Destination, Message)>,
    /// Every batch that it has voted for or been told of, by place and digest.
    pub batches: BTreeMap<(SequenceNumber, Digest), Arc<Batch>>,
    /// Which of them it will execute: the latest that prepared or was decided.
    pub chosen: BTreeMap<SequenceNumber, Digest>,
    /// How far the oracle has followed it.
    pub executed: SequenceNumber,
    /// Its clock.
    pub clock: Clock,
    /// It handles nothing until then.
    pub paused_until: u64,
    /// The view in which it was last seen.
    pub view: View,
    /// How long it may wait.
    pub patience: Patience,
    /// Its processor, where work costs time.
    pub processor: Processor,
}

impl Node {
    /// A replica whose disk holds `snapshot` and nothing else.
    pub fn new(
        id: ReplicaId,
        replica: Replica<FileSystem>,
        crypto: Arc<Symbolic>,
        clock: Clock,
    ) -> Self {
        let disk = Disk::new(replica.stable_snapshot());
        Self {
            id,
            replica: Some(replica),
            crypto,
            evil: None,
            faulty: false,
            lied: false,
            wiped: false,
            losses: 0,
            incarnation: 0,
            life: 0,
            timers: BTreeMap::new(),
            disk,
            held: Vec::new(),
            batches: BTreeMap::new(),
            chosen: BTreeMap::new(),
            executed: SequenceNumber(0),
            clock,
            paused_until: 0,
            view: View(0),
            patience: Patience::default(),
            processor: Processor::default(),
        }
    }

    /// Takes note of a record that says what may execute.
    pub fn note(&mut self, record: &Record) {
        match record {
            Record::Q { n, digest, batch, .. } => {
                self.batches.insert((*n, *digest), batch.clone());
            }
            Record::P { n, digest, .. } => {
                self.chosen.insert(*n, *digest);
            }
            Record::Decided { n, digest, batch } => {
                self.batches.insert((*n, *digest), batch.clone());
                self.chosen.insert(*n, *digest);
            }
            _ => {}
        }
    }

    /// The process is gone, and with it whatever was not durable; `kept` of the records under way made it.
    pub fn crash(&mut self, kept: usize) {
        self.replica = None;
        self.life += 1;
        self.timers.clear();
        self.held.clear();
        self.processor = Processor::default();
        self.disk.crash(kept);
        self.batches.clear();
        self.chosen.clear();
        for record in self.disk.records.clone() {
            self.note(&record);
        }
    }
}

/// A replica's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// How far off it is. Units: nanoseconds.
    pub offset: i64,
    /// How much too fast it runs. Units: thousandths.
    pub drift_permille: i64,
}

/// When every world begins. Units: nanoseconds since 1970.
pub const START: u64 = 1_700_000_000_000_000_000;

impl Clock {
    /// What it shows at virtual time `now`. Units: nanoseconds since 1970; `now` in microseconds.
    pub fn at(&self, now: u64) -> u64 {
        let elapsed = now.saturating_mul(1_000);
        let ahead = (elapsed as i64 / 1_000).saturating_mul(self.drift_permille);
        (START + elapsed).saturating_add_signed(ahead.saturating_add(self.offset))
    }
}

/// A replica's disk: what is written and not yet durable is lost in a crash, but for a prefix.
#[derive(Clone)]
pub struct Disk {
    /// The newest stable checkpoint.
    pub snapshot: Snapshot<Object>,
    /// What was written since, in order.
    pub records: Vec<Record>,
    /// What is being written.
    pending: VecDeque<(PersistId, Record, Option<Snapshot<Object>>)>,
    /// Up to here everything is durable.
    pub durable: PersistId,
}

impl Disk {
    /// A disk that holds `snapshot`.
    pub fn new(snapshot: Snapshot<Object>) -> Self {
        Self { snapshot, records: Vec::new(), pending: VecDeque::new(), durable: PersistId(0) }
    }

    /// Begins to write `record`.
    pub fn write(&mut self, id: PersistId, record: Record, snapshot: Option<Snapshot<Object>>) {
        self.pending.push_back((id, record, snapshot));
    }

    /// Everything up to `id` is durable from now on.
    pub fn sync(&mut self, id: PersistId) {
        while self.pending.front().is_some_and(|(written, ..)| *written <= id) {
            self.complete_one();
        }
        self.durable = self.durable.max(id);
    }

    /// Once a Stable record is durable, what it covers may go; of two that say how far votes went, the older.
    fn complete_one(&mut self) {
        let Some((_, record, snapshot)) = self.pending.pop_front() else { return };
        if let Some(snapshot) = snapshot {
            let n = snapshot.n;
            self.snapshot = snapshot;
            self.records.retain(|record| match record {
                Record::Q { n: of, .. }
                | Record::P { n: of, .. }
                | Record::Decided { n: of, .. } => *of > n,
                Record::Stable { .. } => false,
                _ => true,
            });
        }
        self.records.push(record);
    }

    /// Power is lost, after `kept` of the records under way were written. Ids start over with the next life.
    fn crash(&mut self, kept: usize) {
        for _ in 0..kept {
            self.complete_one();
        }
        self.pending.clear();
        self.durable = PersistId(0);
    }

    /// How many records are being written.
    pub fn under_way(&self) -> usize {
        self.pending.len()
    }
}

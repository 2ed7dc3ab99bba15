//! The driver: does what the pure replica's outputs say, in order, on one thread.
//!
//! This version has no disk: every record counts as durable at once, and the state survives while a quorum runs.

use crate::wire::Wire;
use bfs_fs::FileSystem;
use bft_core::auth::{Crypto, RealCrypto};
use bft_core::codec;
use bft_core::io::{Destination, Input, Job, JobResult, Output, Rejection, Timer};
use bft_core::messages::Message;
use bft_core::replica::Replica;
use bft_core::types::{Now, Peer, Tick, Time};
use bft_net::hub::{Endpoint, Links};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedSender;

/// One replica on the hub's event loop.
pub struct Driver<W> {
    replica: Replica<FileSystem>,
    wire: W,
    crypto: RealCrypto,
    started: Instant,
    timers: BTreeMap<Timer, Tick>,
    outputs: Vec<Output>,
    /// Whether requests were taken of which nothing has followed yet.
    holding: bool,
    rejections: BTreeMap<(Peer, Rejection), u64>,
    alarms: UnboundedSender<String>,
}

impl<W: Wire> Driver<W> {
    /// Tells `alarms` when the replica has stopped itself.
    pub fn new(
        replica: Replica<FileSystem>,
        wire: W,
        crypto: RealCrypto,
        alarms: UnboundedSender<String>,
    ) -> Self {
        let timers = BTreeMap::from([(Timer::Status, Tick(0))]);
        Self {
            replica,
            wire,
            crypto,
            started: Instant::now(),
            timers,
            outputs: Vec::new(),
            holding: false,
            rejections: BTreeMap::new(),
            alarms,
        }
    }

    /// Logs what was rejected since start.
    pub fn report(&self) {
        for ((from, why), count) in &self.rejections {
            tracing::info!("rejected {count} from {from}: {why}");
        }
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            tick: Tick(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)),
            wall: Time(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    /// Lets the replica `act`, and does what it then says.
    fn drive(
        &mut self,
        links: &mut Links,
        act: impl FnOnce(&mut Replica<FileSystem>, Now, &mut Vec<Output>),
    ) {
        let (now, mut outputs) = (self.now(), std::mem::take(&mut self.outputs));
        act(&mut self.replica, now, &mut outputs);
        self.perform(&mut outputs, links);
        self.outputs = outputs;
    }

    fn input(&mut self, input: Input, links: &mut Links) {
        self.drive(links, |replica, now, outputs| replica.handle(now, input, outputs));
    }

    /// Does what `outputs` say, and what follows from doing it, until nothing is left.
    fn perform(&mut self, outputs: &mut Vec<Output>, links: &mut Links) {
        while !outputs.is_empty() {
            let mut follow_ups = Vec::new();
            let mut durable = None;
            for output in outputs.drain(..) {
                match output {
                    Output::Persist { id, .. } => durable = Some(id),
                    Output::Send { to, message, .. } => self.send(to, &message, links),
                    Output::SetTimer { timer, at } => drop(self.timers.insert(timer, at)),
                    Output::CancelTimer(timer) => drop(self.timers.remove(&timer)),
                    Output::Job(Job::SignCheckpoint { n, digest, signed }) => {
                        let signature = self.crypto.sign(&signed);
                        follow_ups.push(Input::JobDone(JobResult::CheckpointSigned {
                            n,
                            digest,
                            signature,
                        }));
                    }
                    Output::Rejected { from, why } => self.count(from, why),
                    Output::Client { client, link: Some(link) } => {
                        tracing::info!("{client:?} is a client from now on");
                        links.admit(client, link);
                    }
                    Output::Client { client, link: None } => {
                        tracing::info!("{client:?} is revoked");
                        links.dismiss(client);
                    }
                    Output::Alarm(alarm) => {
                        tracing::error!("ALARM: {alarm}; evidence: {alarm:?}");
                        // Nobody listens only while the process ends anyway.
                        let _ = self.alarms.send(alarm.to_string());
                    }
                }
            }
            follow_ups.extend(durable.map(Input::Persisted));
            for input in follow_ups {
                self.replica.handle(self.now(), input, outputs);
            }
        }
    }

    fn send(&mut self, to: Destination, message: &Message, links: &mut Links) {
        if self.wire.carries(to, message, links) {
            return;
        }
        match to {
            Destination::Replica(i) => {
                links.send_with(Peer::Replica(i), |frame| codec::encode(message, frame));
            }
            Destination::Client(c) => {
                links.send_with(Peer::Client(c), |frame| codec::encode(message, frame));
            }
            Destination::Replicas => {
                let others = self.replica.others().map(Peer::Replica);
                links.broadcast(others, |frame| codec::encode(message, frame));
            }
        }
    }

    /// Hands every client another MAC key.
    pub fn refresh_keys(&mut self, links: &mut Links) {
        self.input(Input::RefreshKeys { entropy: entropy() }, links);
    }

    fn count(&mut self, from: Peer, why: Rejection) {
        let count = self.rejections.entry((from, why)).or_default();
        *count += 1;
        if count.is_power_of_two() {
            tracing::debug!("rejected {count} from {from}: {why}");
        }
    }
}

fn entropy() -> [u8; 32] {
    let mut entropy = [0; 32];
    // Without entropy from the operating system no key is safe.
    getrandom::fill(&mut entropy).expect("the operating system gives random numbers");
    entropy
}

impl<W: Wire> Endpoint for Driver<W> {
    fn on_frame(&mut self, from: Peer, frame: &[u8], links: &mut Links) {
        let decoded = codec::decode(frame);
        if decoded.as_ref().is_ok_and(|message| !self.wire.lets_in(from, message, links)) {
            return;
        }
        let verified = decoded.and_then(|message| self.replica.verify(from, message));
        match verified {
            // Requests that arrive in the same turn are ordered together, at its end.
            Ok(message) if matches!(message.message(), Message::Request(_)) => {
                self.holding = true;
                let request = Input::Message(message);
                self.drive(links, |replica, now, outputs| replica.take(now, request, outputs));
            }
            Ok(message) => self.input(Input::Message(message), links),
            Err(why) => {
                self.drive(links, |replica, _, outputs| replica.reject(from, why, outputs));
            }
        }
    }

    fn is_holding(&self) -> bool {
        self.holding
    }

    fn before_write(&mut self, links: &mut Links) {
        if std::mem::take(&mut self.holding) {
            self.drive(links, |replica, now, outputs| replica.conclude(now, outputs));
        }
    }

    fn on_link(&mut self, peer: Peer, up: bool, links: &mut Links) {
        tracing::debug!("link to {peer} {}", if up { "up" } else { "down" });
        if up {
            self.input(Input::Connected { peer, entropy: entropy() }, links);
        }
    }

    fn on_deadline(&mut self, links: &mut Links) {
        self.wire.on_deadline(links);
        let now = self.now().tick;
        let due = self.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| *timer);
        for timer in due.collect::<Vec<_>>() {
            self.timers.remove(&timer);
            self.input(Input::Timeout(timer), links);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let next = self.timers.values().min();
        let own = next.map(|next| self.started + Duration::from_micros(next.0));
        own.into_iter().chain(self.wire.deadline()).min()
    }

    fn may_read(&self, peer: Peer) -> bool {
        self.replica.credits(peer) > 0
    }
}

//! What work costs in virtual time, so that throughput under attack follows from the seed.
//!
//! The figures are in proportion to what one core needs for the cryptography in use (HMAC-SHA-256 over a digest, Ed25519,
//! BLAKE3), a few times slower than a server's, so that a short run meets every limit. A replica has one core; what arrives while it works waits in a queue of its sender, and the queues take turns.

use crate::crypto::Counts;
use crate::network::Address;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Nanoseconds for each kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Costs {
    /// Making or checking one MAC.
    pub mac: u64,
    /// Making a signature.
    pub signature: u64,
    /// Checking a signature.
    pub verification: u64,
    /// Receiving a message: reading, opening the record, decoding, handling.
    pub received: u64,
    /// Sending a message: encoding, sealing the record, writing.
    pub sent: u64,
    /// For every 16 bytes received: digests and decryption.
    pub sixteen_bytes: u64,
    /// Executing one operation.
    pub operation: u64,
}

impl Costs {
    /// The figures used for P7.
    pub const STANDARD: Costs = Costs {
        mac: 1_600,
        signature: 70_000,
        verification: 180_000,
        received: 6_000,
        sent: 6_000,
        sixteen_bytes: 48,
        operation: 12_000,
    };

    /// What handling `bytes` of input costs that asked for `counts`, sent `sent` messages and executed `operations`.
    pub fn of(&self, bytes: usize, counts: Counts, sent: usize, operations: usize) -> u64 {
        self.received
            + self.sixteen_bytes * bytes as u64 / 16
            + self.mac * counts.macs
            + self.signature * counts.signatures
            + self.verification * counts.verifications
            + self.sent * sent as u64
            + self.operation * operations as u64
    }
}

/// A replica's one core, and what waits for it.
#[derive(Default)]
pub struct Processor {
    queues: BTreeMap<Address, VecDeque<Arc<Vec<u8>>>>,
    /// Whose turn it is: everyone with something in its queue, once.
    turns: VecDeque<Address>,
    /// Until when it works. Units: nanoseconds of virtual time.
    pub busy_until: u64,
    /// Whether an event is scheduled that takes the next message.
    pub scheduled: bool,
    /// Work done. Units: nanoseconds.
    pub worked: u64,
}

/// How many messages of one sender wait before its link is read no more; a sender that goes on talks to itself.
const MAX_QUEUE: usize = 1_024;

impl Processor {
    /// `bytes` of `from` wait for their turn.
    pub fn push(&mut self, from: Address, bytes: Arc<Vec<u8>>) {
        let queue = self.queues.entry(from).or_default();
        if queue.len() >= MAX_QUEUE {
            return;
        }
        if queue.is_empty() {
            self.turns.push_back(from);
        }
        queue.push_back(bytes);
    }

    /// The next message: senders take turns.
    pub fn pop(&mut self) -> Option<(Address, Arc<Vec<u8>>)> {
        let from = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&from)?;
        let bytes = queue.pop_front()?;
        if !queue.is_empty() {
            self.turns.push_back(from);
        }
        Some((from, bytes))
    }

    /// Whether anything waits.
    pub fn has_work(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Spends `nanoseconds` from `now` on.
    pub fn spend(&mut self, now_ns: u64, nanoseconds: u64) {
        self.busy_until = self.busy_until.max(now_ns) + nanoseconds;
        self.worked += nanoseconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_take_turns_and_a_flooder_waits_for_itself() {
        let mut processor = Processor::default();
        for k in 0..2_000u32 {
            processor.push(1, Arc::new(k.to_le_bytes().to_vec()));
        }
        processor.push(2, Arc::new(vec![2]));
        assert_eq!(processor.pop().map(|(from, _)| from), Some(1));
        assert_eq!(processor.pop().map(|(from, _)| from), Some(2));
        let rest = std::iter::from_fn(|| processor.pop()).count();
        assert_eq!(rest, MAX_QUEUE - 1);
    }
}

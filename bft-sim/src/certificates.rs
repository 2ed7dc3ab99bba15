//! What clients were told, counted again by another hand: an answer needs 2f+1 replicas that say the same. (decision 2)

use bft_core::messages::{Message, Outcome, Read, result_digest};
use bft_core::types::{ClusterSize, Digest, ReplicaId, SequenceNumber, View};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// To what a message answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// An ordered request, by its digest.
    Ordered(Digest),
    /// A read, by the number of its attempt.
    Read(u64),
}

/// One replica's word: who, at which place or version, with which result, and in which view where it is tentative.
type Vote = (ReplicaId, SequenceNumber, Digest, Option<View>);

/// What one client has asked and been told.
pub struct Certificates {
    quorum: usize,
    reads: BTreeMap<u64, Bytes>,
    votes: BTreeMap<Question, BTreeSet<Vote>>,
    /// To what the last message answers.
    last: Option<Question>,
}

impl Certificates {
    /// Of a client of a group of `size`.
    pub fn new(size: ClusterSize) -> Self {
        // Not the core's own arithmetic: that is under test too.
        let quorum = (size.n() + size.f() + 1).div_ceil(2);
        Self { quorum, reads: BTreeMap::new(), votes: BTreeMap::new(), last: None }
    }

    /// The client sends `m`.
    ///
    /// Errors: I-6, where the number names another read too.
    pub fn on_read(&mut self, m: &Read) -> Result<(), String> {
        let first = self.reads.entry(m.attempt).or_insert_with(|| m.op.clone());
        if *first == m.op {
            return Ok(());
        }
        Err(format!("I-6: two reads have the attempt number {}", m.attempt))
    }

    /// `from` tells the client `message`.
    pub fn note(&mut self, from: ReplicaId, message: &Message) {
        let (question, vote) = match message {
            Message::Reply(m) => {
                let Outcome::Result(body) = &m.outcome else { return };
                let tentative = m.tentative.then_some(m.view);
                (Question::Ordered(m.request), (from, m.n, body.digest(), tentative))
            }
            Message::ReadReply(m) => {
                let Some(body) = &m.result else { return };
                (Question::Read(m.attempt), (from, m.version, body.digest(), None))
            }
            _ => return,
        };
        self.votes.entry(question).or_default().insert(vote);
        self.last = Some(question);
    }

    /// The last message made the client accept `result`.
    ///
    /// Errors: I-6, where no quorum says so.
    pub fn check(&mut self, result: &[u8]) -> Result<(), String> {
        let question = self.last.take();
        let votes = question.and_then(|question| self.votes.remove(&question)).unwrap_or_default();
        let digest = result_digest(result);
        let same: Vec<_> = votes.iter().filter(|(_, _, voted, _)| *voted == digest).collect();
        // Tentative ones count together where their view is the same; with committed ones always.
        let supports = |n: SequenceNumber, view: Option<View>| {
            let fits = |vote: &&&Vote| vote.1 == n && (vote.3.is_none() || vote.3 == view);
            same.iter().filter(fits).map(|vote| vote.0).collect::<BTreeSet<_>>().len()
        };
        let most = same.iter().map(|(_, n, _, view)| supports(*n, *view)).max().unwrap_or(0);
        if most >= self.quorum {
            return Ok(());
        }
        Err(format!("I-6: accepted on the word of {most} replicas: {question:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bft_core::messages::{Reply, ResultBody, SessionId};
    use bft_core::types::Slot;

    fn reply(n: u64, view: u64, tentative: bool) -> Message {
        Message::Reply(Reply {
            view: View(view),
            session: SessionId::default(),
            slot: Slot(0),
            seq: 1,
            request: Digest::default(),
            n: SequenceNumber(n),
            tentative,
            sign: false,
            outcome: Outcome::Result(ResultBody::Whole(Bytes::from_static(b"yes"))),
        })
    }

    fn accepted(told: &[Message]) -> bool {
        let mut certificates = Certificates::new(ClusterSize::new(4, 1).expect("a group"));
        for (i, message) in told.iter().enumerate() {
            certificates.note(ReplicaId(i as u32), message);
        }
        certificates.check(b"yes").is_ok()
    }

    #[test]
    fn a_quorum_must_say_the_same() {
        assert!(accepted(&[reply(1, 0, false), reply(1, 5, false), reply(1, 2, true)]));
        assert!(!accepted(&[reply(1, 0, false), reply(1, 0, false)]), "two of four");
        assert!(!accepted(&[reply(1, 0, false), reply(1, 0, false), reply(2, 0, false)]));
        let two_views = [reply(1, 0, true), reply(1, 1, true), reply(1, 1, false)];
        assert!(!accepted(&two_views), "tentative replies of two views");
    }
}

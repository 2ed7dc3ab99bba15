//! A replica that answers reads with what was true before: as a lagging one would, but at will.

use super::{Adversary, Context};
use bfs_fs::op::{FsOp, decode_request};
use bft_core::messages::{Message, ReadReply};
use bft_core::types::{ClientId, Peer, SequenceNumber};
use std::collections::VecDeque;

/// How many questions it remembers.
const MAX_KNOWN: usize = 256;

/// B-47, with the patience to collude with whoever lags: answers a read with the answer before the last.
#[derive(Default)]
pub struct StaleReads {
    /// What each read under way asks.
    asked: VecDeque<(ClientId, u64, FsOp)>,
    /// The last answers to each question, oldest first.
    answers: VecDeque<(FsOp, Vec<(SequenceNumber, ReadReply)>)>,
}

impl StaleReads {
    /// The answer before this one, if it was another.
    fn older(&mut self, op: FsOp, m: &ReadReply) -> Option<ReadReply> {
        let place = self.answers.iter().position(|(known, _)| *known == op);
        let Some((_, given)) = place.and_then(|place| self.answers.get_mut(place)) else {
            self.answers.push_back((op, vec![(m.version, m.clone())]));
            if self.answers.len() > MAX_KNOWN {
                self.answers.pop_front();
            }
            return None;
        };
        if given.last().is_some_and(|(version, _)| *version < m.version) {
            given.push((m.version, m.clone()));
        }
        let place = given.len().checked_sub(2)?;
        given.get(place).map(|(_, old)| old.clone())
    }
}

impl Adversary for StaleReads {
    fn on_receive(&mut self, _: &mut Context<'_>, from: Peer, message: &Message) -> bool {
        if let (Peer::Client(client), Message::Read(m)) = (from, message)
            && let Some(request) = decode_request(&m.op)
        {
            self.asked.push_back((client, m.attempt, request.op));
            if self.asked.len() > MAX_KNOWN {
                self.asked.pop_front();
            }
        }
        true
    }

    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let (Message::ReadReply(m), Peer::Client(client)) = (&message, to) else {
            return ctx.send(to, message);
        };
        let same =
            |(of, attempt, _): &&(ClientId, u64, FsOp)| (*of, *attempt) == (client, m.attempt);
        let op = self.asked.iter().find(same).map(|(.., op)| op.clone());
        let old = op.and_then(|op| self.older(op, m));
        let told = old.map(|old| ReadReply { attempt: m.attempt, session: m.session, ..old });
        ctx.send(to, told.map_or(message, Message::ReadReply));
    }
}

//! Sessions and their slots: the replicated table by which every request executes exactly once. (decision 5)
//!
//! It lives in the state tree beside the service's objects, so a rollback, a checkpoint or a transfer takes it along.

use crate::io::Rejection;
use crate::messages::{Operation, Outcome, Request, ResultBody, SessionId, result_digest};
use crate::objects::{Objects, StateObject};
use crate::planted::{Planted, planted};
use crate::tree::{Object, ObjectId};
use crate::types::{ClientId, Digest, SequenceNumber, Slot, Time};
use borsh::{BorshDeserialize, BorshSerialize};

/// The largest result that a slot keeps for a retransmission; of a larger one it keeps the digest, and a client that
/// lost it asks again under a new seq. A service must therefore answer more than this only to what may run twice: reads.
pub const MAX_KEPT_RESULT: usize = 8 * 1024;

/// What the replicated state knows of one client.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Session {
    /// The newest session. Its epoch is the highest that the client's key ever used, and is kept for ever.
    pub id: SessionId,
    /// The batch that created it.
    pub n: SequenceNumber,
}

/// What the replicated state knows of one slot.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SlotRecord {
    /// The session that used the slot; a later session finds it empty.
    pub session: SessionId,
    /// The seq of the last request executed.
    pub seq: u64,
    /// The digest of that request.
    pub request: Digest,
    /// The batch that executed it.
    pub n: SequenceNumber,
    /// What the client was told.
    pub outcome: Outcome,
}

/// How a request stands against the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the next of its slot.
    Next,
    /// It comes right after one that has not executed here yet, but may have elsewhere.
    Later,
    /// It has executed in this batch, with this outcome.
    Executed(SequenceNumber, Outcome),
    /// Its session is not the client's newest; if it is older, it has ended.
    Ended,
    /// It can never execute.
    Refused(Rejection),
}

const SESSION: u8 = 0;
const SLOT: u8 = 1;
const CLOCK: u8 = 2;

fn session_id(client: ClientId) -> ObjectId {
    ObjectId::new(SESSION, u64::from(client.0), 0)
}

fn slot_id(client: ClientId, slot: Slot) -> ObjectId {
    ObjectId::new(SLOT, u64::from(client.0), u64::from(slot.0))
}

impl<O: Object> Objects<O> {
    /// The newest session of `client`.
    pub fn session(&self, client: ClientId) -> Option<&Session> {
        match self.tree.get(session_id(client))? {
            (StateObject::Session(session), _) => Some(session),
            _ => None,
        }
    }

    fn slot(&self, client: ClientId, slot: Slot) -> Option<&SlotRecord> {
        match self.tree.get(slot_id(client, slot))? {
            (StateObject::Slot(record), _) => Some(record),
            _ => None,
        }
    }

    /// Agreed time as of the last batch. (decision 7)
    pub fn clock(&self) -> Time {
        match self.tree.get(ObjectId::new(CLOCK, 0, 0)) {
            Some((StateObject::Clock(time), _)) => *time,
            _ => Time(0),
        }
    }

    pub(crate) fn set_clock(&mut self, time: Time) {
        self.core_insert(ObjectId::new(CLOCK, 0, 0), StateObject::Clock(time));
    }

    /// How `request` stands. A pure function of the state, so every replica that executes it decides alike.
    pub fn standing(&self, request: &Request, digest: Digest, slots: u16) -> Standing {
        if request.session.epoch == SessionId::REVOKED.epoch {
            return Standing::Refused(Rejection::UnknownSession);
        }
        let session = self.session(request.client);
        if request.operation == Operation::CreateSession {
            return match session {
                _ if request.slot != Slot(0) || request.seq != 0 => {
                    Standing::Refused(Rejection::Malformed)
                }
                Some(session) if session.id == request.session => {
                    Standing::Executed(session.n, Outcome::SessionCreated { slots })
                }
                None | Some(Session { id: SessionId::REVOKED, .. })
                    if !self.is_registered(request.client) =>
                {
                    Standing::Refused(Rejection::UnknownClient)
                }
                _ => Standing::Next,
            };
        }
        match session {
            Some(session) if session.id == request.session => {}
            Some(session) if request.session.epoch < session.id.epoch => return Standing::Ended,
            _ => return Standing::Refused(Rejection::UnknownSession),
        }
        if request.slot.0 >= slots {
            return Standing::Refused(Rejection::NoSuchSlot);
        }
        let record = self.slot(request.client, request.slot);
        let record = record.filter(|record| record.session == request.session);
        let last = record.map_or(0, |record| record.seq);
        match record {
            _ if request.seq > last => match request.seq - last {
                1 => Standing::Next,
                2 => Standing::Later,
                _ => Standing::Refused(Rejection::SequenceGap),
            },
            Some(record) if record.seq == request.seq && record.request == digest => {
                Standing::Executed(record.n, record.outcome.clone())
            }
            Some(record) if record.seq == request.seq => Standing::Refused(Rejection::SlotConflict),
            _ => Standing::Refused(Rejection::OldRequest),
        }
    }

    /// Begins the session that `request` names, if its epoch is new.
    pub(crate) fn create_session(
        &mut self,
        request: &Request,
        n: SequenceNumber,
        slots: u16,
    ) -> Outcome {
        let epoch = self.session(request.client).map_or(0, |session| session.id.epoch);
        if request.session.epoch <= epoch && !planted(Planted::SessionReplayed) {
            return Outcome::SessionRefused { epoch };
        }
        let session = Session { id: request.session, n };
        self.set_session(request.client, session);
        Outcome::SessionCreated { slots }
    }

    /// Puts `session` in place of the client's older one.
    pub(crate) fn set_session(&mut self, client: ClientId, session: Session) {
        self.core_insert(session_id(client), StateObject::Session(session));
    }

    /// Takes out what `client` was told last.
    pub(crate) fn forget_slots_of(&mut self, client: ClientId, slots: u16) {
        for slot in 0..slots {
            self.tree.remove(slot_id(client, Slot(slot)));
        }
    }

    /// Loses the slot table, as a system would that keeps it outside its state. For `planted.rs` alone.
    pub(crate) fn forget_slots(&mut self) {
        let last = ObjectId::new(SLOT, ObjectId::MAX_MAJOR, u64::MAX);
        let all = self.tree.range(ObjectId::new(SLOT, 0, 0), last);
        for id in all.map(|(id, ..)| id).collect::<alloc::vec::Vec<_>>() {
            self.tree.remove(id);
        }
    }

    /// Records that `request` has executed in batch `n` with `outcome`.
    pub(crate) fn record(
        &mut self,
        request: &Request,
        digest: Digest,
        n: SequenceNumber,
        outcome: &Outcome,
    ) {
        let outcome = match outcome {
            Outcome::Result(ResultBody::Whole(result)) if result.len() > MAX_KEPT_RESULT => {
                Outcome::Result(ResultBody::Digest(result_digest(result)))
            }
            kept => kept.clone(),
        };
        let record =
            SlotRecord { session: request.session, seq: request.seq, request: digest, n, outcome };
        self.core_insert(slot_id(request.client, request.slot), StateObject::Slot(record));
    }
}

//! What has been reached, seen from outside: marks follow from messages and outputs, never from the core's inside.

use super::World;
use crate::marks::Mark;
use bft_core::io::{Output, Record, Rejection};
use bft_core::messages::{
    BatchEntry, Message, NewView, Outcome, ResultBody, Status, ViewChange, null_request,
};
use bft_core::types::{SequenceNumber, View};
use std::collections::BTreeMap;

/// What was last seen of each replica and client.
#[derive(Default)]
pub(super) struct Watch {
    /// The view whose beginning each replica waits for.
    changing: BTreeMap<usize, View>,
    /// The batch that has executed tentatively at each.
    tentative: BTreeMap<usize, SequenceNumber>,
    transfers: BTreeMap<usize, u64>,
    /// Correct replicas' views when the quorum was healed.
    pub at_healing: View,
}

impl Watch {
    /// A replica's memory is gone.
    pub fn forget(&mut self, host: usize) {
        self.changing.remove(&host);
        self.tentative.remove(&host);
    }
}

impl World {
    /// Looks at what one input made of the replica at `i`.
    pub(super) fn watch(
        &mut self,
        i: usize,
        outputs: &[Output],
        tentative: Option<SequenceNumber>,
        executed: SequenceNumber,
        asked: bool,
    ) {
        if self.nodes[i].evil.is_some() {
            return;
        }
        let before = match tentative {
            Some(n) => self.watch.tentative.insert(i, n),
            None => self.watch.tentative.remove(&i),
        };
        let undone = before.is_some_and(|n| tentative != Some(n) && executed < n);
        self.report.marks.hit_if(undone, Mark::TentativeRollback);
        let old = |output: &Output| matches!(output, Output::Send { message: Message::Reply(m), .. } if m.n <= executed);
        let again = asked && outputs.iter().any(old);
        self.report.marks.hit_if(again, Mark::AnsweredFromTable);
        for output in outputs {
            match output {
                Output::Send { message, .. } => self.watch_send(i, message),
                Output::Persist { record, .. } => self.watch_record(i, record),
                Output::Rejected { why, .. } => self.watch_rejection(*why),
                _ => {}
            }
        }
    }

    fn watch_send(&mut self, i: usize, message: &Message) {
        let marks = &mut self.report.marks;
        match message {
            Message::ViewChange(m) if m.replica == self.nodes[i].id => self.watch_view_change(i, m),
            Message::Status(m) => self.watch_status(m),
            Message::Suspect(_) => marks.hit(Mark::Suspected),
            Message::PrePrepare(m) => {
                marks.hit_if(m.batch.len() > 1, Mark::BatchOfMany);
                marks.hit_if(m.batch.is_empty(), Mark::EmptyBatch);
                let by_digest = |entry: &BatchEntry| matches!(entry, BatchEntry::Reference { .. });
                marks.hit_if(m.batch.iter().any(by_digest), Mark::ReferencedRequest);
            }
            Message::Reply(m) => {
                marks.hit_if(m.tentative, Mark::TentativeReply);
                let by_digest = matches!(m.outcome, Outcome::Result(ResultBody::Digest(_)));
                marks.hit_if(by_digest, Mark::DigestReply);
            }
            _ => {}
        }
    }

    fn watch_view_change(&mut self, i: usize, m: &ViewChange) {
        let before = self.watch.changing.insert(i, m.view);
        let marks = &mut self.report.marks;
        marks.hit_if(before.is_some_and(|v| v < m.view), Mark::ViewChangeDuringViewChange);
        marks.hit_if(!m.unauthenticated.is_empty(), Mark::ViewChangeNamesClient);
        marks.hit_if(!m.certificate.is_empty(), Mark::ViewChangeWithCheckpoint);
    }

    fn watch_status(&mut self, m: &Status) {
        let marks = &mut self.report.marks;
        marks.hit_if(!m.missing.is_empty(), Mark::BodyFetched);
        marks.hit_if(!m.missing_batches.is_empty(), Mark::BatchFetched);
        marks.hit_if(!m.missing_view_changes.is_empty(), Mark::ViewChangeFetched);
    }

    fn watch_record(&mut self, i: usize, record: &Record) {
        match record {
            Record::NewView { new_view, .. } => self.watch_new_view(i, new_view),
            Record::Decided { .. } => self.report.marks.hit(Mark::Decided),
            Record::Stable { .. } => self.report.marks.hit(Mark::StableCheckpoint),
            _ => {}
        }
    }

    fn watch_new_view(&mut self, i: usize, m: &NewView) {
        self.watch.changing.remove(&i);
        self.report.view_changes += 1;
        self.report.highest_view = self.report.highest_view.max(m.view.0);
        let executed = self.nodes[i].executed;
        let marks = &mut self.report.marks;
        marks.hit(Mark::NewViewEntered);
        marks.hit_if(m.view.0 >= 3, Mark::HighView);
        marks.hit_if(m.batches.is_empty(), Mark::EmptyNewView);
        marks.hit_if(m.batches.contains(&null_request()), Mark::NullRequest);
        let carried = m.batches.iter().any(|digest| *digest != null_request());
        marks.hit_if(carried, Mark::BatchReproposed);
        marks.hit_if(carried && m.stable < executed, Mark::CommittedReproposed);
        marks.hit_if(m.view_changes.len() > self.size.quorum(), Mark::LargeNewViewSet);
        self.nodes[i].view = self.nodes[i].view.max(m.view);
        if self.healed.is_some() && !self.nodes[i].faulty {
            self.check_views(i, m.view, self.watch.at_healing);
        }
    }

    pub(super) fn watch_rejection(&mut self, why: Rejection) {
        let mark = match why {
            Rejection::OutsideWaterMarks => Mark::WaterMarkHit,
            Rejection::ConflictingVote | Rejection::SignedTwice => Mark::ConflictingVote,
            Rejection::ConflictingPrePrepare => Mark::ConflictingPrePrepare,
            Rejection::WrongPart => Mark::WrongPart,
            Rejection::BadSignature | Rejection::Unauthenticated => Mark::BadSignature,
            Rejection::WrongView => Mark::WrongView,
            Rejection::TooOften => Mark::AskedTooOften,
            Rejection::SlotConflict => Mark::SlotConflict,
            _ => return,
        };
        self.report.marks.hit(mark);
    }

    /// The replica at `i` has installed a state that it fetched.
    pub(super) fn watch_transfer(&mut self, i: usize) {
        let transfers = self.watch.transfers.entry(i).or_default();
        *transfers += 1;
        let twice = *transfers > 1;
        let changing = self.watch.changing.contains_key(&i);
        let marks = &mut self.report.marks;
        marks.hit(Mark::Transfer);
        marks.hit_if(twice, Mark::TransferTwice);
        marks.hit_if(changing, Mark::TransferDuringViewChange);
    }

    /// A client is sent an answer.
    pub(super) fn watch_answer(&mut self, message: &Message) {
        if matches!(message, Message::ReadReply(m) if m.result.is_some()) {
            self.report.marks.hit(Mark::FastRead);
        }
    }
}

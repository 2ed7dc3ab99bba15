//! Restart: a replica made again from its stable checkpoint and the records persisted since. (contract 5)

use super::view_change::Named;
use super::{Config, Replica};
use crate::auth::{Authority, Proof};
use crate::io::{Batch, Output, Record};
use crate::log::{NamedBatch, NamedRequest, PrePrepared};
use crate::messages::{Checkpoint, NewView};
use crate::objects::Objects;
use crate::planted::{Planted, planted};
use crate::service::Service;
use crate::types::{Digest, PersistId, SequenceNumber, Tick, View};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// The replicated state at a checkpoint.
#[derive(Clone)]
pub struct Snapshot<O> {
    /// The last batch that the state contains.
    pub n: SequenceNumber,
    /// The state.
    pub objects: Objects<O>,
}

/// Why a replica cannot be made from what was persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverError {
    /// The snapshot is not the state that the newest stable certificate proves.
    WrongSnapshot {
        /// What the certificate proves.
        certified: Digest,
        /// What the snapshot holds.
        found: Digest,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecoverError::WrongSnapshot { certified, found } = self;
        write!(
            f,
            "the snapshot's digest is {}, but the stable certificate proves {}: the snapshot is damaged or of another checkpoint",
            found.short(4),
            certified.short(4)
        )
    }
}

impl core::error::Error for RecoverError {}

/// Everything that a restart must remember, summed up from the records.
#[derive(Default)]
struct Remembered<'a> {
    view: View,
    /// The highest sequence number that this replica may have executed or voted for.
    reached: SequenceNumber,
    stable: Option<&'a Arc<[Checkpoint]>>,
    new_view: Option<(&'a Arc<NewView>, &'a Vec<Named>)>,
    /// The incarnation, and whether it is mute.
    incarnation: Option<(u64, bool)>,
}

impl<'a> Remembered<'a> {
    fn from(records: &'a [Record]) -> Self {
        let mut remembered = Self::default();
        for record in records {
            match record {
                Record::View(view) => remembered.see(*view, SequenceNumber(0)),
                Record::Amnesia { incarnation, over } => {
                    remembered.incarnation = Some((*incarnation, !over));
                }
                Record::NewView { new_view, grounds } => {
                    remembered.see(new_view.view, SequenceNumber(0));
                    remembered.new_view = Some((new_view, grounds));
                }
                Record::Q { view, .. } => remembered.see(*view, SequenceNumber(0)),
                Record::P { view, n, .. } => remembered.see(*view, *n),
                Record::Decided { n, .. } => remembered.see(View(0), *n),
                Record::Ceiling(n) => remembered.see(View(0), *n),
                Record::Stable { certificate } => remembered.stable = Some(certificate),
            }
        }
        remembered
    }

    fn see(&mut self, view: View, n: SequenceNumber) {
        self.view = self.view.max(view);
        self.reached = self.reached.max(n);
    }
}

impl<S: Service> Replica<S> {
    /// The replica that persisted `records`, in that order, after the stable checkpoint `snapshot` was taken.
    ///
    /// Requires: every record that was reported durable is there; `snapshot` is that of the last `Stable` among them, or
    /// the genesis.
    /// Effects: the view and the read gate are the maximum over all records. It votes as it voted, for the entries it
    /// remembers, and answers reads only once it has executed all that it may have executed before.
    /// Errors: `WrongSnapshot`.
    pub fn recover(
        config: Config,
        authority: Authority,
        service: S,
        mut snapshot: Snapshot<S::Object>,
        records: &[Record],
    ) -> Result<Self, RecoverError> {
        let remembered = Remembered::from(records);
        let found = snapshot.objects.digest();
        if let Some(certified) = remembered.stable.and_then(|c| c.first()).map(|c| c.digest)
            && certified != found
        {
            return Err(RecoverError::WrongSnapshot { certified, found });
        }
        if planted(Planted::TableLostAtRestart) {
            snapshot.objects.forget_slots();
        }
        let mut replica = Self::at(config, authority, service, remembered.view, snapshot);
        replica.read_gate = remembered.reached.max(replica.executed);
        let begun = remembered.new_view.filter(|(m, _)| m.view == remembered.view);
        if let Some((_, grounds)) = begun.filter(|_| !planted(Planted::ProofForgotten)) {
            replica.view_changes.grounds = grounds.clone();
        }
        let begun = begun.map(|(m, _)| m.clone());
        replica.view_changes.active = begun.is_some() || remembered.view == View(0);
        replica.proposed =
            begun.as_ref().map_or(replica.executed, |m| m.last().max(replica.executed));
        replica.view_changes.begun = begun;
        if let Some(certificate) = remembered.stable {
            replica.checkpoints.restore_certificate(certificate.clone());
        }
        for record in records {
            replica.remember(record);
        }
        replica.restore_view();
        match remembered.incarnation {
            Some((incarnation, true)) => replica.forget(incarnation),
            Some((incarnation, false)) => replica.incarnation = incarnation,
            None => {}
        }
        Ok(replica)
    }

    /// What a restart found half done goes on.
    pub(super) fn resume(&mut self, out: &mut Vec<Output>) {
        self.update_clients(out);
        let under_way = self.log.numbers().filter(|n| *n > self.executed);
        for n in under_way.collect::<Vec<_>>() {
            self.advance(n, out);
        }
        self.execute_ready(out);
    }

    /// A view that has not begun is asked for again; one that has awaits what it chose and was not voted for.
    fn restore_view(&mut self) {
        if self.is_active() {
            // Nothing is durable that was not voted for, so there is nothing to say yet.
            self.await_chosen();
        } else {
            let own = self.own_view_change(Vec::new());
            self.view_changes.newest.insert(self.config.me, own);
        }
    }

    /// Puts one vote back into the log, and into P or Q.
    fn remember(&mut self, record: &Record) {
        let (durable, most) = (PersistId(0), self.config.size.f() + 2);
        if let Record::Q { n, view, batch, .. } = record
            && let Ok(entry) = self.log.entry(*n)
        {
            entry.history.pre_prepare(&restored(batch), *view, most);
        }
        if let Record::P { n, view, digest } = record
            && let Ok(entry) = self.log.entry(*n)
        {
            entry.history.prepare(*digest, *view);
        }
        match record {
            Record::Q { n, view, digest, batch } if *view == self.view => {
                let (me, is_primary) = (self.config.me, self.is_primary());
                let new_view = self.view_changes.begun.as_ref();
                let vouched = new_view.is_some_and(|m| *n <= m.last());
                self.proposed = self.proposed.max(*n);
                let (view, batch, at) = (*view, restored(batch), Tick(0));
                let restored = PrePrepared { view, batch, at, timely: true, vouched };
                let Ok(entry) = self.log.entry(*n) else { return };
                entry.pre_prepare = Some(restored);
                entry.voted = Some(durable);
                if !is_primary {
                    // Recovered once: the vote cannot be there yet.
                    let _ = entry.prepares.add(me, *digest);
                }
            }
            Record::P { n, view, digest } if *view == self.view => {
                let me = self.config.me;
                let Some(entry) = self.log.get_mut(*n) else { return };
                entry.prepared = Some(durable);
                let _ = entry.commits.add(me, *digest);
            }
            Record::Decided { n, batch, .. } => {
                let Ok(entry) = self.log.entry(*n) else { return };
                entry.committed = Some((restored(batch), durable));
            }
            _ => {}
        }
    }
}

/// The batch of a record, every request vouched for by the vote that the record allowed.
fn restored(batch: &Batch) -> NamedBatch {
    let requests = batch.requests.iter().map(|(digest, body)| NamedRequest {
        digest: *digest,
        client: body.request.client,
        slot: body.request.slot,
        proof: Proof::Mac,
        body: Some(body.clone()),
    });
    NamedBatch::new(batch.time, requests.collect())
}

//! The state as a service sees it: one door, `get` and `get_mut`, over the shared [`Tree`].
//!
//! The core's own objects (sessions and their slots, clients) live in the same tree, under the same digest, with kinds below
//! [`FIRST_SERVICE_KIND`]; a service can neither see nor touch them.

use crate::clients::ClientIdentity;
use crate::sessions::{Session, SlotRecord};
use crate::tree::{Object, ObjectId, Range, Tree};
use crate::types::{ClientId, Digest, SequenceNumber, Time};
use borsh::{BorshDeserialize, BorshSerialize};
use core::cell::Cell;

/// Ids with this kind or a higher one belong to the service.
pub const FIRST_SERVICE_KIND: u8 = 0x80;

/// An object of the whole replicated state.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(crate) enum StateObject<O> {
    Session(Session),
    Slot(SlotRecord),
    Clock(Time),
    Client(ClientIdentity),
    NextClient(ClientId),
    Service(O),
}

/// The replicated state. Cloning it is O(1) and gives an independent copy.
#[derive(Clone)]
pub struct Objects<O> {
    pub(crate) tree: Tree<StateObject<O>>,
    /// The batch being executed: what every change is stamped with.
    pub(crate) version: SequenceNumber,
    /// The highest version among the objects read since `versioned` began.
    pub(crate) newest_read: Cell<SequenceNumber>,
    /// Whether something was missed since then.
    pub(crate) missed: Cell<bool>,
}

impl<O> Default for Objects<O> {
    fn default() -> Self {
        Self {
            tree: Tree::default(),
            version: SequenceNumber(0),
            newest_read: Cell::default(),
            missed: Cell::default(),
        }
    }
}

impl<O: Object> Objects<O> {
    /// The object called `id`.
    ///
    /// Requires: a service kind; any other id is absent.
    pub fn get(&self, id: ObjectId) -> Option<&O> {
        match self.tree.get(id)? {
            (StateObject::Service(object), version) => {
                self.newest_read.set(self.newest_read.get().max(version));
                Some(object)
            }
            _ => None,
        }
    }

    /// The same, where an answer that depends on its absence has nothing else to tell since when: such an answer speaks of now.
    /// (decision 2)
    pub fn get_or_miss(&self, id: ObjectId) -> Option<&O> {
        let found = self.get(id);
        if found.is_none() {
            self.missed.set(true);
        }
        found
    }

    /// The object called `id`, to be changed. Asking counts as changing: it stamps the object with this batch.
    pub fn get_mut(&mut self, id: ObjectId) -> Option<&mut O> {
        self.get(id)?;
        match self.tree.get_mut(id, self.version)? {
            StateObject::Service(object) => Some(object),
            _ => None,
        }
    }

    /// Puts `object` under `id`, in place of what was there.
    ///
    /// Requires: a service kind.
    pub fn insert(&mut self, id: ObjectId, object: O) {
        assert!(id.kind() >= FIRST_SERVICE_KIND, "{id:?} belongs to the core");
        self.tree.insert(id, StateObject::Service(object), self.version);
    }

    /// Takes `id` out; says whether it was there.
    pub fn remove(&mut self, id: ObjectId) -> bool {
        id.kind() >= FIRST_SERVICE_KIND && self.tree.remove(id)
    }

    /// The service's objects from `first` to `last`, both included, ascending.
    pub fn range(&self, first: ObjectId, last: ObjectId) -> impl Iterator<Item = (ObjectId, &O)> {
        self.read_all(self.tree.range(first, last))
    }

    /// The service's objects from `last` down to `first`, both included.
    pub fn range_down(
        &self,
        first: ObjectId,
        last: ObjectId,
    ) -> impl Iterator<Item = (ObjectId, &O)> {
        self.read_all(self.tree.range_down(first, last))
    }

    fn read_all<'a>(
        &'a self,
        range: Range<'a, StateObject<O>>,
    ) -> impl Iterator<Item = (ObjectId, &'a O)> {
        range.filter_map(|(id, object, version)| match object {
            StateObject::Service(object) => {
                self.newest_read.set(self.newest_read.get().max(version));
                Some((id, object))
            }
            _ => None,
        })
    }

    /// The number of objects, the core's included.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// The digest of the whole state. Costs O(objects changed since it was last asked for).
    pub fn digest(&mut self) -> Digest {
        self.tree.digest()
    }

    /// Every change from here on is made by batch `n`.
    pub(crate) fn begin(&mut self, n: SequenceNumber) {
        self.version = n;
    }

    /// What `read` makes of the state, and the version of that: the highest sequence number that changed any object it saw;
    /// where it saw none, or missed one, at least `now`, the batch that this state is of. (decision 2)
    pub fn versioned<R>(
        &self,
        now: SequenceNumber,
        read: impl FnOnce(&Self) -> R,
    ) -> (R, SequenceNumber) {
        self.newest_read.set(SequenceNumber(0));
        self.missed.set(false);
        let result = read(self);
        let version = match self.newest_read.get() {
            newest if self.missed.get() => newest.max(now),
            SequenceNumber(0) => now,
            newest => newest,
        };
        (result, version)
    }

    /// Puts a core object in place.
    pub(crate) fn core_insert(&mut self, id: ObjectId, object: StateObject<O>) {
        self.tree.insert(id, object, self.version);
    }
}

/// A store for a service's own tests: what a replica would hand it at sequence number `n`.
pub fn at_batch<O: Object>(objects: &mut Objects<O>, n: SequenceNumber) -> &mut Objects<O> {
    objects.begin(n);
    objects
}

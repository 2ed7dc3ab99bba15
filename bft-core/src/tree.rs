//! The digest tree: a persistent radix trie over sparse 128-bit ids whose shape depends on its contents alone.
//!
//! Subtrees are shared by reference counts, so a copy of the whole tree costs one increment and a change copies only the
//! path to it. That one property serves the undo of a tentative batch (keep the old root), checkpoints (keep the root)
//! and state transfer (compare digests from the root down). [CL02 §6.2 has a page array and AdHash instead.]
//!
//! An interior node exists exactly where two ids part, so equal contents give equal digests whatever the history.

pub mod parts;

use crate::types::{Digest, Domain, Hasher, SequenceNumber};
use alloc::sync::Arc;
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use core::fmt;
use core::ops::RangeInclusive;

/// The name of an object: what kind it is, whose it is, and which part.
///
/// Ids order by kind, then major, then minor, so the parts of one thing stand together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct ObjectId(u128);

impl ObjectId {
    /// The largest `major`: 56 bits.
    pub const MAX_MAJOR: u64 = (1 << 56) - 1;

    /// Requires: `major <= MAX_MAJOR`; higher bits are dropped.
    pub const fn new(kind: u8, major: u64, minor: u64) -> Self {
        Self((kind as u128) << 120 | ((major & Self::MAX_MAJOR) as u128) << 64 | minor as u128)
    }

    /// Which family of objects this belongs to.
    pub const fn kind(self) -> u8 {
        (self.0 >> 120) as u8
    }

    /// Whose part this is: an inode number, a client.
    pub const fn major(self) -> u64 {
        (self.0 >> 64) as u64 & Self::MAX_MAJOR
    }

    /// Which part of its major this is.
    pub const fn minor(self) -> u64 {
        self.0 as u64
    }

    fn nibble(self, level: u8) -> u8 {
        (self.0 >> (124 - 4 * u32::from(level))) as u8 & 0xf
    }

    /// The id with everything below the first `level` nibbles cleared.
    fn prefix(self, level: u8) -> u128 {
        if level == 0 {
            0
        } else {
            self.0 >> (128 - 4 * u32::from(level)) << (128 - 4 * u32::from(level))
        }
    }

    /// How many leading nibbles `self` shares with `other`: 0 to 32.
    fn shared(self, other: u128) -> u8 {
        ((self.0 ^ other).leading_zeros() / 4) as u8
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{}.{:x}", self.kind(), self.major(), self.minor())
    }
}

/// What the tree can hold: anything with canonical bytes, at most [`MAX_OBJECT`] of them.
pub trait Object: Clone + BorshSerialize + BorshDeserialize {}

impl<T: Clone + BorshSerialize + BorshDeserialize> Object for T {}

/// The most bytes one encoded object may have.
pub const MAX_OBJECT: usize = 64 * 1024;

#[derive(Clone)]
struct Leaf<O> {
    id: ObjectId,
    /// The sequence number of the batch that last changed the object.
    version: SequenceNumber,
    digest: Option<Digest>,
    object: O,
}

#[derive(Clone)]
struct Node<O> {
    /// The nibbles that every id below shares, left aligned.
    prefix: u128,
    /// How many nibbles that is: 0 to 31.
    level: u8,
    digest: Option<Digest>,
    /// At least two, ascending by nibble; `occupied` says which nibbles.
    children: Vec<Child<O>>,
    occupied: u16,
}

enum Child<O> {
    Leaf(Arc<Leaf<O>>),
    Node(Arc<Node<O>>),
}

impl<O> Clone for Child<O> {
    fn clone(&self) -> Self {
        match self {
            Child::Leaf(leaf) => Child::Leaf(leaf.clone()),
            Child::Node(node) => Child::Node(node.clone()),
        }
    }
}

/// A tree of objects. Cloning it is O(1).
pub struct Tree<O> {
    root: Option<Child<O>>,
    len: usize,
}

impl<O> Clone for Tree<O> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<O> Default for Tree<O> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<O> Node<O> {
    /// Where the child for `nibble` stands among the children, and whether there is one.
    fn place(&self, nibble: u8) -> (usize, bool) {
        let bit = 1u16 << nibble;
        ((self.occupied & (bit - 1)).count_ones() as usize, self.occupied & bit != 0)
    }

    /// The children below which there may be ids within `reach`, ascending.
    fn children_within(
        &self,
        reach: RangeInclusive<u128>,
    ) -> impl DoubleEndedIterator<Item = &Child<O>> {
        let shift = 124 - 4 * u32::from(self.level);
        let below = (1u128 << shift) - 1;
        // Which nibbles the ends of the reach allow here; every id below shares the prefix.
        let (low, high) = (*reach.start().max(&self.prefix), *reach.end());
        let last = self.prefix | (0xf << shift) | below;
        let nibble = |id: u128| ObjectId(id).nibble(self.level);
        let (from, to) = (nibble(low), nibble(high.min(last)));
        let empty = low > last || high < self.prefix;
        let range = if empty {
            0..0
        } else {
            self.place(from).0..self.place(to).0 + usize::from(self.place(to).1)
        };
        self.children.get(range).unwrap_or_default().iter()
    }
}

impl<O: Object> Tree<O> {
    /// The number of objects.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The object called `id` and the sequence number that last changed it.
    pub fn get(&self, id: ObjectId) -> Option<(&O, SequenceNumber)> {
        let mut at = self.root.as_ref()?;
        loop {
            match at {
                Child::Leaf(leaf) => {
                    return (leaf.id == id).then_some((&leaf.object, leaf.version));
                }
                Child::Node(node) => {
                    let (place, there) = node.place(id.nibble(node.level));
                    if !there {
                        return None;
                    }
                    at = node.children.get(place)?;
                }
            }
        }
    }

    /// The object called `id`, to be changed by batch `version`.
    ///
    /// Effects: copies whatever of the path is shared with another tree; the digests on the path become stale.
    pub fn get_mut(&mut self, id: ObjectId, version: SequenceNumber) -> Option<&mut O> {
        // A miss must not copy or dirty anything: replicas may ask for different absent ids while answering reads.
        self.get(id)?;
        let mut at = self.root.as_mut()?;
        loop {
            match at {
                Child::Leaf(leaf) => {
                    let leaf = Arc::make_mut(leaf);
                    leaf.version = version;
                    leaf.digest = None;
                    return Some(&mut leaf.object);
                }
                Child::Node(node) => {
                    let node = Arc::make_mut(node);
                    node.digest = None;
                    let (place, _) = node.place(id.nibble(node.level));
                    at = node.children.get_mut(place)?;
                }
            }
        }
    }

    /// Puts `object` under `id` as of batch `version`, in place of what was there.
    pub fn insert(&mut self, id: ObjectId, object: O, version: SequenceNumber) {
        let leaf = Child::Leaf(Arc::new(Leaf { id, version, digest: None, object }));
        match &mut self.root {
            None => {
                self.root = Some(leaf);
                self.len = 1;
            }
            Some(root) => {
                if insert_below(root, id, leaf) {
                    self.len += 1;
                }
            }
        }
    }

    /// Takes `id` out; says whether it was there.
    pub fn remove(&mut self, id: ObjectId) -> bool {
        if self.get(id).is_none() {
            return false;
        }
        self.len -= 1;
        match self.root.take() {
            Some(Child::Node(mut node)) => {
                remove_below(Arc::make_mut(&mut node), id);
                self.root = Some(collapse(node));
            }
            _ => self.root = None,
        }
        true
    }

    /// Every object from `first` to `last`, both included, ascending.
    pub fn range(&self, first: ObjectId, last: ObjectId) -> Range<'_, O> {
        let stack = self.root.iter().collect();
        Range { stack, first, last, descending: false }
    }

    /// Every object from `last` down to `first`, both included.
    pub fn range_down(&self, first: ObjectId, last: ObjectId) -> Range<'_, O> {
        Range { descending: true, ..self.range(first, last) }
    }

    /// The digest of the contents. Costs O(objects changed since it was last asked for).
    pub fn digest(&mut self) -> Digest {
        let mut scratch = Vec::new();
        let root = self.root.as_mut().map(|root| refresh(root, &mut scratch));
        parts::state_digest(root)
    }
}

/// Puts `leaf` below `at`; says whether the id is new there.
fn insert_below<O: Object>(at: &mut Child<O>, id: ObjectId, leaf: Child<O>) -> bool {
    let (parting, level, prefix) = match at {
        Child::Leaf(old) if old.id == id => {
            *at = leaf;
            return false;
        }
        Child::Leaf(old) => (id.shared(old.id.0), 32, old.id.0),
        Child::Node(node) => (id.shared(node.prefix), node.level, node.prefix),
    };
    if let Child::Node(node) = at
        && parting >= level
    {
        let node = Arc::make_mut(node);
        node.digest = None;
        let nibble = id.nibble(level);
        let (place, there) = node.place(nibble);
        if there {
            return match node.children.get_mut(place) {
                Some(child) => insert_below(child, id, leaf),
                None => false,
            };
        }
        node.children.insert(place, leaf);
        node.occupied |= 1 << nibble;
        return true;
    }
    // The id parts from everything below `at`: a new node stands where they part.
    let old_nibble = ObjectId(prefix).nibble(parting);
    let new_nibble = id.nibble(parting);
    let old = at.clone();
    let children =
        if new_nibble < old_nibble { Vec::from([leaf, old]) } else { Vec::from([old, leaf]) };
    *at = Child::Node(Arc::new(Node {
        prefix: id.prefix(parting),
        level: parting,
        digest: None,
        children,
        occupied: 1 << old_nibble | 1 << new_nibble,
    }));
    true
}

/// Requires: `id` is below `node`.
fn remove_below<O: Object>(node: &mut Node<O>, id: ObjectId) {
    node.digest = None;
    let nibble = id.nibble(node.level);
    let (place, _) = node.place(nibble);
    match node.children.get_mut(place) {
        Some(Child::Node(child)) => {
            remove_below(Arc::make_mut(child), id);
            if child.children.len() == 1 {
                let only = collapse(child.clone());
                if let Some(slot) = node.children.get_mut(place) {
                    *slot = only;
                }
            }
        }
        _ => {
            node.children.remove(place);
            node.occupied &= !(1 << nibble);
        }
    }
}

/// A node with one child is that child: the shape must not remember what was removed.
fn collapse<O>(node: Arc<Node<O>>) -> Child<O> {
    match node.children.as_slice() {
        [only] => only.clone(),
        _ => Child::Node(node),
    }
}

/// Brings the digests below `child` up to date and returns its own. `scratch` is room for one encoded object.
fn refresh<O: Object>(child: &mut Child<O>, scratch: &mut Vec<u8>) -> Digest {
    match child {
        Child::Leaf(leaf) => {
            if let Some(digest) = leaf.digest {
                return digest;
            }
            let leaf = Arc::make_mut(leaf);
            let digest = leaf_digest(leaf.id, leaf.version, &leaf.object, scratch);
            leaf.digest = Some(digest);
            digest
        }
        Child::Node(node) => {
            if let Some(digest) = node.digest {
                return digest;
            }
            let node = Arc::make_mut(node);
            let mut hasher = Hasher::new(Domain::Node);
            hasher.value(&node.prefix).value(&node.level).value(&node.occupied);
            for child in &mut node.children {
                hasher.value(&refresh(child, scratch));
            }
            let digest = hasher.finish();
            node.digest = Some(digest);
            digest
        }
    }
}

/// The digest of one object: its name, its version and its canonical bytes.
fn leaf_digest<O: Object>(
    id: ObjectId,
    version: SequenceNumber,
    object: &O,
    scratch: &mut Vec<u8>,
) -> Digest {
    Digest::of_encoded(Domain::Leaf, scratch, |encoded| {
        id.serialize(encoded)?;
        version.serialize(encoded)?;
        object.serialize(encoded)
    })
}

/// Iterates over a range of a [`Tree`].
pub struct Range<'a, O> {
    stack: Vec<&'a Child<O>>,
    first: ObjectId,
    last: ObjectId,
    descending: bool,
}

impl<'a, O> Iterator for Range<'a, O> {
    type Item = (ObjectId, &'a O, SequenceNumber);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.stack.pop()? {
                Child::Leaf(leaf) => {
                    if self.first <= leaf.id && leaf.id <= self.last {
                        return Some((leaf.id, &leaf.object, leaf.version));
                    }
                }
                Child::Node(node) => {
                    let children = node.children_within(self.first.0..=self.last.0);
                    // What is pushed last comes first.
                    match self.descending {
                        true => self.stack.extend(children),
                        false => self.stack.extend(children.rev()),
                    }
                }
            }
        }
    }
}

impl<O> fmt::Debug for Tree<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} objects)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    /// A small generator: the tests need variety, not chance.
    struct Lcg(u64);

    impl Lcg {
        fn next(&mut self, below: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) % below
        }
    }

    fn random_id(rng: &mut Lcg) -> ObjectId {
        let minor = if rng.next(4) == 0 { u64::MAX - rng.next(3) } else { rng.next(40) };
        ObjectId::new(0x80 + rng.next(2) as u8, rng.next(20), minor)
    }

    fn built(contents: &BTreeMap<ObjectId, u64>) -> Tree<u64> {
        let mut tree = Tree::default();
        for (id, value) in contents {
            tree.insert(*id, *value, SequenceNumber(*value));
        }
        tree
    }

    #[test]
    fn agrees_with_an_ordered_map_and_its_digest_forgets_history() {
        let mut rng = Lcg(7);
        let mut tree = Tree::default();
        let mut model = BTreeMap::new();
        for step in 0..20_000u64 {
            let id = random_id(&mut rng);
            match rng.next(5) {
                0 | 1 => {
                    tree.insert(id, step, SequenceNumber(step));
                    model.insert(id, step);
                }
                2 | 3 => assert_eq!(tree.remove(id), model.remove(&id).is_some()),
                _ => {
                    if let Some(value) = tree.get_mut(id, SequenceNumber(step)) {
                        *value = step;
                        model.insert(id, step);
                    }
                }
            }
            assert_eq!(tree.len(), model.len());
            if step % 97 == 0 {
                let (a, b) = (random_id(&mut rng), random_id(&mut rng));
                let (first, last) = (a.min(b), a.max(b));
                let found: Vec<_> = tree.range(first, last).map(|(id, v, _)| (id, *v)).collect();
                let expected: Vec<_> = model.range(first..=last).map(|(id, v)| (*id, *v)).collect();
                assert_eq!(found, expected);
                let down = tree.range_down(first, last).map(|(id, v, _)| (id, *v));
                assert!(down.eq(expected.into_iter().rev()));
                assert_eq!(tree.digest(), built(&model).digest());
            }
        }
    }

    #[test]
    fn a_kept_root_is_an_undo() {
        let mut tree = Tree::default();
        for i in 0..1000 {
            tree.insert(ObjectId::new(0x80, i, 0), i, SequenceNumber(1));
        }
        let before = tree.digest();
        let mut kept = tree.clone();
        for i in 0..1000 {
            *tree.get_mut(ObjectId::new(0x80, i, 0), SequenceNumber(2)).unwrap() = 0;
        }
        tree.remove(ObjectId::new(0x80, 3, 0));
        assert_ne!(tree.digest(), before);
        assert_eq!(kept.digest(), before);
        assert_eq!(kept.get(ObjectId::new(0x80, 3, 0)), Some((&3, SequenceNumber(1))));
    }

    #[test]
    fn a_version_alone_changes_the_digest() {
        let id = ObjectId::new(0x80, 1, 1);
        let mut tree = Tree::default();
        tree.insert(id, 5u64, SequenceNumber(1));
        let before = tree.digest();
        tree.get_mut(id, SequenceNumber(2));
        assert_ne!(tree.digest(), before);
    }
}

//! A tree in parts that can travel: each is checked against a digest that is already trusted before anything is made of it.

use super::{Child, Leaf, Node, Object, ObjectId, Tree};
use crate::planted::{Planted, planted};
use crate::types::{Digest, Domain, Hasher, SequenceNumber};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

/// Where a subtree stands: all ids below it begin with the first `depth` nibbles of `prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Address {
    prefix: u128,
    depth: u8,
}

impl Address {
    /// The whole tree.
    pub const ROOT: Address = Address { prefix: 0, depth: 0 };
}

/// One node of a tree, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Part {
    /// An interior node: its children are known by their digests.
    Node {
        /// The nibbles that every id below shares.
        prefix: u128,
        /// How many nibbles that is.
        level: u8,
        /// Which nibbles come next.
        occupied: u16,
        /// The digests of the children, ascending by nibble.
        children: Vec<Digest>,
    },
    /// An object.
    Leaf {
        /// Its name.
        id: ObjectId,
        /// The batch that last changed it.
        version: SequenceNumber,
        /// Its canonical bytes.
        object: Bytes,
    },
}

impl Part {
    /// The digest by which the part above names this one.
    pub fn digest(&self) -> Digest {
        match self {
            Part::Node { prefix, level, occupied, children } => {
                let mut hasher = Hasher::new(Domain::Node);
                hasher.value(prefix).value(level).value(occupied);
                for child in children {
                    hasher.value(child);
                }
                hasher.finish()
            }
            Part::Leaf { id, version, object } => {
                let mut hasher = Hasher::new(Domain::Leaf);
                hasher.value(id).value(version).bytes(object);
                hasher.finish()
            }
        }
    }

    /// About how many bytes it takes on the wire.
    pub fn size(&self) -> usize {
        match self {
            Part::Node { children, .. } => 32 + 32 * children.len(),
            Part::Leaf { object, .. } => 32 + object.len(),
        }
    }

    /// Where its children stand and the digests by which they are known.
    pub fn children(&self) -> Vec<(Address, Digest)> {
        let Part::Node { prefix, level, occupied, children } = self else { return Vec::new() };
        let nibbles = (0..16u8).filter(|nibble| occupied & (1 << nibble) != 0);
        let addresses = nibbles.map(|nibble| Address {
            prefix: prefix | u128::from(nibble) << (124 - 4 * u32::from(*level)),
            depth: level + 1,
        });
        addresses.zip(children.iter().copied()).collect()
    }

    /// Whether it can be part of any tree at all, so that what follows need not doubt it.
    fn is_well_formed(&self) -> bool {
        match self {
            Part::Node { level, occupied, children, .. } => {
                *level < 32
                    && children.len() == occupied.count_ones() as usize
                    && children.len() >= 2
            }
            Part::Leaf { object, .. } => object.len() <= super::MAX_OBJECT + 64,
        }
    }
}

/// A tree that is being put together from verified parts, its own and others'.
#[derive(Clone)]
pub struct Assembly<O> {
    root: Option<Digest>,
    parts: BTreeMap<Digest, Found<O>>,
    /// What is known by its digest and not here yet.
    wanted: BTreeMap<Address, Wanted>,
    /// The shares of all that is wanted.
    missing: u64,
}

#[derive(Clone, Copy)]
struct Wanted {
    digest: Digest,
    /// How much of the tree that is, as if siblings were alike.
    share: u64,
}

/// The share of the whole tree.
const WHOLE: u64 = 1 << 48;

#[derive(Clone)]
enum Found<O> {
    /// An interior node that came from elsewhere.
    Node(Part),
    /// A subtree that is whole, and how many objects it has: one that is the same here, or an object that came.
    Whole(Child<O>, usize),
}

impl<O> Default for Assembly<O> {
    fn default() -> Self {
        Self { root: None, parts: BTreeMap::new(), wanted: BTreeMap::new(), missing: WHOLE }
    }
}

impl<O: Object> Assembly<O> {
    /// Aims at the tree whose topmost part has digest `root`, and takes from `own` whatever is the same there.
    ///
    /// Requires: the digests of `own` are up to date.
    /// Effects: parts fetched for an earlier aim stay useful.
    pub fn aim(&mut self, root: Digest, own: &Tree<O>) {
        self.root = Some(root);
        self.wanted.clear();
        self.missing = 0;
        self.expect(Address::ROOT, Wanted { digest: root, share: WHOLE }, own);
    }

    /// Asks for the part that is wanted at `address`, or for what is missing below it.
    fn expect(&mut self, address: Address, wanted: Wanted, own: &Tree<O>) {
        let mut open = Vec::from([(address, wanted)]);
        while let Some((address, wanted)) = open.pop() {
            let digest = wanted.digest;
            match self.parts.get(&digest) {
                Some(Found::Node(part)) => {
                    let children = part.children();
                    let share = wanted.share / (children.len() as u64).max(1);
                    let below = |(address, digest)| (address, Wanted { digest, share });
                    open.extend(children.into_iter().map(below));
                }
                Some(Found::Whole(..)) => {}
                None => match own.subtree(address).filter(|child| child.digest() == Some(digest)) {
                    Some(child) => {
                        self.parts.insert(digest, Found::Whole(child.clone(), child.count()));
                    }
                    None => {
                        self.missing += wanted.share;
                        self.wanted.insert(address, wanted);
                    }
                },
            }
        }
    }

    /// What to ask for next, at most `count` addresses, leaving out those for which `skip` holds.
    pub fn wanted(&self, count: usize, skip: impl Fn(&Address) -> bool) -> Vec<Address> {
        self.wanted.keys().filter(|address| !skip(address)).take(count).copied().collect()
    }

    /// Whether the part at `address` is missing.
    pub fn wants(&self, address: Address) -> bool {
        self.wanted.contains_key(&address)
    }

    /// Whether nothing is missing any more.
    pub fn is_whole(&self) -> bool {
        self.root.is_some() && self.wanted.is_empty()
    }

    /// About how much of the tree is here, as if siblings were alike. Units: thousandths.
    pub fn permille(&self) -> u32 {
        ((WHOLE - self.missing.min(WHOLE)) * 1000 / WHOLE) as u32
    }

    /// Takes in what a donor sent for `address`, if it is what is wanted there; says whether it was.
    pub fn supply(&mut self, address: Address, part: Part, own: &Tree<O>) -> bool {
        let Some(wanted) = self.wanted.get(&address).copied() else { return false };
        let digest = wanted.digest;
        let is_believed = matches!(part, Part::Leaf { .. }) && planted(Planted::PartUnverified);
        let is_asked_for = is_believed || part.digest() == digest;
        if !is_asked_for || !part.is_well_formed() {
            return false;
        }
        let found = match part {
            Part::Node { .. } => Found::Node(part),
            Part::Leaf { id, version, object } => {
                // What correct replicas signed decodes.
                let Ok(object) = borsh::from_slice(&object) else { return false };
                let leaf = Leaf { id, version, digest: Some(digest), object };
                Found::Whole(Child::Leaf(Arc::new(leaf)), 1)
            }
        };
        self.wanted.remove(&address);
        self.missing -= wanted.share;
        let has_children = matches!(found, Found::Node(_));
        self.parts.insert(digest, found);
        if has_children {
            self.expect(address, wanted, own);
        }
        true
    }

    /// The tree, once nothing is missing.
    ///
    /// Errors: nothing, where something is, or where the parts make no tree, which no correct replica ever signed.
    pub fn finish(self) -> Option<Tree<O>> {
        if !self.wanted.is_empty() {
            return None;
        }
        let (root, len) = self.build(self.root?)?;
        Some(Tree { root: Some(root), len })
    }

    fn build(&self, digest: Digest) -> Option<(Child<O>, usize)> {
        match self.parts.get(&digest)? {
            Found::Whole(child, count) => Some((child.clone(), *count)),
            // The depth of a tree is at most 32: every level has a longer prefix than the one above.
            Found::Node(Part::Node { prefix, level, occupied, children }) => {
                let mut built = Vec::with_capacity(children.len());
                let mut count = 0;
                for child in children {
                    let (child, below) = self.build(*child)?;
                    if child.level() <= *level {
                        return None;
                    }
                    built.push(child);
                    count += below;
                }
                let node = Node {
                    prefix: *prefix,
                    level: *level,
                    digest: Some(digest),
                    children: built,
                    occupied: *occupied,
                };
                Some((Child::Node(Arc::new(node)), count))
            }
            Found::Node(Part::Leaf { .. }) => None,
        }
    }
}

impl<O> Child<O> {
    fn digest(&self) -> Option<Digest> {
        match self {
            Child::Leaf(leaf) => leaf.digest,
            Child::Node(node) => node.digest,
        }
    }

    fn level(&self) -> u8 {
        match self {
            Child::Leaf(_) => 32,
            Child::Node(node) => node.level,
        }
    }

    fn count(&self) -> usize {
        match self {
            Child::Leaf(_) => 1,
            Child::Node(node) => node.children.iter().map(Child::count).sum(),
        }
    }
}

impl<O: Object> Tree<O> {
    /// The subtree at `address`.
    fn subtree(&self, address: Address) -> Option<&Child<O>> {
        let mut at = self.root.as_ref()?;
        loop {
            let prefix = match at {
                Child::Leaf(leaf) => leaf.id.0,
                Child::Node(node) => node.prefix,
            };
            if at.level() >= address.depth {
                return (ObjectId(prefix).prefix(address.depth) == address.prefix).then_some(at);
            }
            let Child::Node(node) = at else { return None };
            let (place, there) = node.place(ObjectId(address.prefix).nibble(node.level));
            at = node.children.get(place).filter(|_| there)?;
        }
    }

    /// The part at `address`, for one that lacks it.
    ///
    /// Requires: the digests are up to date.
    pub fn part(&self, address: Address) -> Option<Part> {
        if address.depth > 32 {
            return None;
        }
        match self.subtree(address)? {
            Child::Leaf(leaf) => Some(Part::Leaf {
                id: leaf.id,
                version: leaf.version,
                object: borsh::to_vec(&leaf.object).ok()?.into(),
            }),
            Child::Node(node) => Some(Part::Node {
                prefix: node.prefix,
                level: node.level,
                occupied: node.occupied,
                children: node.children.iter().map(Child::digest).collect::<Option<_>>()?,
            }),
        }
    }

    /// The digest of the topmost part, from which [`Tree::digest`] is made; nothing where the tree is empty.
    ///
    /// Requires: the digests are up to date.
    pub fn root_digest(&self) -> Option<Digest> {
        self.root.as_ref().and_then(Child::digest)
    }
}

/// The digest of the tree whose topmost part has digest `root`: what a CHECKPOINT signs.
pub fn state_digest(root: Option<Digest>) -> Digest {
    Digest::of(Domain::State, &root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(values: impl Iterator<Item = u64>) -> Tree<u64> {
        let mut tree = Tree::default();
        for value in values {
            let id = ObjectId::new(0x80 + (value % 3) as u8, value * 7919 % 1000, value);
            tree.insert(id, value, SequenceNumber(value));
        }
        tree.digest();
        tree
    }

    fn fetch(from: &Tree<u64>, own: &Tree<u64>) -> (Tree<u64>, usize) {
        let mut assembly = Assembly::default();
        assembly.aim(from.root_digest().unwrap(), own);
        let mut moved = 0;
        loop {
            let wanted = assembly.wanted(10, |_| false);
            if wanted.is_empty() {
                break;
            }
            for address in wanted {
                moved += 1;
                assert!(assembly.supply(address, from.part(address).unwrap(), own));
            }
        }
        (assembly.finish().unwrap(), moved)
    }

    #[test]
    fn a_tree_moves_whole_and_only_what_differs_moves() {
        let mut from = tree(0..5_000);
        let (mut copy, all) = fetch(&from, &Tree::default());
        assert_eq!((copy.digest(), copy.len()), (from.digest(), from.len()));
        assert!(all > 5_000);
        let own = tree(0..5_000);
        let changed = ObjectId::new(0x80, 0, 0);
        *from.get_mut(changed, SequenceNumber(9_999)).unwrap() = 1;
        from.insert(ObjectId::new(0x90, 1, 1), 5, SequenceNumber(9_999));
        from.remove(ObjectId::new(0x81, 7919 % 1000, 1));
        from.digest();
        let (mut copy, moved) = fetch(&from, &own);
        assert_eq!((copy.digest(), copy.len()), (from.digest(), from.len()));
        assert!(moved < 40, "{moved} parts moved for three changes");
    }

    #[test]
    fn a_part_that_is_not_what_was_asked_for_is_refused() {
        let (from, other, own) = (tree(0..100), tree(1..101), Tree::default());
        let mut assembly = Assembly::<u64>::default();
        assembly.aim(from.root_digest().unwrap(), &own);
        assert!(!assembly.supply(Address::ROOT, other.part(Address::ROOT).unwrap(), &own));
        let children = from.part(Address::ROOT).unwrap().children();
        let elsewhere = children[0].0;
        assert!(!assembly.supply(elsewhere, from.part(elsewhere).unwrap(), &own));
        assert!(assembly.supply(Address::ROOT, from.part(Address::ROOT).unwrap(), &own));
        assert!(!assembly.supply(children[0].0, from.part(children[1].0).unwrap(), &own));
        assert!(assembly.finish().is_none());
    }

    #[test]
    fn what_was_fetched_for_an_earlier_aim_stays_useful() {
        let (from, own) = (tree(0..1_000), Tree::<u64>::default());
        let mut assembly = Assembly::default();
        assembly.aim(from.root_digest().unwrap(), &own);
        for _ in 0..5 {
            for address in assembly.wanted(1_000, |_| false) {
                assembly.supply(address, from.part(address).unwrap(), &own);
            }
        }
        let mut later = from.clone();
        later.insert(ObjectId::new(0x99, 5, 5), 1, SequenceNumber(5_000));
        later.digest();
        assembly.aim(later.root_digest().unwrap(), &own);
        assert!(assembly.wanted(1_000, |_| false).len() <= 2);
    }
}

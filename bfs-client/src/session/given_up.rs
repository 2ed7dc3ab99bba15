//! What a soft mount has given up, and what waits for that.
//!
//! An operation whose program was told of an error may still be on its way, and the client goes on sending it, for the next one
//! of its lane cannot come before it. Were others begun meanwhile, it could execute after them: a write that failed would undo
//! one that succeeded later.

use std::collections::{BTreeSet, VecDeque};

/// Operations by their tokens; `T` is what begins one.
pub struct GivenUp<T> {
    /// Given up here, and not ended.
    under_way: BTreeSet<u64>,
    /// Asked for since, in order, and not begun.
    held: VecDeque<(u64, T)>,
}

impl<T> Default for GivenUp<T> {
    fn default() -> Self {
        Self { under_way: BTreeSet::new(), held: VecDeque::new() }
    }
}

impl<T> GivenUp<T> {
    /// Gives `begin` back if it may begin now, or holds it.
    pub fn admit(&mut self, token: u64, begin: T) -> Option<T> {
        if self.under_way.is_empty() {
            return Some(begin);
        }
        self.held.push_back((token, begin));
        None
    }

    /// Nobody waits for `token` any more. If it was held, it never happens.
    pub fn give_up(&mut self, token: u64) {
        match self.held.iter().position(|(held, _)| *held == token) {
            Some(place) => drop(self.held.remove(place)),
            None => drop(self.under_way.insert(token)),
        }
    }

    /// `token` has ended, if it was given up: what may begin now, in order.
    pub fn ended(&mut self, token: u64) -> VecDeque<(u64, T)> {
        let was_last = self.under_way.remove(&token) && self.under_way.is_empty();
        if was_last { std::mem::take(&mut self.held) } else { VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_before_what_was_given_up_has_ended() {
        let mut given_up = GivenUp::default();
        assert_eq!(given_up.admit(1, "write"), Some("write"));
        assert_eq!(given_up.admit(2, "write elsewhere"), Some("write elsewhere"));
        given_up.give_up(1);
        given_up.give_up(2);
        assert_eq!(given_up.admit(3, "write again"), None);
        assert_eq!(given_up.admit(4, "read"), None);
        assert!(given_up.ended(2).is_empty(), "the first may still execute");
        assert_eq!(given_up.ended(1), [(3, "write again"), (4, "read")]);
        assert_eq!(given_up.admit(5, "read"), Some("read"));
    }

    #[test]
    fn what_is_given_up_before_it_began_never_happens() {
        let mut given_up = GivenUp::default();
        given_up.give_up(1);
        assert_eq!(given_up.admit(2, "unlink"), None);
        given_up.give_up(2);
        assert!(given_up.ended(2).is_empty());
        assert!(given_up.ended(1).is_empty());
        assert_eq!(given_up.admit(3, "read"), Some("read"));
    }
}

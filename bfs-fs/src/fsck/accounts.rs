//! What must hold of exports, subtrees and accounts.

use super::Survey;
use crate::cost;
use crate::object::{Object, PAGE, account_subject};
use crate::op::{ADMINISTRATOR, Account, Export, Inode, ROOT, Subject};
use alloc::collections::BTreeMap;
use alloc::format;
use bft_core::tree::ObjectId;

/// Everything that says who may take what.
#[derive(Default)]
pub(super) struct Books {
    exports: BTreeMap<u64, Export>,
    accounts: BTreeMap<Subject, Account>,
}

impl Books {
    /// Takes note of an object that is none of the files; says whether it belongs where it is.
    pub fn take(&mut self, id: ObjectId, object: &Object) -> bool {
        use crate::object::{ACCOUNT, EXPORT};
        match (id.kind(), object) {
            (EXPORT, Object::Export(export)) if id.minor() == 0 => {
                self.exports.insert(id.major(), (**export).clone()).is_none()
            }
            (ACCOUNT, Object::Account(account)) => account_subject(id)
                .is_some_and(|subject| self.accounts.insert(subject, *account).is_none()),
            _ => false,
        }
    }
}

impl Survey<'_> {
    /// What exports and accounts cost.
    pub(super) fn booked_bytes(&self) -> u64 {
        let exports = self.books.exports.values().map(cost::export).sum::<u64>();
        exports + self.books.accounts.len() as u64 * cost::ACCOUNT_COST
    }

    pub(super) fn check_exports(&mut self) {
        for (client, export) in self.books.exports.clone() {
            let right = export.is_valid() && client != u64::from(ADMINISTRATOR);
            self.expect(right, || format!("client {client} has an impossible export"));
        }
    }

    /// What is in a directory is in its subtree, unless it is the top of one.
    pub(super) fn check_subtrees(&mut self) {
        let subtree_of = |number| self.inodes.get(&number).map(|record| record.subtree);
        let strays = self.entries.iter().filter_map(|((directory, _), entry)| {
            let (outer, inner) = (subtree_of(*directory)?, subtree_of(entry.inode)?);
            let top = outer == ROOT && inner == entry.inode;
            (outer != inner && !top).then_some(entry.inode)
        });
        for stray in strays.collect::<alloc::vec::Vec<_>>() {
            self.faults.push(format!("inode {} is in another subtree than its directory", stray.0));
        }
        for (number, record) in self.inodes.clone() {
            let top = record.subtree != number || record.is_directory();
            self.expect(top, || format!("inode {} is a subtree, and no directory", number.0));
        }
    }

    /// Every account is the sum of what belongs to it.
    pub(super) fn check_accounts(&mut self) {
        let mut sums: BTreeMap<Subject, (u64, u64)> = BTreeMap::new();
        for record in self.inodes.values() {
            for subject in [Subject::User(record.uid), Subject::Subtree(record.subtree)] {
                let (bytes, inodes) = sums.entry(subject).or_default();
                *bytes += record.pages * PAGE as u64;
                *inodes += 1;
            }
        }
        for (subject, account) in self.books.accounts.clone() {
            let sum = sums.remove(&subject).unwrap_or_default();
            let right = (account.bytes, account.inodes) == sum;
            self.expect(right, || format!("{subject:?} has {account:?}, and the sums are {sum:?}"));
            self.expect(account != Account::default(), || format!("{subject:?} has nothing"));
            if let Subject::Subtree(top) = subject {
                let right = self.inodes.get(&top).is_some_and(|r| r.subtree == top)
                    || account.limits == Default::default();
                self.expect(right, || format!("there is no subtree {}", Inode(top.0).0));
            }
        }
        for (subject, sum) in sums {
            self.faults.push(format!("{subject:?} has no account of {sum:?}"));
        }
    }
}

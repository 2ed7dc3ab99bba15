//! What a client may do at all, before any question of modes and owners: its export decides. (decision 10)

use crate::object::{InodeRecord, Object, account_id, export_id, inode_id};
use crate::op::{
    ADMINISTRATOR, Account, Caller, Export, FsError, FsRequest, IdRanges, Inode, NOBODY, ROOT,
    Subject,
};
use crate::state::State;
use alloc::borrow::Cow;
use alloc::vec::Vec;

/// A request that may be executed, and by whom.
pub(crate) struct Admitted<'a> {
    pub request: Cow<'a, FsRequest>,
    /// The directory that is the client's root.
    pub top: Inode,
}

/// The export of `client`; what everybody may, where nothing was said of it. While it is a client that is never forgotten, so
/// where there is none none has gone.
pub(crate) fn export_of(state: &State, client: u32, root_squash: bool) -> Export {
    match state.get(export_id(client)) {
        Some(Object::Export(export)) => (**export).clone(),
        _ => everybodys(client, root_squash),
    }
}

/// What everybody may: the whole tree. `root_squash` says what the client's root counts as.
pub(crate) fn everybodys(client: u32, root_squash: bool) -> Export {
    let root_squash = root_squash && client != ADMINISTRATOR;
    Export { subtree: ROOT, read_only: false, root_squash, uids: Vec::new(), gids: Vec::new() }
}

/// The account of `subject`.
pub(crate) fn account(state: &State, subject: Subject) -> Account {
    match state.get_or_miss(account_id(subject)) {
        Some(Object::Account(account)) => *account,
        _ => Account::default(),
    }
}

fn record(state: &State, number: Inode) -> Option<&InodeRecord> {
    match inode_id(number).and_then(|id| state.get_or_miss(id)) {
        Some(Object::Inode(record)) => Some(record),
        _ => None,
    }
}

impl Export {
    /// Lets `request` in, as from whom it may come.
    ///
    /// What a client has outside its subtree, since before that was narrowed or removed, it may give back.
    ///
    /// Errors: `ReadOnly`; `Stale` for anything else outside the subtree.
    pub(crate) fn admit<'a>(
        &self,
        state: &State,
        request: &'a FsRequest,
    ) -> Result<Admitted<'a>, FsError> {
        if self.read_only && request.op.changes_files() {
            return Err(FsError::ReadOnly);
        }
        let mut request = Cow::Borrowed(request);
        if let Some(caller) = self.squashed(&request.caller) {
            request.to_mut().caller = caller;
        }
        if self.subtree != ROOT {
            let find = |inode: &mut Inode| {
                if *inode == ROOT {
                    *inode = self.subtree;
                }
            };
            let op = &mut request.to_mut().op;
            let mut outside = record(state, self.subtree).is_none() && !op.is_about_lease();
            op.for_given_back(&mut |inode| find(inode));
            op.for_inodes(&mut |inode| {
                find(inode);
                outside |= record(state, *inode).is_some_and(|r| r.subtree != self.subtree);
            });
            if outside {
                return Err(FsError::Stale);
            }
        }
        Ok(Admitted { request, top: self.subtree })
    }

    /// Whom `caller` counts as, if that is somebody else. [exports(5): root_squash]
    fn squashed(&self, caller: &Caller) -> Option<Caller> {
        let within = |ranges: &IdRanges, id: u32| {
            ranges.is_empty() || ranges.iter().any(|(first, last)| (*first..=*last).contains(&id))
        };
        if !within(&self.uids, caller.uid) || self.root_squash && caller.uid == 0 {
            return Some(Caller { uid: NOBODY, gid: NOBODY, groups: Vec::new() });
        }
        // Nor does anybody get what is root's by being in its group.
        let may_be_in = |gid: &u32| !(self.root_squash && *gid == 0) && within(&self.gids, *gid);
        if may_be_in(&caller.gid) && caller.groups.iter().all(may_be_in) {
            return None;
        }
        let gid = Some(caller.gid).filter(may_be_in).unwrap_or(NOBODY);
        let groups = caller.groups.iter().copied().filter(may_be_in).collect();
        Some(Caller { uid: caller.uid, gid, groups })
    }
}

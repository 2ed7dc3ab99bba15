//! Saying who may use what, and how much of it; and keeping the accounts.

use crate::admission::{account, everybodys, export_of};
use crate::cost;
use crate::object::{Body, Object, PAGE, account_id, export_id};
use crate::op::{
    ADMINISTRATOR, Account, Export, FsError, FsReply, FsResult, Inode, Limits, ROOT, Subject,
};
use crate::state::{Reader, State, Writer, totals_mut};
use alloc::boxed::Box;

impl Reader<'_> {
    /// Errors: `NotPermitted` unless root asks at the administrator's client.
    fn expect_administrator(self) -> Result<(), FsError> {
        match self.client == ADMINISTRATOR && self.caller.is_root() {
            true => Ok(()),
            false => Err(FsError::NotPermitted),
        }
    }

    /// What `client` may do. Everybody may ask about itself.
    ///
    /// Errors: `NotPermitted`.
    pub fn get_export(self, client: u32, root_squash: bool) -> FsResult {
        if client != self.client {
            self.expect_administrator()?;
        }
        Ok(FsReply::Export(export_of(self.state, client, root_squash)))
    }

    /// What `subject` has taken and may take. [quotactl(2)]
    ///
    /// Errors: `NotPermitted` to ask about somebody else, or another subtree than one's own.
    pub fn get_account(self, subject: Subject) -> FsResult {
        let own = match subject {
            Subject::User(uid) => uid == self.caller.uid,
            Subject::Subtree(subtree) => self.top == ROOT || subtree == self.top,
        };
        let may_all = self.caller.is_root() && self.top == ROOT;
        match own || may_all {
            true => Ok(FsReply::Account(account(self.state, subject))),
            false => Err(FsError::NotPermitted),
        }
    }

    /// What an account for `subject` takes of the memory budget: nothing if it has one.
    pub fn new_account(self, subject: Subject) -> u64 {
        match self.state.get(account_id(subject)) {
            Some(_) => 0,
            None => cost::ACCOUNT_COST,
        }
    }

    /// Errors: `QuotaExceeded` if that user or that subtree may not take as much more. Limits on users do not bind root.
    /// [capabilities(7): CAP_SYS_RESOURCE]
    pub fn expect_quota(
        self,
        (uid, subtree): (u32, Inode),
        pages: u64,
        inodes: u64,
    ) -> Result<(), FsError> {
        let bytes = pages.saturating_mul(PAGE as u64);
        let allows = |subject| account(self.state, subject).allows(bytes, inodes);
        let user = self.caller.is_root() || allows(Subject::User(uid));
        match user && allows(Subject::Subtree(subtree)) {
            true => Ok(()),
            false => Err(FsError::QuotaExceeded),
        }
    }
}

/// What the export of `client` takes of the memory budget: nothing if it has none.
fn export_bytes(state: &State, client: u32) -> u64 {
    match state.get(export_id(client)) {
        Some(Object::Export(export)) => cost::export(export),
        _ => 0,
    }
}

/// Says what `client` may do, or forgets it, and counts what that takes of the memory budget. Requires: there is room.
pub(crate) fn put_export(state: &mut State, client: u32, export: Option<&Export>) {
    let (id, old) = (export_id(client), export_bytes(state, client));
    match export {
        Some(export) => state.insert(id, Object::Export(Box::new(export.clone()))),
        None if old == 0 => return,
        None => drop(state.remove(id)),
    }
    let totals = totals_mut(state);
    totals.bytes = totals.bytes + export.map_or(0, cost::export) - old;
}

impl Writer<'_> {
    /// Says what `client` may do from now on; nothing takes it back to what everybody may. That is kept like any other export: had
    /// it gone, nothing would tell the client's reads since when.
    ///
    /// Errors: `NotPermitted`, `Invalid` (an export that makes no sense; the administrator's), `NotFound` (no such subtree),
    /// `NoSpace`.
    pub fn set_export(&mut self, client: u32, export: Option<&Export>) -> FsResult {
        let reader = self.reader();
        reader.expect_administrator()?;
        if client == ADMINISTRATOR || export.is_some_and(|export| !export.is_valid()) {
            return Err(FsError::Invalid);
        }
        if let Some(export) = export
            && reader.inode(export.subtree).map(|record| record.subtree) != Ok(export.subtree)
        {
            return Err(FsError::NotFound);
        }
        let old = export_bytes(self.state, client);
        let export = match export {
            Some(export) => export.clone(),
            None if old == 0 => return Ok(FsReply::Done),
            None => everybodys(client, self.root_squash),
        };
        self.expect_room(cost::export(&export).saturating_sub(old))?;
        put_export(self.state, client, Some(&export));
        Ok(FsReply::Done)
    }

    /// Makes a subtree of an empty directory: what is made in it belongs to it for good, has an account of its own, and can
    /// be all that a client sees. Names do not cross its border. There are no subtrees in subtrees.
    ///
    /// Errors: `NotPermitted`, `Stale`, `NotDirectory`, `NotEmpty`, `Invalid` (in a subtree already), `NoSpace`.
    pub fn make_subtree(&mut self, number: Inode) -> FsResult {
        let reader = self.reader();
        reader.expect_administrator()?;
        let record = reader.directory(number)?;
        if record.subtree == number {
            return reader.attributes(number);
        }
        reader.expect_empty(record)?;
        if record.subtree != ROOT || record.links == 0 {
            return Err(FsError::Invalid);
        }
        let uid = record.uid;
        self.expect_room(cost::ACCOUNT_COST)?;
        self.book((uid, ROOT), 0, -1);
        self.book((uid, number), 0, 1);
        self.change(number, |record| record.subtree = number);
        self.reader().attributes(number)
    }

    /// Limits what `subject` may take from now on. What it has taken stays.
    ///
    /// Errors: `NotPermitted`, `NotFound` (no such subtree), `NoSpace`.
    pub fn set_limits(&mut self, subject: Subject, limits: Limits) -> FsResult {
        let reader = self.reader();
        reader.expect_administrator()?;
        if let Subject::Subtree(subtree) = subject
            && reader.inode(subtree).map(|record| record.subtree) != Ok(subtree)
        {
            return Err(FsError::NotFound);
        }
        if limits != Limits::default() {
            self.expect_room(reader.new_account(subject))?;
        }
        let mut account = account(self.state, subject);
        account.limits = limits;
        self.put_account(subject, account);
        Ok(FsReply::Account(account))
    }

    /// Notes that a user and a subtree have so many pages and inodes more, or fewer.
    ///
    /// Requires: there is room for the accounts that they do not have yet.
    pub fn book(&mut self, (uid, subtree): (u32, Inode), pages: i64, inodes: i64) {
        let bytes = pages.saturating_mul(PAGE as i64);
        for subject in [Subject::User(uid), Subject::Subtree(subtree)] {
            let mut account = account(self.state, subject);
            account.bytes = account.bytes.saturating_add_signed(bytes);
            account.inodes = account.inodes.saturating_add_signed(inodes);
            self.put_account(subject, account);
        }
    }

    fn put_account(&mut self, subject: Subject, account: Account) {
        let new = self.reader().new_account(subject);
        match account == Account::default() {
            true if new == 0 => {
                self.state.remove(account_id(subject));
                self.refund(cost::ACCOUNT_COST);
            }
            true => {}
            false => {
                self.state.insert(account_id(subject), Object::Account(account));
                self.charge(new);
            }
        }
    }

    /// Notes that file `number` has `pages` more, or fewer. Requires: it exists.
    pub fn change_pages(&mut self, number: Inode, pages: i64) {
        if pages == 0 {
            return;
        }
        let Ok(record) = self.reader().inode(number) else { return };
        let owners = (record.uid, record.subtree);
        self.change(number, |record| record.pages = record.pages.saturating_add_signed(pages));
        self.book(owners, pages, 0);
    }

    /// Notes that inode `number`, with all that it has, goes. Requires: it exists.
    pub fn close_account(&mut self, number: Inode) {
        let Ok(record) = self.reader().inode(number) else { return };
        let (owners, pages) = ((record.uid, record.subtree), record.pages);
        let is_top = matches!(record.body, Body::Directory { .. }) && record.subtree == number;
        self.book(owners, -(pages as i64), -1);
        if is_top {
            // What was removed in it while it was open still counts, until it goes too.
            let subject = Subject::Subtree(number);
            let left = Account { limits: Limits::default(), ..account(self.state, subject) };
            self.put_account(subject, left);
        }
    }

    /// Notes that inode `number` goes from its owner to `uid`. Requires: it exists.
    pub fn transfer(&mut self, number: Inode, uid: u32) {
        let Ok(record) = self.reader().inode(number) else { return };
        let (old, subtree, pages) = (record.uid, record.subtree, record.pages as i64);
        if old != uid {
            self.book((old, subtree), -pages, -1);
            self.book((uid, subtree), pages, 1);
        }
    }
}

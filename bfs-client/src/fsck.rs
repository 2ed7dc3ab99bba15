//! `bfs fsck`: reads the whole tree through the protocol, and holds what the group says about it against itself.
//!
//! Every answer is a quorum's, so this finds what all correct replicas have wrong, which only a defect could do. Files
//! may change meanwhile: what looks wrong and has changed since is looked at again.

use crate::asking::{Asker, Whom};
use crate::failure::{Exit, Failure, Outcome, say};
use bfs_fs::op::{Attributes, Entry, FsError, FsOp, FsReply, Inode, Kind, MAX_IO, MAX_NAME, ROOT};
use clap::Args;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Arguments of `bfs fsck`.
#[derive(Args, Clone, Debug)]
pub struct FsckArgs {
    #[command(flatten)]
    whom: Whom,
    /// Read the contents of every file too
    #[arg(long, env = "BFS_DATA")]
    data: bool,
    /// Print one JSON object
    #[arg(long, env = "BFS_JSON")]
    json: bool,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    pub directories: u64,
    pub files: u64,
    /// Units: bytes.
    pub data_read: u64,
    /// Inodes that have no name: held open somewhere. Not known where a directory is busy, which may hide their names.
    pub unnamed: Option<u64>,
    pub faults: Vec<String>,
    /// Directories that changed whenever they were looked at: their names were followed, but could not be counted.
    pub busy: Vec<String>,
}

/// How often a directory that changes is looked at.
const ATTEMPTS: usize = 5;
/// As many as a person reads.
const BUSY_NAMED_MAX: usize = 5;

/// Whom the tree is asked of: the group, or a state machine of a test.
pub trait Tree {
    fn ask(&self, op: FsOp) -> bfs_fs::op::FsResult;
}

impl Tree for Asker {
    fn ask(&self, op: FsOp) -> bfs_fs::op::FsResult {
        Asker::ask(self, op)
    }
}

/// Checks the group's files, and says what is wrong.
pub fn run(args: &FsckArgs) -> Outcome<Exit> {
    let asker = args.whom.connect()?;
    let findings = check(&asker, args.data)
        .map_err(|error| Failure::new("cannot look at everything", error))?;
    if args.json {
        say(serde_json::to_string_pretty(&findings).unwrap_or_default())?;
    } else {
        findings.faults.iter().try_for_each(say)?;
        let Findings { directories, files, data_read, unnamed, faults, .. } = &findings;
        let unnamed = unnamed.map_or(String::new(), |count| format!("{count} without a name, "));
        say(format_args!(
            "{directories} directories, {files} other files, {unnamed}{data_read} bytes read: {} faults",
            faults.len()
        ))?;
    }
    conclude(&findings)
}

/// How the command ends.
///
/// Errors: not everything could be checked.
fn conclude(findings: &Findings) -> Outcome<Exit> {
    let Findings { faults, busy, .. } = findings;
    if busy.is_empty() {
        return Ok(if faults.is_empty() { Exit::Fine } else { Exit::Failed });
    }
    let mut named = busy.iter().take(BUSY_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if busy.len() > BUSY_NAMED_MAX {
        named.push_str(", …");
    }
    let why =
        format!("directories that changed whenever they were looked at: {} ({named})", busy.len());
    Err(Failure::new("cannot check everything", why).advise("bfs fsck again when they are quiet"))
}

/// Reads the whole tree.
///
/// Errors: the group does not answer, or refuses.
pub fn check(tree: &dyn Tree, data: bool) -> Result<Findings, FsError> {
    let mut walk = Walk {
        tree,
        data,
        findings: Findings::default(),
        links: BTreeMap::new(),
        seen: BTreeSet::from([ROOT]),
    };
    let mut frontier = vec![Directory { inode: ROOT, above: ROOT, path: String::new() }];
    while let Some(directory) = frontier.pop() {
        frontier.extend(walk.directory(&directory)?);
    }
    // What is in a busy directory may have been missed, or met twice.
    if walk.findings.busy.is_empty() {
        walk.check_links()?;
        walk.check_totals()?;
    }
    Ok(walk.findings)
}

/// A directory to be looked at.
struct Directory {
    inode: Inode,
    above: Inode,
    /// From the root of the group on, whose own is empty.
    path: String,
}

/// What a directory says of itself, and what is in it.
struct Listing {
    attributes: Attributes,
    entries: Vec<Entry>,
    /// It did not change meanwhile.
    steady: bool,
}

struct Walk<'a> {
    tree: &'a dyn Tree,
    data: bool,
    findings: Findings,
    /// How many names of each file with several were found, and how many it says it has.
    links: BTreeMap<Inode, (u32, u32)>,
    seen: BTreeSet<Inode>,
}

impl Walk<'_> {
    fn attributes(&self, inode: Inode) -> Result<Attributes, FsError> {
        match self.tree.ask(FsOp::GetAttributes { inode })? {
            FsReply::Attributes(attributes) => Ok(attributes),
            _ => Err(FsError::Io),
        }
    }

    fn list(&self, inode: Inode) -> Result<Vec<Entry>, FsError> {
        let (mut all, mut cookie) = (Vec::new(), 0);
        loop {
            let op = FsOp::ReadDirectory { inode, cookie, budget: MAX_IO };
            let FsReply::Entries { entries, eof } = self.tree.ask(op)? else {
                return Err(FsError::Io);
            };
            cookie = entries.last().map_or(cookie, |entry| entry.cookie);
            let ended = eof || entries.is_empty();
            all.extend(entries);
            if ended {
                return Ok(all);
            }
        }
    }

    fn look(&self, inode: Inode) -> Result<Listing, FsError> {
        let attributes = self.attributes(inode)?;
        let entries = self.list(inode)?;
        let steady = self.attributes(inode)? == attributes;
        Ok(Listing { attributes, entries, steady })
    }

    /// A steady listing, or the last one if there is none such; nothing if the directory is gone.
    fn listing(&self, inode: Inode) -> Result<Option<Listing>, FsError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let listing = match self.look(inode) {
                Err(FsError::Stale) => return Ok(None),
                other => other?,
            };
            if last.insert(listing).steady {
                break;
            }
        }
        Ok(last)
    }

    fn fault(&mut self, fault: String) {
        self.findings.faults.push(fault);
    }

    /// Checks one directory; names those in it.
    fn directory(&mut self, directory: &Directory) -> Result<Vec<Directory>, FsError> {
        let &Directory { inode, above, ref path } = directory;
        let Some(listing) = self.listing(inode)? else { return Ok(Vec::new()) };
        let Listing { attributes, entries, steady } = listing;
        self.findings.directories += 1;
        if !steady {
            self.findings.busy.push(if path.is_empty() { "/".into() } else { path.clone() });
        }
        let mut names = BTreeSet::new();
        let (mut subdirectories, mut children) = (0, Vec::new());
        for entry in &entries {
            let at = format!("\"{}\" in directory {}", entry.name.escape_ascii(), inode.0);
            let Attributes { inode: number, kind, links, .. } = entry.attributes;
            // A name that goes and comes again between two pages is on both.
            if !names.insert(&entry.name) && steady {
                self.fault(format!("{at} is there twice"));
            }
            let expected = match &*entry.name {
                b"." => Some(inode),
                b".." => Some(above),
                _ => None,
            };
            if let Some(expected) = expected {
                if number != expected {
                    self.fault(format!("{at} is inode {}, not {}", number.0, expected.0));
                }
                continue;
            }
            let name = &entry.name;
            if name.is_empty() || name.len() > MAX_NAME || name.contains(&b'/') || name.contains(&0)
            {
                self.fault(format!("{at} is no name"));
            }
            if kind == Kind::Directory {
                subdirectories += 1;
                if self.seen.insert(number) {
                    let path = format!("{path}/{}", entry.name.escape_ascii());
                    children.push(Directory { inode: number, above: inode, path });
                } else if self.findings.busy.is_empty() {
                    // Out of a busy one it may just have been moved.
                    self.fault(format!("{at} is a directory with another name elsewhere"));
                }
                continue;
            }
            self.file(&at, &entry.attributes)?;
            if links != 1 {
                self.links.entry(number).or_insert((0, links)).0 += 1;
            }
        }
        let links = attributes.links;
        if steady && links != 2 + subdirectories {
            self.fault(format!(
                "directory {} has {links} links, {subdirectories} directories",
                inode.0
            ));
        }
        Ok(children)
    }

    fn file(&mut self, at: &str, listed: &Attributes) -> Result<(), FsError> {
        if listed.links <= 1 || !self.links.contains_key(&listed.inode) {
            self.findings.files += 1;
            if self.data && listed.kind == Kind::File {
                self.read(at, listed)?;
            }
        }
        if listed.links == 0 {
            self.fault(format!("{at} has a name and no links"));
        }
        Ok(())
    }

    fn read(&mut self, at: &str, listed: &Attributes) -> Result<(), FsError> {
        let (inode, mut offset) = (listed.inode, 0);
        loop {
            match self.tree.ask(FsOp::Read { inode, offset, count: MAX_IO }) {
                Ok(FsReply::Data { data, eof, attributes }) => {
                    let size = attributes.size;
                    // The size is of this very reply: what ends before it begins was cut off since the last one.
                    let cut_off = size < offset;
                    offset += data.len() as u64;
                    self.findings.data_read += data.len() as u64;
                    let ended = eof || data.is_empty();
                    if ended && offset != size && !cut_off {
                        self.fault(format!("{at} is {offset} bytes long, and says {size}"));
                    }
                    if ended {
                        return Ok(());
                    }
                }
                // It was removed meanwhile.
                Err(FsError::Stale) => return Ok(()),
                Ok(_) => return Err(FsError::Io),
                Err(error) => return Err(error),
            }
        }
    }

    /// Files with several names, all of which must have been found by now.
    fn check_links(&mut self) -> Result<(), FsError> {
        for (inode, (found, said)) in std::mem::take(&mut self.links) {
            let now = match self.attributes(inode) {
                Err(FsError::Stale) => continue,
                other => other?.links,
            };
            if now == said && found != said {
                self.fault(format!("file {} has {said} links, and {found} names", inode.0));
            }
        }
        Ok(())
    }

    /// What has no name is held open, and must be counted all the same.
    fn check_totals(&mut self) -> Result<(), FsError> {
        let FsReply::StatFs(totals) = self.tree.ask(FsOp::StatFs)? else {
            return Err(FsError::Io);
        };
        let counted = totals.inodes.saturating_sub(totals.free_inodes);
        let found = self.findings.directories + self.findings.files;
        self.findings.unnamed = Some(counted.saturating_sub(found));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Backend, Local};
    use bfs_fs::op::{Caller, CreateMode, FsRequest, FsResult};
    use std::cell::{Cell, RefCell};

    /// "d".
    const D: Inode = Inode(2);
    /// "d/f".
    const F: Inode = Inode(3);

    /// A real file system of which some answers are changed.
    struct Lying<F: Fn(&FsOp, &mut FsResult)>(Local, F, RefCell<u64>);

    impl<F: Fn(&FsOp, &mut FsResult)> Tree for Lying<F> {
        fn ask(&self, op: FsOp) -> FsResult {
            let mut result = perform(&self.0, op.clone());
            *self.2.borrow_mut() += 1;
            (self.1)(&op, &mut result);
            result
        }
    }

    fn perform(local: &Local, op: FsOp) -> FsResult {
        let (sender, receiver) = std::sync::mpsc::channel();
        let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
        local.call(FsRequest { caller, op }, Box::new(move |result| drop(sender.send(result))));
        receiver.recv().unwrap()
    }

    /// "d/f" of five bytes, which is "g" too.
    fn findings(lie: impl Fn(&FsOp, &mut FsResult)) -> Findings {
        let local = Local::default();
        let inode = |op| match perform(&local, op) {
            Ok(FsReply::Attributes(attributes)) => attributes.inode,
            other => panic!("{other:?}"),
        };
        let d = inode(FsOp::MakeDirectory { parent: ROOT, name: b"d".into(), mode: 0o755 });
        let how = CreateMode::Guarded;
        let f = inode(FsOp::Create { parent: d, name: b"f".into(), mode: 0o644, how });
        perform(&local, FsOp::Write { inode: f, offset: 0, data: b"hello"[..].into() }).unwrap();
        inode(FsOp::Link { inode: f, parent: ROOT, name: b"g".into() });
        check(&Lying(local, lie, RefCell::new(0)), true).unwrap()
    }

    #[test]
    fn a_sound_tree_has_no_faults() {
        let expected = Findings { unnamed: Some(0), ..seen(2, 1, 5) };
        assert_eq!(findings(|_, _| ()), expected);
        assert_eq!(conclude(&expected), Ok(Exit::Fine));
    }

    fn seen(directories: u64, files: u64, data_read: u64) -> Findings {
        Findings { directories, files, data_read, ..Findings::default() }
    }

    #[test]
    fn a_directory_that_never_stands_still_is_followed_and_told() {
        let asked = Cell::new(0);
        let found = findings(|op, result| match (op, result) {
            (FsOp::GetAttributes { inode: D }, Ok(FsReply::Attributes(attributes))) => {
                asked.set(asked.get() + 1);
                attributes.size = asked.get();
            }
            (FsOp::ReadDirectory { inode: D, .. }, Ok(FsReply::Entries { entries, .. })) => {
                entries.push(entries[0].clone());
            }
            (FsOp::ReadDirectory { .. }, Ok(FsReply::Entries { entries, .. })) => {
                entries.retain(|entry| entry.name != b"g");
            }
            _ => {}
        });
        assert_eq!(found, Findings { busy: vec!["/d".into()], ..seen(2, 1, 5) });
        let failure = conclude(&found).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.message.ends_with("1 (/d)"), "{failure}");
    }

    #[test]
    fn only_a_few_busy_directories_are_named() {
        let busy = (0..9).map(|i| format!("/{i}")).collect();
        let failure = conclude(&Findings { busy, ..Findings::default() }).unwrap_err();
        assert!(failure.message.ends_with("9 (/0, /1, /2, /3, /4, …)"), "{failure}");
    }

    #[test]
    fn what_is_removed_or_cut_off_meanwhile_is_no_fault() {
        let removed = findings(|op, result| {
            if matches!(op, FsOp::ReadDirectory { inode: D, .. } | FsOp::GetAttributes { inode: F })
            {
                *result = Err(FsError::Stale);
            }
        });
        assert_eq!((removed.faults.len(), removed.busy.len()), (0, 0), "{removed:?}");
        assert_eq!(removed.directories, 1);
        let cut_off = findings(|op, result| match (op, result) {
            (FsOp::Read { offset: 0, .. }, Ok(FsReply::Data { data, eof, .. })) => {
                data.truncate(3);
                *eof = false;
            }
            (FsOp::Read { .. }, Ok(FsReply::Data { data, attributes, .. })) => {
                data.truncate(0);
                attributes.size = 1;
            }
            _ => {}
        });
        assert_eq!(cut_off, Findings { unnamed: Some(0), ..seen(2, 1, 3) });
    }

    #[test]
    fn what_contradicts_itself_is_found() {
        let entries = |change: fn(&mut Vec<Entry>)| {
            move |_: &FsOp, result: &mut FsResult| {
                if let Ok(FsReply::Entries { entries, .. }) = result {
                    change(entries);
                }
            }
        };
        type Change = fn(&mut Vec<Entry>);
        let cases: [(&str, Change); 5] = [
            ("is there twice", |entries| entries.push(entries[0].clone())),
            ("is no name", |entries| {
                entries.iter_mut().filter(|e| e.name == b"f").for_each(|e| e.name = b"f/".into());
            }),
            ("not 1", |entries| entries[1].attributes.inode = Inode(77)),
            ("links, and 1 names", |entries| entries.retain(|entry| entry.name != b"g")),
            ("3 links, 0 directories", |entries| entries.retain(|entry| entry.name != b"d")),
        ];
        for (fault, change) in cases {
            let found = findings(entries(change)).faults;
            assert!(found.iter().any(|found| found.contains(fault)), "{fault}: {found:?}");
        }
        let short = findings(|_, result| {
            if let Ok(FsReply::Data { data, .. }) = result {
                data.truncate(3);
            }
        });
        assert!(short.faults[0].contains("is 3 bytes long, and says 5"), "{short:?}");
    }
}

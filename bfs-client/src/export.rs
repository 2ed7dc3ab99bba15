//! `bfs export` and `bfs quota`: who may use what, and how much of it. The group keeps it in its replicated state.

use crate::asking::{Asker, Whom, refused};
use crate::failure::{Outcome, say};
use bfs_fs::op::{Account, Export, FsError, FsOp, FsReply, Inode, Limits, ROOT, Subject};
use bft_core::clients::ClientIdentity;
use bft_core::types::ClientId;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `bfs export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    #[command(flatten)]
    whom: Whom,
    /// Which client, by its name or its number; without one, says what every client may. Of what a client may, only
    /// what is named changes
    #[arg(value_name = "CLIENT")]
    client: Option<String>,
    /// Let the client see this directory of the group and nothing else; an empty one becomes a subtree of its own,
    /// and / is the whole tree
    #[arg(long, value_name = "PATH", env = "BFS_SUBTREE", requires = "client")]
    subtree: Option<PathBuf>,
    /// Refuse every change
    #[arg(long, env = "BFS_READ_ONLY", requires = "client")]
    read_only: bool,
    /// Allow changes again
    #[arg(long, env = "BFS_READ_WRITE", requires = "client", conflicts_with = "read_only")]
    read_write: bool,
    /// Let the client's root be root
    #[arg(long, env = "BFS_NO_ROOT_SQUASH", requires = "client")]
    no_root_squash: bool,
    /// Let the client's root be nobody again
    #[arg(long, env = "BFS_ROOT_SQUASH", requires = "client", conflicts_with = "no_root_squash")]
    root_squash: bool,
    /// As whom the client's users may act, for example 1000-1999,65533; whoever else is nobody. 0-4294967295 are all
    #[arg(long, value_name = "UIDS", env = "BFS_UIDS", value_parser = id_ranges, requires = "client")]
    uids: Option<Ranges>,
    /// In which groups they may be; of any other, whatever the client says, they are not members. 0-4294967295 are all
    #[arg(long, value_name = "GIDS", env = "BFS_GIDS", value_parser = id_ranges, requires = "client")]
    gids: Option<Ranges>,
    /// Let the client do what clients may that nothing is said about: everything, but with root squashed
    #[arg(long, env = "BFS_DEFAULT", requires = "client",
          conflicts_with_all = ["subtree", "read_only", "read_write", "no_root_squash", "root_squash", "uids", "gids"])]
    default: bool,
    /// Print JSON
    #[arg(long, env = "BFS_JSON")]
    json: bool,
}

// By a name of its own, or the parser of arguments would take it for many values.
type Ranges = bfs_fs::op::IdRanges;

/// Arguments of `bfs quota`.
#[derive(Args, Clone, Debug)]
pub struct QuotaArgs {
    #[command(flatten)]
    whom: Whom,
    /// Of what belongs to this user
    #[arg(
        long,
        value_name = "UID",
        env = "BFS_USER",
        required_unless_present = "subtree",
        conflicts_with = "subtree"
    )]
    user: Option<u32>,
    /// Of what is in this directory, which is or becomes a subtree
    #[arg(long, value_name = "PATH", env = "BFS_SUBTREE")]
    subtree: Option<PathBuf>,
    /// The most bytes of file data: a number, with K, M, G or T if you like, or "none"
    #[arg(long, value_name = "BYTES", env = "BFS_BYTES", value_parser = limit)]
    bytes: Option<Limit>,
    /// The most files, directories and links: a number or "none"
    #[arg(long, value_name = "COUNT", env = "BFS_INODES", value_parser = limit)]
    inodes: Option<Limit>,
    /// Print JSON
    #[arg(long, env = "BFS_JSON")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<u64>);

fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'K')) => (&text[..at], 1u64 << 10),
        Some((at, 'M')) => (&text[..at], 1 << 20),
        Some((at, 'G')) => (&text[..at], 1 << 30),
        Some((at, 'T')) => (&text[..at], 1 << 40),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.map(|number| Limit(Some(number))).ok_or_else(|| "neither a number nor none".into())
}

fn id_ranges(text: &str) -> Result<Ranges, String> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    let ranges: Option<Ranges> = text.split(',').map(range).collect();
    let export = Export {
        subtree: ROOT,
        read_only: false,
        root_squash: true,
        uids: ranges.ok_or("not a list such as 1000-1999,65533")?,
        gids: Ranges::new(),
    };
    if export.is_valid() {
        Ok(export.uids)
    } else {
        Err("too many ranges, or one that ends before it begins".into())
    }
}

/// Says, or changes, what clients may do.
pub fn run(args: &ExportArgs) -> Outcome {
    let asker = args.whom.connect()?;
    let clients = match &args.client {
        Some(name) => vec![asker.client(name)?],
        None => asker.clients()?,
    };
    if let ([(client, _)], true) = (clients.as_slice(), args.changes()) {
        set(&asker, args, client.0)?;
    }
    let lines = clients.into_iter().map(|client| describe(&asker, client));
    let lines = lines.collect::<Outcome<Vec<_>>>()?;
    match args.json {
        true => say(serde_json::to_string_pretty(&lines).unwrap_or_default()),
        false => lines.iter().try_for_each(|line| say(line.text())),
    }
}

impl ExportArgs {
    fn changes(&self) -> bool {
        self.default
            || self.subtree.is_some()
            || self.read_only
            || self.read_write
            || self.no_root_squash
            || self.root_squash
            || self.uids.is_some()
            || self.gids.is_some()
    }

    /// `present` with what is named here changed; the subtree is `top` if one is named.
    fn applied(&self, present: Export, top: Option<Inode>) -> Export {
        Export {
            subtree: top.unwrap_or(present.subtree),
            read_only: self.read_only || present.read_only && !self.read_write,
            root_squash: self.root_squash || present.root_squash && !self.no_root_squash,
            uids: self.uids.clone().unwrap_or(present.uids),
            gids: self.gids.clone().unwrap_or(present.gids),
        }
    }
}

fn set(asker: &Asker, args: &ExportArgs, client: u32) -> Outcome {
    let export = match args.default {
        true => None,
        false => {
            let present = present(asker, client)?;
            let top = args.subtree.as_ref().map(|path| subtree(asker, path)).transpose()?;
            Some(args.applied(present, top))
        }
    };
    let result = asker.ask(FsOp::SetExport { client, export });
    result.map(drop).map_err(|error| {
        let failure = refused(format!("cannot say what client {client} may do"), error);
        match error {
            // A subtree that only stays as it was is looked for too.
            FsError::NotFound => failure.advise(
                "the client's subtree is no more: name another with --subtree, or / for the whole tree",
            ),
            _ => failure,
        }
    })
}

/// What a client may do at present.
fn present(asker: &Asker, client: u32) -> Outcome<Export> {
    let export = match asker.ask(FsOp::GetExport { client }) {
        Ok(FsReply::Export(export)) => Ok(export),
        Ok(_) => Err(FsError::Io),
        Err(error) => Err(error),
    };
    export.map_err(|error| refused(format!("cannot learn what client {client} may do"), error))
}

/// The directory called `path` as a subtree.
fn subtree(asker: &Asker, path: &std::path::Path) -> Outcome<Inode> {
    let inode = asker.find(path)?;
    let made = asker.attributes(FsOp::MakeSubtree { inode });
    made.map(|top| top.inode)
        .map_err(|error| refused(format!("cannot make {} a subtree", path.display()), error))
}

/// What a client may do, as it is printed.
#[derive(Serialize)]
struct Line {
    client: u32,
    name: String,
    subtree: u64,
    read_only: bool,
    root_squash: bool,
    uids: Ranges,
    gids: Ranges,
}

impl Line {
    fn text(&self) -> String {
        let tree = match self.subtree {
            top if top == ROOT.0 => "the whole tree".into(),
            top => format!("the subtree of inode {top}"),
        };
        let access = if self.read_only { "read-only" } else { "read-write" };
        let root = if self.root_squash { "root is nobody" } else { "root is root" };
        let within = |what: &str, ranges: &Ranges| match ranges.is_empty() {
            true => format!("all {what}"),
            false => {
                let ranges = ranges.iter().map(|(first, last)| format!("{first}-{last}"));
                format!("{what} {}", ranges.collect::<Vec<_>>().join(","))
            }
        };
        let (users, groups) = (within("uids", &self.uids), within("gids", &self.gids));
        let (client, name) = (self.client, &self.name);
        format!("{client:>3}  {name:<16} {tree} · {access} · {root} · {users} · {groups}")
    }
}

fn describe(asker: &Asker, (client, identity): (ClientId, ClientIdentity)) -> Outcome<Line> {
    let ClientId(client) = client;
    let name = identity.name;
    let Export { subtree, read_only, root_squash, uids, gids } = present(asker, client)?;
    Ok(Line { client, name, subtree: subtree.0, read_only, root_squash, uids, gids })
}

/// What a user or a subtree has taken, as it is printed.
#[derive(Serialize)]
struct Balance {
    bytes: u64,
    bytes_limit: Option<u64>,
    inodes: u64,
    inodes_limit: Option<u64>,
}

/// Says, or limits, what a user or a subtree takes.
pub fn quota(args: &QuotaArgs) -> Outcome {
    let asker = args.whom.connect()?;
    let subject = match (&args.subtree, args.user) {
        (Some(path), _) => Subject::Subtree(subtree(&asker, path)?),
        (None, user) => Subject::User(user.unwrap_or_default()),
    };
    let failed = |error| refused("cannot learn or set that quota", error);
    let mut account = balance(asker.ask(FsOp::GetAccount { subject })).map_err(failed)?;
    if args.bytes.is_some() || args.inodes.is_some() {
        let bytes = args.bytes.map_or(account.limits.bytes, |limit| limit.0);
        let inodes = args.inodes.map_or(account.limits.inodes, |limit| limit.0);
        let limits = Limits { bytes, inodes };
        account = balance(asker.ask(FsOp::SetLimits { subject, limits })).map_err(failed)?;
    }
    let Account { bytes, inodes, limits } = account;
    let printed = Balance { bytes, bytes_limit: limits.bytes, inodes, inodes_limit: limits.inodes };
    if args.json {
        return say(serde_json::to_string_pretty(&printed).unwrap_or_default());
    }
    let of = |limit: Option<u64>| limit.map_or("no limit".into(), |limit| format!("of {limit}"));
    let (most_bytes, most_inodes) = (of(limits.bytes), of(limits.inodes));
    say(format_args!("{bytes} bytes, {most_bytes} · {inodes} inodes, {most_inodes}"))
}

fn balance(answer: bfs_fs::op::FsResult) -> Result<Account, FsError> {
    match answer? {
        FsReply::Account(account) => Ok(account),
        _ => Err(FsError::Io),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn limits_are_numbers_with_a_unit() {
        assert_eq!(limit("5"), Ok(Limit(Some(5))));
        assert_eq!(limit("3G"), Ok(Limit(Some(3 << 30))));
        assert_eq!(limit("none"), Ok(Limit(None)));
        for wrong in ["", "G", "-1", "1g", "99999999999T", "5 M"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        export: ExportArgs,
    }

    fn parsed(options: &str) -> Result<ExportArgs, clap::Error> {
        let line = format!("export group.toml bob {options}");
        CommandLine::try_parse_from(line.split_whitespace()).map(|line| line.export)
    }

    #[test]
    fn what_is_not_named_stays() {
        let present = || Export {
            subtree: Inode(7),
            read_only: false,
            root_squash: true,
            uids: vec![(1000, 1999)],
            gids: vec![(50, 50)],
        };
        let applied = |present, options| parsed(options).unwrap().applied(present, None);
        let read_only = applied(present(), "--read-only");
        assert_eq!(read_only, Export { read_only: true, ..present() });
        assert_eq!(applied(read_only, "--read-write"), present());
        let root = applied(present(), "--no-root-squash");
        assert_eq!(root, Export { root_squash: false, ..present() });
        assert_eq!(applied(root, "--root-squash"), present());
        let fifth = Export { uids: vec![(5, 5)], ..present() };
        assert_eq!(applied(present(), "--uids 5"), fifth);
        let whole = parsed("--subtree /").unwrap().applied(present(), Some(ROOT));
        assert_eq!(whole, Export { subtree: ROOT, ..present() });
    }

    #[test]
    fn opposites_are_not_named_together() {
        let root = "--root-squash --no-root-squash";
        for wrong in ["--read-only --read-write", root, "--default --read-write"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn uids_and_gids_are_ranges() {
        assert_eq!(id_ranges("0-4294967295"), Ok(vec![(0, u32::MAX)]));
        assert_eq!(id_ranges("1000-1999,5"), Ok(vec![(1000, 1999), (5, 5)]));
        for wrong in ["", "a", "5-", "9-8", "1,,2"] {
            assert!(id_ranges(wrong).is_err(), "{wrong}");
        }
    }
}

//! Every attack by name: who is faulty, what correct nodes must do, and how to make it.

use super::client::{
    ClientEquivocates, GoodFor, HostileOperations, PartialMac, RequestFlood, WildTimestamps,
};
use super::collusion::Collude;
use super::forgery::ForgeFiles;
use super::general::{FloodVictim, Mutate, Mute, Replay, SelectiveSilence};
use super::primary::{
    BatchSpam, Dawdle, Difference, Equivocate, ExhaustSequence, ForgeRequests, Misattribute,
    OrderAgain, PrepareOnly, ProposeTwice, SpoilTags, StarveClient, StarveReplicas, WithholdBodies,
    WrongDigest, WrongTime,
};
use super::state::{
    CorruptDonor, FetchFlood, NoCheckpoints, StaleDonor, WrongCheckpoints, WrongReads, WrongReplies,
};
use super::view_change::{JustInTime, Liar, Lie, NoNewView, Spurious, WrongNewView};
use super::voter::{DoubleVote, StrayVotes, VoteUnprepared};
use super::{Adversary, Both};
use bft_core::types::ClientId;
use std::fmt;

/// Who is faulty, and in which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The primary of view 0, and with f > 1 the next ones.
    Primary,
    /// Backups.
    Backup,
    /// The next primary, after the first one has crashed.
    NextPrimary,
    /// A client.
    Client,
    /// A client and the primary together.
    ClientAndPrimary,
    /// Two live copies of one replica, with the same keys.
    Twins,
    /// A replica that restarts without its log.
    Amnesiac,
    /// Not made of messages: covered elsewhere.
    Elsewhere(&'static str),
}

/// A behaviour, made anew for every principal that shows it.
pub type Make = fn() -> Box<dyn Adversary>;

/// One named attack.
pub struct Attack {
    /// B-nn.
    pub name: &'static str,
    /// What the faulty do.
    pub title: &'static str,
    /// Who they are.
    pub actor: Actor,
    /// What correct nodes must do.
    pub expected: &'static str,
    /// The least throughput, as a ratio to the fault-free run.
    pub floor: f64,
    /// What a faulty replica does.
    pub replica: Option<Make>,
    /// What a faulty client does.
    pub client: Option<Make>,
}

/// P7: the least ratio under any attack.
const WORST: f64 = 0.30;

const fn replica(
    name: &'static str,
    actor: Actor,
    title: &'static str,
    expected: &'static str,
    floor: f64,
    make: Make,
) -> Attack {
    Attack { name, title, actor, expected, floor, replica: Some(make), client: None }
}

const fn client(
    name: &'static str,
    title: &'static str,
    expected: &'static str,
    floor: f64,
    make: Make,
) -> Attack {
    Attack { name, title, actor: Actor::Client, expected, floor, replica: None, client: Some(make) }
}

const fn harness(
    name: &'static str,
    actor: Actor,
    title: &'static str,
    expected: &'static str,
) -> Attack {
    Attack { name, title, actor, expected, floor: WORST, replica: None, client: None }
}

const DEPOSED: &str = "the primary is deposed; nothing diverges";
const HARMLESS: &str = "refused or ignored; no view change";
const NET: &str = "bft-net/tests/adversary.rs, bft-net/tests/hub.rs";
const HANDSHAKE: &str = "bft-net/tests/handshake.rs";

/// The catalogue.
pub const ATTACKS: &[Attack] = &[
    replica(
        "crash",
        Actor::Backup,
        "f backups are silent",
        "f crashed backups cost nothing",
        0.90,
        || Box::new(Mute),
    ),
    replica("crash-primary", Actor::Primary, "the primary is silent", DEPOSED, WORST, || {
        Box::new(Mute)
    }),
    replica(
        "B-01",
        Actor::Primary,
        "equivocates: different requests for each half",
        DEPOSED,
        WORST,
        || Box::new(Equivocate::new(Difference::Requests)),
    ),
    replica("B-02", Actor::Primary, "equivocates on order or time only", DEPOSED, WORST, || {
        Box::new(Both(
            Box::new(Equivocate::new(Difference::Order)),
            Box::new(Equivocate::new(Difference::Time)),
        ))
    }),
    replica(
        "B-03",
        Actor::Primary,
        "names requests and withholds them",
        "no vote without the bodies; fetched from clients, or deposed",
        WORST,
        || Box::new(WithholdBodies),
    ),
    replica("B-04", Actor::Primary, "digests that fit no body", DEPOSED, WORST, || {
        Box::new(WrongDigest)
    }),
    replica(
        "B-05",
        Actor::Primary,
        "sequence numbers outside the window, and gaps",
        DEPOSED,
        WORST,
        || Box::new(ExhaustSequence),
    ),
    replica(
        "B-06",
        Actor::Primary,
        "a second batch at the same place",
        "the first accepted stands",
        WORST,
        || Box::new(ProposeTwice),
    ),
    replica(
        "B-07",
        Actor::Primary,
        "every batch just under the timeout",
        "deposed by the monitor",
        WORST,
        || Box::new(Dawdle),
    ),
    replica(
        "B-08",
        Actor::Primary,
        "starves one client",
        "deposed by that client's timer",
        WORST,
        || Box::new(StarveClient(ClientId(0))),
    ),
    replica(
        "B-09",
        Actor::Primary,
        "starves f correct replicas and answers no client",
        "the starved catch up; clients finish",
        WORST,
        || Box::new(StarveReplicas),
    ),
    replica("B-10", Actor::Primary, "orders requests that no client made", DEPOSED, WORST, || {
        Box::new(ForgeRequests)
    }),
    replica(
        "B-11",
        Actor::Primary,
        "orders executed requests again",
        "executed once, answered from the table",
        WORST,
        || Box::<OrderAgain>::default(),
    ),
    replica("B-12", Actor::Primary, "agreed time far off", DEPOSED, WORST, || Box::new(WrongTime)),
    replica("B-13", Actor::Primary, "oversized and empty batches", "limits hold", WORST, || {
        Box::<BatchSpam>::default()
    }),
    Attack {
        name: "B-14",
        title: "a client authenticates to the primary and f backups only, and the primary helps it",
        actor: Actor::ClientAndPrimary,
        expected: "no safety loss; the client alone suffers",
        floor: WORST,
        replica: Some(|| Box::new(SpoilTags)),
        client: Some(|| Box::new(PartialMac::new(GoodFor::Weak))),
    },
    replica("B-15", Actor::Backup, "two votes in each phase", "one counts", WORST, || {
        Box::new(DoubleVote)
    }),
    replica(
        "B-16",
        Actor::Backup,
        "votes without a certificate, in others' names",
        HARMLESS,
        WORST,
        || Box::new(VoteUnprepared),
    ),
    replica("B-17", Actor::Backup, "selective silence", "progress", WORST, || {
        Box::<SelectiveSilence>::default()
    }),
    replica("B-18", Actor::Backup, "votes of the past and the far future", HARMLESS, WORST, || {
        Box::new(StrayVotes)
    }),
    replica(
        "B-19",
        Actor::Primary,
        "tags good for some backups only",
        "vouched for, or asked for signed; no divergence",
        WORST,
        || Box::new(SpoilTags),
    ),
    replica("B-20", Actor::Backup, "replays its own messages", HARMLESS, WORST, || {
        Box::new(Replay::new(false))
    }),
    replica("B-21", Actor::Backup, "floods one replica", "the victim keeps up", 0.50, || {
        Box::<FloodVictim>::default()
    }),
    replica(
        "B-22",
        Actor::Backup,
        "one field off by one, or of an earlier message",
        "as each field demands",
        WORST,
        || Box::<Mutate>::default(),
    ),
    harness(
        "B-23",
        Actor::Amnesiac,
        "a replica restarts with an empty disk",
        "counts towards f; mute until it has caught up",
    ),
    replica(
        "B-24",
        Actor::Backup,
        "VIEW-CHANGEs for no reason",
        "f are not enough: no view change",
        WORST,
        || Box::new(Spurious::near()),
    ),
    replica(
        "B-25",
        Actor::Backup,
        "VIEW-CHANGEs for views far ahead",
        "f are not enough: no view change",
        WORST,
        || Box::new(Spurious::far()),
    ),
    replica("B-26", Actor::NextPrimary, "forged P and Q", "what committed survives", WORST, || {
        Box::new(Liar(Lie::Claims))
    }),
    replica(
        "B-27",
        Actor::NextPrimary,
        "two claims for one place, and older views",
        "the higher view wins, with support",
        WORST,
        || Box::new(Liar(Lie::Twice)),
    ),
    replica(
        "B-28",
        Actor::NextPrimary,
        "one invalid entry among good ones",
        "only that message is discarded",
        WORST,
        || Box::new(Liar(Lie::Masked)),
    ),
    replica(
        "B-29",
        Actor::NextPrimary,
        "another VIEW-CHANGE for every receiver",
        "named by digest, fetched, decided alike",
        WORST,
        || Box::new(Liar(Lie::Each)),
    ),
    replica("B-30", Actor::Backup, "records and replays everything", HARMLESS, WORST, || {
        Box::new(Replay::new(true))
    }),
    replica(
        "B-31",
        Actor::NextPrimary,
        "an unproved or ancient checkpoint in its VIEW-CHANGE",
        "ignored without proof",
        WORST,
        || Box::new(Liar(Lie::Checkpoint)),
    ),
    replica(
        "B-32",
        Actor::NextPrimary,
        "a NEW-VIEW that does not follow from V",
        "recomputed and refused; next view",
        WORST,
        || Box::new(WrongNewView),
    ),
    replica(
        "B-33",
        Actor::NextPrimary,
        "no NEW-VIEW at all",
        "the next view; at most f in a row",
        WORST,
        || Box::new(NoNewView),
    ),
    replica(
        "B-34",
        Actor::NextPrimary,
        "NEW-VIEW just in time, then silence",
        "back-off resets on progress only",
        WORST,
        || Box::new(JustInTime),
    ),
    replica(
        "B-35",
        Actor::Backup,
        "wrong checkpoints, and many",
        "2f+1 alike are needed; bounded",
        WORST,
        || Box::<WrongCheckpoints>::default(),
    ),
    replica("B-36", Actor::Backup, "no checkpoints", "stable by the others", WORST, || {
        Box::new(NoCheckpoints)
    }),
    replica(
        "B-37",
        Actor::Backup,
        "damaged parts of state",
        "verified before installed; another donor",
        WORST,
        || Box::new(CorruptDonor),
    ),
    replica(
        "B-38",
        Actor::Backup,
        "old states, and claims of newer ones",
        "a certificate is required",
        WORST,
        || Box::<StaleDonor>::default(),
    ),
    replica("B-39", Actor::Backup, "asks for state without end", "rate limited", 0.50, || {
        Box::<FetchFlood>::default()
    }),
    harness("B-40", Actor::Elsewhere(NET), "a stolen client key", "that client's rights only"),
    harness("B-41", Actor::Twins, "a stolen replica key: two speakers", "as one faulty replica"),
    harness(
        "B-42",
        Actor::Elsewhere(HANDSHAKE),
        "old session keys, replayed handshakes",
        "refused",
    ),
    harness("B-43", Actor::Elsewhere(HANDSHAKE), "low-order points", "refused"),
    harness("B-44", Actor::Elsewhere(NET), "an outsider on the network", "correct traffic goes on"),
    harness(
        "B-45",
        Actor::Elsewhere("bft-core/src/auth.rs: Tag compares in constant time"),
        "timing of the MAC check",
        "constant time",
    ),
    harness(
        "B-46",
        Actor::Elsewhere("out of promise: the relay answers for its own users"),
        "a compromised relay",
        "never others' data",
    ),
    replica(
        "B-47",
        Actor::Backup,
        "wrong and stale answers to reads",
        "2f+1 must match, else an ordered retry",
        WORST,
        || Box::<WrongReads>::default(),
    ),
    replica(
        "B-48",
        Actor::Backup,
        "wrong replies, large ones withheld",
        "2f+1 must match; another replier",
        WORST,
        || Box::new(WrongReplies),
    ),
    replica(
        "B-49",
        Actor::Primary,
        "lets batches prepare, never commit, and lies about it",
        "no reply on fewer than 2f+1; undone correctly",
        WORST,
        || Box::new(PrepareOnly),
    ),
    client(
        "B-50",
        "one timestamp, another operation for every replica",
        "one executes, the same everywhere",
        0.75,
        || Box::new(ClientEquivocates),
    ),
    client("B-51", "timestamps from nowhere", "only its own session suffers", 0.75, || {
        Box::new(WildTimestamps)
    }),
    client("B-52", "floods requests and never listens", "quotas", 0.75, || {
        Box::<RequestFlood>::default()
    }),
    client("B-53", "operations at every limit", "typed errors, the same everywhere", 0.75, || {
        Box::new(HostileOperations::extreme())
    }),
    harness("B-54", Actor::Elsewhere(NET), "slow-loris connections", "deadlines"),
    harness(
        "B-55",
        Actor::Elsewhere("bft-core/tests, bfs-fs/src/tests/hostile.rs"),
        "malformed encodings",
        "refused without a panic",
    ),
    client(
        "B-56",
        "hostile operations on the tree",
        "POSIX errors; the tree stays sound",
        0.75,
        || Box::new(HostileOperations::malicious()),
    ),
    harness(
        "B-57",
        Actor::Elsewhere("bfs-fs/src/tests/access.rs"),
        "spoofed identities",
        "denied by the state machine",
    ),
    replica(
        "forged-files",
        Actor::Backup,
        "forged contents and attributes of files in every answer",
        "2f+1 must match: outvoted",
        WORST,
        || Box::new(ForgeFiles),
    ),
    replica(
        "collude",
        Actor::Primary,
        "equivocates, and votes for whatever each one believes",
        DEPOSED,
        WORST,
        || Box::<Collude>::default(),
    ),
    replica(
        "misattribute",
        Actor::Primary,
        "says of requests named by digest that they are the administrator's",
        "a request is whose it says itself; nothing diverges",
        WORST,
        || Box::new(Misattribute),
    ),
    client(
        "bad-mac",
        "tags good for the primary only",
        "vouched for or signed; others unaffected",
        0.90,
        || Box::new(PartialMac::new(GoodFor::Primary)),
    ),
    client(
        "reverse-mac",
        "tags good for the backups only",
        "the primary keeps its place",
        0.90,
        || Box::new(PartialMac::new(GoodFor::Backups)),
    ),
    harness(
        "twins",
        Actor::Twins,
        "two live copies of one replica under partitions",
        "as one faulty replica",
    ),
];

/// There is no attack of that name.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownAttack(String);

impl fmt::Display for UnknownAttack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = ATTACKS.iter().map(|attack| attack.name).collect();
        write!(f, "there is no attack called {}; choose one of: {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownAttack {}

/// The attack called `name`.
///
/// Errors: the names that there are.
pub fn by_name(name: &str) -> Result<&'static Attack, UnknownAttack> {
    let found = ATTACKS.iter().find(|attack| attack.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| UnknownAttack(name.to_owned()))
}

/// The attacks that a faulty replica can make with messages.
pub fn of_replicas() -> impl Iterator<Item = (&'static Attack, Make)> {
    ATTACKS.iter().filter(|attack| attack.name != "B-14").filter_map(|a| Some((a, a.replica?)))
}

/// The attacks that a faulty client can make.
pub fn of_clients() -> impl Iterator<Item = (&'static Attack, Make)> {
    ATTACKS.iter().filter_map(|attack| Some((attack, attack.client?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        for attack in ATTACKS {
            assert_eq!(by_name(attack.name).map(|found| found.title), Ok(attack.title));
            let made = attack.replica.is_some() || attack.client.is_some();
            let harness =
                matches!(attack.actor, Actor::Twins | Actor::Amnesiac | Actor::Elsewhere(_));
            assert!(made != harness, "{} is made once", attack.name);
        }
        let error = by_name("B-99").err().expect("no such attack").to_string();
        assert!(error.contains("B-99") && error.contains("B-01"));
    }

    #[test]
    fn the_whole_catalogue_is_there() {
        for k in 1..=57 {
            assert!(by_name(&format!("B-{k:02}")).is_ok(), "B-{k:02}");
        }
    }
}

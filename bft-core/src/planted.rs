//! Bugs planted on purpose, to see that the simulator's oracles catch them: who tests the tests.
//!
//! Each is one line where the bug would live: `planted(Planted::X)` is false for ever, and compiles to nothing, unless the
//! cargo feature `planted` is on, which only `./x sim --planted` and its test turn on. There, a thread carries at most one.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// A bug that a system of this family had, or that a schedule found on paper would make one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Planted { $(#[doc = $text] $name,)* }

        impl Planted {
            /// Every one of them.
            pub const ALL: &'static [Planted] = &[$(Planted::$name,)*];

            /// Its name in code and reports.
            pub const fn name(self) -> &'static str {
                match self { $(Planted::$name => stringify!($name),)* }
            }

            /// What is wrong.
            pub const fn title(self) -> &'static str {
                match self { $(Planted::$name => $text,)* }
            }
        }
    };
}

bugs! {
    QuorumOfTwoF => "a quorum is 2f",
    DigestUnchecked => "votes count whatever digest they are for",
    HighestViewWins => "the highest view wins without A2: a claim needs no support",
    LowerViewWins => "of two claims for one place the lower view wins",
    InvalidClaimMasks => "a claim without support hides the valid ones for its place",
    PreparedDropped => "P is dropped at a view change",
    ClaimClearsHistory => "P and Q are cleared by f+1 claims of commitment",
    SecondNewView => "a NEW-VIEW is made before its batches are here, and again with the VIEW-CHANGEs that came meanwhile",
    LeaversNotCounted => "who has sent VIEW-CHANGE does not count among those who suspect the primary",
    ProofForgotten => "a restart forgets the VIEW-CHANGEs that its NEW-VIEW names",
    ViewChangesUnbounded => "every VIEW-CHANGE for a future view is kept, however many",
    TimerNeverDoubles => "the view timer never doubles",
    TimerNeverResets => "the view timer is never reset by progress",
    TimerStopsTentatively => "view timers stop on tentative execution",
    NamingManyDemotesNobody => "naming more clients than a VIEW-CHANGE holds demotes nobody",
    LaneTwice => "a batch may name a client's slot twice, which every backup refuses",
    CommitsAreClaims => "f+1 COMMITs are taken for a claim of commitment",
    CheckpointOnWeak => "a checkpoint is stable on f+1 signatures",
    SignerCountsTwice => "one signer counts twice in a certificate",
    SignatureUnchecked => "a CHECKPOINT's signature is not held against the replica it names",
    CertificateOutsideWindow => "a certificate beyond the high water mark is refused as votes there are, by those who need it",
    AheadUnbounded => "every CHECKPOINT beyond the window is kept, however many",
    TailUnbounded => "the tail of the log never loses its oldest batch",
    TailMisaligned => "the log's tail is not broken by a gap, so that it serves batches under wrong numbers",
    TableLostInTransfer => "the slot table is lost in a state transfer",
    TableLostAtRestart => "the slot table is lost at a restart, so that duplicates execute again",
    PartUnverified => "an object of a fetched state is not checked against its digest",
    DeadDonor => "a donor that does not answer is asked again and again",
    UnmutedAtOnce => "a replica that lost its memory speaks at once",
    UnmutedIntoOldView => "a replica that lost its memory speaks again in the view in which it began",
    VoteBeforeDurable => "a vote leaves before its record is durable",
    TentativeReplyBeforeDurable => "a tentative reply leaves before P is durable",
    TimeUnchecked => "a proposed time is not held against the own clock",
    ClockWithoutSlack => "a proposed time may be late by the clocks' tolerance alone, not by a view timeout more",
    SenderUnchecked => "a request need not be of the client whose link brought it",
    ReferenceNamesTheClient => "a request named by digest is whose the primary says it is",
    SessionReplayed => "an older CREATE-SESSION begins its session again",
    RevokedStillServed => "a revoked client's session goes on",
    ReadsOnWeak => "a read is accepted on f+1 matching answers",
    ReadsWithoutVersion => "reads match by digest, without the version",
    AttemptReused => "a read attempt's number is used again",
    TentativeViewsMixed => "tentative replies of two views are counted together",
}

/// Whether `bug` is planted: never, in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_: Planted) -> bool {
    false
}

#[cfg(feature = "planted")]
std::thread_local! {
    static PLANTED: core::cell::Cell<Option<Planted>> = const { core::cell::Cell::new(None) };
}

/// Whether `bug` is planted in this thread.
#[cfg(feature = "planted")]
pub fn planted(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants `bug` in this thread, in place of the one before; `None` plants nothing.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Planted>) {
    PLANTED.set(bug);
}

#[cfg(all(test, not(feature = "planted")))]
const _: () = assert!(!planted(Planted::QuorumOfTwoF), "a build without the feature has no knob");

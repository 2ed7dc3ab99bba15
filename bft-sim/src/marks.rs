//! What a swarm must reach at least once: a mark that is never hit is a blind spot of the generator.

use serde::Serialize;
use std::collections::BTreeMap;

macro_rules! marks {
    ($($name:ident => $text:literal,)*) => {
        /// Something worth having happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Mark { $(#[doc = $text] $name,)* }

        impl Mark {
            /// Every mark.
            pub const ALL: &[Mark] = &[$(Mark::$name,)*];

            /// What it means.
            pub fn as_str(self) -> &'static str {
                match self { $(Mark::$name => $text,)* }
            }
        }
    };
}

marks! {
    ClientRegistered => "a client was registered that the group did not begin with",
    ClientRevoked => "a client was revoked",
    Suspected => "a backup lost patience with its primary",
    NewViewEntered => "a view began by a NEW-VIEW",
    ViewChangeDuringViewChange => "a replica gave up a view that had not begun",
    HighView => "view 3 or a later one was reached",
    BatchReproposed => "a NEW-VIEW carried a batch over",
    NullRequest => "a NEW-VIEW filled a place with a null request",
    EmptyNewView => "a NEW-VIEW carried nothing over",
    LargeNewViewSet => "a NEW-VIEW named more than 2f+1 VIEW-CHANGEs",
    CommittedReproposed => "a batch was proposed again that had executed",
    ViewChangeNamesClient => "a VIEW-CHANGE named a client whose requests could not be checked",
    ViewChangeWithCheckpoint => "a VIEW-CHANGE carried a proved checkpoint",
    ViewChangeFetched => "a STATUS asked for a VIEW-CHANGE that a NEW-VIEW named",
    BatchFetched => "a batch was fetched by its digest",
    TransferDuringViewChange => "state was installed while a view had not begun",
    Transfer => "state was fetched and installed",
    TransferTwice => "one replica was left behind twice",
    WaterMarkHit => "something was refused outside the water marks",
    StableCheckpoint => "a checkpoint became stable",
    Decided => "a batch was decided on f+1 claims",
    AnsweredFromTable => "a request that had executed was answered again",
    TentativeReply => "a reply left before its batch had committed",
    TentativeRollback => "a tentative execution was undone",
    FastRead => "a read was answered without an order",
    OrderedRead => "a read had to be ordered",
    DigestReply => "a large result was answered by digest",
    SignedRequest => "a request was sent again, signed",
    ReferencedRequest => "a batch named a large request by digest",
    BatchOfMany => "a batch held several requests",
    EmptyBatch => "a batch without requests was proposed",
    BodyFetched => "a missing request was asked for",
    RestartWithLog => "a replica restarted with votes in its log",
    PrimaryRestarted => "the primary of its view restarted",
    UnsyncedLost => "a crash lost records that were not durable",
    AllCut => "every replica lost power at once",
    Wiped => "a replica came back with an empty disk",
    WipedRecovered => "a wiped replica spoke again",
    Paused => "a replica stood still for a while",
    Clogged => "a link held everything back for a while",
    Partitioned => "some links were cut for a while",
    ClockJumped => "a clock jumped or drifted",
    ConflictingVote => "two votes of one replica were told apart",
    ConflictingPrePrepare => "two batches for one place were told apart",
    WrongPart => "a part of the state did not fit its digest",
    BadSignature => "a false signature was refused",
    WrongView => "a message of another view was refused",
    AskedTooOften => "a STATUS came too soon",
    SlotConflict => "one seq was used for two requests",
    TwoByzantine => "two replicas lied at once",
    TwinsActive => "two copies of one replica were alive",
    ByzantineClient => "a client lied",
    ByzantinePrimary => "the primary of view 0 lied",
}

/// How often each mark was hit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Marks(pub BTreeMap<Mark, u64>);

impl Marks {
    /// It has happened.
    pub fn hit(&mut self, mark: Mark) {
        *self.0.entry(mark).or_default() += 1;
    }

    /// It has happened if `so`.
    pub fn hit_if(&mut self, so: bool, mark: Mark) {
        if so {
            self.hit(mark);
        }
    }

    /// Adds what another world has reached.
    pub fn add(&mut self, other: &Marks) {
        for (mark, count) in &other.0 {
            *self.0.entry(*mark).or_default() += count;
        }
    }

    /// What was never reached.
    pub fn missed(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|mark| !self.0.contains_key(mark)).collect()
    }
}

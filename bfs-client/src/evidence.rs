//! What speaks against each replica, weighed here: no replica's word is taken for another's.
//!
//! Proved is what a signed proof shows, what f+1 replicas hold against it, one of them correct, and what this machine's own
//! mounts have seen: replies that a quorum refuted. What fewer say, and a primary that was given up, makes it suspected.

use bft_core::evidence::{Accusation, Misdeed, Proof};
use bft_core::types::{ClusterSize, ReplicaId};
use serde::Serialize;
use std::time::Duration;

/// For how long a replica is suspected because it was given up as the primary.
const RECENT: Duration = Duration::from_secs(60);

/// What the evidence amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing speaks against it.
    #[default]
    Clear,
    /// Too little to be sure.
    Suspected,
    /// No correct replica leaves this behind.
    Proved,
}

/// What speaks against one replica. The field names are a stable interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Signed messages of its own that contradict what it, or f+1 others, signed.
    pub proof: Option<String>,
    /// Who holds against it what no correct replica does.
    pub accused_by: Vec<Accuser>,
    /// Who has lost patience with it as the primary, within the last minute.
    pub given_up_by: Vec<u32>,
    /// Its replies to mounts of this machine that a quorum refuted, since it last connected.
    pub outvoted: u64,
    /// Whether something spoke against it before it was set up anew.
    pub before_recovery: bool,
    #[serde(skip)]
    judgement: Judgement,
}

/// One replica's accusation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accuser {
    /// i: who accuses.
    pub replica: u32,
    /// How often it saw a misdeed.
    pub misdeeds: u64,
    /// The last one, in words.
    pub last: String,
}

impl Evidence {
    /// What it amounts to.
    pub fn judgement(&self) -> Judgement {
        self.judgement
    }

    /// One line for people; nothing where nothing speaks against it.
    pub fn words(&self) -> Option<String> {
        let mut words: Vec<String> = self.proof.iter().cloned().collect();
        if self.outvoted > 0 {
            words.push(format!("{} of its replies outvoted here", self.outvoted));
        }
        for accuser in &self.accused_by {
            let Accuser { replica, misdeeds, last } = accuser;
            words.push(format!("r{replica} saw {misdeeds} misdeeds: it {last}"));
        }
        if !self.given_up_by.is_empty() {
            let by: Vec<_> = self.given_up_by.iter().map(|i| format!("r{i}")).collect();
            words.push(format!("given up as primary by {}", by.join(", ")));
        }
        if self.before_recovery {
            words.push("more from before it was set up anew".into());
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    fn judge(&mut self, size: ClusterSize) {
        let proved =
            self.proof.is_some() || self.outvoted > 0 || self.accused_by.len() >= size.weak();
        let suspected = !self.accused_by.is_empty() || !self.given_up_by.is_empty();
        self.judgement = match (proved, suspected) {
            (true, _) => Judgement::Proved,
            (false, true) => Judgement::Suspected,
            (false, false) => Judgement::Clear,
        };
    }
}

/// Weighs what each replica of a group of `size` holds against the others. `said` is by replica, empty for one that did not
/// answer; `outvoted` what this machine's mounts have seen, by replica; `holds` checks a proof.
pub fn weigh(
    size: ClusterSize,
    said: &[Vec<Accusation>],
    outvoted: &[u64],
    holds: impl Fn(&Proof) -> bool,
) -> Vec<Evidence> {
    let against = |accused: ReplicaId| {
        let mut evidence = Evidence {
            outvoted: outvoted.get(accused.index()).copied().unwrap_or(0),
            ..Evidence::default()
        };
        let held: Vec<(u32, &Accusation)> = said
            .iter()
            .zip(0..)
            .filter(|(_, by)| ReplicaId(*by) != accused)
            // A replica that accuses twice is heard once.
            .filter_map(|(all, by)| Some((by, all.iter().find(|a| a.replica == accused)?)))
            .collect();
        let recovered = held.iter().filter(|(_, a)| a.recovered).count() >= size.weak();
        for (by, accusation) in held {
            if recovered || accusation.recovered {
                evidence.before_recovery = true;
            } else {
                evidence.add(by, accusation, &holds);
            }
        }
        evidence.judge(size);
        evidence
    };
    size.replicas().map(against).collect()
}

impl Evidence {
    fn add(&mut self, by: u32, accusation: &Accusation, holds: impl Fn(&Proof) -> bool) {
        let proof = accusation.proof.as_ref();
        if let Some(proof) = proof.filter(|proof| proof.wrong.replica == accusation.replica)
            && self.proof.is_none()
            && holds(proof)
        {
            self.proof = Some(in_words(proof));
        }
        if let Some((misdeeds, last)) = accusation.misdeeds {
            let last: Misdeed = last;
            self.accused_by.push(Accuser { replica: by, misdeeds, last: last.to_string() });
        }
        if let Some((_, ago)) = accusation.given_up
            && Duration::from_millis(ago) < RECENT
        {
            self.given_up_by.push(by);
        }
    }
}

fn in_words(proof: &Proof) -> String {
    let n = proof.wrong.n;
    match proof.right.as_slice() {
        [own] if own.replica == proof.wrong.replica => format!("signed two states at n={n}"),
        others => {
            let others: Vec<_> = others.iter().map(|m| format!("{:?}", m.replica)).collect();
            format!("signed another state at n={n} than {}", others.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bft_core::auth::Signature;
    use bft_core::messages::Checkpoint;
    use bft_core::types::{Digest, SequenceNumber};

    fn size() -> ClusterSize {
        ClusterSize::new(4, 1).unwrap()
    }

    fn accusation(of: u32) -> Accusation {
        Accusation {
            replica: ReplicaId(of),
            misdeeds: Some((3, Misdeed::Contradiction)),
            given_up: None,
            recovered: false,
            proof: None,
        }
    }

    fn proof(of: u32, others: &[u32]) -> Proof {
        let signed = |i: u32, digest: u8| Checkpoint {
            n: SequenceNumber(128),
            digest: Digest([digest; 32]),
            replica: ReplicaId(i),
            signature: Signature([0; 64]),
        };
        Proof { wrong: signed(of, 9), right: others.iter().map(|i| signed(*i, 1)).collect() }
    }

    fn judged(said: &[Vec<Accusation>], outvoted: &[u64], holds: bool) -> Vec<Judgement> {
        let weighed = weigh(size(), said, outvoted, |_| holds);
        weighed.iter().map(Evidence::judgement).collect()
    }

    const NONE: Vec<Accusation> = Vec::new();
    use Judgement::{Clear, Proved, Suspected};

    #[test]
    fn a_liar_that_accuses_everybody_convinces_nobody() {
        let all: Vec<_> = (0..4).map(accusation).collect();
        // Repeated, with proofs that prove nothing, and against itself: all the same.
        let forged = |of: u32| Accusation { proof: Some(proof(of, &[0, 1])), ..accusation(of) };
        let lies = [all.clone(), all, (0..4).map(forged).collect()].concat();
        let said = [NONE, NONE, NONE, lies];
        assert_eq!(judged(&said, &[], false), [Suspected, Suspected, Suspected, Clear]);
    }

    #[test]
    fn f_plus_one_accusers_prove_it() {
        let said = [vec![accusation(2)], vec![accusation(2)], NONE, NONE];
        assert_eq!(judged(&said, &[], false), [Clear, Clear, Proved, Clear]);
        let words = weigh(size(), &said, &[], |_| false)[2].words().unwrap();
        assert!(words.contains("r0 saw 3 misdeeds: it contradicts itself"), "{words}");
    }

    #[test]
    fn a_proof_needs_no_second_accuser_but_must_hold_and_be_against_the_accused() {
        let with = |proof| Accusation { misdeeds: None, proof: Some(proof), ..accusation(2) };
        let said = [vec![with(proof(2, &[0, 1]))], NONE, NONE, NONE];
        assert_eq!(judged(&said, &[], true), [Clear, Clear, Proved, Clear]);
        assert_eq!(judged(&said, &[], false), [Clear; 4]);
        let words = weigh(size(), &said, &[], |_| true)[2].words().unwrap();
        assert_eq!(words, "signed another state at n=128 than r0, r1");
        let of_another = [vec![with(proof(3, &[3]))], NONE, NONE, NONE];
        assert_eq!(judged(&of_another, &[], true), [Clear; 4]);
    }

    #[test]
    fn a_primary_that_was_given_up_is_suspected_for_a_while_whoever_says_so() {
        let given_up =
            |ago| Accusation { misdeeds: None, given_up: Some((1, ago)), ..accusation(0) };
        let said = |ago| [NONE, vec![given_up(ago)], vec![given_up(ago)], vec![given_up(ago)]];
        assert_eq!(judged(&said(2_000), &[], false), [Suspected, Clear, Clear, Clear]);
        assert_eq!(judged(&said(70_000), &[], false), [Clear; 4]);
        let words = weigh(size(), &said(2_000), &[], |_| false)[0].words().unwrap();
        assert_eq!(words, "given up as primary by r1, r2, r3");
    }

    #[test]
    fn what_this_machine_has_seen_itself_proves_it() {
        let said = [NONE, NONE, NONE, NONE];
        assert_eq!(judged(&said, &[0, 0, 0, 5], false), [Clear, Clear, Clear, Proved]);
        let words = weigh(size(), &said, &[0, 0, 0, 5], |_| false)[3].words().unwrap();
        assert_eq!(words, "5 of its replies outvoted here");
    }

    #[test]
    fn what_was_before_it_was_set_up_anew_is_told_and_not_held_against_it() {
        let past = Accusation { recovered: true, ..accusation(2) };
        let said = [vec![past.clone()], vec![past], NONE, vec![accusation(2)]];
        // The last one is not told that r2 was set up anew, or does not care.
        assert_eq!(judged(&said, &[], false), [Clear; 4]);
        assert!(weigh(size(), &said, &[], |_| false)[2].before_recovery);
    }
}

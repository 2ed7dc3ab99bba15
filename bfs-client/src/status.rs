//! `bfs status`: the health of the group, computed here from every replica's own answer; no single one is trusted.

use crate::evidence::{Evidence, Judgement};
use crate::failure::{Exit, Failure, Outcome, say};
use bft_core::messages::Phase;
use bft_core::types::{ClusterSize, Digest, GroupId, ReplicaId, SequenceNumber, View};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `bfs status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// The group's public file
    #[arg(value_name = "GROUP", env = "BFS_GROUP")]
    pub group: PathBuf,
    /// The folder with this client's keys
    #[arg(long, value_name = "KEYDIR", env = "BFS_KEY")]
    pub key: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, env = "BFS_JSON")]
    pub json: bool,
}

/// What one replica says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// v: the view it is in.
    pub view: View,
    /// The last batch that it executed.
    pub last_executed: SequenceNumber,
    /// The last stable checkpoint.
    pub stable: SequenceNumber,
    /// The digest of the state at `stable`.
    pub stable_digest: Digest,
    /// Whether it votes, and if not, why.
    pub phase: Phase,
    /// From question to answer.
    pub latency: Duration,
}

/// One replica as this client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaHealth {
    /// i: which replica.
    pub id: ReplicaId,
    /// Where it is reached: `host:port`.
    pub address: String,
    /// Its answer; nothing if it did not give one in time.
    pub observation: Option<Observation>,
}

/// Every replica of a group, ascending by id, as this client sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Which group.
    pub group: GroupId,
    /// n and f.
    pub size: ClusterSize,
    /// K: a checkpoint every so many batches.
    pub checkpoint_interval: u64,
    /// One for each replica.
    pub replicas: Vec<ReplicaHealth>,
    /// What speaks against each of them.
    pub evidence: Vec<Evidence>,
}

/// The state of a group in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All n agree.
    Healthy,
    /// More than a quorum agrees, but not all; so many more may fail.
    Degraded {
        /// How many more replicas may fail before the group stalls.
        may_fail: usize,
    },
    /// Exactly a quorum agrees.
    NoSpare,
    /// Fewer than a quorum agree; nothing is lost.
    Stalled,
    /// More than f replicas must be faulty, whichever they are: more than the group is built to bear.
    Compromised,
}

impl Health {
    /// The exit code that goes with it.
    pub fn exit(self) -> Exit {
        match self {
            Health::Healthy => Exit::Fine,
            Health::Degraded { .. } | Health::NoSpare => Exit::Degraded,
            Health::Stalled => Exit::Stalled,
            Health::Compromised => Exit::Byzantine,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Healthy => "HEALTHY",
            Health::Degraded { .. } => "DEGRADED",
            Health::NoSpare => "NO SPARE",
            Health::Stalled => "STALLED",
            Health::Compromised => "COMPROMISED?",
        })
    }
}

/// How one replica stands to the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In the group's view, and less than a checkpoint interval behind a checkpoint that a correct replica vouches for.
    Agrees,
    /// A checkpoint interval or more behind such a checkpoint.
    Behind,
    /// In a lower or a higher view than the rest.
    OtherView,
    /// In the group's view, which has not begun there: it does not vote.
    ChangingView,
    /// Has lost its memory, and is mute until the group has passed whatever it may have said.
    Recovering,
    /// Holds another state than others do at the same checkpoint, who are too few to be believed.
    Differs,
    /// Agrees as far as can be seen, and something speaks against it.
    Suspected,
    /// There is evidence that no correct replica leaves behind.
    ProvedFaulty,
    /// Gave no answer.
    Unreachable,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Agrees => "agrees",
            Standing::Behind => "slow: a checkpoint or more behind",
            Standing::OtherView => "in another view",
            Standing::ChangingView => "changing view",
            Standing::Recovering => "recovering: mute until it cannot contradict itself",
            Standing::Differs => "suspected: its state differs",
            Standing::Suspected => "suspected",
            Standing::ProvedFaulty => "proved faulty",
            Standing::Unreachable => "unreachable",
        })
    }
}

/// How each replica stands, given what speaks `against` it. What only f of them say makes nobody else more than suspected,
/// and whoever is no more than that counts as agreeing.
///
/// They do not all answer at one moment: a working group may have a checkpoint between two answers, so that the first of
/// the two seems to be behind it. `checkpoint_interval` (K) is more than a correct group executes meanwhile.
pub fn standings(
    size: ClusterSize,
    checkpoint_interval: u64,
    observed: &[Option<Observation>],
    against: &[Judgement],
) -> Vec<Standing> {
    let answers: Vec<Observation> = observed.iter().flatten().copied().collect();
    let view = vouched(size, answers.iter().map(|o| o.view));
    let stable = vouched(size, answers.iter().map(|o| o.stable));
    let standing = |o: &Observation, against: Judgement| {
        if against == Judgement::Proved {
            Standing::ProvedFaulty
        } else if let Some(standing) = differs(size, o, &answers) {
            standing
        } else if o.phase == Phase::Recovering {
            Standing::Recovering
        } else if view != Some(o.view) {
            Standing::OtherView
        } else if o.phase == Phase::ChangingView {
            Standing::ChangingView
        } else if stable
            .is_some_and(|s| s.0.saturating_sub(o.last_executed.0) >= checkpoint_interval)
        {
            Standing::Behind
        } else if against == Judgement::Suspected {
            Standing::Suspected
        } else {
            Standing::Agrees
        }
    };
    let against = against.iter().copied().chain(std::iter::repeat(Judgement::Clear));
    let judged = observed.iter().zip(against);
    judged
        .map(|(o, against)| o.as_ref().map_or(Standing::Unreachable, |o| standing(o, against)))
        .collect()
}

/// The health of a group of `size` whose replicas answered `observed`, given what speaks `against` each.
pub fn health(
    size: ClusterSize,
    checkpoint_interval: u64,
    observed: &[Option<Observation>],
    against: &[Judgement],
) -> Health {
    let standings = standings(size, checkpoint_interval, observed, against);
    let proved = standings.iter().filter(|s| **s == Standing::ProvedFaulty).count();
    let agree = agreeing(observed, &standings);
    if proved + at_odds(observed, &standings) > size.f() {
        Health::Compromised
    } else if agree >= size.n() {
        Health::Healthy
    } else if agree > size.quorum() {
        Health::Degraded { may_fail: agree - size.quorum() }
    } else if agree == size.quorum() {
        Health::NoSpare
    } else {
        Health::Stalled
    }
}

/// The highest value that at least f+1 replicas reach, so that a correct one does; of fewer answers, the lowest.
fn vouched<T: Ord>(size: ClusterSize, values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    let place = size.f().min(values.len().checked_sub(1)?);
    values.into_iter().nth(place)
}

/// What it makes of `o` that others hold another state at the same checkpoint, if they do and fewer than f+1 hold that of
/// `o`: where f+1 others agree on one, a correct one does.
fn differs(size: ClusterSize, o: &Observation, answers: &[Observation]) -> Option<Standing> {
    let same_checkpoint: Vec<_> = answers.iter().filter(|other| other.stable == o.stable).collect();
    let alike = |digest| same_checkpoint.iter().filter(|a| a.stable_digest == digest).count();
    if alike(o.stable_digest) == same_checkpoint.len() || alike(o.stable_digest) >= size.weak() {
        return None;
    }
    let vouched = same_checkpoint.iter().any(|a| alike(a.stable_digest) >= size.weak());
    Some(if vouched { Standing::ProvedFaulty } else { Standing::Differs })
}

/// How many replicas must be faulty because they are at odds, besides those that are proved to be: correct ones hold one
/// state at a checkpoint, so of those that name one all but the largest party are. Nobody names two checkpoints.
///
/// One liar that names another state than the only correct replica there makes two that differ, and one at odds.
fn at_odds(observed: &[Option<Observation>], standings: &[Standing]) -> usize {
    let mut checkpoints: BTreeMap<SequenceNumber, BTreeMap<Digest, usize>> = BTreeMap::new();
    for (o, standing) in observed.iter().zip(standings) {
        if let Some(o) = o
            && *standing != Standing::ProvedFaulty
        {
            let parties = checkpoints.entry(o.stable).or_default();
            *parties.entry(o.stable_digest).or_default() += 1;
        }
    }
    let outside_the_largest = |parties: &BTreeMap<Digest, usize>| {
        parties.values().sum::<usize>() - parties.values().max().copied().unwrap_or(0)
    };
    checkpoints.values().map(outside_the_largest).sum()
}

/// How many replicas agree. Of those that differ, as many as must be faulty do not; which they are, nobody can tell.
fn agreeing(observed: &[Option<Observation>], standings: &[Standing]) -> usize {
    let count = |standing| standings.iter().filter(|s| **s == standing).count();
    let differ = count(Standing::Differs).saturating_sub(at_odds(observed, standings));
    count(Standing::Agrees) + count(Standing::Suspected) + differ
}

/// Asks every replica and prints what follows from the answers.
pub fn run(args: &StatusArgs) -> Outcome<Exit> {
    let key = args.key.clone().map_or_else(crate::keys::default_folder, Ok)?;
    let survey = crate::session::survey(&args.group, &key)?;
    let report = Report::new(&survey);
    match args.json {
        true => {
            let text = serde_json::to_string(&report)
                .map_err(|e| Failure::new("cannot print the status", e))?;
            say(text)?;
        }
        false => say(report.text().trim_end())?,
    }
    Ok(report.exit())
}

/// What is printed; the field names are a stable interface.
#[derive(Serialize)]
pub struct Report {
    group: String,
    health: String,
    replicas_total: usize,
    f: usize,
    quorum: usize,
    agreeing: usize,
    replicas_changing_view: usize,
    proved_faulty: usize,
    /// How many more replicas may fail before the group stalls.
    may_fail: usize,
    replicas: Vec<Row>,
    #[serde(skip)]
    verdict: Health,
    /// The highest view that a correct replica has reached.
    #[serde(skip)]
    view: Option<u64>,
}

#[derive(Serialize)]
struct Row {
    id: u32,
    address: String,
    reachable: bool,
    standing: String,
    primary: bool,
    view: Option<u64>,
    last_executed: Option<u64>,
    stable: Option<u64>,
    latency_us: Option<u64>,
    /// What speaks against it; nothing where nothing does.
    evidence: Option<Evidence>,
}

/// The last batch that a correct replica has executed: what only f claim does not count.
pub fn executed(survey: &Survey) -> Option<u64> {
    let observed = survey.replicas.iter().filter_map(|replica| replica.observation);
    vouched(survey.size, observed.map(|o| o.last_executed.0))
}

impl Report {
    /// What follows from the answers.
    pub fn new(survey: &Survey) -> Self {
        let size = survey.size;
        let observed: Vec<_> = survey.replicas.iter().map(|replica| replica.observation).collect();
        let against: Vec<_> = survey.evidence.iter().map(Evidence::judgement).collect();
        let interval = survey.checkpoint_interval;
        let standings = standings(size, interval, &observed, &against);
        let verdict = health(size, interval, &observed, &against);
        let view = vouched(size, observed.iter().flatten().map(|o| o.view));
        let count = |standing| standings.iter().filter(|s| **s == standing).count();
        let agreeing = agreeing(&observed, &standings);
        let primary = view.map(|view| size.primary(view));
        let rows = survey.replicas.iter().zip(&standings).enumerate();
        Self {
            group: survey.group.to_string(),
            health: verdict.to_string(),
            replicas_total: size.n(),
            f: size.f(),
            quorum: size.quorum(),
            agreeing,
            replicas_changing_view: count(Standing::ChangingView),
            may_fail: agreeing.saturating_sub(size.quorum()),
            replicas: rows
                .map(|(i, (replica, standing))| {
                    Row::new(replica, *standing, primary, survey.evidence.get(i))
                })
                .collect(),
            proved_faulty: count(Standing::ProvedFaulty),
            verdict,
            view: view.map(|view| view.0),
        }
    }

    /// The state of the group in one word.
    pub fn verdict(&self) -> Health {
        self.verdict
    }

    /// How a command that shows this ends: evidence that a replica lied comes first.
    pub fn exit(&self) -> Exit {
        match self.proved_faulty {
            0 => self.verdict.exit(),
            _ => Exit::Byzantine,
        }
    }

    /// The highest view that a correct replica has reached.
    pub fn view(&self) -> Option<u64> {
        self.view
    }

    /// How each replica stands, in words.
    pub fn standings(&self) -> Vec<String> {
        self.replicas.iter().map(|row| row.standing.clone()).collect()
    }

    /// A few lines for people.
    pub fn text(&self) -> String {
        let mut text = format!("group {} · {} · {}\n", self.group, self.health, self.meaning());
        for row in &self.replicas {
            let number = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
            let latency =
                row.latency_us.map_or("-".into(), |us| format!("{:.1} ms", us as f64 / 1000.0));
            text.push_str(&format!(
                "  r{:<3} {:<22} {:>9}  view {:<6} executed {:<10} stable {:<10} {}{}\n",
                row.id,
                row.address,
                latency,
                number(row.view),
                number(row.last_executed),
                number(row.stable),
                row.standing,
                if row.primary { " · primary" } else { "" },
            ));
            if let Some(words) = row.evidence.as_ref().and_then(Evidence::words) {
                text.push_str(&format!("       evidence: {words}\n"));
            }
        }
        text
    }

    fn meaning(&self) -> String {
        let agree = format!("{} of {} replicas agree", self.agreeing, self.replicas_total);
        match self.verdict {
            Health::Healthy => format!("{agree}; {} may fail", self.may_fail),
            Health::Degraded { may_fail } => format!("{agree}; {may_fail} more may fail"),
            Health::NoSpare => {
                format!("{agree}; if one more fails, the group stops until it is back")
            }
            Health::Stalled if self.replicas_changing_view > 0 => {
                format!(
                    "{agree}, {} are needed: the view is changing; nothing is lost",
                    self.quorum
                )
            }
            Health::Stalled => format!("{agree}, {} are needed; nothing is lost", self.quorum),
            Health::Compromised => {
                format!(
                    "more than f = {} replicas are proved faulty, or must be because states differ",
                    self.f
                )
            }
        }
    }
}

impl Row {
    fn new(
        replica: &ReplicaHealth,
        standing: Standing,
        primary: Option<ReplicaId>,
        evidence: Option<&Evidence>,
    ) -> Self {
        let o = replica.observation;
        Self {
            id: replica.id.0,
            address: replica.address.clone(),
            reachable: o.is_some(),
            standing: standing.to_string(),
            primary: primary == Some(replica.id),
            view: o.map(|o| o.view.0),
            last_executed: o.map(|o| o.last_executed.0),
            stable: o.map(|o| o.stable.0),
            latency_us: o.map(|o| u64::try_from(o.latency.as_micros()).unwrap_or(u64::MAX)),
            evidence: evidence.filter(|evidence| evidence.words().is_some()).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 128;

    fn size(n: u32, f: u32) -> ClusterSize {
        ClusterSize::new(n, f).unwrap()
    }

    fn at(view: u64, executed: u64, stable: u64, digest: u8) -> Option<Observation> {
        Some(Observation {
            view: View(view),
            last_executed: SequenceNumber(executed),
            stable: SequenceNumber(stable),
            stable_digest: Digest([digest; 32]),
            phase: Phase::Active,
            latency: Duration::from_micros(1500),
        })
    }

    fn standings(
        size: ClusterSize,
        observed: &[Option<Observation>],
        against: &[Judgement],
    ) -> Vec<Standing> {
        super::standings(size, K, observed, against)
    }

    fn health(
        size: ClusterSize,
        observed: &[Option<Observation>],
        against: &[Judgement],
    ) -> Health {
        super::health(size, K, observed, against)
    }

    fn fine() -> Option<Observation> {
        at(0, 130, 128, 1)
    }

    #[test]
    fn the_words_of_a_group_of_four() {
        let health = |observed: &[_]| health(size(4, 1), observed, &[]);
        assert_eq!(health(&[fine(); 4]), Health::Healthy);
        assert_eq!(health(&[fine(), None, fine(), fine()]), Health::NoSpare);
        assert_eq!(health(&[fine(), None, None, fine()]), Health::Stalled);
        assert_eq!(health(&[None; 4]), Health::Stalled);
    }

    #[test]
    fn a_replica_whose_view_has_not_begun_does_not_count() {
        let health = |observed: &[_]| health(size(4, 1), observed, &[]);
        assert_eq!(health(&[None, fine(), fine(), fine()]), Health::NoSpare);
        let waits = fine().map(|o| Observation { phase: Phase::ChangingView, ..o });
        assert_eq!(health(&[fine(), waits, fine(), fine()]), Health::NoSpare);
        assert_eq!(health(&[fine(), waits, waits, fine()]), Health::Stalled);
    }

    #[test]
    fn the_words_of_a_group_of_seven() {
        let health = |down: usize| {
            let mut observed = [fine(); 7];
            observed[7 - down..].fill(None);
            health(size(7, 2), &observed, &[])
        };
        assert_eq!(health(0), Health::Healthy);
        assert_eq!(health(1), Health::Degraded { may_fail: 1 });
        assert_eq!(health(2), Health::NoSpare);
        assert_eq!(health(3), Health::Stalled);
    }

    #[test]
    fn one_replica_without_any_fault_to_bear_is_healthy_or_stalled() {
        assert_eq!(health(size(1, 0), &[fine()], &[]), Health::Healthy);
        assert_eq!(health(size(1, 0), &[None], &[]), Health::Stalled);
    }

    #[test]
    fn a_small_lag_is_agreement_and_a_checkpoint_behind_is_not() {
        let lagging =
            [at(0, 268, 256, 1), at(0, 263, 256, 1), at(0, 256, 256, 1), at(0, 128, 128, 9)];
        let standings = standings(size(4, 1), &lagging, &[]);
        assert_eq!(standings[..3], [Standing::Agrees; 3]);
        assert_eq!(standings[3], Standing::Behind);
        assert_eq!(health(size(4, 1), &lagging, &[]), Health::NoSpare);
    }

    #[test]
    fn who_answered_just_before_a_checkpoint_of_the_others_is_not_behind() {
        let moments = [
            at(0, 1152, 1152, 1),
            at(0, 1151, 1024, 9),
            at(0, 1151, 1024, 9),
            at(0, 1152, 1152, 1),
        ];
        assert_eq!(health(size(4, 1), &moments, &[]), Health::Healthy);
        let proved = [Judgement::Clear, Judgement::Clear, Judgement::Proved];
        assert_eq!(health(size(4, 1), &moments, &proved), Health::NoSpare, "not STALLED");
    }

    #[test]
    fn one_liar_cannot_make_the_others_look_behind_or_in_another_view() {
        let boast = [fine(), fine(), fine(), at(u64::MAX, u64::MAX, u64::MAX, 7)];
        let standings = standings(size(4, 1), &boast, &[]);
        assert_eq!(standings[..3], [Standing::Agrees; 3]);
        assert_eq!(standings[3], Standing::OtherView);
    }

    #[test]
    fn who_differs_at_the_same_checkpoint_from_f_plus_one_others_is_proved_faulty() {
        let one = [fine(), fine(), fine(), at(0, 130, 128, 2)];
        assert_eq!(standings(size(4, 1), &one, &[])[3], Standing::ProvedFaulty);
        let two = [fine(), None, None, at(0, 130, 128, 2)];
        let standings = standings(size(4, 1), &two, &[]);
        assert_eq!(standings[0], Standing::Differs, "nobody can tell which of the two");
        assert_eq!(standings[3], Standing::Differs);
        assert_eq!(health(size(4, 1), &one, &[]), Health::NoSpare);
    }

    #[test]
    fn more_differing_states_than_f_is_more_than_the_group_bears() {
        let three_ways = [fine(), fine(), at(0, 130, 128, 2), at(0, 130, 128, 3)];
        assert_eq!(health(size(4, 1), &three_ways, &[]), Health::Compromised);
        let halves = [fine(), fine(), at(0, 130, 128, 2), at(0, 130, 128, 2)];
        assert_eq!(health(size(4, 1), &halves, &[]), Health::Compromised);
        let five_alone = [1, 2, 3, 4, 5].map(|digest| at(0, 130, 128, digest));
        let observed = [&five_alone[..], &[None, None]].concat();
        assert_eq!(health(size(7, 2), &observed, &[]), Health::Compromised);
        assert_eq!(Health::Compromised.exit(), Exit::Byzantine);
    }

    #[test]
    fn one_liar_at_the_checkpoint_of_one_correct_replica_is_one_faulty_replica() {
        let observed = [at(0, 130, 0, 9), at(0, 130, 0, 9), fine(), at(0, 130, 128, 2)];
        let standings = standings(size(4, 1), &observed, &[]);
        assert_eq!(standings[..2], [Standing::Agrees; 2]);
        assert_eq!(standings[2..], [Standing::Differs; 2]);
        assert_eq!(health(size(4, 1), &observed, &[]), Health::NoSpare);
        let report = Report::new(&survey(&observed));
        assert_eq!((report.agreeing, report.exit()), (3, Exit::Degraded));
        // Once it is proved to lie, nothing speaks against the other one but its word.
        let proved = [Judgement::Clear, Judgement::Clear, Judgement::Clear, Judgement::Proved];
        assert_eq!(health(size(4, 1), &observed, &proved), Health::NoSpare);
    }

    #[test]
    fn liars_at_several_checkpoints_add_up() {
        let apart = |n| [at(0, 130, n, 1), at(0, 130, n, 2)];
        let two = [&apart(64)[..], &apart(128), &[at(0, 130, 0, 9); 3]].concat();
        assert_eq!(health(size(7, 2), &two, &[]), Health::NoSpare);
        let three = [&apart(64)[..], &apart(128), &apart(192), &[at(0, 130, 0, 9)]].concat();
        assert_eq!(health(size(7, 2), &three, &[]), Health::Compromised);
    }

    #[test]
    fn every_word_has_its_exit_code() {
        assert_eq!(Health::Healthy.exit(), Exit::Fine);
        assert_eq!(Health::Degraded { may_fail: 1 }.exit(), Exit::Degraded);
        assert_eq!(Health::NoSpare.exit(), Exit::Degraded);
        assert_eq!(Health::Stalled.exit(), Exit::Stalled);
    }

    fn survey(observed: &[Option<Observation>]) -> Survey {
        let replicas = observed.iter().zip(0..).map(|(observation, id)| ReplicaHealth {
            id: ReplicaId(id),
            address: format!("127.0.0.1:{}", 7100 + id),
            observation: *observation,
        });
        let replicas = replicas.collect();
        let evidence = vec![Evidence::default(); observed.len()];
        Survey {
            group: GroupId::default(),
            size: size(4, 1),
            checkpoint_interval: K,
            replicas,
            evidence,
        }
    }

    #[test]
    fn suspicion_costs_nobody_its_place_and_proof_does() {
        use Judgement::{Clear, Proved, Suspected};
        let observed = [fine(), fine(), fine(), None];
        let against = [Clear, Suspected, Proved, Proved];
        let standings = standings(size(4, 1), &observed, &against);
        assert_eq!(standings[..2], [Standing::Agrees, Standing::Suspected]);
        assert_eq!(standings[2..], [Standing::ProvedFaulty, Standing::Unreachable]);
        let health = |against: &[_]| health(size(4, 1), &[fine(); 4], against);
        assert_eq!(health(&[Suspected; 4]), Health::Healthy);
        assert_eq!(health(&[Clear, Clear, Proved, Clear]), Health::NoSpare);
        assert_eq!(health(&[Clear, Clear, Proved, Proved]), Health::Compromised);
    }

    #[test]
    fn evidence_is_printed_under_its_replica_and_decides_the_exit_code() {
        let mut survey = survey(&[fine(); 4]);
        assert_eq!(Report::new(&survey).exit(), Exit::Fine);
        survey.evidence = crate::evidence::weigh(survey.size, &[], &[0, 0, 7, 0], |_| false);
        let report = Report::new(&survey);
        assert_eq!(report.exit(), Exit::Byzantine);
        let text = report.text();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[3].ends_with("proved faulty"), "{text}");
        assert_eq!(lines[4].trim(), "evidence: 7 of its replies outvoted here");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["proved_faulty"], 1);
        assert_eq!(json["replicas"][2]["evidence"]["outvoted"], 7);
        assert_eq!(json["replicas"][1]["evidence"], serde_json::Value::Null);
    }

    #[test]
    fn the_printed_report_names_the_dead_and_the_primary() {
        let text =
            Report::new(&survey(&[at(1, 9, 0, 1), at(1, 9, 0, 1), at(1, 9, 0, 1), None])).text();
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].starts_with("group 0000-0000 · NO SPARE · 3 of 4 replicas agree"),
            "{text}"
        );
        assert!(lines[2].ends_with("· primary") && !lines[1].contains("primary"), "{text}");
        assert!(lines[4].ends_with("unreachable"), "{text}");
    }

    #[test]
    fn the_json_names_stay() {
        let report =
            serde_json::to_value(Report::new(&survey(&[fine(), fine(), fine(), None]))).unwrap();
        assert_eq!(report["health"], "NO SPARE");
        assert_eq!(report["agreeing"], 3);
        assert_eq!(report["quorum"], 3);
        let row = &report["replicas"][3];
        assert_eq!(row["reachable"], false);
        assert_eq!(row["view"], serde_json::Value::Null);
        assert_eq!(report["replicas"][0]["latency_us"], 1500);
    }
}

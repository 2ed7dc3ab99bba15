//! What a lab replica is told and what it tells: the files `attack` and `lab.json` in its folder.

use crate::wire::Scene;
use bft_core::messages::Message;
use bft_core::types::Peer;
use bft_sim::adversary::Envelope;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the file with the order is looked at, and how often the other one is written.
pub const LOOK: Duration = Duration::from_millis(50);
/// The longest order: a name and the ids of accomplices.
const ORDER_MAX: usize = 256;

/// What the replica is to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// The name of an attack; nothing to be honest.
    pub attack: Option<String>,
    /// Who is faulty besides.
    pub accomplices: Vec<u32>,
}

/// `NAME [ID…]`; an empty file orders honesty.
fn parse(text: &str) -> Order {
    let mut words = text.split_whitespace();
    let attack = words.next().map(str::to_owned);
    Order { attack, accomplices: words.filter_map(|word| word.parse().ok()).collect() }
}

/// What the adversary has done since the attack began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Messages changed or made up.
    pub forged: u64,
    /// Those of them that went to clients.
    pub forged_replies: u64,
    /// Messages that were not sent.
    pub withheld: u64,
    /// Messages that were sent late.
    pub delayed: u64,
    /// Messages that it would not hear.
    pub ignored: u64,
}

impl Tally {
    /// `message` was to go to `to`, and became `wire`.
    pub fn note(&mut self, to: Peer, message: &Message, wire: &[Envelope]) {
        let told = |sent: &&Envelope| sent.to == to && sent.message == *message;
        match wire.iter().find(told) {
            None if wire.is_empty() => self.withheld += 1,
            None => {}
            Some(sent) => self.delayed += u64::from(!sent.delay.is_zero()),
        }
        let once = usize::from(wire.iter().any(|sent| told(&sent)));
        // What is said once as it should be is honest; whatever else there is, is not.
        self.forged += (wire.len() - once) as u64;
        let to_clients = |sent: &&Envelope| matches!(sent.to, Peer::Client(_)) && !told(sent);
        self.forged_replies += wire.iter().filter(to_clients).count() as u64;
    }

    /// `wire` answers to nothing that the replica wanted to say.
    pub fn made_up(&mut self, wire: &[Envelope]) {
        self.forged += wire.len() as u64;
        let to_clients = |sent: &&Envelope| matches!(sent.to, Peer::Client(_));
        self.forged_replies += wire.iter().filter(to_clients).count() as u64;
    }
}

/// lab.json. The field names are what `bfs drill` reads.
#[derive(Serialize)]
struct Told<'a> {
    pid: u32,
    group: &'a str,
    replica: u32,
    n: usize,
    f: usize,
    attack: Option<&'a str>,
    refused: Option<&'a str>,
    #[serde(flatten)]
    tally: &'a Tally,
}

/// The two files.
pub struct Control {
    order: PathBuf,
    told: PathBuf,
    group: String,
    replica: u32,
    n: usize,
    f: usize,
    attack: Option<&'static str>,
    refused: Option<String>,
    /// The last order that was read.
    text: String,
    next: Instant,
    last: Option<Tally>,
}

impl Control {
    /// An order from an earlier life of the replica is forgotten.
    pub fn begin(scene: &Scene<'_>) -> io::Result<Self> {
        let order = scene.dir.join("attack");
        match fs::remove_file(&order) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let size = scene.group.size();
        let control = Self {
            order,
            told: scene.dir.join("lab.json"),
            group: scene.group.id().to_string(),
            replica: scene.me.0,
            n: size.n(),
            f: size.f(),
            attack: None,
            refused: None,
            text: String::new(),
            next: Instant::now(),
            last: None,
        };
        control.write(&Tally::default())?;
        Ok(control)
    }

    /// When there is something to look at.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// A new order, if there is one.
    pub fn look(&mut self, now: Instant) -> Option<Order> {
        if now < self.next {
            return None;
        }
        let text = read(&self.order);
        if text == self.text {
            return None;
        }
        self.text = text;
        Some(parse(&self.text))
    }

    /// What runs from now on, or why what was ordered does not.
    pub fn set(&mut self, attack: Option<&'static str>, refused: Option<String>) {
        if let Some(why) = &refused {
            tracing::error!("cannot attack: {why}");
        }
        (self.attack, self.refused, self.last) = (attack, refused, None);
    }

    /// Writes down what was done, if it is time and there is something new.
    pub fn tell(&mut self, now: Instant, tally: &Tally) {
        if now < self.next {
            return;
        }
        self.next = now + LOOK;
        if self.last.as_ref() != Some(tally) {
            match self.write(tally) {
                Ok(()) => self.last = Some(tally.clone()),
                Err(error) => tracing::error!("cannot write {}: {error}", self.told.display()),
            }
        }
    }

    fn write(&self, tally: &Tally) -> io::Result<()> {
        let told = Told {
            pid: std::process::id(),
            group: &self.group,
            replica: self.replica,
            n: self.n,
            f: self.f,
            attack: self.attack,
            refused: self.refused.as_deref(),
            tally,
        };
        replace(&self.told, &told)
    }
}

/// Writes `told` to `path`, so that whoever reads it sees what was there before or all of it.
pub fn replace(path: &Path, told: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(told)?)?;
    fs::rename(new, path)
}

/// Only what an order can be is read; nothing is an order to be honest.
fn read(path: &Path) -> String {
    let small = fs::metadata(path).is_ok_and(|file| file.len() <= ORDER_MAX as u64);
    if small { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A file that stays behind names a process that is gone.
        let _ = fs::remove_file(&self.told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bft_core::messages::{Commit, Prepare};
    use bft_core::types::{ClientId, Digest, ReplicaId, SequenceNumber, View};

    #[test]
    fn orders_are_a_name_and_accomplices() {
        let order = |attack: Option<&str>, accomplices: &[u32]| Order {
            attack: attack.map(str::to_owned),
            accomplices: accomplices.to_vec(),
        };
        assert_eq!(parse("B-09 5 6\n"), order(Some("B-09"), &[5, 6]));
        assert_eq!(parse(" \n"), order(None, &[]));
    }

    #[test]
    fn what_is_said_once_as_it_should_be_is_honest() {
        let message = Message::Prepare(Prepare {
            view: View(0),
            n: SequenceNumber(1),
            digest: Digest([1; 32]),
        });
        let other = Message::Commit(Commit {
            view: View(0),
            n: SequenceNumber(1),
            digest: Digest([1; 32]),
        });
        let to = Peer::Replica(ReplicaId(1));
        let sent = |delay, to, message: &Message| Envelope {
            delay: Duration::from_millis(delay),
            to,
            message: message.clone(),
        };
        let mut tally = Tally::default();
        tally.note(to, &message, &[sent(0, to, &message)]);
        assert_eq!(tally, Tally::default());
        tally.note(to, &message, &[]);
        tally.note(to, &message, &[sent(5, to, &message)]);
        tally.note(to, &message, &[sent(0, to, &other)]);
        tally.note(to, &message, &[sent(0, to, &message), sent(0, to, &message)]);
        tally.made_up(&[sent(0, Peer::Client(ClientId(0)), &other)]);
        let expected = Tally { forged: 3, forged_replies: 1, withheld: 1, delayed: 1, ignored: 0 };
        assert_eq!(tally, expected);
    }
}

//! A client that attacks: an honest session of its own keys, with an adversary between it and its links.

use super::control::{self, Tally};
use super::late::Late;
use bfs_fs::op::{Caller, FsOp, FsRequest, ROOT, encode_request};
use bft_core::auth::RealCrypto;
use bft_core::client::{Client, ClientConfig, ClientInput, ClientOutput};
use bft_core::codec;
use bft_core::messages::{Message, SessionId};
use bft_core::replica::Config;
use bft_core::types::{Peer, ReplicaId, Tick, Time};
use bft_net::group::Group;
use bft_net::hub::{Endpoint, Hub, HubConfig, Links};
use bft_net::keys::Identity;
use bft_sim::adversary::{self, Adversary, Context, Envelope, Knowledge, Replay, TICK};
use clap::Parser;
use fastrand::Rng;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A client that attacks its own group, until it is stopped. For labs only.
#[derive(Parser)]
#[command(name = "bfs-client-lab", version)]
struct Arguments {
    /// The group's public file
    #[arg(value_name = "GROUP")]
    group: PathBuf,
    /// The folder with this client's keys
    #[arg(long, value_name = "KEYDIR")]
    key: PathBuf,
    /// What it does, by the name in docs/attacks.md
    #[arg(long, value_name = "B-nn")]
    attack: String,
    /// Keep count of what it does in this file, as one JSON object
    #[arg(long, value_name = "FILE")]
    told: Option<PathBuf>,
}

/// How many operations it has under way: those of a busy program.
const UNDER_WAY: u64 = 4;

/// The adversary called `name`, as a client.
///
/// Errors: for people; it lists the names that there are.
fn find(name: &str) -> Result<Box<dyn Adversary>, String> {
    if name.eq_ignore_ascii_case("B-30") {
        // Whoever records and replays needs no part in the protocol.
        return Ok(Box::new(Replay::new(true)));
    }
    let of_clients = || adversary::ATTACKS.iter().filter(|attack| attack.client.is_some());
    let found = of_clients().find(|attack| attack.name.eq_ignore_ascii_case(name));
    found.and_then(|attack| attack.client).map(|make| make()).ok_or_else(|| {
        let names: Vec<_> = of_clients().map(|attack| attack.name).collect();
        format!("no attack of clients is called {name}; there are: {}, B-30", names.join(", "))
    })
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let refuse = |code: u8, why: String| {
        eprintln!("bfs-client-lab: {why}");
        ExitCode::from(code)
    };
    let adversary = match find(&arguments.attack) {
        Ok(adversary) => adversary,
        Err(why) => return refuse(2, why),
    };
    let loaded = Group::load(&arguments.group)
        .map_err(|error| error.to_string())
        .and_then(|group| Ok((group, Identity::load(&arguments.key).map_err(|e| e.to_string())?)));
    let (group, identity) = match loaded {
        Ok(loaded) => loaded,
        Err(why) => return refuse(6, why),
    };
    let Some(me @ Peer::Client(_)) = group.peer_of(&identity.public().link) else {
        return refuse(6, "these keys are not a client's of this group".into());
    };
    match serve(group, identity, me, adversary, arguments.told) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(1, error.to_string()),
    }
}

fn serve(
    group: Group,
    identity: Identity,
    me: Peer,
    adversary: Box<dyn Adversary>,
    told: Option<PathBuf>,
) -> std::io::Result<()> {
    let group = Arc::new(group);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut attacker = Attacker::new(&group, &identity, me, adversary);
    attacker.told = told;
    runtime.block_on(async {
        let hub = Hub::start(HubConfig { identity, group, me, listen: None }, attacker);
        hub.with(Attacker::open);
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        terminate.recv().await;
        hub.shutdown().await;
        Ok(())
    })
}

struct Attacker {
    client: Client,
    me: Peer,
    knowledge: Knowledge,
    crypto: Arc<RealCrypto>,
    adversary: Box<dyn Adversary>,
    rng: Rng,
    started: Instant,
    next_tick: Instant,
    timer: Option<Tick>,
    late: Late,
    next_token: u64,
    tally: Tally,
    /// Where the tally goes, and when it last did.
    told: Option<PathBuf>,
    told_at: Instant,
}

impl Attacker {
    fn new(group: &Group, identity: &Identity, me: Peer, adversary: Box<dyn Adversary>) -> Self {
        let size = group.size();
        let crypto = Arc::new(RealCrypto::new(identity.signing_seed()));
        let Peer::Client(id) = me else { unreachable!("main has looked") };
        let client = Client::new(ClientConfig {
            group: group.id(),
            size,
            me: id,
            inline_bytes: Config::new(size, ReplicaId(0)).inline_bytes,
            retry: Duration::from_millis(400),
            retry_max: Duration::from_secs(4),
            crypto: crypto.clone(),
        });
        let knowledge = Knowledge {
            group: group.id(),
            size,
            clients: u32::try_from(group.clients.len()).unwrap_or(u32::MAX),
            checkpoint_interval: group.parameters.checkpoint_interval,
            window: group.parameters.window,
            view_timeout: Duration::from_millis(group.parameters.view_timeout_ms),
            accomplices: Vec::new(),
        };
        let mut seed = [0; 8];
        // Without entropy from the operating system even an attacker is better not started.
        getrandom::fill(&mut seed).expect("the operating system gives random numbers");
        let seed = u64::from_le_bytes(seed);
        Self {
            client,
            me,
            knowledge,
            crypto,
            adversary,
            rng: Rng::with_seed(seed),
            started: Instant::now(),
            next_tick: Instant::now() + TICK,
            timer: None,
            late: Late::default(),
            next_token: 0,
            tally: Tally::default(),
            told: None,
            told_at: Instant::now(),
        }
    }

    fn open(&mut self, links: &mut Links) {
        let epoch = u64::try_from(wall().as_nanos()).unwrap_or(u64::MAX);
        let session = SessionId { epoch, nonce: self.rng.u64(..) };
        self.input(ClientInput::Open(session), links);
    }

    fn tick(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn input(&mut self, input: ClientInput, links: &mut Links) {
        let mut outputs = Vec::new();
        self.client.handle(self.tick(), input, &mut outputs);
        for output in outputs {
            match output {
                ClientOutput::Send { to, message } => self.say(to, &message, links),
                ClientOutput::Broadcast(message) => {
                    self.knowledge.size.replicas().for_each(|to| self.say(to, &message, links));
                }
                ClientOutput::SetTimer(at) => self.timer = Some(at),
                ClientOutput::Opened => (0..UNDER_WAY).for_each(|_| self.ask(links)),
                // What the group makes of it is not its concern; it asks for more.
                ClientOutput::Done { .. } => self.ask(links),
                ClientOutput::Refused { .. } => {}
            }
        }
    }

    fn ask(&mut self, links: &mut Links) {
        self.next_token += 1;
        let caller = Caller { uid: 0, gid: 0, groups: Vec::new() };
        let op = encode_request(&FsRequest { caller, op: FsOp::GetAttributes { inode: ROOT } });
        self.input(ClientInput::Submit { token: self.next_token, op, read_only: false }, links);
    }

    fn say(&mut self, to: ReplicaId, message: &Message, links: &mut Links) {
        let to = Peer::Replica(to);
        let ((), wire) = self.act(|adversary, ctx| adversary.on_send(ctx, to, message.clone()));
        self.tally.note(to, message, &wire);
        self.send_all(wire, links);
    }

    fn act<R>(
        &mut self,
        act: impl FnOnce(&mut dyn Adversary, &mut Context<'_>) -> R,
    ) -> (R, Vec<Envelope>) {
        let mut wire = Vec::new();
        let mut ctx = Context {
            now: Tick(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)),
            wall: Time(u64::try_from(wall().as_nanos()).unwrap_or(u64::MAX)),
            me: self.me,
            group: &self.knowledge,
            crypto: &*self.crypto,
            rng: &mut self.rng,
            wire: &mut wire,
        };
        (act(&mut *self.adversary, &mut ctx), wire)
    }

    fn send_all(&mut self, wire: Vec<Envelope>, links: &mut Links) {
        for Envelope { delay, to, message } in wire {
            let mut frame = Vec::new();
            codec::encode(&message, &mut frame);
            self.late.hold(Instant::now() + delay, to, frame);
        }
        self.late.due(Instant::now(), |to, frame| links.send(to, frame));
    }

    fn tell(&mut self, now: Instant) {
        let Some(told) = self.told.as_ref().filter(|_| now >= self.told_at + control::LOOK) else {
            return;
        };
        self.told_at = now;
        let _ = control::replace(told, &self.tally);
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Endpoint for Attacker {
    fn on_frame(&mut self, from: Peer, frame: &[u8], links: &mut Links) {
        let Peer::Replica(replica) = from else { return };
        let Ok(message) = codec::decode(frame) else { return };
        let (heard, wire) = self.act(|adversary, ctx| adversary.on_receive(ctx, from, &message));
        self.tally.made_up(&wire);
        self.tally.ignored += u64::from(!heard);
        self.send_all(wire, links);
        if heard {
            self.input(ClientInput::Message(replica, message), links);
        }
    }

    fn on_link(&mut self, peer: Peer, up: bool, links: &mut Links) {
        if let (Peer::Replica(replica), true) = (peer, up) {
            self.input(ClientInput::Connected(replica), links);
        }
    }

    fn on_deadline(&mut self, links: &mut Links) {
        let now = Instant::now();
        self.late.due(now, |to, frame| links.send(to, frame));
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            let ((), wire) = self.act(|adversary, ctx| adversary.on_tick(ctx));
            self.tally.made_up(&wire);
            self.send_all(wire, links);
        }
        if self.timer.is_some_and(|at| at <= self.tick()) {
            self.timer = None;
            self.input(ClientInput::Timeout, links);
        }
        self.tell(now);
    }

    fn deadline(&self) -> Option<Instant> {
        let timer = self.timer.map(|at| self.started + Duration::from_micros(at.0));
        self.late.next().into_iter().chain(timer).chain([self.next_tick]).min()
    }
}

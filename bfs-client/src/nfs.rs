//! `bfs nfs`: serves a group to NFSv3 clients, NFS and MOUNT on one TCP port.
//!
//! ```text
//! connection.rs  records in, replies out, bounded      rpc.rs, xdr.rs  the head of a call; bytes
//! front.rs       a call becomes an operation           call.rs  its arguments      reply.rs  its results
//! mount.rs       MOUNT                                 handle.rs  handles      status.rs  errors
//! ```

mod call;
pub mod connection;
pub mod front;
pub mod handle;
mod mount;
mod reply;
mod rpc;
mod status;
pub mod xdr;

use self::connection::{Connection, MAX_ALL_BYTES, Room};
use self::front::{Front, Sender};
use self::handle::Keys;
use crate::backend::{Backend, Local};
use crate::failure::{Exit, Failure, Outcome};
use crate::mount_state::{self, LOOK, MountState, Remembered};
use crate::options::Patience;
use bfs_fs::op::{Caller, FsOp, FsReply, FsRequest, NOBODY};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// How many clients may be connected at once.
const MAX_CONNECTIONS: usize = 256;
/// The ports that only root of a machine may use.
const PRIVILEGED: std::ops::Range<u16> = 1..1024;
/// How long to wait when the system has no more sockets.
const NO_SOCKETS: Duration = Duration::from_millis(100);
/// Why clients must mount with `nolock`, and what that means.
const NO_LOCKS: &str = "locks: mount with nolock; they then hold on one client only (bfs mount has locks that hold for the group)";

/// Arguments of `bfs nfs`.
#[derive(Args, Clone, Debug)]
pub struct NfsArgs {
    /// The group's public file, as `bfs group create` wrote it
    #[arg(value_name = "GROUP", env = "BFS_GROUP", required_unless_present = "local")]
    pub group: Option<PathBuf>,
    /// The folder with this client's keys, as `bfs init` made it
    #[arg(long, value_name = "KEYDIR", env = "BFS_KEY")]
    pub key: Option<PathBuf>,
    /// Where to listen; port 0 takes any that is free
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "BFS_LISTEN",
        default_value = "127.0.0.1:20490"
    )]
    pub listen: SocketAddr,
    /// Serve only clients with this address, or with such a one; may be given several times
    #[arg(long, value_name = "ADDRESS[/PREFIX]", env = "BFS_ALLOW", value_delimiter = ',')]
    pub allow: Vec<Network>,
    /// Believe only clients on ports below 1024, which only root of their machine may use
    #[arg(long, env = "BFS_PRIVILEGED_PORT")]
    pub privileged_port: bool,
    /// Say in one line of JSON where it serves
    #[arg(long, env = "BFS_JSON")]
    pub json: bool,
    /// For development: a file system in this process's memory, without a group
    #[arg(long, hide = true)]
    pub local: bool,
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, bits: u32| {
            let differ = a ^ b;
            self.prefix == 0 || differ >> (bits - self.prefix) == 0
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let wrong =
            || format!("'{text}' is no address such as 10.0.0.7, or network such as 10.0.0.0/24");
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), |prefix| prefix.parse().map_err(|_| wrong()))?;
        if prefix <= bits { Ok(Self { address, prefix }) } else { Err(wrong()) }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Serves until a signal to stop, or until another process opens a session with the same keys.
///
/// Errors: as [`crate::session::connect`]; a mount of this machine uses the keys.
pub fn run(args: &NfsArgs) -> Outcome {
    let listener = TcpListener::bind(args.listen).map_err(|error| {
        Failure::new(format!("cannot listen on {}", args.listen), error)
            .advise("name another port with --listen")
    })?;
    // Decision 11. A kernel without huge pages needs no telling.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let cannot = |error: io::Error| Failure::new("cannot serve", error);
    let address = listener.local_addr().map_err(cannot)?;
    let (backend, group, client) = connect(args)?;
    let keys = keys(&*backend)?;
    let clients = args.allow.iter().map(Network::to_string).collect();
    let front = Arc::new(Front::new(backend.clone(), keys, clients));
    let lost = Arc::new(Notify::new());
    let server = Arc::new(Server {
        front,
        args: args.clone(),
        room: Room::new(MAX_ALL_BYTES),
        connections: Mutex::default(),
        next: AtomicU64::new(0),
        lost: lost.clone(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(cannot)?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let accepting = server.clone();
        let accept = thread::Builder::new().name("bfs-nfs-accept".into());
        accept.spawn(move || accepting.accept(&listener)).map_err(cannot)?;
        let remembered = client.map(|client| remember(group.clone(), client, address));
        let mut remembered = remembered.transpose()?;
        announce(args, address, &group).map_err(cannot)?;
        let mut look = tokio::time::interval(LOOK);
        let result = loop {
            tokio::select! {
                _ = interrupt.recv() => break Ok("Ctrl-C"),
                _ = terminate.recv() => break Ok("SIGTERM"),
                _ = lost.notified() => break Err(taken_over()),
                _ = look.tick() => if let Some(remembered) = &mut remembered {
                    remembered.note(backend.outvoted());
                },
            }
        };
        // Clients ask again until somebody answers: an error now would reach programs, silence does not.
        server.close_all();
        backend.fail_all();
        result.map(|signal| tracing::info!("stopped by {signal}"))
    })
}

/// Has other commands of this machine know of the proxy.
fn remember(group: String, client: String, address: SocketAddr) -> Outcome<Remembered> {
    let own = MountState::own(group, client)?;
    mount_state::forget_dead(&own.dir);
    MountState { listens: Some(address), ..own }.remember()
}

/// A backend that has answered once, the group's id in words, and the client's public key.
fn connect(args: &NfsArgs) -> Outcome<(Arc<dyn Backend>, String, Option<String>)> {
    let Some(file) = args.group.as_deref().filter(|_| !args.local) else {
        return Ok((Arc::new(Local::default()), "local".into(), None));
    };
    let key = args.key.clone().map_or_else(crate::keys::default_folder, Ok)?;
    let (id, client) = crate::session::who(file, &key)?;
    mount_state::expect_unmounted(&id.to_string(), &client, &key)?;
    // However long the group takes, clients wait.
    let (session, group) = crate::session::connect(file, &key, Patience::Hard)?;
    Ok((session, group.to_string(), Some(client)))
}

/// The keys that every proxy of the group derives from its secret. The first proxy ever proposes that secret.
fn keys(backend: &dyn Backend) -> Outcome<Keys> {
    let mut offer = [0; 32];
    let what = "cannot agree with the group on the key of its handles";
    getrandom::fill(&mut offer).map_err(|error| Failure::new(what, error))?;
    let caller = Caller { uid: NOBODY, gid: NOBODY, groups: Vec::new() };
    let (sender, receiver) = std::sync::mpsc::channel();
    let request = FsRequest { caller, op: FsOp::AgreeOnKey { offer } };
    backend.call(request, Box::new(move |result| drop(sender.send(result))));
    match receiver.recv() {
        Ok(Ok(FsReply::Key(secret))) => Ok(Keys::new(&secret)),
        Ok(Ok(_)) => Err(Failure::new(what, "it answered something else")),
        Ok(Err(error)) => Err(Failure::new(what, error)),
        Err(error) => Err(Failure::new(what, error)),
    }
}

fn taken_over() -> Failure {
    let why = "another process has opened a session with the same keys and serves in its place";
    Failure::new("stopped serving", why)
        .advise("give every proxy that is to serve at the same time keys of its own (bfs init)")
        .exit(Exit::Failed)
}

/// Says where it serves, how to mount that, and what to know about it.
fn announce(args: &NfsArgs, address: SocketAddr, group: &str) -> io::Result<()> {
    let (ip, port) = (address.ip(), address.port());
    if !ip.is_loopback() {
        tracing::warn!(
            "{ip} can be reached from outside this machine: NFSv3 neither encrypts nor proves who asks. \
             Name who may with --allow"
        );
    }
    let host = if ip.is_unspecified() { "HOST".into() } else { host(ip) };
    let command = format!(
        "mount -t nfs -o vers=3,tcp,port={port},mountport={port},mountproto=tcp,nolock,hard {host}:/ /mnt"
    );
    let mut out = io::stdout().lock();
    if args.json {
        let line = json!({
            "listen": address.to_string(), "port": port, "group": group, "export": "/", "mount": command,
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "serving {group} as NFSv3 and MOUNT on {address}, export /")?;
        writeln!(out, "  {command}")?;
        writeln!(out, "  {NO_LOCKS}")?;
        writeln!(out, "  stable means: in memory at 2f+1 replicas")?;
        writeln!(out, "Ctrl-C stops")?;
    }
    out.flush()
}

fn host(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

/// Everything that is served.
struct Server {
    front: Arc<Front>,
    args: NfsArgs,
    room: Arc<Room>,
    connections: Mutex<Connections>,
    next: AtomicU64,
    lost: Arc<Notify>,
}

#[derive(Default)]
struct Connections {
    open: BTreeMap<u64, (IpAddr, Arc<Connection>)>,
    closed: bool,
}

impl Connections {
    /// Ends one connection where there are too many, so that nobody is kept out by those who say nothing: of an address that has
    /// the most, the one that has been silent longest. Its client connects again when it needs to.
    fn make_place(&mut self) {
        if self.open.len() < MAX_CONNECTIONS {
            return;
        }
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.open.values().for_each(|(address, _)| *counts.entry(*address).or_default() += 1);
        let most = counts.values().max().copied();
        let of_the_busiest =
            self.open.iter().filter(|(_, (address, _))| counts.get(address).copied() == most);
        let silent = of_the_busiest.min_by_key(|(_, (_, connection))| connection.heard());
        if let Some((address, connection)) =
            silent.map(|(number, _)| *number).and_then(|number| self.open.remove(&number))
        {
            tracing::info!(
                "ended a connection of {address}, silent the longest, to let another in"
            );
            connection.close();
        }
    }
}

impl Server {
    /// Lets clients in until the process ends.
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept() {
                Ok((socket, peer)) => {
                    if let Err(why) = self.admit(socket, peer) {
                        tracing::warn!("turned away {peer}: {why}");
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot let a client in: {error}");
                    thread::sleep(NO_SOCKETS);
                }
            }
        }
    }

    /// Starts serving a client.
    ///
    /// Errors: why not.
    fn admit(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) -> Result<(), String> {
        let allow = &self.args.allow;
        if !allow.is_empty() && !allow.iter().any(|network| network.contains(peer.ip())) {
            return Err("--allow does not name it".into());
        }
        let connection = Connection::new(socket).map_err(|error| error.to_string())?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut connections = self.connections();
            if connections.closed {
                return Err("this process ends".into());
            }
            connections.make_place();
            connections.open.insert(number, (peer.ip(), connection.clone()));
        }
        let is_believed = !self.args.privileged_port || PRIVILEGED.contains(&peer.port());
        let sender = Sender { address: peer.ip(), is_believed };
        let server = self.clone();
        let serve = move || {
            let lost = server.lost.clone();
            let lost: Arc<dyn Fn() + Send + Sync> = Arc::new(move || lost.notify_one());
            if let Err(error) = connection.serve(&server.front, sender, &server.room, &lost) {
                tracing::info!("the connection of {peer} ended: {error}");
            }
            connection.close();
            server.connections().open.remove(&number);
        };
        let spawned = thread::Builder::new().name("bfs-nfs-reader".into()).spawn(serve);
        spawned.map(drop).map_err(|error| {
            self.connections().open.remove(&number);
            error.to_string()
        })
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every connection, and lets nobody in any more.
    fn close_all(&self) {
        let mut connections = self.connections();
        connections.closed = true;
        connections.open.values().for_each(|(_, connection)| connection.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_the_addresses_that_begin_like_them() {
        let within = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(within("10.1.2.3", "10.1.2.3") && !within("10.1.2.3", "10.1.2.4"));
        assert!(within("10.1.2.0/24", "10.1.2.255") && !within("10.1.2.0/24", "10.1.3.0"));
        assert!(within("0.0.0.0/0", "8.8.8.8") && !within("0.0.0.0/0", "::1"));
        assert!(within("fe80::/10", "fe80::1") && !within("fe80::/10", "2001::1"));
        assert!(within("10.0.0.0/8", "::ffff:10.9.9.9"), "an IPv4 client on an IPv6 socket");
        for wrong in ["", "host", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/x"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}

//! The tasks around an endpoint. Each waits without the lock and acts under it.

use crate::error::LinkError;
use crate::hub::{Endpoint, Shared, Wait};
use crate::link::{self, Reader};
use crate::noise::{self, Channel};
use bft_core::types::{Peer, ReplicaId};
use socket2::{SockRef, TcpKeepalive};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio::time::{sleep, sleep_until, timeout};

const FIRST_BACK_OFF: Duration = Duration::from_millis(20);
const LAST_BACK_OFF: Duration = Duration::from_secs(1);
/// A link that lived for so long was a success: the next call comes soon. Shorter ones, such as those of two processes
/// with one key that push each other aside, back off.
const LASTING: Duration = Duration::from_secs(1);
/// After how long without any sign of life a connection counts as lost. The system alone would take a quarter of an hour.
const SILENCE: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(3);

/// Starts the tasks that run as long as the hub.
pub(crate) fn start<E: Endpoint>(shared: &Arc<Shared<E>>, listen: Option<StdListener>) {
    shared.spawn(run_flusher(shared.clone()));
    shared.spawn(run_timer(shared.clone()));
    if let Some(listener) = listen {
        shared.spawn(run_acceptor(shared.clone(), listener));
    }
    for replica in shared.group.size().replicas().filter(|to| calls(shared.me, *to)) {
        shared.spawn(run_dialer(shared.clone(), replica));
    }
}

/// Whether `from` calls `to`: clients call replicas, and of two replicas the one with the higher id does.
fn calls(from: Peer, to: ReplicaId) -> bool {
    match from {
        Peer::Replica(from) => from > to,
        Peer::Client(_) => true,
    }
}

async fn run_flusher<E: Endpoint>(shared: Arc<Shared<E>>) {
    loop {
        shared.flush.notified().await;
        shared.flush();
    }
}

async fn run_timer<E: Endpoint>(shared: Arc<Shared<E>>) {
    loop {
        match shared.arm() {
            None => shared.timer.notified().await,
            Some(at) if at <= Instant::now() => {
                shared.expire();
                // An endpoint whose deadline stays in the past must not keep the links from their turns.
                yield_now().await;
            }
            Some(at) => {
                tokio::select! {
                    () = sleep_until(at.into()) => {}
                    () = shared.timer.notified() => {}
                }
            }
        }
    }
}

async fn run_acceptor<E: Endpoint>(shared: Arc<Shared<E>>, listener: StdListener) {
    let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot accept connections: {error}"),
    };
    let mut half_open = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let evicted = admit(&mut half_open, shared.limits.half_open);
                shared.spawn(answer(shared.clone(), stream, from, evicted));
                // Callers are heard one by one: a burst must not push out those who have said who they are.
                yield_now().await;
            }
            Err(error) if concerns_one_caller(&error) => {}
            Err(error) => {
                tracing::warn!(
                    "cannot accept a connection: {error}; if descriptors ran out, raise `ulimit -n`"
                );
                sleep(LAST_BACK_OFF).await;
            }
        }
    }
}

fn concerns_one_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Makes room for one more handshake. The oldest give way, because an honest one takes milliseconds: whoever opens
/// connections and is silent cannot keep others out.
fn admit(half_open: &mut VecDeque<oneshot::Sender<()>>, limit: usize) -> oneshot::Receiver<()> {
    let (sender, evicted) = oneshot::channel();
    if half_open.len() >= limit {
        half_open.retain(|handshake| !handshake.is_closed());
    }
    while half_open.len() >= limit.max(1) {
        half_open.pop_front();
    }
    half_open.push_back(sender);
    evicted
}

async fn answer<E: Endpoint>(
    shared: Arc<Shared<E>>,
    mut stream: TcpStream,
    from: SocketAddr,
    evicted: oneshot::Receiver<()>,
) {
    let answered = tokio::select! {
        answered = timeout(shared.limits.handshake, respond(&shared, &mut stream)) => {
            answered.unwrap_or(Err(LinkError::TooSlow))
        }
        _ = evicted => Err(LinkError::Crowded),
    };
    match answered {
        Ok((peer, channel)) => run_link(&shared, peer, stream, channel).await,
        Err(error) => {
            let count = shared.count(&error);
            // Strangers must not fill the log.
            if count.is_power_of_two() {
                tracing::info!("refused {from}: {error} ({count} such so far)");
            }
        }
    }
}

async fn respond<E: Endpoint>(
    shared: &Shared<E>,
    stream: &mut TcpStream,
) -> Result<(Peer, Channel), LinkError> {
    tune(stream)?;
    let (peer, channel) = noise::respond(stream, &shared.local).await?;
    match shared.me {
        Peer::Replica(me) if calls(peer, me) => Ok((peer, channel)),
        _ => Err(LinkError::WrongDirection(peer)),
    }
}

async fn run_dialer<E: Endpoint>(shared: Arc<Shared<E>>, replica: ReplicaId) {
    let mut back_off = FIRST_BACK_OFF;
    let mut said = String::new();
    loop {
        let dialed = timeout(shared.limits.handshake, dial(&shared, replica)).await;
        match dialed.unwrap_or(Err(LinkError::TooSlow)) {
            Ok((stream, channel)) => {
                said.clear();
                let since = Instant::now();
                run_link(&shared, Peer::Replica(replica), stream, channel).await;
                if since.elapsed() >= LASTING {
                    back_off = FIRST_BACK_OFF;
                }
            }
            Err(error) => {
                shared.count(&error);
                let now = error.to_string();
                if now != said {
                    tracing::warn!("no link to replica {replica}: {now}");
                    said = now;
                }
            }
        }
        sleep(with_jitter(back_off)).await;
        back_off = (back_off * 2).min(LAST_BACK_OFF);
    }
}

/// `delay` and up to half of it, so that peers that lost each other at once do not come back at once.
fn with_jitter(delay: Duration) -> Duration {
    let mut chance = [0; 1];
    // Without chance there is no jitter, which is only less polite.
    let _ = getrandom::fill(&mut chance);
    delay + delay * u32::from(chance[0]) / 512
}

async fn dial<E: Endpoint>(
    shared: &Shared<E>,
    replica: ReplicaId,
) -> Result<(TcpStream, Channel), LinkError> {
    let member = shared.group.replicas.get(replica.index()).ok_or(LinkError::UnknownPeer)?;
    let mut stream = TcpStream::connect(&member.address).await?;
    tune(&stream)?;
    let channel = noise::initiate(&mut stream, &shared.local, replica).await?;
    Ok((stream, channel))
}

/// Small frames leave at once, and a peer that is gone is noticed. [RFC 5482; tcp(7)]
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(SILENCE))
}

/// Serves one link until it ends or a newer one replaces it.
async fn run_link<E: Endpoint>(
    shared: &Shared<E>,
    peer: Peer,
    stream: TcpStream,
    channel: Channel,
) {
    let (mut reader, writer) = link::split(stream, channel, shared.limits.writer(peer));
    let wake = Arc::new(Notify::new());
    let Some(generation) = shared.link(peer, writer, wake.clone()) else { return };
    loop {
        match shared.turn(peer, generation, &mut reader) {
            None => return,
            Some(Wait::Turn) => yield_now().await,
            Some(Wait::For { read, write }) => wait(&reader, &wake, read, write).await,
        }
    }
}

/// Waits for the socket or a wake-up. What went wrong with the socket, the next turn finds out.
async fn wait(reader: &Reader, wake: &Notify, read: bool, write: bool) {
    let stream = reader.stream();
    tokio::select! {
        () = wake.notified() => {}
        _ = stream.readable(), if read => {}
        _ = stream.writable(), if write => {}
    }
}

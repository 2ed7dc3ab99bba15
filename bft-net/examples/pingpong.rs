//! How long a small frame takes there and back between two hubs, beside a plain TCP echo of as many bytes.
//!
//! ```console
//! $ cargo run --release -p bft-net --example pingpong [ROUNDS]
//! ```

use bft_core::types::{ClientId, Peer, ReplicaId};
use bft_net::group::{ClientEntry, Group, Member, Parameters};
use bft_net::hub::{Endpoint, Hub, HubConfig, Links};
use bft_net::keys::Identity;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const SIZE: usize = 128;
const WARM_UP: usize = 1000;

/// Sends back what comes; tells `arrived` of it instead, if there is one.
struct Echo {
    arrived: Option<mpsc::Sender<()>>,
}

impl Endpoint for Echo {
    fn on_frame(&mut self, from: Peer, frame: &[u8], links: &mut Links) {
        match &self.arrived {
            // Whoever waits for it is gone only at the end.
            Some(arrived) => {
                let _ = arrived.send(());
            }
            None => links.send(from, frame),
        }
    }

    fn on_link(&mut self, _: Peer, up: bool, _: &mut Links) {
        if let (true, Some(arrived)) = (up, &self.arrived) {
            let _ = arrived.send(());
        }
    }

    fn on_deadline(&mut self, _: &mut Links) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// Runs a hub on a thread of its own.
fn run(config: HubConfig, endpoint: Echo) -> Hub<Echo> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(async {
            sender.send(Hub::start(config, endpoint)).expect("the main thread waits for it");
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().expect("the hub's thread starts it")
}

fn measure(name: &str, rounds: usize, mut round: impl FnMut()) {
    (0..WARM_UP).for_each(|_| round());
    let mut times: Vec<Duration> = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let since = Instant::now();
        round();
        times.push(since.elapsed());
    }
    times.sort();
    let at = |share: usize| times[(rounds - 1) * share / 100].as_nanos() as f64 / 1000.0;
    println!(
        "{name:9} p50 {:7.1} µs   p99 {:7.1} µs   ({rounds} rounds of {SIZE} bytes)",
        at(50),
        at(99)
    );
}

fn plain(rounds: usize) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut echo, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    echo.set_nodelay(true)?;
    std::thread::spawn(move || {
        let mut bytes = [0; SIZE];
        while echo.read_exact(&mut bytes).and_then(|()| echo.write_all(&bytes)).is_ok() {}
    });
    let mut bytes = [7; SIZE];
    measure("plain TCP", rounds, || {
        stream.write_all(&bytes).expect("the echo reads");
        stream.read_exact(&mut bytes).expect("the echo answers");
    });
    Ok(())
}

fn hubs(rounds: usize) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (replica, client) = (Identity::generate(), Identity::generate());
    let address = listener.local_addr()?.to_string();
    let group = Arc::new(Group {
        name: "pingpong".into(),
        f: 0,
        memory: 1 << 20,
        parameters: Parameters::default(),
        replicas: vec![Member { address, identity: replica.public() }],
        clients: vec![ClientEntry { name: "c".into(), identity: client.public() }],
    });
    let config = |identity, me, listen| HubConfig { identity, group: group.clone(), me, listen };
    let to = Peer::Replica(ReplicaId(0));
    let (arrived, arrives) = mpsc::channel();
    let _server = run(config(replica, to, Some(listener)), Echo { arrived: None });
    let me = Peer::Client(ClientId(0));
    let hub = run(config(client, me, None), Echo { arrived: Some(arrived) });
    arrives.recv().expect("the link comes up");
    let frame = [7; SIZE];
    measure("hubs", rounds, || {
        hub.with(|_, links| links.send(to, &frame));
        arrives.recv().expect("the echo comes back");
    });
    Ok(())
}

fn main() -> std::io::Result<()> {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20_000);
    plain(rounds)?;
    hubs(rounds)
}

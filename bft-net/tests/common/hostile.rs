//! What must hold whatever bytes come by a connection: the bodies of the fuzz targets.

use crate::common::{World, replica};
use bft_core::types::ReplicaId;
use bft_net::error::LinkError;
use bft_net::frame;
use bft_net::group::{Group, parse_size};
use bft_net::noise::{self, PROTOCOL_VERSION};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// Whole frames come out, each as it went in; what is left is the beginning of one, or too long.
pub fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        match frame::first(rest) {
            Ok(Some(message)) => {
                let mut again = Vec::new();
                frame::append(&mut again, |out| out.extend_from_slice(message));
                rest = rest.strip_prefix(&again[..]).expect("what was framed");
            }
            Ok(None) => return assert!(rest.len() < 4 + frame::MAX_FRAME),
            Err(LinkError::FrameTooLarge(length)) => return assert!(length > frame::MAX_FRAME),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Nobody without a key of the group gets in, or makes a replica believe that it called another.
pub fn handshake(bytes: &[u8]) {
    thread_local! {
        static STAGE: (Runtime, World) = (
            Builder::new_current_thread().enable_all().build().expect("a runtime"),
            World::new(2, 1),
        );
    }
    STAGE.with(|(runtime, world)| {
        let Some((kind, bytes)) = bytes.split_first() else { return };
        // Mostly the preamble is right, so that what comes after it is read.
        let preamble = noise::preamble(PROTOCOL_VERSION, world.group.id());
        let preamble = if kind % 8 == 0 { &[][..] } else { &preamble[..] };
        let sent = [preamble, bytes].concat();
        let is_called = kind & 128 == 0;
        let let_in = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let (mut ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
            let ours = ours.as_mut().expect("connected");
            let mut theirs = theirs.expect("accepted").0;
            ours.write_all(&sent).await.expect("it fits the socket's buffer");
            ours.shutdown().await.expect("connected");
            let local = world.local(replica(0));
            match is_called {
                true => noise::respond(&mut theirs, &local).await.is_ok(),
                false => noise::initiate(&mut theirs, &local, ReplicaId(1)).await.is_ok(),
            }
        });
        assert!(!let_in, "a forgery is let in");
    });
}

/// A group file is taken only if it is sound, and then written as it was read.
pub fn group(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    parse_size(text);
    if let Ok(group) = Group::parse(text) {
        let again = Group::parse(&group.to_toml()).expect("what was sound");
        assert_eq!(again.id(), group.id());
    }
}

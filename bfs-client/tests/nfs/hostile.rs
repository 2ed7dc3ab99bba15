//! Whatever a client sends: the answer that the RFCs name, bounded memory, and service to everybody else.

use super::client::*;
use super::server::Server;
use bfs_client::nfs::xdr::Writer;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const BADCRED: u32 = 1;
const TOOWEAK: u32 = 5;

/// That `client` is still served.
fn is_served(client: &mut Client, root: &[u8]) {
    assert_eq!(client.get(root).unwrap().kind, 2);
}

#[test]
fn what_is_not_here_is_said_to_be_and_the_connection_stays() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    for program in [0, 100_000, 100_021, 100_227, u32::MAX] {
        assert_eq!(client.call(program, 3, 0, &[]), Answer::Accepted(1, vec![]), "{program}");
    }
    for program in [NFS, MOUNT] {
        for version in [0, 2, 4, u32::MAX] {
            assert_eq!(client.call(program, version, 1, &[]), Answer::Accepted(2, vec![3, 3]));
        }
    }
    for procedure in [22, 23, u32::MAX] {
        assert_eq!(client.call(NFS, 3, procedure, &[]), Answer::Accepted(3, vec![]));
    }
    assert_eq!(client.call(MOUNT, 3, 6, &[]), Answer::Accepted(3, vec![]));
    let mut record = client.record(NFS, 3, 0, &[]);
    record[8..12].copy_from_slice(&3u32.to_be_bytes());
    assert_eq!(client.exchange(&record), Answer::Denied(0, vec![2, 2]), "RPC version 3");
    is_served(&mut client, &root);
}

#[test]
fn credentials_that_are_none_are_an_authentication_error() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    let mut seventeen = Writer::default();
    seventeen.u32(1).opaque(b"host").u32(5).u32(5).u32(17);
    seventeen.0.resize(seventeen.0.len() + 17 * 4, 0);
    let cases: [(u32, &[u8]); 6] =
        [(2, b""), (3, b"desi"), (6, b"gss token"), (390_004, b""), (1, b""), (1, &seventeen.0)];
    let mut handle = Writer::default();
    handle.opaque(&root);
    for (flavour, body) in cases {
        client.use_credential(flavour, body);
        assert_eq!(
            client.call(NFS, 3, 1, &handle.0),
            Answer::Denied(1, vec![BADCRED]),
            "{flavour}"
        );
        assert_eq!(client.call(MOUNT, 3, 5, &[]), Answer::Denied(1, vec![BADCRED]));
    }
    client.become_user(5, 5, &[]);
    is_served(&mut client, &root);
}

#[test]
fn arguments_that_are_none_are_garbage() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    let garbage = Answer::Accepted(4, vec![]);
    for procedure in 1..=21 {
        assert_eq!(client.call(NFS, 3, procedure, &[]), garbage, "{procedure}");
        assert_eq!(client.call(NFS, 3, procedure, &[0xff; 200]), garbage, "{procedure}");
        let mut long = Writer::default();
        long.opaque(&root).0.extend([0; 4000]);
        assert_eq!(client.call(NFS, 3, procedure, &long.0), garbage, "{procedure}");
    }
    assert_eq!(client.call(NFS, 3, 0, &[0; 4]), garbage);
    let mut handle = Writer::default();
    handle.opaque(&[0; 65]);
    assert_eq!(client.call(NFS, 3, 1, &handle.0), garbage, "a handle of 65 bytes");
    let mut padding = Writer::default();
    padding.opaque(&root).opaque(b"x");
    *padding.0.last_mut().unwrap() = 1;
    assert_eq!(client.call(NFS, 3, 3, &padding.0), garbage, "padding that is not zero");
    let mut count = Writer::default();
    count.opaque(&root).u64(0).u32(9).u32(2).opaque(b"four");
    assert_eq!(client.call(NFS, 3, 7, &count.0), garbage, "a count that is not the length");
    is_served(&mut client, &root);
}

#[test]
fn handles_that_no_proxy_of_the_group_made_are_bad() {
    let (server, other) = (Server::local(&[]), Server::local(&[]));
    let mut client = server.client();
    let root = client.mount();
    let foreign = other.client().mount();
    assert_ne!(root, foreign);
    let mut forged = root.clone();
    forged[7] ^= 1;
    for handle in [&foreign[..], &forged, b"", &[0; 64]] {
        assert_eq!(client.get(handle), Err(BADHANDLE));
        assert_eq!(client.look(handle, b"x").0, Err(BADHANDLE));
        assert_eq!(client.write(handle, 0, b"x"), Err(BADHANDLE));
        assert_eq!(client.remove(12, handle, b"x").0, BADHANDLE);
    }
    is_served(&mut client, &root);
}

#[test]
fn names_that_cannot_be_are_refused_as_the_rfc_says() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    for name in [&b"a/b"[..], b"/", b"a\0b", b"\0"] {
        assert_eq!(client.look(&root, name).0, Err(ACCES));
        assert_eq!(client.create(&root, name, 0o644).unwrap_err(), ACCES);
        assert_eq!(client.mkdir(&root, name, 0o755).unwrap_err(), ACCES);
        assert_eq!(client.remove(12, &root, name).0, ACCES);
        assert_eq!(client.remove(13, &root, name).0, INVAL);
    }
    assert_eq!(client.create(&root, b"", 0o644).unwrap_err(), ACCES);
    assert_eq!(client.create(&root, b".", 0o644).unwrap_err(), EXIST);
    assert_eq!(client.create(&root, &[b'x'; 300], 0o644).unwrap_err(), NAMETOOLONG);
    assert_eq!(client.remove(13, &root, b".").0, INVAL);
    is_served(&mut client, &root);
}

#[test]
fn lengths_take_no_memory_and_half_records_keep_nobody_waiting() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    // What a hundred connections take in any case: their threads, and what the allocator keeps for each.
    let mut waiting: Vec<_> = (0..100).map(|_| server.client()).collect();
    for client in &mut waiting {
        assert_eq!(client.call(NFS, 3, 0, &[]), Answer::Results(vec![]));
    }
    let before = server.resident();
    let send = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        socket.write_all(bytes).unwrap();
        socket
    };
    // A mark alone, and the longest record that may come: they wait, and hold nothing.
    for client in &mut waiting {
        client.socket.write_all(&(1u32 << 31 | 1 << 20).to_be_bytes()).unwrap();
    }
    is_served(&mut client, &root);
    // A length of 2 GiB in the last fragment or an earlier one: no record can be found after it, so this is the end.
    for mark in [u32::MAX, u32::MAX >> 1] {
        let mut socket = send(&mark.to_be_bytes());
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(socket.read(&mut [0; 4]).unwrap(), 0);
    }
    // Lengths of 4 GiB within a record.
    for procedure in 1..=21 {
        let answer = client.call(NFS, 3, procedure, &[0xff; 8]);
        assert_eq!(answer, Answer::Accepted(4, vec![]));
    }
    // Believed, the lengths would have taken 100 MiB.
    assert!(server.resident() < before + 30_000, "{} KiB, then {}", before, server.resident());
    drop(waiting);
    is_served(&mut client, &root);
}

#[test]
fn noise_is_not_answered_and_does_no_harm() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    client.send(&[]);
    client.send(&[1, 2, 3]);
    // A reply is no call.
    client.send(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
    is_served(&mut client, &root);
    let mut state = 7u64;
    for _ in 0..3000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let procedure = (state >> 40) as u32 % 22;
        let mut record = client.record(NFS, 3, procedure, &[]);
        let mut args = Writer::default();
        args.opaque(&root).opaque(b"name").u32(1).u32(1).u64(state).u64(state);
        record.extend(&args.0);
        let at = (state >> 20) as usize % record.len();
        // The XID, the direction and the version stay, so that there is an answer.
        if at >= 12 {
            record[at] ^= (state >> 50) as u8;
        }
        client.exchange(&record);
    }
    client.become_user(0, 0, &[]);
    is_served(&mut client, &root);
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    let (file, _) = client.create(&root, b"f", 0o644).unwrap();
    client.write(&file, 0, &vec![7; 1 << 20]).unwrap();
    // More than what there is for all of them.
    let mut greedy: Vec<_> = (0..24).map(|_| server.client()).collect();
    for client in &mut greedy {
        client.socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        for _ in 0..200 {
            let record = client.nfs_record(6, |w| {
                w.opaque(&file).u64(0).u32(1 << 20);
            });
            let mark = (1u32 << 31 | record.len() as u32).to_be_bytes();
            if client.socket.write_all(&[&mark[..], &record].concat()).is_err() {
                break;
            }
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    is_served(&mut client, &root);
    is_served(&mut server.client(), &root);
    assert_eq!(client.read(&file, 0, 1 << 20).unwrap().0.len(), 1 << 20);
    assert!(server.resident() < 400_000, "{} KiB", server.resident());
    // Whoever reads after all gets every answer, in whole records.
    let last = greedy.last_mut().unwrap();
    for _ in 0..50 {
        assert!(last.receive().len() > 1 << 20);
    }
}

#[test]
fn those_who_connect_and_say_nothing_keep_nobody_out() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    let silent: Vec<_> =
        (0..300).map(|_| TcpStream::connect(("127.0.0.1", server.port)).unwrap()).collect();
    is_served(&mut server.client(), &root);
    drop(silent);
}

#[test]
fn only_those_who_may_are_served() {
    let server = Server::local(&["--allow", "10.0.0.0/8,192.168.0.1"]);
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0, "turned away");
    let server = Server::local(&["--allow", "127.0.0.0/8", "--privileged-port"]);
    let mut client = server.client();
    assert_eq!(client.call(NFS, 3, 0, &[]), Answer::Results(vec![]));
    assert_eq!(client.call(MOUNT, 3, 5, &[]), Answer::Denied(1, vec![TOOWEAK]));
}

#[test]
fn it_stops_when_it_is_told_to() {
    let server = Server::local(&[]);
    let mut client = server.client();
    client.mount();
    assert!(server.stop().success());
    assert!(client.try_receive().is_err());
}

/// The body of the fuzz target on seeded inputs: bytes from a few words that mean something, and changes to them.
#[test]
fn records_of_any_bytes_are_answered_or_noise() {
    let words: [u32; 12] = [0, 1, 2, 3, 4, 7, 8, 32, 100_003, 0x7fff_ffff, 0x8000_0028, u32::MAX];
    let mut state = 11u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let mut answered = 0;
    for _ in 0..60_000 {
        let mut bytes = vec![next(28) as u8];
        for _ in 0..next(24) {
            bytes.extend(words[next(words.len() as u64) as usize].to_be_bytes());
        }
        if next(3) == 0 {
            let at = next(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << next(8);
        }
        answered += super::nfs_record::send(&bytes);
    }
    assert!(answered > 60_000);
}

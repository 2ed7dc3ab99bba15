//! What goes over the wire, as somebody else's decoder reads it.

use super::client::*;
use super::server::Server;
use std::path::Path;
use std::process::Command;

/// The conversation on `tape` as a capture file: every record is one TCP segment, or several if it is long.
/// [https://wiki.wireshark.org/Development/LibpcapFileFormat]
fn capture(tape: &[(bool, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    // Magic number, version 2.4, no time zone, no accuracy, no limit that matters, link type 101: bare IP.
    for word in [0xa1b2_c3d4u32, 2 | 4 << 16, 0, 0, 1 << 18, 101] {
        file.extend(word.to_le_bytes());
    }
    let mut next = [1u32, 1];
    let mut seconds = 0u32;
    for (sent, bytes) in tape {
        for segment in bytes.chunks(32_000) {
            let (from, to) = if *sent { (0, 1) } else { (1, 0) };
            let packet = packet(*sent, (next[from], next[to]), segment);
            seconds += 1;
            for word in [seconds, 0, packet.len() as u32, packet.len() as u32] {
                file.extend(word.to_le_bytes());
            }
            file.extend(&packet);
            next[from] = next[from].wrapping_add(segment.len() as u32);
        }
    }
    file
}

fn packet(sent: bool, (sequence, acknowledged): (u32, u32), segment: &[u8]) -> Vec<u8> {
    let (client, server) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let (ports, from, to) = match sent {
        true => ([700u16, 2049], client, server),
        false => ([2049, 700], server, client),
    };
    let mut packet = vec![0x45, 0];
    packet.extend((40 + segment.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    packet.extend(sequence.to_be_bytes());
    packet.extend(acknowledged.to_be_bytes());
    // Five words of header; PSH and ACK.
    packet.extend([0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend(segment);
    packet
}

/// How many packets of the capture the decoder shows under `filter`.
fn shown(file: &Path, filter: &str) -> usize {
    let output = Command::new("tshark")
        .args(["-d", "tcp.port==2049,rpc", "-o", "ip.check_checksum:FALSE", "-Y", filter, "-r"])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().count()
}

const MALFORMED: &str = "_ws.malformed || (_ws.expert.severity == error && rpc)";

/// A conversation with every procedure in it, well and badly ended.
fn conversation(client: &mut Client) {
    let root = client.mount();
    let (file, made) = client.create(&root, b"file", 0o644).unwrap();
    let (dir, _) = client.mkdir(&root, b"dir", 0o755).unwrap();
    client.write(&file, 0, &[7; 5001]).unwrap();
    client.read(&file, 1, 4000).unwrap();
    client.set(&file, Set { size: Some(3), ..Set::mode(0o600) }, Some(made.changed));
    client.set(&file, Set { modified: Some((1, 2)), ..Set::default() }, None);
    client.look(&root, b"file").0.unwrap();
    client.look(&root, b"none").0.unwrap_err();
    for procedure in [1, 18, 19, 20] {
        client.nfs(procedure, |w| {
            w.opaque(&root);
        });
    }
    client.nfs(4, |w| {
        w.opaque(&root).u32(0x3f);
    });
    let (link, _) = client
        .make(10, |w| {
            place(w, &dir, b"link");
            Set::default().write(w);
            w.opaque(b"../file");
        })
        .0
        .unwrap();
    for handle in [&link, &file] {
        client.nfs(5, |w| {
            w.opaque(handle);
        });
    }
    let (fifo, _) = client.make(11, |w| {
        place(w, &dir, b"fifo");
        w.u32(7);
        Set::mode(0o600).write(w);
    });
    fifo.unwrap();
    client.nfs(15, |w| {
        w.opaque(&file);
        place(w, &dir, b"hard");
    });
    client.nfs(14, |w| {
        place(w, &dir, b"hard");
        place(w, &root, b"moved");
    });
    client.nfs(16, |w| {
        w.opaque(&root).u64(0).u64(0).u32(4096);
    });
    client.nfs(17, |w| {
        w.opaque(&root).u64(0).u64(0).u32(4096).u32(8192);
    });
    client.nfs(21, |w| {
        w.opaque(&file).u64(0).u32(0);
    });
    client.remove(13, &root, b"dir");
    client.remove(12, &dir, b"fifo");
    client.call(NFS, 3, 99, &[]);
    client.call(NFS, 4, 1, &[]);
    client.call(100_021, 4, 1, &[]);
    client.call(MOUNT, 3, 2, &[]);
    client.call(MOUNT, 3, 5, &[]);
}

#[test]
fn every_reply_is_well_formed_to_another_decoder() {
    if Command::new("tshark").arg("--version").output().is_err() {
        println!("skipped: no tshark on this machine (./x test installs it)");
        return;
    }
    let server = Server::local(&[]);
    let mut client = server.client();
    conversation(&mut client);
    let folder = std::env::temp_dir().join(format!("bfs-nfs-capture-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("whole.pcap");
    std::fs::write(&file, capture(&client.tape)).unwrap();
    let all = shown(&file, "rpc");
    assert_eq!(all, client.tape.len(), "every packet is a remote procedure call");
    assert!(shown(&file, "nfs") > 40);
    assert_eq!(shown(&file, MALFORMED), 0);
    // The same with replies that are damaged: a decoder that finds nothing wrong there would prove nothing.
    let mut damaged = client.tape.clone();
    for (_, bytes) in damaged.iter_mut().filter(|(sent, bytes)| !sent && bytes.len() > 60) {
        let end = bytes.len() - 12;
        bytes.truncate(end);
        let mark = (1u32 << 31 | (end - 4) as u32).to_be_bytes();
        bytes[..4].copy_from_slice(&mark);
    }
    let file = folder.join("damaged.pcap");
    std::fs::write(&file, capture(&damaged)).unwrap();
    assert!(shown(&file, MALFORMED) > 10);
    std::fs::remove_dir_all(folder).unwrap();
}

//! Proxies of a group of real replicas: what holds across them, and across their restarts.

use super::client::*;
use super::server::Server;
use bfs_client::local_group::LocalGroup;
use std::process::Command;
use std::time::{Duration, Instant};

fn proxy(group: &LocalGroup, port: u16) -> Server {
    Server::of_group(&group.group_file(), &group.key_dir(), port)
}

#[test]
fn handles_and_answers_outlive_the_proxy() {
    let group = LocalGroup::create(4, 1).unwrap();
    let first = proxy(&group, 0);
    let port = first.port;
    let mut client = first.client();
    let root = client.mount();
    let (file, made) = client.create(&root, b"f", 0o644).unwrap();
    let verifier = client.write(&file, 0, b"data").unwrap().2;
    // Four calls whose answers are lost, as far as the client knows.
    client.create(&root, b"gone", 0o644).unwrap();
    client.create(&root, b"old", 0o644).unwrap();
    let remove = client.nfs_record(12, |w| place(w, &root, b"gone"));
    let rename = client.nfs_record(14, |w| {
        place(w, &root, b"old");
        place(w, &root, b"new");
    });
    let create = client.nfs_record(8, |w| {
        place(w, &root, b"guarded");
        w.u32(1);
        Set::mode(0o600).write(w);
    });
    let guard = client.set(&file, Set::mode(0o640), None).1.after.unwrap().changed;
    let set = client.nfs_record(2, |w| {
        w.opaque(&file);
        Set::mode(0o600).write(w);
        w.bool(true).u32(guard.0).u32(guard.1);
    });
    let calls = [remove, rename, create, set];
    let answers = calls.each_ref().map(|call| client.exchange(call));
    first.kill();

    let second = proxy(&group, port);
    let mut client = second.client();
    assert_eq!(client.mount(), root);
    for (call, answer) in calls.iter().zip(&answers) {
        assert_eq!(client.exchange(call), *answer);
        assert!(matches!(answer, Answer::Results(results) if results[..4] == [0; 4]));
    }
    // The same from another address is another call, and another number too.
    assert_eq!(client.remove(12, &root, b"gone").0, NOENT);
    assert_eq!(client.get(&file).unwrap().fileid, made.fileid);
    assert_eq!(client.read(&file, 0, 9), Ok((b"data".to_vec(), true)));
    assert_eq!(client.write(&file, 4, b"more").unwrap().2, verifier, "nothing was lost");
    assert_eq!(second.stop().code(), Some(0));
}

#[test]
fn another_proxy_with_the_same_keys_takes_over_and_the_old_one_ends() {
    let group = LocalGroup::create(4, 1).unwrap();
    let mut first = proxy(&group, 0);
    let mut client = first.client();
    let root = client.mount();
    client.create(&root, b"f", 0o644).unwrap();
    let remove = client.nfs_record(12, |w| place(w, &root, b"f"));
    let answer = client.exchange(&remove);
    let second = proxy(&group, 0);
    let mut other = second.client();
    assert_eq!(other.exchange(&remove), answer, "done once");
    // The old one knows no outcome any more, and says nothing rather than something wrong.
    let get = client.nfs_record(12, |w| place(w, &root, b"x"));
    client.send(&get);
    assert!(client.try_receive().is_err());
    assert_eq!(first.ended().code(), Some(1));
}

#[test]
fn commands_do_not_end_the_session_of_a_proxy() {
    let group = LocalGroup::create(4, 1).unwrap();
    let server = proxy(&group, 0);
    let ask = |verb: &str| {
        let mut command = Command::new(&group.programs().bfs);
        command.arg(verb).arg(group.group_file()).arg("--key").arg(group.key_dir());
        command.output().unwrap()
    };
    for verb in ["status", "export"] {
        let refused = ask(verb);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(&format!("the NFS proxy on 127.0.0.1:{}", server.port)), "{said}");
        assert_eq!(refused.status.code(), Some(6), "{said}");
    }
    server.client().mount();
    assert_eq!(server.stop().code(), Some(0));
    assert!(ask("export").status.success());
}

#[test]
fn a_lie_that_a_proxy_has_outvoted_is_evidence_for_status() {
    let group = LocalGroup::create_lab(4, 1).unwrap();
    let server = proxy(&group, 0);
    let mut client = server.client();
    let root = client.mount();
    let (file, _) = client.create(&root, b"f", 0o644).unwrap();
    client.write(&file, 0, b"data").unwrap();
    let (primary, _) = group.status().unwrap().primary().unwrap();
    let liar = (primary + 2) % 4;
    group.attack(liar, Some("forged-files"), &[]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert_eq!(client.read(&file, 0, 9), Ok((b"data".to_vec(), true)));
        let mut status = Command::new(&group.programs().bfs);
        status.arg("status").arg(group.group_file()).arg("--key").arg(group.operator_key());
        let output = status.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().find(|line| line.starts_with(&format!("  r{liar} ")));
        if line.is_some_and(|line| line.ends_with("proved faulty")) {
            assert!(said.contains("of its replies outvoted here"), "{said}");
            assert_eq!(output.status.code(), Some(5), "{said}");
            return;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
}

/// A file, its contents after two writes, and the record of the first of them.
fn overwritten(client: &mut Client, root: &[u8]) -> (Handle, Vec<u8>, (u32, u32, [u8; 8])) {
    let (file, _) = client.create(root, b"overwritten", 0o644).unwrap();
    let first = client.write_record(&file, 0, b"first write");
    let (around, written) = client.exchange_write(&first).unwrap();
    assert_eq!(around.before.map(|(size, ..)| size), Some(0));
    client.write(&file, 0, b"LATER").unwrap();
    (file, first, written)
}

/// Sends a WRITE again that a later one has overwritten in part.
fn expect_harmless(client: &mut Client, file: &[u8], first: &[u8], written: (u32, u32, [u8; 8])) {
    let now = client.get(file).unwrap();
    let (around, again) = client.exchange_write(first).unwrap();
    assert_eq!(again, written, "count, committed and verifier are as they were");
    assert_eq!(around, Around { before: None, after: Some(now) });
    assert_eq!(client.read(file, 0, 99), Ok((b"LATER write".to_vec(), true)));
}

#[test]
fn a_write_sent_again_through_another_proxy_undoes_no_later_one() {
    let group = LocalGroup::create(4, 1).unwrap();
    let first = proxy(&group, 0);
    let port = first.port;
    let mut client = first.client();
    let root = client.mount();
    let (file, write, written) = overwritten(&mut client, &root);
    expect_harmless(&mut client, &file, &write, written);
    first.kill();
    let second = proxy(&group, port);
    expect_harmless(&mut second.client(), &file, &write, written);
    let third = proxy(&group, 0);
    expect_harmless(&mut third.client(), &file, &write, written);
}

/// Waits until all replicas agree about the state.
fn wait_until_healthy(group: &LocalGroup) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let health = group.status().map(|status| status.health);
        if matches!(&health, Ok(health) if health == "HEALTHY") {
            return;
        }
        assert!(Instant::now() < deadline, "{health:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn who_got_the_state_by_transfer_gives_the_same_answers() {
    let mut group = LocalGroup::create(4, 1).unwrap();
    let server = proxy(&group, 0);
    let mut client = server.client();
    let root = client.mount();
    let (file, write, written) = overwritten(&mut client, &root);
    client.create(&root, b"gone", 0o644).unwrap();
    let remove = client.nfs_record(12, |w| place(w, &root, b"gone"));
    let removed = client.exchange(&remove);
    let (primary, _) = group.status().unwrap().primary().unwrap();
    let (lost, spare) = ((primary + 1) % 4, (primary + 2) % 4);
    // It remembers nothing, and the log no longer reaches back to where it was.
    group.kill(lost).unwrap();
    let (other, _) = client.create(&root, b"other", 0o644).unwrap();
    let work = |client: &mut Client| {
        (0..600u64).for_each(|i| assert!(client.write(&other, i % 9, b"work").is_ok()));
    };
    work(&mut client);
    group.start_replica(lost).unwrap();
    wait_until_healthy(&group);
    // Now nothing is done without it.
    group.kill(spare).unwrap();
    expect_harmless(&mut client, &file, &write, written);
    assert_eq!(client.exchange(&remove), removed);
    // Had it done anything again, its next checkpoint would be another one than theirs.
    work(&mut client);
    group.start_replica(spare).unwrap();
    wait_until_healthy(&group);
}

#[test]
fn another_principal_finds_the_same_handles_but_not_the_answers() {
    let group = LocalGroup::create(4, 1).unwrap();
    let one = proxy(&group, 0);
    let two = Server::of_group(&group.group_file(), &group.operator_key(), 0);
    let (mut client, mut other) = (one.client(), two.client());
    let root = client.mount();
    assert_eq!(other.mount(), root);
    let (dir, _) = client.mkdir(&root, b"d", 0o777).unwrap();
    other.become_user(5, 5, &[]);
    let (file, _) = other.create(&dir, b"f", 0o666).unwrap();
    assert_eq!(client.get(&file).unwrap().uid, 5);
    let remove = client.nfs_record(12, |w| place(w, &dir, b"f"));
    assert_eq!(client.exchange_nfs(&remove).0, OK);
    other.become_user(0, 0, &[]);
    assert_eq!(other.exchange_nfs(&remove).0, NOENT);
    // The other principal's root is nobody: the export decides.
    let (_, made) = other.create(&dir, b"g", 0o666).unwrap();
    assert_eq!(made.uid, 65_534);
}

#[test]
fn clients_wait_while_the_primary_dies() {
    let mut group = LocalGroup::create(4, 1).unwrap();
    let server = proxy(&group, 0);
    let mut client = server.client();
    let root = client.mount();
    let (file, _) = client.create(&root, b"f", 0o644).unwrap();
    client.create(&root, b"gone", 0o644).unwrap();
    let remove = client.nfs_record(12, |w| place(w, &root, b"gone"));
    let removed = client.exchange(&remove);
    let (primary, _) = group.status().unwrap().primary().unwrap();
    let start = Instant::now();
    for i in 0..300u64 {
        if i == 100 {
            group.kill(primary).unwrap();
        }
        assert_eq!(client.write(&file, i * 100, &[i as u8; 100]).unwrap().0, 100);
        let made = client.create(&root, format!("n{i}").as_bytes(), 0o600);
        assert!(made.is_ok(), "{made:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_eq!(client.exchange(&remove), removed, "answered again in another view");
    let (data, eof) = client.read(&file, 0, 1 << 20).unwrap();
    assert!(eof && data.chunks(100).enumerate().all(|(i, part)| part == [i as u8; 100]));
}

//! Every procedure, as RFC 1813 describes it.

use super::client::*;
use super::server::Server;

/// A mounted server and a directory on it that anybody may use.
fn start() -> (Server, Client, Handle) {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    (server, client, root)
}

#[test]
fn null_answers_in_both_programs() {
    let (_server, mut client, _) = start();
    assert_eq!(client.call(NFS, 3, 0, &[]), Answer::Results(vec![]));
    assert_eq!(client.call(MOUNT, 3, 0, &[]), Answer::Results(vec![]));
    // Whoever only asks whether somebody is there need not say who asks.
    client.use_credential(6, b"some token..");
    assert_eq!(client.call(NFS, 3, 0, &[]), Answer::Results(vec![]));
}

#[test]
fn mount_finds_directories_by_path_and_remembers_who_mounts() {
    let (_server, mut client, root) = start();
    let (sub, _) = client.mkdir(&root, b"sub", 0o755).unwrap();
    let (deep, _) = client.mkdir(&sub, b"deep", 0o755).unwrap();
    client.create(&root, b"file", 0o644).unwrap();
    assert_eq!(client.mount_path(b"//sub/deep/"), Ok(deep));
    assert_eq!(client.mount_path(b"/none"), Err(NOENT));
    assert_eq!(client.mount_path(b"/file"), Err(NOTDIR));
    assert_eq!(client.mount_path(b"/../../sub"), Ok(sub), "nothing is above the root");
    let listed = |client: &mut Client| match client.call(MOUNT, 3, 2, &[]) {
        Answer::Results(results) => String::from_utf8_lossy(&results).matches("127.0.0.1").count(),
        other => panic!("{other:?}"),
    };
    assert_eq!(listed(&mut client), 3);
    let path = |path: &[u8]| {
        let mut args = bfs_client::nfs::xdr::Writer::default();
        args.opaque(path);
        args.0
    };
    assert_eq!(client.call(MOUNT, 3, 3, &path(b"/")), Answer::Results(vec![]));
    assert_eq!(listed(&mut client), 2);
    assert_eq!(client.call(MOUNT, 3, 4, &[]), Answer::Results(vec![]));
    assert_eq!(listed(&mut client), 0);
    let Answer::Results(exports) = client.call(MOUNT, 3, 5, &[]) else { panic!() };
    assert_eq!(exports, [0, 0, 0, 1, 0, 0, 0, 1, b'/', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn attributes_are_told_and_set() {
    let (_server, mut client, root) = start();
    let top = client.get(&root).unwrap();
    assert_eq!((top.kind, top.links), (2, 2));
    let (file, made) = client.create(&root, b"f", 0o640).unwrap();
    assert_eq!((made.kind, made.mode, made.links, made.size), (1, 0o640, 1, 0));
    assert_eq!(made.fsid, top.fsid);
    assert_eq!(client.get(&file), Ok(made.clone()));
    let set = Set { size: Some(9), modified: Some((7, 8)), ..Set::mode(0o600) };
    let (status, around) = client.set(&file, set, None);
    assert_eq!(status, OK);
    assert_eq!(around.before, Some((0, made.modified, made.changed)));
    let after = around.after.unwrap();
    assert_eq!((after.mode, after.size, after.modified), (0o600, 9, (7, 8)));
    client.become_user(5, 5, &[]);
    let (status, around) = client.set(&file, Set::mode(0o666), None);
    assert_eq!((status, around.after), (PERM, Some(after)));
}

#[test]
fn a_guard_is_part_of_the_change() {
    let (_server, mut client, root) = start();
    let (file, made) = client.create(&root, b"f", 0o640).unwrap();
    assert_eq!(client.set(&file, Set::mode(0o600), Some(made.changed)).0, OK);
    let (status, around) = client.set(&file, Set::mode(0o666), Some(made.changed));
    assert_eq!((status, around.after.unwrap().mode), (NOT_SYNC, 0o600));
}

#[test]
fn lookup_tells_the_directory_also_where_it_finds_nothing() {
    let (_server, mut client, root) = start();
    let (file, made) = client.create(&root, b"f", 0o640).unwrap();
    let now = client.get(&root).unwrap();
    assert_eq!(client.look(&root, b"f"), (Ok((file.clone(), made)), Some(now.clone())));
    assert_eq!(client.look(&root, b"g"), (Err(NOENT), Some(now.clone())));
    assert_eq!(client.look(&root, b".").0.unwrap().0, root);
    assert_eq!(client.look(&root, b"..").0.unwrap().0, root);
    assert_eq!(client.look(&file, b"f").0, Err(NOTDIR));
    assert_eq!(client.look(&root, &[b'x'; 256]).0, Err(NAMETOOLONG));
}

#[test]
fn access_is_decided_for_whoever_asks() {
    let (_server, mut client, root) = start();
    client.become_user(5, 50, &[]);
    let (file, _) = client.create(&root, b"f", 0o640).unwrap();
    let (dir, _) = client.mkdir(&root, b"d", 0o750).unwrap();
    let mut rights = |who: (u32, u32, &[u32]), handle: &[u8], mask: u32| {
        client.become_user(who.0, who.1, who.2);
        let (status, mut r) = client.nfs(4, |w| {
            w.opaque(handle).u32(mask);
        });
        assert_eq!(status, OK);
        assert!(post_op(&mut r).is_some());
        let granted = r.u32().unwrap();
        r.end().unwrap();
        granted
    };
    let all = 0x3f;
    assert_eq!(rights((5, 50, &[]), &file, all), 0x1 | 0x4 | 0x8);
    assert_eq!(rights((6, 7, &[8, 50]), &file, all), 0x1, "by one of 16 groups");
    assert_eq!(rights((6, 7, &[]), &file, all), 0);
    assert_eq!(rights((5, 50, &[]), &dir, all), 0x1f);
    assert_eq!(rights((5, 50, &[]), &dir, 0x12), 0x12, "only what was asked for");
    assert_eq!(rights((6, 50, &[]), &dir, all), 0x3);
    assert_eq!(rights((0, 0, &[]), &file, all), 0x1 | 0x4 | 0x8, "nobody may execute it");
}

#[test]
fn nobody_is_nobody() {
    let (_server, mut client, root) = start();
    client.use_credential(0, &[]);
    let (_, made) = client.create(&root, b"f", 0o600).unwrap();
    assert_eq!((made.uid, made.gid), (65_534, 65_534));
}

#[test]
fn data_is_written_read_and_stable() {
    let (_server, mut client, root) = start();
    let (file, _) = client.create(&root, b"f", 0o640).unwrap();
    let big: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
    let (count, how, verifier) = client.write(&file, 0, &big).unwrap();
    assert_eq!((count, how), (1 << 20, 2), "FILE_SYNC");
    assert_eq!(client.write(&file, 1 << 20, b"end").unwrap().2, verifier);
    assert_eq!(client.read(&file, 0, 1 << 20), Ok((big, false)));
    assert_eq!(client.read(&file, (1 << 20) + 1, 100), Ok((b"nd".to_vec(), true)));
    assert_eq!(client.read(&file, 1 << 40, 100), Ok((vec![], true)));
    let (status, mut r) = client.nfs(21, |w| {
        w.opaque(&file).u64(0).u32(0);
    });
    assert_eq!(status, OK);
    assert!(around(&mut r).before.is_some());
    assert_eq!(r.fixed::<8>().unwrap(), verifier);
    assert_eq!(client.read(&root, 0, 10), Err(INVAL));
    client.become_user(5, 5, &[]);
    assert_eq!(client.write(&file, 0, b"x"), Err(ACCES));
    assert_eq!(client.read(&file, 0, 10), Err(ACCES));
}

#[test]
fn a_write_that_is_too_long_is_done_in_part() {
    let (_server, mut client, root) = start();
    let (file, _) = client.create(&root, b"f", 0o640).unwrap();
    let (count, ..) = client.write(&file, 0, &vec![1; (1 << 20) + 5000]).unwrap();
    assert_eq!(count, 1 << 20);
}

#[test]
fn files_are_created_in_three_ways() {
    let (_server, mut client, root) = start();
    let mut create = |how: u32, verifier: u64, set: Set| {
        client.make(8, |w| {
            place(w, &root, b"f");
            w.u32(how);
            match how {
                2 => {
                    w.u64(verifier);
                }
                _ => set.write(w),
            }
        })
    };
    let (made, around) = create(2, 77, Set::default());
    let (file, _) = made.unwrap();
    assert!(around.before.is_some() && around.after.is_some());
    assert_eq!(create(2, 77, Set::default()).0.unwrap().0, file, "repeated");
    assert_eq!(create(2, 78, Set::default()).0.unwrap_err(), EXIST, "another one's");
    assert_eq!(create(1, 0, Set::mode(0o600)).0.unwrap_err(), EXIST);
    let set = Set { size: Some(5), ..Set::mode(0o777) };
    let (same, attributes) = create(0, 0, set).0.unwrap();
    assert_eq!((same, attributes.size), (file, 5));
    assert_ne!(attributes.mode, 0o777, "of a file that was there only the size is set");
}

#[test]
fn what_is_made_belongs_to_whom_it_should() {
    let (_server, mut client, root) = start();
    let set = Set { uid: Some(7), gid: Some(8), ..Set::mode(0o644) };
    let make = |client: &mut Client, name: &[u8]| {
        let made = client.make(8, |w| {
            place(w, &root, name);
            w.u32(1);
            set.write(w);
        });
        let (_, made) = made.0.unwrap();
        (made.uid, made.gid)
    };
    client.become_user(5, 5, &[]);
    assert_eq!(make(&mut client, b"f"), (5, 5), "what it may not give is ignored");
    client.become_user(5, 5, &[8]);
    assert_eq!(make(&mut client, b"g"), (5, 8));
    client.become_user(0, 0, &[]);
    assert_eq!(make(&mut client, b"h"), (7, 8));
}

#[test]
fn directories_links_and_nodes_are_made_and_removed() {
    let (_server, mut client, root) = start();
    let (dir, made) = client.mkdir(&root, b"d", 0o1770).unwrap();
    assert_eq!((made.kind, made.mode), (2, 0o1770));
    let (link, made) = client
        .make(10, |w| {
            place(w, &dir, b"s");
            Set::default().write(w);
            w.opaque(b"to/where");
        })
        .0
        .unwrap();
    assert_eq!((made.kind, made.size), (5, 8));
    let (status, mut r) = client.nfs(5, |w| {
        w.opaque(&link);
    });
    assert_eq!((status, post_op(&mut r)), (OK, Some(made)));
    assert_eq!(r.opaque(100).unwrap(), &b"to/where"[..]);
    for (kind, device) in [(3, Some((8, 300))), (4, Some((1, 3))), (6, None), (7, None)] {
        let (_, made) = client
            .make(11, |w| {
                place(w, &dir, &[b'n', kind as u8]);
                w.u32(kind);
                Set::mode(0o600).write(w);
                if let Some((major, minor)) = device {
                    w.u32(major).u32(minor);
                }
            })
            .0
            .unwrap();
        assert_eq!((made.kind, made.device), (kind, device.unwrap_or_default()));
    }
    let (status, _) = client.nfs(11, |w| {
        place(w, &dir, b"wrong");
        w.u32(2);
    });
    assert_eq!(status, BADTYPE, "directories are made otherwise");
    assert_eq!(client.remove(13, &root, b"d").0, NOTEMPTY);
    assert_eq!(client.remove(12, &root, b"d").0, ACCES, "a directory is no file");
    for name in [b"s".to_vec(), vec![b'n', 3], vec![b'n', 4], vec![b'n', 6], vec![b'n', 7]] {
        let (status, around) = client.remove(12, &dir, &name);
        assert_eq!(status, OK);
        assert!(around.before.unwrap().1 < around.after.unwrap().modified);
    }
    assert_eq!(client.remove(13, &root, b"d").0, OK);
    assert_eq!(client.get(&dir), Err(STALE));
    for procedure in [4, 18, 19, 20, 21] {
        let (status, _) = client.nfs(procedure, |w| {
            w.opaque(&dir);
            match procedure {
                4 => {
                    w.u32(1);
                }
                21 => {
                    w.u64(0).u32(0);
                }
                _ => {}
            }
        });
        assert_eq!(status, STALE, "{procedure}");
    }
    assert_eq!(client.remove(13, &root, b"d").0, NOENT);
}

#[test]
fn names_are_linked_and_moved() {
    let (_server, mut client, root) = start();
    let (file, _) = client.create(&root, b"f", 0o640).unwrap();
    let (dir, _) = client.mkdir(&root, b"d", 0o755).unwrap();
    let (status, mut r) = client.nfs(15, |w| {
        w.opaque(&file);
        place(w, &dir, b"g");
    });
    assert_eq!((status, post_op(&mut r).unwrap().links), (OK, 2));
    assert!(around(&mut r).after.is_some());
    let mut rename = |from: &[u8], name: &[u8], to: &[u8], new: &[u8]| {
        let (status, mut r) = client.nfs(14, |w| {
            place(w, from, name);
            place(w, to, new);
        });
        let (one, two) = (around(&mut r), around(&mut r));
        r.end().unwrap();
        assert!(one.before.is_some() && two.after.is_some(), "both directories, in any case");
        status
    };
    assert_eq!(rename(&root, b"f", &dir, b"h"), OK);
    assert_eq!(rename(&root, b"f", &dir, b"h"), NOENT);
    assert_eq!(rename(&root, b"d", &dir, b"in itself"), INVAL);
    assert_eq!(client.look(&dir, b"h").0.unwrap().0, file);
    assert_eq!(client.remove(12, &dir, b"g").0, OK);
    assert_eq!(client.get(&file).unwrap().links, 1);
}

#[test]
fn the_file_system_tells_its_limits() {
    let (_server, mut client, root) = start();
    let (status, mut r) = client.nfs(18, |w| {
        w.opaque(&root);
    });
    assert_eq!(status, OK);
    assert!(post_op(&mut r).is_some());
    let sizes: Vec<_> = (0..6).map(|_| r.u64().unwrap()).collect();
    assert!(sizes[0] == 1 << 30 && sizes[1] == sizes[2] && sizes[1] <= sizes[0]);
    assert!(sizes[3] > sizes[4] && sizes[4] == sizes[5]);
    assert_eq!(r.u32(), Ok(0));
    r.end().unwrap();
    let (status, mut r) = client.nfs(19, |w| {
        w.opaque(&root);
    });
    assert_eq!(status, OK);
    assert!(post_op(&mut r).is_some());
    let numbers: Vec<_> = (0..7).map(|_| r.u32().unwrap()).collect();
    assert_eq!(numbers[..6], [1 << 20, 1 << 20, 4096, 1 << 20, 1 << 20, 4096]);
    assert_eq!(r.u64(), Ok(1 << 53));
    assert_eq!((r.u32(), r.u32(), r.u32()), (Ok(0), Ok(1), Ok(0x1b)));
    r.end().unwrap();
    let (status, mut r) = client.nfs(20, |w| {
        w.opaque(&root);
    });
    assert_eq!(status, OK);
    assert!(post_op(&mut r).is_some());
    let numbers: Vec<_> = (0..6).map(|_| r.u32().unwrap()).collect();
    assert_eq!(numbers, [65_000, 255, 1, 1, 0, 1]);
    r.end().unwrap();
}

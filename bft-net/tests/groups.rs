//! The group file.

mod common;

use bft_core::types::Peer;
use bft_net::group::{Group, GroupError, PublicFile, format_size, parse_size};
use bft_net::keys::Identity;
use common::{World, client, replica};

fn group(replicas: usize) -> Group {
    Group::clone(&World::new(replicas, 2).group)
}

fn refused(group: &Group, words: &str) {
    let why = Group::parse(&group.to_toml()).unwrap_err().to_string();
    assert!(why.contains(words), "{why}");
}

fn changed(change: impl FnOnce(&mut Group)) -> Group {
    let mut group = group(4);
    group.f = 1;
    change(&mut group);
    group
}

#[test]
fn the_id_follows_what_the_file_says_and_not_how() {
    let group = changed(|_| ());
    let text = group.to_toml();
    let read = Group::parse(&text).unwrap();
    assert_eq!(read, group);
    assert_eq!((read.size().n(), read.size().f()), (4, 1));
    let spaced =
        text.replace(" = ", "   =   ").replace("[[replica]]", "\n# a comment\n[[replica]]");
    assert_ne!(spaced, text);
    assert_eq!(Group::parse(&spaced).unwrap().id(), group.id());
    let in_kib = text.replace("\"64MiB\"", "\"65536 KiB\"");
    assert_ne!(in_kib, text);
    assert_eq!(Group::parse(&in_kib).unwrap().id(), group.id());
    let parameters = &text[text.find("[parameters]").unwrap()..text.find("[[replica]]").unwrap()];
    let defaults = text.replace(parameters, "");
    assert_eq!(Group::parse(&defaults).unwrap().id(), group.id());
}

#[test]
fn the_id_changes_with_everything_the_file_says() {
    let group = changed(|_| ());
    let fresh = Identity::generate().public();
    let changes: [&dyn Fn(&mut Group); 14] = [
        &|g| g.name.push('x'),
        &|g| g.f = 0,
        &|g| g.memory += 1,
        &|g| g.parameters.checkpoint_interval += 1,
        &|g| g.parameters.window += 1,
        &|g| g.parameters.view_timeout_ms += 1,
        &|g| g.parameters.slots += 1,
        &|g| g.replicas[1].address = "localhost:1".into(),
        &|g| g.replicas[1].identity.link = fresh.link,
        &|g| g.replicas[1].identity.signing = fresh.signing,
        &|g| g.replicas.swap(1, 2),
        &|g| g.clients[0].name.push('x'),
        &|g| g.clients.swap(0, 1),
        &|g| g.clients.truncate(1),
    ];
    for (place, change) in changes.iter().enumerate() {
        let mut other = group.clone();
        change(&mut other);
        assert_ne!(other.id(), group.id(), "change {place}");
        assert!(!group.diff(&other).is_empty(), "change {place}");
        assert_eq!(Group::parse(&other.to_toml()).unwrap().id(), other.id(), "change {place}");
    }
}

#[test]
fn a_difference_says_where_it_is() {
    let group = changed(|_| ());
    assert_eq!(group.diff(&group), Vec::<String>::new());
    let mut other = group.clone();
    other.parameters.window = 300;
    other.replicas[2].address = "example.org:7102".into();
    let address = &group.replicas[2].address;
    assert_eq!(
        group.diff(&other),
        [
            "- window = 256".into(),
            format!("- replica 2: address = \"{address}\""),
            "+ window = 300".into(),
            "+ replica 2: address = \"example.org:7102\"".into(),
        ]
    );
    let mut other = group.clone();
    other.replicas.swap(0, 1);
    assert_eq!(group.diff(&other).len(), 12, "an exchange of ids is a difference");
}

#[test]
fn what_is_impossible_is_refused_by_name() {
    let fresh = Identity::generate().public();
    refused(&changed(|g| g.f = 2), "f = 2 needs 7 to 64 replicas, not 4");
    refused(&changed(|g| g.f = u32::MAX), "replicas, not 4");
    refused(&changed(|g| g.replicas.clear()), "replicas, not 0");
    refused(&changed(|g| g.memory = 1), "memory = \"1B\"");
    refused(&changed(|g| g.name.clear()), "name must have");
    refused(&changed(|g| g.clients[1].name = "a\u{1b}[2J".into()), "the name of client 1");
    refused(&changed(|g| g.parameters.window = 128), "must exceed");
    refused(&changed(|g| g.parameters.window = u64::MAX >> 1), "at most 4096");
    refused(&changed(|g| g.parameters.checkpoint_interval = 0), "at least 1");
    refused(&changed(|g| g.parameters.view_timeout_ms = 99), "view_timeout_ms = 99");
    refused(&changed(|g| g.parameters.slots = 0), "slots = 0");
    refused(&changed(|g| g.parameters.slots = 1025), "slots = 1025");
    refused(&changed(|g| g.replicas[2].address = g.replicas[1].address.clone()), "two replicas");
    for address in ["host", "host:", ":7100", "host:0", "host:65536", "host:http"] {
        refused(&changed(|g| g.replicas[2].address = address.into()), "replica 2 has the address");
    }
    refused(
        &changed(|g| g.clients[0].identity = g.replicas[0].identity),
        "client 0 is listed twice",
    );
    refused(
        &changed(|g| g.clients[1].identity.link = g.clients[0].identity.link),
        "client 1 is listed twice",
    );
    refused(
        &changed(|g| g.clients[1].identity.signing = g.clients[0].identity.signing),
        "client 1 is listed twice",
    );
    refused(&changed(|g| g.replicas[3].identity.link = [0; 32]), "replica 3 is weak");
    let mut neutral = [0; 32];
    neutral[0] = 1;
    refused(&changed(|g| g.replicas[3].identity.signing = neutral), "replica 3 is weak");
    let many = changed(|g| {
        let entry = g.clients[0].clone();
        g.clients = vec![entry; 10_001];
        g.clients[0].identity = fresh;
    });
    refused(&many, "10001 clients are more than 10000");
}

#[test]
fn the_spelling_is_strict() {
    let text = changed(|_| ()).to_toml();
    let refused = |from: &str, to: &str, words: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        let error = Group::parse(&changed).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    refused("f = 1", "f = 1\nfaults = 2", "faults");
    refused("window", "widow", "widow");
    refused("address", "adress", "adress");
    refused("[[client]]", "[[client]]\naddress = \"host:1\"", "a name and no address");
    refused("[[client]]", "[[client]]\nadmin = true", "admin");
    refused("[[replica]]", "[[replica]]\nport = 1", "port");
    refused("link = \"", "link = \"0", "64 hexadecimal digits");
    refused("\"64MiB\"", "\"64MB\"", "is not a size");
    refused("\"64MiB\"", "64", "memory");
    refused("name", "# name", "name");
    assert!(matches!(Group::parse("f = ").unwrap_err(), GroupError::Syntax(_)));
}

#[test]
fn sizes_are_exact() {
    assert_eq!(parse_size("2GiB"), Some(2 << 30));
    assert_eq!(parse_size("512 MiB"), Some(512 << 20));
    assert_eq!(parse_size("7B"), Some(7));
    let bad = [
        "",
        "GiB",
        " GiB",
        "2",
        "2GB",
        "-1GiB",
        "+1GiB",
        "99999999999GiB",
        "1.5GiB",
        "1  GiB",
        "1\tGiB",
        " 1GiB",
    ];
    for bad in bad {
        assert_eq!(parse_size(bad), None, "{bad}");
    }
    for bytes in [0, 1, 1023, 1 << 10, 3 << 20, 5 << 30, u64::MAX] {
        assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
    }
}

#[test]
fn everyone_is_found_by_the_link_key() {
    let world = World::new(4, 2);
    let found = |peer: Peer| world.group.peer_of(&world.identity(peer).public().link);
    for peer in [replica(0), replica(3), client(0), client(1)] {
        assert_eq!(found(peer), Some(peer));
    }
    assert_eq!(world.group.peer_of(&[1; 32]), None);
}

#[test]
fn public_files_say_what_one_is() {
    let path = std::env::temp_dir().join(format!("bft-net-public-{}.toml", std::process::id()));
    let identity = Identity::generate().public();
    for public in
        [PublicFile::replica("host:7100", identity), PublicFile::client("alice", identity)]
    {
        public.save(&path).unwrap();
        assert_eq!(PublicFile::load(&path).unwrap(), public);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}seed = 1\n")).unwrap();
        assert!(PublicFile::load(&path).unwrap_err().to_string().contains("seed"));
        std::fs::write(&path, format!("{text}address = \"a:1\"\nname = \"a\"\n")).unwrap();
        PublicFile::load(&path).unwrap_err();
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(PublicFile::load(&path), Err(GroupError::Io { .. })));
}

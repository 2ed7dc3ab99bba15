//! READDIR and READDIRPLUS: what fits, and what stays put while a directory changes.

use super::client::*;
use super::server::Server;
use std::collections::BTreeMap;

/// One entry: its name, its number, its cookie, and what READDIRPLUS says besides.
type Entry = (Vec<u8>, u64, u64, Option<(Attributes, Handle)>);

/// A page of a listing.
struct Page {
    verifier: [u8; 8],
    entries: Vec<Entry>,
    eof: bool,
    /// How long the results were past their status. Units: bytes.
    size: usize,
}

impl Client {
    /// READDIR of at most `most` bytes; or READDIRPLUS, with a limit for the rest of the entries.
    fn page(
        &mut self,
        dir: &[u8],
        cookie: u64,
        verifier: [u8; 8],
        plus: Option<u32>,
        most: u32,
    ) -> Result<Page, u32> {
        let procedure = if plus.is_some() { 17 } else { 16 };
        let (status, mut r) = self.nfs(procedure, |w| {
            w.opaque(dir).u64(cookie).fixed(&verifier);
            if let Some(count) = plus {
                w.u32(count);
            }
            w.u32(most);
        });
        let size = r.left();
        post_op(&mut r);
        if status != OK {
            r.end().unwrap();
            return Err(status);
        }
        let verifier = r.fixed().unwrap();
        let mut entries = Vec::new();
        while r.bool().unwrap() {
            let number = r.u64().unwrap();
            let (name, cookie) = (r.opaque(255).unwrap().to_vec(), r.u64().unwrap());
            let more = plus.map(|_| {
                let attributes = post_op(&mut r).unwrap();
                assert!(r.bool().unwrap());
                (attributes, r.opaque(64).unwrap().to_vec())
            });
            entries.push((name, number, cookie, more));
        }
        let eof = r.bool().unwrap();
        r.end().unwrap();
        Ok(Page { verifier, entries, eof, size })
    }

    /// A whole listing in pages of `most` bytes; `between` runs after each.
    fn list(
        &mut self,
        dir: &[u8],
        plus: Option<u32>,
        most: u32,
        mut between: impl FnMut(&mut Self),
    ) -> Vec<Entry> {
        let (mut all, mut cookie, mut verifier) = (Vec::<Entry>::new(), 0, [0; 8]);
        loop {
            let page = self.page(dir, cookie, verifier, plus, most).unwrap();
            assert!(page.size <= most as usize, "{} of {most} bytes", page.size);
            assert!(page.eof || !page.entries.is_empty());
            all.extend(page.entries);
            if page.eof {
                return all;
            }
            (cookie, verifier) = (all.last().unwrap().2, page.verifier);
            between(self);
        }
    }
}

fn names(entries: &[Entry]) -> BTreeMap<Vec<u8>, usize> {
    let mut names = BTreeMap::new();
    entries.iter().for_each(|entry| *names.entry(entry.0.clone()).or_default() += 1);
    names
}

#[test]
fn entries_are_listed_with_what_a_lookup_would_say() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    let (file, made) = client.create(&root, b"file", 0o644).unwrap();
    client.mkdir(&root, b"dir", 0o755).unwrap();
    let plain = client.list(&root, None, 4096, |_| {});
    let plus = client.list(&root, Some(4096), 4096, |_| {});
    assert_eq!(names(&plain), names(&plus));
    assert_eq!(plain.len(), 4);
    assert_eq!((&plain[0].0[..], &plain[1].0[..]), (&b"."[..], &b".."[..]));
    let found = plus.iter().find(|entry| entry.0 == b"file").unwrap();
    assert_eq!(found.3, Some((made, file)));
}

#[test]
fn pages_are_as_long_as_was_asked_for_and_no_longer() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    for i in 0..300usize {
        client.create(&root, &vec![b'a' + (i % 26) as u8; i % 200 + 1 + i / 200], 0o644).ok();
    }
    let whole = names(&client.list(&root, None, 1 << 20, |_| {}));
    for most in [400, 512, 1000, 4096, 32_768] {
        assert_eq!(names(&client.list(&root, None, most, |_| {})), whole, "{most}");
        assert_eq!(names(&client.list(&root, Some(most), most.max(600), |_| {})), whole, "{most}");
    }
    // Full pages are full: the next entry would not have fitted.
    let page = client.page(&root, 0, [0; 8], None, 4096).unwrap();
    assert!(!page.eof && page.size + 24 + 256 > 4096, "{} bytes", page.size);
    let small = client.page(&root, 0, [0; 8], Some(60), 32_768).unwrap();
    assert_eq!(small.entries.len(), 2, "of 20 bytes and 24 bytes");
    assert_eq!(client.page(&root, 0, [0; 8], None, 100).err(), Some(TOOSMALL));
    assert_eq!(client.page(&root, 0, [0; 8], None, 0).err(), Some(TOOSMALL));
    assert_eq!(client.page(&root, 0, [0; 8], Some(10), 4096).err(), Some(TOOSMALL));
}

#[test]
fn cookies_that_never_were_are_refused_or_harmless() {
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    client.create(&root, b"file", 0o644).unwrap();
    let page = client.page(&root, 0, [0; 8], None, 4096).unwrap();
    let good = page.verifier;
    for cookie in [3, 7, 1 << 63, u64::MAX] {
        assert_eq!(client.page(&root, cookie, good, None, 4096).err(), Some(BAD_COOKIE));
    }
    for cookie in [1, 2, 12_345, i64::MAX as u64] {
        assert_eq!(client.page(&root, cookie, [9; 8], None, 4096).err(), Some(BAD_COOKIE));
        assert_eq!(client.page(&root, cookie, [9; 8], Some(100), 4096).err(), Some(BAD_COOKIE));
        assert!(client.page(&root, cookie, good, None, 4096).unwrap().eof);
    }
    let (file, _) = client.create(&root, b"other", 0o644).unwrap();
    assert_eq!(client.page(&file, 0, [0; 8], None, 4096).err(), Some(NOTDIR));
}

#[test]
fn what_stays_is_listed_once_while_a_directory_changes() {
    const STAYING: usize = 20_000;
    let server = Server::local(&[]);
    let mut client = server.client();
    let root = client.mount();
    for i in 0..STAYING {
        client.create(&root, format!("stay-{i}").as_bytes(), 0o644).unwrap();
    }
    let (mut step, mut removed) = (0, 0);
    let listed = client.list(&root, Some(32_768), 32_768, |client| {
        for i in 0..40 {
            client.create(&root, format!("come-{step}-{i}").as_bytes(), 0o644).unwrap();
        }
        // Those that came in the step before go again, whether they were listed or not.
        for i in 0..40usize.min(step * 40) {
            let name = format!("come-{}-{i}", step - 1);
            assert_eq!(client.remove(12, &root, name.as_bytes()).0, OK);
            removed += 1;
        }
        step += 1;
    });
    assert!(step > 50 && removed > 2000, "{step} pages");
    let names = names(&listed);
    assert!(names.values().all(|times| *times == 1));
    let stayed = names.keys().filter(|name| name.starts_with(b"stay-")).count();
    assert_eq!(stayed, STAYING);
}

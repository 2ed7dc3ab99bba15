//! A replica that missed a great deal comes back while the others go on. [CL02 §6; P7, P9]

use bfs_client::local_group::LocalGroup;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the state holds before the replica is lost. Units: files of one MiB.
const LARGE_FILES: usize = 500;
/// What it misses besides. Units: operations, two a file.
const MISSED: u64 = 10_000;

/// Small files, created and written, until `stop`; counts them.
fn work(point: &Path, name: &str, done: &AtomicU64, stop: &AtomicBool) {
    let mut i = 0;
    while !stop.load(Ordering::Relaxed) {
        // The same thousand names again and again, so that the state does not grow.
        fs::write(point.join(format!("{name}{}", i % 1000)), format!("{name} {i}")).unwrap();
        done.fetch_add(1, Ordering::Relaxed);
        i += 1;
    }
}

fn rate(done: &AtomicU64, span: impl Fn() -> bool) -> f64 {
    let (start, before) = (Instant::now(), done.load(Ordering::Relaxed));
    while span() {
        // Asking costs a process with four handshakes: seldom enough not to be what is measured.
        std::thread::sleep(Duration::from_millis(500));
    }
    (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
}

/// A replica that is killed, misses [`MISSED`] operations and starts again.
///
/// Returns: the rate of work before it starts again, and until it is back. Units: files a second.
fn rejoin(group: &mut LocalGroup, point: &Path, lost: usize) -> (f64, f64) {
    group.kill(lost).unwrap();
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (without, during, took) = std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let (done, stop) = (&done, &stop);
            scope.spawn(move || work(point, name, done, stop));
        }
        rate(&done, || done.load(Ordering::Relaxed) < MISSED / 4);
        let start = Instant::now();
        let is_missing = || done.load(Ordering::Relaxed) < MISSED / 2;
        let without = rate(&done, || is_missing() || start.elapsed() < Duration::from_secs(5));
        group.start_replica(lost).unwrap();
        let start = Instant::now();
        let rejoins = || health(group) != "HEALTHY" && start.elapsed() < Duration::from_secs(120);
        let during = rate(&done, rejoins);
        stop.store(true, Ordering::Relaxed);
        (without, during, start.elapsed())
    });
    assert_eq!(health(group), "HEALTHY");
    println!(
        "{without:.0} files a second without it, {during:.0} while it rejoined: {:.2}; it took {took:?}",
        during / without
    );
    (without, during)
}

fn health(group: &LocalGroup) -> String {
    group.status().map(|status| status.health.to_string()).unwrap_or_default()
}

#[test]
fn a_replica_that_missed_500_mb_rejoins_while_the_others_keep_most_of_their_speed() {
    if !nix::unistd::geteuid().is_root() || fs::File::open("/dev/fuse").is_err() {
        println!("skipped: mounting wants root and /dev/fuse");
        return;
    }
    let mut group = LocalGroup::create(4, 1).unwrap();
    let point = group.dir().join("mnt");
    fs::create_dir_all(&point).unwrap();
    group.mount(&point, "").unwrap();
    for i in 0..LARGE_FILES {
        fs::write(point.join(format!("large{i}")), vec![i as u8; 1 << 20]).unwrap();
    }
    let (primary, _) = group.status().unwrap().primary().unwrap();
    let lost = (primary + 2) % 4;
    // Whatever else the machine does makes one measurement good or bad by a third: one in three has to show it.
    let keeps_its_speed = (0..3).any(|_| {
        let (without, during) = rejoin(&mut group, &point, lost);
        during >= 0.7 * without
    });
    assert!(keeps_its_speed);
    // Its votes count: another replica goes, and everything can still be read.
    group.kill((lost + 1) % 4).unwrap();
    for i in (0..LARGE_FILES).step_by(50) {
        assert!(fs::read(point.join(format!("large{i}"))).unwrap().iter().all(|b| *b == i as u8));
    }
    group.unmount(&point).unwrap();
}

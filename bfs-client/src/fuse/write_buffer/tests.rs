use super::*;
use crate::backend::Local;
use crate::fuse::fixture::attributes;
use bfs_fs::op::{CreateMode, ROOT, Timestamp};

/// A group that answers when it is told to.
#[derive(Default)]
struct Slow {
    waiting: Mutex<Vec<(FsRequest, Answer)>>,
}

type Answer = Box<dyn FnOnce(FsResult) + Send>;

impl Backend for Slow {
    fn call(&self, request: FsRequest, done: Answer) {
        self.waiting.lock().unwrap().push((request, done));
    }

    fn fail_all(&self) {}
}

impl Slow {
    /// Where the writes on their way begin, and how long they are.
    fn sent(&self) -> Vec<(u64, usize)> {
        let stretch = |request: &FsRequest| match &request.op {
            FsOp::Write { offset, data, .. } => (*offset, data.len()),
            other => panic!("{other:?}"),
        };
        self.waiting.lock().unwrap().iter().map(|(request, _)| stretch(request)).collect()
    }

    /// Answers what was sent as number `at`, and says what its bytes are.
    fn answer(&self, at: usize, error: Option<FsError>) -> Bytes {
        let (request, done) = self.waiting.lock().unwrap().remove(at);
        let FsOp::Write { data, .. } = request.op else { panic!("only writes are sent") };
        let count = data.len() as u32;
        done(error.map_or(Ok(FsReply::Written { count, attributes: attributes(FILE.0) }), Err));
        data
    }
}

const FILE: Inode = Inode(5);
const OTHER: Inode = Inode(6);

fn who(uid: u32) -> Caller {
    Caller { uid, gid: 0, groups: Vec::new() }
}

/// What became of something, once it is known.
type Told<T> = Arc<Mutex<Option<T>>>;

fn told<T>(told: &Told<T>) -> Option<T> {
    told.lock().unwrap().take()
}

struct Bench {
    group: Arc<Slow>,
    buffer: Arc<WriteBuffer>,
}

impl Bench {
    fn new() -> Self {
        let group = Arc::<Slow>::default();
        let buffer = WriteBuffer::new(group.clone(), Kernel::default());
        // Nothing becomes too old in these tests.
        buffer.lock().attended = true;
        Self { group, buffer }
    }

    fn write(&self, inode: Inode, offset: u64, data: &[u8]) -> Told<Result<(), FsError>> {
        let ours = Told::default();
        let done = Arc::clone(&ours);
        self.buffer.write(inode, 1, who(0), (offset, data), move |result| {
            *done.lock().unwrap() = Some(result);
        });
        ours
    }

    fn settle(&self, inode: Inode) -> Told<()> {
        let settled = Told::default();
        let done = Arc::clone(&settled);
        self.buffer.settle(inode, move || *done.lock().unwrap() = Some(()));
        settled
    }
}

#[test]
fn small_writes_are_answered_at_once_and_sent_as_one() {
    let b = Bench::new();
    for (offset, data) in [(0, "one "), (4, "two "), (8, "three"), (4, "TWO")] {
        assert_eq!(told(&b.write(FILE, offset, data.as_bytes())), Some(Ok(())));
    }
    assert_eq!(b.group.sent(), []);
    assert_eq!(b.buffer.unsettled(), [FILE]);
    let settled = b.settle(FILE);
    assert_eq!(b.group.sent(), [(0, 13)]);
    assert_eq!(told(&settled), None, "the group has not answered");
    assert_eq!(b.group.answer(0, None), "one TWO three");
    assert_eq!(told(&settled), Some(()));
    assert_eq!(b.buffer.unsettled(), []);
    assert!(b.buffer.lock().files.is_empty() && b.buffer.lock().bytes == 0);
}

#[test]
fn a_full_run_goes_by_itself_and_others_follow_it() {
    let b = Bench::new();
    let block = vec![7; GATHERED_MAX / 2];
    for i in 0..5 {
        assert_eq!(told(&b.write(FILE, i * block.len() as u64, &block)), Some(Ok(())));
    }
    let run = GATHERED_MAX as u64;
    assert_eq!(b.group.sent(), [(0, GATHERED_MAX), (run, GATHERED_MAX)]);
    // An answer may come before that to an earlier run.
    b.group.answer(1, None);
    let settled = b.settle(FILE);
    assert_eq!(b.group.sent(), [(0, GATHERED_MAX), (2 * run, GATHERED_MAX / 2)]);
    b.group.answer(1, None);
    assert_eq!(told(&settled), None);
    b.group.answer(0, None);
    assert_eq!(told(&settled), Some(()));
}

#[test]
fn no_two_runs_on_the_same_bytes_are_on_their_way() {
    let b = Bench::new();
    b.write(FILE, 0, b"old");
    let first = b.settle(FILE);
    b.write(FILE, 0, b"new");
    let second = b.settle(FILE);
    assert_eq!(b.group.sent(), [(0, 3)]);
    // What was to be settled goes first.
    let elsewhere = b.write(FILE, 100, b"x");
    assert_eq!(told(&elsewhere), None);
    assert_eq!(b.group.answer(0, None), "old");
    assert_eq!(told(&first), Some(()));
    assert_eq!(b.group.answer(0, None), "new");
    assert_eq!((told(&second), told(&elsewhere)), (Some(()), Some(Ok(()))));
    let third = b.settle(FILE);
    assert_eq!(b.group.answer(0, None), "x");
    assert_eq!(told(&third), Some(()));
}

#[test]
fn scattered_writes_go_together() {
    let b = Bench::new();
    for offset in [304, 64, 128, 0] {
        assert_eq!(told(&b.write(FILE, offset, &[7; 50])), Some(Ok(())));
    }
    assert_eq!(b.group.sent(), []);
    let settled = b.settle(FILE);
    assert_eq!(b.group.sent(), [(0, 50), (64, 50), (128, 50), (304, 50)]);
    (0..4).for_each(|_| drop(b.group.answer(0, None)));
    assert_eq!(told(&settled), Some(()));
    assert!(b.buffer.lock().files.is_empty() && b.buffer.lock().bytes == 0);
}

const TTL: Duration = Duration::from_secs(1000);

#[test]
fn a_new_file_is_read_without_the_group() {
    let b = Bench::new();
    b.buffer.created(attributes(FILE.0), TTL);
    assert_eq!(b.buffer.read(FILE, 0, 10), Some(Vec::new()));
    b.write(FILE, 4, b"four");
    b.write(FILE, 10, b"ten");
    assert_eq!(b.buffer.read(FILE, 0, 4096).unwrap(), b"\0\0\0\0four\0\0ten");
    assert_eq!(b.buffer.read(FILE, 6, 5).unwrap(), b"ur\0\0t");
    assert_eq!(b.buffer.read(FILE, 13, 5), Some(Vec::new()));
    assert_eq!(b.buffer.read(FILE, u64::MAX, 5), Some(Vec::new()));
    assert_eq!(b.buffer.attributes(FILE).unwrap().size, 13);
    // On its way it is known as well, and what is written meanwhile is newer.
    b.buffer.send_old(Duration::ZERO);
    b.write(FILE, 5, b"!");
    assert_eq!(b.buffer.read(FILE, 0, 4096).unwrap(), b"\0\0\0\0f!ur\0\0ten");
    // The group has a part of it, and may have more of somebody else's.
    b.group.answer(0, None);
    assert_eq!((b.buffer.read(FILE, 0, 4096), b.buffer.attributes(FILE)), (None, None));
}

#[test]
fn only_what_is_new_and_changed_here_alone_is_known() {
    let b = Bench::new();
    b.write(FILE, 0, b"a");
    assert_eq!(b.buffer.read(FILE, 0, 10), None, "who knows what else is in it");
    b.buffer.created(attributes(FILE.0), TTL);
    assert_eq!(b.buffer.read(FILE, 0, 10), None, "written to before it was created");
    let new = |inode: u64| b.buffer.created(attributes(inode), TTL);
    // A truncate, say, waits for nothing and then changes the file.
    new(11);
    assert_eq!(told(&b.settle(Inode(11))), Some(()));
    b.write(Inode(11), 0, b"a");
    assert_eq!(b.buffer.read(Inode(11), 0, 10), None);
    b.buffer.created(attributes(12), Duration::ZERO);
    assert_eq!(b.buffer.read(Inode(12), 0, 10), None, "too long ago");
    b.buffer.created(Attributes { size: 1, ..attributes(13) }, TTL);
    assert_eq!(b.buffer.read(Inode(13), 0, 10), None, "another's");
}

#[test]
fn what_the_kernel_learns_of_another_client_is_not_hidden_from_it() {
    let b = Bench::new();
    let new = |inode: u64| b.buffer.created(attributes(inode), TTL);
    let is_known = |inode: u64| b.buffer.read(Inode(inode), 0, 10).is_some();
    new(11);
    b.buffer.found(&attributes(11));
    assert!(is_known(11), "listed as it was created");
    b.buffer.found(&Attributes { size: 3, ..attributes(11) });
    assert!(!is_known(11), "written to, and seen in a listing or under another name");
    let later = Timestamp { seconds: 1, ..Timestamp::default() };
    new(12);
    b.buffer.found(&Attributes { modified: later, ..attributes(12) });
    assert!(!is_known(12), "written to and truncated");
    new(13);
    b.buffer.opened(Inode(13), 2);
    assert!(!is_known(13), "opened anew");
    new(14);
    b.buffer.changed(Inode(14));
    assert!(!is_known(14), "it has lost its name");
}

#[test]
fn what_has_waited_for_room_becomes_too_old_as_well() {
    let b = Bench::new();
    b.write(FILE, 0, b"old");
    b.settle(FILE);
    let waits = b.write(FILE, 0, b"new");
    b.settle(FILE);
    let last = b.write(FILE, 100, b"last");
    assert_eq!((told(&waits), told(&last)), (None, None));
    // Nothing was gathered when somebody last looked.
    b.buffer.lock().attended = false;
    b.group.answer(0, None);
    b.group.answer(0, None);
    assert_eq!(told(&last), Some(Ok(())));
    let start = Instant::now();
    while b.group.sent().is_empty() {
        assert!(start.elapsed() < 20 * AGE, "nobody sends it");
        thread::sleep(AGE / 20);
    }
}

#[test]
fn what_is_new_is_not_remembered_for_ever() {
    let b = Bench::new();
    b.buffer.created(attributes(FILE.0), TTL);
    b.buffer.closed(FILE);
    assert!(b.buffer.lock().files.is_empty(), "closed with nothing in it");
    b.buffer.created(attributes(FILE.0), TTL);
    b.write(FILE, 0, b"a");
    b.buffer.closed(FILE);
    assert!(b.buffer.read(FILE, 0, 10).is_some());
    b.settle(FILE);
    b.group.answer(0, None);
    assert!(b.buffer.lock().files.is_empty());
}

#[test]
fn different_users_share_no_run() {
    let b = Bench::new();
    b.write(FILE, 0, b"root");
    b.buffer.write(FILE, 2, who(1000), (4, b"user"), |result| assert_eq!(result, Ok(())));
    assert_eq!(b.group.sent(), [(0, 4)]);
    b.settle(FILE);
    assert_eq!(b.group.sent(), [(0, 4), (4, 4)]);
    let callers: Vec<u32> =
        b.group.waiting.lock().unwrap().iter().map(|(request, _)| request.caller.uid).collect();
    assert_eq!(callers, [0, 1000]);
}

#[test]
fn a_file_has_a_bounded_number_of_runs_on_their_way() {
    let b = Bench::new();
    let block = vec![7; GATHERED_MAX];
    let mut last = Told::default();
    for i in 0..=SENT_MAX as u64 + 1 {
        last = b.write(FILE, i * GATHERED_MAX as u64, &block);
    }
    assert_eq!(b.group.sent().len(), SENT_MAX);
    assert_eq!(told(&last), None, "one is gathered, the next one waits");
    b.group.answer(0, None);
    assert_eq!(told(&last), Some(Ok(())));
    assert_eq!(b.group.sent().len(), SENT_MAX);
}

#[test]
fn what_is_kept_here_is_bounded_and_makes_room_for_itself() {
    let b = Bench::new();
    let block = vec![7; GATHERED_MAX - 1];
    let files = 2 * (BUDGET / GATHERED_MAX) as u64;
    let told_all: Vec<_> = (0..files).map(|i| b.write(Inode(100 + i), 0, &block)).collect();
    assert!(b.buffer.lock().bytes <= BUDGET);
    let mut answered = 0;
    while answered < files as usize {
        if b.group.sent().is_empty() {
            // The last ones would wait to become old.
            b.buffer.settle_all(|| ());
        }
        b.group.answer(0, None);
        assert!(b.buffer.lock().bytes <= BUDGET);
        answered += 1;
    }
    assert!(told_all.iter().all(|t| told(t) == Some(Ok(()))));
    assert_eq!(b.buffer.unsettled(), []);
    assert_eq!(b.buffer.lock().bytes, 0);
}

#[test]
fn a_failure_is_told_once_to_every_handle() {
    let b = Bench::new();
    b.buffer.opened(FILE, 1);
    b.write(FILE, 0, b"a");
    let settled = b.settle(FILE);
    b.group.answer(0, Some(FsError::NoSpace));
    assert_eq!(told(&settled), Some(()));
    assert_eq!(b.buffer.failure(FILE, 1), Some(FsError::NoSpace));
    assert_eq!(b.buffer.failure(FILE, 1), None);
    assert_eq!(b.buffer.failure(FILE, 2), Some(FsError::NoSpace));
    // Who comes when it is known hears nothing of it.
    b.buffer.opened(FILE, 3);
    assert_eq!(b.buffer.failure(FILE, 3), None);
    b.buffer.closed(FILE);
    assert!(b.buffer.lock().files.is_empty());
}

#[test]
fn who_closes_a_file_is_told_of_a_failure_only_if_he_wrote() {
    let b = Bench::new();
    b.write(FILE, 0, b"a");
    b.settle(FILE);
    b.group.answer(0, Some(FsError::NoSpace));
    assert_eq!(b.buffer.failure_at_close(FILE, 2), None);
    assert_eq!(b.buffer.failure_at_close(FILE, 1), Some(FsError::NoSpace));
    // That may have been a child that executed another program: whoever writes on hears of it all the same.
    assert_eq!(told(&b.write(FILE, 1, b"b")), Some(Err(FsError::NoSpace)));
    assert_eq!(b.buffer.failure_at_close(FILE, 1), None);
}

#[test]
fn the_next_write_is_told_of_a_failure_and_goes_nowhere() {
    let b = Bench::new();
    b.write(FILE, 0, b"a");
    b.settle(FILE);
    b.group.answer(0, Some(FsError::QuotaExceeded));
    assert_eq!(told(&b.write(FILE, 1, b"b")), Some(Err(FsError::QuotaExceeded)));
    assert_eq!(b.buffer.unsettled(), []);
    assert_eq!(told(&b.write(FILE, 1, b"b")), Some(Ok(())));
    assert_eq!(b.buffer.failure(FILE, 1), None);
}

#[test]
fn all_files_are_waited_for_and_only_those_that_have_something() {
    let b = Bench::new();
    b.write(FILE, 0, b"a");
    b.write(OTHER, 0, b"b");
    let settled: Told<()> = Told::default();
    let done = Arc::clone(&settled);
    b.buffer.settle_all(move || *done.lock().unwrap() = Some(()));
    assert_eq!(told(&b.settle(Inode(7))), Some(()), "nothing was written there");
    b.group.answer(0, None);
    assert_eq!(told(&settled), None);
    b.group.answer(0, None);
    assert_eq!(told(&settled), Some(()));
}

#[test]
fn what_nobody_asks_for_goes_when_it_is_old() {
    let local = Arc::new(Local::default());
    let ask = |op| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let request = FsRequest { caller: who(0), op };
        local.call(request, Box::new(move |result| sender.send(result).unwrap()));
        receiver.recv().unwrap().unwrap()
    };
    let create =
        FsOp::Create { parent: ROOT, name: b"f".to_vec(), mode: 0o644, how: CreateMode::Guarded };
    let FsReply::Attributes(file) = ask(create) else { panic!("no file") };
    let size = || match ask(FsOp::GetAttributes { inode: file.inode }) {
        FsReply::Attributes(a) => a.size,
        other => panic!("{other:?}"),
    };
    let buffer = WriteBuffer::new(local.clone(), Kernel::default());
    buffer.write(file.inode, 1, who(0), (0, b"abc"), |result| assert_eq!(result, Ok(())));
    assert_eq!(size(), 0);
    let start = Instant::now();
    while size() != 3 {
        assert!(start.elapsed() < 20 * AGE, "nobody sends it");
        thread::sleep(AGE / 20);
    }
}

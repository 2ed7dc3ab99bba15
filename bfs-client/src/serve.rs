//! The process that serves a mount, from the first answer of the group to the last trace removed.

use crate::backend::{Backend, Local};
use crate::failure::{Failure, Outcome};
use crate::fuse::Front;
use crate::fuse::write_buffer::WriteBuffer;
use crate::mount::{Plan, Source, mount_failure};
use crate::mount_state::{LOOK, MountState, Remembered};
use crate::mount_table::{self, Detach, MountEntry};
use nix::unistd::geteuid;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long an unmount may take to write what programs have mapped and changed.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);
/// How far ahead the kernel reads: several of the largest reads, so that the group works while a program copies. Units: KiB.
const READ_AHEAD_KIB: &str = "4096";

/// Serves until Ctrl-C, SIGTERM or an unmount.
pub fn in_foreground(plan: &Plan) -> Outcome {
    serve(plan, |line| {
        // Whoever does not read it may use the mount all the same.
        let _ = writeln!(io::stdout(), "{line}\nCtrl-C unmounts");
        Ok(())
    })
}

/// Serves until SIGTERM or an unmount, detached from whoever started this process; tells them on standard output, once, how it went.
///
/// An error that comes before that word is told there too, and is not returned.
pub fn in_background(prepare: impl FnOnce() -> Outcome<Plan>) -> Outcome {
    let mut told = false;
    let result = prepare().and_then(|plan| {
        serve(&plan, |line| {
            told = true;
            // From here on the terminal's signals are for others. It fails only for a leader of a process group, which
            // then is already on its own.
            let _ = nix::unistd::setsid();
            tell(&format!("ready {line}\n"))
        })
    });
    match result {
        Err(failure) if !told => {
            // With nobody listening the log is what remains.
            eprintln!("bfs: {failure}");
            let _ = tell(&format!("failed {}\n{failure}\n", failure.exit as i32));
            std::process::exit(failure.exit as i32);
        }
        result => result,
    }
}

fn tell(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Serves `plan`; `announce` gets one line when files can be used.
fn serve(plan: &Plan, announce: impl FnOnce(&str) -> io::Result<()>) -> Outcome {
    // Decision 11. A kernel without huge pages needs no telling.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let cannot = |error: io::Error| Failure::new("cannot start the serving process", error);
    let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    let signals = {
        let _context = runtime.enter();
        Signals::catch().map_err(cannot)?
    };
    let result = serve_on(&runtime, plan, signals, announce);
    // A thread may hang in the mount that was just detached; it must not keep the process.
    runtime.shutdown_background();
    result
}

fn serve_on(
    runtime: &Runtime,
    plan: &Plan,
    mut signals: Signals,
    announce: impl FnOnce(&str) -> io::Result<()>,
) -> Outcome {
    let (backend, group) = connect(runtime, plan, &mut signals)?;
    // The directory that this process was started in is not its to keep busy.
    let _ = std::env::set_current_dir("/");
    runtime.block_on(async {
        let mut mount = Mount::new(plan, &backend)?;
        let result = match mount.start(plan, &group, &mut signals, announce).await {
            Ok(()) => {
                mount.wait(&backend, &mut signals).await;
                Ok(())
            }
            failed => failed,
        };
        mount.end(&backend).await;
        result
    })
}

/// A backend that has answered once, and the group's id in words.
fn connect(
    runtime: &Runtime,
    plan: &Plan,
    signals: &mut Signals,
) -> Outcome<(Arc<dyn Backend>, String)> {
    match plan.source.clone() {
        Source::Local => Ok((Arc::new(Local::default()), "local".into())),
        Source::Group { file, key } => {
            let patience = plan.options.patience;
            let connected = async move {
                blocking(move || crate::session::connect(&file, &key, patience)).await
            };
            runtime.block_on(async {
                tokio::select! {
                    session = connected => {
                        let (session, group) = session?;
                        Ok((session as Arc<dyn Backend>, group.to_string()))
                    }
                    name = signals.stop() => Err(stopped(name)),
                }
            })
        }
    }
}

fn stopped(signal: &str) -> Failure {
    Failure::new("did not mount", format!("stopped by {signal}"))
}

/// Runs what may hang on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(Failure::new("the serving process failed", panic)),
    }
}

/// A mount that exists and has to be taken away.
struct Mount {
    dir: PathBuf,
    entry: MountEntry,
    /// What a detached mount would lose.
    writes: Option<Arc<WriteBuffer>>,
    /// Completes when the kernel has ended the mount.
    ended: oneshot::Receiver<()>,
    /// Nothing before files can be used.
    remembered: Option<Remembered>,
}

impl Mount {
    fn new(plan: &Plan, backend: &Arc<dyn Backend>) -> Outcome<Self> {
        let (end, ended) = oneshot::channel();
        let front = Front::new(backend.clone(), &plan.options, end);
        let (kernel, writes) = (front.kernel(), front.writes());
        let config = plan.options.fuse_config(&plan.source.device(), geteuid().is_root());
        let failed = |error: io::Error| mount_failure(&plan.dir, &error);
        let session = fuser::Session::new(front, &plan.dir, &config).map_err(failed)?;
        kernel.connect(session.notifier());
        let serving = session.spawn().map_err(failed)?;
        // The library would unmount the directory once more when the mount has ended, and hit whatever is mounted there by
        // then. Who unmounts here looks at the mount's own number.
        std::mem::forget(serving);
        match mount_table::bfs_at(&plan.dir) {
            Ok(entry) => {
                let dir = plan.dir.clone();
                Ok(Self { dir, entry, writes, ended, remembered: None })
            }
            Err(failure) => {
                // What was just mounted is not seen to be: take away what can be.
                let _ = mount_table::detach(&plan.dir, Detach::Lazy);
                Err(failure)
            }
        }
    }

    /// Checks that the mount answers, remembers it, and announces it.
    async fn start(
        &mut self,
        plan: &Plan,
        group: &str,
        signals: &mut Signals,
        announce: impl FnOnce(&str) -> io::Result<()>,
    ) -> Outcome {
        let dir = self.dir.clone();
        let answers = blocking(move || verify(&dir));
        tokio::select! {
            answer = answers => answer?,
            name = signals.stop() => return Err(stopped(name)),
        }
        read_further_ahead(&self.entry.device);
        self.remembered = Some(self.state(plan, group)?.remember()?);
        let line =
            format!("mounted {group} on {} ({})", self.dir.display(), plan.options.describe());
        tracing::info!("{line}");
        if announce(&line).is_err() {
            // Whoever asked for the mount is gone: nobody would ever unmount it.
            return Err(stopped("the end of the command that asked for it"));
        }
        Ok(())
    }

    /// Waits for a reason to end: an unmount by anyone, or a signal. SIGUSR1 answers all that waits with EIO meanwhile.
    async fn wait(&mut self, backend: &Arc<dyn Backend>, signals: &mut Signals) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = &mut self.ended => return,
                _ = look.tick() => if let Some(remembered) = &mut self.remembered {
                    remembered.note(backend.outvoted());
                },
                name = stop(&mut signals.interrupt, &mut signals.terminate, &mut signals.hangup) => {
                    tracing::info!("stopped by {name}");
                    return;
                }
                _ = signals.fail_all.recv() => {
                    tracing::warn!("every operation that waits is answered with an I/O error, as umount --force asked");
                    backend.fail_all();
                }
            }
        }
    }

    /// Takes the mount away if it is still there, and all that was remembered of it.
    async fn end(&mut self, backend: &Arc<dyn Backend>) {
        self.unmount(backend).await;
        self.remembered = None;
        tracing::info!("unmounted {}", self.dir.display());
    }

    async fn unmount(&self, backend: &Arc<dyn Backend>) {
        let (dir, id) = (self.dir.clone(), self.entry.id);
        let clean = blocking(move || Ok(detach_own(&dir, id, Detach::Clean)));
        let why = match timeout(UNMOUNT_LIMIT, clean).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("it takes longer than {} s", UNMOUNT_LIMIT.as_secs()),
        };
        tracing::warn!("cannot unmount {} cleanly ({why}): detaching it", self.dir.display());
        if let Some(writes) = self.writes.clone() {
            let ended = move || {
                writes.end();
                Ok(())
            };
            let _ = blocking(ended).await;
        }
        backend.fail_all();
        if let Err(error) = detach_own(&self.dir, self.entry.id, Detach::Lazy) {
            tracing::error!("cannot detach {}: {error}", self.dir.display());
        }
    }

    fn state(&self, plan: &Plan, group: &str) -> Outcome<MountState> {
        let client = match &plan.source {
            Source::Group { file, key } => crate::session::who(file, key)?.1,
            Source::Local => String::new(),
        };
        let own = MountState::own(group.into(), client)?;
        Ok(MountState { dir: self.dir.clone(), mount_id: self.entry.id, ..own })
    }
}

/// Takes the mount called `id` off `dir` if it is still there, and nothing else that may be there by now.
fn detach_own(dir: &Path, id: u64, how: Detach) -> io::Result<()> {
    match mount_table::at(dir)? {
        Some(entry) if entry.id == id => mount_table::detach(dir, how),
        _ => Ok(()),
    }
}

/// One question about the root, through the kernel.
fn verify(dir: &Path) -> Outcome {
    match fs::metadata(dir) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(Failure::new(format!("mounted {}, but it does not answer", dir.display()), error)
                .advise("bfs status GROUP"))
        }
    }
}

/// Raises the kernel's read-ahead for the mount. Only root may, and it only makes reading faster.
fn read_further_ahead(device: &str) {
    let _ = fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD_KIB);
}

/// The signals that mean something to a serving process.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    fail_all: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            fail_all: signal(SignalKind::user_defined1())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to stop, and names it.
    async fn stop(&mut self) -> &'static str {
        stop(&mut self.interrupt, &mut self.terminate, &mut self.hangup).await
    }
}

async fn stop(interrupt: &mut Signal, terminate: &mut Signal, hangup: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    }
}

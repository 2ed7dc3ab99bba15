//! `bfs mount`: checks everything that can be checked, starts the serving process, and returns once files can be used.

use crate::failure::{Exit, Failure, Outcome, say};
use crate::mount_state;
use crate::mount_table::{self, Detach, MountEntry};
use crate::options::{MountOptions, known_options};
use crate::serve;
use crate::session;
use clap::Args;
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Arguments of `bfs mount`.
#[derive(Args, Clone, Debug)]
pub struct MountArgs {
    /// The group's public file, as `bfs group create` wrote it
    #[arg(value_name = "GROUP", env = "BFS_GROUP", required_unless_present = "local")]
    pub group: Option<PathBuf>,
    /// The directory to mount on
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The folder with this client's keys, as `bfs init` made it
    #[arg(long, value_name = "KEYDIR", env = "BFS_KEY")]
    pub key: Option<PathBuf>,
    /// Mount options, separated by commas; may be given several times
    #[arg(short = 'o', long = "options", value_name = "OPTIONS", env = "BFS_OPTIONS", long_help = options_help())]
    pub options: Vec<String>,
    /// Serve in the foreground until Ctrl-C, which unmounts
    #[arg(long, env = "BFS_FOREGROUND")]
    pub foreground: bool,
    /// Where the serving process writes its log (default: next to its state, under /run/bfs or $XDG_RUNTIME_DIR/bfs)
    #[arg(long, value_name = "FILE", env = "BFS_LOG_FILE")]
    pub log_file: Option<PathBuf>,
    /// For development: a file system in the serving process's memory, without a group
    #[arg(long, hide = true)]
    pub local: bool,
    /// Be the serving process of a mount in the background
    #[arg(long, hide = true)]
    pub serve: bool,
}

fn options_help() -> String {
    format!("Mount options, separated by commas; may be given several times:\n{}", known_options())
}

/// What a mount needs, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Absolute, without links.
    pub dir: PathBuf,
    /// As `-o` says.
    pub options: MountOptions,
    /// Where operations go.
    pub source: Source,
}

/// Where a mount's operations go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// To the group that this public file describes, with the keys in this folder.
    Group {
        /// The group's public file.
        file: PathBuf,
        /// The folder with the client's keys.
        key: PathBuf,
    },
    /// To a state machine in this process, for development.
    Local,
}

impl Source {
    /// What the mount table shows: what a line of fstab names, or `mount -a` takes the group for one that is not mounted yet.
    pub fn device(&self) -> String {
        match self {
            Self::Local => "bfs:local".into(),
            Self::Group { file, .. } => {
                let path = std::path::absolute(file).unwrap_or_else(|_| file.clone());
                // A comma would begin another option.
                format!("bfs:{}", path.display().to_string().replace([',', '\\'], "_"))
            }
        }
    }
}

/// Mounts, and returns when the mount answers; with `--foreground`, when it has ended.
pub fn run(args: &MountArgs) -> Outcome {
    run_logging(args, None)
}

/// The same, where a serving process in the background logs what `filter` says.
pub fn run_logging(args: &MountArgs, filter: Option<&str>) -> Outcome {
    if args.serve {
        return serve::in_background(|| prepare(args));
    }
    let plan = prepare(args)?;
    match args.foreground {
        true => serve::in_foreground(&plan),
        false => start(args, &plan, filter),
    }
}

/// Checks what can be checked without the group.
fn prepare(args: &MountArgs) -> Outcome<Plan> {
    let (source, dir) = source_and_dir(args)?;
    let options = MountOptions::parse(args.options.iter().map(String::as_str))?;
    let dir = check_dir(dir)?;
    check_device()?;
    check_rights(&options)?;
    if let Source::Group { file, key } = &source {
        let (group, client) = session::who(file, key)?;
        mount_state::expect_unused(&group.to_string(), &client, key)?;
    }
    Ok(Plan { dir, options, source })
}

/// With `--local` there is no group, and the only argument is the directory.
fn source_and_dir(args: &MountArgs) -> Outcome<(Source, &Path)> {
    let missing = || {
        Failure::new("cannot mount", "no directory is named")
            .advise("bfs mount GROUP DIR [--key KEYDIR]")
            .exit(Exit::Usage)
    };
    if args.local {
        let dir = args.dir.as_deref().or(args.group.as_deref()).ok_or_else(missing)?;
        return Ok((Source::Local, dir));
    }
    let (Some(file), Some(dir)) = (args.group.clone(), args.dir.as_deref()) else {
        return Err(missing());
    };
    let file = std::path::absolute(&file).unwrap_or(file);
    let key = args.key.clone().map_or_else(crate::keys::default_folder, Ok)?;
    Ok((Source::Group { file, key: std::path::absolute(&key).unwrap_or(key) }, dir))
}

/// The directory, absolute, if it is one to mount on. A mount of ours whose process has died is taken away first.
fn check_dir(dir: &Path) -> Outcome<PathBuf> {
    let what = || format!("cannot mount on {}", dir.display());
    let absolute = mount_table::absolute(dir).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => {
            Failure::new(what(), "it does not exist").advise(format!("mkdir -p {}", dir.display()))
        }
        _ => Failure::new(what(), error),
    })?;
    while let Some(entry) = mount_table::at(&absolute).map_err(mount_table::unreadable)? {
        clear_stale(&entry).map_err(|why| {
            Failure::new(what(), why).advise(format!(
                "another directory, or first: {} {}",
                unmount_command(&entry),
                absolute.display()
            ))
        })?;
    }
    let metadata = fs::metadata(&absolute).map_err(|error| Failure::new(what(), error))?;
    match metadata.is_dir() {
        true => Ok(absolute),
        false => {
            Err(Failure::new(what(), "it is not a directory").advise("name an empty directory"))
        }
    }
}

fn unmount_command(entry: &MountEntry) -> &'static str {
    if entry.is_bfs() { "bfs umount" } else { "umount" }
}

/// Detaches `entry` if it is ours and nobody serves it any more.
///
/// Errors: why the directory is taken.
fn clear_stale(entry: &MountEntry) -> Result<(), String> {
    if !entry.is_bfs() {
        return Err(format!("it is already a mount point (of type {})", entry.kind));
    }
    match mount_state::find(&entry.dir, entry.id) {
        Some(state) if state.is_alive() => {
            return Err(format!(
                "BFS group {} is already mounted there, served by process {}",
                state.group, state.pid
            ));
        }
        None if !is_dead(&entry.dir) => {
            return Err(format!("{} is already mounted there", entry.source));
        }
        _ => {}
    }
    mount_table::detach(&entry.dir, Detach::Lazy)
        .map_err(|error| format!("a dead BFS mount is there and cannot be detached: {error}"))?;
    mount_state::forget_dead(&entry.dir);
    eprintln!(
        "bfs: detached a dead mount from {} (its serving process had ended)",
        entry.dir.display()
    );
    Ok(())
}

/// Whether the mount answers "Transport endpoint is not connected", or fails a question under way when that came to be.
/// Attributes may still be cached; statfs never is.
fn is_dead(dir: &Path) -> bool {
    statvfs(dir).is_err_and(|error| matches!(error, Errno::ENOTCONN | Errno::ECONNABORTED))
}

/// Whether this machine has FUSE, and this user may use it.
///
/// Errors: not so.
pub(crate) fn check_device() -> Outcome {
    let what = "cannot open /dev/fuse";
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::new(
            what,
            "this machine has no FUSE",
        )
        .advise(
            "modprobe fuse; in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN",
        )),
        Err(error) => Err(Failure::new(what, error).advise(
            "run as root, or let your user read and write /dev/fuse (chmod 666 /dev/fuse)",
        )),
    }
}

fn check_rights(options: &MountOptions) -> Outcome {
    if geteuid().is_root() {
        return Ok(());
    }
    if mount_table::find_fusermount().is_none() {
        return Err(Failure::new(
            "cannot mount",
            "only root may, and the helper fusermount3 is not installed",
        )
        .advise("apt-get install fuse3, or run as root"));
    }
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    match options.open_to_all(false) && !conf.lines().any(|line| line.trim() == "user_allow_other")
    {
        true => Err(Failure::new(
            "cannot use mount option 'allow_other'",
            "/etc/fuse.conf does not permit it",
        )
        .advise("add the line 'user_allow_other' to /etc/fuse.conf, or leave the option out")),
        false => Ok(()),
    }
}

/// Why the mount library could not mount.
pub fn mount_failure(dir: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(format!("cannot mount on {}", dir.display()), error);
    let refused = error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::EPERM as i32);
    match refused {
        // The library found that this process may not mount and looked for its helper in vain.
        true => Failure::new(
            format!("cannot mount on {}", dir.display()),
            "the system refuses mount(2) to this process",
        )
        .advise(
            "run as root outside a container, or in one with --cap-add SYS_ADMIN, or install fuse3",
        ),
        // Its helper may not either.
        false if error.to_string().contains("fusermount3") => failure.advise(
            "run as root outside a container, or in one with --cap-add SYS_ADMIN --device /dev/fuse",
        ),
        false => failure,
    }
}

/// Starts the serving process and waits for its word.
fn start(args: &MountArgs, plan: &Plan, filter: Option<&str>) -> Outcome {
    let log_path = match &args.log_file {
        Some(path) => path.clone(),
        None => mount_state::own_folder()?.join(log_name(&plan.dir)),
    };
    let log = open_log(&log_path)?;
    let mut child = spawn(args, &plan.dir, filter, log)?;
    let answer = child.stdout.take().map_or(Answer::Died, listen);
    match answer {
        Answer::Ready(line) => {
            say(line)?;
            say(format_args!("log: {}", log_path.display()))
        }
        Answer::Failed(failure) => {
            let _ = child.wait();
            Err(failure)
        }
        Answer::Died => Err(died(&mut child, &log_path)),
    }
}

fn spawn(args: &MountArgs, dir: &Path, filter: Option<&str>, log: File) -> Outcome<Child> {
    let what = "cannot start the serving process";
    let program = std::env::current_exe().map_err(|error| Failure::new(what, error))?;
    let mut command = Command::new(program);
    command.args(["mount", "--serve"]);
    for options in &args.options {
        command.args(["-o", options]);
    }
    if let Some(key) = &args.key {
        command.arg("--key").arg(key);
    }
    if let Some(filter) = filter {
        command.args(["--log", filter]);
    }
    if args.local {
        command.arg("--local");
    }
    command.arg("--");
    if let (Some(group), false) = (&args.group, args.local) {
        command.arg(group);
    }
    command.arg(dir);
    // Options from the environment have become arguments.
    command.env_remove("BFS_OPTIONS").env_remove("BFS_FOREGROUND");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command.spawn().map_err(|error| Failure::new(what, error))
}

/// One log a directory, so that its name can be told beforehand.
fn log_name(dir: &Path) -> String {
    format!("{}.log", dir.to_string_lossy().trim_matches('/').replace('/', "-"))
}

fn open_log(path: &Path) -> Outcome<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options.open(path).map_err(|error| {
        Failure::new(format!("cannot write the log {}", path.display()), error)
            .advise("name another file with --log-file")
    })
}

/// What the serving process says of itself, once, on its standard output: `ready TEXT`, or `failed CODE` and the text below it.
enum Answer {
    Ready(String),
    Failed(Failure),
    Died,
}

fn listen(pipe: ChildStdout) -> Answer {
    let mut pipe = BufReader::new(pipe);
    let mut line = String::new();
    if pipe.read_line(&mut line).is_err() {
        return Answer::Died;
    }
    match line.trim_end().split_once(' ') {
        Some(("ready", text)) => Answer::Ready(text.to_owned()),
        Some(("failed", code)) => {
            let mut text = String::new();
            let _ = pipe.read_to_string(&mut text);
            let exit = code.parse().map_or(Exit::Failed, Exit::from_code);
            Answer::Failed(Failure { exit, message: text.trim_end().to_owned(), advice: None })
        }
        _ => Answer::Died,
    }
}

fn died(child: &mut Child, log: &Path) -> Failure {
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    Failure::new(
        "cannot mount",
        format!("the serving process ended before it was ready ({status})"),
    )
    .advise(format!("read its log: {}", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        mount: MountArgs,
    }

    fn args(line: &[&str]) -> MountArgs {
        Line::try_parse_from([&["mount"], line].concat()).unwrap().mount
    }

    #[test]
    fn options_may_be_given_several_times_and_before_or_after() {
        let args = args(&["-o", "ro,soft", "group.toml", "/mnt", "-o", "timeo=10"]);
        assert_eq!(args.options, ["ro,soft", "timeo=10"]);
        assert_eq!(args.dir.unwrap(), Path::new("/mnt"));
    }

    #[test]
    fn a_local_mount_needs_only_a_directory() {
        let (source, dir) =
            source_and_dir(&args(&["--local", "/mnt"])).map(|(s, d)| (s, d.to_owned())).unwrap();
        assert_eq!((source, dir.as_path()), (Source::Local, Path::new("/mnt")));
    }

    #[test]
    fn a_group_without_a_directory_is_a_usage_error() {
        let failure = source_and_dir(&args(&["group.toml"])).map(|_| ()).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn directories_that_cannot_be_mounted_on_are_told_apart() {
        let missing = check_dir(Path::new("/no/such/place")).unwrap_err();
        assert!(missing.message.contains("does not exist"), "{missing}");
        let file = check_dir(Path::new("/proc/version")).unwrap_err();
        assert!(file.message.contains("not a directory"), "{file}");
        let taken = check_dir(Path::new("/proc")).unwrap_err();
        assert!(taken.message.contains("already a mount point (of type proc)"), "{taken}");
    }

    #[test]
    fn a_log_is_named_after_its_directory() {
        assert_eq!(log_name(Path::new("/mnt/a b/c")), "mnt-a b-c.log");
    }
}

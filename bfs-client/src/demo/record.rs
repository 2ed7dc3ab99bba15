//! A recording of the demo as people see it: the same command again, on a terminal of its own.
//!
//! What it draws there becomes an asciinema v2 cast: a header, then `[seconds, "o", text]` on each line. What it says, line by
//! line, becomes plain text; what it found, JSON and a picture.

use crate::failure::{Exit, Failure, Outcome};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use workloads::stop::Stop;

const COLUMNS: u16 = 168;
const ROWS: u16 = 44;

/// Where a recording goes.
struct Files {
    cast: PathBuf,
    text: PathBuf,
    json: PathBuf,
    svg: PathBuf,
}

impl Files {
    fn in_folder(dir: &Path) -> Self {
        let [cast, text, json, svg] =
            ["demo.cast", "demo.txt", "demo.json", "demo.svg"].map(|name| dir.join(name));
        Self { cast, text, json, svg }
    }
}

/// Runs `bfs demo` with `options` on a terminal, and keeps what it shows in the folder `dir`, which is made if it is not there.
///
/// Effects: ends as that command ends; a request to stop is handed on to it.
pub fn run(dir: &Path, options: &[OsString], stop: &Stop) -> Outcome<Exit> {
    let cannot = |error: io::Error| {
        Failure::new(format!("cannot record the demo in {}", dir.display()), error)
    };
    fs::create_dir_all(dir).map_err(cannot)?;
    let files = Files::in_folder(dir);
    let this = std::env::current_exe().map_err(cannot)?;
    let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).map_err(|error| cannot(error.into()))?;
    let end = |slave: &std::os::fd::OwnedFd| slave.try_clone().map(Stdio::from).map_err(cannot);
    let mut demo = Command::new(this);
    demo.arg("demo").args(options);
    demo.arg("--json").arg(&files.json).arg("--svg").arg(&files.svg).arg("--text").arg(&files.text);
    demo.env("TERM", "xterm-256color").env_remove("BFS_RECORD").env_remove("NO_COLOR");
    demo.stdin(Stdio::null()).stdout(end(&terminal.slave)?).stderr(end(&terminal.slave)?);
    demo.process_group(0);
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut demo_process = demo.spawn().map_err(cannot)?;
    // The terminal's other end must be the demo's alone, so that reading ends when it does.
    drop((demo, terminal.slave));
    let kept = keep(File::from(terminal.master), &files.cast, begun, &mut demo_process, stop);
    let status = demo_process.wait().map_err(cannot)?;
    kept.map_err(cannot)?;
    Ok(exit_of(status))
}

fn exit_of(status: ExitStatus) -> Exit {
    status.code().map_or(Exit::Failed, Exit::from_code)
}

/// Copies what comes to standard output and to the cast, until the demo closes its terminal.
fn keep(
    mut terminal: File,
    cast: &Path,
    begun: u64,
    demo: &mut Child,
    stop: &Stop,
) -> io::Result<()> {
    let mut cast = Cast::create(BufWriter::new(File::create(cast)?), begun)?;
    let watched = Pid::from_raw(demo.id() as i32);
    let over = Stop::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.requested() {
                if stop.requested() {
                    // It cleans up, and closes its terminal.
                    let _ = kill(watched, Signal::SIGINT);
                    return;
                }
                over.sleep(std::time::Duration::from_millis(50));
            }
        });
        let copied = copy(&mut terminal, &mut cast);
        over.request();
        copied
    })
}

fn copy(terminal: &mut File, cast: &mut Cast<impl Write>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match terminal.read(&mut buffer) {
            // Linux says EIO once nobody holds the other end. [pty(7)]
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(0) => break,
            Ok(read) => {
                // Whoever closed the stream does not want to see it; the recording goes on.
                let _ = io::stdout().write_all(&buffer[..read]);
                let _ = io::stdout().flush();
                cast.add(&buffer[..read])?;
            }
        }
    }
    cast.out.flush()
}

/// An asciinema v2 file. [docs.asciinema.org/manual/asciicast/v2]
struct Cast<W: Write> {
    out: W,
    begun: Instant,
    /// The begin of a character whose rest has not come yet.
    rest: Vec<u8>,
}

impl<W: Write> Cast<W> {
    fn create(mut out: W, begun: u64) -> io::Result<Self> {
        let header = json!({
            "version": 2, "width": COLUMNS, "height": ROWS, "timestamp": begun,
            "title": "bfs demo", "env": {"TERM": "xterm-256color"},
        });
        writeln!(out, "{header}")?;
        Ok(Self { out, begun: Instant::now(), rest: Vec::new() })
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // No character: shown as a terminal would show it.
            Err(_) => self.rest.len(),
        };
        let rest = self.rest.split_off(whole);
        let text = String::from_utf8_lossy(&self.rest).into_owned();
        self.rest = rest;
        if text.is_empty() {
            return Ok(());
        }
        let seconds = (self.begun.elapsed().as_secs_f64() * 1e6).round() / 1e6;
        writeln!(self.out, "{}", json!([seconds, "o", text]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cast_is_a_header_and_events_whose_characters_are_whole() {
        let mut out = Vec::new();
        let mut cast = Cast::create(&mut out, 1_700_000_000).unwrap();
        let text = "\x1b[1m[5/6]\x1b[0m · \"quoted\"\r\n".as_bytes();
        let middle = text.iter().position(|byte| *byte == 0xc2).unwrap() + 1;
        cast.add(&text[..middle]).unwrap();
        cast.add(&text[middle..]).unwrap();
        cast.add(&[0xff, b'x']).unwrap();
        let lines = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["version"], 2);
        assert!(lines[0]["width"].as_u64().unwrap() > 80 && lines[0]["timestamp"] == 1_700_000_000);
        let shown: String = lines[1..]
            .iter()
            .map(|event| {
                assert!(event[0].as_f64().unwrap() >= 0.0 && event[1] == "o", "{event}");
                event[2].as_str().unwrap()
            })
            .collect();
        assert_eq!(
            shown.as_bytes(),
            ["\x1b[1m[5/6]\x1b[0m · \"quoted\"\r\n", "\u{fffd}x"].concat().as_bytes()
        );
    }
}

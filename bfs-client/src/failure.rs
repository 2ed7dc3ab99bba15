//! Errors as people read them: what happened, why, and what to do next; and the exit code that goes with it.

use std::fmt;
use std::io::{self, Write};

/// How a command ends. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// The command failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The group answers, but not all of it.
    Degraded = 3,
    /// The group cannot make progress.
    Stalled = 4,
    /// There is evidence that a replica lied.
    Byzantine = 5,
    /// Something is wrong with a key or a group file.
    Keys = 6,
    /// No answer in time.
    Timeout = 7,
}

impl Exit {
    /// The exit whose number is `code`; any number without a name is `Failed`.
    pub fn from_code(code: i32) -> Self {
        use Exit::*;
        [Fine, Failed, Usage, Degraded, Stalled, Byzantine, Keys, Timeout]
            .into_iter()
            .find(|exit| *exit as i32 == code)
            .unwrap_or(Failed)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code of the command.
    pub exit: Exit,
    /// What did not happen, and why: `cannot mount /mnt: it is not a directory`.
    pub message: String,
    /// What to do next.
    pub advice: Option<String>,
}

impl Failure {
    /// A failure with exit code 1: `what` did not happen because of `why`.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, message: format!("{what}: {why}"), advice: None }
    }

    /// The same failure with what to do next.
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// The same failure with another exit code.
    pub fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.advice {
            Some(advice) => write!(f, "\n  try: {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// What a command yields.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Prints `text` and a line feed.
///
/// Errors: standard output takes nothing. That nobody reads on, as below `| head`, is none.
pub fn say(text: impl fmt::Display) -> Outcome {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("did what was asked, but cannot say so on standard output", error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_what_why_and_what_next() {
        let failure = Failure::new("cannot mount /mnt", "it is a file").advise("name a directory");
        assert_eq!(failure.to_string(), "cannot mount /mnt: it is a file\n  try: name a directory");
        assert_eq!(failure.exit, Exit::Failed);
    }

    #[test]
    fn exit_codes_survive_a_process_boundary() {
        for code in 0..8 {
            assert_eq!(Exit::from_code(code) as i32, code);
        }
        assert_eq!(Exit::from_code(77), Exit::Failed);
    }
}

//! The work that is compared.

use std::path::Path;

/// Something that the program `andrew` does in a directory, and times.
pub struct Work {
    pub name: &'static str,
    arguments: Vec<String>,
    /// Whether it takes minutes.
    pub large: bool,
    /// Whether it compiles.
    compiles: bool,
    /// Whether it does so in guests too: their kernel is a process here and starts programs slowly, so that takes minutes.
    guests_compile: bool,
    clones: bool,
}

#[derive(Clone, Copy)]
pub struct Sizes {
    pub copies: u32,
    /// Of the large file. Units: MiB.
    pub mib: u32,
}

/// The names under which goals look for work.
pub const ANDREW: &str = "Andrew-style, 1 copy";
pub const ANDREW_WHOLE: &str = "Andrew-style, 1 copy, guests compile too";
pub const ANDREW_LARGE: &str = "Andrew-style, many copies";
pub const LARGE_FILE: &str = "large file";
pub const GIT: &str = "git";

impl Work {
    pub fn all(Sizes { copies, mib }: Sizes) -> Vec<Self> {
        let work = |name, line: String| Self {
            name,
            arguments: line.split_whitespace().map(str::to_owned).collect(),
            large: false,
            compiles: false,
            guests_compile: false,
            clones: false,
        };
        let andrew = |copies| format!("run --drop-caches --copies {copies}");
        vec![
            Self { compiles: true, ..work(ANDREW, andrew(1)) },
            work("small files (PostMark)", "postmark".into()),
            work("names and attributes", "metadata".into()),
            work(LARGE_FILE, format!("large --drop-caches --mib {mib}")),
            Self { clones: true, ..work(GIT, "git".into()) },
            work("SQLite", "sqlite".into()),
            Self {
                large: true,
                compiles: true,
                guests_compile: true,
                ..work(ANDREW_WHOLE, andrew(1))
            },
            Self { large: true, compiles: true, ..work(ANDREW_LARGE, andrew(copies)) },
        ]
    }

    /// The words that tell `andrew` what to do; `repository` is what is cloned.
    pub fn arguments(&self, repository: &Path, in_guest: bool) -> Vec<String> {
        let mut words = self.arguments.clone();
        if self.clones {
            words.extend(["--from".into(), repository.display().to_string()]);
        }
        if self.compiles && in_guest {
            // It has one processor.
            words.extend(["--jobs".into(), "1".into()]);
            if !self.guests_compile {
                words.push("--no-compile".into());
            }
        }
        words
    }
}

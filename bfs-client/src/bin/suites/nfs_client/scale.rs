//! How much of everything.

use std::time::Duration;

/// What the checks depend on besides the server.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Whether the suites of others are run too.
    pub suites: bool,
    /// Releases in the source tree of the Andrew-style work.
    pub releases: usize,
    /// Entries of a large directory.
    pub staying: usize,
    /// How long the guest works steadily.
    pub steady: Duration,
    /// How often the proxy is killed meanwhile.
    pub proxy_restarts: u32,
    /// No step may take longer. A guest starts compilers slowly.
    pub step_limit: Duration,
}

pub const FULL: Scale = Scale {
    suites: true,
    releases: 5,
    staying: 100_000,
    steady: Duration::from_secs(25),
    proxy_restarts: 4,
    step_limit: Duration::from_secs(900),
};

pub const QUICK: Scale = Scale {
    suites: false,
    releases: 1,
    staying: 3000,
    steady: Duration::from_secs(12),
    proxy_restarts: 2,
    step_limit: Duration::from_secs(300),
};

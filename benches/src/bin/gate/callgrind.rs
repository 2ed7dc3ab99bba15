//! Runs this program under callgrind, and reads what it counted.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::process::{Command, Stdio};

/// Where the compiler's code asks for memory.
const ALLOCATORS: [&str; 3] =
    ["__rustc::__rust_alloc", "__rustc::__rust_alloc_zeroed", "__rustc::__rust_realloc"];

/// Instructions and allocations of one kind of operation, between entering and leaving `function`.
///
/// Errors: valgrind is not here, or fails.
pub fn count(kind: &str, function: &str) -> Result<(u64, u64)> {
    let out = std::env::temp_dir().join(format!("bfs-gate-{}.out", std::process::id()));
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--toggle-collect={function}*"));
    command.arg("--collect-atstart=no").arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(std::env::current_exe()?).args(["--run", kind]);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot run valgrind, which counts instructions: install it, or use --quick")?;
    if !output.status.success() {
        bail!("valgrind failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let text = std::fs::read_to_string(&out).context("callgrind has written nothing")?;
    // It has been read.
    let _ = std::fs::remove_file(&out);
    let counted = read(&text)?;
    if counted.0 == 0 {
        bail!("nothing was counted: no function called {function}");
    }
    Ok(counted)
}

/// The total, and the calls of allocators. [cl-format.html]
fn read(text: &str) -> Result<(u64, u64)> {
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")))
        .context("callgrind's output has no total")?;
    let total = total.split_whitespace().next().context("an empty total")?.parse()?;
    // A name is spelt out once and is a number from then on.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut called, mut allocations) = ("", 0);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("cfn=").or(line.strip_prefix("fn=")) {
            let (number, spelt) = name.split_once(' ').unwrap_or((name, ""));
            if !spelt.is_empty() {
                names.insert(number, spelt);
            }
            called = names.get(number).copied().unwrap_or("");
        } else if let Some(calls) = line.strip_prefix("calls=")
            && ALLOCATORS.contains(&called)
        {
            let count = calls.split_whitespace().next().context("calls without a number")?;
            allocations += count.parse::<u64>()?;
        }
    }
    Ok((total, allocations))
}

//! What an operation costs in messages and bytes, and, where valgrind and strace are, in instructions, allocations and system calls,
//! is held against `benches/gate.json`.

use std::path::Path;
use std::process::Command;

#[test]
fn operations_cost_no_more_than_they_did() {
    let has = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let missing = ["valgrind", "strace"].into_iter().find(|program| !has(program));
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.json");
    let mut gate = Command::new(env!("CARGO_BIN_EXE_gate"));
    gate.arg("--kept").arg(kept);
    if let Some(missing) = missing {
        println!("no {missing} on this machine: only messages and bytes are counted");
        gate.arg("--quick");
    }
    let output = gate.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{said}");
}

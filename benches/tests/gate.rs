//! What an operation costs in messages and bytes, where valgrind is in instructions and allocations, and where strace may watch in
//! system calls, is held against `benches/gate.json`.

use std::path::Path;
use std::process::Command;

#[test]
fn operations_cost_no_more_than_they_did() {
    let has_valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.json");
    let mut gate = Command::new(env!("CARGO_BIN_EXE_gate"));
    gate.arg("--kept").arg(kept);
    if !has_valgrind {
        println!("no valgrind on this machine: only messages and bytes are counted");
        gate.arg("--quick");
    }
    let output = gate.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{said}");
}

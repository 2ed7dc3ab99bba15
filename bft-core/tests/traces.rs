//! Schedules that people thought of, as text: `tests/traces/*.txt`. Each file says what a naive implementation would do wrong.
//!
//! The commands are explained in `docs/testing.md`. `REWRITE=1` rewrites what was printed; what a trace *expects* it checks
//! either way.

mod common;
#[path = "common/forgery.rs"]
mod forgery;
#[path = "common/script.rs"]
mod script;

use script::Script;

#[test]
#[expect(clippy::disallowed_methods, reason = "RUN=FILE runs that file alone")]
fn every_trace_runs_as_written() {
    let mut files = 0;
    datadriven::walk("tests/traces", |file| {
        files += 1;
        let name = file.filename.clone();
        let mut script: Option<Script> = None;
        let mut played = String::new();
        let written = std::fs::read_to_string(&name).expect("it is there");
        let last = |directive: &str| written.rfind(directive);
        assert!(last("\nexpect ").is_some(), "{name}: a trace expects something");
        assert!(
            last("\nassert-invariants") > last("\nexpect "),
            "{name}: ends with assert-invariants"
        );
        let mut commands = 0;
        file.run(|command| {
            commands += 1;
            let done = script::run(&mut script, command);
            if let Err(why) = &done {
                // The rest of the file is not run, and the library says nothing of where it stopped.
                eprintln!("{name}: after {commands} commands: {why}\n{played}");
            }
            let printed = done.as_ref().map_or("", String::as_str);
            played += &format!("{}\n{printed}", command.directive);
            done
        });
    });
    assert!(files >= 20 || std::env::var("RUN").is_ok(), "only {files} traces were found");
}

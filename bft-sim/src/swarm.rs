//! Many worlds: runs them, catches panics, adds up what came of them, and names the line that reproduces a failure.

use crate::report::Report;
use crate::world::{Plan, Scenario, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the world of `plan`. A panic anywhere in it is a violation of I-14.
pub fn run(plan: Plan) -> Report {
    let world = AssertUnwindSafe(|| World::new(plan).run());
    catch_unwind(world).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Report { worlds: 1, violations: vec![format!("I-14: {text}")], ..Report::default() }
    })
}

/// The command that runs the world of `plan` again, with every event on a line.
pub fn repro(plan: &Plan) -> String {
    let Plan { seed, n, clients, operations, .. } = plan;
    let what = match plan.scenario {
        Scenario::Swarm => String::new(),
        Scenario::OverF => " --over-f".into(),
        Scenario::Nfs => " --nfs".into(),
        Scenario::Rolling => " --rolling".into(),
        Scenario::Leaning(_) => " --planted".into(),
        Scenario::Attack(name) => format!(" --attack {}", name.unwrap_or("none")),
    };
    format!(
        "./x sim --seed {seed} --n {n} --clients {clients} --operations {operations}{what} --trace"
    )
}

/// Runs the worlds of `seeds`, made by `plan`, and calls `failed` for each that breaks a promise.
pub fn run_all(
    seeds: impl Iterator<Item = u64>,
    plan: impl Fn(u64) -> Plan,
    mut failed: impl FnMut(&Plan, &[String]),
) -> Report {
    let mut total = Report::default();
    for seed in seeds {
        let plan = plan(seed);
        let report = run(plan.clone());
        if !report.violations.is_empty() {
            failed(&plan, &report.violations);
        }
        total.add(report);
    }
    total
}

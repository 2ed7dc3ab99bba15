//! Every attack of the catalogue by itself, at four and at seven replicas: nothing is violated, and throughput keeps its floor.

use bft_sim::adversary::ATTACKS;
use bft_sim::attack::{Outcome, fault_free, run};

/// What is wrong with this outcome, if anything.
fn fault(o: &Outcome) -> Option<String> {
    let what =
        || format!("{} at n={}: {:.2} of {:.2}; {:?}", o.name, o.n, o.ratio, o.floor, o.violations);
    (!o.holds()).then(what)
}

fn hold(n: u32) {
    let reference = fault_free(n);
    assert!(reference.violations.is_empty(), "{:?}", reference.violations);
    let outcomes = ATTACKS.iter().filter_map(|attack| run(attack, n, &reference));
    let faults: Vec<_> = outcomes.filter_map(|outcome| fault(&outcome)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn four_replicas_withstand_every_attack() {
    hold(4);
}

#[test]
fn seven_replicas_withstand_every_attack() {
    hold(7);
}

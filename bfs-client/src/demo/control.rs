//! The same attack where nobody is there to outvote it: one server without replication.

use super::place::{Place, Terms};
use crate::failure::{Failure, Outcome};
use crate::local_group::{LocalGroup, Plan};
use serde::Serialize;
use std::time::Duration;
use workloads::stop::Stop;
use workloads::tree::SourceTree;

/// The attack.
const ATTACK: &str = "forged-files";
/// How long one operation may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many files are written and read.
const FILES: usize = 40;

/// What it did to a program. The field names are a stable interface.
#[derive(Debug, Default, Serialize)]
pub struct Control {
    pub attack: &'static str,
    pub reads: u64,
    /// Reads that gave the program, without any error, what nobody had written.
    pub corrupted_reads: u64,
    /// Files that anybody may write, by their attributes, and nobody had said so.
    pub forged_attributes: u64,
    pub errors: u64,
}

/// Writes files on one unreplicated server, lets it attack, and reads them; through a mount if there can be one.
pub fn run(plan: &Plan, mounted: bool, tree: &SourceTree, stop: &Stop) -> Outcome<Control> {
    let mut group = LocalGroup::start(&Plan { n: 1, f: 0, ..plan.clone() })?;
    let terms = Terms { mounted, options: "strict,soft,timeo=50", patience: PATIENCE };
    let place = Place::open(&mut group, &terms)?;
    let files: Vec<_> = tree.files().iter().take(FILES).collect();
    let name = |i: usize| format!("{i}.c");
    let write =
        || files.iter().enumerate().try_for_each(|(i, f)| place.write(&name(i), &f.contents));
    let written = group.supervise(write, |_| {});
    written.map_err(|error| Failure::new("cannot write on the unreplicated server", error))?;
    // What the kernel still holds of the writes would be read from there.
    let place = place.reopen(&mut group, &terms)?;
    group.attack(0, Some(ATTACK), &[])?;
    let read = || {
        let mut control = Control { attack: ATTACK, ..Control::default() };
        for (i, file) in files.iter().enumerate().take_while(|_| !stop.requested()) {
            match place.read(&name(i)) {
                Ok(contents) => {
                    control.reads += 1;
                    control.corrupted_reads += u64::from(contents != file.contents);
                }
                Err(_) => control.errors += 1,
            }
            let open_to_all = place.permissions(&name(i)).is_ok_and(|bits| bits == 0o777);
            control.forged_attributes += u64::from(open_to_all);
        }
        control
    };
    let control = group.supervise(read, |_| {});
    group.attack(0, None, &[])?;
    Ok(control)
}

//! Work on a mounted directory, timed and checked.
//!
//! ```text
//! tree.rs      the real C source tree that the work is about
//! andrew.rs    the Andrew-style benchmark: five phases        compile.rs   its last phase, the real compiler
//! postmark.rs  many small files                             metadata.rs  names and attributes
//! large.rs     one large file                               programs.rs  git and SQLite
//! verify.rs    whether what is read back is what was written
//! latency.rs   how long single operations take                stall.rs     the longest time without one finishing
//! timing.rs    how long parts take, and caches dropped in between
//! progress.rs  how people see it go on                        stop.rs      how they end it
//! errors.rs    what went wrong, counted                      stamp.rs     where figures were taken
//! ```
//!
//! Everything here works on any directory and knows nothing of BFS. All loops look at a [`stop::Stop`].

pub mod andrew;
pub mod compile;
pub mod errors;
pub mod large;
pub mod latency;
pub mod metadata;
pub mod postmark;
pub mod programs;
pub mod progress;
pub mod stall;
pub mod stamp;
pub mod stop;
pub mod timing;
pub mod tree;
pub mod verify;

#[cfg(test)]
mod scratch;

//! What several benchmarks use: a whole group in one process.

pub mod group;

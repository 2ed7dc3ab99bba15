//! `bfs-replica-lab`: a replica that can be told to attack its own group. Never part of a release.

#![forbid(unsafe_code)]

/// See Cargo.toml for why.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    bfs_replica::cli::main::<bfs_replica::lab::Lab>()
}

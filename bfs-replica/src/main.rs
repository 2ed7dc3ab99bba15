//! `bfs-replica`: one replica of a BFS group.

#![forbid(unsafe_code)]

/// See Cargo.toml for why.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    bfs_replica::cli::main::<bfs_replica::wire::Honest>()
}

//! `bfs-replica`: one replica of a BFS group.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    bfs_replica::cli::main::<bfs_replica::wire::Honest>()
}

//! `bfs-replica-lab`: a replica that can be told to attack its own group. Never part of a release.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    bfs_replica::cli::main::<bfs_replica::lab::Lab>()
}

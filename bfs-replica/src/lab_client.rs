//! `bfs-client-lab`: a client that attacks its own group. Never part of a release.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    bfs_replica::lab::client::main()
}

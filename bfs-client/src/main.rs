//! The command `bfs`.

fn main() -> std::process::ExitCode {
    bfs_client::cli::main()
}

//! `bfs nfs` as its clients meet it: every procedure, every bad input, and what must hold across restarts.

mod capture;
mod client;
mod group;
mod hostile;
mod listing;
#[path = "../common/nfs_record.rs"]
mod nfs_record;
mod procedures;
mod server;

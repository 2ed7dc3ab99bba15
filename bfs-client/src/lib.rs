//! The client of BFS: the command line, sessions with a group, and the FUSE front.
//!
//! ```text
//! cli.rs          the verbs        keys.rs, group.rs, status.rs, demo.rs: one each
//! mount.rs        the process that a user starts: checks, and waits for the other one
//! serve.rs        the process that serves a mount, from the group's first answer to the last trace removed
//! mount_helper.rs mount.bfs, for fstab
//! umount.rs       ends a mount; holders.rs names who keeps it
//! fuse.rs         one kernel request is one operation
//! nfs.rs          one NFSv3 call is one operation
//! backend.rs      where operations go: a session (session.rs), or a state machine in this process
//! evidence.rs     what speaks against each replica, weighed for status.rs and top.rs
//! mount_table.rs  what is mounted where    mount_state.rs  which process serves it
//! ```

pub mod asking;
pub mod backend;
pub mod cli;
pub mod client;
pub mod demo;
pub mod drill;
pub mod evidence;
pub mod export;
pub mod failure;
pub mod fsck;
pub mod fuse;
pub mod group;
pub mod holders;
pub mod keys;
pub mod local_group;
pub mod mount;
pub mod mount_helper;
pub mod mount_state;
pub mod mount_table;
pub mod nfs;
pub mod options;
pub mod serve;
pub mod session;
pub mod status;
pub mod top;
pub mod umount;

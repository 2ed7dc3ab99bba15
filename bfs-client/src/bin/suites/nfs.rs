//! What the NFS suites are made of: a network of their own, guests with the kernel's NFS client, servers, and an RPC client.

pub mod daemon;
pub mod folder;
pub mod guest;
pub mod network;
pub mod rpc;
pub mod target;
pub mod work;

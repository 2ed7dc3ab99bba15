//! The operations, one file a family.

mod attributes;
mod create;
mod data;
mod directory;
mod lookup;
mod remove;
mod rename;

pub use data::MAX_FILE_SIZE;
pub use rename::MAX_DEPTH;

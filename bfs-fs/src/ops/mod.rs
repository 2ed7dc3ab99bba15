//! The operations, one file a family.

mod attributes;
mod create;
mod data;
mod directory;
mod export;
mod extent;
mod lease;
mod lock;
mod lookup;
mod remove;
mod rename;
mod watched;
mod xattr;

pub use data::MAX_FILE_SIZE;
pub(crate) use export::put_export;
pub use extent::MAX_CHUNKS;
pub(crate) use lease::ALLOWANCE;
pub use lease::{LEASE_TERM, MAX_LEASE_STEP, MAX_STAKES};
pub use rename::MAX_DEPTH;
pub(crate) use watched::forget_answers;

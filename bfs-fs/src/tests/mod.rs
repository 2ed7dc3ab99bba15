//! Tests of the file system as its clients see it: everything goes through the canonical bytes of requests and results.

mod access;
mod content;
mod exports;
mod extents;
mod fixture;
mod fsck;
mod hostile;
mod leases;
mod limits;
mod listing;
mod locks;
mod model;
mod names;
mod random;
mod versions;
mod watched;
mod xattrs;

pub(crate) use fixture::Lcg;

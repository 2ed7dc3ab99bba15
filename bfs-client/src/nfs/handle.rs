//! File handles, and whatever else every proxy of a group must derive alike.

use super::xdr::Writer;
use bfs_fs::op::{Attributes, Inode};

/// The longest handle that NFSv3 knows. [RFC 1813 §2.4]
pub const MAX_HANDLE: usize = 64;
/// How long ours are: an inode, its generation, and a code that only who knows the group's secret can make.
pub const HANDLE: usize = 8 + 8 + CODE;
const CODE: usize = 16;

/// What a handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub inode: Inode,
    pub generation: u64,
}

impl From<&Attributes> for Named {
    fn from(attributes: &Attributes) -> Self {
        Self { inode: attributes.inode, generation: attributes.generation }
    }
}

/// What is derived from the group's own secret: the same in every proxy, and after a restart.
#[derive(Clone)]
pub struct Keys {
    handles: [u8; 32],
    /// The number of the file system. [RFC 1813 §2.5: fsid]
    pub fsid: u64,
    /// Another one would mean that unstable writes may be lost. [RFC 1813 §3.3.7: verf]
    pub write_verifier: [u8; 8],
}

impl Keys {
    /// The keys of the group whose secret this is.
    pub fn new(secret: &[u8; 32]) -> Self {
        let derive = |context| blake3::derive_key(context, secret);
        let short = |context| {
            let [a, b, c, d, e, f, g, h, ..] = derive(context);
            [a, b, c, d, e, f, g, h]
        };
        Self {
            handles: derive("BFS NFSv3 file handles"),
            fsid: u64::from_be_bytes(short("BFS NFSv3 file system id")),
            write_verifier: short("BFS NFSv3 write verifier"),
        }
    }

    fn code(&self, named: &[u8]) -> [u8; CODE] {
        let mut code = [0; CODE];
        code.copy_from_slice(&blake3::keyed_hash(&self.handles, named).as_bytes()[..CODE]);
        code
    }

    /// The handle of `named`.
    pub fn handle(&self, named: Named) -> [u8; HANDLE] {
        let mut handle = [0; HANDLE];
        let (name, code) = handle.split_at_mut(HANDLE - CODE);
        name[..8].copy_from_slice(&named.inode.0.to_be_bytes());
        name[8..].copy_from_slice(&named.generation.to_be_bytes());
        code.copy_from_slice(&self.code(name));
        handle
    }

    /// Puts the handle of `named` into a reply.
    pub fn write_handle(&self, reply: &mut Writer, named: Named) {
        reply.opaque(&self.handle(named));
    }

    /// What `handle` names, if a proxy of this group made it.
    pub fn named(&self, handle: &[u8]) -> Option<Named> {
        if handle.len() != HANDLE {
            return None;
        }
        let (name, code) = handle.split_at(HANDLE - CODE);
        // Compared in constant time: how far a guess is right must not show.
        let wrong = self.code(name).iter().zip(code).fold(0, |wrong, (a, b)| wrong | (a ^ b));
        if wrong != 0 {
            return None;
        }
        let (inode, generation) = name.split_at(8);
        Some(Named {
            inode: Inode(u64::from_be_bytes(inode.try_into().ok()?)),
            generation: u64::from_be_bytes(generation.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: Named = Named { inode: Inode(0x1234_5678), generation: 99 };

    #[test]
    fn a_handle_names_what_it_was_made_for_in_every_proxy_of_the_group() {
        let handle = Keys::new(&[7; 32]).handle(NAMED);
        assert_eq!(Keys::new(&[7; 32]).named(&handle), Some(NAMED));
        assert!(handle.len() <= MAX_HANDLE);
    }

    #[test]
    fn no_other_bytes_are_a_handle() {
        let keys = Keys::new(&[7; 32]);
        let handle = keys.handle(NAMED);
        for at in 0..handle.len() {
            for bit in 0..8 {
                let mut forged = handle;
                forged[at] ^= 1 << bit;
                assert_eq!(keys.named(&forged), None);
            }
        }
        for length in (0..MAX_HANDLE).filter(|length| *length != HANDLE) {
            let mut other = handle.to_vec();
            other.resize(length, 0);
            assert_eq!(keys.named(&other), None);
        }
        assert_eq!(Keys::new(&[8; 32]).named(&handle), None, "of another group");
    }
}

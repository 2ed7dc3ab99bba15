//! Remote procedure calls: the head of a call, who calls, and the replies that concern no procedure. [RFC 5531]

use super::xdr::{Malformed, Reader, Writer};
use bfs_fs::op::{Caller, NOBODY};
use bytes::Bytes;

const CALL: u32 = 0;
const REPLY: u32 = 1;
const RPC_VERSION: u32 = 2;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;
/// The longest body of a credential or a verifier. [RFC 5531 §8.2]
const MAX_AUTH: usize = 400;
/// The longest name of a machine in AUTH_SYS. [RFC 5531 appendix A]
const MAX_MACHINE_NAME: usize = 255;
/// The most groups in AUTH_SYS.
const MAX_GIDS: u32 = 16;

/// Set in a record mark before the last fragment of a record. [RFC 5531 §11]
pub const LAST_FRAGMENT: u32 = 1 << 31;

/// A call whose arguments are still to be read.
#[derive(Debug)]
pub struct Call {
    pub xid: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    pub credential: Credential,
    pub arguments: Reader,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// AUTH_NONE, or AUTH_SYS, which says who.
    Known(Caller),
    /// Nothing that is accepted here: answered with AUTH_ERROR, except by a procedure that does nothing.
    Refused(AuthError),
}

/// Why a caller is not believed. [RFC 5531 §9: auth_stat]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AuthError {
    BadCredential = 1,
    BadVerifier = 3,
    TooWeak = 5,
}

/// What a record is if it is no call.
#[derive(Debug, PartialEq, Eq)]
pub enum NoCall {
    /// Nothing that could be answered.
    Noise,
    /// This is to be answered.
    Answer(Vec<u8>),
}

/// Reads the head of a call.
///
/// Errors: it is not one, or of another version of the protocol.
pub fn read_call(record: Bytes) -> Result<Call, NoCall> {
    let mut reader = Reader::new(record);
    let noise = |_: Malformed| NoCall::Noise;
    let xid = reader.u32().map_err(noise)?;
    if reader.u32().map_err(noise)? != CALL {
        return Err(NoCall::Noise);
    }
    let garbage = |_: Malformed| NoCall::Answer(accepted(xid, Accepted::GarbageArguments));
    if reader.u32().map_err(garbage)? != RPC_VERSION {
        return Err(NoCall::Answer(wrong_rpc_version(xid)));
    }
    let program = reader.u32().map_err(garbage)?;
    let version = reader.u32().map_err(garbage)?;
    let procedure = reader.u32().map_err(garbage)?;
    let bad = |why| move |_: Malformed| NoCall::Answer(not_believed(xid, why));
    let (flavour, body) = auth(&mut reader).map_err(bad(AuthError::BadCredential))?;
    let credential = credential(flavour, body);
    auth(&mut reader).map_err(bad(AuthError::BadVerifier))?;
    Ok(Call { xid, program, version, procedure, credential, arguments: reader })
}

fn auth(reader: &mut Reader) -> Result<(u32, Bytes), Malformed> {
    Ok((reader.u32()?, reader.opaque(MAX_AUTH)?))
}

fn credential(flavour: u32, body: Bytes) -> Credential {
    let known = match flavour {
        AUTH_NONE => Ok(Caller { uid: NOBODY, gid: NOBODY, groups: Vec::new() }),
        AUTH_SYS => auth_sys(Reader::new(body)),
        _ => Err(Malformed),
    };
    known.map_or(Credential::Refused(AuthError::BadCredential), Credential::Known)
}

fn auth_sys(mut reader: Reader) -> Result<Caller, Malformed> {
    let _stamp = reader.u32()?;
    let _machine = reader.opaque(MAX_MACHINE_NAME)?;
    let (uid, gid) = (reader.u32()?, reader.u32()?);
    let count = reader.u32()?;
    if count > MAX_GIDS {
        return Err(Malformed);
    }
    let groups = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(Caller { uid, gid, groups })
}

/// What became of a call that concerns no procedure. [RFC 5531 §9: accept_stat]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    Success,
    /// There is no such program here.
    ProgramUnavailable,
    /// Only this version of it.
    OtherVersion(u32),
    ProcedureUnavailable,
    GarbageArguments,
}

/// A reply up to where results follow, with room for its record mark.
pub fn reply(xid: u32, status: Accepted) -> Writer {
    let mut reply = Writer(Vec::with_capacity(256));
    // The mark, then: accepted, with a verifier of AUTH_NONE.
    reply.u32(0).u32(xid).u32(REPLY).u32(0).u32(AUTH_NONE).u32(0);
    match status {
        Accepted::Success => reply.u32(0),
        Accepted::ProgramUnavailable => reply.u32(1),
        Accepted::OtherVersion(only) => reply.u32(2).u32(only).u32(only),
        Accepted::ProcedureUnavailable => reply.u32(3),
        Accepted::GarbageArguments => reply.u32(4),
    };
    reply
}

/// A whole reply without results.
pub fn accepted(xid: u32, status: Accepted) -> Vec<u8> {
    marked(reply(xid, status))
}

/// MSG_DENIED, AUTH_ERROR.
pub fn not_believed(xid: u32, why: AuthError) -> Vec<u8> {
    let mut reply = Writer::default();
    reply.u32(0).u32(xid).u32(REPLY).u32(1).u32(1).u32(why as u32);
    marked(reply)
}

/// MSG_DENIED, RPC_MISMATCH.
fn wrong_rpc_version(xid: u32) -> Vec<u8> {
    let mut reply = Writer::default();
    reply.u32(0).u32(xid).u32(REPLY).u32(1).u32(0).u32(RPC_VERSION).u32(RPC_VERSION);
    marked(reply)
}

/// A finished reply as one record: puts the mark where there is room for it. Requires: it is shorter than 2 GiB.
pub fn marked(reply: Writer) -> Vec<u8> {
    let mut bytes = reply.0;
    let mark = LAST_FRAGMENT | (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&mark.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(flavour: u32, body: &[u8]) -> Writer {
        let mut call = Writer::default();
        call.u32(77).u32(CALL).u32(2).u32(100_003).u32(3).u32(1).u32(flavour).opaque(body);
        call.u32(AUTH_NONE).u32(0);
        call
    }

    fn sys(gids: &[u32]) -> Vec<u8> {
        let mut body = Writer::default();
        body.u32(5).opaque(b"host").u32(1000).u32(100).u32(gids.len() as u32);
        for gid in gids {
            body.u32(*gid);
        }
        body.0
    }

    fn credential_of(flavour: u32, body: &[u8]) -> Credential {
        read_call(head(flavour, body).0.into()).unwrap().credential
    }

    #[test]
    fn callers_are_whom_they_say_they_are() {
        let caller = Caller { uid: 1000, gid: 100, groups: vec![7, 8] };
        assert_eq!(credential_of(1, &sys(&[7, 8])), Credential::Known(caller));
        let nobody = Caller { uid: NOBODY, gid: NOBODY, groups: vec![] };
        assert_eq!(credential_of(0, b""), Credential::Known(nobody));
    }

    #[test]
    fn other_credentials_are_refused_and_not_malformed() {
        let refused = Credential::Refused(AuthError::BadCredential);
        for flavour in [2, 3, 6, 390_003, u32::MAX] {
            assert_eq!(credential_of(flavour, b"1234"), refused);
        }
        assert_eq!(credential_of(1, &sys(&[0; 17])), refused, "17 groups");
        assert_eq!(credential_of(1, &sys(&[1])[..12]), refused, "cut off");
        let mut longer = sys(&[]);
        longer.extend([0; 4]);
        assert_eq!(credential_of(1, &longer), refused, "something left");
    }

    #[test]
    fn what_is_no_call_is_told_apart() {
        let read = |writer: Writer| read_call(writer.0.into()).map(|_| ()).unwrap_err();
        let mut reply = Writer::default();
        reply.u32(1).u32(REPLY);
        assert_eq!(read(reply), NoCall::Noise);
        assert_eq!(read(Writer::default()), NoCall::Noise);
        let mut other = Writer::default();
        other.u32(9).u32(CALL).u32(3);
        assert_eq!(read(other), NoCall::Answer(wrong_rpc_version(9)));
        let mut long = Writer::default();
        long.u32(9).u32(CALL).u32(2).u32(1).u32(1).u32(1).u32(1).opaque(&[0; 404]);
        assert_eq!(read(long), NoCall::Answer(not_believed(9, AuthError::BadCredential)));
        let mut short = Writer::default();
        short.u32(9).u32(CALL).u32(2).u32(1);
        assert_eq!(read(short), NoCall::Answer(accepted(9, Accepted::GarbageArguments)));
    }

    #[test]
    fn any_prefix_of_a_call_is_answered_or_noise() {
        let whole = head(1, &sys(&[1, 2, 3])).0;
        for end in 0..whole.len() {
            assert!(read_call(Bytes::copy_from_slice(&whole[..end])).is_err());
        }
        assert!(read_call(whole.into()).is_ok());
    }
}

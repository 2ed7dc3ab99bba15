//! Answers about files that are well formed and false: what an intruder who wants to do harm would say.

use super::{Adversary, Context};
use bfs_fs::op::{Attributes, FsReply, decode_result, encode_result};
use bft_core::messages::{Message, Outcome, ResultBody};
use bft_core::types::{Digest, Peer};
use bytes::Bytes;

/// B-47 and B-48 with files in mind: every byte read is another one, and everybody may do anything with every file.
pub struct ForgeFiles;

impl Adversary for ForgeFiles {
    fn on_send(&mut self, ctx: &mut Context<'_>, to: Peer, message: Message) {
        let message = match message {
            Message::Reply(mut m) => {
                m.outcome = match m.outcome {
                    Outcome::Result(body) => Outcome::Result(forge(body)),
                    other => other,
                };
                Message::Reply(m)
            }
            Message::ReadReply(mut m) => {
                m.result = m.result.map(forge);
                Message::ReadReply(m)
            }
            other => other,
        };
        ctx.send(to, message);
    }
}

fn forge(body: ResultBody) -> ResultBody {
    match body {
        ResultBody::Whole(bytes) => ResultBody::Whole(forge_result(&bytes)),
        ResultBody::Digest(Digest(mut digest)) => {
            digest.iter_mut().for_each(|byte| *byte ^= 1);
            ResultBody::Digest(Digest(digest))
        }
    }
}

fn forge_result(bytes: &Bytes) -> Bytes {
    match decode_result(bytes) {
        Some(Ok(reply)) => encode_result(&Ok(forge_reply(reply))),
        _ => bytes.clone(),
    }
}

fn forge_reply(reply: FsReply) -> FsReply {
    match reply {
        FsReply::Attributes(attributes) => FsReply::Attributes(open_to_all(attributes)),
        FsReply::Data { data, eof, attributes } => {
            let data = data.iter().map(|byte| byte ^ 1).collect::<Vec<_>>().into();
            FsReply::Data { data, eof, attributes: open_to_all(attributes) }
        }
        FsReply::Target(_) => FsReply::Target(b"/etc/shadow".to_vec()),
        other => other,
    }
}

fn open_to_all(attributes: Attributes) -> Attributes {
    Attributes { mode: 0o4777, ..attributes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bfs_fs::op::{FsError, Inode, Kind, Timestamp};

    #[test]
    fn contents_are_forged_and_stay_well_formed() {
        let never = Timestamp { seconds: 0, nanoseconds: 0 };
        let attributes = Attributes {
            inode: Inode(7),
            generation: 1,
            kind: Kind::File,
            mode: 0o600,
            links: 1,
            uid: 0,
            gid: 0,
            device: 0,
            size: 3,
            blocks: 1,
            accessed: never,
            modified: never,
            changed: never,
            has_xattrs: false,
        };
        let data = Bytes::from_static(b"abc");
        let honest = encode_result(&Ok(FsReply::Data { data, eof: true, attributes }));
        let Some(Ok(FsReply::Data { data, eof: true, attributes })) =
            decode_result(&forge_result(&honest))
        else {
            panic!("not a result");
        };
        assert_eq!((&data[..], attributes.mode), (&b"`cb"[..], 0o4777));
        let error = encode_result(&Err(FsError::NotFound));
        assert_eq!(forge_result(&error), error);
    }
}

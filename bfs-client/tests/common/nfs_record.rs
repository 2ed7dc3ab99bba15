//! Bytes as an NFS client's: the body of a fuzz target, and of a test with seeded inputs.

use bfs_client::backend::Local;
use bfs_client::nfs::connection::read_record;
use bfs_client::nfs::front::{Front, Next, Sender};
use bfs_client::nfs::handle::{Keys, Named};
use bfs_client::nfs::xdr::Writer;
use bfs_fs::op::ROOT;
use std::net::IpAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock};

static FRONT: LazyLock<Arc<Front>> = LazyLock::new(|| {
    Arc::new(Front::new(Arc::new(Local::default()), keys(), vec!["10.0.0.0/8".into()]))
});

fn keys() -> Keys {
    Keys::new(&[7; 32])
}

/// A call of a procedure of NFS or MOUNT with these arguments, behind the handle of the root if there is a directory first.
fn call(procedure: u8, arguments: &[u8]) -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(1).opaque(b"m").u32(5).u32(5).u32(0);
    let (program, number) =
        if procedure < 22 { (100_003, procedure) } else { (100_005, procedure % 6) };
    let mut call = Writer::default();
    call.u32(1).u32(0).u32(2).u32(program).u32(3).u32(number.into());
    call.u32(1).opaque(&body.0).u32(0).u32(0);
    if program == 100_003 {
        call.opaque(&keys().handle(Named { inode: ROOT, generation: 0 }));
    }
    call.0.extend_from_slice(arguments);
    call.0
}

/// Sends `bytes` as a stream, as a record, and as the arguments of the procedure that the first byte chooses.
///
/// Panics where something is answered that is not one whole record, or a call not at all; says how many were answered.
pub fn send(bytes: &[u8]) -> usize {
    let mut stream = bytes;
    let mut answered = 0;
    while let Ok(Some(record)) = read_record(&mut stream) {
        answered += answer(record);
    }
    answered += answer(bytes.to_vec());
    if let Some((procedure, arguments)) = bytes.split_first() {
        let one = answer(call(procedure % 28, arguments));
        assert_eq!(one, 1, "a call is answered");
        answered += one;
    }
    answered
}

fn answer(record: Vec<u8>) -> usize {
    let sender = Sender { address: IpAddr::from([127, 0, 0, 1]), is_believed: true };
    let reply = match FRONT.read(record.into(), sender) {
        Next::Ignore => return 0,
        Next::Answer(reply) => reply,
        Next::Ask(question) => {
            let most = question.reply_size();
            let (sender, receiver) = channel();
            FRONT.ask(question, move |reply| drop(sender.send(reply)));
            let reply = receiver.recv().expect("an answer").expect("with an outcome");
            assert!(reply.len() <= most, "{} bytes, and room for {most}", reply.len());
            reply
        }
    };
    let mut stream = reply.as_slice();
    let record = read_record(&mut stream).expect("a record").expect("and not nothing");
    assert!(stream.is_empty() && record.len() >= 12);
    1
}

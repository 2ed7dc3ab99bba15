use super::*;
use crate::frame::MAX_FRAME;
use crate::group::{ClientEntry, Group, Member, Parameters};
use crate::keys::Identity;
use crate::noise::{self, Local};
use bft_core::types::ReplicaId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const LIMITS: WriterLimits = WriterLimits { waiting: 4 << 20, kept: 64 << 10 };

/// A client's end and a replica's end of one connection, after the handshake.
async fn ends() -> [(TcpStream, Channel); 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (replica, client) = (Identity::generate(), Identity::generate());
    let group = Group {
        name: "test".into(),
        f: 0,
        memory: 1 << 20,
        parameters: Parameters::default(),
        replicas: vec![Member { address: address.clone(), identity: replica.public() }],
        clients: vec![ClientEntry { name: "c".into(), identity: client.public() }],
    };
    let (replica, client) = (Local::new(replica, &group), Local::new(client, &group));
    let calling = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let channel = noise::initiate(&mut stream, &client, ReplicaId(0)).await.unwrap();
        (stream, channel)
    };
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (_, channel) = noise::respond(&mut stream, &replica).await.unwrap();
        (stream, channel)
    };
    let (a, b) = tokio::join!(calling, answering);
    [a, b]
}

async fn link() -> [(Reader, Writer); 2] {
    ends().await.map(|(stream, channel)| split(stream, channel, LIMITS))
}

/// Writes all, waiting where the socket is full.
async fn flush(writer: &mut Writer) {
    while writer.flush().unwrap() == Flushed::Blocked {
        writer.stream.writable().await.unwrap();
    }
}

/// Reads until `reader` fails, and says how. Frames go to `take`.
async fn read_to_the_end(reader: &mut Reader, mut take: impl FnMut(&[u8])) -> LinkError {
    let mut scratch = Scratch::default();
    loop {
        reader.stream.readable().await.unwrap();
        let drained = reader.drain(&mut scratch, |frame| {
            take(frame);
            true
        });
        if let Err(error) = drained {
            return error;
        }
    }
}

/// One record with `plain` in it, as the owner of the channel could make it.
fn record(channel: &mut Channel, plain: &[u8]) -> Vec<u8> {
    let mut bytes = ((plain.len() + TAG) as u16).to_le_bytes().to_vec();
    bytes.resize(HEADER + plain.len() + TAG, 0);
    channel.transport.write_message(channel.sent, plain, &mut bytes[HEADER..]).unwrap();
    channel.sent += 1;
    bytes
}

/// What a replica's reader makes of `bytes` that a client sends before it closes; `forge` gets the client's channel.
async fn ending(forge: impl FnOnce(&mut Channel) -> Vec<u8>) -> (Vec<Vec<u8>>, LinkError) {
    let [(mut stream, mut channel), (theirs, their_channel)] = ends().await;
    stream.write_all(&forge(&mut channel)).await.unwrap();
    stream.shutdown().await.unwrap();
    let (mut reader, _writer) = split(theirs, their_channel, LIMITS);
    let mut frames = Vec::new();
    let error = read_to_the_end(&mut reader, |frame| frames.push(frame.to_vec())).await;
    (frames, error)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    frame::append(&mut stream, |out| out.extend_from_slice(message));
    stream
}

#[tokio::test]
async fn a_million_small_frames_arrive_in_order() {
    const COUNT: u64 = 1_000_000;
    let [(_, mut writer), (mut reader, _other)] = link().await;
    let sending = async {
        for i in 0..COUNT {
            while writer.queue(|out| out.extend_from_slice(&i.to_le_bytes())).is_none() {
                flush(&mut writer).await;
            }
            if i % 1000 == 0 {
                writer.flush().unwrap();
            }
        }
        flush(&mut writer).await;
    };
    let mut next: u64 = 0;
    let receiving = async {
        let mut scratch = Scratch::default();
        while next < COUNT {
            reader.stream.readable().await.unwrap();
            let drained = reader.drain(&mut scratch, |frame| {
                assert_eq!(frame, next.to_le_bytes());
                next += 1;
                true
            });
            drained.unwrap();
        }
    };
    tokio::join!(sending, receiving);
    assert_eq!(next, COUNT);
    assert!(reader.capacity() <= 2 * KEPT_BY_READER, "{}", reader.capacity());
}

#[tokio::test]
async fn frames_of_every_size_arrive_intact() {
    let [(mut back, mut writer), (mut reader, mut echo)] = link().await;
    let pattern = |size: usize| (0..size).map(move |i| (i * 31 + size) as u8);
    let sizes = [0, 1, MAX_PLAIN - 5, MAX_PLAIN - 4, MAX_PLAIN, 1 << 20, MAX_FRAME, 7];
    let sending = async {
        for size in sizes {
            // One of its own between two that are shared, and all three before any is written.
            let shared = pattern(size).collect::<Bytes>();
            assert_eq!(writer.queue_shared(&shared), Some(size));
            assert_eq!(writer.queue(|out| out.extend(pattern(size))), Some(size));
            assert_eq!(writer.queue_shared(&shared), Some(size));
            flush(&mut writer).await;
        }
    };
    let receiving = async {
        let (mut scratch, mut got) = (Scratch::default(), 0);
        while got < 3 * sizes.len() {
            reader.stream.readable().await.unwrap();
            let drained = reader.drain(&mut scratch, |frame| {
                assert!(frame.iter().copied().eq(pattern(sizes[got / 3])), "frame {got}");
                got += 1;
                true
            });
            drained.unwrap();
        }
    };
    tokio::join!(sending, receiving);
    // The other direction has keys of its own.
    echo.queue(|out| out.extend_from_slice(b"back")).unwrap();
    flush(&mut echo).await;
    let mut said = Vec::new();
    while said.is_empty() {
        back.stream.readable().await.unwrap();
        let drained = back.drain(&mut Scratch::default(), |frame| {
            said.extend_from_slice(frame);
            true
        });
        assert_eq!(drained.unwrap(), Drained::All);
    }
    assert_eq!(said, b"back");
    assert!(back.capacity() <= 2 * KEPT_BY_READER, "a short frame takes no long one's room");
    assert!(writer.capacity() + reader.capacity() < 256 << 10, "a burst's memory is given back");
}

#[tokio::test]
async fn long_frames_of_all_links_take_turns_in_one_buffer() {
    let (mut scratch, mut places) = (Scratch::default(), Vec::new());
    for _ in 0..2 {
        let [(_, mut writer), (mut reader, _other)] = link().await;
        writer.queue(|out| out.resize(out.len() + MAX_FRAME, 7)).unwrap();
        let before = places.len();
        let receiving = async {
            while places.len() == before {
                reader.stream.readable().await.unwrap();
                let drained = reader.drain(&mut scratch, |frame| {
                    places.push(frame.as_ptr());
                    true
                });
                drained.unwrap();
            }
        };
        tokio::join!(flush(&mut writer), receiving);
        assert!(reader.capacity() <= 2 * KEPT_BY_READER, "{}", reader.capacity());
    }
    assert_eq!(places[0], places[1]);
    assert!(scratch.spare.capacity() < 2 * MAX_FRAME, "{}", scratch.spare.capacity());
}

#[tokio::test]
async fn what_is_queued_together_leaves_as_one_record() {
    let [(_, mut writer), (reader, _)] = link().await;
    for i in 0..100u8 {
        writer.queue(|out| out.extend_from_slice(&[i; 10])).unwrap();
    }
    assert_eq!(writer.flush().unwrap(), Flushed::All);
    let mut bytes = vec![0; 4096];
    let count = loop {
        reader.stream.readable().await.unwrap();
        match reader.stream.try_read(&mut bytes) {
            Ok(count) => break count,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    };
    let whole = whole_record(&bytes[..count]).unwrap().unwrap();
    assert_eq!((count, whole.len()), (HEADER + 100 * 14 + TAG, 100 * 14 + TAG));
}

#[tokio::test]
async fn records_may_arrive_byte_by_byte() {
    let [(mut stream, mut channel), (theirs, their_channel)] = ends().await;
    let mut bytes = record(&mut channel, &framed(b"one")[..2]);
    bytes.extend(record(&mut channel, &framed(b"one")[2..]));
    bytes.extend(record(&mut channel, &[framed(b"two"), framed(b"three")].concat()));
    let (mut reader, _writer) = split(theirs, their_channel, LIMITS);
    let (mut scratch, mut frames) = (Scratch::default(), Vec::new());
    for byte in bytes {
        stream.write_all(&[byte]).await.unwrap();
        reader.stream.readable().await.unwrap();
        let drained = reader.drain(&mut scratch, |frame| {
            frames.push(frame.to_vec());
            true
        });
        drained.unwrap();
    }
    assert_eq!(frames, [&b"one"[..], b"two", b"three"]);
}

#[tokio::test]
async fn a_taker_that_has_enough_gets_the_rest_later() {
    let [(_, mut writer), (mut reader, _)] = link().await;
    for i in 0..10u8 {
        writer.queue(|out| out.push(i)).unwrap();
    }
    writer.flush().unwrap();
    let (mut scratch, mut got) = (Scratch::default(), Vec::new());
    for expected in [3, 6, 9] {
        while got.len() < expected {
            if got.is_empty() {
                reader.stream.readable().await.unwrap();
            }
            let drained = reader.drain(&mut scratch, |frame| {
                got.extend_from_slice(frame);
                !got.len().is_multiple_of(3)
            });
            assert_eq!(drained.unwrap() == Drained::Paused, got.len() == expected);
        }
        assert_eq!(got.len(), expected);
    }
    let mut last = Vec::new();
    let drained = reader.drain(&mut scratch, |frame| {
        last.extend_from_slice(frame);
        true
    });
    assert_eq!((drained.unwrap(), last), (Drained::All, vec![9]));
}

#[tokio::test]
async fn a_replayed_record_fails() {
    let (frames, error) = ending(|channel| {
        let first = record(channel, &framed(b"once"));
        [first.clone(), first].concat()
    })
    .await;
    // The first may or may not have been in an earlier read.
    assert!(frames.len() <= 1, "{frames:?}");
    assert!(matches!(error, LinkError::Authentication), "{error}");
}

#[tokio::test]
async fn records_in_another_order_fail() {
    let (frames, error) = ending(|channel| {
        let first = record(channel, &framed(b"first"));
        [record(channel, &framed(b"second")), first].concat()
    })
    .await;
    assert_eq!(frames, Vec::<Vec<u8>>::new());
    assert!(matches!(error, LinkError::Authentication), "{error}");
}

#[tokio::test]
async fn a_changed_bit_fails() {
    let (frames, error) = ending(|channel| {
        let mut bytes = record(channel, &framed(b"message"));
        bytes[HEADER + 6] ^= 1;
        bytes
    })
    .await;
    assert_eq!(frames, Vec::<Vec<u8>>::new());
    assert!(matches!(error, LinkError::Authentication), "{error}");
}

#[tokio::test]
async fn garbage_and_short_records_fail() {
    let (_, error) = ending(|_| [&[100, 0][..], &[0xa5; 100]].concat()).await;
    assert!(matches!(error, LinkError::Authentication), "{error}");
    for length in [0, 1, TAG as u16] {
        let (_, error) = ending(|_| length.to_le_bytes().to_vec()).await;
        assert!(
            matches!(error, LinkError::RecordTooShort(l) if l == usize::from(length)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_truncated_record_or_frame_is_never_delivered() {
    let (frames, error) = ending(|channel| {
        let mut bytes = record(channel, &framed(b"whole"));
        let rest = record(channel, &framed(b"cut off"));
        bytes.extend_from_slice(&rest[..rest.len() - 1]);
        bytes
    })
    .await;
    assert_eq!(frames, [b"whole"]);
    assert!(matches!(error, LinkError::Closed), "{error}");
    let (frames, error) = ending(|channel| record(channel, &framed(b"cut off")[..9])).await;
    assert_eq!(frames, Vec::<Vec<u8>>::new());
    assert!(matches!(error, LinkError::Closed), "{error}");
}

#[tokio::test]
async fn an_oversized_frame_fails_by_its_length_alone() {
    let too_long = MAX_FRAME + 1;
    let (frames, error) = ending(|channel| {
        let header = (too_long as u32).to_le_bytes();
        record(channel, &[&framed(b"good")[..], &header].concat())
    })
    .await;
    assert_eq!(frames, [b"good"]);
    assert!(matches!(error, LinkError::FrameTooLarge(l) if l == too_long), "{error}");
}

#[tokio::test]
async fn a_writer_holds_no_more_than_its_limit_and_a_frame() {
    let [(_, mut writer), (mut reader, _other)] = link().await;
    let message = Bytes::from(vec![9; 100_000]);
    let (mut queued, mut dropped) = (0, 0);
    for i in 0..1000 {
        let length = match i % 2 {
            0 => writer.queue(|out| out.extend_from_slice(&message)),
            _ => writer.queue_shared(&message),
        };
        match length {
            Some(_) => queued += 1,
            None => dropped += 1,
        }
        writer.flush().unwrap();
        assert!(writer.waiting() <= LIMITS.waiting + message.len() + frame::LENGTH);
    }
    assert!(dropped > 500, "{dropped}");
    assert!(writer.capacity() <= 4 * LIMITS.waiting, "{}", writer.capacity());
    // What was queued is whole once the other end reads.
    let reading = async {
        let (mut scratch, mut got) = (Scratch::default(), 0);
        while got < queued {
            reader.stream.readable().await.unwrap();
            let drained = reader.drain(&mut scratch, |frame| {
                assert_eq!(frame, message);
                got += 1;
                true
            });
            drained.unwrap();
        }
    };
    tokio::join!(flush(&mut writer), reading);
    assert!(writer.capacity() <= 2 * LIMITS.kept);
}

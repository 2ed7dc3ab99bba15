//! Messages that an adversary holds back for a while.

use bft_core::types::Peer;
use std::collections::BTreeMap;
use std::time::Instant;

/// The most that is held back. Units: bytes.
const HELD_MAX: usize = 64 << 20;

/// Frames in the order in which they are due.
#[derive(Default)]
pub struct Late {
    frames: BTreeMap<(Instant, u64), (Peer, Vec<u8>)>,
    bytes: usize,
    count: u64,
}

impl Late {
    /// Holds `frame` until `at`; drops it where too much is held already.
    pub fn hold(&mut self, at: Instant, to: Peer, frame: Vec<u8>) {
        if self.bytes + frame.len() <= HELD_MAX {
            self.bytes += frame.len();
            self.count += 1;
            self.frames.insert((at, self.count), (to, frame));
        }
    }

    /// Hands over what is due.
    pub fn due(&mut self, now: Instant, mut send: impl FnMut(Peer, &[u8])) {
        while let Some(first) = self.frames.first_entry().filter(|first| first.key().0 <= now) {
            let (to, frame) = first.remove();
            self.bytes -= frame.len();
            send(to, &frame);
        }
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.frames.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bft_core::types::ReplicaId;
    use std::time::Duration;

    #[test]
    fn what_is_held_comes_in_the_order_of_its_time_and_never_too_much_of_it() {
        let (start, to) = (Instant::now(), Peer::Replica(ReplicaId(1)));
        let mut late = Late::default();
        for (ms, byte) in [(2, 2), (1, 1), (2, 3), (9, 9)] {
            late.hold(start + Duration::from_millis(ms), to, vec![byte]);
        }
        late.hold(start, to, vec![0; HELD_MAX]);
        let mut seen = Vec::new();
        late.due(start + Duration::from_millis(5), |_, frame| seen.extend_from_slice(frame));
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!(late.next(), Some(start + Duration::from_millis(9)));
        late.due(start + Duration::from_millis(9), |_, _| {});
        assert_eq!((late.next(), late.bytes), (None, 0));
    }
}

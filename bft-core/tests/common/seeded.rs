//! Seeded inputs for the bodies of fuzz targets.

/// Calls `body` with `count` inputs of at most `most` bytes: random ones, and `examples` with a few bytes changed.
///
/// Panics: where `body` does, after saying which input it was.
pub fn run(count: u64, most: usize, examples: &[Vec<u8>], body: impl Fn(&[u8])) {
    let (mut random, mut input) = (Random(0x5eed), Vec::new());
    for _ in 0..count {
        input.clear();
        match random.below(examples.len() * 2) {
            Some(place) if place < examples.len() => {
                input.extend_from_slice(&examples[place]);
                random.change(&mut input);
            }
            _ => {
                let length = random.below(most).unwrap_or(0);
                input.extend((0..length).map(|_| random.next() as u8));
            }
        }
        let shown = Shown(&input);
        body(&input);
        std::mem::forget(shown);
    }
}

/// Prints its input when a panic drops it.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("the input was {hex}");
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> Option<usize> {
        (bound > 0).then(|| (self.next() % bound as u64) as usize)
    }

    /// A few bytes become others, go, or come twice.
    fn change(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.next() % (4 + bytes.len() as u64 / 64) {
            let Some(place) = self.below(bytes.len()) else { return };
            match self.next() % 4 {
                0 => bytes.truncate(place),
                1 => bytes.insert(place, self.next() as u8),
                2 => bytes[place] = [0, 1, 0x7f, 0xff][self.below(4).unwrap_or(0)],
                _ => bytes[place] ^= 1 << (self.next() % 8),
            }
        }
    }
}

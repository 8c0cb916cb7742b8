//! The source of a caller's choices: a seeded generator, or the input of a fuzzer.

use sparkle::problem::exact::Random;

/// A source of numbers.
pub enum Choices {
    /// An endless sequence.
    Seeded(Random),
    /// Bytes that a fuzzer mutates, and how many of them are used up. Zeros follow them.
    Bytes(Vec<u8>, usize),
}

// The test uses one constructor, the fuzz target the other.
#[allow(dead_code)]
impl Choices {
    pub fn seeded(seed: u64) -> Self {
        Choices::Seeded(Random::new(seed))
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        Choices::Bytes(bytes.to_vec(), 0)
    }

    /// Whether all bytes are used up.
    pub fn is_exhausted(&self) -> bool {
        matches!(self, Choices::Bytes(bytes, used) if *used >= bytes.len())
    }

    /// A number below `count`. It takes no more bytes than `count` needs, so that a mutation changes one choice.
    pub fn below(&mut self, count: usize) -> usize {
        self.between(0, count as i64 - 1) as usize
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        match self {
            Choices::Seeded(random) => random.between(low, high),
            Choices::Bytes(..) => {
                let span = (high - low + 1) as u64;
                let bytes = (u64::BITS - (span - 1).leading_zeros()).div_ceil(8) as usize;
                low + (self.take(bytes) % span) as i64
            }
        }
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        match self {
            Choices::Seeded(random) => random.bits(),
            Choices::Bytes(..) => self.take(8),
        }
    }

    /// `len` integers in -largest..=largest. A fuzzer chooses one byte, the seed of all.
    pub fn integers(&mut self, len: usize, largest: i64) -> Vec<f32> {
        match self {
            Choices::Seeded(random) => random.integers(len, largest),
            Choices::Bytes(..) => Random::new(self.take(1)).integers(len, largest),
        }
    }

    /// The next `count` bytes, at most 8, as a little-endian number.
    fn take(&mut self, count: usize) -> u64 {
        let Choices::Bytes(bytes, used) = self else { unreachable!("only bytes are taken") };
        let number =
            (0..count).map(|at| bytes.get(*used + at).map_or(0, |&byte| u64::from(byte) << (8 * at)));
        let number = number.sum();
        *used += count;
        number
    }
}

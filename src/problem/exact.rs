//! Random inputs, and inputs on which fp32 arithmetic is exact, so that results can be compared bit by bit.
//!
//! Exact inputs are small integers. Every product and every partial sum stays below 2^24, so it is exact in any order
//! and on any device. A wrong index, a missed border or a lost term then causes a difference.

/// A small, fast random number generator (SplitMix64: Steele, Lea and Flood 2014), for test and benchmark data only.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator. The same `seed` gives the same sequence.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        debug_assert!(low <= high);
        low + (self.bits() % (high - low + 1) as u64) as i64
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.between(0, choices.len() as i64 - 1) as usize]
    }

    /// `len` values, uniform in -1..1.
    pub fn reals(&mut self, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        self.fill_reals(&mut values);
        values
    }

    /// Fills `values` as [`Random::reals`] does.
    pub fn fill_reals(&mut self, values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0);
    }

    /// `len` integers in -largest..=largest.
    pub fn integers(&mut self, len: usize, largest: i64) -> Vec<f32> {
        let mut values = vec![0.0; len];
        self.fill_integers(&mut values, largest);
        values
    }

    /// Fills `values` as [`Random::integers`] does.
    pub fn fill_integers(&mut self, values: &mut [f32], largest: i64) {
        values.iter_mut().for_each(|value| *value = self.between(-largest, largest) as f32);
    }
}

/// The largest absolute value, at most 8, of integers for which a sum of `terms` products of two is exact in fp32.
///
/// # Panics
/// If `terms` is 2^24 or more: no such value exists.
pub fn largest_integer(terms: usize) -> i64 {
    let limit = (1u64 << 24) - 1;
    (1..=8).rev().find(|value| terms as u64 * value * value <= limit).expect("fewer than 2^24 terms") as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published test values of the generator.
    #[test]
    fn bits_are_those_of_splitmix64() {
        let mut random = Random::new(1_234_567);
        let bits: Vec<u64> = (0..5).map(|_| random.bits()).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(bits, published);
    }

    #[test]
    fn every_choice_is_picked() {
        let mut random = Random::new(3);
        let mut counts = [0; 5];
        (0..1000).for_each(|_| counts[random.pick(&[0, 1, 2, 3, 4usize])] += 1);
        assert!(counts.iter().all(|&count| count > 100), "{counts:?}");
        assert!((0..100).all(|_| (-2..=1).contains(&random.between(-2, 1))));
        assert_eq!(random.between(7, 7), 7);
    }

    #[test]
    fn integers_stay_within_their_limit_and_reach_it() {
        let values = Random::new(1).integers(10_000, 3);
        assert!(values.iter().all(|value| value.fract() == 0.0 && value.abs() <= 3.0));
        for value in -3..=3 {
            assert!(values.contains(&(value as f32)));
        }
        assert_eq!(largest_integer(1), 8);
        assert_eq!(largest_integer(262_143), 8);
        assert_eq!(largest_integer(262_144), 7);
        assert_eq!(largest_integer((1 << 24) - 1), 1);
    }

    #[test]
    fn reals_fill_their_range() {
        let values = Random::new(2).reals(10_000);
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        assert!(values.iter().sum::<f32>().abs() < 300.0);
        assert!(values.iter().any(|value| *value < -0.99) && values.iter().any(|value| *value > 0.99));
    }
}

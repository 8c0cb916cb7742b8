//! Which part of a problem a rank computes.

use crate::allocate;
use crate::error::Result;
use crate::problem::Conv2d;

/// How a convolution is distributed over ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Each rank has some images. Nothing is sent in a run.
    Batch,
    /// Each rank has some rows of all images, like a code that decomposes its domain. Ranks send each other the rows
    /// that their neighbours' kernels reach into (the halo), and compute the other rows meanwhile.
    Rows,
    /// Each rank has some output channels, their weights alone, and some input channels. All ranks send each other
    /// their input. With several groups of channels each rank has whole groups, and nothing is sent.
    Channels,
}

/// How much of the work a rank gets, in proportion to the others' weights.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Weight {
    /// As much as every rank with this weight: 1.
    #[default]
    Equal,
    /// The rate of this rank's device for the problem: images per second, as predicted from the device's measured rates. If one
    /// rank wants it, all ranks need it.
    Measured,
    /// This number, which is positive and finite.
    Given(f64),
}

/// A range of one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Span {
    /// The first index, from 0.
    pub first: usize,
    /// How many there are; none is possible.
    pub count: usize,
}

impl Span {
    /// The range from `first` to before `end`.
    pub(super) fn between(first: usize, end: usize) -> Self {
        Span { first, count: end.saturating_sub(first) }
    }

    /// The index after the last one.
    pub(super) fn end(self) -> usize {
        self.first + self.count
    }

    /// What two ranges share.
    pub(super) fn common(self, other: Span) -> Span {
        Span::between(self.first.max(other.first), self.end().min(other.end()))
    }
}

/// Cuts `len` into contiguous parts, in proportion to `weights`: each border is rounded to the nearest whole number.
///
/// # Errors
/// Out of memory.
pub fn cut(len: usize, weights: &[f64]) -> Result<Vec<Span>> {
    let total: f64 = weights.iter().sum();
    let mut before = 0.0;
    let mut first = 0;
    let last = weights.len() - 1;
    let part = |(rank, weight): (usize, &f64)| {
        before += weight;
        let border = (len as f64 * (before / total)).round() as usize;
        let end = if rank == last { len } else { border.clamp(first, len) };
        let span = Span::between(first, end);
        first = end;
        Ok(span)
    };
    allocate::collected(weights.iter().enumerate().map(part), PARTS)
}

/// Part `index` of `len`, cut into `parts` as by [`cut`] with equal weights.
pub fn equal(len: usize, parts: usize, index: usize) -> Span {
    let border = |index: usize| match index {
        index if index == parts => len,
        index => (len as f64 * (index as f64 / parts as f64)).round() as usize,
    };
    Span::between(border(index), border(index + 1))
}

/// What lists of parts are for.
pub const PARTS: &str = "the parts of the ranks";

/// The parts of all ranks: of the input and of the output, in the dimension of the distribution.
///
/// # Errors
/// Out of memory.
pub fn parts(problem: &Conv2d, distribution: Distribution, weights: &[f64]) -> Result<Vec<(Span, Span)>> {
    let sizes = problem.sizes();
    let both = |len: usize, of: &dyn Fn(Span) -> (Span, Span)| {
        allocate::collected(cut(len, weights)?.into_iter().map(|span| Ok(of(span))), PARTS)
    };
    match distribution {
        Distribution::Batch => both(sizes.n, &|span| (span, span)),
        Distribution::Rows => {
            // The rows of the input go with those of the output that they are at, the rest with the last one.
            let at = |row: usize| match row {
                row if row == sizes.p => sizes.h,
                row => (row * sizes.stride_h).min(sizes.h),
            };
            both(sizes.p, &|output| (Span::between(at(output.first), at(output.end())), output))
        }
        Distribution::Channels if sizes.groups == 1 => {
            let spans = cut(sizes.c, weights)?.into_iter().zip(cut(sizes.k, weights)?);
            allocate::collected(spans.map(Ok), PARTS)
        }
        Distribution::Channels => {
            let of = |groups: Span, channels: usize| {
                let each = channels / sizes.groups;
                Span { first: groups.first * each, count: groups.count * each }
            };
            both(sizes.groups, &|groups| (of(groups, sizes.c), of(groups, sizes.k)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Conv2dDesc, exact::Random};

    #[test]
    fn parts_cover_everything_once_and_follow_the_weights() {
        let mut random = Random::new(7);
        for _ in 0..2000 {
            let len = random.between(0, 50) as usize;
            let weights: Vec<f64> =
                (0..random.between(1, 9)).map(|_| random.between(1, 100) as f64 / 7.0).collect();
            let (parts, total) = (cut(len, &weights).unwrap(), weights.iter().sum::<f64>());
            let mut next = 0;
            for (part, weight) in parts.iter().zip(&weights) {
                assert_eq!(part.first, next);
                next = part.end();
                assert!((part.count as f64 - len as f64 * weight / total).abs() <= 1.0, "{parts:?}");
            }
            assert_eq!(next, len);
        }
        for (len, parts) in [(10, 4), (2, 3), (0, 5), (1000, 7), (97, 96), (5, 1)] {
            let equal: Vec<Span> = (0..parts).map(|index| equal(len, parts, index)).collect();
            assert_eq!(cut(len, &vec![1.0; parts]).unwrap(), equal, "{len} {parts}");
        }
        let cut = |len, weights: &[f64]| cut(len, weights).unwrap();
        assert_eq!(cut(10, &[1.0; 4]).iter().map(|it| it.count).collect::<Vec<_>>(), [3, 2, 3, 2]);
        assert_eq!(cut(2, &[1.0; 3]).iter().map(|it| it.count).collect::<Vec<_>>(), [1, 0, 1]);
    }

    #[test]
    fn rows_of_input_and_output_are_those_of_the_domain() {
        let same = Conv2dDesc { h: 10, w: 4, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
        for (input, output) in parts(&Conv2d::new(same).unwrap(), Distribution::Rows, &[1.0; 3]).unwrap() {
            assert_eq!(input, output);
        }
        // 4 rows of output from 9 of input: 0 to 4 and 4 to 9.
        let strided = Conv2dDesc { h: 9, r: 3, stride_h: 2, ..Default::default() };
        let found = parts(&Conv2d::new(strided).unwrap(), Distribution::Rows, &[1.0; 2]).unwrap();
        assert_eq!(
            found,
            [(0, 4, 0, 2), (4, 5, 2, 2)]
                .map(|(a, b, c, d)| { (Span { first: a, count: b }, Span { first: c, count: d }) })
        );
    }
}

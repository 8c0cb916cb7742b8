//! The five memory patterns as an experiment names them: what each is, sets of them, and what a set asks of memory.
//!
//! "Off" is defined on the stream of accesses, the same for every engine; results stay right in every set.
//! `docs/patterns.md` is the guide. Behind the feature `patterns`, as no product computes without a pattern on purpose.

use std::fmt;
use std::str::FromStr;

use crate::error::Result;
use crate::problem::{Conv2d, Conv2dDesc, Conv2dSizes, Gemm};

/// A pattern of memory accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// Operands are used several times for each request, and loops are cut for registers and caches.
    Tiling,
    /// Accesses of several neighbouring elements.
    Vectors,
    /// What is needed next is requested by software before it is needed.
    Prefetch,
    /// Memory is read in the order in which it lies: no im2col matrix is written.
    Layout,
    /// The next data move while the present data are computed.
    Overlap,
}

impl Pattern {
    /// All patterns, in the order of the letters T, V, P, L, O.
    pub const ALL: [Pattern; 5] =
        [Pattern::Tiling, Pattern::Vectors, Pattern::Prefetch, Pattern::Layout, Pattern::Overlap];

    /// The letter that names it in sets.
    pub const fn letter(self) -> char {
        match self {
            Pattern::Tiling => 'T',
            Pattern::Vectors => 'V',
            Pattern::Prefetch => 'P',
            Pattern::Layout => 'L',
            Pattern::Overlap => 'O',
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Pattern::Tiling => "tiling",
            Pattern::Vectors => "vectors",
            Pattern::Prefetch => "prefetch",
            Pattern::Layout => "layout",
            Pattern::Overlap => "overlap",
        }
    }

    /// What a kernel does without it.
    pub const fn off(self) -> &'static str {
        match self {
            Pattern::Tiling => "operands are asked for anew at each multiply-add, and nothing is cut",
            Pattern::Vectors => "accesses of 4 bytes, with the same arithmetic",
            Pattern::Prefetch => "software fetches nothing ahead",
            Pattern::Layout => "the im2col matrix is written whole, then read",
            Pattern::Overlap => "the next data move only after computing",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Patterns(u8);

impl Patterns {
    /// None of them.
    pub const NONE: Patterns = Patterns(0);
    /// All five.
    pub const ALL: Patterns = Patterns((1 << Pattern::ALL.len()) - 1);

    /// The 32 sets, from none to all.
    pub fn sets() -> impl Iterator<Item = Patterns> {
        (0..=Patterns::ALL.0).map(Patterns)
    }

    /// Whether it contains `pattern`.
    pub const fn has(self, pattern: Pattern) -> bool {
        self.0 & pattern.bit() != 0
    }

    /// With `pattern` as well.
    pub const fn with(self, pattern: Pattern) -> Self {
        Patterns(self.0 | pattern.bit())
    }

    /// Without `pattern`.
    pub const fn without(self, pattern: Pattern) -> Self {
        Patterns(self.0 & !pattern.bit())
    }

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = Pattern> {
        Pattern::ALL.into_iter().filter(move |&pattern| self.has(pattern))
    }

    /// All subsets of it, the empty one first.
    pub fn subsets(self) -> impl Iterator<Item = Patterns> {
        Patterns::sets().filter(move |set| set.0 & !self.0 == 0)
    }

    /// How many there are.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        patterns.into_iter().fold(Patterns::NONE, Patterns::with)
    }
}

impl fmt::Display for Patterns {
    /// The letters of its members, `-` for each that is missing.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        Pattern::ALL.iter().try_for_each(|&it| {
            let letter = if self.has(it) { it.letter() } else { '-' };
            write!(f, "{letter}")
        })
    }
}

impl FromStr for Patterns {
    type Err = ();

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        Patterns::sets().find(|set| set.to_string() == text).ok_or(())
    }
}

/// Half of tiling, to be left out alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Half {
    /// Operands are used several times for each load.
    Registers,
    /// Loops are cut for caches (CPU) or shared memory (GPU).
    Caches,
}

/// A cell of the experiment: a set of patterns, perhaps without half of tiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// The patterns that are on.
    pub patterns: Patterns,
    /// The half of tiling that is off though tiling is on.
    pub without: Option<Half>,
}

impl Cell {
    /// A set with both halves of tiling, or neither.
    pub const fn of(patterns: Patterns) -> Self {
        Cell { patterns, without: None }
    }

    /// Whether half of tiling is on.
    pub fn tiles(self, half: Half) -> bool {
        self.patterns.has(Pattern::Tiling) && self.without != Some(half)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.patterns)?;
        match self.without {
            None => Ok(()),
            Some(Half::Registers) => f.write_str("/r"),
            Some(Half::Caches) => f.write_str("/c"),
        }
    }
}

/// The register tile of a kernel, and the elements of a vector, for [`requested`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    /// Rows of C of a tile.
    pub rows: usize,
    /// Columns of C of a tile.
    pub cols: usize,
}

/// Operations for each byte that a convolution's inner loop requests, whatever level serves it: a tile of `rows` x `cols`
/// requests `rows + cols` elements for `rows * cols` multiply-adds. Writing and reading an im2col matrix, outputs and the
/// first read of the image come on top.
pub fn requested(problem: &Conv2d, tile: Requests, cell: Cell) -> f64 {
    let flops = problem.flops() as f64;
    let products = flops / 2.0;
    let pairs = 1.0 / tile.rows as f64 + 1.0 / tile.cols as f64;
    let sizes = problem.sizes();
    let matrix = (sizes.n * sizes.c * sizes.r * sizes.s * sizes.p * sizes.q) as f64;
    let copied = if cell.patterns.has(Pattern::Layout) { 0.0 } else { 2.0 * matrix };
    let elements = products * pairs + copied + problem.output_len() as f64;
    flops / (size_of::<f32>() as f64 * elements)
}

/// [`requested`] for a matrix product, which has no im2col matrix.
pub fn requested_by_product(problem: &Gemm, tile: Requests) -> f64 {
    let flops = problem.flops() as f64;
    let pairs = 1.0 / tile.rows as f64 + 1.0 / tile.cols as f64;
    let sizes = problem.sizes();
    flops / (size_of::<f32>() as f64 * (flops / 2.0 * pairs + (sizes.m * sizes.n) as f64))
}

/// The convolution of 1 x 1 that computes `problem` from its im2col matrix. `None` if `problem` is one already.
///
/// # Errors
/// If its sizes cannot be described.
pub fn point(problem: &Conv2d) -> Result<Option<Conv2d>> {
    let Conv2dSizes { n, c, k, p, q, r, s, groups, stride_h, stride_w, .. } = *problem.sizes();
    if r * s * stride_h * stride_w == 1 && !problem.sizes().is_padded() {
        return Ok(None);
    }
    let [n, c, h, w, k, groups] = [n, c * r * s, p, q, k, groups].map(|size| size as i64);
    let (bias, relu) = (problem.bias(), problem.relu());
    let desc = Conv2dDesc {
        n,
        c,
        h,
        w,
        k,
        groups,
        bias,
        relu,
        algorithm: problem.algorithm(),
        ..Default::default()
    };
    Conv2d::new(desc).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_named_by_letters_and_read_back() {
        let all: Vec<Patterns> = Patterns::sets().collect();
        assert_eq!(all.len(), 32);
        for &set in &all {
            assert_eq!(set.to_string().parse(), Ok(set));
            assert_eq!(set.iter().collect::<Patterns>(), set);
            assert_eq!(set.subsets().count(), 1 << set.len());
        }
        assert_eq!(Patterns::ALL.to_string(), "TVPLO");
        assert_eq!(Patterns::ALL.without(Pattern::Prefetch).to_string(), "TV-LO");
        assert!("TVP".parse::<Patterns>().is_err() && "tvplo".parse::<Patterns>().is_err());
        let half = Cell { patterns: Patterns::ALL, without: Some(Half::Caches) };
        assert!(half.tiles(Half::Registers) && !half.tiles(Half::Caches));
        assert!(!Cell::of(Patterns::NONE).tiles(Half::Registers));
    }

    #[test]
    fn tiles_raise_the_requested_intensity_and_a_matrix_lowers_it() {
        let desc =
            Conv2dDesc { c: 64, h: 56, w: 56, k: 64, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let all = Cell::of(Patterns::ALL);
        let tile = |rows, cols| requested(&problem, Requests { rows, cols }, all);
        // Two operations for 8 bytes, nearly, where each multiply-add asks for both operands.
        assert!((tile(1, 1) - 0.25).abs() < 0.01, "{}", tile(1, 1));
        assert!(tile(6, 16) > 8.0 * tile(1, 1));
        let whole = Cell::of(Patterns::ALL.without(Pattern::Layout));
        assert!(requested(&problem, Requests { rows: 6, cols: 16 }, whole) < tile(6, 16));
    }
}

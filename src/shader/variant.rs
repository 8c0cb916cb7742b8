//! Variants: ways to compute a convolution on a GPU, ranked by predicted time.
//!
//! A [`Variant`] is everything that the generator needs besides the problem: the family, the tile and the number of parts of
//! the reduction. [`candidates`] ranks variants with the planner's cost model (`memory::tiles`); a tuner times the first few.

use std::fmt;
use std::str::FromStr;

use super::iterations;
use crate::memory::costs::gpu::variants::{
    FALLBACK_LINE, FALLBACK_SHARE, GROUPED_LINE, GROUPED_SHARE, GROUPED_TRANSFERS, GROUPED_WEIGHT,
    POINTWISE_PART, POINTWISE_SHARE, POINTWISE_STEP, TRANSFORMS,
};
use crate::memory::tiles::{self, Gpu, TILES, Tile, TiledProducts};
use crate::problem::{Algorithm, Conv2d, Conv2dSizes, winograd};

/// A kernel family. Each has a template in `glsl/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// The fallback kernels: one thread per output, sizes read at run time. Slow, but they compute every problem.
    Fallback,
    /// For groups of few channels: a thread computes `TM` output channels of four pixels.
    Grouped(usize),
    /// Implicit GEMM whose reduction runs over (r, s) outside and over channels inside.
    Igemm,
    /// Implicit GEMM for few channels: the reduction runs over (c, r, s), with addresses from a table.
    Table,
    /// 1x1 kernels of little depth: a workgroup computes this many parts of the reduction side by side.
    Pointwise(usize),
    /// Winograd F(m x m, 3 x 3) in three passes.
    Winograd(usize),
}

/// One way to compute a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// The kernel family.
    pub family: Family,
    /// The tile of the products; unused by `Fallback`, `Grouped` and `Pointwise`.
    pub tile: Tile,
    /// Number of parts of the reduction.
    pub splits: usize,
}

/// The tile of families without one.
const NO_TILE: Tile = Tile::new(0, 0, 0, 0, 0, 1);

impl Variant {
    /// The fallback kernels, which compute every problem.
    pub const FALLBACK: Self = Variant { family: Family::Fallback, tile: NO_TILE, splits: 1 };
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.family {
            Family::Fallback => return f.write_str("conv_direct_64"),
            Family::Grouped(tm) => return write!(f, "conv_grouped_{tm}x4"),
            Family::Pointwise(kg) => return write!(f, "conv_pointwise_4x4_k{kg}"),
            Family::Igemm => f.write_str("conv_igemm")?,
            Family::Table => f.write_str("conv_table")?,
            Family::Winograd(m) => write!(f, "conv_winograd_f{m}x3")?,
        }
        write!(f, "_{}", self.tile)?;
        if self.splits > 1 { write!(f, "_s{}", self.splits) } else { Ok(()) }
    }
}

impl FromStr for Variant {
    type Err = ();

    /// Parses what [`Display`](fmt::Display) writes, for the tiles that the planner considers.
    fn from_str(name: &str) -> Result<Self, ()> {
        if name == Variant::FALLBACK.to_string() {
            return Ok(Variant::FALLBACK);
        }
        if let Some(variant) = untiled().find(|variant| variant.to_string() == name) {
            return Ok(variant);
        }
        let families = [Family::Igemm, Family::Table, Family::Winograd(2), Family::Winograd(4)];
        let whole = families.iter().flat_map(|&family| TILES.map(|tile| Variant { family, tile, splits: 1 }));
        let splits = |variant: &Variant| match name.strip_prefix(&variant.to_string())?.strip_prefix("_s") {
            None => (name == variant.to_string()).then_some(1),
            Some(splits) => splits.parse().ok().filter(|splits| (2..=MAX_SPLITS).contains(splits)),
        };
        let found =
            whole.into_iter().find_map(|variant| Some(Variant { splits: splits(&variant)?, ..variant }));
        found.filter(|it| it.to_string() == name).ok_or(())
    }
}

/// The generated variants without a tile.
fn untiled() -> impl Iterator<Item = Variant> {
    let pointwise = POINTWISE_PARTS.map(Family::Pointwise);
    let families = GROUPED_ROWS.map(Family::Grouped).into_iter().chain(pointwise);
    families.map(|family| Variant { family, ..Variant::FALLBACK })
}

/// A problem with less work is small. It is not worth tuning. If it is computed once, it uses the fallback kernel, because
/// compiling another takes longer than that could save.
const SMALL_FLOPS: u64 = 4_000_000;
/// A problem with less work always uses the fallback kernel, unless it requires Winograd.
const MIN_GENERATED_FLOPS: u64 = 400_000;
/// Output channels that a thread of `Grouped` may compute.
const GROUPED_ROWS: [usize; 4] = [8, 4, 2, 1];
/// Parts of the reduction that `Pointwise` may have.
pub(super) const POINTWISE_PARTS: [usize; 3] = [2, 4, 8];
/// The most channels of each part.
const POINTWISE_STEPS: usize = 32;
/// Output channels of a workgroup of `Pointwise`, and its pixels.
pub(super) const POINTWISE_TILE: usize = 32;
/// The most parts of a reduction.
const MAX_SPLITS: usize = 32;
/// With fewer channels, slices of channels are mostly padding.
const FEW_CHANNELS: usize = 16;
/// The longest reduction with a table, which is in shared memory.
const MAX_TABLE: usize = 1024;
/// Tiles may begin up to this many columns beyond the last.
const MARGIN: usize = 4096;

/// Whether Winograd kernels support these sizes.
pub fn has_winograd_forms(sizes: &Conv2dSizes) -> bool {
    sizes.groups == 1 && winograd::is_supported(sizes)
}

/// The Winograd forms that may compute `problem`. `Auto` takes none where F(4x4) is not accurate.
fn winograd_forms(problem: &Conv2d) -> &'static [usize] {
    let sizes = problem.sizes();
    match problem.algorithm() {
        Algorithm::Direct => &[],
        _ if !has_winograd_forms(sizes) => &[],
        _ if winograd::is_accurate(sizes, 4) => &[4, 2],
        Algorithm::Winograd => &[2],
        Algorithm::Auto => &[],
    }
}

/// Whether each output reads only the pixel at its own position.
fn is_one_by_one(sizes: &Conv2dSizes) -> bool {
    let Conv2dSizes { r, s, stride_h, stride_w, .. } = *sizes;
    (r, s, stride_h, stride_w) == (1, 1, 1, 1) && !sizes.is_padded()
}

/// The products of `problem` that the tile kernel computes. The images of a batch are adjacent in the columns.
fn products(problem: &Conv2d, tile: &Tile, family: Family) -> TiledProducts {
    let sizes = problem.sizes();
    let (c, rows) = (sizes.c / sizes.groups, sizes.k / sizes.groups);
    let bytes = problem.bytes();
    let Conv2dSizes { n, p, q, r, s, .. } = *sizes;
    let one_by_one = is_one_by_one(sizes);
    let gathered =
        family == Family::Table || !one_by_one || !sizes.has_plain_images() || !(p * q).is_multiple_of(4);
    let checked = r * s > 1 || sizes.is_padded();
    match family {
        Family::Winograd(m) => {
            let frequencies = (m + 2) * (m + 2);
            let tiles = winograd_tiles(sizes, m);
            let moved = 4 * frequencies * tiles * (sizes.c + sizes.k);
            let bytes = moved as u64 + 4 * (frequencies * sizes.c * sizes.k) as u64;
            TiledProducts {
                count: frequencies,
                rows,
                cols: tiles,
                slices: c.div_ceil(tile.bk),
                bytes,
                gathered: false,
                checked: false,
            }
        }
        Family::Table => {
            let slices = problem.reduction().div_ceil(tile.bk);
            TiledProducts { count: sizes.groups, rows, cols: n * p * q, slices, bytes, gathered, checked }
        }
        _ => {
            let slices = c.div_ceil(tile.bk) * r * s;
            TiledProducts { count: sizes.groups, rows, cols: n * p * q, slices, bytes, gathered, checked }
        }
    }
}

/// Tiles of m x m outputs of all images, padded to whole vectors.
pub(super) fn winograd_tiles(sizes: &Conv2dSizes, m: usize) -> usize {
    (sizes.n * sizes.p.div_ceil(m) * sizes.q.div_ceil(m)).next_multiple_of(4)
}

/// The predicted time of `variant` in seconds.
pub fn seconds(problem: &Conv2d, gpu: &Gpu, variant: &Variant) -> f64 {
    let memory = problem.bytes() as f64 / gpu.memory;
    let flops = problem.flops() as f64;
    let Conv2dSizes { c, groups, r, s, .. } = *problem.sizes();
    // In families without a tile, a thread computes its whole reduction. With few threads, nothing hides its latency.
    let lines = (c / groups * r) as f64;
    match variant.family {
        Family::Fallback => {
            let computing = (flops / (FALLBACK_SHARE * gpu.flops)).max(FALLBACK_LINE * lines);
            computing.max(memory) + gpu.launch
        }
        Family::Grouped(tm) => {
            // A thread reads one weight per four multiply-adds, and each pixel once for all its output channels.
            let share = GROUPED_SHARE * tm as f64 / (tm as f64 + 1.0);
            let alone = lines * (GROUPED_LINE + GROUPED_WEIGHT * (s * tm) as f64);
            (flops / (share * gpu.flops)).max(GROUPED_TRANSFERS * memory).max(alone) + gpu.launch
        }
        Family::Pointwise(kg) => {
            let waiting = POINTWISE_STEP * problem.sizes().c.div_ceil(kg) as f64;
            let computing = waiting.max(flops / (POINTWISE_SHARE * gpu.flops)) + POINTWISE_PART * kg as f64;
            computing.max(2.0 * memory) + gpu.launch
        }
        Family::Igemm | Family::Table => {
            let products = products(problem, &variant.tile, variant.family);
            tiles::seconds(gpu, &variant.tile, &products, variant.splits)
        }
        Family::Winograd(_) => {
            let products = products(problem, &variant.tile, variant.family);
            // The transforms read the image, write the outputs, and write and read the frequency domain.
            let passed = (products.bytes + problem.bytes()) as f64;
            let transforms = 2.0 * gpu.launch + TRANSFORMS * passed / gpu.memory;
            tiles::seconds(gpu, &variant.tile, &products, 1) + transforms
        }
    }
}

/// Whether `variant` may compute `problem` on the device. Use it for variants that do not come from [`candidates`].
pub fn is_candidate(problem: &Conv2d, gpu: &Gpu, variant: &Variant) -> bool {
    let sizes = problem.sizes();
    let c = sizes.c / sizes.groups;
    let winograd_only = problem.algorithm() == Algorithm::Winograd;
    let family = match variant.family {
        Family::Winograd(m) => variant.splits == 1 && winograd_forms(problem).contains(&m),
        Family::Igemm => !winograd_only && c >= FEW_CHANNELS.min(variant.tile.bk),
        Family::Table => !winograd_only && c < FEW_CHANNELS,
        Family::Fallback | Family::Grouped(_) | Family::Pointwise(_) => !winograd_only,
    };
    family && is_possible(problem, gpu, variant)
}

/// Loop iterations of one invocation of `variant`, in the pass that makes the most.
fn iterations(problem: &Conv2d, variant: &Variant) -> usize {
    let Variant { family, tile, splits } = *variant;
    let sizes = problem.sizes();
    let products = || {
        let slices = products(problem, &tile, family).slices;
        let (table, taps) = table_and_taps(problem, &tile, family);
        iterations::tile(&tile, slices.div_ceil(splits), table, taps)
    };
    match family {
        // Its passes are cut where they are run.
        Family::Fallback => 0,
        Family::Grouped(tm) => iterations::grouped(problem, tm),
        Family::Pointwise(kg) => iterations::pointwise(problem.reduction(), kg),
        Family::Igemm | Family::Table => products().max(iterations::split_sum(splits)),
        Family::Winograd(m) => products().max(iterations::winograd_output(sizes.c, m)),
    }
}

/// The length of the table, and whether the kernel has more than one tap, in the products that `family` computes.
fn table_and_taps(problem: &Conv2d, tile: &Tile, family: Family) -> (usize, bool) {
    match family {
        Family::Table => {
            (problem.reduction().next_multiple_of(tile.bk), problem.sizes().r * problem.sizes().s > 1)
        }
        Family::Winograd(_) => (0, false),
        _ => (0, problem.sizes().r * problem.sizes().s > 1),
    }
}

/// Whether the generator supports `variant` for `problem`, and the device can run the result.
pub fn is_possible(problem: &Conv2d, gpu: &Gpu, variant: &Variant) -> bool {
    let sizes = problem.sizes();
    let (c, rows) = (sizes.c / sizes.groups, sizes.k / sizes.groups);
    let columns = sizes.n * sizes.p * sizes.q;
    let Variant { family, tile, splits } = *variant;
    let rows_padded = rows.next_multiple_of(tile.bm.max(1));
    let reach = {
        let (high, wide) = sizes.padded();
        high.max(wide)
    };
    if columns + MARGIN > i32::MAX as usize || reach > 1 << 28 {
        return family == Family::Fallback;
    }
    if iterations(problem, variant) > gpu.max_iterations {
        return false;
    }
    match family {
        Family::Fallback => true,
        Family::Grouped(tm) => {
            rows.is_multiple_of(tm)
                && sizes.dilation_w == 1
                && sizes.stride_w <= 4
                && sizes.s <= 16
                && sizes.n * sizes.k * sizes.p * sizes.q.next_multiple_of(4) < i32::MAX as usize
        }
        Family::Pointwise(kg) => {
            is_one_by_one(sizes)
                && sizes.has_plain_images()
                && sizes.groups == 1
                && (sizes.p * sizes.q).is_multiple_of(4)
                && (kg..=POINTWISE_STEPS * kg).contains(&c)
                && 64 * kg <= gpu.max_threads
                && 64 * 16 * kg * size_of::<f32>() <= gpu.shared_bytes
                && c.next_multiple_of(kg) * rows.next_multiple_of(POINTWISE_TILE) <= gpu.max_elements
        }
        Family::Igemm => {
            let depth = c.next_multiple_of(tile.bk) * sizes.r * sizes.s;
            tile.fits(gpu)
                && splits <= MAX_SPLITS
                && sizes.groups * depth * rows_padded <= gpu.max_elements
                && splits * problem.output_len() <= gpu.max_elements
        }
        Family::Table => {
            let depth = problem.reduction().next_multiple_of(tile.bk);
            tile.shared_bytes() + depth * 8 <= gpu.shared_bytes
                && tile.fits(gpu)
                && splits <= MAX_SPLITS
                && depth <= MAX_TABLE
                && sizes.groups * depth * rows_padded <= gpu.max_elements
                && splits * problem.output_len() <= gpu.max_elements
                && reach < 0x7fff
                && sizes.s * sizes.dilation_w < 0x7fff
                && sizes.r * sizes.dilation_h < 0x7fff
        }
        Family::Winograd(m) => {
            let frequencies = (m + 2) * (m + 2);
            let widest = winograd_tiles(sizes, m) * c.max(sizes.k);
            has_winograd_forms(sizes)
                && tile.fits(gpu)
                && frequencies * widest <= gpu.max_elements
                && frequencies * c.next_multiple_of(tile.bk) * rows_padded <= gpu.max_elements
        }
    }
}

/// Whether `problem` is too small to tune.
pub fn is_small(problem: &Conv2d) -> bool {
    problem.flops() < SMALL_FLOPS && problem.algorithm() != Algorithm::Winograd
}

/// Whether `problem` always uses the fallback kernel.
pub fn stays_with_fallback(problem: &Conv2d) -> bool {
    is_small(problem) && (problem.is_once() || problem.flops() < MIN_GENERATED_FLOPS)
}

/// All variants that can compute `problem`, sorted by predicted time. The fallback is always among them, so the list is never
/// empty, except where the problem requires Winograd.
pub fn candidates(problem: &Conv2d, gpu: &Gpu) -> Vec<Variant> {
    let sizes = problem.sizes();
    let (c, rows) = (sizes.c / sizes.groups, sizes.k / sizes.groups);
    let winograd_only = problem.algorithm() == Algorithm::Winograd;
    let mut variants = vec![];
    if !winograd_only {
        variants.push(Variant::FALLBACK);
        variants.extend(untiled());
    }
    for &tile in &TILES {
        let mut cut = |family: Family| {
            let products = products(problem, &tile, family);
            let (table, taps) = table_and_taps(problem, &tile, family);
            // Without a sufficient number of parts, the variant is dropped below.
            let least =
                iterations::min_splits(&tile, products.slices, table, taps, gpu.max_iterations).unwrap_or(1);
            let best = tiles::best_splits(gpu, &tile, &products, MAX_SPLITS);
            variants.push(Variant { family, tile, splits: best.max(least) });
        };
        if !winograd_only && c >= FEW_CHANNELS.min(tile.bk) {
            cut(Family::Igemm);
        }
        if !winograd_only && c < FEW_CHANNELS && rows > 1 {
            cut(Family::Table);
        }
        for &m in winograd_forms(problem) {
            variants.push(Variant { family: Family::Winograd(m), tile, splits: 1 });
        }
    }
    variants.retain(|variant| is_possible(problem, gpu, variant));
    variants.sort_by(|a, b| seconds(problem, gpu, a).total_cmp(&seconds(problem, gpu, b)));
    if stays_with_fallback(problem) {
        variants.sort_by_key(|variant| variant.family != Family::Fallback);
    }
    variants
}

#[cfg(test)]
mod limits;
#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Gpu = Gpu {
        flops: 59.2e12,
        memory: 2.85e12,
        launch: 4.4e-6,
        units: 132,
        shared_bytes: 48 << 10,
        ..Gpu::ASSUMED
    };

    /// Measured on an H100: 3x3 kernels take 2.67 ms in the tile that shares a compute unit and 3.42 ms in the largest tile.
    /// The largest is the choice for 1x1.
    #[test]
    fn kernels_of_many_taps_get_tiles_that_share_a_unit() {
        let desc = crate::problem::Conv2dDesc { n: 32, c: 256, h: 56, w: 56, k: 256, ..Default::default() };
        let first = |desc| {
            let problem =
                Conv2d::new(crate::problem::Conv2dDesc { algorithm: Algorithm::Direct, ..desc }).unwrap();
            candidates(&problem, &H100)[0].to_string()
        };
        assert_eq!(first(desc), "conv_igemm_128x128x8_t8x8");
        assert_eq!(
            first(crate::problem::Conv2dDesc { r: 3, s: 3, pad_h: 1, pad_w: 1, ..desc }),
            "conv_igemm_128x64x8_t8x8"
        );
    }

    /// Measured on an H100: a generated kernel is 1.5 to 9 times as fast as the fallback on small problems. The fallback is
    /// the choice where compiling takes longer than a generated kernel could save.
    #[test]
    fn small_problems_get_generated_kernels_unless_they_are_computed_once() {
        let desc = |c, size, k, r, groups| {
            let pad = r / 2;
            let desc =
                crate::problem::Conv2dDesc { c, h: size, w: size, k, r, s: r, groups, ..Default::default() };
            Conv2d::new(crate::problem::Conv2dDesc { pad_h: pad, pad_w: pad, ..desc }).unwrap()
        };
        let first = |problem: &Conv2d| candidates(problem, &H100)[0].to_string();
        for (problem, family) in [
            (desc(256, 28, 256, 3, 256), "conv_grouped_1x4"),
            (desc(1024, 7, 1024, 3, 1024), "conv_grouped_1x4"),
            (desc(64, 7, 32, 3, 1), "conv_igemm_"),
            (desc(64, 14, 64, 1, 1), "conv_pointwise_"),
        ] {
            assert!(is_small(&problem) && first(&problem).starts_with(family), "{problem:?}");
            assert_eq!(first(&problem.once()), "conv_direct_64");
        }
        assert_eq!(first(&desc(8, 14, 8, 3, 1)), "conv_direct_64");
    }

    #[test]
    fn names_are_read_back() {
        let tiled = [Family::Igemm, Family::Table, Family::Winograd(4), Family::Winograd(2)]
            .iter()
            .flat_map(|&family| TILES.map(|tile| Variant { family, tile, splits: 1 }));
        let split = TILES.map(|tile| Variant { family: Family::Igemm, tile, splits: MAX_SPLITS });
        let mut names = 0;
        for variant in tiled.chain(split).chain(untiled()).chain([Variant::FALLBACK]) {
            assert_eq!(variant.to_string().parse(), Ok(variant), "{variant}");
            names += 1;
        }
        assert_eq!(names, 5 * TILES.len() + 8);
        for name in [
            "",
            "conv_igemm",
            "conv_igemm_128x128x8_t8x8_s1",
            "conv_igemm_128x128x8_t8x8_s33",
            "conv_igemm_128x128x8_t8x8_s+2",
            "conv_igemm_128x128x9_t8x8",
            "conv_winograd_f6x3_128x128x8_t8x8",
            "conv_grouped_3x4",
            "conv_direct_64 ",
        ] {
            assert!(name.parse::<Variant>().is_err(), "{name}");
        }
    }

    #[test]
    fn candidates_are_candidates() {
        let desc = crate::problem::Conv2dDesc {
            c: 8,
            h: 40,
            w: 40,
            k: 64,
            r: 3,
            s: 3,
            pad_h: 1,
            pad_w: 1,
            ..Default::default()
        };
        let mut checked = 0;
        for c in [8, 64] {
            for algorithm in [Algorithm::Auto, Algorithm::Direct, Algorithm::Winograd] {
                let problem = Conv2d::new(crate::problem::Conv2dDesc { c, algorithm, ..desc }).unwrap();
                for variant in candidates(&problem, &Gpu::ASSUMED) {
                    assert!(is_candidate(&problem, &Gpu::ASSUMED, &variant), "{variant}");
                    checked += 1;
                }
                let winograd = Variant { family: Family::Winograd(4), tile: TILES[8], splits: 1 };
                let allowed = c == 64 && algorithm != Algorithm::Direct;
                assert_eq!(is_candidate(&problem, &Gpu::ASSUMED, &winograd), allowed);
            }
        }
        assert!(checked > 100, "{checked}");
    }
}

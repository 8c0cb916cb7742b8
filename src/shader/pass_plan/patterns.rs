//! The passes of a convolution in which memory patterns are switched off: the GPU's side of `sparkle patterns`. The
//! product's passes contain nothing of this.
//!
//! Tiles, parts of the reduction and the table of few channels are the planner's first choice among the tiled variants of
//! the direct algorithm. All sets with tiling share them, so that only the accesses differ. Without layout a pass writes the
//! im2col matrix, and the planner chooses for the 1x1 convolution that reads it. Overlap concerns transfers, not passes.

use super::defines::Shape;
use super::plan::{BufferRole, Pass, PassPlan};
use super::tile::{TileOptions, elementwise, pack, packed_sizes, split_sum};
use crate::error::Result;
use crate::memory::patterns::{Cell, Half, Pattern, Requests, point};
use crate::memory::tiles::{Gpu, Tile};
use crate::problem::{Algorithm, Conv2d, Conv2dSizes};
use crate::shader::variant::{Family, Variant, candidates};

const TILED: &str = include_str!("../../../glsl/patterns.comp");
const UNTILED: &str = include_str!("../../../glsl/patterns_untiled.comp");
const IM2COL: &str = include_str!("../../../glsl/patterns_im2col.comp");

/// Threads of a workgroup without tiling, each with four columns.
const THREADS: usize = 64;

/// The passes that compute `problem` with the patterns of `cell`. `None` if no tiled variant can.
///
/// # Errors
/// If the im2col matrix is too large to be described.
pub(crate) fn patterns(problem: &Conv2d, gpu: &Gpu, cell: Cell) -> Result<Option<PassPlan>> {
    let whole = if cell.patterns.has(Pattern::Layout) { None } else { point(problem)? };
    let inner = whole.as_ref().unwrap_or(problem);
    let shape = Shape::of(inner);
    let on = |pattern| cell.patterns.has(pattern);
    let name = format!("conv_patterns_{cell}");
    let (mut scratch, mut run, mut input) = (vec![], vec![], BufferRole::Input);
    if whole.is_some() {
        if inner.input_len() > gpu.max_elements {
            return Ok(None);
        }
        run.push(im2col(&Shape::of(problem), on(Pattern::Vectors)));
        (scratch, input) = (vec![inner.input_len()], BufferRole::Scratch(0));
    }
    if !cell.tiles(Half::Registers) || !cell.tiles(Half::Caches) {
        // Padded for no tile.
        let tile = Tile::new(4, 4, 1, 4, 4, 1);
        let (prepare, packed) = pack(&shape, &tile, false);
        run.push(untiled(&name, &shape, &tile, (on(Pattern::Vectors), on(Pattern::Prefetch)), input));
        return Ok(Some(PassPlan { name, packed, scratch, prepare: vec![prepare], run }));
    }
    let Some(Variant { family, tile, splits }) = choice(inner, gpu) else { return Ok(None) };
    let options = TileOptions { table: family == Family::Table, splits, ..TileOptions::new(tile) };
    let (prepare, packed) = pack(&shape, &tile, options.table);
    let output = if splits == 1 { BufferRole::Output } else { BufferRole::Scratch(scratch.len()) };
    run.push(tiled(&name, &shape, &options, (on(Pattern::Vectors), on(Pattern::Prefetch)), (input, output)));
    if splits > 1 {
        run.push(split_sum(&shape, &options, scratch.len()));
        scratch.push(shape.output_len() * splits);
    }
    Ok(Some(PassPlan { name, packed, scratch, prepare: vec![prepare], run }))
}

/// The planner's first choice among tiled variants, with as many parts of the reduction as every set needs to stay within
/// the device's limit of iterations.
fn choice(problem: &Conv2d, gpu: &Gpu) -> Option<Variant> {
    let problem = problem.with_algorithm(Algorithm::Direct);
    let tiled = |it: &Variant| matches!(it.family, Family::Igemm | Family::Table);
    let mut first = candidates(&problem, gpu).into_iter().find(tiled)?;
    let (shape, table) = (Shape::of(&problem), first.family == Family::Table);
    let slices = packed_sizes(&shape, &first.tile, table).0 / first.tile.bk;
    while iterations(&first.tile, slices.div_ceil(first.splits)) > gpu.max_iterations {
        // More parts than slices, or than other passes expect, help nothing.
        if first.splits >= slices || first.splits >= 32 {
            return None;
        }
        first.splits += 1;
    }
    Some(first)
}

/// An upper bound of the iterations of an invocation of the tile without vectors, whose loops are the longest.
fn iterations(tile: &Tile, slices: usize) -> usize {
    let Tile { bm, bn, bk, tm, tn, kg } = *tile;
    let threads = tile.threads();
    let loads = 2 * (bk * bm).div_ceil(threads) + 6 * (bk * bn).div_ceil(threads) + 24;
    let step = 2 + 2 * (tm + tn) + tm * tn;
    let sums = (4 + 2 * kg) * tm * tn;
    slices * (bk / kg * step + loads) + 3 * sums + 1024
}

/// The tile of a cell.
pub(crate) fn requests(problem: &Conv2d, gpu: &Gpu, cell: Cell) -> Requests {
    let tiled = cell.tiles(Half::Registers) && cell.tiles(Half::Caches);
    match choice(problem, gpu).filter(|_| tiled) {
        Some(Variant { tile, .. }) => Requests { rows: tile.bm, cols: tile.bn },
        None => Requests { rows: 1, cols: 4 },
    }
}

fn im2col(shape: &Shape, vectors: bool) -> Pass {
    let Conv2dSizes { n, c, r, s, p, q, .. } = shape.sizes;
    let stored = if vectors && (p * q).is_multiple_of(4) { 4 } else { 1 };
    let defines = shape.defines().size("STORED", stored).vector("STORE", stored == 4);
    let defines =
        defines.size("CHANNEL_STRIDE", shape.channel_stride).size("IMAGE_STRIDE", shape.image_stride());
    let source = defines.source("patterns_im2col", &[IM2COL]);
    let bindings = vec![(0, BufferRole::Input), (2, BufferRole::Scratch(0))];
    elementwise(source, bindings, n * c * r * s * p * q / stored, 32.0, 16)
}

/// Memory accesses of the shader: sizes that it reads and stores at once.
fn untiled(
    name: &str,
    shape: &Shape,
    tile: &Tile,
    (vectors, ahead): (bool, bool),
    input: BufferRole,
) -> Pass {
    let (_, rows_padded) = packed_sizes(shape, tile, false);
    let columns = shape.sizes.n * shape.pixels();
    let read4 = vectors && shape.reads_vectors();
    let store4 = vectors && shape.pixels().is_multiple_of(4) && shape.writes_rows();
    let defines = shape.defines().flag("VECTORS", vectors).flag("AHEAD", ahead);
    let defines = defines.size("V", if read4 { 4 } else { 1 }).vector("PIXELS", read4);
    let defines = defines.vector("STORE", store4).flag("STORE4", store4);
    let defines = defines.size("ROWS_PADDED", rows_padded).size("COLUMNS", columns);
    let defines =
        defines.size("CHANNEL_STRIDE", shape.channel_stride).size("IMAGE_STRIDE", shape.image_stride());
    let source = shape.with_epilogue(defines, true).source(name, &[UNTILED]);
    let groups = columns.div_ceil(4 * THREADS) * shape.rows() * shape.sizes.groups;
    let taps = shape.sizes.r * shape.sizes.s;
    let operations = (2 * 4 * THREADS * shape.channels() * taps) as f64;
    let iterations = taps * (5 * (shape.channels() + 1) + 5) + 16;
    let bindings = vec![(0, input), (1, BufferRole::Packed), (2, BufferRole::Output), (3, BufferRole::Bias)];
    Pass { source, bindings, groups, operations, iterations, uniforms: vec![] }
}

fn tiled(
    name: &str,
    shape: &Shape,
    options: &TileOptions,
    (vectors, ahead): (bool, bool),
    (input, output): (BufferRole, BufferRole),
) -> Pass {
    let Tile { bm, bn, bk, tm, tn, .. } = options.tile;
    let (depth, rows_padded) = packed_sizes(shape, &options.tile, options.table);
    let columns = shape.sizes.n * shape.pixels();
    let read4 = vectors && shape.reads_vectors() && !options.table;
    let threads = options.tile.threads();
    let (tiles_m, tiles_n) = (shape.rows().div_ceil(bm), columns.div_ceil(bn));
    let tx = bn / tn;
    // As in the product's tile.
    let wx = if threads >= 32 && tx.is_multiple_of(8) && (bm / tm).is_multiple_of(4) { 8 } else { 0 };
    let uneven = !shape.channels().is_multiple_of(bk);
    let defines = shape.defines().flag("VECTORS", vectors).flag("AHEAD", ahead);
    let defines = defines.size("BM", bm).size("BN", bn).size("BK", bk).size("TM", tm).size("TN", tn);
    let defines = defines.size("THREADS", threads).size("WX", wx).size("KG", options.tile.kg);
    let defines = defines.size("V", if read4 { 4 } else { 1 }).vector("PIXELS", read4);
    let store4 = vectors && shape.pixels().is_multiple_of(4) && shape.writes_rows();
    let defines = defines.vector("STORE", store4).flag("STORE4", store4);
    let defines = defines.size("ROWS_PADDED", rows_padded).size("COLUMNS", columns);
    let defines =
        defines.size("CHANNEL_STRIDE", shape.channel_stride).size("IMAGE_STRIDE", shape.image_stride());
    let defines = defines.size("PART_STRIDE", shape.output_len());
    let defines = defines.size("TILES_M", tiles_m).size("TILES_N", tiles_n).size("SPLITS", options.splits);
    let defines = defines.flag("TABLE", options.table).flag("EDGES", shape.sizes.is_padded() || uneven);
    let defines = defines.flag("CHANNELS_UNEVEN", uneven);
    let source = shape.with_epilogue(defines, options.splits == 1).source(name, &[TILED]);
    let groups = tiles_m * tiles_n * shape.sizes.groups * options.splits;
    let operations = 2.0 * (bm * bn) as f64 * depth.div_ceil(options.splits) as f64;
    let iterations = iterations(&options.tile, (depth / bk).div_ceil(options.splits));
    let bindings = vec![(0, input), (1, BufferRole::Packed), (2, output), (3, BufferRole::Bias)];
    Pass { source, bindings, groups, operations, iterations, uniforms: vec![] }
}

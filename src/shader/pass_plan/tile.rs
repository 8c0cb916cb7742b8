//! Tiled products: the pass that packs weights, the tile pass, and the pass that adds the parts of a split reduction.

use super::defines::{Defines, Shape};
use super::plan::{BufferRole, Pass, ShaderSource};
use crate::memory::tiles::Tile;
use crate::shader::iterations;

const TILE: &str = include_str!("../../../glsl/tile.comp");
const SPLIT_SUM: &str = include_str!("../../../glsl/split_sum.comp");
const PACK_WEIGHTS: &str = include_str!("../../../glsl/pack_weights.comp");

/// Threads of a workgroup that uses no shared memory.
const ELEMENTWISE_GROUP: usize = 64;

/// Depth and rows of the packed weights, both padded to whole blocks.
pub(super) fn packed_sizes(shape: &Shape, tile: &Tile, table: bool) -> (usize, usize) {
    let taps = shape.sizes.r * shape.sizes.s;
    let depth = if table {
        (shape.channels() * taps).next_multiple_of(tile.bk)
    } else {
        shape.channels().next_multiple_of(tile.bk) * taps
    };
    (depth, shape.rows().next_multiple_of(tile.bm))
}

/// A pass over `elements` elements, one per thread; `operations` of each.
pub(super) fn elementwise(
    source: ShaderSource,
    bindings: Vec<(u32, BufferRole)>,
    elements: usize,
    operations: f64,
    iterations: usize,
) -> Pass {
    let (groups, operations) = (elements.div_ceil(ELEMENTWISE_GROUP), operations * ELEMENTWISE_GROUP as f64);
    Pass { source, bindings, groups, operations, iterations, uniforms: vec![] }
}

/// The pass that packs the weights, and the number of packed elements.
pub(super) fn pack(shape: &Shape, tile: &Tile, table: bool) -> (Pass, usize) {
    let (depth, rows) = packed_sizes(shape, tile, table);
    let defines = shape.defines().flag("TABLE", table).size("DEPTH_PADDED", depth).size("ROWS_PADDED", rows);
    let defines = defines.size("CHANNELS_PADDED", shape.channels().next_multiple_of(tile.bk));
    let source = defines.source("pack_weights", &[PACK_WEIGHTS]);
    let packed = shape.sizes.groups * depth * rows;
    (elementwise(source, vec![(0, BufferRole::Weights), (2, BufferRole::Packed)], packed, 32.0, 0), packed)
}

/// Options of a tile pass, besides its shape.
pub(super) struct TileOptions {
    pub tile: Tile,
    pub table: bool,
    pub splits: usize,
    /// Whether the result is multiplied by alpha: a matrix product, not a convolution.
    pub scaled: bool,
    /// Whether beta times another matrix is added. This is a compile-time option: a test at run time turns each of a thread's
    /// 64 stores into a branch, which makes the kernel 14 % slower (H100).
    pub old: bool,
    /// Weights that need no packing: their buffer, and the stride in elements between steps of the reduction.
    pub unpacked: Option<(BufferRole, usize)>,
}

impl TileOptions {
    pub fn new(tile: Tile) -> Self {
        TileOptions { tile, table: false, splits: 1, scaled: false, old: false, unpacked: None }
    }
}

/// The pass that computes the products, one tile per workgroup.
pub(super) fn tile_pass(
    name: &str,
    shape: &Shape,
    options: &TileOptions,
    input: BufferRole,
    output: BufferRole,
) -> Pass {
    let Tile { bm, bn, bk, tm, tn, .. } = options.tile;
    let (depth, rows_padded) = packed_sizes(shape, &options.tile, options.table);
    let (weights, weights_stride) = options.unpacked.unwrap_or((BufferRole::Packed, rows_padded));
    let columns = shape.sizes.n * shape.pixels();
    let v = if shape.reads_vectors() && !options.table { 4 } else { 1 };
    let threads = options.tile.threads();
    let (tiles_m, tiles_n) = (shape.rows().div_ceil(bm), columns.div_ceil(bn));
    let tx = bn / tn;
    // A warp of 8 x 4 threads reads the fewest distinct vectors.
    let wx = if threads >= 32 && tx.is_multiple_of(8) && (bm / tm).is_multiple_of(4) { 8 } else { 0 };
    let edges = shape.sizes.is_padded() || !shape.channels().is_multiple_of(bk);
    let defines = shape.defines().size("BM", bm).size("BN", bn).size("BK", bk).size("TM", tm).size("TN", tn);
    let defines = defines.size("THREADS", threads).size("WX", wx).size("V", v).vector("PIXELS", v == 4);
    let store4 = shape.pixels().is_multiple_of(4) && shape.writes_rows();
    let defines = defines.vector("STORE", store4).flag("STORE4", store4).text("ACCESS", "writeonly");
    let defines = defines.size("ROWS_PADDED", weights_stride).size("COLUMNS", columns);
    let defines = defines.size("CHANNEL_STRIDE", shape.channel_stride);
    let defines = defines.size("IMAGE_STRIDE", shape.image_stride());
    let defines = defines.size("PART_STRIDE", shape.output_len());
    let defines = defines.size("TILES_M", tiles_m).size("TILES_N", tiles_n).size("SPLITS", options.splits);
    let whole = options.splits == 1;
    let defines =
        defines.flag("TABLE", options.table).flag("EDGES", edges).flag("SCALED", options.scaled && whole);
    let defines = defines.flag("OLD", options.old && whole);
    let defines =
        defines.flag("CHANNELS_UNEVEN", !shape.channels().is_multiple_of(bk)).size("KG", options.tile.kg);
    let defines = shape.with_epilogue(defines, whole);
    let groups = tiles_m * tiles_n * shape.sizes.groups * options.splits;
    let operations = 2.0 * (bm * bn) as f64 * depth.div_ceil(options.splits) as f64;
    let bindings = vec![(0, input), (1, weights), (2, output), (3, BufferRole::Bias)];
    let slices = (depth / bk).div_ceil(options.splits);
    let table = if options.table { depth } else { 0 };
    let iterations = iterations::tile(&options.tile, slices, table, shape.sizes.r * shape.sizes.s > 1);
    let source = defines.source(name, &[TILE]);
    Pass { source, bindings, groups, operations, iterations, uniforms: vec![] }
}

/// The pass that adds the parts in scratch buffer `parts`, and scales and adds the old result as `options` says.
pub(super) fn split_sum(shape: &Shape, options: &TileOptions, parts: usize) -> Pass {
    let four = shape.pixels().is_multiple_of(4) && shape.writes_rows();
    let v = if four { 4 } else { 1 };
    let splits = options.splits;
    let defines = Defines::default().size("V", v).vector("PIXELS", four).size("SPLITS", splits);
    let defines = defines.size("ROWS", shape.sizes.k);
    let defines = defines.size("OUT_CHANNEL", shape.sizes.output_strides().channel);
    let defines = defines.flag("SCALED", options.scaled).flag("OLD", options.old);
    let defines = shape.with_epilogue(defines.size("PART_STRIDE", shape.output_len()), true);
    let source = defines.source("split_sum", &[SPLIT_SUM]);
    let bindings = vec![(0, BufferRole::Scratch(parts)), (2, BufferRole::Output), (3, BufferRole::Bias)];
    let operations = (8 * splits) as f64;
    elementwise(source, bindings, shape.output_len() / v, operations, iterations::split_sum(splits))
}

//! The passes of a matrix product.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::defines::{Defines, Shape};
use super::plan::{BufferRole, Pass, PassPlan};
use super::tile::{TileOptions, packed_sizes, split_sum, tile_pass};
use crate::memory::tiles::{TILES, Tile};
use crate::problem::Gemm;
use crate::shader::iterations;

const PACK_MATRIX: &str = include_str!("../../../glsl/pack_matrix.comp");

/// A matrix product whose result has contiguous rows: op(A) is `rows` x `depth` and op(B) `depth` x `cols`, both with strides.
/// A result with contiguous columns becomes the transposed product.
pub(crate) struct Product {
    pub rows: usize,
    pub cols: usize,
    pub depth: usize,
    /// Whether A and B are swapped.
    pub swapped: bool,
    a: (usize, usize),
    b: (usize, usize),
}

impl Product {
    pub(crate) fn new(problem: &Gemm) -> Self {
        let it = *problem.sizes();
        let depth = it.k;
        if it.c_col == 1 {
            let (a, b) = ((it.a_row, it.a_col), (it.b_row, it.b_col));
            Product { rows: it.m, cols: it.n, depth, swapped: false, a, b }
        } else {
            let (a, b) = ((it.b_col, it.b_row), (it.a_col, it.a_row));
            Product { rows: it.n, cols: it.m, depth, swapped: true, a, b }
        }
    }
}

/// The pass that packs a matrix with any strides into [depth][row].
fn pack_matrix(
    (rows, depth): (usize, usize),
    (row_stride, depth_stride): (usize, usize),
    (rows_padded, depth_padded): (usize, usize),
    (from, to): (BufferRole, BufferRole),
) -> Pass {
    let across = rows_padded.div_ceil(32);
    let defines = Defines::default().size("ROWS", rows).size("DEPTH", depth).size("ROW_STRIDE", row_stride);
    let defines = defines.size("DEPTH_STRIDE", depth_stride).size("ROWS_PADDED", rows_padded);
    let source = defines.size("DEPTH_PADDED", depth_padded).size("SQUARES_ACROSS", across);
    let source = source.source("pack_matrix", &[PACK_MATRIX]);
    let groups = across * depth_padded.div_ceil(32);
    let iterations = iterations::pack_matrix();
    let bindings = vec![(0, from), (2, to)];
    Pass { source, bindings, groups, operations: 32.0 * 1024.0, iterations, uniforms: vec![] }
}

/// The passes of a tiled matrix product whose depth is split into `splits` parts. A is `Weights`, B is `Input`, and the old C is
/// `Bias`. The old C and the result are dense. If the product is swapped, so are A and B.
pub(crate) fn gemm(problem: &Gemm, tile: &Tile, splits: usize) -> PassPlan {
    let product = Product::new(problem);
    let Product { rows, cols, depth, .. } = product;
    let (a, b) = if product.swapped {
        (BufferRole::Input, BufferRole::Weights)
    } else {
        (BufferRole::Weights, BufferRole::Input)
    };
    // A B with contiguous rows is read in place.
    let in_place = product.b.1 == 1;
    let channel_stride = if in_place { product.b.0 } else { cols };
    let shape = Shape::products(1, (rows, depth, cols), channel_stride);
    let (depth_padded, rows_padded) = packed_sizes(&shape, tile, false);
    // An A with contiguous columns needs no packing if it consists of whole tiles and aligned vectors.
    let whole = (rows_padded, depth_padded) == (rows, depth) && product.a.1.is_multiple_of(4);
    let unpacked = (whole && product.a.0 == 1).then_some((a, product.a.1));
    let mut run = vec![];
    if unpacked.is_none() {
        run.push(pack_matrix((rows, depth), product.a, (rows_padded, depth_padded), (a, BufferRole::Packed)));
    }
    let (input, mut scratch) =
        if in_place { (b, vec![]) } else { (BufferRole::Scratch(0), vec![cols * depth]) };
    if !in_place {
        let strides = (product.b.1, product.b.0);
        run.push(pack_matrix((cols, depth), strides, (cols, depth), (b, BufferRole::Scratch(0))));
    }
    let name = gemm_name(tile).to_owned();
    let old = problem.beta() != 0.0;
    let options = TileOptions { scaled: true, old, unpacked, splits, ..TileOptions::new(*tile) };
    let parts = scratch.len();
    let output = if splits == 1 { BufferRole::Output } else { BufferRole::Scratch(parts) };
    run.push(tile_pass(&name, &shape, &options, input, output));
    if splits > 1 {
        scratch.push(splits * rows * cols);
        run.push(split_sum(&shape, &options, parts));
    }
    if let Some(last) = run.last_mut() {
        last.uniforms = vec![(2, problem.alpha().to_bits()), (3, problem.beta().to_bits())];
    }
    let packed = if unpacked.is_none() { depth_padded * rows_padded } else { 0 };
    PassPlan { name, packed, scratch, prepare: vec![], run }
}

/// The name of the tiled kernel.
pub(crate) fn gemm_name(tile: &Tile) -> &'static str {
    static NAMES: OnceLock<BTreeMap<Tile, String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| TILES.iter().map(|tile| (*tile, format!("sgemm_{tile}"))).collect());
    names.get(tile).map_or("sgemm_tiled", String::as_str)
}

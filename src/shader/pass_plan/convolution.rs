//! The passes of a convolution, for each family of variants.

use super::defines::{Defines, Shape};
use super::plan::{BufferRole, Pass, PassPlan};
use super::tile::{TileOptions, elementwise, pack, packed_sizes, split_sum, tile_pass};
use crate::memory::tiles::Tile;
use crate::problem::{Conv2d, Conv2dSizes};
use crate::shader::iterations;
use crate::shader::variant::{Family, POINTWISE_TILE, Variant, winograd_tiles};

const GROUPED: &str = include_str!("../../../glsl/conv_grouped.comp");
const POINTWISE: &str = include_str!("../../../glsl/conv_pointwise.comp");
const WINOGRAD_INPUT: &str = include_str!("../../../glsl/winograd_input.comp");
const WINOGRAD_OUTPUT: &str = include_str!("../../../glsl/winograd_output.comp");
const WINOGRAD_WEIGHTS: &str = include_str!("../../../glsl/winograd_weights.comp");
pub(super) const WINOGRAD_F2: &str = include_str!("../../../glsl/winograd_f2.glsl");
pub(super) const WINOGRAD_F4: &str = include_str!("../../../glsl/winograd_f4.glsl");

pub(super) fn tiled(problem: &Conv2d, variant: &Variant) -> PassPlan {
    let shape = Shape::of(problem);
    let table = variant.family == Family::Table;
    let (prepare, packed) = pack(&shape, &variant.tile, table);
    let name = variant.to_string();
    let run = TileOptions { table, splits: variant.splits, ..TileOptions::new(variant.tile) };
    if variant.splits == 1 {
        let pass = tile_pass(&name, &shape, &run, BufferRole::Input, BufferRole::Output);
        return PassPlan { name, packed, scratch: vec![], prepare: vec![prepare], run: vec![pass] };
    }
    let pass = tile_pass(&name, &shape, &run, BufferRole::Input, BufferRole::Scratch(0));
    let scratch = vec![shape.output_len() * variant.splits];
    PassPlan { name, packed, scratch, prepare: vec![prepare], run: vec![pass, split_sum(&shape, &run, 0)] }
}

pub(super) fn grouped(problem: &Conv2d, variant: &Variant, tm: usize) -> PassPlan {
    let shape = Shape::of(problem);
    let Conv2dSizes { n, k, p, q, .. } = shape.sizes;
    let defines = shape.defines().size("TM", tm).stored(shape.stored_width(), 4);
    let name = variant.to_string();
    let source = shape.with_epilogue(defines, true).source(&name, &[GROUPED]);
    let bindings = vec![
        (0, BufferRole::Input),
        (1, BufferRole::Weights),
        (2, BufferRole::Output),
        (3, BufferRole::Bias),
    ];
    let operations = (8 * tm * problem.reduction()) as f64 + 32.0;
    let (threads, iterations) = (n * (k / tm) * p * q.div_ceil(4), iterations::grouped(problem, tm));
    let pass = elementwise(source, bindings, threads, operations, iterations);
    PassPlan { name, packed: 0, scratch: vec![], prepare: vec![], run: vec![pass] }
}

pub(super) fn pointwise(problem: &Conv2d, variant: &Variant, kg: usize) -> PassPlan {
    let shape = Shape::of(problem);
    // Only packing sees this tile.
    let tile = Tile::new(POINTWISE_TILE, POINTWISE_TILE, kg, 4, 4, kg);
    let (prepare, packed) = pack(&shape, &tile, false);
    let (_, rows_padded) = packed_sizes(&shape, &tile, false);
    let defines = shape.defines().size("KG", kg).size("THREADS", 64 * kg).size("ROWS_PADDED", rows_padded);
    let name = variant.to_string();
    let source = shape.with_epilogue(defines, true).source(&name, &[POINTWISE]);
    let bindings =
        vec![(0, BufferRole::Input), (1, BufferRole::Packed), (2, BufferRole::Output), (3, BufferRole::Bias)];
    let columns = shape.sizes.n * shape.pixels();
    let groups = columns.div_ceil(POINTWISE_TILE) * shape.rows().div_ceil(POINTWISE_TILE);
    let operations = (2 * POINTWISE_TILE * POINTWISE_TILE * problem.reduction()) as f64;
    let iterations = iterations::pointwise(problem.reduction(), kg);
    let pass = Pass { source, bindings, groups, operations, iterations, uniforms: vec![] };
    PassPlan { name, packed, scratch: vec![], prepare: vec![prepare], run: vec![pass] }
}

pub(super) fn winograd(problem: &Conv2d, variant: &Variant, m: usize) -> PassPlan {
    let shape = Shape::of(problem);
    let sizes = shape.sizes;
    let (alpha, form) = (m + 2, if m == 2 { WINOGRAD_F2 } else { WINOGRAD_F4 });
    let frequencies = alpha * alpha;
    let tiles = winograd_tiles(&sizes, m);
    let (down, across) = (sizes.p.div_ceil(m), sizes.q.div_ceil(m));
    let name = variant.to_string();

    let product = Shape::products(frequencies, (sizes.k, sizes.c, tiles), tiles);
    let run = TileOptions::new(variant.tile);
    let (depth, rows) = packed_sizes(&product, &variant.tile, false);

    let defines = shape.defines().size("M", m).size("ALPHA", alpha).size("TILES_PADDED", tiles);
    let defines =
        defines.size("TILES", sizes.n * down * across).size("TILES_DOWN", down).size("TILES_ACROSS", across);
    let defines = shape.with_epilogue(defines.stored(shape.stored_width(), m), true);
    let padded = defines.clone().size("DEPTH_PADDED", depth).size("ROWS_PADDED", rows);
    // The names omit the tile, on which the transforms do not depend: variants share them, and the driver compiles them once.
    let transform = |defines: &Defines, what: &str, body: &str| {
        defines.source(&format!("conv_winograd_f{m}x3_{what}"), &[form, body])
    };

    let weights = [(0, BufferRole::Weights), (2, BufferRole::Packed)].to_vec();
    let input = [(0, BufferRole::Input), (2, BufferRole::Scratch(0))].to_vec();
    // The last two are read where outputs are not finite and are summed again.
    let output = [
        (0, BufferRole::Scratch(1)),
        (2, BufferRole::Output),
        (3, BufferRole::Bias),
        (1, BufferRole::Weights),
        (4, BufferRole::Input),
    ];
    let (work, few) = ((8 * frequencies) as f64, iterations::winograd_transform(m));
    let many = iterations::winograd_output(sizes.c, m);
    let prepare = vec![elementwise(
        transform(&padded, "weights", WINOGRAD_WEIGHTS),
        weights,
        depth * rows,
        8.0 * work,
        few,
    )];
    let run = vec![
        elementwise(transform(&defines, "input", WINOGRAD_INPUT), input, sizes.c * tiles, work, few),
        tile_pass(&name, &product, &run, BufferRole::Scratch(0), BufferRole::Scratch(1)),
        elementwise(
            transform(&defines, "output", WINOGRAD_OUTPUT),
            output.to_vec(),
            sizes.k * tiles,
            work,
            many,
        ),
    ];
    let scratch = vec![frequencies * sizes.c * tiles, frequencies * sizes.k * tiles];
    PassPlan { name, packed: frequencies * depth * rows, scratch, prepare, run }
}

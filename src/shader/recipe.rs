//! From a variant to GLSL: what is run on the device, and in which order.
//!
//! A [`Recipe`] is data: passes with their source, the buffers they see and the work they do. Some run once, when weights are
//! prepared, the others at each convolution; an engine needs to know no more. Everything is specialised on the problem: sizes are
//! constants in the source, so that the compiler folds address arithmetic and unrolls loops.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::iterations;
use super::source::NUMBERS;
use super::variant::{Family, POINTWISE_TILE, Variant, winograd_tiles};
use crate::allocate;
use crate::error::Result;
use crate::memory::tiles::{TILES, Tile};
use crate::problem::{Conv2d, Conv2dSizes, Gemm};

/// A shader, complete.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// What messages call it.
    pub name: String,
    /// Its GLSL.
    pub text: String,
}

impl Source {
    /// A copy; a text of a caller's may be long.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn copied(&self) -> Result<Self> {
        Ok(Source { name: self.name.clone(), text: allocate::text(&self.text, "a shader")? })
    }
}

/// A buffer of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The caller's input.
    Input,
    /// The caller's weights, as they came.
    Weights,
    /// The caller's bias.
    Bias,
    /// The output.
    Output,
    /// Weights as the kernel reads them.
    Packed,
    /// What passes hand on to each other, by number.
    Scratch(usize),
}

/// One kernel over all its work.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    /// The shader.
    pub source: Source,
    /// What is bound where.
    pub bindings: Vec<(u32, Slot)>,
    /// Workgroups.
    pub groups: usize,
    /// Operations of a workgroup.
    pub operations: f64,
    /// Iterations of all loops of an invocation, at most.
    pub iterations: usize,
    /// Uniforms besides `first` and `count`: location and bits.
    pub uniforms: Vec<(u32, u32)>,
}

/// How a variant computes a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The variant's name.
    pub name: String,
    /// Elements of the packed weights; 0 if weights are used as they came.
    pub packed: usize,
    /// Elements of each scratch buffer.
    pub scratch: Vec<usize>,
    /// Passes that prepare the weights.
    pub prepare: Vec<Pass>,
    /// Passes of a convolution.
    pub run: Vec<Pass>,
}

impl Recipe {
    /// A hash of its shaders, the same in every process.
    pub fn hash(&self) -> u64 {
        crate::store::hash(self.sources().flat_map(|source| source.text.bytes()))
    }

    /// Whether a convolution reads the weights as they came, packed or not.
    pub fn reads_weights(&self) -> bool {
        self.run.iter().any(|pass| pass.bindings.iter().any(|(_, slot)| *slot == Slot::Weights))
    }

    /// Its shaders.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.prepare.iter().chain(&self.run).map(|pass| &pass.source)
    }
}

const TILE: &str = include_str!("../../glsl/tile.comp");
const SPLIT_SUM: &str = include_str!("../../glsl/split_sum.comp");
const PACK_WEIGHTS: &str = include_str!("../../glsl/pack_weights.comp");
const GROUPED: &str = include_str!("../../glsl/conv_grouped.comp");
const POINTWISE: &str = include_str!("../../glsl/conv_pointwise.comp");
const WINOGRAD_INPUT: &str = include_str!("../../glsl/winograd_input.comp");
const WINOGRAD_OUTPUT: &str = include_str!("../../glsl/winograd_output.comp");
const WINOGRAD_WEIGHTS: &str = include_str!("../../glsl/winograd_weights.comp");
const PACK_MATRIX: &str = include_str!("../../glsl/pack_matrix.comp");
const MEASURE_FMA: &str = include_str!("../../glsl/measure_fma.comp");
const MEASURE_READ: &str = include_str!("../../glsl/measure_read.comp");
const WINOGRAD_F2: &str = include_str!("../../glsl/winograd_f2.glsl");
const WINOGRAD_F4: &str = include_str!("../../glsl/winograd_f4.glsl");

/// Threads of a workgroup where nothing is shared.
const SIMPLE_GROUP: usize = 64;
/// Workgroups in a row of the grid, where there are several rows; every driver has so many. A constant: asking for the grid's size
/// makes a shader wait 0.2 us, as measured on an H100.
pub const GRID_X: u32 = 65535;

/// The constants at the head of a shader.
#[derive(Debug, Clone, Default)]
struct Defines(String);

impl Defines {
    fn text(mut self, name: &str, value: &str) -> Self {
        self.0.push_str(&format!("#define {name} {value}\n"));
        self
    }

    fn size(self, name: &str, value: usize) -> Self {
        self.text(name, &value.to_string())
    }

    fn flag(self, name: &str, value: bool) -> Self {
        self.size(name, usize::from(value))
    }

    /// The type of elements read or written four at a time, or one.
    fn vector(self, name: &str, four: bool) -> Self {
        self.text(name, if four { "vec4" } else { "float" })
    }

    /// As many neighbours of a line of `width` as can be stored at once, wherever lines begin, of the `most` that are at hand.
    fn stored(self, width: usize, most: usize) -> Self {
        let (stored, store) = match width {
            _ if most == 4 && width.is_multiple_of(4) => (4, "vec4"),
            _ if width.is_multiple_of(2) => (2, "vec2"),
            _ => (1, "float"),
        };
        self.size("STORED", stored).text("STORE", store)
    }

    fn finish(&self, name: &str, bodies: &[&str]) -> Source {
        let bodies = bodies.join("\n");
        let numbers = if bodies.contains("relu(") { NUMBERS } else { "" };
        // The driver's compiler of one vendor unrolls only what it is told to; others skip the line.
        let head = "#version 430 core\n#pragma optionNV(unroll all)";
        let text =
            format!("{head}\n// {name}\n{}const uint GRID_X = {GRID_X}u;\n\n{numbers}\n{bodies}", self.0);
        Source { name: name.to_owned(), text }
    }
}

/// A convolution over memory that need not be an image: batched products are 1x1 convolutions of one long row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub sizes: Conv2dSizes,
    /// Elements between channels of the input.
    pub channel_stride: usize,
    pub bias: bool,
    pub relu: bool,
}

impl Shape {
    fn of(problem: &Conv2d) -> Self {
        let sizes = *problem.sizes();
        Shape { sizes, channel_stride: sizes.h * sizes.w, bias: problem.bias(), relu: problem.relu() }
    }

    /// `count` products of `rows` x `depth` and `depth` x `cols`: 1x1 convolutions of one row, a group each.
    fn products(count: usize, (rows, depth, cols): (usize, usize, usize), channel_stride: usize) -> Self {
        let sizes = Conv2dSizes {
            n: 1,
            c: count * depth,
            h: 1,
            w: cols,
            k: count * rows,
            p: 1,
            q: cols,
            groups: count,
            r: 1,
            s: 1,
            stride_h: 1,
            stride_w: 1,
            pad_h: 0,
            pad_w: 0,
            dilation_h: 1,
            dilation_w: 1,
        };
        Shape { sizes, channel_stride, bias: false, relu: false }
    }

    fn rows(&self) -> usize {
        self.sizes.k / self.sizes.groups
    }

    fn channels(&self) -> usize {
        self.sizes.c / self.sizes.groups
    }

    fn pixels(&self) -> usize {
        self.sizes.p * self.sizes.q
    }

    fn output_len(&self) -> usize {
        self.sizes.n * self.sizes.k * self.pixels()
    }

    /// Whether pixels may be read four at a time.
    fn reads_vectors(&self) -> bool {
        let Conv2dSizes { r, s, stride_h, stride_w, pad_h, pad_w, .. } = self.sizes;
        (r, s, stride_h, stride_w, pad_h, pad_w) == (1, 1, 1, 1, 0, 0)
            && self.pixels().is_multiple_of(4)
            && self.channel_stride.is_multiple_of(4)
    }

    fn defines(&self) -> Defines {
        let Conv2dSizes { n, h, w, r, s, p, q, groups, .. } = self.sizes;
        let Conv2dSizes { stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, .. } = self.sizes;
        let defines =
            Defines::default().size("N", n).size("CHANNELS", self.channels()).size("H", h).size("W", w);
        let defines = defines.size("ROWS", self.rows()).size("GROUPS", groups).size("P", p).size("Q", q);
        let defines = defines.size("R", r).size("S", s).size("STRIDE_H", stride_h).size("STRIDE_W", stride_w);
        let defines = defines.size("PAD_H", pad_h).size("PAD_W", pad_w);
        defines.size("DILATION_H", dilation_h).size("DILATION_W", dilation_w)
    }

    fn finishing(&self, defines: Defines, finish: bool) -> Defines {
        defines.flag("BIAS", finish && self.bias).flag("RELU", finish && self.relu)
    }
}

/// The packed weights of a shape: how deep, and how many rows, both padded to whole blocks.
fn packed_sizes(shape: &Shape, tile: &Tile, table: bool) -> (usize, usize) {
    let taps = shape.sizes.r * shape.sizes.s;
    let depth = if table {
        (shape.channels() * taps).next_multiple_of(tile.bk)
    } else {
        shape.channels().next_multiple_of(tile.bk) * taps
    };
    (depth, shape.rows().next_multiple_of(tile.bm))
}

/// A pass over `elements` elements, one a thread.
fn simple(
    source: Source,
    bindings: Vec<(u32, Slot)>,
    elements: usize,
    operations: f64,
    iterations: usize,
) -> Pass {
    let (groups, operations) = (elements.div_ceil(SIMPLE_GROUP), operations * SIMPLE_GROUP as f64);
    Pass { source, bindings, groups, operations, iterations, uniforms: vec![] }
}

fn pack(shape: &Shape, tile: &Tile, table: bool) -> (Pass, usize) {
    let (depth, rows) = packed_sizes(shape, tile, table);
    let defines = shape.defines().flag("TABLE", table).size("DEPTH_PADDED", depth).size("ROWS_PADDED", rows);
    let defines = defines.size("CHANNELS_PADDED", shape.channels().next_multiple_of(tile.bk));
    let source = defines.finish("pack_weights", &[PACK_WEIGHTS]);
    let packed = shape.sizes.groups * depth * rows;
    (simple(source, vec![(0, Slot::Weights), (2, Slot::Packed)], packed, 32.0, 0), packed)
}

/// How a tile pass is run, besides its shape.
pub(super) struct TileRun {
    pub tile: Tile,
    pub table: bool,
    pub splits: usize,
    /// Multiplied by alpha: a matrix product, not a convolution.
    pub scaled: bool,
    /// Beta times another matrix is added. A program of its own: where that is asked at run time, each of a thread's 64 stores
    /// becomes a branch, and the whole kernel is 14 % slower (H100).
    pub old: bool,
    /// Weights that need no packing: where they are, and the elements from one step of the reduction to the next.
    pub as_they_are: Option<(Slot, usize)>,
}

impl TileRun {
    fn new(tile: Tile) -> Self {
        TileRun { tile, table: false, splits: 1, scaled: false, old: false, as_they_are: None }
    }
}

/// The pass that computes products in tiles.
pub(super) fn tile_pass(name: &str, shape: &Shape, run: &TileRun, input: Slot, output: Slot) -> Pass {
    let Tile { bm, bn, bk, tm, tn, .. } = run.tile;
    let (depth, rows_padded) = packed_sizes(shape, &run.tile, run.table);
    let (weights, weights_stride) = run.as_they_are.unwrap_or((Slot::Packed, rows_padded));
    let columns = shape.sizes.n * shape.pixels();
    let v = if shape.reads_vectors() && !run.table { 4 } else { 1 };
    let threads = run.tile.threads();
    let (tiles_m, tiles_n) = (shape.rows().div_ceil(bm), columns.div_ceil(bn));
    let tx = bn / tn;
    // A warp of 8 x 4 threads reads the fewest different vectors.
    let wx = if threads >= 32 && tx.is_multiple_of(8) && (bm / tm).is_multiple_of(4) { 8 } else { 0 };
    let edges = shape.sizes.pad_h + shape.sizes.pad_w > 0 || !shape.channels().is_multiple_of(bk);
    let defines = shape.defines().size("BM", bm).size("BN", bn).size("BK", bk).size("TM", tm).size("TN", tn);
    let defines = defines.size("THREADS", threads).size("WX", wx).size("V", v).vector("PIXELS", v == 4);
    let store4 = shape.pixels().is_multiple_of(4);
    let defines = defines.vector("STORE", store4).flag("STORE4", store4).text("ACCESS", "writeonly");
    let defines = defines.size("ROWS_PADDED", weights_stride).size("COLUMNS", columns);
    let defines = defines.size("CHANNEL_STRIDE", shape.channel_stride);
    let defines = defines.size("IMAGE_STRIDE", shape.sizes.c * shape.channel_stride);
    let defines = defines.size("OUT_STRIDE", shape.pixels()).size("PART_STRIDE", shape.output_len());
    let defines = defines.size("TILES_M", tiles_m).size("TILES_N", tiles_n).size("SPLITS", run.splits);
    let whole = run.splits == 1;
    let defines = defines.flag("TABLE", run.table).flag("EDGES", edges).flag("SCALED", run.scaled && whole);
    let defines = defines.flag("OLD", run.old && whole);
    let defines =
        defines.flag("CHANNELS_UNEVEN", !shape.channels().is_multiple_of(bk)).size("KG", run.tile.kg);
    let defines = shape.finishing(defines, whole);
    let groups = tiles_m * tiles_n * shape.sizes.groups * run.splits;
    let operations = 2.0 * (bm * bn) as f64 * depth.div_ceil(run.splits) as f64;
    let bindings = vec![(0, input), (1, weights), (2, output), (3, Slot::Bias)];
    let slices = (depth / bk).div_ceil(run.splits);
    let table = if run.table { depth } else { 0 };
    let iterations = iterations::tile(&run.tile, slices, table, shape.sizes.r * shape.sizes.s > 1);
    let source = defines.finish(name, &[TILE]);
    Pass { source, bindings, groups, operations, iterations, uniforms: vec![] }
}

/// The pass that adds up the parts, which are in scratch buffer `parts`; scaled, with an old result, if `run` says so.
fn split_sum(shape: &Shape, run: &TileRun, parts: usize) -> Pass {
    let four = shape.pixels().is_multiple_of(4);
    let v = if four { 4 } else { 1 };
    let splits = run.splits;
    let defines = Defines::default().size("V", v).vector("PIXELS", four).size("SPLITS", splits);
    let defines = defines.size("ROWS", shape.sizes.k).size("OUT_STRIDE", shape.pixels());
    let defines = defines.flag("SCALED", run.scaled).flag("OLD", run.old);
    let defines = shape.finishing(defines.size("PART_STRIDE", shape.output_len()), true);
    let source = defines.finish("split_sum", &[SPLIT_SUM]);
    let bindings = vec![(0, Slot::Scratch(parts)), (2, Slot::Output), (3, Slot::Bias)];
    let operations = (8 * splits) as f64;
    simple(source, bindings, shape.output_len() / v, operations, iterations::split_sum(splits))
}

fn tiled(problem: &Conv2d, variant: &Variant) -> Recipe {
    let shape = Shape::of(problem);
    let table = variant.family == Family::Table;
    let (prepare, packed) = pack(&shape, &variant.tile, table);
    let name = variant.to_string();
    let run = TileRun { table, splits: variant.splits, ..TileRun::new(variant.tile) };
    if variant.splits == 1 {
        let pass = tile_pass(&name, &shape, &run, Slot::Input, Slot::Output);
        return Recipe { name, packed, scratch: vec![], prepare: vec![prepare], run: vec![pass] };
    }
    let pass = tile_pass(&name, &shape, &run, Slot::Input, Slot::Scratch(0));
    let scratch = vec![shape.output_len() * variant.splits];
    Recipe { name, packed, scratch, prepare: vec![prepare], run: vec![pass, split_sum(&shape, &run, 0)] }
}

fn grouped(problem: &Conv2d, variant: &Variant, tm: usize) -> Recipe {
    let shape = Shape::of(problem);
    let Conv2dSizes { n, k, p, q, .. } = shape.sizes;
    let defines = shape.defines().size("TM", tm).stored(q, 4);
    let name = variant.to_string();
    let source = shape.finishing(defines, true).finish(&name, &[GROUPED]);
    let bindings = vec![(0, Slot::Input), (1, Slot::Weights), (2, Slot::Output), (3, Slot::Bias)];
    let operations = (8 * tm * problem.reduction()) as f64 + 32.0;
    let (threads, iterations) = (n * (k / tm) * p * q.div_ceil(4), iterations::grouped(problem, tm));
    let pass = simple(source, bindings, threads, operations, iterations);
    Recipe { name, packed: 0, scratch: vec![], prepare: vec![], run: vec![pass] }
}

fn pointwise(problem: &Conv2d, variant: &Variant, kg: usize) -> Recipe {
    let shape = Shape::of(problem);
    // As far as packing sees it.
    let tile = Tile::new(POINTWISE_TILE, POINTWISE_TILE, kg, 4, 4, kg);
    let (prepare, packed) = pack(&shape, &tile, false);
    let (_, rows_padded) = packed_sizes(&shape, &tile, false);
    let defines = shape.defines().size("KG", kg).size("THREADS", 64 * kg).size("ROWS_PADDED", rows_padded);
    let name = variant.to_string();
    let source = shape.finishing(defines, true).finish(&name, &[POINTWISE]);
    let bindings = vec![(0, Slot::Input), (1, Slot::Packed), (2, Slot::Output), (3, Slot::Bias)];
    let columns = shape.sizes.n * shape.pixels();
    let groups = columns.div_ceil(POINTWISE_TILE) * shape.rows().div_ceil(POINTWISE_TILE);
    let operations = (2 * POINTWISE_TILE * POINTWISE_TILE * problem.reduction()) as f64;
    let iterations = iterations::pointwise(problem.reduction(), kg);
    let pass = Pass { source, bindings, groups, operations, iterations, uniforms: vec![] };
    Recipe { name, packed, scratch: vec![], prepare: vec![prepare], run: vec![pass] }
}

fn winograd(problem: &Conv2d, variant: &Variant, m: usize) -> Recipe {
    let shape = Shape::of(problem);
    let sizes = shape.sizes;
    let (alpha, form) = (m + 2, if m == 2 { WINOGRAD_F2 } else { WINOGRAD_F4 });
    let frequencies = alpha * alpha;
    let tiles = winograd_tiles(&sizes, m);
    let (down, across) = (sizes.p.div_ceil(m), sizes.q.div_ceil(m));
    let name = variant.to_string();

    let product = Shape::products(frequencies, (sizes.k, sizes.c, tiles), tiles);
    let run = TileRun::new(variant.tile);
    let (depth, rows) = packed_sizes(&product, &variant.tile, false);

    let defines = shape.defines().size("M", m).size("ALPHA", alpha).size("TILES_PADDED", tiles);
    let defines =
        defines.size("TILES", sizes.n * down * across).size("TILES_DOWN", down).size("TILES_ACROSS", across);
    let defines = shape.finishing(defines.stored(sizes.q, m), true);
    let padded = defines.clone().size("DEPTH_PADDED", depth).size("ROWS_PADDED", rows);
    // Named without the tile, which they do not depend on: variants share them, and the driver compiles them once.
    let transform = |defines: &Defines, what: &str, body: &str| {
        defines.finish(&format!("conv_winograd_f{m}x3_{what}"), &[form, body])
    };

    let weights = [(0, Slot::Weights), (2, Slot::Packed)].to_vec();
    let input = [(0, Slot::Input), (2, Slot::Scratch(0))].to_vec();
    // The last two are for outputs that are summed again.
    let output =
        [(0, Slot::Scratch(1)), (2, Slot::Output), (3, Slot::Bias), (1, Slot::Weights), (4, Slot::Input)];
    let (work, few) = ((8 * frequencies) as f64, iterations::winograd_transform(m));
    let many = iterations::winograd_output(sizes.c, m);
    let prepare =
        vec![simple(transform(&padded, "weights", WINOGRAD_WEIGHTS), weights, depth * rows, 8.0 * work, few)];
    let run = vec![
        simple(transform(&defines, "input", WINOGRAD_INPUT), input, sizes.c * tiles, work, few),
        tile_pass(&name, &product, &run, Slot::Scratch(0), Slot::Scratch(1)),
        simple(transform(&defines, "output", WINOGRAD_OUTPUT), output.to_vec(), sizes.k * tiles, work, many),
    ];
    let scratch = vec![frequencies * sizes.c * tiles, frequencies * sizes.k * tiles];
    Recipe { name, packed: frequencies * depth * rows, scratch, prepare, run }
}

/// A matrix product with the result's rows contiguous: op(A) is `rows` x `depth`, op(B) `depth` x `cols`, by strides. A result with
/// contiguous columns is the transposed product.
pub(crate) struct Product {
    pub rows: usize,
    pub cols: usize,
    pub depth: usize,
    /// Whether A and B have changed places.
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

/// A matrix packed by strides into [depth][row].
fn pack_matrix(
    (rows, depth): (usize, usize),
    (row_stride, depth_stride): (usize, usize),
    (rows_padded, depth_padded): (usize, usize),
    (from, to): (Slot, Slot),
) -> Pass {
    let across = rows_padded.div_ceil(32);
    let defines = Defines::default().size("ROWS", rows).size("DEPTH", depth).size("ROW_STRIDE", row_stride);
    let defines = defines.size("DEPTH_STRIDE", depth_stride).size("ROWS_PADDED", rows_padded);
    let source = defines.size("DEPTH_PADDED", depth_padded).size("SQUARES_ACROSS", across);
    let source = source.finish("pack_matrix", &[PACK_MATRIX]);
    let groups = across * depth_padded.div_ceil(32);
    let iterations = iterations::pack_matrix();
    let bindings = vec![(0, from), (2, to)];
    Pass { source, bindings, groups, operations: 32.0 * 1024.0, iterations, uniforms: vec![] }
}

/// How a matrix product is computed in tiles, its depth in `splits` parts: A is `Weights`, B `Input`, the old C `Bias`, in the order of the
/// result, which is tight; with A and B in each other's place if the product is swapped.
pub(crate) fn gemm(problem: &Gemm, tile: &Tile, splits: usize) -> Recipe {
    let product = Product::new(problem);
    let Product { rows, cols, depth, .. } = product;
    let (a, b) = if product.swapped { (Slot::Input, Slot::Weights) } else { (Slot::Weights, Slot::Input) };
    // B is read in place if its rows are contiguous.
    let in_place = product.b.1 == 1;
    let channel_stride = if in_place { product.b.0 } else { cols };
    let shape = Shape::products(1, (rows, depth, cols), channel_stride);
    let (depth_padded, rows_padded) = packed_sizes(&shape, tile, false);
    // A is packed already if its rows are contiguous and no tile reaches beyond its end.
    let whole = (rows_padded, depth_padded) == (rows, depth) && product.a.1.is_multiple_of(4);
    let as_they_are = (whole && product.a.0 == 1).then_some((a, product.a.1));
    let mut run = vec![];
    if as_they_are.is_none() {
        run.push(pack_matrix((rows, depth), product.a, (rows_padded, depth_padded), (a, Slot::Packed)));
    }
    let (input, mut scratch) = if in_place { (b, vec![]) } else { (Slot::Scratch(0), vec![cols * depth]) };
    if !in_place {
        let strides = (product.b.1, product.b.0);
        run.push(pack_matrix((cols, depth), strides, (cols, depth), (b, Slot::Scratch(0))));
    }
    let name = gemm_name(tile).to_owned();
    let old = problem.beta() != 0.0;
    let how = TileRun { scaled: true, old, as_they_are, splits, ..TileRun::new(*tile) };
    let parts = scratch.len();
    let output = if splits == 1 { Slot::Output } else { Slot::Scratch(parts) };
    run.push(tile_pass(&name, &shape, &how, input, output));
    if splits > 1 {
        scratch.push(splits * rows * cols);
        run.push(split_sum(&shape, &how, parts));
    }
    if let Some(last) = run.last_mut() {
        last.uniforms = vec![(2, problem.alpha().to_bits()), (3, problem.beta().to_bits())];
    }
    let packed = if as_they_are.is_none() { depth_padded * rows_padded } else { 0 };
    Recipe { name, packed, scratch, prepare: vec![], run }
}

/// The name of the kernel that computes products in tiles.
pub(crate) fn gemm_name(tile: &Tile) -> &'static str {
    static NAMES: OnceLock<BTreeMap<Tile, String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| TILES.iter().map(|tile| (*tile, format!("sgemm_{tile}"))).collect());
    names.get(tile).map_or("sgemm_tiled", String::as_str)
}

/// Measures multiply-adds: `groups` workgroups of 512 threads, 64 operations a step.
pub(crate) fn measure_fma(groups: usize, steps: usize) -> Pass {
    let source = Defines::default().finish("measure_fma", &[MEASURE_FMA]);
    let (operations, iterations) = ((512 * 64 * steps) as f64, iterations::measure_fma(steps));
    let (bindings, uniforms) = (vec![(2, Slot::Output)], vec![(2, steps as u32)]);
    Pass { source, bindings, groups, operations, iterations, uniforms }
}

/// Measures reads: `elements` of `Input`.
pub(crate) fn measure_read(elements: usize) -> Pass {
    let vectors = elements / 4;
    let source =
        Defines::default().text("VECTORS", &format!("{vectors}u")).finish("measure_read", &[MEASURE_READ]);
    let groups = vectors.div_ceil(16 * 256);
    let bindings = vec![(0, Slot::Input), (2, Slot::Output)];
    let (operations, iterations) = ((16 * 256 * 8) as f64, iterations::measure_read());
    Pass { source, bindings, groups, operations, iterations, uniforms: vec![] }
}

/// How `variant` computes `problem`; `None` for the floor, whose kernels are not generated.
pub fn generate(variant: &Variant, problem: &Conv2d) -> Option<Recipe> {
    match variant.family {
        Family::Direct => None,
        Family::Grouped(tm) => Some(grouped(problem, variant, tm)),
        Family::Igemm | Family::Table => Some(tiled(problem, variant)),
        Family::Pointwise(kg) => Some(pointwise(problem, variant, kg)),
        Family::Winograd(m) => Some(winograd(problem, variant, m)),
    }
}

#[cfg(test)]
mod passes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tiles::Gpu;
    use crate::problem::{Conv2dDesc, GemmDesc, Layout, Transpose};
    use crate::shader::source::check_with_glslang;
    use crate::shader::variant::candidates;

    fn problems() -> Vec<Conv2d> {
        let layer =
            Conv2dDesc { c: 32, k: 33, h: 14, w: 14, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
        let first = Conv2dDesc { c: 3, r: 7, s: 7, stride_h: 2, stride_w: 2, relu: true, ..layer };
        let pointwise = Conv2dDesc { r: 1, s: 1, pad_h: 0, pad_w: 0, bias: true, ..layer };
        let depthwise = Conv2dDesc { k: 32, groups: 32, ..layer };
        let dilated = Conv2dDesc { dilation_h: 2, dilation_w: 3, n: 2, ..layer };
        [layer, first, pointwise, depthwise, dilated].map(|desc| Conv2d::new(desc).unwrap()).to_vec()
    }

    /// Of each family the first and some others of every problem.
    #[test]
    fn glslang_accepts_what_is_generated() {
        let mut checked = 0;
        for problem in problems() {
            for variant in candidates(&problem, &Gpu::ASSUMED).iter().step_by(4) {
                let Some(recipe) = generate(variant, &problem) else { continue };
                for pass in recipe.prepare.iter().chain(&recipe.run) {
                    check_with_glslang(&pass.source.name, &pass.source.text);
                    checked += 1;
                }
            }
        }
        let odd = GemmDesc::packed(Layout::ColMajor, 100, 101, 102);
        let whole = GemmDesc { trans_b: Transpose::Yes, ..GemmDesc::packed(Layout::ColMajor, 64, 128, 128) };
        for (desc, beta, passes) in [(odd, 0.0, 2), (odd, 0.5, 2), (whole, 0.0, 1), (whole, 0.5, 1)] {
            for splits in [1, 3] {
                let run = gemm(&Gemm::new(GemmDesc { beta, ..desc }).unwrap(), &TILES[0], splits).run;
                assert_eq!(run.len(), passes + usize::from(splits > 1));
                for pass in run {
                    check_with_glslang(&pass.source.name, &pass.source.text);
                    checked += 1;
                }
            }
        }
        for pass in [measure_fma(1, 1), measure_read(1 << 20)] {
            check_with_glslang(&pass.source.name, &pass.source.text);
            checked += 1;
        }
        assert!(checked > 50, "{checked}");
    }

    /// What a device cannot run is not offered to it, and the same question has the same answer.
    #[test]
    fn candidates_fit_the_device() {
        let small = Gpu { shared_bytes: 16 << 10, max_threads: 128, max_elements: 1 << 16, ..Gpu::ASSUMED };
        let mut offered = 0;
        for problem in problems() {
            let all = candidates(&problem, &small);
            assert_eq!(all, candidates(&problem, &small));
            assert!(!all.is_empty());
            for variant in &all {
                let Some(recipe) = generate(variant, &problem) else { continue };
                let tiled = !matches!(variant.family, Family::Grouped(_) | Family::Pointwise(_));
                assert!(!tiled || variant.tile.fits(&small), "{variant}");
                assert!(
                    recipe.packed <= 1 << 16 && recipe.scratch.iter().all(|&it| it <= 1 << 16),
                    "{variant}"
                );
                offered += 1;
            }
        }
        assert!(offered > 10, "{offered}");
    }
}

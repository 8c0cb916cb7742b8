//! Implicit im2col: whether a convolution's im2col matrix can be read in place from the image, and what that costs.
//!
//! The row of the im2col matrix for channel c and tap (r, s) is the channel itself, shifted: pixel (p, q) sees element
//! `(p*stride + r*dilation - pad, ...)`. With stride 1 and Q = W, number the pixels and the elements through all rows.
//! Then pixel i sees element `i + (r*dilation - pad)*W + s*dilation - pad`: one offset for each tap and the whole map,
//! and nothing is copied. Pixels at the left and right border would see the neighbouring row; those lanes are masked.
//!
//! * **Planes**. With a stride, a tap sees every stride-th row and column: a plane. Planes of width Q are copied once
//!   for all taps (*staged*) and then read in place. The copy is 1/(R S) of what im2col would copy.
//! * **Runs**. If planes are wider than Q, each output row is a run of its own, and its last vector is partly empty.
//!   Otherwise the whole map is one run (*flat*). Wide planes can also be one run *with gaps*: pixels are numbered
//!   through whole rows of the plane, and the results of gaps are dropped when a tile is copied to C. Rows of 55 pixels
//!   57 apart then take 3.6 vectors each, all in full tiles, instead of 4 in two tiles.
//!
//! The model counts cycles of a core that starts two vector multiply-adds a cycle: `depth rows/2` for a vector of
//! pixels; 6 for each vector of C and pass over the depth; for each vector copied, 8 when staging and 6 in im2col,
//! whose vectors are cut at the ends of rows. The cheapest option wins.
//!
//! **Alignment**: a vector that straddles two cache lines costs two loads, and a panel of such vectors takes one cache
//! line more for each of its rows. With one tap, and channels a whole number of vectors apart, all rows are aligned
//! alike. Then a short first panel aligns all others.
//!
//! **Packing**: with at least [`PACKING_FROM`] panels of A the first tile may pack its panel of B for the others
//! ([`super::feeding`]). The panel then takes at most an eighth of L2, which cuts the depth. The cut does not depend on
//! whether panels are packed, so neither do the bits.
//!
//! Otherwise **depth** is not cut if two conditions hold. A panel of B fits in half of L2, which feeds it in time. A fits in this
//! core's share of the last cache, if more than one panel uses it: A streams with only MR elements for each step of a
//! tile, which any cache sustains. Otherwise A's block must fit in half of L2.

mod windows;

use super::Caches;
use super::blocking::{Grain, L1_BYTES, L2_BYTES, WORKSPACE, cut, even, known};
use super::costs::cpu::im2col::{ALONE, DROPPING, PACKING, PANEL, PASSING, SPLIT, STAGING, TILE};
use crate::problem::{Conv2d, Conv2dSizes};
pub use windows::Window;

/// Maximum taps of a convolution that is read this way.
pub const MAX_TAPS: usize = 512;

/// Maximum taps in one direction.
pub const MAX_SIDE: usize = 64;

/// Elements of the workspace for staged planes. The rest is for columns beside whole vectors.
pub const STAGE: usize = WORKSPACE / 4 * 3;

/// Elements of the workspace for a panel of B that tiles pack while they compute.
pub const PANEL_ROOM: usize = WORKSPACE / 16 * 3;

/// Panels of A from which on the first one may pack the panel of B for the others. Fewer do not regain what packing
/// costs the first tile.
pub const PACKING_FROM: usize = 3;

/// Maximum columns beside whole vectors, of any kernel.
pub const MAX_BESIDE: usize = 8;

/// Minimum associativity that is assumed of caches.
const WAYS: usize = 8;

/// A micro-kernel's parameters for the cost model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Rows of a tile.
    pub mr: usize,
    /// Maximum columns of a tile.
    pub nr: usize,
    /// Lanes of a vector.
    pub lanes: usize,
    /// Maximum columns beside whole vectors. Each costs an mr-th of a vector.
    pub beside: usize,
    /// Whether masking lanes costs little.
    pub masks: bool,
}

/// How a run is cut into panels of NR columns. The remainder is a smaller panel or, if that is cheaper, columns beside
/// the vectors of other panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnRun {
    pub panels: usize,
    /// Columns of a short first panel that aligns the others, or 0.
    lead: usize,
    nr: usize,
    /// Columns beside the vectors of each panel, and how many panels have one more.
    each: usize,
    more: usize,
    /// Columns of the last panel, and how many of them are beside its vectors.
    last: (usize, usize),
}

impl ColumnRun {
    pub fn new(columns: &Columns, len: usize) -> Self {
        let Columns { nr, lanes, mr, .. } = *columns;
        let (panels, rest) = (len / nr, len % nr);
        if rest > 0 && rest <= panels * columns.beside && rest < rest.div_ceil(lanes) * mr {
            let each = rest / panels;
            return ColumnRun { panels, lead: 0, nr, each, more: rest % panels, last: (nr + each, each) };
        }
        let cols = if rest == 0 { nr } else { rest };
        let beside = if cols > lanes && cols % lanes <= columns.beside { cols % lanes } else { 0 };
        ColumnRun { panels: len.div_ceil(nr), lead: 0, nr, each: 0, more: 0, last: (cols, beside) }
    }

    /// A run with a first panel of `lead` columns, 0 < lead < len. Only the last panel may have columns beside.
    fn led(columns: &Columns, len: usize, lead: usize) -> Self {
        // With mr = 0 columns are never distributed over the panels, which would move their starts.
        let rest = ColumnRun::new(&Columns { mr: 0, ..*columns }, len - lead);
        ColumnRun { panels: 1 + rest.panels, lead, ..rest }
    }

    /// A panel's first column, its columns, and how many of these are beside its vectors.
    pub fn panel(&self, index: usize) -> (usize, usize, usize) {
        if self.lead > 0 && index == 0 {
            return (0, self.lead, 0);
        }
        let led = usize::from(self.lead > 0);
        let start = self.lead + (index - led) * (self.nr + self.each) + index.min(self.more);
        let beside = self.each + usize::from(index < self.more);
        if index + 1 == self.panels && self.more < self.panels {
            return (start, self.last.0, self.last.1);
        }
        (start, self.nr + beside, beside)
    }

    /// The cost of the run, in vectors of `lanes` columns.
    fn vectors(&self, columns: &Columns) -> f64 {
        let vectors = |cols: usize, beside: usize| {
            let vectors = (cols - beside).div_ceil(columns.lanes);
            let alone = if vectors == 1 && columns.nr > columns.lanes { ALONE } else { vectors as f64 };
            alone + beside as f64 / columns.mr as f64
        };
        let led = usize::from(self.lead > 0);
        let before = (self.panels - 1 - led) as f64 * vectors(self.nr + self.each, self.each);
        vectors(self.lead, 0)
            + before
            + self.more as f64 / columns.mr as f64
            + vectors(self.last.0, self.last.1)
    }
}

/// One direction of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    pub input: usize,
    pub output: usize,
    pub taps: usize,
    pub stride: usize,
    pub dilation: usize,
    /// Elements of padding before the first. Negative in a window that begins inside of the image.
    pub pad: isize,
}

impl Axis {
    /// The rows and the columns of a problem.
    pub fn both(sizes: &Conv2dSizes) -> (Axis, Axis) {
        let Conv2dSizes { h, w, p, q, r, s, .. } = *sizes;
        let (stride, dilation, pad) = (sizes.stride_h, sizes.dilation_h, sizes.pad_h as isize);
        let rows = Axis { input: h, output: p, taps: r, stride, dilation, pad };
        let (stride, dilation, pad) = (sizes.stride_w, sizes.dilation_w, sizes.pad_w as isize);
        (rows, Axis { input: w, output: q, taps: s, stride, dilation, pad })
    }

    /// What output i sees through a tap, as (phase, shift): element i + shift of the plane, which is every stride-th
    /// element from `phase` on.
    pub fn sees(&self, tap: usize) -> (usize, isize) {
        let at = (tap * self.dilation) as isize - self.pad;
        let stride = self.stride as isize;
        (at.rem_euclid(stride) as usize, at.div_euclid(stride))
    }

    /// The length of a plane.
    pub fn len(&self, phase: usize) -> usize {
        self.input.saturating_sub(phase).div_ceil(self.stride)
    }

    /// The phases that taps see, in ascending order.
    pub fn phases(&self) -> Vec<usize> {
        let mut phases: Vec<usize> = (0..self.taps).map(|tap| self.sees(tap).0).collect();
        phases.sort_unstable();
        phases.dedup();
        phases
    }

    /// The smallest and the largest shift.
    pub fn shifts(&self) -> (isize, isize) {
        let shifts = (0..self.taps).map(|tap| self.sees(tap).1);
        shifts.fold((isize::MAX, isize::MIN), |(least, most), shift| (least.min(shift), most.max(shift)))
    }

    /// Whether an output sees padding.
    pub fn padded(&self) -> bool {
        let last = (self.output - 1) * self.stride + (self.taps - 1) * self.dilation;
        self.pad > 0 || last as isize - self.pad >= self.input as isize
    }

    /// The length of the longest plane.
    fn longest(&self) -> usize {
        self.phases().iter().map(|&phase| self.len(phase)).max().unwrap_or(0)
    }
}

/// How images are read: the plan of implicit im2col.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImplicitIm2col {
    /// Whether planes are staged.
    pub staged: bool,
    /// Distance between rows of a plane.
    pub pitch: usize,
    /// Columns of a run, and number of runs: the whole map is one run, or each row is one.
    pub run: usize,
    pub runs: usize,
    /// Distance of output rows in a run, in columns. Larger than Q if the run has gaps.
    pub width: usize,
    /// Channels of a block of depth.
    pub channels: usize,
    /// Panels whose planes are staged at a time.
    pub panels: usize,
}

impl ImplicitIm2col {
    /// The cheapest plan for `problem`. `None` if packing panels of the im2col matrix, `kc` deep, is cheaper.
    pub fn plan(caches: &Caches, columns: Columns, problem: &Conv2d, kc: usize) -> Option<Self> {
        let packed = Model::new(caches, columns, problem).packed(kc);
        let ways = Self::ways(caches, columns, problem).into_iter().filter(|way| way.0 < packed);
        ways.min_by(|a, b| a.0.total_cmp(&b.0)).map(|way| way.1)
    }

    /// All plans for `problem`, with their predicted cycles.
    pub fn ways(caches: &Caches, columns: Columns, problem: &Conv2d) -> Vec<(f64, Self)> {
        if !Self::allows(problem) {
            return vec![];
        }
        let model = Model::new(caches, columns, problem);
        let layouts = [false, true].into_iter();
        layouts.flat_map(|gaps| [model.in_place(gaps), model.staged(gaps)]).flatten().collect()
    }

    /// Whether a table has room for the taps.
    fn allows(problem: &Conv2d) -> bool {
        let sizes = problem.sizes();
        sizes.r * sizes.s <= MAX_TAPS && sizes.r.max(sizes.s) <= MAX_SIDE
    }

    /// The predicted cycles of a core for one image and group of `problem`, by the cheapest of all plans and im2col,
    /// the latter `kc` deep. Includes the fixed costs of panels and tiles, which dominate if there is little depth.
    pub fn cycles(caches: &Caches, columns: Columns, problem: &Conv2d, kc: usize) -> f64 {
        let model = Model::new(caches, columns, problem);
        let ways = Self::ways(caches, columns, problem);
        let cheapest = ways.iter().map(|way| way.0).fold(model.packed(kc), f64::min);
        let panels = (model.rows.output * model.cols.output).div_ceil(columns.nr);
        let vectors = model.channels_out.next_multiple_of(columns.mr) * columns.nr / columns.lanes;
        cheapest + panels as f64 * (PANEL + vectors as f64 * TILE)
    }

    /// The kernel's parameters for this plan. With gaps there are no columns beside vectors: finding out which of
    /// them are pixels would cost too much.
    pub fn columns(&self, columns: Columns, problem: &Conv2d) -> Columns {
        if self.width == problem.sizes().q { columns } else { Columns { beside: 0, ..columns } }
    }

    /// Whether an image of `len` elements is read in place and fits in an eighth of L2, so that it stays there.
    pub fn whole(&self, caches: &Caches, len: usize) -> bool {
        !self.staged && len * size_of::<f32>() <= known(caches.l2, L2_BYTES) / 2
    }

    /// The run with a short first panel of `lead` columns, after which vectors are aligned. `None` if it is not faster.
    pub fn aligned(&self, columns: &Columns, lead: usize) -> Option<ColumnRun> {
        let usual = ColumnRun::new(columns, self.run);
        let led = (0 < lead && lead < self.run).then(|| ColumnRun::led(columns, self.run, lead))?;
        (led.vectors(columns) < usual.vectors(columns) * SPLIT).then_some(led)
    }

    /// Cuts `count` products of `rows` rows and `panels` panels each into tasks for `threads` threads.
    pub fn cut(columns: &Columns, panels: usize, (count, rows): (usize, usize), threads: usize) -> TaskGrid {
        let tiles = rows.div_ceil(columns.mr);
        let (width, group) = cut(count, tiles, panels, &Grain::VIEWED, threads);
        TaskGrid { width, group, blocks: panels.div_ceil(width), groups: tiles.div_ceil(group) }
    }
}

/// The tasks of one product: blocks of panels of B times groups of panels of A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskGrid {
    /// Panels of B of a task.
    pub width: usize,
    /// Panels of A of a task.
    pub group: usize,
    pub blocks: usize,
    pub groups: usize,
}

impl TaskGrid {
    /// Tasks of a group of panels of A, `depth` deep, with all `panels` of B. A group is as large as fits in the
    /// cache beside the image. Each of `threads` threads has several groups.
    pub fn by_rows(columns: &Columns, panels: usize, (rows, depth): (usize, usize), threads: usize) -> Self {
        let tiles = rows.div_ceil(columns.mr);
        let shared = if threads == 1 { tiles } else { tiles.div_ceil(4 * threads) };
        let group = (STAGE / 4 / (columns.mr * depth)).clamp(1, shared);
        TaskGrid { width: panels, group, blocks: 1, groups: tiles.div_ceil(group) }
    }
}

/// The cost model: see the text at the top.
struct Model {
    l1: usize,
    l2: usize,
    last: usize,
    columns: Columns,
    rows: Axis,
    cols: Axis,
    /// Distance of C's rows: Q of the whole map.
    map_width: usize,
    /// Rows of A.
    channels_out: usize,
    channels_in: usize,
}

impl Model {
    fn new(caches: &Caches, columns: Columns, problem: &Conv2d) -> Self {
        let sizes = problem.sizes();
        let (rows, cols) = Axis::both(sizes);
        let (l1, l2) = (known(caches.l1, L1_BYTES), known(caches.l2, L2_BYTES));
        let last = known(caches.l3 / caches.l3_threads.max(1), caches.l2);
        let (channels_out, channels_in) = (sizes.k / sizes.groups, sizes.c / sizes.groups);
        Model {
            l1,
            l2,
            last: last.max(l2),
            columns,
            rows,
            cols,
            map_width: cols.output,
            channels_out,
            channels_in,
        }
    }

    /// Whether there are enough panels of A that the first of them may pack B for the others.
    fn packs(&self) -> bool {
        self.channels_out.div_ceil(self.columns.mr) >= PACKING_FROM
    }

    fn taps(&self) -> usize {
        self.rows.taps * self.cols.taps
    }

    /// Cycles to compute all runs, in `passes` passes over the depth.
    fn computing(&self, vectors: f64, depth: usize, passes: usize) -> f64 {
        let rows = self.channels_out as f64;
        vectors * (depth as f64 * rows / 2.0 + passes as f64 * rows * PASSING)
    }

    /// Cycles with packed panels of the im2col matrix.
    fn packed(&self, kc: usize) -> f64 {
        let depth = self.channels_in * self.taps();
        let pixels = self.rows.output * self.cols.output;
        let pieces = pixels.div_ceil(self.columns.lanes) + if self.is_point() { 0 } else { self.rows.output };
        let packing = depth as f64 * pieces as f64 * PACKING;
        self.computing(
            ColumnRun::new(&self.columns, pixels).vectors(&self.columns),
            depth,
            depth.div_ceil(kc),
        ) + packing
    }

    /// Whether a pixel sees only one element of each channel, its own.
    fn is_point(&self) -> bool {
        self.taps() == 1 && self.rows.stride * self.cols.stride == 1
    }

    /// The plan that reads the image itself.
    fn in_place(&self, gaps: bool) -> Option<(f64, ImplicitIm2col)> {
        let unpadded = !(self.rows.padded() || self.cols.padded());
        if self.rows.stride * self.cols.stride > 1 || !(self.columns.masks || unpadded || self.packs()) {
            return None;
        }
        let pitch = self.cols.input;
        let (run, runs, width) = self.runs(pitch, gaps)?;
        // Channels a power of two apart share few cache sets. A block holds as many channels as fit there.
        let (way, step) = (self.l2 / WAYS, self.rows.input * self.cols.input);
        let places = way / gcd(step, way.max(1));
        let channels = self.channels().min((places * WAYS / 2).max(1));
        let implicit =
            ImplicitIm2col { staged: false, pitch, run, runs, width, channels, panels: usize::MAX };
        let passes = self.channels_in.div_ceil(channels);
        Some((self.computing_with(&implicit, passes), implicit))
    }

    /// Cycles to compute with a plan.
    fn computing_with(&self, implicit: &ImplicitIm2col, passes: usize) -> f64 {
        let ImplicitIm2col { run, runs, width, .. } = *implicit;
        let columns = self.columns(width);
        let vectors = ColumnRun::new(&columns, run).vectors(&columns) * runs as f64;
        let computing = self.computing(vectors, self.channels_in * self.taps(), passes);
        // Tiles with gaps are copied to C in each pass, and from C in each but the first.
        let copies = if width == self.map_width { 0 } else { 2 * passes - 1 };
        computing + vectors * (self.channels_out * copies) as f64 * DROPPING
    }

    fn columns(&self, width: usize) -> Columns {
        if width == self.map_width { self.columns } else { Columns { beside: 0, ..self.columns } }
    }

    /// The plan that reads staged planes.
    fn staged(&self, gaps: bool) -> Option<(f64, ImplicitIm2col)> {
        if !(self.columns.masks || self.packs()) && (self.rows.padded() || self.cols.padded()) {
            return None;
        }
        let pitch = self.cols.longest().max(self.cols.output);
        let (run, runs, width) = self.runs(pitch, gaps)?;
        let planes = self.rows.phases().len() * self.cols.phases().len();
        let (least, most) = self.rows.shifts();
        let halo = (most - least) as usize;
        let per_run = ColumnRun::new(&self.columns(width), run).panels;
        // Rows of planes that some panels read. A panel may begin and end within a row, or in the gap after it.
        let rows_of = |panels: usize| match runs {
            1 => (panels * (self.columns.nr + self.columns.beside)).div_ceil(self.cols.output) + 2,
            _ => panels.div_ceil(per_run) + 1,
        };
        let limit = STAGE.min(self.l2 / 3);
        let room = |panels: usize| {
            limit / planes.saturating_mul((rows_of(panels) + halo).saturating_mul(pitch)).saturating_add(32)
        };
        // At least one output row at a time. Otherwise every panel would copy whole rows.
        let least = (self.cols.output / self.columns.nr).max(1).min(per_run * runs);
        if room(least) == 0 {
            return None;
        }
        // Fewer channels at a time leave room for more rows. Both passes and rows that are copied again cost time.
        let all = per_run * runs;
        let most = even(self.channels_in, self.channels().min(room(least)), 1);
        let way = |passes: usize| {
            let channels = self.channels_in.div_ceil(passes);
            let mut panels = least;
            while panels < all && room(panels + 1) >= channels {
                panels += 1;
            }
            let rows = (self.rows.output + all.div_ceil(panels) * (halo + 1)) * planes;
            let copied = (self.channels_in * rows * pitch.div_ceil(self.columns.lanes)) as f64;
            let implicit = ImplicitIm2col { staged: true, pitch, run, runs, width, channels, panels };
            (self.computing_with(&implicit, passes) + copied * STAGING, implicit)
        };
        let fewest = self.channels_in.div_ceil(most);
        let ways = (fewest..=(fewest + 7).min(self.channels_in)).map(way);
        ways.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Columns of a run, number of runs, and distance of rows in columns, for planes with rows `pitch` apart. `None`
    /// if gaps are wanted and there are none.
    fn runs(&self, pitch: usize, gaps: bool) -> Option<(usize, usize, usize)> {
        let (p, q) = (self.rows.output, self.cols.output);
        match (gaps, pitch == q && q == self.map_width) {
            (false, true) => Some((p * q, 1, q)),
            (false, false) => Some((q, p, self.map_width)),
            (true, _) if pitch > q && p > 1 => Some(((p - 1) * pitch + q, 1, pitch)),
            _ => None,
        }
    }

    /// Channels of a block of depth: see the text at the top.
    fn channels(&self) -> usize {
        let (taps, rows) = (self.taps(), self.channels_out.next_multiple_of(self.columns.mr));
        let b = (self.columns.nr + self.cols.taps + 2 * 16) * self.rows.taps;
        let a = rows * taps;
        let pixels = self.rows.output * self.cols.output;
        let whole = a * self.channels_in <= self.last || pixels <= self.columns.nr + self.columns.beside;
        let by_a = if whole { self.channels_in } else { self.l2 / 2 / a };
        let by_thin = (WORKSPACE - STAGE - PANEL_ROOM) / MAX_BESIDE / taps;
        // A panel that the first tile packs has a room of its own, and takes an eighth of L2 like a product's panels.
        let by_panel = if self.packs() && pixels > self.columns.lanes {
            (PANEL_ROOM.min(self.l2 / 8) / self.columns.nr / taps).max(1)
        } else {
            usize::MAX
        };
        let least = self.l1 / (self.columns.nr + 2 * self.columns.mr) / taps;
        even(self.channels_in, by_a.max(least).min(self.l2 / 2 / b).min(by_thin).min(by_panel).max(1), 1)
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;

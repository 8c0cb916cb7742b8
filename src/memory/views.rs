//! Reading an image where it lies: whether a convolution's im2col matrix can be a view of the image, and what that
//! costs.
//!
//! The row of the im2col matrix for channel c and tap (r, s) is the channel itself, moved: pixel (p, q) sees `(p*stride +
//! r*dilation - pad, ...)`. With stride 1 and Q = W, pixels counted through all rows see elements counted through
//! all rows, `(r*dilation - pad)*W + s*dilation - pad` further: one offset a tap for the whole map, and nothing is
//! copied. Pixels at the left and right border would see the neighbouring row: there the lanes are left out.
//!
//! * **Planes**. With a stride, a tap sees every stride-th row and column: a plane. Planes of width Q, copied once
//!   for all taps (*staged*), make it the same case; the copy is a part 1/(R S) of what im2col would copy.
//! * **Runs**. Where planes are wider than Q, each output row is a run of its own, and its last vector is in part
//!   empty; else the whole map is one run (*flat*). Or it is one run all the same, *with gaps*: pixels are counted through
//!   whole rows of the plane, and what comes of those that are none is dropped when a tile is copied to its place. Rows
//!   of 55 pixels 57 apart take 3.6 vectors each that way, and all of them full tiles, instead of 4 in two tiles.
//!
//! The model counts cycles of a core that starts two multiply-adds of a vector a cycle:
//! `depth rows/2` for a vector of pixels; 6 for each vector of C and pass over the depth; for copying a vector 8 when staging and
//! 6 in im2col, whose vectors are cut at the ends of rows. The cheapest way wins.
//!
//! **Alignment**: a vector that lies in two lines costs two loads, and a panel of such vectors a line more in the cache
//! for each of its rows. With one tap, and channels a whole number of vectors apart, all rows lie alike: a short first
//! panel then aligns all others.
//!
//! **Depth** is not cut as long as a panel of B stays in half of L2, from where it is read in time, and A, if more than
//! one panel meets it, in this core's share of the last cache: A streams past, MR elements for each step of a tile, which any
//! cache keeps up with. Else A's block has to stay in half of L2.

use super::Caches;
use super::blocking::{Grain, L1_BYTES, L2_BYTES, WORKSPACE, cut, even, known};
use super::costs::cpu::im2col::{ALONE, DROPPING, PACKING, PANEL, PASSING, SPLIT, STAGING, TILE};
use crate::problem::{Conv2d, Conv2dSizes};

/// Most taps of a kernel that is read this way.
pub const MOST_TAPS: usize = 256;

/// Most taps in one direction.
pub const MOST_SIDE: usize = 64;

/// Elements of the workspace that planes are staged in; the others are for columns that lie beside vectors.
pub const STAGE: usize = WORKSPACE / 4 * 3;

/// Most columns beside vectors, of any kernel.
pub const MOST_BESIDE: usize = 8;

/// What caches are assumed to have, at least.
const WAYS: usize = 8;

/// What a micro-kernel does with columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Rows of a tile.
    pub mr: usize,
    /// Most columns of a tile.
    pub nr: usize,
    /// Of a vector.
    pub lanes: usize,
    /// Columns beside vectors, each an mr-th of the price.
    pub beside: usize,
    /// Whether lanes can be left out cheaply.
    pub masks: bool,
}

/// How a run is cut into panels: NR columns each, and a smaller one or, if that is cheaper, some columns beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub panels: usize,
    /// Columns of a first panel that is as long as the others need to begin where a vector is aligned.
    lead: usize,
    nr: usize,
    /// Columns that lie beside the vectors of every panel, and how many panels have one more.
    each: usize,
    more: usize,
    /// Columns of the last panel, and those of it that lie beside.
    last: (usize, usize),
}

impl Run {
    pub fn new(columns: &Columns, len: usize) -> Self {
        let Columns { nr, lanes, mr, .. } = *columns;
        let (panels, rest) = (len / nr, len % nr);
        if rest > 0 && rest <= panels * columns.beside && rest < rest.div_ceil(lanes) * mr {
            let each = rest / panels;
            return Run { panels, lead: 0, nr, each, more: rest % panels, last: (nr + each, each) };
        }
        let cols = if rest == 0 { nr } else { rest };
        let beside = if cols > lanes && cols % lanes <= columns.beside { cols % lanes } else { 0 };
        Run { panels: len.div_ceil(nr), lead: 0, nr, each: 0, more: 0, last: (cols, beside) }
    }

    /// The same with a first panel of `lead` columns, 0 < lead < len, and no columns beside any but the last.
    fn led(columns: &Columns, len: usize, lead: usize) -> Self {
        // Whoever computes a column beside for nothing would never share columns out: that would move panels.
        let rest = Run::new(&Columns { mr: 0, ..*columns }, len - lead);
        Run { panels: 1 + rest.panels, lead, ..rest }
    }

    /// First column, columns, and columns of these that lie beside vectors, of a panel.
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

    /// What the run costs, in vectors of `lanes` columns.
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
    pub pad: usize,
}

impl Axis {
    /// Rows and columns of a problem.
    pub fn both(sizes: &Conv2dSizes) -> (Axis, Axis) {
        let Conv2dSizes { h, w, p, q, r, s, .. } = *sizes;
        let (stride, dilation, pad) = (sizes.stride_h, sizes.dilation_h, sizes.pad_h);
        let rows = Axis { input: h, output: p, taps: r, stride, dilation, pad };
        let (stride, dilation, pad) = (sizes.stride_w, sizes.dilation_w, sizes.pad_w);
        (rows, Axis { input: w, output: q, taps: s, stride, dilation, pad })
    }

    /// What output i sees through a tap: element i + shift of the plane of every stride-th element from `phase` on.
    pub fn sees(&self, tap: usize) -> (usize, isize) {
        let at = (tap * self.dilation) as isize - self.pad as isize;
        let stride = self.stride as isize;
        (at.rem_euclid(stride) as usize, at.div_euclid(stride))
    }

    /// Elements of a plane.
    pub fn len(&self, phase: usize) -> usize {
        self.input.saturating_sub(phase).div_ceil(self.stride)
    }

    /// The phases that are seen at all, in ascending order.
    pub fn phases(&self) -> Vec<usize> {
        let mut phases: Vec<usize> = (0..self.taps).map(|tap| self.sees(tap).0).collect();
        phases.sort_unstable();
        phases.dedup();
        phases
    }

    /// The least and the greatest shift.
    pub fn shifts(&self) -> (isize, isize) {
        let shifts = (0..self.taps).map(|tap| self.sees(tap).1);
        shifts.fold((isize::MAX, isize::MIN), |(least, most), shift| (least.min(shift), most.max(shift)))
    }

    /// The longest plane.
    fn longest(&self) -> usize {
        self.phases().iter().map(|&phase| self.len(phase)).max().unwrap_or(0)
    }
}

/// How an image is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Views {
    /// Whether planes are copied.
    pub staged: bool,
    /// Distance between rows of a plane.
    pub pitch: usize,
    /// Columns of a run, and runs: the whole map, or its rows.
    pub run: usize,
    pub runs: usize,
    /// Columns from one output row to the next, as a run counts them: more than there are if it has gaps.
    pub width: usize,
    /// Channels of a block of depth.
    pub channels: usize,
    /// Panels whose planes are staged at a time.
    pub panels: usize,
}

impl Views {
    /// The cheapest way to read the images of `problem`, unless im2col, `kc` deep, is cheaper.
    pub fn plan(caches: &Caches, columns: Columns, problem: &Conv2d, kc: usize) -> Option<Self> {
        let packed = Model::new(caches, columns, problem).packed(kc);
        let ways = Self::ways(caches, columns, problem).into_iter().filter(|way| way.0 < packed);
        ways.min_by(|a, b| a.0.total_cmp(&b.0)).map(|way| way.1)
    }

    /// All ways to read them, and what each costs.
    pub fn ways(caches: &Caches, columns: Columns, problem: &Conv2d) -> Vec<(f64, Self)> {
        let sizes = problem.sizes();
        if sizes.r * sizes.s > MOST_TAPS || sizes.r.max(sizes.s) > MOST_SIDE {
            return vec![];
        }
        let model = Model::new(caches, columns, problem);
        let layouts = [false, true].into_iter();
        layouts.flat_map(|gaps| [model.in_place(gaps), model.staged(gaps)]).flatten().collect()
    }

    /// About how many cycles a core takes for one image and group of `problem`, the cheapest way of all, `kc` deep if it is
    /// im2col; with what panels and tiles cost by themselves, which is much where there is little depth.
    pub fn cycles(caches: &Caches, columns: Columns, problem: &Conv2d, kc: usize) -> f64 {
        let model = Model::new(caches, columns, problem);
        let ways = Self::ways(caches, columns, problem);
        let cheapest = ways.iter().map(|way| way.0).fold(model.packed(kc), f64::min);
        let panels = (model.rows.output * model.cols.output).div_ceil(columns.nr);
        let vectors = model.channels_out.next_multiple_of(columns.mr) * columns.nr / columns.lanes;
        cheapest + panels as f64 * (PANEL + vectors as f64 * TILE)
    }

    /// How panels are cut: with gaps, columns beside vectors are not worth finding out which of them are pixels.
    pub fn columns(&self, columns: Columns, problem: &Conv2d) -> Columns {
        if self.width == problem.sizes().q { columns } else { Columns { beside: 0, ..columns } }
    }

    /// Whether the whole of an image of `len` elements is read where it lies and stays in L2 beside all else: it may take an eighth.
    pub fn whole(&self, caches: &Caches, len: usize) -> bool {
        !self.staged && len * size_of::<f32>() <= known(caches.l2, L2_BYTES) / 2
    }

    /// How the map is cut if vectors are aligned from column `lead` on and always a multiple of vectors further; none
    /// if that is no advantage.
    pub fn aligned(&self, columns: &Columns, lead: usize) -> Option<Run> {
        let usual = Run::new(columns, self.run);
        let led = (0 < lead && lead < self.run).then(|| Run::led(columns, self.run, lead))?;
        (led.vectors(columns) < usual.vectors(columns) * SPLIT).then_some(led)
    }

    /// Cuts `count` products of `rows` rows, each of `panels` panels, into tasks for `threads` threads.
    pub fn cut(columns: &Columns, panels: usize, (count, rows): (usize, usize), threads: usize) -> Cut {
        let tiles = rows.div_ceil(columns.mr);
        let (width, group) = cut(count, tiles, panels, &Grain::VIEWED, threads);
        Cut { width, group, blocks: panels.div_ceil(width), groups: tiles.div_ceil(group) }
    }
}

/// Tasks of one product: blocks of panels of B times groups of panels of A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Panels of B of a task.
    pub width: usize,
    /// Panels of A of a task.
    pub group: usize,
    pub blocks: usize,
    pub groups: usize,
}

impl Cut {
    /// Groups of panels of A, `depth` deep, each with all `panels` of B: as large as may be packed at a time and stay in the
    /// cache beside the image, and several for each of `threads` threads.
    pub fn by_rows(columns: &Columns, panels: usize, (rows, depth): (usize, usize), threads: usize) -> Self {
        let tiles = rows.div_ceil(columns.mr);
        let shared = if threads == 1 { tiles } else { tiles.div_ceil(4 * threads) };
        let group = (STAGE / 4 / (columns.mr * depth)).clamp(1, shared);
        Cut { width: panels, group, blocks: 1, groups: tiles.div_ceil(group) }
    }
}

/// The cost model: see the module's text.
struct Model {
    l1: usize,
    l2: usize,
    last: usize,
    columns: Columns,
    rows: Axis,
    cols: Axis,
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
        Model { l1, l2, last: last.max(l2), columns, rows, cols, channels_out, channels_in }
    }

    fn taps(&self) -> usize {
        self.rows.taps * self.cols.taps
    }

    /// What is computed, in passes over `channels` each, for all runs.
    fn computing(&self, vectors: f64, depth: usize, passes: usize) -> f64 {
        let rows = self.channels_out as f64;
        vectors * (depth as f64 * rows / 2.0 + passes as f64 * rows * PASSING)
    }

    fn packed(&self, kc: usize) -> f64 {
        let depth = self.channels_in * self.taps();
        let pixels = self.rows.output * self.cols.output;
        let pieces = pixels.div_ceil(self.columns.lanes) + if self.is_point() { 0 } else { self.rows.output };
        let packing = depth as f64 * pieces as f64 * PACKING;
        self.computing(Run::new(&self.columns, pixels).vectors(&self.columns), depth, depth.div_ceil(kc))
            + packing
    }

    /// Whether all that a pixel sees is one element.
    fn is_point(&self) -> bool {
        self.taps() == 1 && self.rows.stride * self.cols.stride == 1
    }

    /// Reading the image itself.
    fn in_place(&self, gaps: bool) -> Option<(f64, Views)> {
        let unpadded = self.rows.pad + self.cols.pad == 0;
        if self.rows.stride * self.cols.stride > 1 || !(self.columns.masks || unpadded) {
            return None;
        }
        let pitch = self.cols.input;
        let (run, runs, width) = self.runs(pitch, gaps)?;
        // Channels a power of two apart meet in the same few lines of the cache: as many as find room there.
        let (way, step) = (self.l2 / WAYS, self.rows.input * self.cols.input);
        let places = way / gcd(step, way.max(1));
        let channels = self.channels().min((places * WAYS / 2).max(1));
        let views = Views { staged: false, pitch, run, runs, width, channels, panels: usize::MAX };
        let passes = self.channels_in.div_ceil(channels);
        Some((self.viewing(&views, passes), views))
    }

    /// What all the work on views costs.
    fn viewing(&self, views: &Views, passes: usize) -> f64 {
        let Views { run, runs, width, .. } = *views;
        let columns = self.columns(width);
        let vectors = Run::new(&columns, run).vectors(&columns) * runs as f64;
        let computing = self.computing(vectors, self.channels_in * self.taps(), passes);
        // Sums that are added to are copied there and back.
        let copies = if width == self.cols.output { 0 } else { 2 * passes - 1 };
        computing + vectors * (self.channels_out * copies) as f64 * DROPPING
    }

    fn columns(&self, width: usize) -> Columns {
        if width == self.cols.output { self.columns } else { Columns { beside: 0, ..self.columns } }
    }

    /// Reading copies of planes.
    fn staged(&self, gaps: bool) -> Option<(f64, Views)> {
        if !self.columns.masks && self.rows.pad + self.cols.pad > 0 {
            return None;
        }
        let pitch = self.cols.longest().max(self.cols.output);
        let (run, runs, width) = self.runs(pitch, gaps)?;
        let planes = self.rows.phases().len() * self.cols.phases().len();
        let (least, most) = self.rows.shifts();
        let halo = (most - least) as usize;
        let per_run = Run::new(&self.columns(width), run).panels;
        // Rows of planes that some panels see: a panel may begin and end within a row, or in the gap behind it.
        let rows_of = |panels: usize| match runs {
            1 => (panels * (self.columns.nr + self.columns.beside)).div_ceil(self.cols.output) + 2,
            _ => panels.div_ceil(per_run) + 1,
        };
        let limit = STAGE.min(self.l2 / 3);
        let room = |panels: usize| {
            limit / planes.saturating_mul((rows_of(panels) + halo).saturating_mul(pitch)).saturating_add(32)
        };
        // At least one output row at a time: else every panel would copy whole rows.
        let least = (self.cols.output / self.columns.nr).max(1).min(per_run * runs);
        if room(least) == 0 {
            return None;
        }
        // The fewer channels at a time, the more rows: each pass costs, and so do rows that are copied again.
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
            let views = Views { staged: true, pitch, run, runs, width, channels, panels };
            (self.viewing(&views, passes) + copied * STAGING, views)
        };
        let fewest = self.channels_in.div_ceil(most);
        let ways = (fewest..=(fewest + 7).min(self.channels_in)).map(way);
        ways.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Columns of a run, runs, and columns from row to row, for planes with rows `pitch` apart; none if these leave no
    /// gaps and those are wanted, or nobody could tell them from pixels cheaply.
    fn runs(&self, pitch: usize, gaps: bool) -> Option<(usize, usize, usize)> {
        let (p, q) = (self.rows.output, self.cols.output);
        match (gaps, pitch == q) {
            (false, true) => Some((p * q, 1, q)),
            (false, false) => Some((q, p, q)),
            (true, _) if pitch > q && p > 1 => Some(((p - 1) * pitch + q, 1, pitch)),
            _ => None,
        }
    }

    /// Channels of a block of depth: see the module's text.
    fn channels(&self) -> usize {
        let (taps, rows) = (self.taps(), self.channels_out.next_multiple_of(self.columns.mr));
        let b = (self.columns.nr + self.cols.taps + 2 * 16) * self.rows.taps;
        let a = rows * taps;
        let pixels = self.rows.output * self.cols.output;
        let whole = a * self.channels_in <= self.last || pixels <= self.columns.nr + self.columns.beside;
        let by_a = if whole { self.channels_in } else { self.l2 / 2 / a };
        let by_thin = (WORKSPACE - STAGE) / MOST_BESIDE / taps;
        let least = self.l1 / (self.columns.nr + 2 * self.columns.mr) / taps;
        even(self.channels_in, by_a.max(least).min(self.l2 / 2 / b).min(by_thin).max(1), 1)
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;

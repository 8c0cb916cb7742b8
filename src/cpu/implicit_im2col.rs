//! Implicit im2col: reading B's rows in place from an image, or from copies of its planes.
//! [`crate::memory::implicit_im2col`] explains the method and when it is chosen.
//!
//! A panel of B is a base pointer and a table of taps. A tap's entry says how far its row is from the base, and which
//! lanes of it are pixels of the image and not of its border. The table is made once for each panel and serves all
//! channels and all rows of A.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::block::Ahead;
use super::kernels::{CopyBlock, Kernel, Tap};
use super::tunables::B_AHEAD;
use crate::memory::implicit_im2col::{Axis, ColumnRun, Columns, ImplicitIm2col, MAX_SIDE, MAX_TAPS, Window};
use crate::problem::Conv2d;

/// How a convolution reads its images.
#[derive(Clone)]
pub struct Geometry {
    pub implicit: ImplicitIm2col,
    pub columns: Columns,
    run: ColumnRun,
    rows: Direction,
    cols: Direction,
    /// Q of the whole map, and the window's first pixel in it.
    map_width: usize,
    origin: usize,
}

/// One direction, with everything that can be computed in advance.
#[derive(Clone)]
struct Direction {
    axis: Axis,
    /// The first element of each plane.
    phases: Vec<usize>,
    taps: Vec<TapView>,
}

/// What a tap sees in one direction: the plane, the distance from the output's own position, and the plane's length.
#[derive(Clone, Copy)]
struct TapView {
    plane: usize,
    shift: isize,
    len: usize,
}

impl Direction {
    fn new(axis: Axis) -> Self {
        let phases = axis.phases();
        let seen = |tap| {
            let (phase, shift) = axis.sees(tap);
            let plane = phases.partition_point(|&other| other < phase);
            TapView { plane, shift, len: axis.len(phase) }
        };
        let taps = (0..axis.taps).map(seen).collect();
        Direction { axis, phases, taps }
    }
}

impl TapView {
    /// Of `len` outputs from `at` on, those for which the tap sees an element of the image.
    fn visible(&self, at: usize, len: usize) -> Range<usize> {
        let first = at as isize + self.shift;
        let end = (self.len as isize - first).clamp(0, len as isize);
        (-first).clamp(0, end) as usize..end as usize
    }
}

/// Channels as a panel reads them: the image, or staged planes of it.
#[derive(Clone, Copy)]
pub struct Planes {
    start: *const f32,
    /// Elements from one channel to the next, and from one plane to the next.
    pub channel: usize,
    plane: usize,
    /// The first row in memory.
    first: isize,
}

// SAFETY: Planes only describe positions. Code that reads through them guarantees that the memory is valid.
unsafe impl Sync for Planes {}

/// The table that [`Geometry::fill`] fills.
pub struct TapTable {
    /// The first `count` are written. The others are not, as clearing them would take a good part of a small call.
    taps: [MaybeUninit<Tap>; MAX_TAPS],
    count: usize,
    /// For each row of taps, the lanes whose row exists. For each column of taps, the lanes whose column exists.
    down: [u64; MAX_SIDE],
    across: [u64; MAX_SIDE],
}

impl Planes {
    /// The planes from another channel on.
    pub fn from(&self, channel: usize) -> Self {
        Planes { start: self.start.wrapping_add(channel * self.channel), ..*self }
    }
}

impl TapTable {
    pub fn new() -> Self {
        TapTable {
            taps: [const { MaybeUninit::uninit() }; MAX_TAPS],
            count: 0,
            down: [0; MAX_SIDE],
            across: [0; MAX_SIDE],
        }
    }

    /// The taps that [`Geometry::fill`] has filled in.
    pub fn taps(&self) -> &[Tap] {
        // SAFETY: the first `count` are written, and a MaybeUninit has the layout of its value.
        unsafe { std::slice::from_raw_parts(self.taps.as_ptr().cast(), self.count) }
    }

    /// The only tap, if there is one only.
    fn single(&mut self) -> Option<&mut Tap> {
        // SAFETY: the first `count` are written.
        (self.count == 1).then(|| unsafe { self.taps[0].assume_init_mut() })
    }
}

/// One panel of B: its first pixel and its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strip {
    p: usize,
    q: usize,
    pub cols: usize,
    /// Columns of these that are computed beside whole vectors.
    pub beside: usize,
}

/// A kernel's parameters for the cost model.
pub fn columns<K: Kernel>(_: K) -> Columns {
    Columns { mr: K::MR, nr: K::NR, lanes: K::LANES, beside: K::BESIDE, masks: K::MASKS }
}

impl Geometry {
    pub fn new(implicit: ImplicitIm2col, columns: Columns, problem: &Conv2d) -> Self {
        let (rows, cols) = Axis::both(problem.sizes());
        let columns = implicit.columns(columns, problem);
        let run = ColumnRun::new(&columns, implicit.run);
        let map_width = cols.output;
        let (rows, cols) = (Direction::new(rows), Direction::new(cols));
        Geometry { implicit, columns, run, rows, cols, map_width, origin: 0 }
    }

    /// For one window of the map.
    pub fn of_window(window: &Window, columns: Columns, problem: &Conv2d) -> Self {
        let whole = Self::new(window.implicit, columns, problem);
        Geometry {
            rows: Direction::new(whole.rows.axis.within(&window.rows)),
            cols: Direction::new(whole.cols.axis.within(&window.cols)),
            origin: window.rows.outputs.start * whole.map_width + window.cols.outputs.start,
            ..whole
        }
    }

    pub fn taps(&self) -> usize {
        self.rows.taps.len() * self.cols.taps.len()
    }

    /// The same with panels that begin at aligned vectors of `images`, if that is possible and predicted faster.
    pub fn aligned(&self, images: &[f32]) -> Option<Self> {
        let lanes = self.columns.lanes;
        let channel = self.rows.axis.input * self.cols.axis.input;
        let alike = !self.implicit.staged
            && self.implicit.runs == 1
            && self.taps() == 1
            && self.origin == 0
            && channel.is_multiple_of(lanes);
        let beyond = images.as_ptr().addr() / size_of::<f32>() % lanes;
        let run = self.implicit.aligned(&self.columns, (lanes - beyond) % lanes).filter(|_| alike)?;
        Some(Geometry { run, ..self.clone() })
    }

    /// Panels of the whole map.
    pub fn panels(&self) -> usize {
        self.implicit.runs * self.run.panels
    }

    /// Panel `index` of the map.
    pub fn strip(&self, index: usize) -> Strip {
        if self.implicit.runs > 1 {
            let (p, index) = (index / self.run.panels, index % self.run.panels);
            let (q, cols, beside) = self.run.panel(index);
            return Strip { p, q, cols, beside };
        }
        let (pixel, cols, beside) = self.run.panel(index);
        Strip { p: pixel / self.implicit.width, q: pixel % self.implicit.width, cols, beside }
    }

    /// The position in C of the first pixel of a strip without gaps.
    pub fn position(&self, strip: &Strip) -> usize {
        self.origin + self.pixel(strip)
    }

    /// The first pixel of a strip, counted in the window.
    pub fn pixel(&self, strip: &Strip) -> usize {
        strip.p * self.implicit.width + strip.q
    }

    /// Whether there are gaps between rows, whose columns are not pixels.
    pub fn gaps(&self) -> bool {
        self.implicit.width != self.map_width
    }

    /// The pixels of a strip with gaps: their positions in C, and their columns in the strip.
    pub fn pixels(&self, strip: &Strip) -> impl Iterator<Item = (usize, Range<usize>)> {
        let width = self.cols.axis.output;
        self.segments(strip, strip.cols).filter(move |&(_, q, _)| q < width).map(move |(p, q, columns)| {
            (p * width + q, columns.start..columns.end.min(columns.start + width - q))
        })
    }

    /// The image itself from channel `first` on.
    pub fn in_place(&self, image: &[f32], first: usize) -> Planes {
        let channel = self.rows.axis.input * self.cols.axis.input;
        Planes { start: image[first * channel..].as_ptr(), channel, plane: 0, first: 0 }
    }

    /// Copies the planes of some channels that `panels` read.
    pub fn stage<K: Kernel>(
        &self,
        kernel: K,
        image: &[f32],
        channels: Range<usize>,
        panels: Range<usize>,
        stage: &mut [f32],
    ) -> Planes {
        let (planes, height) = self.layout(panels, stage);
        let (count, channel) = (self.rows.phases.len() * self.cols.phases.len(), planes.channel);
        assert!(channels.len() * channel <= stage.len(), "{} channels of {channel}", channels.len());
        let size = self.rows.axis.input * self.cols.axis.input;
        // Channel by channel, as all planes of a channel share cache lines.
        for (channel, to) in channels.zip(stage.chunks_exact_mut(channel)) {
            let image = &image[channel * size..][..size];
            for (index, to) in (0..count).zip(to.chunks_exact_mut(planes.plane)) {
                self.plane(kernel, image, index, planes.first..planes.first + height, to);
            }
        }
        planes
    }

    /// The layout in `stage` of the planes that `panels` read, and their number of rows.
    fn layout(&self, panels: Range<usize>, stage: &[f32]) -> (Planes, isize) {
        let (least, most) = self.rows.axis.shifts();
        let last = self.strip(panels.end - 1);
        // In a gap a tap sees the next row.
        let last_row = (self.pixel(&last) + last.cols - 1) / self.implicit.width + usize::from(self.gaps());
        let first = self.strip(panels.start).p as isize + least;
        let height = last_row as isize + most - first + 1;
        let plane = height as usize * self.implicit.pitch;
        let planes = self.rows.phases.len() * self.cols.phases.len();
        // An odd number of cache lines, so that channels are in different sets of the cache.
        let channel = ((planes * plane).div_ceil(16) | 1) * 16;
        (Planes { start: stage.as_ptr(), channel, plane, first }, height)
    }

    /// The planes of all panels and channels, as [`Geometry::stage`] writes them to `stage`.
    pub fn staged(&self, stage: &[f32]) -> Planes {
        self.layout(0..self.panels(), stage).0
    }

    /// The memory that [`Geometry::stage`] will copy for these channels and panels and has not yet copied for earlier
    /// panels.
    pub fn ahead_of_stage(&self, image: &[f32], channels: Range<usize>, panels: Range<usize>) -> Ahead {
        let (least, most) = self.rows.axis.shifts();
        let first = self.strip(panels.start).p as isize + if panels.start == 0 { least } else { most };
        let last = self.strip(panels.end - 1);
        let last_row = (self.pixel(&last) + last.cols - 1) / self.implicit.width;
        let row =
            |plane_row: isize| (plane_row.max(0) as usize * self.rows.axis.stride).min(self.rows.axis.input);
        let (top, end) = (row(first), row(last_row as isize + most + 1));
        let size = self.rows.axis.input * self.cols.axis.input;
        Ahead {
            start: image.as_ptr().wrapping_add(channels.start * size + top * self.cols.axis.input),
            row: size,
            rows: channels.len(),
            len: (end.max(top) - top) * self.cols.axis.input,
        }
    }

    /// Bytes of the cache lines that a strip of some columns reads in place.
    pub fn view_bytes(&self, channels: usize, columns: usize) -> usize {
        const LINE: usize = 16;
        let (least, most) = self.cols.axis.shifts();
        // Two rows of the map may be in a strip, but they share what their taps see.
        let lines = (columns + (most - least) as usize) / LINE + 2;
        channels * self.rows.taps.len() * self.cols.phases.len() * lines * LINE * size_of::<f32>()
    }

    /// The memory of an image that a strip reads and the strip before it does not, nearly: for each channel, what the
    /// last row of taps sees.
    pub fn ahead_of_strip(&self, planes: &Planes, strip: &Strip, channels: usize) -> Ahead {
        let Some(row) = self.rows.taps.last() else { return Ahead::NOTHING };
        let (first, last) = (self.cols.taps.first(), self.cols.taps.last());
        let shift = |tap: Option<&TapView>| tap.map_or(0, |tap| tap.shift);
        let offset = row.shift * self.implicit.pitch as isize + shift(first);
        Ahead {
            start: self.start(planes, strip).wrapping_offset(offset),
            row: planes.channel,
            rows: channels,
            len: strip.cols + (shift(last) - shift(first)) as usize,
        }
    }

    /// Whether elements between pixels are read. Without padding they are, as reading costs less than masking.
    fn reads_between(&self) -> bool {
        !(self.rows.axis.padded() || self.cols.axis.padded())
    }

    /// Copies some rows of one plane of a channel. Elements between rows, and rows that do not exist, become zero if
    /// they are read. Otherwise they keep their old contents.
    fn plane<K: Kernel>(&self, kernel: K, image: &[f32], index: usize, rows: Range<isize>, to: &mut [f32]) {
        let (across, pitch) = (self.cols.phases.len(), self.implicit.pitch);
        let (y, x) = (self.rows.phases[index / across], self.cols.phases[index % across]);
        let (height, len) = (self.rows.axis.len(y) as isize, self.cols.axis.len(x));
        let (top, end) = (rows.start.clamp(0, height), rows.end.clamp(0, height));
        if self.reads_between() && (len < pitch || rows != (top..end)) {
            for (row, line) in rows.clone().zip(to.chunks_exact_mut(pitch)) {
                line[if (top..end).contains(&row) { len } else { 0 }..].fill(0.0);
            }
        }
        if top >= end || len == 0 {
            return;
        }
        let (count, stride) = ((end - top) as usize, self.cols.axis.stride);
        let from_row = self.rows.axis.stride * self.cols.axis.input;
        let from = &image[y * self.cols.axis.input + top as usize * from_row + x..];
        let to = &mut to[(top - rows.start) as usize * pitch..];
        assert!(from.len() > (count - 1) * from_row + (len - 1) * stride);
        assert!(to.len() >= (count - 1) * pitch + len);
        let part = CopyBlock {
            from: from.as_ptr(),
            from_row,
            stride,
            to: to.as_mut_ptr(),
            to_row: pitch,
            rows: count,
            len,
            groups: 1,
            from_group: 0,
            to_group: 0,
        };
        // SAFETY: the last element of the last row is inside of both slices, as asserted.
        unsafe { kernel.copy(&part) };
    }

    /// The address of the strip's first pixel for a tap with offset zero.
    pub fn start(&self, planes: &Planes, strip: &Strip) -> *const f32 {
        let row = strip.p as isize - planes.first;
        planes.start.wrapping_offset(row * self.implicit.pitch as isize + strip.q as isize)
    }

    /// Fills the table of taps for the vectors of a strip. Returns whether all lanes are set.
    pub fn fill(&self, planes: &Planes, strip: &Strip, table: &mut TapTable) -> bool {
        let cols = strip.cols - strip.beside;
        let all = if cols < 64 { (1u64 << cols) - 1 } else { u64::MAX };
        let (down, across) =
            (&mut table.down[..self.rows.taps.len()], &mut table.across[..self.cols.taps.len()]);
        down.fill(0);
        across.fill(0);
        let unpadded = self.reads_between();
        let width = self.cols.axis.output;
        for (p, q, lanes) in self.segments(strip, cols) {
            let bits = |range: Range<usize>| (all >> (cols - range.len())) << range.start;
            for (down, tap) in down.iter_mut().zip(&self.rows.taps) {
                *down |= if tap.visible(p, 1).is_empty() { 0 } else { bits(lanes.clone()) };
            }
            for (across, tap) in across.iter_mut().zip(&self.cols.taps) {
                let pixels = if unpadded { lanes.len() } else { lanes.len().min(width.saturating_sub(q)) };
                let inside = if unpadded { 0..pixels } else { tap.visible(q, pixels) };
                if !inside.is_empty() {
                    *across |= bits(lanes.start + inside.start..lanes.start + inside.end);
                }
            }
        }
        let mut whole = true;
        let mut taps = table.taps.iter_mut();
        table.count = 0;
        for (row, down) in self.rows.taps.iter().zip(down) {
            for (s, (col, across)) in self.cols.taps.iter().zip(across.iter()).enumerate() {
                let Some(tap) = taps.next() else { continue };
                let (offset, lanes) = (self.offset(planes, row, col), *down & *across);
                whole &= lanes == all;
                // The cache lines of a row are prefetched two channels ahead, one line for each tap.
                let line = s / self.cols.phases.len() % 4 * 16;
                tap.write(Tap { offset, lanes, ahead: offset + (2 * planes.channel + line) as isize });
                table.count += 1;
            }
        }
        whole
    }

    /// Packs the last `count` columns of a strip, one depth after the other.
    ///
    /// # Safety
    /// The planes are readable for `channels` channels.
    pub unsafe fn pack(
        &self,
        planes: &Planes,
        strip: &Strip,
        (channels, count): (usize, usize),
        to: &mut [f32],
    ) {
        let pixel = self.pixel(strip) + strip.cols - count;
        for x in 0..count {
            let (p, q) = ((pixel + x) / self.implicit.width, (pixel + x) % self.implicit.width);
            let start = self.start(planes, &Strip { p, q, cols: 1, beside: 0 });
            let pairs =
                self.rows.taps.iter().flat_map(|row| self.cols.taps.iter().map(move |col| (row, col)));
            for (tap, (row, col)) in pairs.enumerate() {
                let inside = !row.visible(p, 1).is_empty() && !col.visible(q, 1).is_empty();
                let from = start.wrapping_offset(self.offset(planes, row, col));
                for channel in 0..channels {
                    // SAFETY: the element is inside of the image, and the caller guarantees the channel.
                    let value = if inside { unsafe { *from.add(channel * planes.channel) } } else { 0.0 };
                    to[(channel * self.taps() + tap) * count + x] = value;
                }
            }
        }
    }

    /// With a single tap, no other tap reads its row again. Then makes tile `index` of a strip prefetch one cache
    /// line of each row of the next strip.
    pub fn look_ahead(&self, [strip, next]: [&Strip; 2], index: usize, table: &mut TapTable) {
        if let Some(tap) = table.single() {
            let place = |strip: &Strip| (strip.p * self.implicit.pitch + strip.q) as isize;
            let line = (index % 4 * 16) as isize;
            tap.ahead = tap.offset + place(next) - place(strip) + line;
        }
    }

    /// With a single tap, makes the tile that packs a strip prefetch rows of the strip that it will read soon.
    pub fn look_below(&self, planes: &Planes, table: &mut TapTable) {
        if let Some(tap) = table.single() {
            tap.ahead = tap.offset + (B_AHEAD * planes.channel) as isize;
        }
    }

    fn offset(&self, planes: &Planes, row: &TapView, col: &TapView) -> isize {
        let plane = row.plane * self.cols.phases.len() + col.plane;
        (plane * planes.plane) as isize + row.shift * self.implicit.pitch as isize + col.shift
    }

    /// The first `cols` columns of a strip, cut at the ends of output rows or of their gaps.
    fn segments(
        &self,
        strip: &Strip,
        cols: usize,
    ) -> impl Iterator<Item = (usize, usize, Range<usize>)> + use<> {
        let (width, mut p, mut q, mut at) = (self.implicit.width, strip.p, strip.q, 0);
        std::iter::from_fn(move || {
            let len = (width - q).min(cols - at);
            let segment = (p, q, at..at + len);
            (p, q, at) = (p + 1, 0, at + len);
            (len > 0).then_some(segment)
        })
    }
}

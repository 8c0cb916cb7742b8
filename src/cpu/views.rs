//! Reading an image where it lies, or from copies of its planes: see [`crate::memory::views`] for what that means
//! and when it is done.
//!
//! A panel of B is a base and a table of taps: how far a tap's row is from the base, and which lanes of it are
//! pixels of the image and not of its border. The table is made once a panel, for all channels and all rows of A.

use std::ops::Range;

use super::block::Ahead;
use super::kernels::{Kernel, Part, Tap};
use crate::memory::views::{Axis, Columns, MOST_SIDE, MOST_TAPS, Run, Views};
use crate::problem::Conv2d;

/// How a convolution reads its images.
#[derive(Clone)]
pub struct Geometry {
    pub views: Views,
    pub columns: Columns,
    run: Run,
    rows: Direction,
    cols: Direction,
}

/// One direction, with all that can be known of it beforehand.
#[derive(Clone)]
struct Direction {
    axis: Axis,
    /// First elements of the planes.
    phases: Vec<usize>,
    taps: Vec<Seen>,
}

/// What a tap sees in one direction: of which plane, how far from the output's own place, and how long that plane is.
#[derive(Clone, Copy)]
struct Seen {
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
            Seen { plane, shift, len: axis.len(phase) }
        };
        let taps = (0..axis.taps).map(seen).collect();
        Direction { axis, phases, taps }
    }
}

impl Seen {
    /// The outputs, of `len` from `at` on, for which the tap sees an element that exists.
    fn stretch(&self, at: usize, len: usize) -> Range<usize> {
        let first = at as isize + self.shift;
        let end = (self.len as isize - first).clamp(0, len as isize);
        (-first).clamp(0, end) as usize..end as usize
    }
}

/// Channels as a panel reads them: an image, or what was staged of it.
#[derive(Clone, Copy)]
pub struct Planes {
    start: *const f32,
    /// Elements from one channel to the next, and from one plane to the next.
    pub channel: usize,
    plane: usize,
    /// The row that stands first.
    first: isize,
}

// SAFETY: Planes only say where something lies; those who read it answer for its being there.
unsafe impl Sync for Planes {}

/// What [`Geometry::fill`] fills.
pub struct Table {
    pub taps: [Tap; MOST_TAPS],
    /// Lanes whose row exists, for each row of taps, and lanes whose column does.
    down: [u64; MOST_SIDE],
    across: [u64; MOST_SIDE],
}

impl Planes {
    /// The same from another channel on.
    pub fn from(&self, channel: usize) -> Self {
        Planes { start: self.start.wrapping_add(channel * self.channel), ..*self }
    }
}

impl Table {
    pub fn new() -> Self {
        Table { taps: [Tap::default(); MOST_TAPS], down: [0; MOST_SIDE], across: [0; MOST_SIDE] }
    }
}

/// One panel of B: where it begins, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strip {
    p: usize,
    q: usize,
    pub cols: usize,
    /// Of these, columns that lie beside vectors.
    pub beside: usize,
}

/// What columns of a kernel cost.
pub fn columns<K: Kernel>(_: K) -> Columns {
    Columns { mr: K::MR, nr: K::NR, lanes: K::LANES, beside: K::BESIDE, masks: K::MASKS }
}

impl Geometry {
    pub fn new(views: Views, columns: Columns, problem: &Conv2d) -> Self {
        let (rows, cols) = Axis::both(problem.sizes());
        let columns = views.columns(columns, problem);
        let run = Run::new(&columns, views.run);
        Geometry { views, columns, run, rows: Direction::new(rows), cols: Direction::new(cols) }
    }

    pub fn taps(&self) -> usize {
        self.rows.taps.len() * self.cols.taps.len()
    }

    /// The same with panels that begin where vectors of `images` are aligned, if that is to be had and worth it.
    pub fn aligned(&self, images: &[f32]) -> Option<Self> {
        let lanes = self.columns.lanes;
        let channel = self.rows.axis.input * self.cols.axis.input;
        let alike =
            !self.views.staged && self.views.runs == 1 && self.taps() == 1 && channel.is_multiple_of(lanes);
        let beyond = images.as_ptr().addr() / size_of::<f32>() % lanes;
        let run = self.views.aligned(&self.columns, (lanes - beyond) % lanes).filter(|_| alike)?;
        Some(Geometry { run, ..self.clone() })
    }

    /// Panels of the whole map.
    pub fn panels(&self) -> usize {
        self.views.runs * self.run.panels
    }

    /// Panel `index` of the map.
    pub fn strip(&self, index: usize) -> Strip {
        if self.views.runs > 1 {
            let (p, index) = (index / self.run.panels, index % self.run.panels);
            let (q, cols, beside) = self.run.panel(index);
            return Strip { p, q, cols, beside };
        }
        let (pixel, cols, beside) = self.run.panel(index);
        Strip { p: pixel / self.views.width, q: pixel % self.views.width, cols, beside }
    }

    /// Where in its run a strip begins; in C, if there are no gaps.
    pub fn pixel(&self, strip: &Strip) -> usize {
        strip.p * self.views.width + strip.q
    }

    /// Whether rows have gaps between them, whose columns are no pixels.
    pub fn gaps(&self) -> bool {
        self.views.width != self.cols.axis.output
    }

    /// The pixels of a strip with gaps: where they lie in C, and which columns of the strip they are.
    pub fn pixels(&self, strip: &Strip) -> impl Iterator<Item = (usize, Range<usize>)> {
        let width = self.cols.axis.output;
        self.segments(strip, strip.cols).filter(move |&(_, q, _)| q < width).map(move |(p, q, columns)| {
            (p * width + q, columns.start..columns.end.min(columns.start + width - q))
        })
    }

    /// The image itself, `from` channel `first` on.
    pub fn in_place(&self, image: &[f32], first: usize) -> Planes {
        let channel = self.rows.axis.input * self.cols.axis.input;
        Planes { start: image[first * channel..].as_ptr(), channel, plane: 0, first: 0 }
    }

    /// Copies the planes that `panels` see of some channels.
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
        // Channel by channel: all planes of a channel are in the same lines.
        for (channel, to) in channels.zip(stage.chunks_exact_mut(channel)) {
            let image = &image[channel * size..][..size];
            for (index, to) in (0..count).zip(to.chunks_exact_mut(planes.plane)) {
                self.plane(kernel, image, index, planes.first..planes.first + height, to);
            }
        }
        planes
    }

    /// How the planes that `panels` see lie in `stage`, and their rows.
    fn layout(&self, panels: Range<usize>, stage: &[f32]) -> (Planes, isize) {
        let (least, most) = self.rows.axis.shifts();
        let last = self.strip(panels.end - 1);
        // In a gap a tap sees the row behind the one that it sees else.
        let last_row = (self.pixel(&last) + last.cols - 1) / self.views.width + usize::from(self.gaps());
        let first = self.strip(panels.start).p as isize + least;
        let height = last_row as isize + most - first + 1;
        let plane = height as usize * self.views.pitch;
        let planes = self.rows.phases.len() * self.cols.phases.len();
        // An odd number of lines: channels lie in different sets of the cache.
        let channel = ((planes * plane).div_ceil(16) | 1) * 16;
        (Planes { start: stage.as_ptr(), channel, plane, first }, height)
    }

    /// The planes of all panels and channels, as [`Geometry::stage`] puts them into `stage`.
    pub fn staged(&self, stage: &[f32]) -> Planes {
        self.layout(0..self.panels(), stage).0
    }

    /// What [`Geometry::stage`] will copy of these channels and panels, and did not for the panels before.
    pub fn ahead_of_stage(&self, image: &[f32], channels: Range<usize>, panels: Range<usize>) -> Ahead {
        let (least, most) = self.rows.axis.shifts();
        let first = self.strip(panels.start).p as isize + if panels.start == 0 { least } else { most };
        let last = self.strip(panels.end - 1);
        let last_row = (self.pixel(&last) + last.cols - 1) / self.views.width;
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

    /// Without padding whatever lies between pixels is read, which costs less than to leave it out.
    fn reads_between(&self) -> bool {
        self.rows.axis.pad + self.cols.axis.pad == 0
    }

    /// Copies some rows of one plane of a channel. What lies between them and rows that do not exist become zero if they
    /// are read, and else keep what was there.
    fn plane<K: Kernel>(&self, kernel: K, image: &[f32], index: usize, rows: Range<isize>, to: &mut [f32]) {
        let (across, pitch) = (self.cols.phases.len(), self.views.pitch);
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
        let part = Part {
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
        // SAFETY: the last element of the last row lies inside on both sides, as asserted.
        unsafe { kernel.copy(&part) };
    }

    /// Where the strip's first pixel would lie if a tap saw it itself.
    pub fn start(&self, planes: &Planes, strip: &Strip) -> *const f32 {
        let row = strip.p as isize - planes.first;
        planes.start.wrapping_offset(row * self.views.pitch as isize + strip.q as isize)
    }

    /// Fills the table of taps for the vectors of a strip; tells whether no lane is left out.
    pub fn fill(&self, planes: &Planes, strip: &Strip, table: &mut Table) -> bool {
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
                *down |= if tap.stretch(p, 1).is_empty() { 0 } else { bits(lanes.clone()) };
            }
            for (across, tap) in across.iter_mut().zip(&self.cols.taps) {
                let pixels = if unpadded { lanes.len() } else { lanes.len().min(width.saturating_sub(q)) };
                let inside = if unpadded { 0..pixels } else { tap.stretch(q, pixels) };
                if !inside.is_empty() {
                    *across |= bits(lanes.start + inside.start..lanes.start + inside.end);
                }
            }
        }
        let mut whole = true;
        let mut taps = table.taps.iter_mut();
        for (row, down) in self.rows.taps.iter().zip(down) {
            for (s, (col, across)) in self.cols.taps.iter().zip(across.iter()).enumerate() {
                let Some(tap) = taps.next() else { continue };
                let (offset, lanes) = (self.offset(planes, row, col), *down & *across);
                whole &= lanes == all;
                // The lines of a row are fetched two channels before they are needed, one a tap.
                let line = s / self.cols.phases.len() % 4 * 16;
                *tap = Tap { offset, lanes, ahead: offset + (2 * planes.channel + line) as isize };
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
            let (p, q) = ((pixel + x) / self.views.width, (pixel + x) % self.views.width);
            let start = self.start(planes, &Strip { p, q, cols: 1, beside: 0 });
            let pairs =
                self.rows.taps.iter().flat_map(|row| self.cols.taps.iter().map(move |col| (row, col)));
            for (tap, (row, col)) in pairs.enumerate() {
                let inside = !row.stretch(p, 1).is_empty() && !col.stretch(q, 1).is_empty();
                let from = start.wrapping_offset(self.offset(planes, row, col));
                for channel in 0..channels {
                    // SAFETY: the element is inside of the image, and the caller vouches for the channel.
                    let value = if inside { unsafe { *from.add(channel * planes.channel) } } else { 0.0 };
                    to[(channel * self.taps() + tap) * count + x] = value;
                }
            }
        }
    }

    /// Where there is but one tap, whose row no other tap reads again: has tile `index` of a strip fetch one line of each
    /// row of the next strip.
    pub fn look_ahead(&self, [strip, next]: [&Strip; 2], index: usize, table: &mut Table) {
        if self.taps() == 1 {
            let place = |strip: &Strip| (strip.p * self.views.pitch + strip.q) as isize;
            let line = (index % 4 * 16) as isize;
            table.taps[0].ahead = table.taps[0].offset + place(next) - place(strip) + line;
        }
    }

    fn offset(&self, planes: &Planes, row: &Seen, col: &Seen) -> isize {
        let plane = row.plane * self.cols.phases.len() + col.plane;
        (plane * planes.plane) as isize + row.shift * self.views.pitch as isize + col.shift
    }

    /// The first `cols` columns of a strip, cut where output rows end, or their gaps.
    fn segments(
        &self,
        strip: &Strip,
        cols: usize,
    ) -> impl Iterator<Item = (usize, usize, Range<usize>)> + use<> {
        let (width, mut p, mut q, mut at) = (self.views.width, strip.p, strip.q, 0);
        std::iter::from_fn(move || {
            let len = (width - q).min(cols - at);
            let segment = (p, q, at..at + len);
            (p, q, at) = (p + 1, 0, at + len);
            (len > 0).then_some(segment)
        })
    }
}

//! Matrix products over ranks: SUMMA (van de Geijn and Watts, SUMMA: scalable universal matrix multiplication algorithm,
//! 1997), with panels that go round rings.
//!
//! The ranks form a grid. Rank (i, j) holds block (i, j) of A, B and C. For each panel of the depth, in order, the ranks that
//! hold it send their part of A along the rows of the grid and their part of B along the columns. A rank passes a panel
//! on while it multiplies it. So a rank receives exactly those parts of its rows of A and its columns of B that it does not hold.
//!
//! C is computed in tiles. Tiles and panels depend on the problem alone, blocks consist of whole ones, and a tile is the same
//! product on every grid. So the bits do not depend on the number of ranks, on devices whose products have the same bits
//! each time.

use std::fmt::Display;

use super::cut::{self, Span};
use super::resident::{ResidentBlock, Sizes};
use super::transport::{Exchange, Message, Started, Transport};
use super::{Group, merged};
use crate::allocate;
use crate::device::Run;
use crate::error::{Error, Result};
use crate::problem::{Gemm, GemmDesc, Layout, Transpose, min_length};

/// The tags of panels.
const A_PANEL: u32 = 4;
const B_PANEL: u32 = 5;

/// The depth of a panel: short enough that the last rank of a ring soon has work, deep enough for a kernel.
fn panel(k: usize) -> usize {
    k.div_ceil(64).next_multiple_of(64).max(256)
}

/// The side of a tile of C: many tiles, so that blocks are of like size, but no tiny ones.
fn tile(len: usize) -> usize {
    len.div_ceil(24).next_multiple_of(16).clamp(16, 512)
}

/// The blocks of the three matrices that one rank holds. Each block is a matrix of its own in the layout of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupGemmPart {
    /// Rows and columns of A.
    pub a: [Span; 2],
    /// Rows and columns of B.
    pub b: [Span; 2],
    /// Rows and columns of C.
    pub c: [Span; 2],
}

/// A matrix product over the ranks of a group. Cheap to clone.
#[derive(Clone)]
pub struct GroupGemm {
    group: Group,
    desc: GemmDesc,
    /// The product with rows that are contiguous: C, or its transpose.
    rows: Shape,
    /// Rows and columns of the grid of ranks.
    grid: [usize; 2],
}

/// The sizes of a product.
#[derive(Debug, Clone, Copy)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
}

/// A rank's blocks of A, B and C.
type Matrices<'a> = (&'a [f32], &'a [f32], &'a mut [f32]);

/// One matrix of a rank: its leading dimension and its elements.
type Block<'a> = (usize, &'a [f32]);

impl Group {
    /// Distributes the product that `desc` describes: m, n and k are those of the whole product, which is the same on all
    /// ranks. The operands are not transposed. The leading dimensions are those of this rank's blocks; 0 means that a block
    /// has no gaps.
    ///
    /// Collective, like [`GroupGemm::run`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a wrong size, for a transposed operand, or if the ranks have different products;
    /// [`Error::OtherRank`]; [`Error::Transport`].
    pub fn gemm(&self, desc: GemmDesc) -> Result<GroupGemm> {
        self.gemm_settled::<Error>(Ok(desc))
    }

    /// As [`Group::gemm`], for a description that may be wrong already.
    ///
    /// # Errors
    /// As [`Group::gemm`].
    pub(crate) fn gemm_settled<E: From<Error> + Display>(
        &self,
        desc: std::result::Result<GemmDesc, E>,
    ) -> std::result::Result<GroupGemm, E> {
        let local = desc.and_then(|desc| Ok(GroupGemm::new(self, desc)?));
        let none = GemmDesc::packed(Layout::RowMajor, 0, 0, 0);
        let desc = local.as_ref().map_or(none, |gemm| gemm.desc);
        let layout = i64::from(desc.layout == Layout::ColMajor);
        let [alpha, beta] = [desc.alpha, desc.beta].map(|factor| i64::from(factor.to_bits()));
        let facts = [("m", desc.m), ("n", desc.n), ("k", desc.k), ("layout", layout)];
        self.settle(local, &[&facts[..], &[("alpha", alpha), ("beta", beta)]].concat())
    }
}

impl GroupGemm {
    /// Checks `desc` on this rank.
    ///
    /// # Errors
    /// As [`Group::gemm`], for this rank.
    pub(crate) fn new(group: &Group, desc: GemmDesc) -> Result<Self> {
        for (name, transpose) in [("trans_a", desc.trans_a), ("trans_b", desc.trans_b)] {
            if transpose == Transpose::Yes {
                return Err(Error::invalid(name, "transposed", "not transposed, for a product over ranks"));
            }
        }
        let packed = GemmDesc { alpha: desc.alpha, ..GemmDesc::packed(desc.layout, desc.m, desc.n, desc.k) };
        let sizes = *Gemm::new(packed)?.sizes();
        let rows = match desc.layout {
            Layout::RowMajor => Shape { m: sizes.m, n: sizes.n, k: sizes.k },
            // The transpose of a column-major C is row-major, and the product of the transposes in the other order.
            Layout::ColMajor => Shape { m: sizes.n, n: sizes.m, k: sizes.k },
        };
        let gemm = GroupGemm { group: group.clone(), desc, rows, grid: grid(&rows, group.ranks()) };
        let part = gemm.part();
        let lines = |[rows, cols]: [Span; 2]| match desc.layout {
            Layout::RowMajor => cols.count,
            Layout::ColMajor => rows.count,
        };
        for (name, ld, block) in
            [("lda", desc.lda, part.a), ("ldb", desc.ldb, part.b), ("ldc", desc.ldc, part.c)]
        {
            if ld != 0 && (ld < lines(block) as i64 || ld > i64::from(i32::MAX)) {
                let expected = format!("0 or {} to {}", lines(block), i32::MAX);
                return Err(Error::invalid(name, ld, expected));
            }
        }
        Ok(gemm)
    }

    /// Rows and columns of the grid of ranks.
    pub fn grid(&self) -> [usize; 2] {
        match self.desc.layout {
            Layout::RowMajor => self.grid,
            Layout::ColMajor => [self.grid[1], self.grid[0]],
        }
    }

    /// What this rank holds.
    pub fn part(&self) -> GroupGemmPart {
        self.part_of(self.group.rank())
    }

    /// What `rank` holds, which is one of the ranks.
    pub fn part_of(&self, rank: usize) -> GroupGemmPart {
        let (blocks, [i, j]) = (self.blocks(), self.place(rank));
        let (m, n, [k_of_a, k_of_b]) =
            (blocks.m.part(i), blocks.n.part(j), [blocks.k_of_a.part(j), blocks.k_of_b.part(i)]);
        let (a, b, c) = ([m, k_of_a], [k_of_b, n], [m, n]);
        let swapped = |[rows, cols]: [Span; 2]| [cols, rows];
        match self.desc.layout {
            Layout::RowMajor => GroupGemmPart { a, b, c },
            Layout::ColMajor => GroupGemmPart { a: swapped(b), b: swapped(a), c: swapped(c) },
        }
    }

    /// The minimum lengths of this rank's blocks of A, B and C in elements.
    pub fn lens(&self) -> [usize; 3] {
        let part = self.part();
        [(part.a, self.desc.lda), (part.b, self.desc.ldb), (part.c, self.desc.ldc)]
            .map(|(block, ld)| block_len(self.lines(block), self.leading(ld, block)))
    }

    /// Computes C = alpha A B + beta C; this rank passes its blocks. Collective.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a block that is too short, and [`Error::OtherRank`] on the other ranks. If the
    /// device fails, this rank gets its error, after all panels have been passed on; its block of C is then undefined. On a
    /// GPU, C and the panels of A and B are there for the whole product, if there is memory.
    /// [`Error::OutOfMemory`] for the panels, before any is sent. [`Error::Transport`].
    pub fn run(&self, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<Run> {
        self.run_settled::<Error>(Ok((a, b, c)))
    }

    /// As [`GroupGemm::run`], for blocks that may be wrong already.
    ///
    /// # Errors
    /// As [`GroupGemm::run`].
    pub(crate) fn run_settled<E: From<Error> + Display>(
        &self,
        blocks: std::result::Result<Matrices, E>,
    ) -> std::result::Result<Run, E> {
        let mut transport = self.group.transport()?;
        let part = self.part();
        let [lda, ldb, ldc] = [(self.desc.lda, part.a), (self.desc.ldb, part.b), (self.desc.ldc, part.c)]
            .map(|(ld, block)| self.leading(ld, block));
        let local = blocks.and_then(|(a, b, c)| {
            let [a_len, b_len, c_len] = self.lens();
            min_length("a length", a.len(), a_len)?;
            min_length("b length", b.len(), b_len)?;
            min_length("c length", c.len(), c_len)?;
            // A panel of each operand.
            transport.prepare(2, 2)?;
            Ok(((a, b, c), self.memory(ldc)?))
        });
        let ((a, b, c), memory) = self.group.settle_on(&mut **transport, local, &[])?;
        let (a, b) = match self.desc.layout {
            Layout::RowMajor => ((lda, a), (ldb, b)),
            Layout::ColMajor => ((ldb, b), (lda, a)),
        };
        Ok(self.multiply(&mut **transport, a, b, (ldc, c), memory)?)
    }

    /// Contiguous lines of a block, and their length.
    fn lines(&self, [rows, cols]: [Span; 2]) -> (usize, usize) {
        match self.desc.layout {
            Layout::RowMajor => (rows.count, cols.count),
            Layout::ColMajor => (cols.count, rows.count),
        }
    }

    fn leading(&self, ld: i64, block: [Span; 2]) -> usize {
        if ld == 0 { self.lines(block).1 } else { ld as usize }
    }

    /// The place of a rank in the grid.
    fn place(&self, rank: usize) -> [usize; 2] {
        [rank / self.grid[1], rank % self.grid[1]]
    }

    fn blocks(&self) -> Blocks {
        let Shape { m, n, k } = self.rows;
        let cut = |len: usize, unit: usize, parts: usize| Cut { len, unit, parts };
        Blocks {
            m: cut(m, tile(m), self.grid[0]),
            n: cut(n, tile(n), self.grid[1]),
            k_of_a: cut(k, panel(k), self.grid[1]),
            k_of_b: cut(k, panel(k), self.grid[0]),
        }
    }

    /// The panels of the depth; none if the operands are not read.
    fn depths(&self) -> impl ExactSizeIterator<Item = Span> + use<> {
        let (k, deep) = (self.rows.k, panel(self.rows.k));
        let count = if self.desc.alpha == 0.0 { 0 } else { k.div_ceil(deep) };
        (0..count).map(move |index| Span::between(index * deep, ((index + 1) * deep).min(k)))
    }

    /// The memory of a run, where this rank's C has lines of `ldc` elements.
    ///
    /// # Errors
    /// Out of memory; the device's failure.
    fn memory(&self, ldc: usize) -> Result<Memory> {
        let (blocks, [i, j]) = (self.blocks(), self.place(self.group.rank()));
        let (rows, cols) = (blocks.m.part(i).count, blocks.n.part(j).count);
        let mut memory = Memory::default();
        for depth in self.depths() {
            let [sends_a, sends_b] = self.sends(depth);
            let [holds_a, holds_b] = [blocks.k_of_a.holder(depth) == j, blocks.k_of_b.holder(depth) == i];
            let a = (&mut memory.a, rows * depth.count, holds_a, sends_a);
            let b = (&mut memory.b, cols * depth.count, holds_b, sends_b);
            for (panels, len, holds, sends) in [a, b] {
                let wanted = [(&mut panels.now, true), (&mut panels.next, !holds), (&mut panels.sent, sends)];
                for (panel, _) in wanted.into_iter().filter(|(_, is_wanted)| *is_wanted) {
                    panel.fit(len)?;
                }
            }
        }
        if let Some(deepest) = self.depths().next() {
            let tile = [tile(self.rows.m), tile(self.rows.n)];
            let sizes = Sizes { rows, cols, tile, depth: deepest.count };
            memory.resident = ResidentBlock::new(self.group.device(), sizes, ldc != cols)?;
        }
        Ok(memory)
    }

    /// Whether this rank passes the panels of `depth` on, of A and of B: all but the last ranks of the rings do.
    fn sends(&self, depth: Span) -> [bool; 2] {
        let (blocks, [i, j], [lines, columns]) = (self.blocks(), self.place(self.group.rank()), self.grid);
        [(j + 1) % columns != blocks.k_of_a.holder(depth), (i + 1) % lines != blocks.k_of_b.holder(depth)]
    }

    /// Multiplies the panels in order. Once the ranks wait for each other, nothing on this one lacks memory but its
    /// device, whose failure stops no panel.
    fn multiply(
        &self,
        transport: &mut dyn Transport,
        a: Block,
        b: Block,
        (ldc, c): (usize, &mut [f32]),
        mut memory: Memory,
    ) -> Result<Run> {
        let (blocks, [i, j], Shape { m, n, .. }) = (self.blocks(), self.place(self.group.rank()), self.rows);
        let (rows, cols) = (blocks.m.part(i), blocks.n.part(j));
        let mut resident = memory.resident.take();
        let (mut runs, mut failed) = (None, Ok(()));
        if let Some(resident) = resident.as_mut().filter(|_| self.desc.beta != 0.0) {
            failed = resident.send((ldc, &*c));
        }
        let mut tiles = |depth: usize, panels: (&[f32], &[f32]), c: &mut [f32], beta: f32| -> Result<()> {
            let run = match &mut resident {
                Some(resident) => {
                    resident.add(self.group.device(), depth, panels, [self.desc.alpha, beta])?
                }
                None => self.tiles((rows, cols), (tile(m), tile(n), depth), panels, (ldc, c), beta)?,
            };
            runs = merged(runs.take().into_iter().chain(run));
            Ok(())
        };
        let mut depths = self.depths();
        let Some(mut depth) = depths.next() else {
            tiles(0, (&[], &[]), c, self.desc.beta)?;
            return Ok(runs.unwrap_or_else(|| self.group.idle()));
        };
        let mut under_way = transport.start(self.receive(depth, &mut memory)?)?;
        let mut forwarding: Option<Started> = None;
        let mut beta = self.desc.beta;
        loop {
            let received = transport.finish(under_way)?;
            memory.take(received.receives, |panels| &mut panels.now);
            if blocks.k_of_a.holder(depth) == j {
                pack_a(
                    a,
                    rows.count,
                    depth,
                    blocks.k_of_a.part(j),
                    memory.a.now.fit(rows.count * depth.count)?,
                );
            }
            if blocks.k_of_b.holder(depth) == i {
                let held = blocks.k_of_b.part(i);
                pack_b(b, (cols.count, tile(n)), depth, held, memory.b.now.fit(cols.count * depth.count)?);
            }
            // Pass this panel on and receive the next one, while this one is multiplied.
            if let Some(started) = forwarding.take() {
                let sent = transport.finish(started)?;
                memory.take(sent.sends, |panels| &mut panels.sent);
            }
            let sends = self.forward(depth, &mut memory)?;
            if !sends.is_empty() {
                forwarding = Some(transport.start(Exchange { sends, receives: vec![] })?);
            }
            let next = depths.next();
            let started = match next {
                Some(next) => Some(transport.start(self.receive(next, &mut memory)?)?),
                None => None,
            };
            if failed.is_ok() {
                failed = tiles(depth.count, (&memory.a.now.0, &memory.b.now.0), c, beta);
            }
            beta = 1.0;
            (depth, under_way) = match next.zip(started) {
                Some(next) => next,
                None => break,
            };
        }
        if let Some(started) = forwarding.take() {
            transport.finish(started)?;
        }
        failed?;
        if let Some(resident) = &mut resident {
            resident.receive((ldc, c))?;
        }
        Ok(runs.unwrap_or_else(|| self.group.idle()))
    }

    /// The messages with the panels of `depth` that this rank gets from its neighbours.
    fn receive(&self, depth: Span, memory: &mut Memory) -> Result<Exchange> {
        let (blocks, [i, j], [lines, columns]) = (self.blocks(), self.place(self.group.rank()), self.grid);
        let mut receives = vec![];
        let mut message = |rank: usize, tag: u32, len: usize, next: &mut Panel| -> Result<()> {
            if len > 0 {
                next.fit(len)?;
                receives.push(Message { rank, tag, data: std::mem::take(&mut next.0) });
            }
            Ok(())
        };
        if blocks.k_of_a.holder(depth) != j {
            let len = blocks.m.part(i).count * depth.count;
            message(i * columns + before(j, columns), A_PANEL, len, &mut memory.a.next)?;
        }
        if blocks.k_of_b.holder(depth) != i {
            let len = blocks.n.part(j).count * depth.count;
            message(before(i, lines) * columns + j, B_PANEL, len, &mut memory.b.next)?;
        }
        Ok(Exchange { sends: vec![], receives })
    }

    /// The messages with the panels of `depth` that this rank passes on.
    fn forward(&self, depth: Span, memory: &mut Memory) -> Result<Vec<Message>> {
        let ([i, j], [lines, columns]) = (self.place(self.group.rank()), self.grid);
        let ranks = [i * columns + (j + 1) % columns, (i + 1) % lines * columns + j];
        let mut sends = vec![];
        let panels = [(A_PANEL, &mut memory.a), (B_PANEL, &mut memory.b)];
        for (((tag, panels), rank), is_sent) in panels.into_iter().zip(ranks).zip(self.sends(depth)) {
            let Panels { now, sent, .. } = panels;
            if is_sent && !now.0.is_empty() {
                sent.fit(now.0.len())?.copy_from_slice(&now.0);
                sends.push(Message { rank, tag, data: std::mem::take(&mut sent.0) });
            }
        }
        Ok(sends)
    }

    /// Adds the product of two panels to C, tile by tile.
    fn tiles(
        &self,
        (rows, cols): (Span, Span),
        (high, wide, depth): (usize, usize, usize),
        (a, b): (&[f32], &[f32]),
        (ldc, c): (usize, &mut [f32]),
        beta: f32,
    ) -> Result<Option<Run>> {
        let mut runs = None;
        for row in (0..rows.count).step_by(high) {
            let height = high.min(rows.count - row);
            for col in (0..cols.count).step_by(wide) {
                let width = wide.min(cols.count - col);
                let packed = GemmDesc::packed(Layout::RowMajor, height as i64, width as i64, depth as i64);
                let desc = GemmDesc { alpha: self.desc.alpha, beta, ldc: ldc.max(1) as i64, ..packed };
                let a = a.get(row * depth..).unwrap_or_default();
                let b = b.get(col * depth..).unwrap_or_default();
                let run = self.group.device().sgemm(&Gemm::new(desc)?, a, b, &mut c[row * ldc + col..])?;
                runs = merged(runs.take().into_iter().chain([run]));
            }
        }
        Ok(runs)
    }
}

/// The parts of the grid's rows and columns.
struct Blocks {
    m: Cut,
    n: Cut,
    /// The depth of A over the columns of the grid.
    k_of_a: Cut,
    /// The depth of B over the rows of the grid.
    k_of_b: Cut,
}

/// A dimension in parts of whole units.
struct Cut {
    len: usize,
    unit: usize,
    parts: usize,
}

impl Cut {
    fn part(&self, index: usize) -> Span {
        let units = cut::equal(self.len.div_ceil(self.unit), self.parts, index);
        let [first, end] = [units.first, units.end()].map(|unit| (unit * self.unit).min(self.len));
        Span::between(first, end)
    }

    /// Which part contains `depth`, a whole unit.
    fn holder(&self, depth: Span) -> usize {
        let contains = |part: Span| part.first <= depth.first && depth.first < part.end();
        (0..self.parts).find(|&index| contains(self.part(index))).unwrap_or(0)
    }
}

/// Memory for a panel of A or B.
#[derive(Default)]
struct Panel(Vec<f32>);

impl Panel {
    /// Gives it this length. Panels do not become longer during a run, so only the first time allocates memory.
    ///
    /// # Errors
    /// Out of memory.
    fn fit(&mut self, len: usize) -> Result<&mut [f32]> {
        let missing = len.saturating_sub(self.0.len());
        allocate::reserve(&mut self.0, missing, "a panel")?;
        self.0.resize(len, 0.0);
        Ok(&mut self.0)
    }
}

/// The panels of one operand.
#[derive(Default)]
struct Panels {
    /// The one that is multiplied.
    now: Panel,
    /// The one that is received meanwhile.
    next: Panel,
    /// A copy of the one that is multiplied, which is sent meanwhile.
    sent: Panel,
}

/// The memory of a run. A message takes its panel along and brings it back.
#[derive(Default)]
struct Memory {
    a: Panels,
    b: Panels,
    /// On a GPU, C stays there.
    resident: Option<ResidentBlock>,
}

impl Memory {
    /// Takes the panels of finished messages back, each to its `place`. The place of a received panel gives its own memory
    /// to the next one.
    fn take(&mut self, messages: Vec<Message>, place: impl Fn(&mut Panels) -> &mut Panel) {
        for Message { tag, data, .. } in messages {
            let panels = if tag == A_PANEL { &mut self.a } else { &mut self.b };
            let earlier = std::mem::replace(place(panels), Panel(data));
            if panels.next.0.capacity() == 0 {
                panels.next = earlier;
            }
        }
    }
}

/// The grid on which the ranks receive least.
fn grid(shape: &Shape, ranks: usize) -> [usize; 2] {
    let received = |&[lines, columns]: &[usize; 2]| {
        let (lines, columns) = (lines as f64, columns as f64);
        let (m, n) = (shape.m as f64, shape.n as f64);
        m / lines * (1.0 - 1.0 / columns) + n / columns * (1.0 - 1.0 / lines)
    };
    let grids = (1..=ranks).filter(|lines| ranks.is_multiple_of(*lines)).map(|lines| [lines, ranks / lines]);
    grids.min_by(|one, other| received(one).total_cmp(&received(other))).unwrap_or([1, ranks])
}

fn before(index: usize, len: usize) -> usize {
    (index + len - 1) % len
}

fn block_len((lines, line): (usize, usize), ld: usize) -> usize {
    if lines == 0 || line == 0 { 0 } else { (lines - 1) * ld + line }
}

/// Writes the columns of `depth` to `panel`, without gaps.
fn pack_a((ld, a): Block, rows: usize, depth: Span, held: Span, panel: &mut [f32]) {
    for (row, line) in panel.chunks_exact_mut(depth.count).enumerate().take(rows) {
        line.copy_from_slice(&a[row * ld + depth.first - held.first..][..depth.count]);
    }
}

/// Writes the rows of `depth` to `panel`, one tile of columns after the other.
fn pack_b((ld, b): Block, (cols, wide): (usize, usize), depth: Span, held: Span, panel: &mut [f32]) {
    let mut rest = panel;
    for col in (0..cols).step_by(wide) {
        for row in depth.first - held.first..depth.end() - held.first {
            let (line, after) = rest.split_at_mut(wide.min(cols - col));
            line.copy_from_slice(&b[row * ld + col..][..line.len()]);
            rest = after;
        }
    }
}

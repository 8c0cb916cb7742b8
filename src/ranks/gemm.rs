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
use super::transport::{Exchange, Message};
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
        let (a, b, c) =
            ([blocks.m[i], blocks.k_of_a[j]], [blocks.k_of_b[i], blocks.n[j]], [blocks.m[i], blocks.n[j]]);
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
    /// device fails, this rank gets its error, after all panels have been passed on; its block of C is then undefined.
    /// [`Error::Transport`].
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
        let local = blocks.and_then(|(a, b, c)| {
            let [a_len, b_len, c_len] = self.lens();
            min_length("a length", a.len(), a_len)?;
            min_length("b length", b.len(), b_len)?;
            min_length("c length", c.len(), c_len)?;
            Ok((a, b, c))
        });
        let (a, b, c) = self.group.settle(local, &[])?;
        let part = self.part();
        let [lda, ldb, ldc] = [(self.desc.lda, part.a), (self.desc.ldb, part.b), (self.desc.ldc, part.c)]
            .map(|(ld, block)| self.leading(ld, block));
        let (a, b) = match self.desc.layout {
            Layout::RowMajor => ((lda, a), (ldb, b)),
            Layout::ColMajor => ((ldb, b), (lda, a)),
        };
        Ok(self.multiply(a, b, (ldc, c))?)
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
        let whole = |len: usize, unit: usize, parts: usize| -> Vec<Span> {
            let units = cut::cut(len.div_ceil(unit), &vec![1.0; parts]);
            let span =
                |units: Span| Span::between((units.first * unit).min(len), (units.end() * unit).min(len));
            units.into_iter().map(span).collect()
        };
        Blocks {
            m: whole(m, tile(m), self.grid[0]),
            n: whole(n, tile(n), self.grid[1]),
            k_of_a: whole(k, panel(k), self.grid[1]),
            k_of_b: whole(k, panel(k), self.grid[0]),
        }
    }

    /// Multiplies the panels in order.
    fn multiply(&self, a: Block, b: Block, (ldc, c): (usize, &mut [f32])) -> Result<Run> {
        let (blocks, [i, j], Shape { m, n, k }) = (self.blocks(), self.place(self.group.rank()), self.rows);
        let (rows, cols) = (blocks.m[i], blocks.n[j]);
        let mut runs = None;
        let mut failed = Ok(());
        let mut tiles = |depth: usize, panels: (&[f32], &[f32]), c: &mut [f32], beta: f32| -> Result<()> {
            let run = self.tiles((rows, cols), (tile(m), tile(n), depth), panels, (ldc, c), beta)?;
            runs = merged(runs.take().into_iter().chain(run));
            Ok(())
        };
        if k == 0 || self.desc.alpha == 0.0 {
            tiles(0, (&[], &[]), c, self.desc.beta)?;
            return Ok(runs.unwrap_or_else(|| self.group.idle()));
        }
        let depths: Vec<Span> = (0..k.div_ceil(panel(k)))
            .map(|index| Span::between(index * panel(k), ((index + 1) * panel(k)).min(k)))
            .collect();
        let mut transport = self.group.transport()?;
        let mut under_way = Some(transport.start(self.receive(&blocks, depths[0])?)?);
        let mut forwarding = None;
        for (index, &depth) in depths.iter().enumerate() {
            let received = match under_way.take() {
                Some(started) => transport.finish(started)?,
                None => Exchange::default(),
            };
            let [mut left, mut above] = [None, None];
            for message in received.receives {
                match message.tag {
                    A_PANEL => left = Some(message.data),
                    _ => above = Some(message.data),
                }
            }
            let a_panel = match left {
                Some(panel) => panel,
                None => pack_a(a, rows.count, depth, blocks.k_of_a[j])?,
            };
            let b_panel = match above {
                Some(panel) => panel,
                None => pack_b(b, (cols.count, tile(n)), depth, blocks.k_of_b[i])?,
            };
            // Pass this panel on and receive the next one, while this one is multiplied.
            if let Some(started) = forwarding.take() {
                transport.finish(started)?;
            }
            let sends = self.forward(&blocks, depth, (&a_panel, &b_panel))?;
            if !sends.is_empty() {
                forwarding = Some(transport.start(Exchange { sends, receives: vec![] })?);
            }
            if let Some(&next) = depths.get(index + 1) {
                under_way = Some(transport.start(self.receive(&blocks, next)?)?);
            }
            if failed.is_ok() {
                let beta = if index == 0 { self.desc.beta } else { 1.0 };
                failed = tiles(depth.count, (&a_panel, &b_panel), c, beta);
            }
        }
        if let Some(started) = forwarding.take() {
            transport.finish(started)?;
        }
        failed?;
        Ok(runs.unwrap_or_else(|| self.group.idle()))
    }

    /// The panels of `depth` that this rank gets from its neighbours.
    fn receive(&self, blocks: &Blocks, depth: Span) -> Result<Exchange> {
        let [i, j] = self.place(self.group.rank());
        let [_, columns] = self.grid;
        let mut receives = vec![];
        let mut message = |rank: usize, tag: u32, len: usize| -> Result<()> {
            if len > 0 {
                receives.push(Message { rank, tag, data: allocate::zeroed(len, "a panel")? });
            }
            Ok(())
        };
        if holder(&blocks.k_of_a, depth) != j {
            message(i * columns + before(j, columns), A_PANEL, blocks.m[i].count * depth.count)?;
        }
        if holder(&blocks.k_of_b, depth) != i {
            message(before(i, self.grid[0]) * columns + j, B_PANEL, blocks.n[j].count * depth.count)?;
        }
        Ok(Exchange { sends: vec![], receives })
    }

    /// The panels of `depth` that this rank passes on: all but the last ranks of the rings do.
    fn forward(&self, blocks: &Blocks, depth: Span, (a, b): (&[f32], &[f32])) -> Result<Vec<Message>> {
        let [i, j] = self.place(self.group.rank());
        let [lines, columns] = self.grid;
        let mut sends = vec![];
        let mut message = |rank: usize, tag: u32, panel: &[f32]| -> Result<()> {
            if !panel.is_empty() {
                sends.push(Message { rank, tag, data: allocate::copied(panel, "a panel")? });
            }
            Ok(())
        };
        if (j + 1) % columns != holder(&blocks.k_of_a, depth) {
            message(i * columns + (j + 1) % columns, A_PANEL, a)?;
        }
        if (i + 1) % lines != holder(&blocks.k_of_b, depth) {
            message((i + 1) % lines * columns + j, B_PANEL, b)?;
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
    m: Vec<Span>,
    n: Vec<Span>,
    /// The depth of A over the columns of the grid.
    k_of_a: Vec<Span>,
    /// The depth of B over the rows of the grid.
    k_of_b: Vec<Span>,
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

/// Which part contains `depth`, a whole panel.
fn holder(parts: &[Span], depth: Span) -> usize {
    parts.iter().position(|part| part.first <= depth.first && depth.first < part.end()).unwrap_or(0)
}

fn block_len((lines, line): (usize, usize), ld: usize) -> usize {
    if lines == 0 || line == 0 { 0 } else { (lines - 1) * ld + line }
}

/// The columns of `depth`, without gaps.
fn pack_a((ld, a): Block, rows: usize, depth: Span, held: Span) -> Result<Vec<f32>> {
    let mut panel = allocate::with_capacity(rows * depth.count, "a panel of A")?;
    for row in 0..rows {
        panel.extend_from_slice(&a[row * ld + depth.first - held.first..][..depth.count]);
    }
    Ok(panel)
}

/// The rows of `depth`, one tile of columns after the other.
fn pack_b((ld, b): Block, (cols, wide): (usize, usize), depth: Span, held: Span) -> Result<Vec<f32>> {
    let mut panel = allocate::with_capacity(cols * depth.count, "a panel of B")?;
    for col in (0..cols).step_by(wide) {
        for row in depth.first - held.first..depth.end() - held.first {
            panel.extend_from_slice(&b[row * ld + col..][..wide.min(cols - col)]);
        }
    }
    Ok(panel)
}

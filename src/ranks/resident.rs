//! The block of C of a product on a GPU: it stays there for the whole product, and each panel is sent there once.

use super::merged;
use crate::allocate;
use crate::device::{Buffer, Device, Run};
use crate::error::{Error, Result};
use crate::kernel::tree::Type;
use crate::problem::{Gemm, GemmDesc, Layout};

/// The sides of a block of C, of its tiles, and the depth of panels.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub rows: usize,
    pub cols: usize,
    /// Rows and columns of a tile.
    pub tile: [usize; 2],
    /// The most columns of a panel of A, and rows of one of B.
    pub depth: usize,
}

/// Memory of a GPU for a block of C, without gaps, and for a panel of A and of B.
pub struct ResidentBlock {
    sizes: Sizes,
    a: Buffer,
    b: Buffer,
    c: Buffer,
    /// Where C has no gaps on the host, if it has some there.
    packed: Vec<f32>,
}

impl ResidentBlock {
    /// Memory on `device`. `None` if that is no single GPU, or has not enough memory: products then go tile by tile.
    /// `has_gaps` says whether the lines of C lie apart on the host.
    ///
    /// # Errors
    /// The device's failure; a lack of memory on the host.
    pub fn new(device: &Device, sizes: Sizes, has_gaps: bool) -> Result<Option<Self>> {
        let Sizes { rows, cols, depth, .. } = sizes;
        if !device.is_gl() || rows * cols * depth == 0 {
            return Ok(None);
        }
        let packed = allocate::zeroed(if has_gaps { rows * cols } else { 0 }, "a block of C without gaps")?;
        let buffers = || -> Result<[Buffer; 3]> {
            let [a, b, c] = [rows * depth, cols * depth, rows * cols];
            let buffer = |len| device.buffer(len, Type::Real32);
            Ok([buffer(a)?, buffer(b)?, buffer(c)?])
        };
        match buffers() {
            Ok([a, b, c]) => Ok(Some(ResidentBlock { sizes, a, b, c, packed })),
            Err(Error::OutOfMemory { .. } | Error::Unsupported { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends C, in lines of `ld` elements, to the device.
    ///
    /// # Errors
    /// The device's failure.
    pub fn send(&mut self, (ld, c): (usize, &[f32])) -> Result<()> {
        let Sizes { rows, cols, .. } = self.sizes;
        if self.packed.is_empty() {
            return self.c.write(0, &c[..rows * cols]);
        }
        for (line, packed) in self.packed.chunks_exact_mut(cols).enumerate() {
            packed.copy_from_slice(&c[line * ld..][..cols]);
        }
        self.c.write(0, &self.packed)
    }

    /// Adds the product of two panels of this depth: C = alpha A B + beta C. B has one tile of columns after the other.
    ///
    /// # Errors
    /// The device's failure.
    pub fn add(
        &mut self,
        device: &Device,
        depth: usize,
        (a, b): (&[f32], &[f32]),
        [alpha, beta]: [f32; 2],
    ) -> Result<Option<Run>> {
        let Sizes { rows, cols, tile: [high, wide], .. } = self.sizes;
        self.a.write(0, a)?;
        self.b.write(0, b)?;
        let mut runs = None;
        for row in (0..rows).step_by(high) {
            let height = high.min(rows - row);
            for col in (0..cols).step_by(wide) {
                let width = wide.min(cols - col);
                let packed = GemmDesc::packed(Layout::RowMajor, height as i64, width as i64, depth as i64);
                let problem = Gemm::new(GemmDesc { alpha, beta, ldc: cols as i64, ..packed })?;
                let [a_len, b_len, c_len] = problem.lens();
                let (a, b) = (self.a.view(row * depth, a_len)?, self.b.view(col * depth, b_len)?);
                let run = device.sgemm_on(&problem, a, b, self.c.view_mut(row * cols + col, c_len)?)?;
                runs = merged(runs.take().into_iter().chain([run]));
            }
        }
        Ok(runs)
    }

    /// Receives C, in lines of `ld` elements. If this fails, `c` is untouched or undefined.
    ///
    /// # Errors
    /// The device's failure.
    pub fn receive(&mut self, (ld, c): (usize, &mut [f32])) -> Result<()> {
        let Sizes { rows, cols, .. } = self.sizes;
        if self.packed.is_empty() {
            return self.c.read(0, &mut c[..rows * cols]);
        }
        self.c.read(0, &mut self.packed)?;
        for (line, packed) in self.packed.chunks_exact(cols).enumerate() {
            c[line * ld..][..cols].copy_from_slice(packed);
        }
        Ok(())
    }
}

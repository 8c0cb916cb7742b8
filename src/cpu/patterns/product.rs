//! Cells of matrix products: the five loops with a switched kernel. Both operands are packed in each run.

use std::time::{Duration, Instant};

use super::Computes;
use super::families::Family;
use super::kernels::{Tiled, Untiled};
use crate::cpu::buffer::Buffer;
use crate::cpu::gemm::blocked::{self, Blocks};
use crate::cpu::gemm::product::{Product, cut};
use crate::cpu::kernels::{Kernel, ensure_kernel};
use crate::cpu::pool::Team;
use crate::error::Result;
use crate::memory::blocking::{Blocking, WORKSPACE};
use crate::memory::patterns::{Cell, Half};
use crate::problem::Gemm;

/// A cell of a product of `a`, and of the B that each run gets.
pub(super) fn prepare<F: Family>(family: F, problem: &Gemm, cell: Cell, a: &[f32]) -> Box<dyn Computes> {
    let (on, cut, a, problem) = (super::switches(cell), cell.tiles(Half::Caches), a.to_vec(), *problem);
    if cell.tiles(Half::Registers) {
        Box::new(Multiplies { kernel: Tiled { family, on }, cut, problem, a })
    } else {
        Box::new(Multiplies { kernel: Untiled { family, on }, cut, problem, a })
    }
}

struct Multiplies<K> {
    kernel: K,
    /// Whether loops are cut for the caches.
    cut: bool,
    problem: Gemm,
    a: Vec<f32>,
}

impl<K: Kernel> Computes for Multiplies<K> {
    fn run(&self, b: &[f32], c: &mut [f32]) -> Result<Duration> {
        const { ensure_kernel::<K>() };
        self.problem.check_data(&self.a, b, c)?;
        let product = Product::new(self.problem.sizes(), &self.a, b);
        let (mc, kc) = if self.cut {
            let Blocking { mc, kc, .. } = cut(self.kernel, product.shape(), 1);
            (mc, kc)
        } else {
            // A thread's workspace has room for no deeper panel.
            (product.rows.next_multiple_of(K::MR), product.depth.min(WORKSPACE / K::NR))
        };
        let blocks = Blocks { mc, kc, a_in_place: false, b_in_place: false };
        let mut team = Team::for_work(self.problem.flops())?;
        let mut shared = Buffer::zeroed(mc.min(product.rows).next_multiple_of(K::MR) * kc)?;
        let factors = (self.problem.alpha(), self.problem.beta());
        let start = Instant::now();
        blocked::run(self.kernel, &mut team, &product, blocks, (&mut shared, c), factors)?;
        Ok(start.elapsed())
    }
}

//! What `sparkle info` says about this CPU.

use super::isa::{self, Isa, with_kernel};
use super::kernels::Kernel;
use super::pool::num_threads;
use super::{caches, calibrate};
use crate::memory::Hierarchy;
use crate::memory::tile::register_tiles;

/// Name and facts of this CPU, for `sparkle info`.
pub fn describe() -> (String, Vec<(&'static str, String)>) {
    let (names, tile) = with_kernel!(Isa::best(), kernel => (names(kernel), tile(kernel)));
    let mut facts = vec![
        ("features", isa::features().join(" ")),
        ("kernels", names),
        ("register tile", tile),
        ("caches", caches::words(&caches::described().caches)),
        ("threads", num_threads().to_string()),
    ];
    // Listing devices must not trigger a measurement.
    facts.extend(calibrate::known(num_threads()).map(|measured| ("measured", rates(&measured))));
    (isa::model().to_owned(), facts)
}

/// A kernel's register tile, compared with the model's best.
fn tile<K: Kernel>(_: K) -> String {
    let registers = caches::described().registers;
    let tiles = register_tiles(registers);
    let own = tiles.iter().find(|tile| (tile.mr, tile.nr) == (K::MR, K::NR));
    match (own, tiles.first()) {
        (Some(own), Some(best)) => format!(
            "{}x{} of {} registers of {}: {:.2} multiply-adds a load, at most {:.2} ({}x{})",
            K::MR,
            K::NR,
            registers.count,
            registers.lanes,
            own.reuse,
            best.reuse,
            best.mr,
            best.nr
        ),
        _ => format!("{}x{}", K::MR, K::NR),
    }
}

/// The measured rates in words. Levels that were not measured are left out.
fn rates(measured: &Hierarchy) -> String {
    let Hierarchy { peak, flops, l2, l3, memory, .. } = *measured;
    [
        ("GFLOPS a thread in registers", peak),
        ("GFLOPS in products", flops),
        ("GB/s a thread in level 2", l2),
        ("GB/s a thread in level 3", l3),
        ("GB/s of memory", memory),
    ]
    .into_iter()
    .filter(|&(_, rate)| rate > 0.0)
    .map(|(what, rate)| format!("{:.0} {what}", rate / 1e9))
    .collect::<Vec<_>>()
    .join(", ")
}

/// Names of a kernel in products and convolutions.
pub(super) fn names<K: Kernel>(_: K) -> String {
    format!("{} {}", K::SGEMM, K::CONV)
}

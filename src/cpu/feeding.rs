//! Measures how fast register tiles are fed with B in each way: [`crate::memory::feeding`] says what for. Takes about a
//! millisecond, at the first convolution that is large enough to gain from it. [`super::rates`] keeps the rates.

use std::time::Instant;

use super::buffer::Buffer;
use super::caches::described;
use super::isa::{Isa, model, with_kernel};
use super::kernels::{A_AHEAD, Epilogue, Kernel, NextRows, Panel, Tap, Tile, View};
use super::rates::Measurements;
use super::rates::calibration::Calibration;
use super::rates::record::RateInfo;
use super::rates::watch::Watch;
use crate::error::Result;
use crate::memory::blocking::{L1_BYTES, known};
use crate::memory::feeding::Feeding;
use crate::store::store;

/// The number of the way in which the rates are measured. A change of it makes older records useless.
const REVISION: u32 = 1;
/// Rounds in which all rates take turns. The best one counts.
const ROUNDS: usize = 6;
/// Depths that each rate is timed over in a round: some tens of microseconds.
const DEPTHS: usize = 8 << 10;
/// Taps and channels of the view that stays in L1, and the distance of its rows.
const TAPS: usize = 9;
const CHANNELS: usize = 24;
const PITCH: usize = 56;
/// The most channels of the view that leaves L1.
const MAX_CHANNELS: usize = 1 << 12;
/// Distance of channels: those of a map of 28 x 28.
const CHANNEL: usize = 28 * 28;

const fn rate(name: &'static str) -> RateInfo {
    RateInfo {
        name,
        unit: ("million depths a second", 1e6),
        range: (1e3, 1e12),
        optional: false,
        tolerance: 0.05,
    }
}

/// No call is compared with these rates.
static WATCH: Watch = Watch::new();

static CALIBRATION: Calibration<8> = Calibration::new(
    "ways to feed a tile",
    "cpu-feeding",
    [
        rate("packed panels in level 1"),
        rate("packed panels in level 2"),
        rate("images in level 1"),
        rate("images in level 2"),
        rate("masked images in level 1"),
        rate("masked images in level 2"),
        rate("images that are packed"),
        rate("masked images that are packed"),
    ],
    &WATCH,
    || CALIBRATION.keep_doubt(store()),
);

/// The rates of this machine. They are measured at the first call, unless the store has them.
pub fn feeding() -> Feeding {
    let rates = CALIBRATION.get(store(), 0, key, || with_kernel!(Isa::best(), kernel => measure(kernel)));
    rates.map_or(Feeding::UNMEASURED, |record| from_rates(record.rates()))
}

/// What is known of the rates, and how far to trust it.
pub fn measurements() -> Option<Measurements> {
    let record = CALIBRATION.known(store(), 0, key)?;
    Some(record.measurements(CALIBRATION.what, &CALIBRATION.infos))
}

fn key() -> String {
    format!("{}; {}; {:?}; revision {REVISION}", model(), Isa::best().name(), described())
}

fn from_rates([a, b, c, d, e, f, g, h]: [f64; 8]) -> Feeding {
    Feeding { panel: [a, b], in_place: [c, d], masked: [e, f], packing: [g, h] }
}

/// Bytes of the level 1 cache.
pub fn l1_bytes() -> usize {
    known(described().caches.l1, L1_BYTES) * size_of::<f32>()
}

/// Measures all rates at this moment, in depths a second.
///
/// # Errors
/// Out of memory.
fn measure<K: Kernel>(kernel: K) -> Result<[f64; 8]> {
    // Twice level 1: a row of NR elements that are not aligned takes one line more.
    // A cache that is described as too large must not cost much memory.
    let far = (2 * l1_bytes() / ((K::NR + 16) * size_of::<f32>())).clamp(CHANNELS, MAX_CHANNELS);
    let (near_depth, far_depth) = (CHANNELS * TAPS, far.max(CHANNELS * TAPS));
    let a = Buffer::zeroed(K::MR * (far_depth + A_AHEAD as usize))?;
    let mut panel = Buffer::zeroed(K::NR * far_depth)?;
    let image = Buffer::zeroed((far + 2) * CHANNEL + K::NR)?;
    let mut c = Buffer::zeroed(K::MR * K::NR)?;
    let tile = Tile { start: c.as_mut_ptr(), ld: K::NR, rows: K::MR, cols: K::NR };
    let all = if K::NR < 64 { (1u64 << K::NR) - 1 } else { u64::MAX };
    let square: [Tap; TAPS] = std::array::from_fn(|tap| {
        let offset = (tap / 3 * PITCH + tap % 3 + 1) as isize;
        Tap { offset, lanes: all, ahead: offset + 2 * CHANNEL as isize }
    });
    let point = [Tap { offset: 1, lanes: all, ahead: 1 + CHANNEL as isize }];
    let masked = |tap: Tap| Tap { lanes: all & !(1 << (K::NR / 2)), ..tap };
    let (square_masked, point_masked) = (square.map(masked), point.map(masked));
    let near = View {
        start: image.as_ptr(),
        channels: CHANNELS,
        pitch: CHANNEL,
        taps: &square,
        a_ahead: A_AHEAD,
        ..View::EMPTY
    };
    let distant = View { channels: far, taps: &point, ..near };
    let near_masked = View { taps: &square_masked, whole: false, ..near };
    let distant_masked = View { taps: &point_masked, whole: false, ..distant };
    let (a, to) = (a.as_ptr(), panel.as_mut_ptr());
    let epilogue = Epilogue::scaled(1.0, 0.0);
    let from_panel = |depth: usize| {
        move || {
            // SAFETY: A and the panel have so many depths, and C is a whole tile.
            unsafe {
                let a = Panel::packed(a, K::MR);
                kernel.tile(depth, a, (to.cast_const(), K::NR), tile, &epilogue, &NextRows::NOTHING);
            }
        }
    };
    let from_view = |view: View| {
        // SAFETY: A has as many depths. Channels are CHANNEL apart, and a row of a tap ends before the next channel; the
        // image has one more than channels. C is a whole tile.
        unsafe { kernel.view(a, &view, tile, &epilogue) };
    };
    let packing = |view: View| {
        // SAFETY: as above; the panel has room for all depths.
        unsafe { kernel.view_packing(a, &view, to, tile, &epilogue) };
    };
    let mut best = [0f64; 8];
    for _ in 0..ROUNDS {
        let rates = [
            timed(near_depth, from_panel(near_depth)),
            timed(far_depth, from_panel(far_depth)),
            timed(near_depth, || from_view(near)),
            timed(far, || from_view(distant)),
            timed(near_depth, || from_view(near_masked)),
            timed(far, || from_view(distant_masked)),
            timed(near_depth, || packing(near)),
            timed(near_depth, || packing(near_masked)),
        ];
        best.iter_mut().zip(rates).for_each(|(best, rate)| *best = best.max(rate));
    }
    Ok(best)
}

/// Depths a second of a tile of `depth` depths.
fn timed(depth: usize, mut tile: impl FnMut()) -> f64 {
    let repeats = DEPTHS.div_ceil(depth);
    let start = Instant::now();
    (0..repeats).for_each(|_| tile());
    (repeats * depth) as f64 / start.elapsed().as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_measured_and_the_rates_are_plausible() {
        for isa in Isa::all() {
            let rates = with_kernel!(isa, kernel => measure(kernel)).unwrap();
            let plausible = rates.iter().all(|rate| (1e3..1e12).contains(rate));
            assert!(plausible, "{isa:?} {rates:?}");
        }
        let known = feeding();
        assert_eq!(known, feeding(), "measured once");
        assert!(measurements().is_some_and(|found| found.rates.len() == 8));
    }
}

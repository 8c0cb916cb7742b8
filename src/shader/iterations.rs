//! Counts the loop iterations of each kernel's invocations, and cuts reductions into parts with few iterations.
//!
//! Some drivers end all loops of an invocation after a total number of iterations, without an error: llvmpipe after 65,535. No
//! query returns the limit, so the probe of a device counts ([`PROBE_LOOPS`](super::source::PROBE_LOOPS)). This module counts
//! the iterations of every kernel as if the compiler unrolled nothing. A kernel with more iterations than the device makes is
//! cut into passes, or another kernel is used.
//!
//! llvmpipe also counts the iteration in which a loop finds its condition false. In that iteration it runs the inner loops once
//! more, with nothing to do. [`Iterations`] counts the same way.

use crate::allocate;
use crate::error::Result;
use crate::memory::tiles::Tile;
use crate::problem::{Conv2d, Conv2dSizes, Gemm};

/// The most iterations that a probe asks for: they take one GPU thread ten milliseconds. The limit of a device never counts as
/// higher.
pub const MAX_PROBED: usize = 1 << 20;
/// A device with a lower limit is rejected: kernels without deep sums need some hundred iterations.
pub const MIN_ITERATIONS: usize = 4096;
/// The most iterations of one pass of the fallback kernels. Deeper sums continue in another pass, which costs almost nothing.
/// The probe can test this many on every device.
pub const MAX_PASS_ITERATIONS: usize = 1 << 17;

/// The iterations to rely on, if the probe counted `made`: fewer, because drivers may count other things as well.
pub fn safe_limit(made: usize) -> usize {
    made - made / 8
}

/// What a piece of code adds to the iteration count of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Iterations {
    /// When it runs.
    made: usize,
    /// When it is run with nothing to do.
    idle: usize,
}

impl Iterations {
    /// Code without a loop.
    const NONE: Self = Iterations { made: 0, idle: 0 };

    /// A loop of `times` iterations.
    const fn times(times: usize, body: Self) -> Self {
        let idle = 1 + body.idle;
        Iterations { made: (1 + body.made).saturating_mul(times).saturating_add(idle), idle }
    }

    /// This code, then `next`.
    const fn then(self, next: Self) -> Self {
        Iterations { made: self.made.saturating_add(next.made), idle: self.idle + next.idle }
    }
}

/// A loop without inner loops.
const fn plain(times: usize) -> Iterations {
    Iterations::times(times, Iterations::NONE)
}

/// The sum over channels, rows and columns of one output in the fallback kernels.
const fn sum(channels: usize, rows: usize, columns: usize) -> Iterations {
    Iterations::times(channels, Iterations::times(rows, plain(columns)))
}

/// Iterations of `conv_queue_64` for a ticket of `outputs` outputs per invocation.
pub fn ticket(problem: &Conv2d, outputs: usize) -> usize {
    let Conv2dSizes { c, r, s, groups, .. } = *problem.sizes();
    1 + Iterations::times(outputs, sum(c / groups, r, s)).made
}

/// Iterations of `tile.comp` over `slices` slices of the reduction, with a table of `table` steps. `taps` says whether the
/// convolution kernel has more than one tap.
pub fn tile(tile: &Tile, slices: usize, table: usize, taps: bool) -> usize {
    let Tile { bm, bn, bk, tm, tn, kg } = *tile;
    let (threads, bn4) = (tile.threads(), bn / 4);
    let a_loads = plain((bk * bm / 4).div_ceil(threads));
    let b_columns = bn4.div_ceil(threads);
    let b_rows = bk.div_ceil((threads / bn4).max(1));
    let columns = plain(4 * b_columns);
    let of_columns = |inside| Iterations::times(b_rows, Iterations::times(b_columns, inside));
    let (load, keep) = (a_loads.then(of_columns(plain(4))), a_loads.then(of_columns(Iterations::NONE)));
    let fetch = plain(tm / 4).then(plain(tn / 4));
    let step = fetch.then(Iterations::times(tm / 4, plain(tn / 4)));
    let multiply = fetch.then(Iterations::times(bk / kg, step));
    let slice = load.then(multiply).then(keep).then(if taps { columns } else { Iterations::NONE });
    let sums = plain(tm * tn / 4);
    let start = columns.then(columns).then(plain(table.div_ceil(threads))).then(sums).then(a_loads);
    let other_groups = Iterations::times(kg.ilog2() as usize, sums.then(sums));
    let store = Iterations::times(tn / 4, Iterations::times(4, plain(tm)));
    start.then(Iterations::times(slices, slice)).then(other_groups).then(store).made
}

/// The smallest number of parts of `slices` slices with which [`tile`] stays within `most` iterations; `None` if one slice
/// already exceeds them.
pub fn min_splits(of: &Tile, slices: usize, table: usize, taps: bool, most: usize) -> Option<usize> {
    let count = |slices| tile(of, slices, table, taps);
    let (none, one) = (count(0), count(1));
    let fit = most.checked_sub(none)? / (one - none);
    (fit > 0).then(|| slices.div_ceil(fit).max(1))
}

/// Iterations of `conv_grouped`, with `tm` output channels per thread.
pub fn grouped(problem: &Conv2d, tm: usize) -> usize {
    let Conv2dSizes { c, r, s, stride_w, groups, .. } = *problem.sizes();
    let line = plain(3 * stride_w + s).then(Iterations::times(s, plain(tm)));
    let reduction = Iterations::times(c / groups, Iterations::times(r, line));
    plain(tm).then(reduction).then(Iterations::times(tm, plain(4))).made
}

/// Iterations of `conv_pointwise`, with the reduction in `kg` parts.
pub fn pointwise(channels: usize, kg: usize) -> usize {
    let add = Iterations::times(4usize.div_ceil(kg), plain(kg));
    plain(4).then(plain(channels.div_ceil(kg))).then(plain(4)).then(add).made
}

/// Iterations of the last pass of Winograd F(m x m, 3 x 3), in the case that it sums every output again.
pub fn winograd_output(channels: usize, m: usize) -> usize {
    let alpha = m + 2;
    let transform = |lines, stored| Iterations::times(lines, plain(alpha).then(stored));
    let checked = plain(m).then(plain(m));
    let again = plain(m).then(plain(channels)).then(Iterations::times(m, plain(m)));
    transform(alpha, plain(m)).then(transform(m, checked)).then(again).made
}

/// Iterations of the other Winograd transforms: of the image and of the weights.
pub fn winograd_transform(m: usize) -> usize {
    let alpha = m + 2;
    let lines = Iterations::times(alpha, plain(alpha).then(plain(alpha)));
    plain(9).then(lines).then(lines).made
}

/// Iterations of `split_sum`.
pub fn split_sum(splits: usize) -> usize {
    plain(splits - 1).made
}

/// Iterations of `pack_matrix`.
pub fn pack_matrix() -> usize {
    plain(4).then(plain(4)).made
}

/// Iterations of `steps` steps of `measure_fma`, whose body has eight multiply-adds.
pub fn measure_fma(steps: usize) -> usize {
    plain(8).then(Iterations::times(steps, plain(8))).then(plain(8)).made
}

/// Iterations of `steps` steps of `measure_shared`, whose body has eight reads.
pub fn measure_shared(steps: usize) -> usize {
    plain(4).then(plain(8)).then(Iterations::times(steps, plain(8))).then(plain(8)).made
}

/// Iterations of `measure_read`.
pub fn measure_read() -> usize {
    plain(16).made
}

/// Iterations of a tile of `conv_single`. With shared memory, `shared` has the steps of a slice and the loads of each operand.
/// Loops over the rows and columns of a thread are unrolled in the source.
pub fn single(problem: &Conv2d, shared: Option<(usize, [usize; 2])>, chains: usize) -> usize {
    let Conv2dSizes { c, r, s, .. } = *problem.sizes();
    let reduction = match shared {
        Some((slice, loads)) => {
            let [weights, pixels] = loads.map(plain);
            let one = weights.then(pixels).then(plain(slice));
            Iterations::times((c * r * s).div_ceil(slice), one)
        }
        None => {
            let channel = Iterations::times(r, plain(s));
            let in_turns = if chains > 1 { channel.then(channel) } else { channel };
            Iterations::times(c / chains, in_turns).then(channel)
        }
    };
    reduction.made
}

/// The part of a reduction that one pass of the fallback kernels sums: ranges of channels, kernel rows and kernel columns. A
/// matrix product has a range of its depth alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Begin and end of each range.
    pub ranges: [[usize; 2]; 3],
}

impl Part {
    /// The number of products per output.
    pub fn products(&self) -> usize {
        self.ranges.iter().map(|[begin, end]| end - begin).product()
    }
}

/// Cuts the reduction of `problem` into passes of at most `most` iterations, in the order of a single pass. A pass has whole
/// channels, or whole rows of one channel, or columns of one row.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub fn parts(problem: &Conv2d, most: usize) -> Result<Vec<Part>> {
    let Conv2dSizes { c, r, s, groups, .. } = *problem.sizes();
    let (channels, most) = (c / groups, most.min(MAX_PASS_ITERATIONS));
    let by_channels = fit(most, |channels| sum(channels, r, s));
    let by_rows = fit(most, |rows| sum(1, rows, s));
    let by_columns = fit(most, |columns| sum(1, 1, columns)).max(1);
    let mut parts = vec![];
    if by_channels > 0 {
        let whole = |channels| Part { ranges: [channels, [0, r], [0, s]] };
        allocate::append(&mut parts, cut(channels, by_channels).map(whole), PASSES)?;
        return Ok(parts);
    }
    for channel in (0..channels).map(|channel| [channel, channel + 1]) {
        if by_rows > 0 {
            let rows = cut(r, by_rows).map(|rows| Part { ranges: [channel, rows, [0, s]] });
            allocate::append(&mut parts, rows, PASSES)?;
            continue;
        }
        for row in (0..r).map(|row| [row, row + 1]) {
            let columns = cut(s, by_columns).map(|columns| Part { ranges: [channel, row, columns] });
            allocate::append(&mut parts, columns, PASSES)?;
        }
    }
    Ok(parts)
}

/// What the lists of passes are for, in errors.
const PASSES: &str = "the passes of a long sum";

/// The most iterations of an outer loop in a pass of at most `most` iterations altogether. `count` counts all iterations of a
/// number of outer ones.
fn fit(most: usize, count: impl Fn(usize) -> Iterations) -> usize {
    // An invocation computes one output, in a loop over outputs.
    let (none, one) = (1 + count(0).made, 1 + count(1).made);
    most.saturating_sub(none) / (one - none)
}

/// The most iterations of a loop that contains two nested loops of one iteration, within `most` iterations altogether.
pub fn nested(most: usize) -> usize {
    fit(most, |turns| sum(turns, 1, 1))
}

/// The most channels of a 1x1 convolution that a fallback kernel sums in one pass, on a device with a limit of `most` iterations.
pub fn max_channels(most: usize) -> usize {
    nested(most.min(MAX_PASS_ITERATIONS))
}

/// Steps of the depth that `sgemm_direct_16x16` stages in shared memory at a time.
const DEPTH_STEP: usize = 16;

/// Cuts the depth of `problem` into passes of `sgemm_direct_16x16` of at most `most` iterations.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub fn depth_parts(problem: &Gemm, most: usize) -> Result<Vec<Part>> {
    let steps =
        fit(most.min(MAX_PASS_ITERATIONS), |steps| Iterations::times(steps, plain(DEPTH_STEP))).max(1);
    let mut parts = vec![];
    let part = |range| Part { ranges: [range, [0, 1], [0, 1]] };
    allocate::append(&mut parts, cut(problem.sizes().k, steps * DEPTH_STEP).map(part), PASSES)?;
    Ok(parts)
}

/// Cuts 0..`end` into ranges of `each`.
fn cut(end: usize, each: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..end).step_by(each).map(move |begin| [begin, (begin + each).min(end)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tiles::TILES;
    use crate::problem::exact::Random;
    use crate::problem::{Conv2dDesc, GemmDesc, Layout};

    /// Counts of nested loops that were measured on llvmpipe, which ends loops after 65,535 iterations.
    #[test]
    fn iterations_are_counted_as_a_driver_counts_them() {
        for (rows, columns, channels) in
            [(1, 1, 10_923), (1, 7, 5461), (4, 1, 4369), (4, 4, 2427), (7, 1, 2730), (7, 7, 993)]
        {
            // The last products do not need the iteration in which each loop finds its condition false.
            let [fits, too_many] = [channels, channels + 1].map(|channels| sum(channels, rows, columns).made);
            assert!(fits <= 65_535 + 6 && too_many > 65_535, "{rows} x {columns}: {fits} and {too_many}");
        }
        assert_eq!((plain(16).made, plain(16).idle), (17, 1));
        assert_eq!((sum(2, 3, 5).made, sum(2, 3, 5).idle), (2 * (1 + 3 * (1 + 6) + 2) + 3, 3));
    }

    /// With all sizes and limits, the parts are in the order of a single pass, have every product once, and stay within the limit.
    #[test]
    fn parts_are_the_whole_in_order() {
        let (mut random, mut cut) = (Random::new(1), [0; 4]);
        for _ in 0..2000 {
            let groups = random.pick(&[1, 2]);
            let (r, s) = random.pick(&[(1, 1), (3, 3), (1, 900), (70, 2), (90, 110), (2, 5000)]);
            let c = groups * random.pick(&[1, 2, 5, 100]);
            let problem =
                Conv2d::new(Conv2dDesc { c, h: r, w: s, k: groups, r, s, groups, ..Default::default() })
                    .unwrap();
            let most = random.pick(&[MIN_ITERATIONS, 5000, 57_344, 900_000]);
            let parts = parts(&problem, most).unwrap();
            let (channels, r, s) = ((c / groups) as usize, r as usize, s as usize);
            let mut expected = (0..channels * r * s).map(|tap| (tap / (r * s), tap / s % r, tap % s));
            for part in &parts {
                let [channels, rows, columns] = part.ranges;
                let each = |[begin, end]: [usize; 2]| begin..end;
                let counted =
                    sum(part.ranges[0][1] - channels[0], rows[1] - rows[0], columns[1] - columns[0]);
                assert!(counted.made < most.min(MAX_PASS_ITERATIONS), "{part:?} makes {counted:?} of {most}");
                for channel in each(channels) {
                    for row in each(rows) {
                        for column in each(columns) {
                            assert_eq!(expected.next(), Some((channel, row, column)), "{part:?}");
                        }
                    }
                }
            }
            assert_eq!(expected.next(), None);
            // Uncut, or cut by channels, by rows or by columns.
            let [_, rows, columns] = parts[0].ranges;
            let kind = match parts.len() {
                1 => 0,
                _ if columns != [0, s] => 3,
                _ if rows != [0, r] => 2,
                _ => 1,
            };
            cut[kind] += 1;
        }
        assert!(cut.iter().all(|&count| count > 20), "{cut:?}");
    }

    #[test]
    fn depths_are_cut_into_whole_steps() {
        let parts = |k, most| {
            depth_parts(&Gemm::new(GemmDesc::packed(Layout::RowMajor, 3, 4, k)).unwrap(), most).unwrap()
        };
        assert_eq!(parts(50_000, 57_344).len(), 1);
        for (k, most) in [(50_969, 57_344), (1_000_000, 57_344), (200_000, 900_000), (10_001, MIN_ITERATIONS)]
        {
            let parts = parts(k, most);
            let (mut next, last) = (0, parts.len() - 1);
            for (index, part) in parts.iter().enumerate() {
                let [begin, end] = part.ranges[0];
                assert_eq!(begin, next);
                assert!(index == last || end % DEPTH_STEP == 0);
                assert_eq!(part.products(), end - begin);
                next = end;
            }
            assert!(next == k as usize && last > 0, "{k}: {parts:?}");
        }
    }

    #[test]
    fn splits_are_as_few_as_fit() {
        let mut checked = 0;
        for of in TILES {
            for (slices, table, taps, most) in [
                (1, 0, false, 57_344),
                (1000, 0, true, 57_344),
                (9000, 0, true, 900_000),
                (40, 640, true, 5000),
            ] {
                let Some(splits) = min_splits(&of, slices, table, taps, most) else { continue };
                let with = |splits: usize| tile(&of, slices.div_ceil(splits), table, taps);
                assert!(with(splits) <= most, "{of}: {splits} of {slices}");
                assert!(
                    splits == 1 || with(splits - 1) > most,
                    "{of}: {splits} of {slices} are more than needed"
                );
                checked += 1;
            }
            assert_eq!(min_splits(&of, 1, 0, false, 20), None, "one slice exceeds the limit");
            let slice = tile(&of, 1, 0, false);
            assert_eq!(min_splits(&of, 3, 0, false, slice - 1), None, "{of}");
            assert_eq!(min_splits(&of, 3, 0, false, slice), Some(3), "{of}");
        }
        assert!(checked > 60, "{checked}");
    }

    /// Simulates a driver that ends loops. It counts iterations, with the one in which a loop finds its condition false.
    #[derive(Default)]
    struct Driver(usize);

    impl Driver {
        /// A loop. At its end, the body runs once more with nothing to do.
        fn turns(&mut self, runs: bool, times: usize, mut body: impl FnMut(&mut Self, bool)) {
            let times = if runs { times } else { 0 };
            for turn in 0..=times {
                self.0 += 1;
                body(self, runs && turn < times);
            }
        }

        fn plain(&mut self, runs: bool, times: usize) {
            self.turns(runs, times, |_, _| {});
        }

        fn count(code: impl FnOnce(&mut Self)) -> usize {
            let mut driver = Self::default();
            code(&mut driver);
            driver.0
        }
    }

    /// Runs the loops of `tile.comp`.
    fn run_tile(of: &Tile, slices: usize, table: usize, taps: bool) -> usize {
        let Tile { bm, bn, bk, tm, tn, kg } = *of;
        let threads = bm / tm * (bn / tn) * kg;
        // Vectors of weights that a thread loads; columns and rows of pixels that it loads.
        let weights = (bk * bm / 4).div_ceil(threads);
        let (columns, rows) = ((bn / 4).div_ceil(threads), bk.div_ceil((threads / (bn / 4)).max(1)));
        Driver::count(|driver| {
            driver.plain(true, 4 * columns);
            driver.plain(true, 4 * columns);
            driver.plain(true, table.div_ceil(threads));
            driver.plain(true, tm * tn / 4);
            driver.plain(true, weights);
            driver.turns(true, slices, |driver, runs| {
                driver.plain(runs, weights);
                driver.turns(runs, rows, |driver, runs| {
                    driver.turns(runs, columns, |driver, runs| driver.plain(runs, 4))
                });
                driver.plain(runs, tm / 4);
                driver.plain(runs, tn / 4);
                driver.turns(runs, bk / kg, |driver, runs| {
                    driver.plain(runs, tm / 4);
                    driver.plain(runs, tn / 4);
                    driver.turns(runs, tm / 4, |driver, runs| driver.plain(runs, tn / 4));
                });
                driver.plain(runs, weights);
                driver.turns(runs, rows, |driver, runs| driver.plain(runs, columns));
                if taps {
                    driver.plain(runs, 4 * columns);
                }
            });
            let others = [1, 2, 4].iter().position(|&groups| groups == kg).unwrap();
            driver.turns(true, others, |driver, runs| {
                driver.plain(runs, tm * tn / 4);
                driver.plain(runs, tm * tn / 4);
            });
            driver.turns(true, tn / 4, |driver, runs| {
                driver.turns(runs, 4, |driver, runs| driver.plain(runs, tm))
            });
        })
    }

    /// Every formula counts what the simulated driver counts.
    #[test]
    fn formulas_count_what_loops_make() {
        for of in TILES {
            for (slices, table, taps) in
                [(0, 0, false), (1, 0, true), (7, 0, false), (5, 640, true), (40, 333, false)]
            {
                assert_eq!(tile(&of, slices, table, taps), run_tile(&of, slices, table, taps), "{of}");
            }
        }
        for (c, groups, r, s, stride_w, tm) in [(6, 2, 3, 5, 1, 4), (5, 1, 1, 2, 3, 1), (16, 4, 2, 3, 2, 8)] {
            let desc = Conv2dDesc { c, groups, k: groups, h: 9, w: 9, r, s, stride_w, ..Default::default() };
            let problem = Conv2d::new(desc).unwrap();
            let [channels, r, s, stride] = [c / groups, r, s, stride_w].map(|size| size as usize);
            let counted = Driver::count(|driver| {
                driver.plain(true, tm);
                driver.turns(true, channels, |driver, runs| {
                    driver.turns(runs, r, |driver, runs| {
                        driver.plain(runs, 3 * stride + s);
                        driver.turns(runs, s, |driver, runs| driver.plain(runs, tm));
                    });
                });
                driver.turns(true, tm, |driver, runs| driver.plain(runs, 4));
            });
            assert_eq!(grouped(&problem, tm), counted);
            let counted = Driver::count(|driver| {
                driver.turns(true, 3, |driver, runs| {
                    driver.turns(runs, channels, |driver, runs| {
                        driver.turns(runs, r, |driver, runs| driver.plain(runs, s));
                    });
                });
            });
            assert_eq!(ticket(&problem, 3), 1 + counted);
        }
        for (channels, kg, each, turns) in [(33, 2, 17, 2), (64, 4, 16, 1), (60, 8, 8, 1)] {
            let counted = Driver::count(|driver| {
                [4, each, 4].iter().for_each(|&times| driver.plain(true, times));
                driver.turns(true, turns, |driver, runs| driver.plain(runs, kg));
            });
            assert_eq!(pointwise(channels, kg), counted);
        }
        for (m, alpha, channels) in [(2, 4, 16), (4, 6, 33)] {
            let counted = Driver::count(|driver| {
                driver.turns(true, alpha, |driver, runs| {
                    [alpha, m].iter().for_each(|&it| driver.plain(runs, it))
                });
                driver.turns(true, m, |driver, runs| {
                    [alpha, m, m].iter().for_each(|&it| driver.plain(runs, it))
                });
                driver.plain(true, m);
                driver.plain(true, channels);
                driver.turns(true, m, |driver, runs| driver.plain(runs, m));
            });
            assert_eq!(winograd_output(channels, m), counted);
            let counted = Driver::count(|driver| {
                driver.plain(true, 9);
                for _ in 0..2 {
                    driver.turns(true, alpha, |driver, runs| {
                        driver.plain(runs, alpha);
                        driver.plain(runs, alpha);
                    });
                }
            });
            assert_eq!(winograd_transform(m), counted);
        }
        assert_eq!([1, 2, 32].map(split_sum), [1, 2, 32]);
        assert_eq!((pack_matrix(), measure_read(), measure_fma(3)), (5 + 5, 17, 9 + (3 * 10 + 2) + 9));
        assert_eq!(measure_shared(3), 5 + 9 + (3 * 10 + 2) + 9);
    }

    /// The loops of `conv_single.comp`: slices in shared memory, or channels, rows and columns with one or two accumulators.
    #[test]
    fn loops_of_one_pass_are_counted() {
        let desc = Conv2dDesc { c: 7, h: 9, w: 9, r: 2, s: 3, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let shared = Driver::count(|driver| {
            // 42 products in slices of eight.
            driver.turns(true, 6, |driver, runs| [3, 5, 8].iter().for_each(|&it| driver.plain(runs, it)));
        });
        assert_eq!(single(&problem, Some((8, [3, 5])), 1), shared);
        for (chains, turns) in [(1, 7), (2, 3)] {
            let counted = Driver::count(|driver| {
                let channel =
                    |driver: &mut Driver, runs| driver.turns(runs, 2, |driver, runs| driver.plain(runs, 3));
                driver.turns(true, turns, |driver, runs| (0..chains).for_each(|_| channel(driver, runs)));
                channel(driver, true);
            });
            assert_eq!(single(&problem, None, chains), counted);
        }
    }

    #[test]
    fn limits_leave_an_eighth_and_bound_the_deepest_sum() {
        assert_eq!([8, 4096, 65_536].map(safe_limit), [7, 3584, 57_344]);
        // One output, the end of the loop over channels, and four iterations per channel.
        for most in [5000, 57_344] {
            let turns = nested(most);
            let makes = |turns| 1 + sum(turns, 1, 1).made;
            assert!(makes(turns) <= most && makes(turns + 1) > most, "{turns} of {most}");
            assert_eq!(max_channels(most), turns);
        }
        assert_eq!(max_channels(900_000), nested(MAX_PASS_ITERATIONS));
        assert!(nested(900_000) > nested(MAX_PASS_ITERATIONS));
    }
}

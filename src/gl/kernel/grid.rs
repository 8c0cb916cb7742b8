//! An index space as workgroups, and its slices.
//!
//! A unit is a workgroup; for kernels with reductions, a block of [`REDUCTION_BLOCK`] points, of which a workgroup computes
//! several at once; for streamed kernels, a block of points that workgroups take in turn. Units are numbered along x first.
//! A slice is a box of workgroups that begins with a given unit, so that no point is computed twice. One dimension is
//! folded: a slice longer than a row of the device's grid has whole rows.

use crate::gl::driver::capabilities::Capabilities;
use crate::kernel::bind::Launch;
use crate::kernel::glsl::BLOCKS_OF_GROUP;
use crate::kernel::tree::REDUCTION_BLOCK;

use super::prepared::{self, Prepared, Shape};

/// The points of a block.
const BLOCK: u64 = REDUCTION_BLOCK as u64;

/// A dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// The uniform `first`.
    pub first: [u32; 3],
    /// The uniform `count`.
    pub count: [u32; 3],
    /// The workgroups of the dispatch.
    pub groups: [u32; 3],
    /// The units that it computes.
    pub units: u32,
}

/// The workgroups of a launch.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    dims: usize,
    extents: [u32; 3],
    /// Workgroups along the axes. One-dimensional ones and blocks lie along x.
    groups: [u32; 3],
    points_per_unit: u32,
    order: Order,
    max_groups: [u32; 3],
}

/// How units become workgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// One for each.
    Each,
    /// Blocks of a reduction.
    Blocks,
    /// At most this many, which take units in turn.
    Streamed(u32),
}

impl Grid {
    /// The workgroups of a launch whose points fit into 31 bits.
    pub fn new(launch: &Launch<'_>, prepared: &Prepared, capabilities: &Capabilities) -> Self {
        let (kernel, Shape { local_size, coarsening, streamed }) = (launch.kernel(), prepared.shape());
        let extents = launch.extents().map(|extent| extent as u32);
        let order = match prepared::streaming_groups(capabilities).filter(|_| streamed) {
            Some(groups) => Order::Streamed(groups),
            None if kernel.reductions.is_empty() => Order::Each,
            None => Order::Blocks,
        };
        Grid::with((kernel.dims, extents), (local_size, coarsening), order, capabilities.max_groups)
    }

    fn with(
        (dims, extents): (usize, [u32; 3]),
        (local_size, coarsening): ([u32; 3], u32),
        order: Order,
        max_groups: [u32; 3],
    ) -> Self {
        let [x, y, z] = local_size;
        let points: u64 = extents.iter().map(|&extent| u64::from(extent)).product();
        let (groups, points_per_unit) = if order == Order::Blocks {
            ([points.div_ceil(BLOCK) as u32, 1, 1], BLOCK as u32)
        } else if dims == 1 {
            let each = x * y * z * coarsening;
            ([extents[0].div_ceil(each), 1, 1], each)
        } else {
            let sizes = [x * coarsening, y, z];
            ([0, 1, 2].map(|axis| extents[axis].div_ceil(sizes[axis])), x * y * z * coarsening)
        };
        Grid { dims, extents, groups, points_per_unit, order, max_groups }
    }

    /// All units.
    pub fn units(&self) -> u32 {
        self.groups.iter().product()
    }

    /// The points of a unit, those outside the extents included.
    pub fn points_per_unit(&self) -> u32 {
        self.points_per_unit
    }

    /// A slice that begins with unit `first`, where the last one ended, and has about `units` units.
    pub fn slice(&self, first: u32, units: u32) -> Slice {
        let units = units.clamp(1, self.units() - first);
        match self.order {
            Order::Blocks => self.blocks(first, units),
            Order::Streamed(groups) => self.streamed(first, units, groups),
            Order::Each if self.dims == 1 => self.line(first, units),
            Order::Each => self.solid(first, units),
        }
    }

    /// Workgroups take blocks in turn until the points below `count` end.
    fn streamed(&self, first: u32, units: u32, groups: u32) -> Slice {
        let end = u64::from(first + units) * u64::from(self.points_per_unit);
        let count = [end.min(self.extents[0].into()) as u32, 1, 1];
        Slice {
            first: [first, 0, 0],
            count,
            groups: [units.min(groups).min(self.max_groups[0]), 1, 1],
            units,
        }
    }

    /// Workgroups take blocks in turn until the points below `count` end. So a slice ends with a whole block, after a
    /// whole number of lines or planes.
    fn blocks(&self, first: u32, units: u32) -> Slice {
        let last = self.dims - 1;
        let line: u64 = self.extents[..last].iter().map(|&extent| u64::from(extent)).product();
        // The fewest lines that are whole blocks, and their blocks.
        let lines = BLOCK / gcd(line, BLOCK);
        let blocks = line * lines / BLOCK;
        let end = (u64::from(first) + u64::from(units).max(blocks)) / blocks * blocks;
        let end = end.min(u64::from(self.units()));
        let mut count = self.extents;
        if end < u64::from(self.units()) {
            count[last] = (end * BLOCK / line) as u32;
        }
        let units = end as u32 - first;
        Slice {
            first: [first, 0, 0],
            count,
            groups: [units.div_ceil(BLOCKS_OF_GROUP).min(self.max_groups[0]), 1, 1],
            units,
        }
    }

    fn line(&self, first: u32, units: u32) -> Slice {
        let [row, rows, _] = self.max_groups;
        let groups = if units <= row { [units, 1, 1] } else { [row, (units / row).min(rows), 1] };
        Slice { first: [first, 0, 0], count: self.extents, groups, units: groups[0] * groups[1] }
    }

    /// Layers, rows of a layer, or a part of a row.
    fn solid(&self, first: u32, units: u32) -> Slice {
        let ([gx, gy, gz], [max_x, max_y, max_z]) = (self.groups, self.max_groups);
        let (x, y, z) = (first % gx, first / gx % gy, first / gx / gy);
        let groups = if x > 0 || units < gx || gx > max_x {
            [units.min(gx - x).min(max_x), 1, 1]
        } else if y > 0 || units / gx < gy || gy > max_y {
            [gx, (units / gx).min(gy - y).min(max_y), 1]
        } else {
            [gx, gy, (units / gx / gy).min(gz - z).min(max_z)]
        };
        Slice { first: [x, y, z], count: self.extents, groups, units: groups.iter().product() }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::exact::Random;

    /// The workgroups of a slice by number, as the texts compute them.
    fn groups(grid: &Grid, slice: &Slice) -> Vec<u32> {
        let [nx, ny, nz] = slice.groups;
        let [fx, fy, fz] = slice.first;
        let all = (0..nz).flat_map(|z| (0..ny).flat_map(move |y| (0..nx).map(move |x| (x, y, z))));
        let [gx, gy, _] = grid.groups;
        let number = |(x, y, z): (u32, u32, u32)| match grid.dims {
            1 => x + nx * (y + ny * z) + fx,
            _ => {
                let (x, y, z) = (x + fx, y + fy, z + fz);
                assert!(x < gx && y < gy);
                x + gx * (y + gy * z)
            }
        };
        all.map(number).collect()
    }

    #[test]
    fn slices_cover_every_workgroup_once() {
        let mut random = Random::new(11);
        let mut cut = 0;
        for _ in 0..400 {
            let dims = random.between(1, 3) as usize;
            let mut extents = [1; 3];
            extents[..dims].iter_mut().for_each(|extent| *extent = random.between(1, 40) as u32);
            let coarsening = random.pick(&[1, 1, 2, 4]);
            let local = random.pick(&[[1, 1, 1], [2, 3, 1], [4, 1, 2], [8, 1, 1]]);
            let most = [(); 3].map(|()| random.between(1, 12) as u32);
            let grid = Grid::with((dims, extents), (local, coarsening), Order::Each, most);
            let (mut first, mut seen) = (0, vec![]);
            while first < grid.units() {
                let asked = random.between(1, 30) as u32;
                let slice = grid.slice(first, asked);
                assert!(slice.units >= 1 && slice.units <= asked && slice.count == extents);
                assert!(slice.groups.iter().zip(most).all(|(it, most)| *it <= most), "{slice:?}");
                seen.extend(groups(&grid, &slice));
                first += slice.units;
                cut += 1;
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..grid.units()).collect::<Vec<_>>(), "{grid:?}");
        }
        assert!(cut > 2000, "{cut}");
    }

    #[test]
    fn slices_of_reductions_end_with_whole_blocks() {
        let mut random = Random::new(12);
        let mut cut = 0;
        for _ in 0..400 {
            let dims = random.between(1, 3) as usize;
            let mut extents = [1; 3];
            let most = [20_000, 300, 60][dims - 1];
            extents[..dims].iter_mut().for_each(|extent| *extent = random.between(1, most) as u32);
            let grid = Grid::with((dims, extents), ([256, 1, 1], 1), Order::Blocks, [65_535; 3]);
            let points: u64 = extents.iter().map(|&it| u64::from(it)).product();
            assert_eq!(u64::from(grid.units()), points.div_ceil(BLOCK));
            let mut first = 0;
            while first < grid.units() {
                let slice = grid.slice(first, random.between(1, 50) as u32);
                let end = u64::from(first + slice.units);
                let counted: u64 = slice.count.iter().map(|&it| u64::from(it)).product();
                assert!(slice.units >= 1 && slice.first == [first, 0, 0] && slice.groups[0] <= slice.units);
                assert_eq!(counted.div_ceil(BLOCK), end, "{slice:?} of {grid:?}");
                assert!(counted == points || counted.is_multiple_of(BLOCK), "{slice:?} of {grid:?}");
                assert_eq!(slice.count[..dims - 1], extents[..dims - 1]);
                first += slice.units;
                cut += usize::from(counted < points);
            }
            assert_eq!(first, grid.units());
        }
        assert!(cut > 300, "{cut}");
    }

    #[test]
    fn streamed_slices_end_where_the_next_begin() {
        let mut random = Random::new(13);
        for _ in 0..200 {
            let (points, most) = (random.between(1, 100_000) as u32, random.between(1, 9) as u32);
            let shape = ([16, 1, 1], 8);
            let grid = Grid::with((1, [points, 1, 1]), shape, Order::Streamed(most), [65_535; 3]);
            assert_eq!(grid.units(), points.div_ceil(128));
            let (mut first, mut end) = (0, 0);
            while first < grid.units() {
                let slice = grid.slice(first, random.between(1, 300) as u32);
                assert_eq!((slice.first, first * 128), ([first, 0, 0], end));
                assert!((1..=most.min(slice.units)).contains(&slice.groups[0]), "{slice:?}");
                assert_eq!(slice.count[0], points.min((first + slice.units) * 128));
                (first, end) = (first + slice.units, slice.count[0]);
            }
            assert_eq!(end, points);
        }
    }

    #[test]
    fn long_lines_are_folded_into_whole_rows() {
        let grid = Grid::with((1, [100_000_000, 1, 1]), ([64, 1, 1], 1), Order::Each, [65_535; 3]);
        assert_eq!(grid.units(), 1_562_500);
        let slice = grid.slice(0, grid.units());
        assert_eq!((slice.groups, slice.units), ([65_535, 23, 1], 65_535 * 23));
        let rest = grid.slice(slice.units, grid.units());
        assert_eq!((rest.first[0], rest.groups), (65_535 * 23, [1_562_500 - 65_535 * 23, 1, 1]));
    }
}

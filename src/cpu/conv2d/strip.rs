//! One strip of the map: a panel of B, and the panels of A that stream past it.
//!
//! B is an image, or planes of it. Reading it in place costs masks at borders, rows that straddle cache lines, and
//! distances between rows that the hardware prefetcher does not follow. So the first tile packs the vectors of B into a
//! panel while it computes, and the other tiles read the panel:
//!
//! ```text
//!                  few tiles, or a single vector     otherwise
//! first tile       in place                          in place, and packs B
//! other tiles      in place                          the panel
//! ```
//!
//! The order of all sums is the same in both ways.

use super::{ConvPlan, Pass};
use crate::cpu::block::{Ahead, Turns};
use crate::cpu::implicit_im2col::{Geometry, Planes, Strip, TapTable};
use crate::cpu::kernels::{
    A_AHEAD, CopyBlock, Kernel, MAX_TILE, NextRows, Panel, Tile, TransposeBlock, View,
};
use crate::cpu::pack::clear_missing;

/// Memory of a thread that strips use in turn.
pub(super) struct Scratch<'a> {
    pub table: TapTable,
    /// Columns beside vectors, packed.
    pub thin: &'a mut [f32],
    /// A packed panel of B.
    pub panel: &'a mut [f32],
    /// The result of a tile with gaps, before its pixels are copied to their places.
    pub flat: [f32; MAX_TILE],
    /// Bytes of the level 1 cache.
    pub l1: usize,
}

/// Where the tiles of a strip read and write.
struct Place<'a> {
    geometry: &'a Geometry,
    strip: Strip,
    pass: &'a Pass<'a>,
    /// The strip's part of the map.
    map: Tile,
    flat: *mut f32,
    thin: *const f32,
}

impl<K: Kernel> ConvPlan<K> {
    /// Computes one strip. `ahead` is memory to prefetch meanwhile.
    ///
    /// # Safety
    /// The contract of [`Kernel::view`], or [`Kernel::view_packing_a`] if weights are given, for all rows of A and the
    /// strip's part of the map.
    pub(super) unsafe fn strip(
        &self,
        (geometry, planes): (&Geometry, &Planes),
        [strip, next]: [Strip; 2],
        ahead: &Ahead,
        pass: &Pass,
        map: Tile,
        scratch: &mut Scratch,
    ) {
        let kernel = self.kernel;
        let gaps = geometry.gaps();
        let all = !gaps && strip.cols <= K::THIN;
        let packed = if all { strip.cols } else { strip.beside };
        if packed > 0 {
            // SAFETY: the planes hold all that the strip's taps see.
            unsafe { geometry.pack(planes, &strip, (pass.channels, packed), scratch.thin) };
        }
        let pixel = if gaps { 0 } else { geometry.position(&strip) };
        let map = Tile { start: map.start.wrapping_add(pixel), cols: strip.cols, ..map };
        let (flat, thin) = (scratch.flat.as_mut_ptr(), scratch.thin.as_ptr());
        let place = Place { geometry, strip, pass, map, flat, thin };
        if all {
            // SAFETY: the caller keeps the contract; all columns are packed.
            return unsafe { self.few_columns(&place, packed) };
        }
        let whole = geometry.fill(planes, &strip, &mut scratch.table);
        let tiles = map.rows.div_ceil(K::MR);
        let vectors = strip.cols - strip.beside;
        let packs = vectors > K::LANES && pass.depth * K::NR <= scratch.panel.len() && {
            let bytes = (geometry.view_bytes(pass.channels, vectors), pass.depth * K::NR * size_of::<f32>());
            self.feeding.packs(tiles, !whole, bytes, scratch.l1)
        };
        let panel = scratch.panel.as_mut_ptr();
        let each = ahead.rows.div_ceil(tiles);
        let mut turns = Turns::new(Ahead::NOTHING, 1);
        if packs && !geometry.implicit.staged {
            turns = Turns::new(geometry.ahead_of_strip(planes, &next, pass.channels), tiles - 1);
        }
        for index in 0..tiles {
            if kernel.fetches_ahead() {
                ahead.prefetch(index, each);
            }
            let view = if packs && index > 0 {
                if vectors == K::NR && strip.beside == 0 && pass.given.is_none() && !gaps {
                    let i = index * K::MR;
                    let tile = Tile {
                        start: map.start.wrapping_add(i * map.ld),
                        rows: K::MR.min(map.rows - i),
                        ..map
                    };
                    let a = Panel::packed(pass.a.wrapping_add(index * pass.panel), K::MR);
                    // SAFETY: the caller keeps the contract for this panel of A and these rows of the map. The first
                    // tile has packed all depths of the panel of B.
                    unsafe {
                        let epilogue = pass.epilogue.below(i);
                        kernel.tile(pass.depth, a, (panel, K::NR), tile, &epilogue, &turns.next());
                    }
                    continue;
                }
                View::of_panel(panel, K::NR, pass.depth)
            } else {
                match packs {
                    true => geometry.look_below(planes, &mut scratch.table),
                    false => geometry.look_ahead([&strip, &next], index, &mut scratch.table),
                }
                let taps = scratch.table.taps();
                View {
                    start: geometry.start(planes, &strip),
                    channels: pass.channels,
                    pitch: planes.channel,
                    taps,
                    whole,
                    ..View::EMPTY
                }
            };
            // A panel of A that is being packed is in the cache already.
            let a_ahead = if pass.given.is_some() { 0 } else { A_AHEAD };
            let view = View { beside: strip.beside, thin, a_ahead, ..view };
            let pack = (packs && index == 0).then_some(panel);
            // SAFETY: the caller keeps the contract; the strip is inside of the map, and the planes hold all that its
            // taps see; lanes that would see more are masked. The first tile has packed the panel of B.
            unsafe { self.tile(&place, index, &view, pack) };
        }
    }

    /// Computes all tiles of a strip whose columns are all packed as columns beside vectors.
    ///
    /// # Safety
    /// The contract of [`ConvPlan::strip`].
    unsafe fn few_columns(&self, place: &Place, columns: usize) {
        let Place { pass, map, thin, .. } = *place;
        for index in 0..map.rows.div_ceil(K::MR) {
            // SAFETY: the caller keeps the contract.
            unsafe { self.pack_rows(place, index) };
        }
        // SAFETY: the caller keeps the contract; panels of A are packed to their end.
        unsafe { self.kernel.thin(pass.depth, pass.a, (thin, columns), map, &pass.epilogue) }
    }

    /// Packs panel `index` of A if weights are given.
    ///
    /// # Safety
    /// Weights of the map's rows are readable, and the panel is writable.
    unsafe fn pack_rows(&self, place: &Place, index: usize) {
        if let Some(block) = self.given_rows(place, index) {
            // SAFETY: the caller guarantees weights and panel.
            unsafe {
                self.kernel.transpose(&block);
                Self::clear_rest(&block);
            }
        }
    }

    /// The weights of panel `index` of A, if they are given.
    fn given_rows(&self, place: &Place, index: usize) -> Option<TransposeBlock> {
        let (pass, i) = (place.pass, index * K::MR);
        pass.given.map(|given| TransposeBlock {
            from: given[i * self.shape.depth..].as_ptr(),
            line: self.shape.depth,
            to: pass.a.wrapping_add(index * pass.panel),
            width: K::MR,
            lines: K::MR.min(place.map.rows - i),
            depths: pass.depth,
            more: false,
        })
    }

    /// Clears the missing rows of a panel of A for kernels that read panels to their end.
    ///
    /// # Safety
    /// The panel is writable.
    unsafe fn clear_rest(block: &TransposeBlock) {
        if K::THIN > 0 && block.lines < K::MR {
            // SAFETY: the caller guarantees it.
            let panel = unsafe { std::slice::from_raw_parts_mut(block.to, block.depths * K::MR) };
            clear_missing(panel, K::MR, block.lines);
        }
    }

    /// Computes tile `index` of a strip from a view of B, and packs B to `pack`.
    ///
    /// # Safety
    /// The contract of [`ConvPlan::strip`], and of [`Kernel::view_packing`] if B is to be packed.
    unsafe fn tile(&self, place: &Place, index: usize, view: &View, pack: Option<*mut f32>) {
        let Place { geometry, strip, pass, map, flat, thin } = *place;
        let (kernel, i, gaps) = (self.kernel, index * K::MR, geometry.gaps());
        let a = pass.a.wrapping_add(index * pass.panel).cast_const();
        let below = map.start.wrapping_add(i * map.ld);
        let mut tile = Tile { start: below, rows: K::MR.min(map.rows - i), ..map };
        // SAFETY: the caller keeps the contract for these rows of A and of the map.
        unsafe {
            let epilogue = pass.epilogue.below(i);
            if gaps {
                (tile.start, tile.ld) = (flat, K::NR);
                if epilogue.beta != 0.0 {
                    self.pixels((geometry, &strip), (flat, tile.rows), (below, map.ld), true);
                }
            }
            // With a single vector there is a load for each multiply-add. Two panels of A share the loads of B.
            let alone = !gaps && pass.given.is_none() && strip.beside == 0 && strip.cols <= K::LANES;
            if alone && tile.rows == K::MR && (!index.is_multiple_of(2) || map.rows - i >= 2 * K::MR) {
                if index.is_multiple_of(2) {
                    let both = Tile { rows: 2 * K::MR, ..tile };
                    kernel.view_two([a, a.add(pass.panel)], view, both, &epilogue);
                }
                return;
            }
            if let Some(panel) = pack {
                self.pack_rows(place, index);
                kernel.view_packing(a, view, panel, tile, &epilogue);
            } else if tile.rows < K::MR && strip.beside > 0 {
                // Columns beside vectors need a full panel of A.
                self.pack_rows(place, index);
                let wide = strip.cols - strip.beside;
                let rest = Tile { start: tile.start.add(wide), cols: strip.beside, ..tile };
                kernel.view(a, &View { beside: 0, ..*view }, Tile { cols: wide, ..tile }, &epilogue);
                kernel.thin(pass.depth, a, (thin, strip.beside), rest, &epilogue);
            } else if let Some(block) = self.given_rows(place, index) {
                kernel.view_packing_a(&block, view, tile, &epilogue);
                Self::clear_rest(&block);
            } else if view.padded && tile.cols == K::NR {
                let a = Panel::packed(a, K::MR);
                kernel.tile(pass.depth, a, (view.start, K::NR), tile, &epilogue, &NextRows::NOTHING);
            } else {
                kernel.view(a, view, tile, &epilogue);
            }
            if gaps {
                self.pixels((geometry, &strip), (flat, tile.rows), (below, map.ld), false);
            }
        }
    }

    /// Copies the pixels of a strip with gaps from a flat tile of some rows to C, or from C to the tile.
    ///
    /// # Safety
    /// The tile has rows of NR elements. C begins at the map's first pixel and fulfils the contract of
    /// [`Kernel::tile`].
    unsafe fn pixels(
        &self,
        (geometry, strip): (&Geometry, &Strip),
        (flat, rows): (*mut f32, usize),
        (map, ld): (*mut f32, usize),
        from_map: bool,
    ) {
        for (pixel, columns) in geometry.pixels(strip) {
            // SAFETY: pixels of the map and columns of the tile, which do not overlap.
            unsafe {
                let ((from, from_row), (to, to_row)) =
                    ((flat.add(columns.start), K::NR), (map.add(pixel), ld));
                let ((from, from_row), (to, to_row)) = if from_map {
                    ((to, to_row), (from, from_row))
                } else {
                    ((from, from_row), (to, to_row))
                };
                self.kernel.copy(&CopyBlock {
                    from,
                    from_row,
                    stride: 1,
                    to,
                    to_row,
                    rows,
                    len: columns.len(),
                    groups: 1,
                    from_group: 0,
                    to_group: 0,
                });
            }
        }
    }
}

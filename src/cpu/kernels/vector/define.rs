//! The macro that implements [`Kernel`](crate::cpu::kernels::Kernel) for a vector type, with all instances of its
//! tiles.

/// An array of a function's instances, one for each number of vectors. For views: each without and with masks.
macro_rules! for_vectors {
    ($function:ident, $rows:literal, ($($v:literal)*)) => { [$($function::<$rows, $v>),*] };
    ($function:ident of $columns:literal, ($($v:literal)*)) => {
        [$([$function::<$v, $columns, false>, $function::<$v, $columns, true>]),*]
    };
    ($function:ident, $rows:literal, $columns:literal, ($($v:literal)*)) => {
        [$([$function::<$rows, $v, $columns, false>, $function::<$rows, $v, $columns, true>]),*]
    };
}
pub(in crate::cpu) use for_vectors;

/// Implements [`Kernel`](crate::cpu::kernels::Kernel) for a proof type on a vector type. Both need `$features`.
macro_rules! define_vector_kernel {
    ($type:ty, $vector:ty, $isa:literal, $mr:literal x $nr:literal, $features:literal, rows: $($rows:literal)*, vectors: $vectors:tt, columns: $($columns:literal)*; $($thin:tt)*) => {
        impl $crate::cpu::kernels::contract::Kernel for $type {
            const MR: usize = $mr;
            const NR: usize = $nr;
            const LANES: usize = <$vector as $crate::cpu::kernels::vector::register::Vector>::LANES;
            const SGEMM: &'static str = concat!("sgemm_", $isa, "_", $mr, "x", $nr);
            const CONV: &'static str = concat!("conv_igemm_", $isa, "_", $mr, "x", $nr);
            const DOTS: &'static str = concat!("conv_dots_", $isa);
            const CHANNELS_LAST: &'static str = concat!("conv_channels_last_", $isa, "_", $mr, "x", $nr);
            const CHANNELWISE_NAME: &'static str = concat!("conv_depthwise_channels_last_", $isa);

            unsafe fn tile(
                self,
                depth: usize,
                a: $crate::cpu::kernels::contract::Panel,
                b: (*const f32, usize),
                c: $crate::cpu::kernels::contract::Tile,
                epilogue: &$crate::cpu::kernels::contract::Epilogue,
                next: &$crate::cpu::kernels::contract::NextRows,
            ) {
                use $crate::cpu::kernels::contract::{Epilogue, NextRows, Panel, Tile};

                #[target_feature(enable = $features)]
                unsafe fn packed<const M: usize, const V: usize>(
                    depth: usize,
                    a: Panel,
                    b: (*const f32, usize),
                    c: Tile,
                    epilogue: &Epilogue,
                    next: &NextRows,
                ) {
                    let (a, b) = (Panel::packed(a.start, $mr), (b.0, $nr, std::ptr::null_mut()));
                    // SAFETY: the caller keeps the contract of Kernel::tile.
                    unsafe { $crate::cpu::kernels::vector::tile::tile::<$vector, M, V, { $crate::cpu::kernels::vector::tile::FETCHING }, $mr, $nr>(depth, a, b, c, epilogue, next) }
                }
                #[target_feature(enable = $features)]
                unsafe fn in_place<const M: usize, const V: usize>(
                    depth: usize,
                    a: Panel,
                    b: (*const f32, usize),
                    c: Tile,
                    epilogue: &Epilogue,
                    next: &NextRows,
                ) {
                    let b = (b.0, b.1, std::ptr::null_mut());
                    // SAFETY: as above.
                    unsafe { $crate::cpu::kernels::vector::tile::tile::<$vector, M, V, { $crate::cpu::kernels::vector::tile::IN_PLACE }, $mr, $nr>(depth, a, b, c, epilogue, next) }
                }
                type Instance = unsafe fn(usize, Panel, (*const f32, usize), Tile, &Epilogue, &NextRows);
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::register::Vector>::LANES;
                const PACKED: [[Instance; V]; $mr] = [$(for_vectors!(packed, $rows, $vectors)),*];
                const IN_PLACE: [[Instance; V]; $mr] = [$(for_vectors!(in_place, $rows, $vectors)),*];
                let is_packed = (a.row, a.step, b.1) == (1, $mr, $nr);
                let table = if is_packed { &PACKED } else { &IN_PLACE };
                let instance = table[c.rows - 1][c.cols.div_ceil(Self::LANES) - 1];
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the
                // features.
                unsafe { instance(depth, a, b, c, epilogue, next) }
            }

            unsafe fn tile_packing(
                self,
                depth: usize,
                a: *const f32,
                b: (*const f32, usize),
                packed: *mut f32,
                c: $crate::cpu::kernels::contract::Tile,
                epilogue: &$crate::cpu::kernels::contract::Epilogue,
            ) {
                use $crate::cpu::kernels::contract::{Epilogue, Panel, Tile};

                #[target_feature(enable = $features)]
                unsafe fn compiled(
                    depth: usize,
                    a: Panel,
                    b: (*const f32, usize, *mut f32),
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    // SAFETY: the caller keeps the contract of Kernel::tile_packing.
                    unsafe {
                        $crate::cpu::kernels::vector::tile::tile::<$vector, $mr, V, { $crate::cpu::kernels::vector::tile::PACKING }, $mr, $nr>(depth, a, b, c, epilogue, &$crate::cpu::kernels::contract::NextRows::NOTHING)
                    }
                }
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::register::Vector>::LANES;
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(depth, Panel::packed(a, $mr), (b.0, b.1, packed), c, epilogue) }
            }

            unsafe fn tile_packing_a(
                self,
                depth: usize,
                a: (*const f32, usize),
                b: *const f32,
                packed: *mut f32,
                c: $crate::cpu::kernels::contract::Tile,
                epilogue: &$crate::cpu::kernels::contract::Epilogue,
            ) {
                use $crate::cpu::kernels::contract::{Epilogue, Panel, Tile};

                #[target_feature(enable = $features)]
                unsafe fn compiled(
                    depth: usize,
                    (start, row): (*const f32, usize),
                    (b, packed): (*const f32, *mut f32),
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    let (a, b) = (Panel { start, row, step: 1 }, (b, $nr, packed));
                    // SAFETY: the caller keeps the contract of Kernel::tile_packing_a.
                    unsafe {
                        $crate::cpu::kernels::vector::tile::tile::<$vector, $mr, V, { $crate::cpu::kernels::vector::tile::PACKING_A }, $mr, $nr>(depth, a, b, c, epilogue, &$crate::cpu::kernels::contract::NextRows::NOTHING)
                    }
                }
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::register::Vector>::LANES;
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(depth, a, (b, packed), c, epilogue) }
            }

            const MASKS: bool = <$vector as Vector>::FREE_MASKS;
            const BESIDE: usize = {
                const COLUMNS: &[usize] = &[$($columns),*];
                COLUMNS.len()
            };

            unsafe fn view(
                self,
                a: *const f32,
                b: &$crate::cpu::kernels::contract::View,
                c: $crate::cpu::kernels::contract::Tile,
                epilogue: &$crate::cpu::kernels::contract::Epilogue,
            ) {
                use $crate::cpu::kernels::contract::{Epilogue, Tile, View};

                #[target_feature(enable = $features)]
                unsafe fn compiled<const M: usize, const V: usize, const X: usize, const MASKED: bool>(
                    a: *const f32,
                    b: &View,
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    // SAFETY: the caller keeps the contract of Kernel::view.
                    unsafe { $crate::cpu::kernels::vector::view::view::<$vector, M, V, X, MASKED>($mr, a, b, c, epilogue) }
                }
                type Instance = unsafe fn(*const f32, &View, Tile, &Epilogue);
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::register::Vector>::LANES;
                const TILES: [[[Instance; 2]; V]; $mr] =
                    [$(for_vectors!(compiled, $rows, 0, $vectors)),*];
                const BESIDE: &[[[Instance; 2]; V]] =
                    &[$(for_vectors!(compiled, $mr, $columns, $vectors)),*];
                let vectors = (c.cols - b.beside).div_ceil(Self::LANES) - 1;
                let table = if b.beside == 0 { &TILES[c.rows - 1] } else { &BESIDE[b.beside - 1] };
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the
                // features.
                unsafe { table[vectors][usize::from(!b.whole)](a, b, c, epilogue) }
            }

            unsafe fn view_packing(
                self,
                a: *const f32,
                b: &$crate::cpu::kernels::contract::View,
                packed: *mut f32,
                c: $crate::cpu::kernels::contract::Tile,
                epilogue: &$crate::cpu::kernels::contract::Epilogue,
            ) {
                use $crate::cpu::kernels::contract::{Epilogue, Tile, View};

                #[target_feature(enable = $features)]
                unsafe fn compiled<const V: usize, const X: usize, const MASKED: bool>(
                    a: *const f32,
                    b: &View,
                    packed: *mut f32,
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    // SAFETY: the caller keeps the contract of Kernel::view_packing.
                    unsafe { $crate::cpu::kernels::vector::view::view_packing::<$vector, $mr, V, X, MASKED, $nr>(a, b, packed, c, epilogue) }
                }
                type Instance = unsafe fn(*const f32, &View, *mut f32, Tile, &Epilogue);
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::register::Vector>::LANES;
                const TILES: &[[[Instance; 2]; V]] = &[for_vectors!(compiled of 0, $vectors), $(for_vectors!(compiled of $columns, $vectors)),*];
                let vectors = (c.cols - b.beside).div_ceil(Self::LANES) - 1;
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the features.
                unsafe { TILES[b.beside][vectors][usize::from(!b.whole)](a, b, packed, c, epilogue) }
            }

            unsafe fn view_two(
                self,
                a: [*const f32; 2],
                b: &$crate::cpu::kernels::contract::View,
                c: $crate::cpu::kernels::contract::Tile,
                epilogue: &$crate::cpu::kernels::contract::Epilogue,
            ) {
                use $crate::cpu::kernels::contract::{Epilogue, Tile, View};

                #[target_feature(enable = $features)]
                unsafe fn compiled<const MASKED: bool>(a: [*const f32; 2], b: &View, c: Tile, epilogue: &Epilogue) {
                    // SAFETY: the caller keeps the contract of Kernel::view_two.
                    unsafe { $crate::cpu::kernels::vector::view::view_two::<$vector, $mr, MASKED>(a, b, c, epilogue) }
                }
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the features.
                unsafe { if b.whole { compiled::<false>(a, b, c, epilogue) } else { compiled::<true>(a, b, c, epilogue) } }
            }

            unsafe fn runs(self, tile: &$crate::cpu::kernels::contract::RunTile) {
                use $crate::cpu::kernels::contract::RunTile;

                #[target_feature(enable = $features)]
                unsafe fn compiled<const M: usize, const V: usize>(tile: &RunTile) {
                    // SAFETY: the caller keeps the contract of Kernel::runs.
                    unsafe { $crate::cpu::kernels::vector::pixels::runs::<$vector, M, V, $nr>(tile) }
                }
                type Instance = unsafe fn(&RunTile);
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::register::Vector>::LANES;
                const TILES: [[Instance; V]; $mr] = [$(for_vectors!(compiled, $rows, $vectors)),*];
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { TILES[tile.c.rows - 1][tile.c.cols.div_ceil(Self::LANES) - 1](tile) }
            }

            unsafe fn channelwise(self, tile: &$crate::cpu::kernels::contract::ChannelwiseTile) {
                #[target_feature(enable = $features)]
                unsafe fn compiled(tile: &$crate::cpu::kernels::contract::ChannelwiseTile) {
                    // SAFETY: the caller keeps the contract of Kernel::channelwise.
                    unsafe { $crate::cpu::kernels::vector::pixels::channelwise::<$vector>(tile) }
                }
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(tile) }
            }

            $($thin)*

            unsafe fn dots(self, dots: &$crate::cpu::kernels::contract::Dots) {
                #[target_feature(enable = $features)]
                unsafe fn compiled(dots: &$crate::cpu::kernels::contract::Dots) {
                    // SAFETY: the caller keeps the contract of Kernel::dots.
                    unsafe { $crate::cpu::kernels::vector::dots::on_vectors::<$vector>(dots) }
                }
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(dots) }
            }

            unsafe fn transpose(self, block: &$crate::cpu::kernels::contract::TransposeBlock) {
                // SAFETY: the caller keeps the contract of Kernel::transpose; that `self` exists proves that this
                // CPU has AVX2.
                unsafe { $crate::cpu::kernels::transpose::by_eights(block) }
            }

            unsafe fn copy(self, part: &$crate::cpu::kernels::contract::CopyBlock) {
                #[target_feature(enable = $features)]
                unsafe fn compiled(part: &$crate::cpu::kernels::contract::CopyBlock) {
                    // SAFETY: the caller keeps the contract of Kernel::copy.
                    unsafe { $crate::cpu::kernels::vector::copy::copy::<$vector>(part) }
                }
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(part) }
            }
        }
    };
}
pub(in crate::cpu) use define_vector_kernel;

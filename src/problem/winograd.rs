//! The rules for Winograd's algorithm F(m x m, 3 x 3) that all backends share.
//!
//! Accuracy: on uniform random data the largest error of an accurate form stays within a quarter of the direct
//! algorithm's bound. Measured largest error over that bound (padding 1; `cpu::winograd::tests` measures it again):
//!
//! | channels of a group | F(2x2) | F(4x4) | F(6x6) |
//! |---|---|---|---|
//! | 16 | 0.013 | 0.10 | 0.41 |
//! | 32 | 0.006 | 0.05 | 0.23 |
//! | 64 | 0.003 | 0.03 | 0.10 |
//! | 256 | 0.001 | 0.006 | 0.02 |

use super::conv2d::Conv2dSizes;

/// Whether Winograd's algorithm can compute a convolution of these sizes: 3 x 3 kernels, stride 1 and dilation 1.
pub fn is_supported(sizes: &Conv2dSizes) -> bool {
    let Conv2dSizes { r, s, stride_h, stride_w, dilation_h, dilation_w, .. } = *sizes;
    (r, s, stride_h, stride_w, dilation_h, dilation_w) == (3, 3, 1, 1, 1, 1)
}

/// Whether F(m x m, 3 x 3) is accurate enough for [`Algorithm::Auto`](super::Algorithm::Auto).
///
/// `sizes` must be supported ([`is_supported`]).
pub fn is_accurate(sizes: &Conv2dSizes, m: usize) -> bool {
    sees_enough(sizes) && sizes.c / sizes.groups >= min_channels(m)
}

/// The fewest input channels of a group for which the error of F(m x m, 3 x 3) stays within a quarter of the direct
/// bound: the error grows with m and falls with the number of channels.
pub fn min_channels(m: usize) -> usize {
    match m {
        2 => 1,
        4 => 16,
        _ => 64,
    }
}

/// Whether every output sees at least two rows and two columns of its kernel. The error of an output is that of its
/// whole tile, but its bound shrinks with the number of pixels it sees.
fn sees_enough(sizes: &Conv2dSizes) -> bool {
    let enough = |before: usize, after: usize, side: usize| before.max(after) <= 1 && side >= 2;
    enough(sizes.pad_h, sizes.pad_bottom, sizes.h) && enough(sizes.pad_w, sizes.pad_right, sizes.w)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Conv2d, Conv2dDesc};

    fn sizes(desc: Conv2dDesc) -> Conv2dSizes {
        *Conv2d::new(desc).unwrap().sizes()
    }

    fn square() -> Conv2dDesc {
        Conv2dDesc { c: 64, h: 9, w: 9, k: 4, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() }
    }

    #[test]
    fn only_3x3_kernels_with_stride_and_dilation_1_are_supported() {
        let square = square();
        assert!(is_supported(&sizes(square)));
        assert!(is_supported(&sizes(Conv2dDesc { groups: 2, ..square })));
        for other in [
            Conv2dDesc { r: 1, ..square },
            Conv2dDesc { s: 5, ..square },
            Conv2dDesc { stride_h: 2, ..square },
            Conv2dDesc { stride_w: 3, ..square },
            Conv2dDesc { dilation_h: 2, ..square },
            Conv2dDesc { dilation_w: 2, ..square },
        ] {
            assert!(!is_supported(&sizes(other)), "{other:?}");
        }
    }

    #[test]
    fn accuracy_needs_channels_and_visible_pixels() {
        let square = square();
        let accurate = |desc| [2, 4, 6].map(|m| is_accurate(&sizes(desc), m));
        for (c, groups, expected) in [
            (64, 1, [true, true, true]),
            (63, 1, [true, true, false]),
            (64, 2, [true, true, false]),
            (16, 1, [true, true, false]),
            (15, 1, [true, false, false]),
            (16, 2, [true, false, false]),
            (1, 1, [true, false, false]),
        ] {
            assert_eq!(accurate(Conv2dDesc { c, groups, ..square }), expected, "{c} in {groups}");
        }
        for few in [
            Conv2dDesc { pad_h: 2, ..square },
            Conv2dDesc { pad_w: 2, ..square },
            Conv2dDesc { pad_bottom: Some(2), ..square },
            Conv2dDesc { pad_right: Some(2), ..square },
            Conv2dDesc { h: 1, ..square },
            Conv2dDesc { w: 1, ..square },
        ] {
            assert_eq!(accurate(few), [false; 3], "{few:?}");
        }
        assert_eq!(accurate(Conv2dDesc { h: 2, w: 2, pad_w: 1, ..square }), [true; 3]);
    }
}

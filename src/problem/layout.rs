//! The order of a tensor's elements in memory. All tensors are contiguous.

/// The order of an image's channels and pixels in memory, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TensorLayout {
    /// `[n][c][h][w]`: channel by channel. In Fortran `x(w, h, c, n)`.
    #[default]
    Nchw,
    /// `[n][h][w][c]`: the channels of a pixel side by side. In Fortran `x(c, w, h, n)`.
    Nhwc,
}

/// The order of weights in memory, slowest first. O are the output channels, I the input channels of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsLayout {
    /// `[k][c/groups][r][s]`. In Fortran `w(s, r, c/groups, k)`.
    #[default]
    Oihw,
    /// `[r][s][c/groups][k]`, as TensorFlow has them. In Fortran `w(k, c/groups, s, r)`.
    Hwio,
    /// `[k][r][s][c/groups]`. In Fortran `w(c/groups, s, r, k)`.
    Ohwi,
}

/// Distances between neighbours of an image tensor, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorStrides {
    /// From an image to the next.
    pub image: usize,
    /// From a channel to the next.
    pub channel: usize,
    /// From a row to the next.
    pub row: usize,
    /// From a column to the next.
    pub column: usize,
}

/// Distances between neighbours in the weights, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightsStrides {
    /// From an output channel to the next.
    pub k: usize,
    /// From an input channel to the next.
    pub c: usize,
    /// From a row of the kernel to the next.
    pub r: usize,
    /// From a column of the kernel to the next.
    pub s: usize,
}

impl TensorLayout {
    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            TensorLayout::Nchw => "nchw",
            TensorLayout::Nhwc => "nhwc",
        }
    }

    /// The strides of images of `channels` channels and `height` x `width` pixels.
    pub fn strides(self, channels: usize, height: usize, width: usize) -> TensorStrides {
        let image = channels * height * width;
        match self {
            TensorLayout::Nchw => TensorStrides { image, channel: height * width, row: width, column: 1 },
            TensorLayout::Nhwc => {
                TensorStrides { image, channel: 1, row: width * channels, column: channels }
            }
        }
    }
}

impl TensorStrides {
    /// The offset of one element.
    pub fn at(&self, image: usize, channel: usize, row: usize, column: usize) -> usize {
        image * self.image + channel * self.channel + row * self.row + column * self.column
    }
}

impl WeightsLayout {
    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            WeightsLayout::Oihw => "oihw",
            WeightsLayout::Hwio => "hwio",
            WeightsLayout::Ohwi => "ohwi",
        }
    }

    /// The strides of `k` filters of `c` channels and `r` x `s` taps.
    pub fn strides(self, k: usize, c: usize, r: usize, s: usize) -> WeightsStrides {
        match self {
            WeightsLayout::Oihw => WeightsStrides { k: c * r * s, c: r * s, r: s, s: 1 },
            WeightsLayout::Hwio => WeightsStrides { k: 1, c: k, r: s * c * k, s: c * k },
            WeightsLayout::Ohwi => WeightsStrides { k: r * s * c, c: 1, r: s * c, s: c },
        }
    }
}

impl WeightsStrides {
    /// The offset of one weight.
    pub fn at(&self, k: usize, c: usize, r: usize, s: usize) -> usize {
        k * self.k + c * self.c + r * self.r + s * self.s
    }
}

/// Padding before and after `input` elements for which the output has `input / stride` elements, rounded up: what
/// TensorFlow calls SAME. If the sum is odd, there is one element more after them.
pub(super) fn same_padding(input: i64, kernel: i64, stride: i64, dilation: i64) -> Option<(i64, i64)> {
    let outputs = input.checked_add(stride.checked_sub(1)?)?.checked_div(stride)?;
    let extent = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    let seen = outputs.checked_sub(1)?.checked_mul(stride)?.checked_add(extent)?;
    let all = seen.checked_sub(input)?.max(0);
    Some((all / 2, all - all / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element has its own offset, and the last one is at the end.
    #[test]
    fn strides_number_all_elements() {
        let (channels, height, width) = (3, 4, 5);
        for layout in [TensorLayout::Nchw, TensorLayout::Nhwc] {
            let strides = layout.strides(channels, height, width);
            let mut seen = vec![false; 2 * channels * height * width];
            for index in 0..seen.len() {
                let (x, rest) = (index % width, index / width);
                let (y, rest) = (rest % height, rest / height);
                let at = strides.at(rest / channels, rest % channels, y, x);
                assert!(!std::mem::replace(&mut seen[at], true), "{layout:?} {at}");
            }
        }
        let (k, c, r, s) = (2, 3, 4, 5);
        for layout in [WeightsLayout::Oihw, WeightsLayout::Hwio, WeightsLayout::Ohwi] {
            let strides = layout.strides(k, c, r, s);
            let mut seen = vec![false; k * c * r * s];
            for index in 0..seen.len() {
                let (x, rest) = (index % s, index / s);
                let (y, rest) = (rest % r, rest / r);
                let at = strides.at(rest / c, rest % c, y, x);
                assert!(!std::mem::replace(&mut seen[at], true), "{layout:?} {at}");
            }
        }
        assert_eq!(WeightsLayout::Hwio.strides(k, c, r, s).at(1, 2, 3, 4), ((3 * 5 + 4) * 3 + 2) * 2 + 1);
        assert_eq!(TensorLayout::Nhwc.strides(3, 4, 5).at(1, 2, 3, 4), ((4 + 3) * 5 + 4) * 3 + 2);
    }

    /// Worked by hand from TensorFlow's rule.
    #[test]
    fn same_padding_is_tensorflows() {
        assert_eq!(same_padding(224, 3, 2, 1), Some((0, 1)));
        assert_eq!(same_padding(224, 7, 2, 1), Some((2, 3)));
        assert_eq!(same_padding(225, 3, 2, 1), Some((1, 1)));
        assert_eq!(same_padding(5, 3, 1, 1), Some((1, 1)));
        assert_eq!(same_padding(5, 4, 1, 1), Some((1, 2)));
        assert_eq!(same_padding(9, 3, 1, 2), Some((2, 2)));
        assert_eq!(same_padding(8, 1, 4, 1), Some((0, 0)));
        assert_eq!(same_padding(8, 1, 0, 1), None);
        assert_eq!(same_padding(i64::MAX, 3, 2, 1), None);
    }
}

//! The constants at the head of a generated shader, and the sizes of a convolution that they state.

use super::plan::ShaderSource;
use crate::problem::{Conv2d, Conv2dSizes, TensorLayout, WeightsLayout};
use crate::shader::source::NUMBERS;

/// Workgroups in one row of the grid, if the grid has several rows. Every driver supports this many. It is a constant because
/// reading the grid's size takes a shader 0.2 us (H100).
pub const GRID_X: u32 = 65535;

/// The `#define` lines at the head of a shader.
#[derive(Debug, Clone, Default)]
pub(super) struct Defines(String);

impl Defines {
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.0.push_str(&format!("#define {name} {value}\n"));
        self
    }

    pub fn size(self, name: &str, value: usize) -> Self {
        self.text(name, &value.to_string())
    }

    pub fn flag(self, name: &str, value: bool) -> Self {
        self.size(name, usize::from(value))
    }

    /// Defines the type of elements that are accessed four at a time, or one at a time.
    pub fn vector(self, name: &str, four: bool) -> Self {
        self.text(name, if four { "vec4" } else { "float" })
    }

    /// Defines the widest aligned store to lines of `width` elements, if an invocation has `available` neighbours to store.
    pub fn stored(self, width: usize, available: usize) -> Self {
        let (stored, store) = match width {
            _ if available == 4 && width.is_multiple_of(4) => (4, "vec4"),
            _ if width.is_multiple_of(2) => (2, "vec2"),
            _ => (1, "float"),
        };
        self.size("STORED", stored).text("STORE", store)
    }

    /// Completes the shader `name`: the version, these lines, then `bodies`.
    pub fn source(&self, name: &str, bodies: &[&str]) -> ShaderSource {
        let bodies = bodies.join("\n");
        let numbers = if bodies.contains("relu(") { NUMBERS } else { "" };
        // NVIDIA's compiler unrolls only loops that it is told to unroll; other compilers ignore the line.
        let head = "#version 430 core\n#pragma optionNV(unroll all)";
        let text =
            format!("{head}\n// {name}\n{}const uint GRID_X = {GRID_X}u;\n\n{numbers}\n{bodies}", self.0);
        ShaderSource { name: name.to_owned(), text }
    }
}

/// The sizes of a convolution. Its memory need not be an image: batched products are 1x1 convolutions of one long row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub sizes: Conv2dSizes,
    /// Elements between channels of the input.
    pub channel_stride: usize,
    pub bias: bool,
    pub relu: bool,
}

impl Shape {
    pub fn of(problem: &Conv2d) -> Self {
        let sizes = *problem.sizes();
        Shape {
            sizes,
            channel_stride: sizes.input_strides().channel,
            bias: problem.bias(),
            relu: problem.relu(),
        }
    }

    /// `count` products of `rows` x `depth` by `depth` x `cols` matrices: 1x1 convolutions of one row, one group each.
    pub fn products(count: usize, (rows, depth, cols): (usize, usize, usize), channel_stride: usize) -> Self {
        let sizes = Conv2dSizes {
            n: 1,
            c: count * depth,
            h: 1,
            w: cols,
            k: count * rows,
            p: 1,
            q: cols,
            groups: count,
            r: 1,
            s: 1,
            stride_h: 1,
            stride_w: 1,
            pad_h: 0,
            pad_w: 0,
            pad_bottom: 0,
            pad_right: 0,
            dilation_h: 1,
            dilation_w: 1,
            input_layout: TensorLayout::Nchw,
            output_layout: TensorLayout::Nchw,
            weights_layout: WeightsLayout::Oihw,
        };
        Shape { sizes, channel_stride, bias: false, relu: false }
    }

    pub fn rows(&self) -> usize {
        self.sizes.k / self.sizes.groups
    }

    pub fn channels(&self) -> usize {
        self.sizes.c / self.sizes.groups
    }

    pub fn pixels(&self) -> usize {
        self.sizes.p * self.sizes.q
    }

    pub fn output_len(&self) -> usize {
        self.sizes.n * self.sizes.k * self.pixels()
    }

    /// Whether the kernel can read pixels four at a time.
    pub fn reads_vectors(&self) -> bool {
        let Conv2dSizes { r, s, stride_h, stride_w, .. } = self.sizes;
        (r, s, stride_h, stride_w) == (1, 1, 1, 1)
            && !self.sizes.is_padded()
            && self.sizes.input_layout == TensorLayout::Nchw
            && self.pixels().is_multiple_of(4)
            && self.channel_stride.is_multiple_of(4)
    }

    /// Elements from an image to the next.
    pub fn image_stride(&self) -> usize {
        match self.sizes.input_layout {
            TensorLayout::Nchw => self.sizes.c * self.channel_stride,
            TensorLayout::Nhwc => self.sizes.input_strides().image,
        }
    }

    /// Neighbouring outputs of a row that the kernel can write at once, of `most`: whole rows of vectors.
    pub fn stored_width(&self) -> usize {
        if self.writes_rows() { self.sizes.q } else { 1 }
    }

    /// Whether neighbouring pixels of a channel are neighbours in the output.
    pub fn writes_rows(&self) -> bool {
        self.sizes.output_layout == TensorLayout::Nchw
    }

    pub fn defines(&self) -> Defines {
        let Conv2dSizes { n, h, w, r, s, p, q, groups, .. } = self.sizes;
        let Conv2dSizes { stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, .. } = self.sizes;
        let defines =
            Defines::default().size("N", n).size("CHANNELS", self.channels()).size("H", h).size("W", w);
        let defines = defines.size("ROWS", self.rows()).size("GROUPS", groups).size("P", p).size("Q", q);
        let defines = defines.size("R", r).size("S", s).size("STRIDE_H", stride_h).size("STRIDE_W", stride_w);
        let defines = defines.size("PAD_H", pad_h).size("PAD_W", pad_w);
        let (image, out, kernel) =
            (self.sizes.input_strides(), self.sizes.output_strides(), self.sizes.weights_strides());
        let defines = defines.size("IMAGE_CHANNEL", self.channel_stride);
        let defines = defines.size("IMAGE_ROW", image.row).size("IMAGE_PIXEL", image.column);
        let defines = defines.size("OUT_CHANNEL", out.channel).size("OUT_PIXEL", out.column);
        let defines = defines.size("KERNEL_K", kernel.k).size("KERNEL_C", kernel.c);
        let defines = defines.size("KERNEL_R", kernel.r).size("KERNEL_S", kernel.s);
        defines.size("DILATION_H", dilation_h).size("DILATION_W", dilation_w)
    }

    /// Adds bias and ReLU to `defines`; neither of them unless `finish`.
    pub fn with_epilogue(&self, defines: Defines, finish: bool) -> Defines {
        defines.flag("BIAS", finish && self.bias).flag("RELU", finish && self.relu)
    }
}

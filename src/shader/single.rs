//! One-pass convolution kernels with the reference interface, which existing programs compile and run themselves.
//!
//! The plans of [`pass_plan`](mod@super::pass_plan) pack weights and may have several passes. Programs for the reference
//! interface do neither. [`Single`] is for them. Like `conv_reference_64`, it has input, weights, output and ten integers at
//! bindings 0 to 3. Any grid covers every output.

use std::fmt;

use super::iterations;
use super::pass_plan::ShaderSource;
use super::source::CONV_REFERENCE;
use crate::error::{Error, Result};
use crate::problem::{Conv2d, Conv2dSizes};

/// The line that marks a shader whose invocations stride over all work, however small the grid is.
pub const ANY_GRID: &str = "// any grid";

/// A one-pass kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Single {
    /// Threads of a workgroup along pixels and along output channels; powers of two.
    pub threads: [usize; 2],
    /// Output channels of a thread.
    pub rows: usize,
    /// Pixels of a thread.
    pub columns: usize,
    /// Whether slices of the reduction are staged in shared memory.
    pub shared: bool,
    /// Independent accumulators per output: 1 or 2.
    pub chains: usize,
}

/// The properties that a program asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Threads of a workgroup along pixels and along output channels.
    pub threads: [usize; 2],
    /// Approximate number of registers that a thread may use.
    pub registers: usize,
    /// Whether to use shared memory.
    pub shared: bool,
    /// Independent accumulators per output: 1 or 2.
    pub chains: usize,
}

/// The line that states the loop iterations of a tile.
const ITERATIONS: &str = "#define ITERATIONS ";
/// Threads of a workgroup that every device supports.
const MAX_THREADS: usize = 1024;
/// Registers for addresses and the like.
const ADDRESS_REGISTERS: usize = 16;
/// Rows and columns of a thread, sorted by multiply-adds per operand.
const TILES: [(usize, usize); 16] = [
    (8, 8),
    (8, 4),
    (4, 8),
    (4, 4),
    (8, 2),
    (2, 8),
    (4, 2),
    (2, 4),
    (2, 2),
    (8, 1),
    (1, 8),
    (4, 1),
    (1, 4),
    (2, 1),
    (1, 2),
    (1, 1),
];
/// Steps of the reduction in a slice.
const SLICE: usize = 8;

impl Single {
    /// Chooses the kernel nearest to `request`: the largest tile whose accumulators and operands fit in the registers.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for threads or chains that some device does not support.
    pub fn new(request: &Request, problem: &Conv2d) -> Result<Self> {
        let Request { threads: [x, y], registers, shared, chains } = *request;
        let sound = x.is_power_of_two() && y.is_power_of_two() && x.saturating_mul(y) <= MAX_THREADS;
        if !sound {
            let expected = format!("powers of two whose product is at most {MAX_THREADS}");
            return Err(Error::invalid("threads", format!("{x} x {y}"), expected));
        }
        if !(1..=2).contains(&chains) {
            return Err(Error::invalid("chains", chains, "1 or 2"));
        }
        let fits = |&(rows, columns): &(usize, usize)| {
            // Rows beyond the last channel would be wasted work.
            let useful = rows == 1 || y * rows / 2 < problem.sizes().k;
            // With shared memory a thread stays in its column: there are at most as many columns as threads.
            let columns_fit = !shared || columns <= y;
            useful && columns_fit && chains * rows * columns + rows + columns + ADDRESS_REGISTERS <= registers
        };
        let (rows, columns) = TILES.into_iter().find(fits).unwrap_or((1, 1));
        Ok(Single { threads: [x, y], rows, columns, shared, chains })
    }

    /// Generates the GLSL for `problem`. The text is the same for every batch size.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what the interface cannot express or its indices cannot hold.
    pub fn source(&self, problem: &Conv2d) -> Result<ShaderSource> {
        let Conv2dSizes { c, h, w, k, r, s, p, q, .. } = *problem.sizes();
        let Conv2dSizes { stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, .. } =
            *problem.sizes();
        if (dilation_h, dilation_w, groups) != (1, 1, 1) || problem.bias() || problem.relu() {
            let expected = "one group, dilation 1, no bias and no ReLU: the reference interface has none";
            return Err(Error::invalid("desc", "another convolution", expected));
        }
        if !problem.sizes().is_plain() {
            let expected =
                "input and output in NCHW and weights in OIHW: the reference interface has no other";
            return Err(Error::invalid("desc", "another layout", expected));
        }
        let image = problem.with_batch(1);
        let (high, wide) = problem.sizes().padded();
        let longest = [image.input_len(), image.weights_len(), image.output_len(), high, wide];
        if let Some(length) = longest.into_iter().find(|&length| length >= 1 << 31) {
            return Err(Error::invalid("desc", format!("{length} elements"), "fewer than 2^31"));
        }
        let square = r == s && stride_h == stride_w && pad_h == pad_w && problem.sizes().is_symmetric();
        let [x, y] = self.threads;
        let sizes = [
            ("IN_C", c),
            ("IN_H", h),
            ("IN_W", w),
            ("OUT_K", k),
            ("R", r),
            ("S", s),
            ("OUT_P", p),
            ("OUT_Q", q),
            ("STRIDE_H", stride_h),
            ("STRIDE_W", stride_w),
            ("PAD_H", pad_h),
            ("PAD_W", pad_w),
            ("THREADS_X", x),
            ("THREADS_Y", y),
            ("TM", self.rows),
            ("TN", self.columns),
            ("BK", SLICE),
            ("CHAINS", self.chains),
        ];
        let sizes: String = sizes.iter().map(|(name, size)| format!("#define {name} {size}u\n")).collect();
        let iterations = self.iterations(problem);
        let (sizes, each) = (format!("{sizes}{ITERATIONS}{iterations}u\n"), self.written_out());
        let name = self.to_string();
        let text = format!(
            "#version 430 core\n#pragma optionNV(unroll all)\n// {name}\n{ANY_GRID}\n{sizes}\
             #define SHARED {}\n#define SQUARE {}\n#define FOR_CALLERS 1\n{each}\n\
             layout(local_size_x = {x}, local_size_y = {y}, local_size_z = 1) in;\n\n{}\n{}",
            u32::from(self.shared),
            u32::from(square),
            reference_part(),
            include_str!("../../glsl/conv_single.comp"),
        );
        Ok(ShaderSource { name, text })
    }
}

impl Single {
    /// Loop iterations of an invocation for one tile.
    fn iterations(&self, problem: &Conv2d) -> usize {
        let [x, y] = self.threads;
        let loads = [(SLICE * y * self.rows).div_ceil(x * y), SLICE.div_ceil((y / self.columns).max(1))];
        iterations::single(problem, self.shared.then_some((SLICE, loads)), self.chains)
    }

    /// Macros that unroll code over each row, column and accumulator of a thread's tile.
    fn written_out(&self) -> String {
        let each = |name: &str, numbers: std::ops::Range<usize>, of_row: bool| {
            let call =
                |number: usize| if of_row { format!(" DO(i, {number}u)") } else { format!(" DO({number}u)") };
            let arguments = if of_row { "DO, i" } else { "DO" };
            format!("#define {name}({arguments}){}\n", numbers.map(call).collect::<String>())
        };
        let (rows, columns) =
            (each("EACH_ROW", 0..self.rows, false), each("EACH_COLUMN", 0..self.columns, true));
        let chains =
            each("EACH_CHAIN", 0..self.chains, false) + &each("EACH_OTHER_CHAIN", 1..self.chains, false);
        rows + &columns + &chains
    }
}

/// Reads the loop iterations of a tile from the text of a kernel; `None` if [`Single::source`] did not generate the text.
pub fn iterations_of(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(ITERATIONS))?;
    line.strip_suffix('u')?.parse().ok()
}

impl fmt::Display for Single {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Single { threads: [x, y], rows, columns, shared, chains } = self;
        write!(f, "conv_single_{x}x{y}_t{rows}x{columns}")?;
        f.write_str(if *shared { "_shared" } else { "" })?;
        f.write_str(if *chains > 1 { "_dual" } else { "" })
    }
}

/// The reference kernel's buffers and its loop over one output.
fn reference_part() -> &'static str {
    let text = CONV_REFERENCE.source;
    let begin = text.find("layout(std430, binding = 0)").unwrap_or(0);
    let end = text.find("void main()").unwrap_or(text.len());
    &text[begin..end]
}

#[cfg(test)]
mod tests {
    use super::super::source::check_with_glslang;
    use super::*;
    use crate::problem::Conv2dDesc;

    fn problem(k: i64, (r, s): (i64, i64), (stride_h, stride_w): (i64, i64)) -> Conv2d {
        let sizes = Conv2dDesc { c: 5, h: 14, w: 11, k, r, s, stride_h, stride_w, ..Default::default() };
        Conv2d::new(Conv2dDesc { pad_h: r / 2, pad_w: s / 2, ..sizes }).unwrap()
    }

    const REQUEST: Request = Request { threads: [16, 16], registers: 64, shared: true, chains: 1 };

    #[test]
    fn every_text_is_glsl() {
        let mut cases = 0;
        let problems = [problem(64, (3, 3), (1, 1)), problem(7, (1, 1), (2, 2)), problem(1, (5, 2), (1, 3))];
        for threads in [[64, 1], [16, 16], [8, 8], [32, 8], [32, 1], [1, 1]] {
            for (shared, chains) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
                let problem = &problems[cases % 3];
                let request = Request { threads, shared, chains, ..REQUEST };
                let source = Single::new(&request, problem).unwrap().source(problem).unwrap();
                check_with_glslang(&source.name, &source.text);
                assert!(source.text.contains(&format!("local_size_x = {}, ", threads[0])), "{}", source.text);
                assert!(source.text.lines().any(|line| line == ANY_GRID));
                assert_eq!(source.text.matches("void main()").count(), 1);
                assert!(iterations_of(&source.text).is_some_and(|it| it > 5), "{}", source.text);
                cases += 1;
            }
        }
        assert_eq!(cases, 24);
    }

    #[test]
    fn tiles_follow_registers_and_channels() {
        let tile = |request: Request, k| {
            let single = Single::new(&request, &problem(k, (3, 3), (1, 1))).unwrap();
            (single.rows, single.columns)
        };
        assert_eq!(tile(REQUEST, 512), (8, 4));
        assert_eq!(tile(Request { registers: 128, ..REQUEST }, 512), (8, 8));
        assert_eq!(tile(Request { registers: 32, ..REQUEST }, 512), (4, 2));
        assert_eq!(tile(Request { registers: 32, chains: 2, ..REQUEST }, 512), (2, 2));
        assert_eq!(tile(Request { registers: 0, ..REQUEST }, 512), (1, 1));
        // 16 threads with one row each already cover 16 channels.
        assert_eq!(tile(REQUEST, 16), (1, 8));
        assert_eq!(tile(REQUEST, 33), (4, 8));
        // One thread along the channels allows one column.
        assert_eq!(tile(Request { threads: [64, 1], ..REQUEST }, 512), (8, 1));
        assert_eq!(tile(Request { threads: [64, 1], shared: false, ..REQUEST }, 512), (8, 4));
        let name =
            |request: Request| Single::new(&request, &problem(64, (3, 3), (1, 1))).unwrap().to_string();
        assert_eq!(name(REQUEST), "conv_single_16x16_t4x8_shared");
        assert_eq!(name(Request { shared: false, chains: 2, ..REQUEST }), "conv_single_16x16_t4x4_dual");
    }

    #[test]
    fn invalid_requests_are_refused() {
        let mut cases = 0;
        let good = problem(8, (3, 3), (1, 1));
        for threads in [[0, 1], [1, 0], [3, 4], [4, 12], [64, 32], [usize::MAX, 2], [1 << 63, 1 << 63]] {
            let refused = Single::new(&Request { threads, ..REQUEST }, &good).unwrap_err();
            assert!(refused.to_string().contains("threads"), "{refused}");
            cases += 1;
        }
        for chains in [0, 3] {
            assert!(Single::new(&Request { chains, ..REQUEST }, &good).is_err());
            cases += 1;
        }
        let single = Single::new(&REQUEST, &good).unwrap();
        let desc = Conv2dDesc { c: 4, h: 8, w: 8, k: 4, r: 3, s: 3, ..Default::default() };
        for desc in [
            Conv2dDesc { groups: 2, ..desc },
            Conv2dDesc { dilation_w: 2, ..desc },
            Conv2dDesc { bias: true, ..desc },
            Conv2dDesc { relu: true, ..desc },
            Conv2dDesc { h: 1 << 16, w: 1 << 14, ..desc },
        ] {
            let refused = single.source(&Conv2d::new(desc).unwrap()).unwrap_err();
            assert!(refused.to_string().contains("desc"), "{refused}");
            cases += 1;
        }
        assert_eq!(cases, 14);
    }

    /// `#define NAME value` in a text.
    fn defined(text: &str, name: &str) -> usize {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("#define {name} "))).unwrap();
        line.trim_end_matches('u').parse().unwrap()
    }

    #[test]
    fn square_kernels_are_told_apart() {
        let desc =
            Conv2dDesc { c: 2, h: 9, w: 9, k: 2, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
        let square = |desc| {
            let problem = Conv2d::new(desc).unwrap();
            let text = Single::new(&REQUEST, &problem).unwrap().source(&problem).unwrap().text;
            defined(&text, "SQUARE")
        };
        assert_eq!([desc, Conv2dDesc { stride_h: 2, stride_w: 2, ..desc }].map(square), [1, 1]);
        for desc in [
            Conv2dDesc { r: 5, ..desc },
            Conv2dDesc { stride_w: 2, ..desc },
            Conv2dDesc { pad_h: 0, ..desc },
            Conv2dDesc { r: 5, stride_w: 2, ..desc },
            Conv2dDesc { r: 5, pad_w: 0, ..desc },
        ] {
            assert_eq!(square(desc), 0, "{desc:?}");
        }
    }

    /// The sides of a padded image must fit in 31 bits.
    #[test]
    fn sides_of_images_fit_in_31_bits() {
        let last = i64::from(i32::MAX);
        let single = Single::new(&REQUEST, &problem(8, (3, 3), (1, 1))).unwrap();
        let sound = |desc| single.source(&Conv2d::new(desc).unwrap()).is_ok();
        for pad in [0, 3] {
            let most = last - 2 * pad;
            let high = |h| Conv2dDesc { c: 1, h, k: 1, r: 4, stride_h: 8, pad_h: pad, ..Default::default() };
            let wide = |w| Conv2dDesc { c: 1, w, k: 1, s: 4, stride_w: 8, pad_w: pad, ..Default::default() };
            assert!(sound(high(most)) && sound(wide(most)));
            assert!(pad == 0 || !(sound(high(most + 1)) || sound(wide(most + 1))));
        }
        let image = |c| Conv2dDesc { c, h: 1 << 15, w: 1 << 15, k: 1, stride_h: 2, ..Default::default() };
        assert!(sound(image(1)) && !sound(image(2)));
    }

    /// A generated text states the iterations of a tile; other texts do not.
    #[test]
    fn texts_tell_their_iterations() {
        let problem = problem(512, (3, 3), (1, 1));
        let text = |request: Request| Single::new(&request, &problem).unwrap().source(&problem).unwrap().text;
        for (request, loads) in [
            // 8 x 4 per thread: 8 steps of 128 channels and of 64 pixels. Rows of 16 threads load four lines of pixels at a time.
            (REQUEST, Some([4, 2])),
            // 8 x 8: two lines at a time.
            (Request { registers: 128, ..REQUEST }, Some([4, 4])),
            // 8 x 1: 8 steps of 8 channels for 64 threads; one line of pixels at a time.
            (Request { threads: [64, 1], ..REQUEST }, Some([1, 8])),
            (Request { shared: false, ..REQUEST }, None),
            (Request { shared: false, chains: 2, ..REQUEST }, None),
        ] {
            let text = text(request);
            let counted = iterations::single(&problem, loads.map(|loads| (8, loads)), request.chains);
            assert_eq!(iterations_of(&text), Some(counted), "{request:?}");
            assert_eq!(defined(&text, "ITERATIONS"), counted);
            let [rows, columns] = ["TM", "TN"].map(|name| defined(&text, name));
            let written = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(&format!("#define {name}("))).unwrap();
                line.matches(" DO(").count()
            };
            let each = ["EACH_ROW", "EACH_COLUMN", "EACH_CHAIN", "EACH_OTHER_CHAIN"].map(written);
            assert_eq!(each, [rows, columns, request.chains, request.chains - 1]);
        }
        assert_eq!(iterations_of("void main() {}"), None);
        assert_eq!(iterations_of("#define ITERATIONS 12"), None);
    }

    /// The text includes the reference kernel's buffers and sum unchanged, without its main function.
    #[test]
    fn the_reference_part_is_all_but_main() {
        let part = reference_part();
        assert!(part.starts_with("layout(std430, binding = 0)") && !part.contains("void main"), "{part}");
        assert!(CONV_REFERENCE.source.contains(&format!("{part}void main()")));
        let source = Single::new(&REQUEST, &problem(8, (3, 3), (1, 1))).unwrap();
        assert!(source.source(&problem(8, (3, 3), (1, 1))).unwrap().text.contains(part));
    }
}

//! The binding indices of the shaders' blocks, and how many images fit in a device's buffers.

use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::problem::{Conv2d, Conv2dSizes};

/// Binding indices of the shaders' blocks.
pub const INPUT: u32 = 0;
pub const WEIGHTS: u32 = 1;
pub const OUTPUT: u32 = 2;
pub const PARAMS: u32 = 3;
pub const BIAS: u32 = 4;

/// How many images of the batch are computed at once: as many as the largest buffer that a shader may see can hold.
///
/// # Errors
/// [`Error::Unsupported`] if the weights or a single image are too large.
pub fn images_at_once(context: &Context, problem: &Conv2d) -> Result<usize> {
    let (limit, reason) =
        (context.capabilities().max_elements(), context.capabilities().max_elements_reason());
    let refuse = |what: String| {
        let what = format!("{what}; a buffer holds at most {limit} ({reason})");
        Err(Error::Unsupported { device: context.device().to_owned(), what })
    };
    let Conv2dSizes { n, .. } = *problem.sizes();
    let image = problem.with_batch(1);
    if problem.weights_len() > limit {
        return refuse(format!("weights of {} elements", problem.weights_len()));
    }
    if image.input_len() > limit {
        return refuse(format!("an input image of {} elements", image.input_len()));
    }
    if image.output_len() > limit {
        return refuse(format!("an output image of {} elements", image.output_len()));
    }
    let (high, wide) = problem.sizes().padded();
    if high.max(wide) >= 1 << 31 {
        return refuse(format!("a padded image of {high} x {wide}"));
    }
    Ok(n.min(limit / image.input_len()).min(limit / image.output_len()))
}

//! Layer 3: GLSL text. Fixed kernels in [`source`](mod@source); ways to compute a convolution in [`variant`](mod@variant); what they
//! become in [`recipe`](mod@recipe); which is the fastest in [`tuner`](mod@tuner). Pure: problem and device in, text out.

pub mod recipe;
pub mod source;
pub mod tuner;
pub mod variant;

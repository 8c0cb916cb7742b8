//! Layer 3: GLSL text. Fixed kernels in [`source`](mod@source); ways to compute a convolution in [`variant`](mod@variant); what they
//! become in [`pass_plan`](mod@pass_plan); how many iterations their loops make in [`iterations`](mod@iterations); which is the fastest in
//! [`tuner`](mod@tuner); what they are tested on in [`cases`](mod@cases); text for programs that compile it themselves in
//! [`single`](mod@single). Pure: problem and device in, text out.

pub mod cases;
pub mod iterations;
pub mod pass_plan;
pub mod single;
pub mod source;
pub mod tuner;
pub mod variant;

//! Plans: convolutions that are prepared once and run often.

use super::buffer::{self, sparkle_buffer};
use super::conv2d::{self, sparkle_conv2d_desc};
use super::device::{self, sparkle_device};
use super::handle::{self, Opaque, Shared, Table};
use super::pointer;
use super::status::sparkle_status;
use super::timing;
use crate::device::{Conv2dPlan, Device};

/// A prepared convolution. Any number of threads may run it at once.
pub struct sparkle_plan {
    _opaque: [u8; 0],
}

/// A plan, and whether it is bound to a GL device.
pub(super) struct OwnedPlan {
    plan: Conv2dPlan,
    dies_in_a_fork: bool,
}

impl OwnedPlan {
    /// A plan of `device`.
    pub(super) fn new(device: &Device, plan: Conv2dPlan) -> Self {
        OwnedPlan { plan, dies_in_a_fork: sparkle_device::dies_in_a_fork(device) }
    }

    /// The plan itself.
    pub(super) fn conv2d(&self) -> &Conv2dPlan {
        &self.plan
    }
}

impl Opaque for sparkle_plan {
    type Value = OwnedPlan;
    const MARK: usize = 3;
    const NAME: &'static str = "plan";
    fn table() -> &'static Table<OwnedPlan> {
        static PLANS: Table<OwnedPlan> = Shared::new(std::collections::BTreeMap::new());
        &PLANS
    }
    fn dies_in_a_fork(plan: &OwnedPlan) -> bool {
        plan.dies_in_a_fork
    }
}

/// Prepares a convolution with constant weights and writes the plan's handle to `*out`. It chooses and builds the
/// kernel and copies the weights, in the order of desc->weights_layout, and the bias `[k]` (NULL and length 0 if desc->bias is 0).
/// `device` NULL means "auto". The caller destroys the plan with sparkle_plan_destroy.
///
/// The errors are those of sparkle_conv2d; `*out` is then untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_plan_create(
    device: *mut sparkle_device,
    desc: *const sparkle_conv2d_desc,
    weights: *const f32,
    weights_len: usize,
    bias: *const f32,
    bias_len: usize,
    out: *mut *mut sparkle_plan,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        // SAFETY: C's promises for these buffers.
        let (problem, (weights, bias)) = unsafe {
            let problem = conv2d::problem(desc)?;
            (problem, conv2d::weights(&problem, (weights, weights_len), (bias, bias_len))?)
        };
        let device = device::resolve(call, device)?;
        let plan = OwnedPlan::new(&device, device.plan(&problem, weights, bias)?);
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, plan)?) }
    })
}

/// Replaces the weights and the bias of a plan, in the order that desc->weights_layout said: for programs whose weights
/// change from step to step. Neither the device nor the algorithm is chosen again. Calls that are running and submitted
/// jobs end with the old weights; calls and jobs that begin later have the new ones. Memory for both exists meanwhile.
///
/// The errors are those of sparkle_plan_create; the plan then keeps its old weights.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_plan_set_weights(
    plan: *mut sparkle_plan,
    weights: *const f32,
    weights_len: usize,
    bias: *const f32,
    bias_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let owned = handle::get(call, "plan", plan)?;
        let present = owned.conv2d();
        // SAFETY: C's promises for both buffers.
        let (weights, bias) =
            unsafe { conv2d::weights(present.problem(), (weights, weights_len), (bias, bias_len))? };
        let other =
            OwnedPlan { plan: present.with_weights(weights, bias)?, dies_in_a_fork: owned.dies_in_a_fork };
        handle::replace(call, "plan", plan, other)
    })
}

/// Runs a plan and waits for its result: input `[n][c][h][w]`, output `[n][k][p][q]` or as desc->input_layout and
/// desc->output_layout said, lengths in floats. Any number of
/// threads may run the same plan at once, each with an output of its own.
///
/// The errors are those of sparkle_conv2d; the output is then untouched. A plan with an epilogue that takes arguments is run by
/// sparkle_plan_execute_fused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_plan_execute(
    plan: *mut sparkle_plan,
    input: *const f32,
    input_len: usize,
    output: *mut f32,
    output_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let plan = &handle::get(call, "plan", plan)?.plan;
        let (input, output) = ((input, input_len), (output, output_len));
        // SAFETY: C's promises for both buffers; the plan owns its weights.
        let (input, output) = unsafe { conv2d::data(plan.problem(), input, output, (&[], None))? };
        timing::keep(plan.run_inside(input, output)?);
        Ok(())
    })
}

/// Runs a plan on buffers of the device that it was made for, in place: input from element `input_offset` of `input` on,
/// output from element `output_offset` of `output` on, both SPARKLE_TYPE_REAL32. They may be parts of one buffer that do
/// not overlap.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT names the buffer that is too short, of another type, or of another device;
/// SPARKLE_ERROR_INVALID_HANDLE the one that was destroyed; also the errors of sparkle_buffer_create. If the device failed,
/// the output may have lost its contents; otherwise it is untouched.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_plan_execute_buffers(
    plan: *mut sparkle_plan,
    input: *mut sparkle_buffer,
    input_offset: usize,
    output: *mut sparkle_buffer,
    output_offset: usize,
) -> sparkle_status {
    boundary!(|call| {
        let plan = &handle::get(call, "plan", plan)?.plan;
        let (input, output) = (handle::get(call, "input", input)?, handle::get(call, "output", output)?);
        let input = buffer::part("input", &input, (input_offset, plan.problem().input_len()))?;
        let output = buffer::part("output", &output, (output_offset, plan.problem().output_len()))?;
        timing::keep(plan.run_on_inside(input, output)?);
        Ok(())
    })
}

/// Writes the memory of a plan in bytes, without the caller's buffers.
///
/// `*out_packed` is what the plan holds for its lifetime: packed or uploaded weights. On an OpenGL device, a plan with
/// 8 MiB or more of input and output allocates device memory at its first run. Each pipeline that a plan is submitted
/// to holds another copy of the weights on the device, which is not counted here.
///
/// `*out_workspace` is the maximum workspace of a run with the current number of threads. A direct algorithm on the CPU
/// uses 1 MiB per thread, and up to 2 MiB more per thread where the threads pack the planes of a strided image
/// together. The workspace is kept for later runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_plan_memory(
    plan: *mut sparkle_plan,
    out_packed: *mut usize,
    out_workspace: *mut usize,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out_packed", out_packed)?;
        pointer::check("out_workspace", out_workspace)?;
        let plan = &handle::get(call, "plan", plan)?.plan;
        // SAFETY: C's promises for both.
        unsafe {
            pointer::write("out_packed", out_packed, plan.packed_bytes())?;
            pointer::write("out_workspace", out_workspace, plan.workspace_bytes())
        }
    })
}

/// Destroys a plan; NULL is ignored. Running calls and submitted jobs of the plan end normally.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_plan_destroy(plan: *mut sparkle_plan) -> sparkle_status {
    boundary!(|call| { if plan.is_null() { Ok(()) } else { handle::remove(call, "plan", plan) } })
}

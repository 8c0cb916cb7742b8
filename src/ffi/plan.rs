//! Plans: a convolution prepared once and run often.

use super::conv2d::{self, sparkle_conv2d_desc};
use super::device::{self, sparkle_device};
use super::handle::{self, Opaque, Shared, Table};
use super::pointer;
use super::status::sparkle_status;
use super::timing;
use crate::device::Conv2dPlan;

/// A prepared convolution.
pub struct sparkle_plan {
    _opaque: [u8; 0],
}

/// A plan, and whether it is bound to a GL device.
pub(super) struct Plan {
    plan: Conv2dPlan,
    dies_in_a_fork: bool,
}

impl Plan {
    /// The plan itself.
    pub(super) fn conv2d(&self) -> &Conv2dPlan {
        &self.plan
    }
}

impl Opaque for sparkle_plan {
    type Value = Plan;
    const MARK: usize = 3;
    const NAME: &'static str = "plan";
    fn table() -> &'static Table<Plan> {
        static PLANS: Table<Plan> = Shared::new(std::collections::BTreeMap::new());
        &PLANS
    }
    fn dies_in_a_fork(plan: &Plan) -> bool {
        plan.dies_in_a_fork
    }
}

/// Prepares a convolution whose weights stay the same, and puts its handle into `*out`: the kernel is chosen and built,
/// weights `[k][c/groups][r][s]` and bias `[k]` (NULL and 0 if desc->bias is 0) are copied. `device` NULL means "auto".
/// The caller destroys the plan.
///
/// Errors as of sparkle_conv2d; `*out` is untouched then.
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
        let dies_in_a_fork = sparkle_device::dies_in_a_fork(&device);
        let plan = Plan { plan: device.plan(&problem, weights, bias)?, dies_in_a_fork };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, plan)?) }
    })
}

/// Runs a plan: input `[n][c][h][w]`, output `[n][k][p][q]`. Any number of threads may run the same plan at once, each
/// into an output of its own.
///
/// Errors as of sparkle_conv2d; the output is untouched then.
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
        // SAFETY: C's promises for both buffers; the plan has weights of its own.
        let (input, output) = unsafe { conv2d::data(plan.problem(), input, output, (&[], None))? };
        timing::keep(plan.run_inside(input, output)?);
        Ok(())
    })
}

/// The memory of a plan in bytes: what it holds as long as it lives, weights packed or uploaded, into `*out_packed`, and
/// what a run works in at most beside the caller's buffers, with the threads there are at present, into `*out_workspace`:
/// for a direct algorithm on the CPU 1 MiB a thread, and at most 2 MiB more a thread where they copy the planes of a strided
/// image together. It is kept for the runs that follow. On an OpenGL device, a plan with 8 MiB or more of input and output takes
/// the device's memory at its first run. Each pipeline that a plan is submitted to makes a copy of its weights there, which
/// counts as the pipeline's.
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

/// Destroys a plan; NULL is fine. Calls that are running it end normally.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_plan_destroy(plan: *mut sparkle_plan) -> sparkle_status {
    boundary!(|call| { if plan.is_null() { Ok(()) } else { handle::remove(call, "plan", plan) } })
}

//! Groups of ranks, and convolutions over them.

use super::conv2d::{self, sparkle_conv2d_desc};
use super::device::{self, sparkle_device};
use super::handle::{self, Opaque, Shared, Table};
use super::pointer::{self, Growing};
use super::status::{Outcome, sparkle_status};
use super::timing;
use super::transport::{CTransport, sparkle_transport};
use crate::error::Error;
use crate::problem::exact_length;
use crate::ranks::{Distribution, Group, GroupPlan, Wanted, Weight};

/// The ranks that compute together, as one of them sees it.
pub struct sparkle_group {
    _opaque: [u8; 0],
}

impl Opaque for sparkle_group {
    type Value = Group;
    const MARK: usize = 15;
    const NAME: &'static str = "group";
    fn table() -> &'static Table<Group> {
        static GROUPS: Table<Group> = Shared::new(std::collections::BTreeMap::new());
        &GROUPS
    }
    fn dies_in_a_fork(_: &Group) -> bool {
        true
    }
}

/// A prepared convolution over the ranks of a group.
pub struct sparkle_group_plan {
    _opaque: [u8; 0],
}

impl Opaque for sparkle_group_plan {
    type Value = GroupPlan;
    const MARK: usize = 17;
    const NAME: &'static str = "group's plan";
    fn table() -> &'static Table<GroupPlan> {
        static PLANS: Table<GroupPlan> = Shared::new(std::collections::BTreeMap::new());
        &PLANS
    }
    fn dies_in_a_fork(_: &GroupPlan) -> bool {
        true
    }
}

/// How a convolution is distributed over ranks.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_distribution {
    /// Each rank has some images. Nothing is sent in a run.
    SPARKLE_BATCH = 0,
    /// Each rank has some rows of all images. Ranks send each other the rows at their borders, and compute the other
    /// rows meanwhile.
    SPARKLE_ROWS = 1,
    /// Each rank has some channels of input and output. All ranks send each other their input; with several groups of
    /// channels each rank has whole groups, and nothing is sent.
    SPARKLE_CHANNELS = 2,
}

/// The `weight` of a rank whose share follows the measured rate of its device.
pub const SPARKLE_WEIGHT_MEASURED: f64 = -1.0;

/// What a rank holds of a convolution: images, rows or channels of input and output, from 0, and the lengths in floats.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_group_part {
    /// sizeof(sparkle_group_part), set by the caller.
    pub size: usize,
    /// The first image, row or channel of the input.
    pub input_first: i64,
    /// How many; 0 is possible.
    pub input_count: i64,
    /// The first image, row or channel of the output.
    pub output_first: i64,
    /// How many; 0 is possible.
    pub output_count: i64,
    /// Length of the rank's input.
    pub input_len: usize,
    /// Length of the rank's output.
    pub output_len: usize,
}

// SAFETY: repr(C), integers only, size first.
unsafe impl Growing for sparkle_group_part {
    const NAME: &'static str = "sparkle_group_part";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, output_len) + size_of::<usize>();
}

/// The rank that `rank` means: -1 is `own`.
pub(super) fn rank_of(rank: i32, own: usize, ranks: usize) -> Outcome<usize> {
    match usize::try_from(rank) {
        Ok(rank) if rank < ranks => Ok(rank),
        Err(_) if rank == -1 => Ok(own),
        _ => {
            let expected = format!("-1 (this rank) or 0 to {}", ranks - 1);
            Err(Error::invalid("rank", rank, expected).into())
        }
    }
}

/// Creates the group of all ranks of `transport`, and writes its handle to `*out`. This rank computes on `device`; NULL means
/// "auto". The caller destroys the group with sparkle_group_destroy.
///
/// Calls of a group are collective: all ranks make the same calls in the same order. They run on the calling thread. If an
/// argument is wrong on one rank, that rank gets its error, and all others SPARKLE_ERROR_OTHER_RANK with the same text;
/// nothing is sent. The exceptions are the handle of the group or plan, and `transport`: they are checked before the ranks
/// can talk. While a call uses a group, another thread's call is SPARKLE_ERROR_BUSY.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT also if the ranks use different versions of the library; SPARKLE_ERROR_TRANSPORT if the
/// transport fails. If the struct was valid but the function fails, transport->release has been called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_group_create(
    device: *mut sparkle_device,
    transport: *const sparkle_transport,
    out: *mut *mut sparkle_group,
) -> sparkle_status {
    boundary!(|call| {
        // SAFETY: C's promise for the struct.
        let transport = unsafe { CTransport::new(transport)? };
        let device = pointer::check("out", out).and_then(|()| device::resolve(call, device));
        let group = Group::new_settled(device.map(|device| (*device).clone()), Box::new(transport))?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, group)?) }
    })
}

/// Writes this rank and the number of ranks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_group_rank(
    group: *mut sparkle_group,
    out_rank: *mut i32,
    out_ranks: *mut i32,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out_rank", out_rank)?;
        pointer::check("out_ranks", out_ranks)?;
        let group = handle::get(call, "group", group)?;
        // SAFETY: C's promises for both.
        unsafe {
            pointer::write("out_rank", out_rank, group.rank() as i32)?;
            pointer::write("out_ranks", out_ranks, group.ranks() as i32)
        }
    })
}

/// Lets messages that are under way go on, without waiting for them. Call it now and then between
/// sparkle_group_plan_begin and sparkle_group_plan_finish. Not collective.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_group_progress(group: *mut sparkle_group) -> sparkle_status {
    boundary!(|call| { Ok(handle::get(call, "group", group)?.progress()?) })
}

/// Destroys a group; NULL is ignored. Its plans stay valid. Not collective.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_group_destroy(group: *mut sparkle_group) -> sparkle_status {
    boundary!(|call| { if group.is_null() { Ok(()) } else { handle::remove(call, "group", group) } })
}

/// Prepares a convolution over the ranks of a group, and writes the plan's handle to `*out`. `desc` describes the whole problem,
/// and is the same on all ranks; `distribution` is a sparkle_distribution. `weight` is this rank's share in proportion to the
/// other ranks' weights: 0 means 1, and SPARKLE_WEIGHT_MEASURED on all ranks means the rates of their devices.
///
/// Only rank 0 needs the weights `[k][c/groups][r][s]` and the bias `[k]` of the whole problem; they are sent to the other
/// ranks, which may pass NULL and 0. The caller destroys the plan with sparkle_group_plan_destroy.
///
/// The errors are those of sparkle_plan_create and sparkle_group_create; `*out` is then untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_group_plan_create(
    group: *mut sparkle_group,
    desc: *const sparkle_conv2d_desc,
    distribution: i32,
    weight: f64,
    weights: *const f32,
    weights_len: usize,
    bias: *const f32,
    bias_len: usize,
    out: *mut *mut sparkle_group_plan,
) -> sparkle_status {
    boundary!(|call| {
        let group = handle::get(call, "group", group)?;
        let wanted = || -> Outcome<Wanted> {
            pointer::check("out", out)?;
            // SAFETY: C's promise for `desc`.
            let problem = unsafe { conv2d::problem(desc)? };
            let distribution = [
                (sparkle_distribution::SPARKLE_BATCH, Distribution::Batch),
                (sparkle_distribution::SPARKLE_ROWS, Distribution::Rows),
                (sparkle_distribution::SPARKLE_CHANNELS, Distribution::Channels),
            ]
            .into_iter()
            .find_map(|(number, found)| (number as i32 == distribution).then_some(found))
            .ok_or_else(|| {
                Error::invalid("distribution", distribution, "0, 1 or 2 (a sparkle_distribution)")
            })?;
            let weight = match weight {
                0.0 => Weight::Equal,
                SPARKLE_WEIGHT_MEASURED => Weight::Measured,
                given => Weight::Given(given),
            };
            let data = match group.rank() {
                // SAFETY: C's promises for both buffers.
                0 => unsafe { conv2d::weights(&problem, (weights, weights_len), (bias, bias_len))? },
                _ => (&[][..], None),
            };
            Ok(Wanted { problem, distribution, weight, data })
        };
        let plan = group.plan_settled(wanted())?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, plan)?) }
    })
}

/// Writes what a rank holds to `*out`, whose `size` the caller has set. `rank` -1 means this rank. Not collective.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if there is no such rank.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_group_plan_part(
    plan: *mut sparkle_group_plan,
    rank: i32,
    out: *mut sparkle_group_part,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let plan = handle::get(call, "plan", plan)?;
        let part = plan.parts()[rank_of(rank, plan.rank(), plan.parts().len())?];
        let shown = sparkle_group_part {
            size: size_of::<sparkle_group_part>(),
            input_first: part.input.first as i64,
            input_count: part.input.count as i64,
            output_first: part.output.first as i64,
            output_count: part.output.count as i64,
            input_len: part.input_len,
            output_len: part.output_len,
        };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &shown) }
    })
}

/// Input and output of this rank's part.
///
/// # Safety
/// C's promises for both buffers.
unsafe fn buffers<'a>(
    plan: &GroupPlan,
    (input, input_len): (*const f32, usize),
    (output, output_len): (*mut f32, usize),
) -> Outcome<(&'a [f32], &'a mut [f32])> {
    exact_length("input length", input_len, plan.part().input_len)?;
    exact_length("output length", output_len, plan.part().output_len)?;
    // SAFETY: as promised.
    unsafe {
        let input = pointer::input("input", input, input_len)?;
        Ok((input, pointer::output("output", output, output_len, &[("input", input)])?))
    }
}

/// Convolves the ranks' inputs: this rank passes its part of the input and receives its part of the output. Lengths are in
/// floats and must match exactly; a part of length 0 may be NULL. Collective.
///
/// The errors are those of sparkle_plan_execute and sparkle_group_create; the output is then untouched. If the device
/// fails, only this rank gets its error: the others have their results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_group_plan_execute(
    plan: *mut sparkle_group_plan,
    input: *const f32,
    input_len: usize,
    output: *mut f32,
    output_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let plan = handle::get(call, "plan", plan)?;
        // SAFETY: C's promises for both buffers.
        let buffers = unsafe { buffers(&plan, (input, input_len), (output, output_len)) };
        timing::keep(plan.run_settled(buffers)?);
        Ok(())
    })
}

/// Begins a run: its messages are on their way when this returns. The caller may do other work meanwhile, call
/// sparkle_group_progress now and then, and must not write to the input. It ends the run with sparkle_group_plan_finish. One run
/// of a plan can be under way. Collective.
///
/// The errors are those of sparkle_group_plan_execute; SPARKLE_ERROR_BUSY if a run of the plan is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_group_plan_begin(
    plan: *mut sparkle_group_plan,
    input: *const f32,
    input_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let plan = handle::get(call, "plan", plan)?;
        let checked = exact_length("input length", input_len, plan.part().input_len);
        // SAFETY: C's promise for the buffer.
        let input =
            checked.map_err(Into::into).and_then(|()| unsafe { pointer::input("input", input, input_len) });
        plan.begin_settled(input)
    })
}

/// Ends a run that was begun with the same input: computes what is left. Collective. If a buffer is wrong, or the device
/// fails, only this rank gets the error, and the run is over nevertheless; the output is then untouched.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT also if no run was begun.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_group_plan_finish(
    plan: *mut sparkle_group_plan,
    input: *const f32,
    input_len: usize,
    output: *mut f32,
    output_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let plan = handle::get(call, "plan", plan)?;
        // SAFETY: C's promises for both buffers.
        let buffers = unsafe { buffers(&plan, (input, input_len), (output, output_len)) };
        timing::keep(plan.finish_settled(buffers)?);
        Ok(())
    })
}

/// Destroys a plan of a group; NULL is ignored. A run that was begun is waited for, on all ranks. Otherwise not collective.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_group_plan_destroy(plan: *mut sparkle_group_plan) -> sparkle_status {
    boundary!(|call| { if plan.is_null() { Ok(()) } else { handle::remove(call, "plan", plan) } })
}

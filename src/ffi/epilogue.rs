//! Epilogues of the kernel language: compiled from text, attached to convolutions and products.

use std::ffi::c_char;
use std::path::Path;

use super::buffer::{self, sparkle_buffer};
use super::conv2d::{self, sparkle_conv2d_desc};
use super::device::{self, sparkle_device};
use super::gemm::{self, sparkle_gemm_desc};
use super::handle::{self, Opaque, Shared, Table};
use super::kernel::kernel_name;
use super::launch::{self, sparkle_kernel_arg};
use super::plan::{OwnedPlan, sparkle_plan};
use super::pointer;
use super::status::{Outcome, sparkle_status};
use super::timing;
use crate::device::Epilogue;
use crate::error::Error;
use crate::kernel::tree;

/// A compiled epilogue, for any device: a function of an output, its channel and its position, and perhaps more arguments.
/// Any number of threads may use it at once.
pub struct sparkle_epilogue {
    _opaque: [u8; 0],
}

impl Opaque for sparkle_epilogue {
    type Value = Epilogue;
    const MARK: usize = 15;
    const NAME: &'static str = "epilogue";
    fn table() -> &'static Table<Epilogue> {
        static EPILOGUES: Table<Epilogue> = Shared::new(std::collections::BTreeMap::new());
        &EPILOGUES
    }
    fn dies_in_a_fork(_: &Epilogue) -> bool {
        false
    }
}

/// Compiles a kernel file, `length` bytes of Fortran at `source`, and writes the handle of its epilogue `name` to `*out`: the
/// exact spelling first, then any case. `name` NULL means the only epilogue of the source. The caller destroys the epilogue
/// with sparkle_epilogue_destroy. docs/kernel.md describes the language.
///
/// The errors are those of sparkle_kernel_compile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_epilogue_compile(
    source: *const c_char,
    length: usize,
    name: *const c_char,
    out: *mut *mut sparkle_epilogue,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        pointer::check("source", source)?;
        // SAFETY: C's promises for the source and the name.
        let (source, name) =
            unsafe { (pointer::input("source", source.cast::<u8>(), length)?, kernel_name(name)?) };
        let epilogue = Epilogue::from_bytes(source, "source", name)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, epilogue)?) }
    })
}

/// Reads the file at `path` and compiles it, as sparkle_epilogue_compile does. Messages name the file.
///
/// The errors are those of sparkle_kernel_compile_file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_epilogue_compile_file(
    path: *const c_char,
    name: *const c_char,
    out: *mut *mut sparkle_epilogue,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        // SAFETY: C's promises for the path and the name.
        let (path, name) = unsafe { (pointer::text("path", path)?, kernel_name(name)?) };
        let epilogue = Epilogue::from_file(Path::new(path), name)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, epilogue)?) }
    })
}

/// Destroys an epilogue; NULL is ignored. Plans that were made with it keep it.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_epilogue_destroy(epilogue: *mut sparkle_epilogue) -> sparkle_status {
    boundary!(|call| { if epilogue.is_null() { Ok(()) } else { handle::remove(call, "epilogue", epilogue) } })
}

/// As sparkle_plan_create, with an epilogue that every run applies to each output, after bias and ReLU. Its channel is the
/// output channel, its position the place of the output in `[n][k][p][q]`. sparkle_plan_execute_fused passes its arguments.
/// Pipelines refuse such a plan.
///
/// The errors are those of sparkle_plan_create; SPARKLE_ERROR_UNSUPPORTED also for "multi", for outputs of more than 2^31 - 1
/// elements, and if the device cannot compute the epilogue; "auto" then leaves the convolution to the CPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_plan_create_fused(
    device: *mut sparkle_device,
    desc: *const sparkle_conv2d_desc,
    weights: *const f32,
    weights_len: usize,
    bias: *const f32,
    bias_len: usize,
    epilogue: *mut sparkle_epilogue,
    out: *mut *mut sparkle_plan,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        // SAFETY: C's promises for these buffers.
        let (problem, (weights, bias)) = unsafe {
            let problem = conv2d::problem(desc)?;
            (problem, conv2d::weights(&problem, (weights, weights_len), (bias, bias_len))?)
        };
        let epilogue = handle::get(call, "epilogue", epilogue)?;
        let device = device::resolve(call, device)?;
        let plan = OwnedPlan::new(&device, device.plan_fused(&problem, weights, bias, &epilogue)?);
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, plan)?) }
    })
}

/// The epilogue of a plan, as a kernel.
fn of_plan(plan: &OwnedPlan) -> Outcome<&tree::Kernel> {
    let missing = || Error::invalid("plan", "one without an epilogue", "a plan of sparkle_plan_create_fused");
    Ok(plan.conv2d().fused().ok_or_else(missing)?.kernel())
}

/// As sparkle_plan_execute, for a plan with an epilogue. `args` points to `args_len` arguments of the epilogue: one for each of
/// its dummies after the value, the channel and the position, in their order, as in sparkle_kernel_launch. Arrays have the form
/// SPARKLE_ARG_INPUT or SPARKLE_ARG_BUFFER, and share no memory with the output.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT names the argument that has a wrong type, form or length, overlaps the output, or is a buffer
/// of another device; SPARKLE_ERROR_NULL_POINTER names the argument whose address is NULL, SPARKLE_ERROR_INVALID_HANDLE the one
/// whose buffer was destroyed. Nothing has run then. Also the errors of sparkle_plan_execute; the output is untouched. With a
/// buffer among the arguments, a plan of "auto" does not fall back to the CPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_plan_execute_fused(
    plan: *mut sparkle_plan,
    input: *const f32,
    input_len: usize,
    output: *mut f32,
    output_len: usize,
    args: *const sparkle_kernel_arg,
    args_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let plan = handle::get(call, "plan", plan)?;
        let epilogue = of_plan(&plan)?;
        let (input, output) = ((input, input_len), (output, output_len));
        // SAFETY: C's promises for the arguments and all buffers; the plan owns its weights.
        unsafe {
            let given = launch::given(call, epilogue, args, args_len)?;
            let mut args = launch::args(epilogue, &given)?;
            let (input, output) = conv2d::data(plan.conv2d().problem(), input, output, (&[], None))?;
            timing::keep(plan.conv2d().run_fused_inside(input, output, &mut args)?);
        }
        Ok(())
    })
}

/// As sparkle_plan_execute_fused, on buffers of the device that the plan was made for, in place, as
/// sparkle_plan_execute_buffers.
///
/// The errors are those of both.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_plan_execute_fused_buffers(
    plan: *mut sparkle_plan,
    input: *mut sparkle_buffer,
    input_offset: usize,
    output: *mut sparkle_buffer,
    output_offset: usize,
    args: *const sparkle_kernel_arg,
    args_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let plan = handle::get(call, "plan", plan)?;
        let epilogue = of_plan(&plan)?;
        let (input, output) = (handle::get(call, "input", input)?, handle::get(call, "output", output)?);
        let problem = plan.conv2d().problem();
        let input = buffer::part("input", &input, (input_offset, problem.input_len()))?;
        let output = buffer::part("output", &output, (output_offset, problem.output_len()))?;
        // SAFETY: C's promises for the arguments.
        unsafe {
            let given = launch::given(call, epilogue, args, args_len)?;
            let mut args = launch::args(epilogue, &given)?;
            timing::keep(plan.conv2d().run_fused_on_inside(input, output, &mut args)?);
        }
        Ok(())
    })
}

/// As sparkle_sgemm, C = f(alpha op(A) op(B) + beta C), where the epilogue f is applied to every element. Its channel is the row
/// of C; its position is the number of elements in memory from the first one of C. `args` are its arguments, as in
/// sparkle_plan_execute_fused; they share no memory with C.
///
/// The errors are those of sparkle_sgemm and sparkle_plan_execute_fused; SPARKLE_ERROR_UNSUPPORTED also for "multi", for a C of
/// more than 2^31 - 1 elements, and if the device cannot compute the epilogue. On an error C is untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_sgemm_fused(
    device: *mut sparkle_device,
    desc: *const sparkle_gemm_desc,
    a: *const f32,
    a_len: usize,
    b: *const f32,
    b_len: usize,
    c: *mut f32,
    c_len: usize,
    epilogue: *mut sparkle_epilogue,
    args: *const sparkle_kernel_arg,
    args_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let epilogue = handle::get(call, "epilogue", epilogue)?;
        let kernel = epilogue.fused().kernel();
        // SAFETY: C's promises for `desc`, the matrices and the arguments.
        unsafe {
            let problem = gemm::problem(desc)?;
            let given = launch::given(call, kernel, args, args_len)?;
            let mut args = launch::args(kernel, &given)?;
            let (problem, a, b, c) = gemm::matrices(problem, (a, a_len), (b, b_len), (c, c_len))?;
            let device = device::resolve(call, device)?;
            timing::keep(device.sgemm_fused_inside(&problem, (&a, &b), c, (&epilogue, &mut args))?);
        }
        Ok(())
    })
}

/// As sparkle_sgemm_fused, on buffers of one device, in place, as sparkle_sgemm_buffers.
///
/// The errors are those of both.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_sgemm_fused_buffers(
    device: *mut sparkle_device,
    desc: *const sparkle_gemm_desc,
    a: *mut sparkle_buffer,
    a_offset: usize,
    b: *mut sparkle_buffer,
    b_offset: usize,
    c: *mut sparkle_buffer,
    c_offset: usize,
    epilogue: *mut sparkle_epilogue,
    args: *const sparkle_kernel_arg,
    args_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let epilogue = handle::get(call, "epilogue", epilogue)?;
        let kernel = epilogue.fused().kernel();
        // SAFETY: C's promise for `desc`.
        let problem = unsafe { gemm::problem(desc)? };
        let (a, b, c) = (handle::get(call, "a", a)?, handle::get(call, "b", b)?, handle::get(call, "c", c)?);
        let matrices = gemm::parts(&problem, (&a, a_offset), (&b, b_offset), (&c, c_offset))?;
        // SAFETY: C's promises for the arguments.
        unsafe {
            let given = launch::given(call, kernel, args, args_len)?;
            let mut args = launch::args(kernel, &given)?;
            let device = device::resolve(call, device)?;
            timing::keep(device.sgemm_fused_on_inside(&problem, matrices, (&epilogue, &mut args))?);
        }
        Ok(())
    })
}

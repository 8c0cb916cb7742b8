//! Panics inside each exported function in turn: the function returns its failure value and a message, and the next
//! call works.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

use super::boundary::{self, Call};
use super::reference::gpu_buffer_t;
use super::status::sparkle_status::{self, *};
use super::{
    architecture::*, buffer::*, conv1d::*, conv2d::*, conv2d_forms::*, device::*, epilogue::*, gemm::*,
    group::*, group_gemm::*, helpers::*, kernel::*, launch::*, library::*, loops::*, pipeline::*, plan::*,
    predict::*, reference::*, shares::*, timing::*, tuning_history::*,
};

thread_local! {
    /// The function that will panic.
    static VICTIM: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Wraps `body`: it first panics if its function is the victim.
pub fn before<T>(body: impl FnOnce(&Call) -> T) -> impl FnOnce(&Call) -> T {
    let function = std::any::type_name_of_val(&body);
    move |call| {
        if let Some(victim) = VICTIM.get().filter(|victim| function.contains(&format!("::{victim}::"))) {
            VICTIM.set(None);
            panic!("{victim} was asked to");
        }
        body(call)
    }
}

/// The failure value of a return type.
trait FailureValue {
    fn fails(self) -> bool;
}

macro_rules! failures {
    ($($type:ty: |$value:pat_param| $failure:expr;)*) => {
        $(impl FailureValue for $type {
            fn fails(self) -> bool {
                let $value = self;
                $failure
            }
        })*
    };
}
failures! {
    sparkle_status: |status| status == SPARKLE_ERROR_INTERNAL;
    f32: |time| time == -1.0;
    f64: |time| time == -1.0;
    i32: |truth| truth == 0;
    u32: |number| number == 0;
    // SAFETY: a static NUL-terminated string.
    *const c_char: |text| unsafe { CStr::from_ptr(text) }.is_empty();
    *mut c_void: |memory| memory.is_null();
    gpu_buffer_t: |buffer| (buffer.buffer_id, buffer.size_bytes) == (0, 0);
    (): |()| true;
}

/// Makes the function `name` panic in `call`, and checks its result, its message, and that the next calls work.
fn check<R: FailureValue>(name: &'static str, call: impl Fn() -> R) {
    VICTIM.set(Some(name));
    assert!(call().fails(), "{name}");
    assert_eq!(VICTIM.get(), None, "{name} did not reach the panic");
    // SAFETY: this thread's last error, which is copied at once.
    let message = unsafe { CStr::from_ptr(boundary::last_error()) }.to_string_lossy().into_owned();
    assert!(
        message.starts_with("internal error, please report it: panicked at src/ffi/panics.rs"),
        "{message}"
    );
    assert!(message.ends_with(&format!("{name} was asked to")), "{message}");
    assert_eq!(sparkle_version(), SPARKLE_VERSION_NUMBER, "after {name}");
    let mut count = 0;
    // SAFETY: NULL is refused.
    let status = unsafe { sparkle_conv2d_output_size(null(), null_mut(), &mut count) };
    assert_eq!(status, SPARKLE_ERROR_NULL_POINTER, "after {name}");
}

#[test]
fn a_panic_in_any_function_returns_its_failure_value_and_the_next_call_works() {
    let mut tried = BTreeSet::new();
    macro_rules! panics {
        ($($name:ident($($argument:expr),*);)*) => {
            $(
                // SAFETY: the function panics before it reads its arguments.
                #[allow(unused_unsafe)]
                check(stringify!($name), || unsafe { $name($($argument),*) });
                tried.insert(stringify!($name));
            )*
        };
    }
    let (f, m, d, h) = (null::<f32>(), null_mut::<f32>(), null_mut(), null_mut());
    let buffer = gpu_buffer_t { buffer_id: 0, size_bytes: 0 };
    panics! {
        sparkle_version();
        sparkle_version_string();
        sparkle_status_string(0);
        sparkle_last_error();
        sparkle_set_log_callback(None, null_mut());
        sparkle_set_num_threads(1);
        sparkle_get_num_threads();
        sparkle_finalize();
        sparkle_device_count(null_mut());
        sparkle_device_describe(0, null_mut());
        sparkle_device_open(null(), null_mut());
        sparkle_device_close(d);
        sparkle_device_architecture(0, null_mut());
        sparkle_shader_source(null(), null(), null_mut(), 0, null_mut());
        sparkle_tuning_history_load(0, null(), null(), null_mut());
        sparkle_tuning_history_save(0, null(), null(), null());
        sparkle_struct_init(null_mut(), 0);
        sparkle_conv2d_desc_init(null_mut());
        sparkle_conv2d_desc_init_sized(null_mut(), 0);
        sparkle_conv2d_f64(d, null(), null(), 0, null(), 0, null(), 0, null_mut(), 0);
        sparkle_conv2d_or_nan(null(), f, 0, f, 0, f, 0, m, 0);
        sparkle_conv1d_desc_init(null_mut());
        sparkle_conv1d_as_conv2d(null(), null_mut());
        sparkle_conv1d(d, null(), f, 0, f, 0, f, 0, m, 0);
        sparkle_plan_set_weights(h, f, 0, f, 0);
        sparkle_conv2d_output_size(null(), null_mut(), null_mut());
        sparkle_conv2d(d, null(), f, 0, f, 0, f, 0, m, 0);
        sparkle_sgemm(d, null(), f, 0, f, 0, m, 0);
        sparkle_plan_create(d, null(), f, 0, f, 0, null_mut());
        sparkle_plan_execute(h, f, 0, m, 0);
        sparkle_plan_execute_buffers(null_mut(), null_mut(), 0, null_mut(), 0);
        sparkle_conv2d_buffers(d, null(), null_mut(), 0, null_mut(), 0, null_mut(), 0, null_mut(), 0);
        sparkle_sgemm_buffers(d, null(), null_mut(), 0, null_mut(), 0, null_mut(), 0);
        sparkle_plan_memory(null_mut(), null_mut(), null_mut());
        sparkle_plan_destroy(null_mut());
        sparkle_kernel_compile(null(), 0, null(), null_mut());
        sparkle_kernel_compile_file(null(), null(), null_mut());
        sparkle_kernel_describe(null_mut(), null_mut());
        sparkle_kernel_argument(null_mut(), 0, null_mut());
        sparkle_kernel_source(null_mut(), 0, 0, null_mut(), 0, null_mut());
        sparkle_kernel_diagnostics(null_mut(), null_mut(), 0, null_mut());
        sparkle_kernel_destroy(null_mut());
        sparkle_kernel_launch(d, null_mut(), null(), null(), 0);
        sparkle_epilogue_compile(null(), 0, null(), null_mut());
        sparkle_epilogue_compile_file(null(), null(), null_mut());
        sparkle_epilogue_destroy(null_mut());
        sparkle_plan_create_fused(d, null(), f, 0, f, 0, null_mut(), null_mut());
        sparkle_plan_execute_fused(h, f, 0, m, 0, null(), 0);
        sparkle_plan_execute_fused_buffers(h, null_mut(), 0, null_mut(), 0, null(), 0);
        sparkle_sgemm_fused(d, null(), f, 0, f, 0, m, 0, null_mut(), null(), 0);
        sparkle_sgemm_fused_buffers(d, null(), null_mut(), 0, null_mut(), 0, null_mut(), 0, null_mut(), null(), 0);
        sparkle_buffer_create(d, 0, 0, null_mut());
        sparkle_buffer_write(null_mut(), 0, null(), 0);
        sparkle_buffer_read(null_mut(), 0, null_mut(), 0);
        sparkle_buffer_destroy(null_mut());
        sparkle_pipeline_create(d, null(), null_mut());
        sparkle_pipeline_destroy(null_mut());
        sparkle_pipeline_flush(null_mut());
        sparkle_pipeline_get_stats(null_mut(), null_mut());
        sparkle_submit(null_mut(), h, f, 0, m, 0, 1, null_mut());
        sparkle_ticket_poll(null_mut(), null_mut());
        sparkle_ticket_wait(null_mut(), 0);
        sparkle_ticket_wait_any(null(), 0, 0, null_mut());
        sparkle_ticket_cancel(null_mut(), null_mut());
        sparkle_ticket_release(null_mut());
        sparkle_slot_acquire(null_mut(), h, 1, null_mut());
        sparkle_slot_memory(null_mut(), null_mut(), null_mut());
        sparkle_slot_submit(null_mut(), null_mut());
        sparkle_slot_release(null_mut());
        sparkle_plan_loops(null_mut(), null(), null_mut());
        sparkle_last_timing(null_mut());
        sparkle_last_shares(null_mut(), 0, null_mut());
        sparkle_device_predict(null_mut(), null(), null_mut(), 0, null_mut());
        sparkle_group_create(d, null(), null_mut());
        sparkle_group_rank(null_mut(), null_mut(), null_mut());
        sparkle_group_progress(null_mut());
        sparkle_group_destroy(null_mut());
        sparkle_group_plan_create(null_mut(), null(), 0, 0.0, f, 0, f, 0, null_mut());
        sparkle_group_plan_part(null_mut(), -1, null_mut());
        sparkle_group_plan_execute(null_mut(), f, 0, m, 0);
        sparkle_group_plan_begin(null_mut(), f, 0);
        sparkle_group_plan_finish(null_mut(), f, 0, m, 0);
        sparkle_group_plan_destroy(null_mut());
        sparkle_group_sgemm_part(null_mut(), null(), -1, null_mut());
        sparkle_group_sgemm(null_mut(), null(), f, 0, f, 0, m, 0);
        gpu_initialize_opengl();
        gpu_cleanup_opengl();
        gpu_is_initialized();
        gpu_compile_conv2d_shader();
        gpu_get_compute_program();
        gpu_is_reference_program(0);
        gpu_enqueue_conv2d(0, 0, 0, 0, null());
        gpu_execute_conv2d_fortran(f, f, m, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1);
        gpu_execute_conv2d(f, f, m, null());
        gpu_execute_conv2d_custom(0, f, f, m, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1);
        gpu_execute_conv2d_with_shader(f, f, m, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, null());
        gpu_compile_custom_shader(null());
        gpu_create_buffer(null(), 4);
        gpu_download_buffer(buffer, null_mut());
        gpu_free_buffer(buffer);
        create_egl_context();
        set_conv2d_shader_source(0);
        posix_memalign_wrapper(4);
    }
    // All but the helpers without a boundary, which `tests/abi.rs` lists.
    let exported = include_str!("../../include/abi.txt").lines();
    let without_boundary = ["prefetch", "stream_ps", "sfence", "rdtsc", "is_aligned"];
    let expected: BTreeSet<_> =
        exported.filter(|name| !without_boundary.iter().any(|part| name.contains(part))).collect();
    assert_eq!(tried, expected);
}

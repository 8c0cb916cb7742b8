//! Tests of the C interface: first sizes of growing structs, units, and the process that a value belongs to.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::boundary::Call;
use super::handle::Opaque;
use super::pointer::Growing;
use super::{
    architecture::*, conv1d::*, conv2d::*, device, device::*, gemm::*, group::*, group_gemm::*, kernel::*,
    launch::*, loops::*, pipeline::*, predict::*, shares::*, timing::*, transport::*, tuning_history::*,
};
use crate::device::{Device, Run, Ticket};
use crate::report::{PipelineStats, Timing};

/// Programs that were compiled with the first header must keep working: these numbers never change.
#[cfg(target_pointer_width = "64")]
#[test]
fn first_sizes_are_those_of_the_first_header() {
    let sizes = [
        (sparkle_architecture::NAME, sparkle_architecture::FIRST_SIZE, 144),
        (sparkle_shader_options::NAME, sparkle_shader_options::FIRST_SIZE, 32),
        (sparkle_tuning_record::NAME, sparkle_tuning_record::FIRST_SIZE, 32),
        (sparkle_conv1d_desc::NAME, sparkle_conv1d_desc::FIRST_SIZE, 120),
        (sparkle_conv2d_desc::NAME, sparkle_conv2d_desc::FIRST_SIZE, 136),
        (sparkle_device_info::NAME, sparkle_device_info::FIRST_SIZE, 820),
        (sparkle_gemm_desc::NAME, sparkle_gemm_desc::FIRST_SIZE, 80),
        (sparkle_group_part::NAME, sparkle_group_part::FIRST_SIZE, 56),
        (sparkle_group_gemm_part::NAME, sparkle_group_gemm_part::FIRST_SIZE, 128),
        (sparkle_transport::NAME, sparkle_transport::FIRST_SIZE, 80),
        (sparkle_kernel_info::NAME, sparkle_kernel_info::FIRST_SIZE, 120),
        (sparkle_argument_info::NAME, sparkle_argument_info::FIRST_SIZE, 96),
        (sparkle_kernel_arg::NAME, sparkle_kernel_arg::FIRST_SIZE, 56),
        (sparkle_loops::NAME, sparkle_loops::FIRST_SIZE, 80),
        (sparkle_loop_plan::NAME, sparkle_loop_plan::FIRST_SIZE, 696),
        (sparkle_pipeline_options::NAME, sparkle_pipeline_options::FIRST_SIZE, 32),
        (sparkle_pipeline_stats::NAME, sparkle_pipeline_stats::FIRST_SIZE, 112),
        (sparkle_prediction::NAME, sparkle_prediction::FIRST_SIZE, 320),
        (sparkle_share::NAME, sparkle_share::FIRST_SIZE, 80),
        (sparkle_timing::NAME, sparkle_timing::FIRST_SIZE, 416),
    ];
    for (name, first, expected) in sizes {
        assert_eq!(first, expected, "{name}");
    }
}

/// The device for NULL is opened once per process and closed only by its own process. Runs in a process of its own,
/// because the device is shared.
#[test]
fn the_device_of_null_belongs_to_a_process() {
    let name = "the_device_of_null_belongs_to_a_process";
    if std::env::var_os("SPARKLE_TEST_CHILD").is_none() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let child =
            child.arg(name).env("SPARKLE_TEST_CHILD", "1").env("SPARKLE_DEVICE", "cpu").output().unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let (here, there) = (Call::of_process(1), Call::of_process(2));
    let resolve = |call| device::resolve(call, std::ptr::null()).unwrap();
    let (first, again) = (resolve(&here), resolve(&here));
    assert!(Arc::ptr_eq(&first, &again));
    drop(again);
    assert_eq!((first.id(), Arc::strong_count(&first)), ("cpu", 2));
    let other = resolve(&there);
    assert!(!Arc::ptr_eq(&first, &other));
    // The first one still belongs to its process.
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&other)), (2, 2));
    device::forget_auto(&here).unwrap();
    assert_eq!(Arc::strong_count(&other), 2, "the device of another process is not closed");
    let own = resolve(&here);
    device::forget_auto(&here).unwrap();
    assert_eq!(Arc::strong_count(&own), 1, "the process's own device is closed");
}

/// C receives times in milliseconds.
#[test]
fn seconds_become_milliseconds() {
    let busy = [250, 500, 750].map(Duration::from_millis);
    let stats = sparkle_pipeline_stats::from(PipelineStats { busy, ..Default::default() });
    assert_eq!([stats.upload_ms, stats.compute_ms, stats.download_ms], [250.0, 500.0, 750.0]);
    let [kernel, wall] = [125, 1500].map(Duration::from_millis);
    let timing = Timing { kernel, wall, ..Default::default() };
    let run = Run::new("cpu".into(), "none".into(), timing, None);
    let timing = sparkle_timing::from(&run);
    assert_eq!((timing.kernel_ms, timing.wall_ms), (125.0, 1500.0));
}

/// Values with a thread or a queue cannot be used in a child process.
#[test]
fn values_with_threads_die_in_a_fork() {
    let cpu = Device::open("cpu").unwrap();
    assert!(sparkle_pipeline::dies_in_a_fork(&cpu.pipeline(Default::default()).unwrap()));
    assert!(sparkle_ticket::dies_in_a_fork(&Ticket::new()));
    assert!(sparkle_slot::dies_in_a_fork(&Mutex::new(SlotState::Gone)));
}

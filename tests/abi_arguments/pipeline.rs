//! Pipelines, tickets and slots with invalid arguments.

use std::ptr::{null, null_mut};

use sparkle::ffi::status::sparkle_status::*;
use sparkle::ffi::{pipeline::*, plan::*};

use super::cases::{CANARY, Cases, open_cpu};
use super::conv2d::Memory;

#[test]
fn pipelines_with_bad_arguments() {
    let mut memory = Memory::new();
    let good = memory.conv(open_cpu());
    let mut cases = Cases::default();
    let (mut pipeline, mut plan) = (null_mut(), null_mut());
    let (weights, bias) = (good.weights, good.bias);
    // SAFETY: every pointer is sound.
    unsafe {
        assert_eq!(sparkle_pipeline_create(good.device, null(), &mut pipeline), SPARKLE_OK);
        let made =
            sparkle_plan_create(good.device, &good.desc, weights.0, weights.1, bias.0, bias.1, &mut plan);
        assert_eq!(made, SPARKLE_OK);
    }
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let no_handle = SPARKLE_ERROR_INVALID_HANDLE;
    let canary = 0x7777_usize as *mut sparkle_ticket;
    let mut ticket = canary;
    let (input, output) = (good.input, good.output);
    let size = size_of::<sparkle_pipeline_options>();
    let options =
        sparkle_pipeline_options { size, slots: 0, queue: 0, piece_bytes: 0, one_context: 0, reserved: 0 };
    // SAFETY: every pointer is valid and every length correct, or the call refuses them.
    unsafe {
        let mut other = null_mut();
        let mut create =
            |options: &sparkle_pipeline_options| sparkle_pipeline_create(good.device, options, &mut other);
        for (bad, part) in [
            (sparkle_pipeline_options { size: 0, ..options }, "sparkle_pipeline_options"),
            (sparkle_pipeline_options { slots: -1, ..options }, "slots is -1"),
            (sparkle_pipeline_options { slots: 17, ..options }, "slots is 17"),
            (sparkle_pipeline_options { queue: i32::MIN, ..options }, "queue is"),
            (sparkle_pipeline_options { piece_bytes: i64::MIN, ..options }, "piece_bytes is"),
            (sparkle_pipeline_options { one_context: 2, ..options }, "one_context is 2"),
            (sparkle_pipeline_options { reserved: 1, ..options }, "reserved is 1"),
        ] {
            cases.refused(invalid, part, || create(&bad));
        }
        assert!(other.is_null());
        cases.refused(null_pointer, "out is NULL", || {
            sparkle_pipeline_create(good.device, null(), null_mut())
        });

        let mut submit = |pipeline, plan, input: (_, _), output: (_, _), wait| {
            sparkle_submit(pipeline, plan, input.0, input.1, output.0, output.1, wait, &mut ticket)
        };
        cases.refused(no_handle, "pipeline is NULL", || submit(null_mut(), plan, input, output, 1));
        cases.refused(no_handle, "plan is NULL", || submit(pipeline, null_mut(), input, output, 1));
        cases.refused(no_handle, "pipeline is 0x", || submit(plan.cast(), plan, input, output, 1));
        cases.refused(no_handle, "plan is 0x", || submit(pipeline, pipeline.cast(), input, output, 1));
        cases.refused(null_pointer, "input is NULL", || submit(pipeline, plan, (null(), input.1), output, 1));
        cases.refused(null_pointer, "output is NULL", || {
            submit(pipeline, plan, input, (null_mut(), output.1), 1)
        });
        cases.refused(invalid, "input", || submit(pipeline, plan, (input.0, input.1 - 1), output, 1));
        cases.refused(invalid, "output", || submit(pipeline, plan, input, (output.0, output.1 + 1), 1));
        let overlapping = (input.0.cast_mut(), output.1);
        cases.refused(invalid, "output", || submit(pipeline, plan, input, overlapping, 1));
        for wait in [i32::MIN, -1, 2] {
            cases.refused(invalid, "wait is", || submit(pipeline, plan, input, output, wait));
        }
        cases.refused(null_pointer, "out is NULL", || {
            sparkle_submit(pipeline, plan, input.0, input.1, output.0, output.1, 1, null_mut())
        });
        assert_eq!(ticket, canary);

        let mut stats: sparkle_pipeline_stats = std::mem::zeroed();
        cases.refused(invalid, "sparkle_pipeline_stats", || sparkle_pipeline_get_stats(pipeline, &mut stats));
        cases.refused(null_pointer, "out is NULL", || sparkle_pipeline_get_stats(pipeline, null_mut()));
        stats.size = size_of::<sparkle_pipeline_stats>();
        cases.refused(no_handle, "pipeline is NULL", || sparkle_pipeline_get_stats(null_mut(), &mut stats));
        assert_eq!(sparkle_pipeline_get_stats(pipeline, &mut stats), SPARKLE_OK);
        assert_eq!((stats.completed, stats.failed, stats.waiting), (0, 0, 0));
    }
    cases.refused(no_handle, "pipeline is NULL", || sparkle_pipeline_flush(null_mut()));
    cases.refused(no_handle, "pipeline is 0x", || sparkle_pipeline_destroy(plan.cast()));
    assert_eq!(sparkle_pipeline_destroy(null_mut()), SPARKLE_OK);
    assert_eq!(sparkle_pipeline_destroy(pipeline), SPARKLE_OK);
    cases.refused(no_handle, "pipeline is 0x", || sparkle_pipeline_destroy(pipeline));
    assert_eq!(sparkle_plan_destroy(plan), SPARKLE_OK);
    memory.untouched();
    cases.at_least(26);
}

#[test]
fn tickets_and_slots_that_are_none() {
    let mut cases = Cases::default();
    let (null_pointer, no_handle) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_HANDLE);
    let mut number = CANARY as i32;
    let mut index = 7;
    let stack = 0u64;
    for bad in [null_mut(), (&raw const stack).cast_mut(), std::ptr::without_provenance_mut(usize::MAX)] {
        let (ticket, slot) = (bad.cast::<sparkle_ticket>(), bad.cast::<sparkle_slot>());
        // SAFETY: the call refuses the handles, and every other pointer is valid.
        unsafe {
            cases.refused(no_handle, "ticket is", || sparkle_ticket_poll(ticket, &mut number));
            cases.refused(no_handle, "ticket is", || sparkle_ticket_cancel(ticket, &mut number));
            cases.refused(no_handle, "ticket is", || sparkle_ticket_wait_any(&ticket, 1, 0, &mut index));
            cases.refused(no_handle, "slot is", || sparkle_slot_memory(slot, null_mut(), null_mut()));
            let mut out = null_mut();
            cases.refused(no_handle, "slot is", || sparkle_slot_submit(slot, &mut out));
            let (mut out, pipeline) = (null_mut(), bad.cast());
            let mut acquire = |wait| sparkle_slot_acquire(pipeline, null_mut(), wait, &mut out);
            cases.refused(no_handle, "pipeline is", || acquire(0));
            cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "wait is 3", || acquire(3));
        }
        cases.refused(no_handle, "ticket is", || sparkle_ticket_wait(ticket, 0));
        if !bad.is_null() {
            cases.refused(no_handle, "ticket is", || sparkle_ticket_release(ticket));
            cases.refused(no_handle, "slot is", || sparkle_slot_release(slot));
        }
    }
    // SAFETY: the call refuses NULL.
    unsafe {
        cases.refused(null_pointer, "out_done is NULL", || sparkle_ticket_poll(null_mut(), null_mut()));
        let cancel = || sparkle_ticket_cancel(null_mut(), null_mut());
        cases.refused(null_pointer, "out_cancelled is NULL", cancel);
        let any = |tickets, count, index| sparkle_ticket_wait_any(tickets, count, 0, index);
        cases.refused(null_pointer, "out_index is NULL", || any(&null_mut(), 1, null_mut()));
        cases.refused(null_pointer, "tickets is NULL", || any(null(), 1, &mut index));
        for count in [0, usize::MAX] {
            cases.refused(SPARKLE_ERROR_INVALID_ARGUMENT, "count is", || any(&null_mut(), count, &mut index));
        }
        cases.refused(null_pointer, "out is NULL", || sparkle_slot_submit(null_mut(), null_mut()));
        let acquire = || sparkle_slot_acquire(null_mut(), null_mut(), 1, null_mut());
        cases.refused(null_pointer, "out is NULL", acquire);
    }
    let none = (sparkle_ticket_release(null_mut()), sparkle_slot_release(null_mut()));
    assert_eq!(none, (SPARKLE_OK, SPARKLE_OK));
    assert_eq!((number, index), (CANARY as i32, 7));
    cases.at_least(36);
}

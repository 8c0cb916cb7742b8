//! Every allocation that is sized by data fails once, in every operation of both interfaces on every device: the operation
//! gives a status and leaves outputs untouched, or does without that memory and gives the right result; and the same
//! operation afterwards succeeds. An allocation that cannot fail but aborts would end this process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CString;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use sparkle::ffi::{conv2d::*, device::*, gemm::*, library::*, pipeline::*, plan::*, status::sparkle_status};
use sparkle_status::{SPARKLE_ERROR_OUT_OF_MEMORY, SPARKLE_OK};

/// What the header names: allocations of fewer bytes are not asked to fail.
const SMALL: usize = 64 << 10;

/// The system's allocator, one of whose large allocations fails if that was asked for.
struct Failing;

/// Large allocations so far, while they are counted; and the one that fails, counted from 1.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FAILS: AtomicUsize = AtomicUsize::new(0);
static COUNTING: AtomicBool = AtomicBool::new(false);

fn fails(bytes: usize) -> bool {
    bytes >= SMALL && COUNTING.load(SeqCst) && COUNT.fetch_add(1, SeqCst) + 1 == FAILS.load(SeqCst)
}

// SAFETY: all memory is the system allocator's; a null pointer says that there is none.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        if fails(layout.size()) { null_mut() } else { unsafe { System.alloc(layout) } }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        if fails(layout.size()) { null_mut() } else { unsafe { System.alloc_zeroed(layout) } }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        if fails(size) { null_mut() } else { unsafe { System.realloc(memory, layout, size) } }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Runs `operation` while large allocation `which` fails, or none for 0; gives its status and how many there were.
fn with_failure(which: usize, operation: &mut dyn FnMut() -> sparkle_status) -> (sparkle_status, usize) {
    FAILS.store(which, SeqCst);
    COUNT.store(0, SeqCst);
    COUNTING.store(true, SeqCst);
    let status = operation();
    COUNTING.store(false, SeqCst);
    (status, COUNT.load(SeqCst))
}

type Run<'a> = Box<dyn FnMut(&mut [f32]) -> sparkle_status + 'a>;

/// An operation under test: what it computes lands in `output`, whose right value is `expected` all over.
struct Operation<'a> {
    name: String,
    /// Makes what the operation needs and is not itself under test.
    before: Box<dyn FnMut() + 'a>,
    run: Run<'a>,
    output_len: usize,
    expected: f32,
}

const CANARY: f32 = -12345.0;

/// Fails each of the operation's large allocations; gives how many failures it noticed and how many it did without.
fn check(operation: &mut Operation) -> (usize, usize) {
    let Operation { name, before, run, output_len, expected } = operation;
    let mut output = vec![CANARY; *output_len];
    // Winograd's transforms round.
    let tolerance = if name.ends_with("winograd") { *expected * 1e-4 } else { 0.0 };
    let is_right = |output: &[f32]| output.iter().all(|value| (value - *expected).abs() <= tolerance);
    let (mut noticed, mut overcome) = (0, 0);
    for which in 1.. {
        before();
        output.fill(CANARY);
        let (status, count) = with_failure(which, &mut || run(&mut output));
        let failed = count >= which;
        match status {
            SPARKLE_OK => {
                assert!(is_right(&output), "{name}: wrong with failure {which}");
                overcome += usize::from(failed);
            }
            SPARKLE_ERROR_OUT_OF_MEMORY if failed => {
                assert!(
                    output.iter().all(|&value| value == CANARY),
                    "{name}: output touched at failure {which}"
                );
                noticed += 1;
            }
            other => panic!("{name}: {other:?} at failure {which} of {count}: {}", last_error()),
        }
        // The same call at once, in the state that the failure left behind.
        output.fill(CANARY);
        let status = run(&mut output);
        assert_eq!(status, SPARKLE_OK, "{name} after failure {which}: {}", last_error());
        assert!(is_right(&output), "{name}: wrong after failure {which}");
        if !failed {
            return (noticed, overcome);
        }
    }
    unreachable!()
}

fn last_error() -> String {
    // SAFETY: the text is this thread's until its next call.
    unsafe { std::ffi::CStr::from_ptr(sparkle_last_error()) }.to_string_lossy().into_owned()
}

fn ok(status: sparkle_status) {
    assert_eq!(status, SPARKLE_OK, "{}", last_error());
}

fn open(selector: &str) -> *mut sparkle_device {
    let (selector, mut device) = (CString::new(selector).unwrap(), null_mut());
    // SAFETY: a string and a place for the handle.
    ok(unsafe { sparkle_device_open(selector.as_ptr(), &mut device) });
    device
}

/// A layer of ones: outputs away from the border are all the same, so there is none.
struct Layer {
    desc: sparkle_conv2d_desc,
    input: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    output_len: usize,
    expected: f32,
}

fn layer(name: &sparkle::Conv2dDesc) -> Layer {
    let problem = sparkle::Conv2d::new(*name).unwrap();
    Layer {
        desc: (*name).into(),
        input: vec![1.0; problem.input_len()],
        weights: vec![1.0; problem.weights_len()],
        bias: vec![1.0; name.k as usize],
        output_len: problem.output_len(),
        expected: problem.reduction() as f32 + 1.0,
    }
}

/// Layers that are computed in different ways, large enough that their buffers are.
fn layers() -> Vec<(&'static str, Layer)> {
    use sparkle::{Algorithm, Conv2dDesc};
    let base = Conv2dDesc { bias: true, ..Default::default() };
    let layers = [
        (
            "direct",
            Conv2dDesc { c: 64, h: 40, w: 40, k: 64, r: 3, s: 3, algorithm: Algorithm::Direct, ..base },
        ),
        ("pointwise", Conv2dDesc { c: 256, h: 16, w: 16, k: 128, ..base }),
        ("strided", Conv2dDesc { c: 64, h: 41, w: 41, k: 64, r: 3, s: 3, stride_h: 2, stride_w: 2, ..base }),
        ("grouped", Conv2dDesc { c: 128, h: 34, w: 34, k: 128, r: 3, s: 3, groups: 128, ..base }),
        ("deep", Conv2dDesc { c: 512, h: 6, w: 6, k: 256, r: 3, s: 3, algorithm: Algorithm::Direct, ..base }),
        ("long", Conv2dDesc { c: 2, h: 1, w: 20_000, k: 4, r: 1, s: 9_000, ..base }),
        (
            "winograd",
            Conv2dDesc { c: 64, h: 40, w: 40, k: 64, r: 3, s: 3, algorithm: Algorithm::Winograd, ..base },
        ),
    ];
    layers.map(|(name, desc)| (name, layer(&desc))).into()
}

/// The library as it is when nothing was used yet, and as it is when everything was.
const STATES: [(&str, fn()); 2] = [("cold", || ok(sparkle_finalize())), ("warm", || ())];

fn operations(device: &str) {
    let (mut noticed, mut overcome, mut count) = (0, 0, 0);
    let mut all = |mut operation: Operation| {
        let (seen, done_without) = check(&mut operation);
        (noticed, overcome, count) = (noticed + seen, overcome + done_without, count + 1);
    };
    for threads in [1, 2] {
        ok(sparkle_set_num_threads(threads));
        for (state, reset) in STATES {
            for (name, layer) in &layers() {
                let (desc, bias) = (&raw const layer.desc, (layer.bias.as_ptr(), layer.bias.len()));
                let (input, weights) = (
                    (layer.input.as_ptr(), layer.input.len()),
                    (layer.weights.as_ptr(), layer.weights.len()),
                );
                let named = |what: &str| format!("{device}, {threads} threads, {state}: {what} of {name}");
                let (output_len, expected) = (layer.output_len, layer.expected);
                all(Operation {
                    name: named("call"),
                    before: Box::new(reset),
                    run: Box::new(move |output| {
                        let device = open(device);
                        // SAFETY: all buffers are as long as given.
                        let status = unsafe {
                            sparkle_conv2d(
                                device,
                                desc.cast_mut(),
                                input.0,
                                input.1,
                                weights.0,
                                weights.1,
                                bias.0,
                                bias.1,
                                output.as_mut_ptr(),
                                output.len(),
                            )
                        };
                        ok(sparkle_device_close(device));
                        status
                    }),
                    output_len,
                    expected,
                });
                all(Operation {
                    name: named("plan"),
                    before: Box::new(reset),
                    run: Box::new(move |output| {
                        let (device, mut plan) = (open(device), null_mut());
                        // SAFETY: as above.
                        let status = unsafe {
                            sparkle_plan_create(device, desc, weights.0, weights.1, bias.0, bias.1, &mut plan)
                        };
                        ok(sparkle_device_close(device));
                        if status != SPARKLE_OK {
                            assert!(plan.is_null());
                            return status;
                        }
                        // SAFETY: as above.
                        let status = unsafe {
                            sparkle_plan_execute(plan, input.0, input.1, output.as_mut_ptr(), output.len())
                        };
                        ok(sparkle_plan_destroy(plan));
                        status
                    }),
                    output_len,
                    expected,
                });
                all(Operation {
                    name: named("job"),
                    before: Box::new(reset),
                    run: Box::new(move |output| job(device, layer, output)),
                    output_len,
                    expected,
                });
                all(Operation {
                    name: named("slot"),
                    before: Box::new(reset),
                    run: Box::new(move |output| slot(device, layer, output)),
                    output_len,
                    expected,
                });
            }
            for (m, n, k) in [(300, 300, 300), (2000, 3, 500), (3, 2000, 500), (400, 400, 4), (20_000, 1, 40)]
            {
                let (a, b) = (vec![1.0f32; m * k], vec![1.0f32; k * n]);
                let desc = gemm(m, n, k);
                all(Operation {
                    name: format!("{device}, {threads} threads, {state}: product {m}x{n}x{k}"),
                    before: Box::new(reset),
                    run: Box::new(|output| {
                        let device = open(device);
                        // SAFETY: all buffers are as long as given.
                        let status = unsafe {
                            sparkle_sgemm(
                                device,
                                &desc,
                                a.as_ptr(),
                                a.len(),
                                b.as_ptr(),
                                b.len(),
                                output.as_mut_ptr(),
                                output.len(),
                            )
                        };
                        ok(sparkle_device_close(device));
                        status
                    }),
                    output_len: m * n,
                    expected: k as f32,
                });
            }
        }
    }
    assert!(
        count >= 100 && noticed >= 100,
        "{count} operations, {noticed} failures noticed, {overcome} overcome"
    );
    println!("{device}: {count} operations, {noticed} failures noticed, {overcome} overcome");
}

fn gemm(m: usize, n: usize, k: usize) -> sparkle_gemm_desc {
    let (m, n, k) = (m as i64, n as i64, k as i64);
    let (layout, no) = (sparkle_layout::SPARKLE_ROW_MAJOR as i32, sparkle_transpose::SPARKLE_NO_TRANS as i32);
    let size = size_of::<sparkle_gemm_desc>();
    sparkle_gemm_desc {
        size,
        layout,
        trans_a: no,
        trans_b: no,
        m,
        n,
        k,
        lda: k,
        ldb: n,
        ldc: n,
        alpha: 1.0,
        beta: 0.0,
    }
}

/// A plan and a pipeline of a device.
fn stream(device: &str, layer: &Layer) -> Result<(*mut sparkle_plan, *mut sparkle_pipeline), sparkle_status> {
    let (device, mut plan, mut pipeline) = (open(device), null_mut(), null_mut());
    let Layer { desc, weights, bias, .. } = layer;
    // SAFETY: all buffers are as long as given; the options are the defaults.
    let (made, piped) = unsafe {
        (
            sparkle_plan_create(
                device,
                desc,
                weights.as_ptr(),
                weights.len(),
                bias.as_ptr(),
                bias.len(),
                &mut plan,
            ),
            sparkle_pipeline_create(device, null(), &mut pipeline),
        )
    };
    ok(sparkle_device_close(device));
    match [made, piped].into_iter().find(|&status| status != SPARKLE_OK) {
        None => Ok((plan, pipeline)),
        Some(status) => {
            ok(sparkle_plan_destroy(plan));
            ok(sparkle_pipeline_destroy(pipeline));
            Err(status)
        }
    }
}

fn end((plan, pipeline): (*mut sparkle_plan, *mut sparkle_pipeline), ticket: *mut sparkle_ticket) {
    ok(sparkle_ticket_release(ticket));
    ok(sparkle_pipeline_destroy(pipeline));
    ok(sparkle_plan_destroy(plan));
}

/// A job of the caller's buffers.
fn job(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    let (plan, pipeline) = match stream(device, layer) {
        Ok(stream) => stream,
        Err(status) => return status,
    };
    let mut ticket = null_mut();
    let (input, len, to) = (layer.input.as_ptr(), layer.input.len(), output.as_mut_ptr());
    // SAFETY: both buffers stay until the pipeline was destroyed.
    let mut status = unsafe { sparkle_submit(pipeline, plan, input, len, to, output.len(), 1, &mut ticket) };
    if status == SPARKLE_OK {
        status = sparkle_ticket_wait(ticket, -1);
    }
    end((plan, pipeline), ticket);
    status
}

/// A job in a slot of the pipeline's.
fn slot(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    let (plan, pipeline) = match stream(device, layer) {
        Ok(stream) => stream,
        Err(status) => return status,
    };
    let (mut slot, mut ticket, mut fill, mut result) = (null_mut(), null_mut(), null_mut(), null());
    // SAFETY: the slot's memory is as long as the plan's input and output.
    let status = unsafe {
        match sparkle_slot_acquire(pipeline, plan, 1, &mut slot) {
            SPARKLE_OK => {
                ok(sparkle_slot_memory(slot, &mut fill, &mut result));
                std::slice::from_raw_parts_mut(fill, layer.input.len()).copy_from_slice(&layer.input);
                match sparkle_slot_submit(slot, &mut ticket) {
                    SPARKLE_OK => sparkle_ticket_wait(ticket, -1),
                    refused => refused,
                }
            }
            refused => refused,
        }
    };
    if status == SPARKLE_OK {
        // SAFETY: as above.
        output.copy_from_slice(unsafe { std::slice::from_raw_parts(result, output.len()) });
    }
    ok(sparkle_slot_release(slot));
    end((plan, pipeline), ticket);
    status
}

// One test: the allocator is the process's.
#[test]
fn every_allocation_that_data_size_may_fail() {
    operations("cpu");
}

//! A batch without images is a valid problem without work, on every device and through every interface, in Rust and in C.

mod support;

use std::ptr::{null, null_mut};
use std::time::Duration;

use sparkle::ffi::status::sparkle_status::{self, *};
use sparkle::ffi::{architecture::*, conv2d::*, device::*, gemm::*, pipeline::*, plan::*, timing::*};
use sparkle::report::Timing;
use sparkle::{
    Algorithm, Conv2d, Conv2dDesc, Device, Error, Gemm, GemmDesc, Layout, PipelineOptions, Run, Transpose,
    WhenFull, devices,
};

fn desc() -> Conv2dDesc {
    Conv2dDesc {
        n: 0,
        c: 4,
        h: 9,
        w: 7,
        k: 6,
        r: 3,
        s: 3,
        pad_h: 1,
        pad_w: 1,
        groups: 2,
        bias: true,
        ..Default::default()
    }
}

/// Every device, and `auto`.
fn all() -> Vec<String> {
    let mut all: Vec<String> = devices().into_iter().filter_map(|device| device.id).collect();
    assert!(all.iter().any(|id| id == "cpu"));
    all.push("auto".to_owned());
    all
}

/// Checks the result of a run without work on `id`.
#[track_caller]
fn nothing_done(id: &str, run: &Run) {
    assert_eq!(&*run.device, if id == "auto" { "cpu" } else { id });
    assert_eq!((&*run.kernel, run.timing, &run.fallback), ("none", Timing::default(), &None));
}

#[test]
fn sizes_and_work_are_zero() {
    let problem = Conv2d::new(desc()).unwrap();
    assert!(problem.is_empty());
    assert_eq!((problem.input_len(), problem.output_len(), problem.weights_len()), (0, 0, 6 * 2 * 9));
    assert_eq!((problem.flops(), problem.bytes(), problem.sizes().p, problem.sizes().q), (0, 0, 9, 7));
    assert!(!Conv2d::new(Conv2dDesc { n: 1, ..desc() }).unwrap().is_empty());
    assert_eq!(PipelineOptions::default().images_each(&problem, usize::MAX), 0);
    assert!(sparkle::problem::oracle::conv2d(&problem, &[], &[1.0; 108], Some(&[1.0; 6])).is_empty());
    // A single image must still be valid.
    let refused = |desc| Conv2d::new(desc).unwrap_err().to_string();
    let large = i64::from(i32::MAX);
    assert!(
        refused(Conv2dDesc { c: large, h: large, w: large, groups: 1, ..desc() })
            .starts_with("input size n*c*h*w is")
    );
    let work = Conv2dDesc { n: 0, h: 1 << 30, c: 1 << 20, k: 1 << 20, ..Default::default() };
    assert!(refused(work).starts_with("work "));
    assert!(refused(Conv2dDesc { h: 0, ..desc() }).starts_with("h is 0; expected 1 to"));
    assert!(
        refused(Conv2dDesc { pad_h: 0, h: 2, ..desc() }).starts_with("r is 3; expected a kernel no larger")
    );
}

#[test]
fn calls_plans_and_predictions() {
    let (weights, bias) = (vec![1.0; 108], vec![1.0; 6]);
    let mut cases = 0;
    for id in all() {
        let device = Device::open(&id).unwrap();
        for algorithm in [Algorithm::Auto, Algorithm::Direct, Algorithm::Winograd] {
            let problem = Conv2d::new(Conv2dDesc { algorithm, ..desc() }).unwrap();
            for problem in [problem, problem.measured()] {
                nothing_done(&id, &device.conv2d(&problem, &[], &weights, Some(&bias), &mut []).unwrap());
                let plan = device.plan(&problem, &weights, Some(&bias)).unwrap();
                assert_eq!((plan.packed_bytes(), plan.workspace_bytes()), (0, 0));
                (0..2).for_each(|_| nothing_done(&id, &plan.run(&[], &mut []).unwrap()));
                cases += 1;
            }
        }
        let problem = Conv2d::new(desc()).unwrap();
        let predictions = device.predictions(&problem);
        assert!(!predictions.is_empty());
        assert!(predictions.iter().all(|it| it.seconds == Ok(0.0)), "{predictions:?}");
        // Arguments are checked as usual.
        let invalid = |result: sparkle::Result<Run>, part: &str| match result {
            Err(error @ Error::InvalidArgument { .. }) => {
                assert!(error.to_string().starts_with(part), "{error}")
            }
            other => panic!("{other:?}"),
        };
        let mut one = [7.0];
        invalid(device.conv2d(&problem, &[], &weights[1..], Some(&bias), &mut []), "weights length is 107");
        invalid(device.conv2d(&problem, &[], &weights, None, &mut []), "bias is missing");
        invalid(device.conv2d(&problem, &[1.0], &weights, Some(&bias), &mut []), "input length is 1");
        invalid(device.conv2d(&problem, &[], &weights, Some(&bias), &mut one), "output length is 1");
        let plan = device.plan(&problem, &weights, Some(&bias)).unwrap();
        invalid(plan.run(&[], &mut one), "output length is 1");
        assert!(device.plan(&problem, &weights, Some(&bias[1..])).is_err());
        assert_eq!(one, [7.0]);
    }
    assert!(cases >= 12);
}

#[test]
fn pipelines() {
    let (weights, bias) = (vec![1.0; 108], vec![1.0; 6]);
    for id in all() {
        let device = Device::open(&id).unwrap();
        let plan = device.plan(&Conv2d::new(desc()).unwrap(), &weights, Some(&bias)).unwrap();
        let full =
            device.plan(&Conv2d::new(Conv2dDesc { n: 1, ..desc() }).unwrap(), &weights, Some(&bias)).unwrap();
        let pipeline = device.pipeline(PipelineOptions::default()).unwrap();
        let mut jobs = vec![];
        for _ in 0..3 {
            jobs.push(pipeline.submit(&plan, vec![], vec![], WhenFull::Wait).unwrap());
            // Beside jobs that have something to do.
            let output = vec![f32::NAN; full.problem().output_len()];
            jobs.push(pipeline.submit(&full, vec![1.0; 252], output, WhenFull::Wait).unwrap());
        }
        for (index, job) in jobs.into_iter().enumerate() {
            let done = job.wait().unwrap();
            if index % 2 == 0 {
                nothing_done(&id, &done.run);
                assert!(done.input.is_empty() && done.output.is_empty());
            } else {
                assert!(done.output.iter().all(|value| value.is_finite()));
            }
        }
        pipeline.scope(|scope| {
            let finished = scope.submit(&plan, &[], &mut [], WhenFull::Wait).unwrap().wait().unwrap();
            nothing_done(&id, &finished.run);
        });
        let mut slot = pipeline.acquire(&plan, WhenFull::Wait).unwrap();
        for _ in 0..2 {
            assert!(slot.input().is_empty() && slot.output().is_empty());
            let run;
            (run, slot) = slot.submit().unwrap().wait().unwrap();
            nothing_done(&id, &run);
        }
        pipeline.flush().unwrap();
        let stats = pipeline.stats();
        assert_eq!((stats.completed, stats.failed), (9, 0), "{id}");
    }
}

/// Generated shaders do not depend on the number of images, and the planner does not divide by zero.
#[test]
fn plans_on_paper() {
    let gpu = sparkle::memory::tiles::Gpu::ASSUMED;
    for (groups, r) in [(1, 3), (2, 3), (1, 1)] {
        let problem =
            Conv2d::new(Conv2dDesc { groups, r, s: r, c: 64, k: 64, bias: false, ..desc() }).unwrap();
        let candidates = sparkle::shader::variant::candidates(&problem, &gpu);
        assert!(!candidates.is_empty());
        for variant in candidates {
            let seconds = sparkle::shader::variant::seconds(&problem, &gpu, &variant);
            assert!(seconds.is_finite() && seconds >= 0.0, "{variant}: {seconds}");
        }
    }
}

#[test]
fn tuning_and_the_reference_s_way_have_nothing_to_do() {
    if !support::gl_available() {
        return;
    }
    let problem = Conv2d::new(Conv2dDesc { groups: 1, bias: false, ..desc() }).unwrap();
    let tuned = sparkle::lab::tune(0, &problem, Duration::from_millis(50)).unwrap();
    assert_eq!((tuned.best, tuned.planned.1, tuned.timed, tuned.refused), (None, None, 0, 0));
    let weights = vec![1.0; problem.weights_len()];
    sparkle::lab::baseline::conv2d(0, &problem, (&[], &weights, None), &mut []).unwrap();
}

/// The text of a shader depends on the sizes of a convolution, not on its batch.
#[test]
fn shaders_for_programs_of_their_own() {
    let desc = Conv2dDesc { groups: 1, bias: false, ..desc() };
    let text = |n| {
        let desc = sparkle_conv2d_desc::from(Conv2dDesc { n, ..desc });
        let (mut text, mut length) = (vec![0u8; 1 << 16], 0);
        // SAFETY: the text buffer is as large as its capacity, and all other pointers are valid.
        let status = unsafe {
            sparkle_shader_source(&desc, null(), text.as_mut_ptr().cast(), text.len(), &mut length)
        };
        assert_eq!(status, SPARKLE_OK);
        text.truncate(length);
        text
    };
    assert!(!text(0).is_empty() && text(0) == text(5));
}

/// NULL is valid for buffers without elements.
#[test]
fn the_c_interface() {
    let weights = [1.0f32; 108];
    let bias = [1.0f32; 6];
    let (w, b) = ((weights.as_ptr(), 108), (bias.as_ptr(), 6));
    let desc = sparkle_conv2d_desc::from(desc());
    for id in all() {
        let name = std::ffi::CString::new(id.as_str()).unwrap();
        let (mut device, mut plan, mut pipeline) = (null_mut(), null_mut(), null_mut());
        let (mut ticket, mut slot) = (null_mut(), null_mut());
        let (mut p, mut q, mut packed, mut workspace) = (-1, -1, 9, 9);
        let ok = |status: sparkle_status| assert_eq!(status, SPARKLE_OK, "{id}");
        // SAFETY: every pointer is valid, and NULL only for buffers without elements.
        unsafe {
            ok(sparkle_device_open(name.as_ptr(), &mut device));
            ok(sparkle_conv2d_output_size(&desc, &mut p, &mut q));
            assert_eq!((p, q), (9, 7));
            ok(sparkle_conv2d(device, &desc, null(), 0, w.0, w.1, b.0, b.1, null_mut(), 0));
            let mut timing: sparkle_timing = std::mem::zeroed();
            timing.size = size_of::<sparkle_timing>();
            ok(sparkle_last_timing(&mut timing));
            assert_eq!((timing.kernel_ms, timing.wall_ms), (0.0, 0.0));
            ok(sparkle_plan_create(device, &desc, w.0, w.1, b.0, b.1, &mut plan));
            ok(sparkle_plan_memory(plan, &mut packed, &mut workspace));
            assert_eq!((packed, workspace), (0, 0));
            ok(sparkle_plan_execute(plan, null(), 0, null_mut(), 0));
            ok(sparkle_pipeline_create(device, null(), &mut pipeline));
            ok(sparkle_submit(pipeline, plan, null(), 0, null_mut(), 0, 1, &mut ticket));
            ok(sparkle_ticket_wait(ticket, -1));
            ok(sparkle_ticket_release(ticket));
            ok(sparkle_slot_acquire(pipeline, plan, 1, &mut slot));
            let (mut input, mut output) = (null_mut(), null());
            ok(sparkle_slot_memory(slot, &mut input, &mut output));
            ok(sparkle_slot_submit(slot, &mut ticket));
            ok(sparkle_ticket_wait(ticket, -1));
            ok(sparkle_ticket_release(ticket));
            ok(sparkle_slot_release(slot));
            // Weights, bias and lengths are checked as usual.
            let call = |weights: (_, _), bias: (_, _), input: (*const f32, usize)| {
                sparkle_conv2d(
                    device,
                    &desc,
                    input.0,
                    input.1,
                    weights.0,
                    weights.1,
                    bias.0,
                    bias.1,
                    null_mut(),
                    0,
                )
            };
            assert_eq!(call((null(), 108), b, (null(), 0)), SPARKLE_ERROR_NULL_POINTER);
            assert_eq!(call((w.0, 0), b, (null(), 0)), SPARKLE_ERROR_INVALID_ARGUMENT);
            assert_eq!(call(w, (null(), 0), (null(), 0)), SPARKLE_ERROR_INVALID_ARGUMENT);
            assert_eq!(call(w, b, (w.0, 1)), SPARKLE_ERROR_INVALID_ARGUMENT);
            assert_eq!(sparkle_plan_execute(plan, w.0, 1, null_mut(), 0), SPARKLE_ERROR_INVALID_ARGUMENT);
        }
        ok(sparkle_pipeline_destroy(pipeline));
        ok(sparkle_plan_destroy(plan));
        ok(sparkle_device_close(device));
    }
}

/// As in BLAS: without rows or columns there is no work; without depth, C becomes beta C.
#[test]
fn products_without_elements() {
    for id in all() {
        let device = Device::open(&id).unwrap();
        let mut cases = 0;
        for layout in [Layout::RowMajor, Layout::ColMajor] {
            for (m, n, k) in [(0, 3, 4), (3, 0, 4), (3, 2, 0), (0, 0, 0), (0, 0, 4), (0, 3, 0)] {
                for beta in [0.0, 1.0, -2.0] {
                    let packed = GemmDesc::packed(layout, m, n, k);
                    let product = Gemm::new(GemmDesc { beta, trans_b: Transpose::No, ..packed }).unwrap();
                    let mut c = vec![if beta == 0.0 { f32::NAN } else { 3.0 }; product.lens()[2]];
                    device.sgemm(&product, &[], &[], &mut c).unwrap();
                    assert!(
                        c.iter().all(|&value| value == 3.0 * beta),
                        "{id} {layout:?} {m} {n} {k} {beta}: {c:?}"
                    );
                    cases += 1;
                }
            }
        }
        assert_eq!(cases, 36);
        // The same from C, with NULL for buffers without elements.
        let name = std::ffi::CString::new(id.as_str()).unwrap();
        let mut handle = null_mut();
        let gemm = |m, n, k| sparkle_gemm_desc {
            size: size_of::<sparkle_gemm_desc>(),
            layout: 101,
            trans_a: 111,
            trans_b: 111,
            m,
            n,
            k,
            lda: 5,
            ldb: 5,
            ldc: 5,
            alpha: 1.0,
            beta: 2.0,
        };
        let mut c = [3.0f32; 10];
        // SAFETY: every pointer is valid, and NULL only for matrices without elements.
        unsafe {
            assert_eq!(sparkle_device_open(name.as_ptr(), &mut handle), SPARKLE_OK);
            for (m, n, k) in [(0, 5, 5), (2, 0, 5), (0, 0, 0)] {
                assert_eq!(
                    sparkle_sgemm(handle, &gemm(m, n, k), null(), 0, null(), 0, null_mut(), 0),
                    SPARKLE_OK
                );
            }
            assert_eq!(
                sparkle_sgemm(handle, &gemm(2, 5, 0), null(), 0, null(), 0, c.as_mut_ptr(), 10),
                SPARKLE_OK
            );
        }
        assert_eq!(c, [6.0; 10], "{id}");
        assert_eq!(sparkle_device_close(handle), SPARKLE_OK);
    }
}

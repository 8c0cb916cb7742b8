//! Measures the overhead of a call: a 3x3 convolution of one channel of 5x5, from a plan, through Rust and through C. Then
//! that of the log: the same plan in calls without a log and with a record of each call (`docs/log.md`), in turns.
//!
//! `cargo run --release --example tiny_call`. Each figure is the least of many medians. A median is over
//! batches of calls, with one clock reading per batch.

use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sparkle::ffi::{conv2d::*, device::*, plan::*, status::sparkle_status};
use sparkle::report::median;
use sparkle::{Conv2d, Conv2dDesc, Device};

const CALLS: u32 = 1_000;
const BATCHES: usize = 21;
const ROUNDS: usize = 20;

fn main() -> sparkle::Result<()> {
    let problem = Conv2d::new(Conv2dDesc { h: 5, w: 5, r: 3, s: 3, ..Default::default() })?;
    let (input, weights, mut output) = ([1.0f32; 25], [1.0f32; 9], [0.0f32; 9]);
    let plan = Device::open("cpu")?.plan(&problem, &weights, None)?;
    let c = c_plan(&weights);
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        let rust = batches(|| {
            plan.run(&input, &mut output).expect("a plan runs");
        });
        let through_c = batches(|| {
            // SAFETY: the plan is alive, and both buffers have the stated lengths.
            let status =
                unsafe { sparkle_plan_execute(c, input.as_ptr(), 25, output.as_mut_ptr(), output.len()) };
            assert_eq!(status, sparkle_status::SPARKLE_OK);
        });
        best = [best[0].min(rust), best[1].min(through_c)];
    }
    assert_eq!(output, [9.0; 9]);
    let records = Arc::new(AtomicU64::new(0));
    let (mut quiet, mut recorded) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        quiet = quiet.min(batches(|| {
            plan.run(&input, &mut output).expect("a plan runs");
        }));
        let counted = records.clone();
        sparkle::log::set_callback(Some(Arc::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
        })));
        recorded = recorded.min(batches(|| {
            plan.run(&input, &mut output).expect("a plan runs");
        }));
        sparkle::log::set_callback(None);
    }
    assert_eq!(records.load(Ordering::Relaxed), (ROUNDS * BATCHES) as u64 * u64::from(CALLS));
    println!("{} ns through Rust, {} ns through C", best[0].as_nanos(), best[1].as_nanos());
    println!("{} ns without a log, {} ns with a record of each call", quiet.as_nanos(), recorded.as_nanos());
    Ok(())
}

/// The same plan, created through the C interface.
fn c_plan(weights: &[f32]) -> *mut sparkle_plan {
    let mut desc = Conv2dDesc { h: 5, w: 5, r: 3, s: 3, ..Default::default() }.into();
    let (mut device, mut plan) = (std::ptr::null_mut(), std::ptr::null_mut());
    let desc: *mut sparkle_conv2d_desc = &mut desc;
    // SAFETY: all pointers are to live values, and the weights have the stated length.
    let made = unsafe {
        [
            sparkle_device_open(c"cpu".as_ptr(), &mut device),
            sparkle_plan_create(device, desc, weights.as_ptr(), weights.len(), null(), 0, &mut plan),
        ]
    };
    assert_eq!(made, [sparkle_status::SPARKLE_OK; 2]);
    plan
}

/// The median time of a call over several batches.
fn batches(mut call: impl FnMut()) -> Duration {
    let times: Vec<_> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| call());
            start.elapsed() / CALLS
        })
        .collect();
    median(&times).expect("there are batches")
}

//! Measures, in the allocator, the memory of a direct convolution besides the caller's buffers and packed weights. It is the
//! only test of its binary. Thread stacks do not come from the allocator and are not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use sparkle::problem::exact::Random;
use sparkle::{Algorithm, Conv2d, Conv2dDesc, Device};

/// The system's allocator, with the bytes in use and their maximum.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn taken(bytes: usize) {
    let now = IN_USE.fetch_add(bytes, SeqCst) + bytes;
    PEAK.fetch_max(now, SeqCst);
}

// SAFETY: all memory is the system allocator's; the counters hold no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The peak of the bytes in use during `work`, minus those in use before.
fn peak(work: impl FnOnce()) -> usize {
    let before = IN_USE.load(SeqCst);
    PEAK.store(before, SeqCst);
    work();
    PEAK.load(SeqCst) - before
}

/// Allowance for the pool's queues, names and handles.
const SUNDRIES: usize = 256 << 10;

#[test]
fn a_direct_call_takes_at_most_3_mib_a_thread() {
    let device = Device::open("cpu").unwrap();
    let layer = |c, side, k, r| Conv2dDesc {
        c,
        h: side,
        w: side,
        k,
        r,
        s: r,
        pad_h: r / 2,
        pad_w: r / 2,
        algorithm: Algorithm::Direct,
        ..Default::default()
    };
    let mut cases = 0;
    for threads in [1, 2, 3] {
        sparkle::set_num_threads(threads).unwrap();
        for desc in [layer(64, 112, 64, 3), layer(3, 160, 64, 7), layer(256, 14, 64, 1)] {
            let problem = Conv2d::new(desc).unwrap();
            let mut random = Random::new(81);
            let input = random.reals(problem.input_len());
            let weights = random.reals(problem.weights_len());
            let mut output = vec![0.0; problem.output_len()];
            let (packed, workspace) = {
                let plan = device.plan(&problem, &weights, None).unwrap();
                (plan.packed_bytes(), plan.workspace_bytes())
            };
            // Cold: threads and workspaces do not exist yet.
            sparkle::finalize();
            let call = peak(|| {
                device.conv2d(&problem, &input, &weights, None, &mut output).unwrap();
            });
            let plan = device.plan(&problem, &weights, None).unwrap();
            assert_eq!((plan.packed_bytes(), plan.workspace_bytes()), (packed, workspace));
            let again = peak(|| drop(plan.run(&input, &mut output).unwrap()));
            println!(
                "{threads} threads, {}: {} KiB beyond {} KiB of packed weights, reported {} KiB, then {} bytes a run",
                plan.run(&input, &mut output).unwrap().kernel,
                call.saturating_sub(packed) >> 10,
                packed >> 10,
                workspace >> 10,
                again
            );
            assert!(packed >= 4 * problem.weights_len(), "{packed}");
            assert!(workspace <= (threads + 1) << 20, "the plan says {workspace}");
            assert!(call <= packed + workspace + SUNDRIES, "{call} bytes, not {packed} + {workspace}");
            // A workspace has 1 MiB. Planes that threads copy together take at most 2 MiB more.
            assert!(workspace >= 1 << 20 && workspace <= (3 * threads) << 20, "{workspace}");
            assert!(call <= packed + ((3 * threads) << 20) + SUNDRIES, "3 MiB a thread");
            assert!(again <= 4096 * threads, "workspaces are reused, not {again} bytes");
            let im2col = 4 * problem.sizes().p * problem.sizes().q * problem.weights_len() / desc.k as usize;
            assert!(desc.r == 1 || call - packed < im2col, "nothing of the im2col matrix's {im2col} bytes");
            cases += 1;
        }
    }
    assert_eq!(cases, 9);
}

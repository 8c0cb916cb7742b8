//! CPU calls on the threads of a rayon pool that the program lends (feature `rayon`). The loan belongs to the process, so
//! one test goes through all cases.

#[cfg(target_os = "linux")]
#[path = "support/fork.rs"]
mod fork;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use sparkle::problem::exact::Random;
use sparkle::{Conv2d, Conv2dDesc, Device, end_rayon_loan, lend_rayon_pool, set_num_threads};

/// Threads of this process with names of the library's own CPU threads.
fn own_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).filter(|name| name.starts_with("sparkle cpu")).count()
}

/// Whether there are `expected` of them. A thread that was just started takes its name a little later, and
/// one that was joined stays listed for a moment.
fn has_own_threads(expected: usize) -> bool {
    let start = Instant::now();
    while own_threads() != expected {
        if start.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// A pool of `threads` threads that are named after `name`.
fn pool(name: &'static str, threads: usize) -> Arc<rayon::ThreadPool> {
    let named = move |index| format!("{name} {index}");
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(named).build().unwrap())
}

struct Layer {
    problem: Conv2d,
    input: Vec<f32>,
    weights: Vec<f32>,
}

impl Layer {
    fn new(desc: Conv2dDesc) -> Self {
        let problem = Conv2d::new(desc).unwrap();
        let mut random = Random::new(problem.flops());
        let (input, weights) = (random.reals(problem.input_len()), random.reals(problem.weights_len()));
        Layer { problem, input, weights }
    }

    fn compute(&self) -> Vec<f32> {
        let mut output = vec![f32::NAN; self.problem.output_len()];
        let device = Device::open("cpu").unwrap();
        device.conv2d(&self.problem, &self.input, &self.weights, None, &mut output).unwrap();
        output
    }
}

fn bits(output: &[f32]) -> Vec<u32> {
    output.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn calls_run_on_lent_threads_and_give_the_same_bits() {
    let side = |side, c, k, r, stride| Conv2dDesc {
        h: side,
        w: side,
        c,
        k,
        r,
        s: r,
        pad_h: r / 2,
        pad_w: r / 2,
        stride_h: stride,
        stride_w: stride,
        ..Default::default()
    };
    // In place, with shared planes, by Winograd in steps, packed, grouped; the last one stays on the caller.
    let layers = [
        side(28, 64, 96, 1, 1),
        side(56, 32, 64, 3, 2),
        side(30, 64, 64, 3, 1),
        side(31, 48, 64, 5, 3),
        Conv2dDesc { groups: 64, ..side(40, 64, 64, 3, 1) },
        side(8, 4, 4, 3, 1),
    ]
    .map(Layer::new);
    set_num_threads(1).unwrap();
    let expected: Vec<_> = layers.iter().map(|layer| bits(&layer.compute())).collect();
    let check = |what: &str| {
        for (layer, expected) in layers.iter().zip(&expected) {
            assert!(bits(&layer.compute()) == *expected, "{what}: {:?}", layer.problem);
        }
    };
    set_num_threads(4).unwrap();
    check("own threads");
    assert!(has_own_threads(3) || !cfg!(target_os = "linux"));

    // A pool that the caller does not belong to, and from inside.
    let lent = pool("lent", 4);
    lend_rayon_pool(Some(lent.clone())).unwrap();
    check("from outside");
    lent.install(|| check("from inside"));
    assert!(has_own_threads(0), "none beside those of the pool");

    // Many calls at once, from the threads of the pool and of others, in the middle of the program's own jobs.
    let seen = Mutex::new(HashSet::new());
    let many = || {
        (0..200).into_par_iter().for_each(|index| {
            let (layer, expected) = (&layers[index % layers.len()], &expected[index % layers.len()]);
            assert!(bits(&layer.compute()) == *expected, "many calls: {:?}", layer.problem);
            seen.lock().unwrap().insert(std::thread::current().name().unwrap_or_default().to_owned());
        });
    };
    lent.install(many);
    assert!(seen.lock().unwrap().iter().all(|name| name.starts_with("lent")), "{seen:?}");
    pool("other", 3).install(many);

    // All threads of the pool are busy with something that does not end: a call does not wait for them.
    let stop = AtomicBool::new(false);
    lent.in_place_scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|_| {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            });
        }
        check("a busy pool");
        stop.store(true, Ordering::Relaxed);
    });

    // A forked child has none of the pool's threads, so it starts its own.
    #[cfg(target_os = "linux")]
    assert!(fork::in_child(60, || {
        check("a forked child");
        has_own_threads(3)
    }));

    // The pool of the calling thread, or else the global one.
    lend_rayon_pool(None).unwrap();
    check("the global pool");
    pool("third", 3).install(|| check("the caller's pool"));
    assert!(has_own_threads(0));

    end_rayon_loan();
    drop(lent);
    check("own threads again");
    assert!(has_own_threads(3) || !cfg!(target_os = "linux"));
    sparkle::finalize();
}

//! The OpenGL engine in its process: descriptors and threads, forks, threads that end, and exit during work.
//!
//! Each test starts this binary again for one ignored test. In that process, only that test is counted, and a crash or a hang
//! affects no other test. Without a GL device, the tests report it and pass, unless `SPARKLE_TEST_REQUIRE_GL=1`.

#![cfg(target_os = "linux")]

#[path = "support/fork.rs"]
mod fork;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fork::in_child;
use sparkle::problem::exact::Random;
use sparkle::problem::oracle;
use sparkle::{Conv2d, Conv2dDesc, Conv2dPlan, Device, Error, Gemm, GemmDesc, Layout};

/// Starts this binary again for the ignored test `name`; it must succeed within a minute.
fn in_own_process(name: &str) {
    let arguments = [name, "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let hung = loop {
        match child.try_wait().unwrap() {
            Some(_) => break false,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                break true;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
    assert!(!hung, "{name} hung:\n{text}");
    assert!(output.status.success(), "{name}: {}\n{text}", output.status);
    // A test that ends its process prints its own mark.
    assert!(text.contains("1 passed") || text.contains("skipped: ") || text.contains(EXITING), "{text}");
    text.lines().filter(|line| line.starts_with("skipped: ")).for_each(|line| println!("{line}"));
}

const EXITING: &str = "exits in the midst of work";

/// The first GL device.
fn device() -> Option<Device> {
    match Device::open("gl:0") {
        Ok(device) => Some(device),
        Err(error) => {
            let required = std::env::var("SPARKLE_TEST_REQUIRE_GL").is_ok_and(|value| value == "1");
            assert!(!required, "SPARKLE_TEST_REQUIRE_GL=1, but {error}");
            println!("skipped: no GL device ({error})");
            None
        }
    }
}

/// A convolution of small integers and its exact result.
struct Case {
    problem: Conv2d,
    input: Vec<f32>,
    weights: Vec<f32>,
    expected: Vec<f32>,
}

impl Case {
    /// A square image with this number of rows.
    fn new(side: i64) -> Self {
        let desc = Conv2dDesc {
            n: 2,
            c: 3,
            h: side,
            w: side,
            k: 4,
            r: 3,
            s: 3,
            pad_h: 1,
            pad_w: 1,
            ..Default::default()
        };
        let (problem, mut random) = (Conv2d::new(desc).unwrap(), Random::new(400));
        let input = random.integers(problem.input_len(), 8);
        let weights = random.integers(problem.weights_len(), 8);
        let expected = oracle::conv2d(&problem, &input, &weights, None);
        Case { problem, input, weights, expected: expected.iter().map(|it| it.value as f32).collect() }
    }

    fn plan(&self, device: &Device) -> Conv2dPlan {
        device.plan(&self.problem, &self.weights, None).unwrap()
    }

    /// Runs a plan of the convolution and checks every output.
    fn run(&self, plan: &Conv2dPlan) -> Result<(), Error> {
        let mut output = vec![f32::NAN; self.expected.len()];
        plan.run(&self.input, &mut output)?;
        assert_eq!(output, self.expected);
        Ok(())
    }

    fn run_on(&self, device: &Device) {
        self.run(&self.plan(device)).unwrap();
    }
}

/// Resident bytes of this process.
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

/// Open descriptors and threads of this process.
fn descriptors_and_threads() -> (usize, usize) {
    let count = |path: &str| std::fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
fn a_hundred_opens_and_closes_leave_nothing() {
    in_own_process("opens_and_closes");
}

#[test]
#[ignore = "runs in a process of its own"]
fn opens_and_closes() {
    if device().is_none() {
        return;
    }
    let case = Case::new(6);
    let cycle = || {
        let device = device().unwrap();
        case.run_on(&device);
        drop(device);
        sparkle::finalize();
    };
    (0..50).for_each(|_| cycle());
    let (before, used) = (descriptors_and_threads(), resident());
    (0..100).for_each(|_| cycle());
    let (after, grown) = (descriptors_and_threads(), resident() - used);
    assert_eq!(after, before, "descriptors and threads, after and before");
    assert!(grown <= 100 << 10, "{grown} bytes in a hundred cycles");
}

#[test]
fn a_forked_child_is_told_so_and_has_the_cpu() {
    in_own_process("forks");
}

#[test]
#[ignore = "runs in a process of its own"]
fn forks() {
    let Some(device) = device() else { return };
    let (case, small) = (Case::new(40), Case::new(6));
    let plan = case.plan(&device);
    case.run(&plan).unwrap();
    let is_forked =
        |result: Result<(), Error>| matches!(result, Err(Error::Forked { what }) if what.contains("gl:0"));
    let check_child = || {
        let start = Instant::now();
        let told = is_forked(case.run(&plan))
            && is_forked(device.plan(&case.problem, &case.weights, None).map(|_| ()))
            && is_forked(sgemm(&device));
        assert!(told && start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let error = Device::open("gl:0").err().expect("OpenGL does not survive a fork");
        assert!(matches!(&error, Error::NoDevice { reason, .. } if reason.contains("forked")), "{error}");
        let gl = sparkle::devices().into_iter().filter(|it| it.kind == sparkle::DeviceKind::Gl);
        assert!(gl.into_iter().all(|it| it.unusable.is_some()));
        case.run_on(&Device::open("cpu").unwrap());
        small.run_on(&Device::open("auto").unwrap());
        drop(device.clone());
        sparkle::finalize();
        case.run_on(&Device::open("cpu").unwrap());
        true
    };
    for round in 0..10 {
        assert!(in_child(20, check_child), "child {round} failed");
        assert!(
            in_child(20, || in_child(20, check_child) && check_child()),
            "child {round} with a child failed"
        );
        case.run(&plan).unwrap();
    }
    // Forks during calls: no lock of the library may stay held in the child.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    let mut forks = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stopped() {
                    small.run_on(&device);
                }
            });
        }
        scope.spawn(|| {
            while !stopped() {
                sparkle::finalize();
                let _ = Device::open("gl:0");
            }
        });
        for round in 0..40 {
            let right = in_child(20, check_child);
            forks += 1;
            if !right {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("child {round} of a busy parent failed");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(forks, 40);
    case.run(&plan).unwrap();
    drop((plan, device));
    case.run_on(&Device::open("gl:0").unwrap());
}

fn sgemm(device: &Device) -> Result<(), Error> {
    let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, 3, 3, 3)).unwrap();
    let mut c = [7.0; 9];
    let result = device.sgemm(&problem, &[1.0; 9], &[1.0; 9], &mut c);
    assert!(c.iter().all(|&value| value == if result.is_ok() { 3.0 } else { 7.0 }));
    result.map(|_| ())
}

#[test]
fn many_threads_share_a_device_and_a_plan() {
    in_own_process("many_threads");
}

#[test]
#[ignore = "runs in a process of its own"]
fn many_threads() {
    let Some(device) = device() else { return };
    let case = Case::new(12);
    let mut random = Random::new(401);
    let inputs: Vec<Vec<f32>> = (0..64).map(|_| random.reals(case.input.len())).collect();
    let weights = random.reals(case.weights.len());
    let plan = device.plan(&case.problem, &weights, None).unwrap();
    let run = |input: &[f32]| {
        let mut output = vec![f32::NAN; case.expected.len()];
        plan.run(input, &mut output).unwrap();
        output.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    let serial: Vec<_> = inputs.iter().map(|input| run(input)).collect();
    let start = std::sync::Barrier::new(64);
    let mut ran = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = inputs
            .iter()
            .zip(&serial)
            .map(|(input, expected)| {
                let (start, run, case, device) = (&start, &run, &case, &device);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..3 {
                        assert_eq!(run(input), *expected);
                        case.run_on(device);
                        sgemm(device).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| {
            thread.join().unwrap();
            ran += 1;
        });
    });
    assert_eq!(ran, 64);
}

#[test]
fn threads_that_used_sparkle_may_end_first() {
    in_own_process("threads_end");
}

#[test]
#[ignore = "runs in a process of its own"]
fn threads_end() {
    let case = Case::new(6);
    let open = || {
        let device = device()?;
        case.run_on(&device);
        let plan = case.plan(&device);
        Some((device, plan))
    };
    // Discovery, the engine and a plan start on a thread that ends.
    let Some((device, plan)) = std::thread::scope(|scope| scope.spawn(open).join().unwrap()) else { return };
    for _ in 0..50 {
        case.run(&plan).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| case.run(&plan).unwrap());
        });
        case.run_on(&device);
    }
    // They end on another thread.
    std::thread::scope(|scope| {
        scope.spawn(move || drop((device, plan)));
    });
    case.run_on(&Device::open("gl:0").unwrap());
}

#[test]
fn exit_in_the_midst_of_work_is_clean() {
    let mut exits = 0;
    for _ in 0..50 {
        in_own_process("exits");
        exits += 1;
    }
    assert_eq!(exits, 50);
}

#[test]
#[ignore = "runs in a process of its own"]
fn exits() {
    let Some(device) = device() else { return };
    let (large, small) = (Case::new(60), Case::new(6));
    let plan = std::sync::Arc::new(large.plan(&device));
    large.run(&plan).unwrap();
    let (large, small) = (std::sync::Arc::new(large), std::sync::Arc::new(small));
    for index in 0..4 {
        let (plan, large, small, device) = (plan.clone(), large.clone(), small.clone(), device.clone());
        std::thread::spawn(move || {
            loop {
                match index {
                    0 => drop(large.run(&plan)),
                    _ => small.run_on(&device),
                }
            }
        });
    }
    // The other threads may be anywhere.
    std::thread::sleep(Duration::from_millis(10 + u64::from(std::process::id()) % 40));
    println!("{EXITING}");
    std::process::exit(0);
}

#[test]
fn a_plan_outlives_finalize() {
    in_own_process("finalizes");
}

#[test]
#[ignore = "runs in a process of its own"]
fn finalizes() {
    let Some(device) = device() else { return };
    let case = Case::new(6);
    let plan = case.plan(&device);
    drop(device);
    for _ in 0..3 {
        sparkle::finalize();
        sparkle::finalize();
        case.run(&plan).unwrap();
        let device = Device::open("gl:0").unwrap();
        case.run_on(&device);
    }
    drop(plan);
    sparkle::finalize();
    case.run_on(&Device::open("gl:0").unwrap());
}

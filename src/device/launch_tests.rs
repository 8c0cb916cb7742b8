//! Which engine runs a kernel. A stub stands for a GPU; the CPU is the real one with a stub's rates.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::choice::EngineChoice;
use super::{Device, Kernel};
use crate::backend::{Backend, Plan};
use crate::cpu;
use crate::error::{Error, Result};
use crate::kernel::bind::Launch;
use crate::memory::Hierarchy;
use crate::problem::{Conv2d, Gemm};
use crate::report::Timing;

/// What a GPU does with a launch.
#[derive(Clone, Copy)]
enum Does {
    Nothing,
    IsLost,
    LacksSomething,
    IsWrong,
}

struct Engine {
    id: &'static str,
    flops: f64,
    does: Does,
    launches: Arc<AtomicUsize>,
}

impl Engine {
    fn gpu(does: Does) -> Self {
        Engine { id: "gl:0", flops: 1e13, does, launches: Arc::default() }
    }
}

impl Backend for Engine {
    fn id(&self) -> &str {
        self.id
    }

    fn hierarchy(&self) -> Result<Hierarchy> {
        let transfer = if self.id == "cpu" { f64::INFINITY } else { 1e12 };
        let launch = if self.id == "cpu" { 1e-7 } else { 1e-5 };
        let (upload, download) = (transfer, transfer);
        Ok(Hierarchy { flops: self.flops, memory: 1e12, upload, download, launch, ..Hierarchy::UNKNOWN })
    }

    fn plan_conv2d(&self, _: &Conv2d, _: &[f32], _: Option<&[f32]>) -> Result<Box<dyn Plan>> {
        Err(Error::Internal("not asked for".into()))
    }

    fn sgemm(&self, _: &Gemm, _: &[f32], _: &[f32], _: &mut [f32]) -> Result<(Arc<str>, Timing)> {
        Err(Error::Internal("not asked for".into()))
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(Arc<str>, Timing)> {
        self.launches.fetch_add(1, Ordering::SeqCst);
        if self.id == "cpu" {
            return cpu::open().launch(launch);
        }
        match self.does {
            Does::Nothing => Ok(("stub".into(), Timing::default())),
            Does::IsLost => Err(Error::DeviceLost { device: "gl:0".into(), what: "a test".into() }),
            Does::LacksSomething => {
                Err(Error::Unsupported { device: "gl:0".into(), what: "64-bit integers".into() })
            }
            Does::IsWrong => Err(Error::Internal("a test".into())),
        }
    }
}

const TEXT: &str = "
    !@kernel(base=1)
    subroutine triple(i, n, x)
      integer, value :: i, n
      integer, intent(inout) :: x(n)
      integer :: j, y
      y = 0
      do j = 1, 3
        y = y + x(i)
      end do
      x(i) = y
    end subroutine
";

fn triple(device: &Device, n: usize) -> (Result<super::Run>, bool) {
    let kernel = Kernel::from_source(TEXT, "triple").unwrap();
    let mut x: Vec<i32> = (0..n as i32).collect();
    let run = device.launch(&kernel, &[n], &mut [(n as i32).into(), (&mut x).into()]);
    let is_tripled = (0..).zip(&x).all(|(i, x)| *x == 3 * i);
    assert!(is_tripled || (0..).zip(&x).all(|(i, x)| *x == i), "all or nothing");
    (run, is_tripled)
}

fn auto(gpus: Vec<Engine>) -> (Device, Arc<AtomicUsize>) {
    let cpu = Engine { id: "cpu", flops: 1e9, does: Does::Nothing, launches: Arc::default() };
    let launches = cpu.launches.clone();
    let gpus = gpus.into_iter().map(|gpu| Arc::new(gpu) as Arc<dyn Backend>).collect();
    (Device { choice: EngineChoice::auto(Arc::new(cpu), gpus) }, launches)
}

#[test]
fn the_cpu_runs_kernels() {
    let device = Device::open("cpu").unwrap();
    for n in [1, 255, 256, 1000, 100_000] {
        let (run, is_tripled) = triple(&device, n);
        let run = run.unwrap();
        assert_eq!((&*run.device, &*run.kernel, run.fallback), ("cpu", "triple", None));
        assert!(is_tripled && run.timing.wall >= run.timing.kernel);
    }
}

#[test]
fn auto_chooses_by_prediction() {
    let gpu = Engine::gpu(Does::Nothing);
    let on_gpu = gpu.launches.clone();
    let (device, on_cpu) = auto(vec![gpu]);
    // The stub changes nothing.
    let (run, is_tripled) = triple(&device, 1_000_000);
    assert_eq!((&*run.unwrap().device, is_tripled), ("gl:0", false));
    let (run, is_tripled) = triple(&device, 10);
    assert_eq!((&*run.unwrap().device, is_tripled), ("cpu", true));
    assert_eq!((on_gpu.load(Ordering::SeqCst), on_cpu.load(Ordering::SeqCst)), (1, 1));
    let (device, on_cpu) = auto(vec![]);
    let (run, is_tripled) = triple(&device, 1_000_000);
    assert_eq!((&*run.unwrap().device, is_tripled, on_cpu.load(Ordering::SeqCst)), ("cpu", true, 1));
}

#[test]
fn a_gpu_that_cannot_run_a_kernel_leaves_it_to_the_cpu_with_the_reason() {
    for (does, reason) in [
        (Does::IsLost, "gl:0 was lost: a test"),
        (Does::LacksSomething, "gl:0 does not support 64-bit integers"),
    ] {
        let (device, on_cpu) = auto(vec![Engine::gpu(does)]);
        for launch in 1..=2 {
            let (run, is_tripled) = triple(&device, 1_000_000);
            let run = run.unwrap();
            assert_eq!((&*run.device, run.fallback.as_deref()), ("cpu", Some(reason)));
            assert_eq!((is_tripled, on_cpu.load(Ordering::SeqCst)), (true, launch));
        }
    }
}

#[test]
fn other_errors_are_the_callers() {
    let (device, on_cpu) = auto(vec![Engine::gpu(Does::IsWrong)]);
    let (run, is_tripled) = triple(&device, 1_000_000);
    assert!(matches!(run, Err(Error::Internal(_))) && !is_tripled);
    assert_eq!(on_cpu.load(Ordering::SeqCst), 0);
    let lost = Device { choice: EngineChoice::Fixed(Arc::new(Engine::gpu(Does::IsLost))) };
    let (run, is_tripled) = triple(&lost, 10);
    assert!(matches!(run, Err(Error::DeviceLost { .. })) && !is_tripled);
}

//! Kernels on the CPU beside the same loops compiled by gfortran -O3 -march=native, in turns, on one thread.
//!
//! `SPARKLE_NUM_THREADS=1 cargo run --release --example kernel_loops`. A figure is the least time of many rounds.

use std::ffi::c_int;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use sparkle::{Device, Kernel};

/// A loop: the number of elements, a factor and two arrays.
type Loop = unsafe extern "C" fn(c_int, f32, *const f32, *mut f32);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/kernels");
    let library = std::env::temp_dir().join(format!("sparkle_loops_{}.so", std::process::id()));
    let mut command = Command::new("gfortran");
    command.current_dir(std::env::temp_dir()).args(["-O3", "-march=native", "-shared", "-fPIC", "-o"]);
    let made = command.arg(&library).arg(folder.join("loops.f90")).status()?;
    assert!(made.success(), "gfortran failed");
    // SAFETY: the library has no initialisers besides those of gfortran.
    let loops = unsafe { libloading::Library::new(&library)? };
    std::fs::remove_file(&library)?;
    let text = std::fs::read_to_string(folder.join("kernels.f90"))?;
    let device = Device::open("cpu")?;
    println!("kernel  elements   loop ns  kernel ns  kernel/loop speed  kernel GB/s");
    for (name, bytes) in [("saxpy", 12), ("silu", 8), ("dot", 8)] {
        let kernel = Kernel::from_source(&text, name)?;
        // SAFETY: the subroutine has these arguments.
        let compiled: libloading::Symbol<'_, Loop> = unsafe { loops.get(format!("loop_{name}").as_bytes())? };
        for n in [2_000usize, 20_000, 100_000, 1_000_000, 30_000_000] {
            let x: Vec<f32> = (0..n).map(|i| (i % 17) as f32 * 0.25 - 2.0).collect();
            let mut y = x.clone();
            let (mut total, mut best) = (0.0f32, [f64::INFINITY; 2]);
            let batch = (1_000_000 / n).clamp(1, 100);
            for _ in 0..(40_000_000 / n / batch).clamp(12, 200) {
                let start = Instant::now();
                for _ in 0..batch {
                    // SAFETY: both arrays have n elements.
                    unsafe { compiled(n as c_int, 1e-3, x.as_ptr(), y.as_mut_ptr()) };
                }
                let loops = start.elapsed().as_secs_f64() / batch as f64;
                let start = Instant::now();
                for _ in 0..batch {
                    let size = n as i32;
                    if name == "dot" {
                        let mut args = [size.into(), (&x).into(), (&y).into(), (&mut total).into()];
                        device.launch(&kernel, &[n], &mut args)?;
                    } else {
                        let mut args = [size.into(), 1e-3f32.into(), (&x).into(), (&mut y).into()];
                        device.launch(&kernel, &[n], &mut args)?;
                    }
                }
                let kernels = start.elapsed().as_secs_f64() / batch as f64;
                best = [best[0].min(loops), best[1].min(kernels)];
            }
            let [loops, kernels] = best;
            println!(
                "{name:6} {n:9} {:9.0} {:10.0} {:18.2} {:12.1}",
                loops * 1e9,
                kernels * 1e9,
                loops / kernels,
                (bytes * n) as f64 / kernels / 1e9
            );
        }
    }
    Ok(())
}

//! Epilogues beside the built-in ReLU, layer by layer of `suite.csv`, in turns.
//!
//! `cargo run --release --example epilogues -- DEVICE [BATCH [ROUNDS]]`, for instance `gl:0 32 40`; on one thread of the CPU with
//! `SPARKLE_NUM_THREADS=1` and `cpu 1 20`. Data stay in buffers of the device. After half a second of work, a time is the least
//! of all rounds, of the kernels on OpenGL and of the call on the CPU. The last line has the geometric mean of each ratio.

use std::time::{Duration, Instant};

use sparkle::kernel::tree::Type;
use sparkle::{Buffer, Conv2d, Conv2dDesc, Device, Epilogue};

/// How long a layer runs before it is timed.
const WARM_UP: Duration = Duration::from_millis(500);

const SOURCE: &str = "
module layers
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  !@epilogue
  pure function leaky(x, channel, position, slope) result(y)
    real(real32), intent(in) :: x, slope
    integer(int32), intent(in) :: channel, position
    real(real32) :: y
    y = merge(x, slope * x, x > 0)
  end function

  !@epilogue
  pure function residual(x, channel, position, n, skip) result(y)
    real(real32), intent(in) :: x
    integer(int32), intent(in) :: channel, position, n
    real(real32), intent(in) :: skip(0:n-1)
    real(real32) :: y
    y = x + skip(position)
  end function
end module
";

/// A layer of a CSV file: its name and the columns N, C, H, W, K, kernel, stride, pad.
fn layer(line: &str, batch: Option<i64>) -> Option<(&str, Conv2dDesc)> {
    let (name, numbers) = line.split_once(',')?;
    let numbers: Vec<i64> = numbers.split(',').map(|it| it.trim().parse().ok()).collect::<Option<_>>()?;
    let [n, c, h, w, k, r, stride, pad] = numbers[..] else { return None };
    let (n, r, s) = (batch.unwrap_or(n), r, r);
    let (stride_h, stride_w, pad_h, pad_w) = (stride, stride, pad, pad);
    Some((name, Conv2dDesc { n, c, h, w, k, r, s, stride_h, stride_w, pad_h, pad_w, ..Default::default() }))
}

fn filled(device: &Device, len: usize) -> sparkle::Result<Buffer> {
    let numbers: Vec<f32> = (0..len).map(|at| ((at * 7919) % 255) as f32 / 128.0 - 1.0).collect();
    let mut buffer = device.buffer(len, Type::Real32)?;
    buffer.write(0, &numbers)?;
    Ok(buffer)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let selector = arguments.first().map_or("cpu", String::as_str);
    let batch = arguments.get(1).map(|it| it.parse()).transpose()?;
    let rounds: usize = arguments.get(2).map_or(Ok(20), |it| it.parse())?;
    let device = Device::open(selector)?;
    let [leaky, residual] = ["leaky", "residual"].map(|name| Epilogue::from_source(SOURCE, name));
    let (leaky, residual) = (leaky?, residual?);
    let suite = include_str!("../suite.csv");
    let mut logs = [0.0f64; 2];
    let mut layers = 0;
    println!(
        "{selector}, {rounds} rounds\nlayer               relu us  leaky us  residual us  leaky/relu  residual/relu  kernel"
    );
    for (name, desc) in suite.lines().filter_map(|line| layer(line, batch)) {
        let problem = Conv2d::new(desc)?;
        let with_relu = Conv2d::new(Conv2dDesc { relu: true, ..desc })?;
        let weights: Vec<f32> =
            (0..problem.weights_len()).map(|at| (at % 17) as f32 / 64.0 - 0.125).collect();
        let (input, skip) = (filled(&device, problem.input_len())?, filled(&device, problem.output_len())?);
        let mut output = filled(&device, problem.output_len())?;
        let plan = device.plan(&with_relu, &weights, None)?;
        let plan_leaky = device.plan_fused(&problem, &weights, None, &leaky)?;
        let plan_residual = device.plan_fused(&problem, &weights, None, &residual)?;
        let len = problem.output_len() as i32;
        let (mut best, mut kernel) = ([f64::INFINITY; 3], String::new());
        // An idle card runs at a fraction of its clocks.
        let start = Instant::now();
        let mut counted = 0;
        while counted < rounds {
            let is_warm = start.elapsed() > WARM_UP;
            let runs = [
                plan.run_on(&input, &mut output)?,
                plan_leaky.run_fused_on(&input, &mut output, &mut [0.1f32.into()])?,
                plan_residual.run_fused_on(&input, &mut output, &mut [len.into(), (&skip).into()])?,
            ];
            kernel = runs[0].kernel.to_string();
            for (best, run) in best.iter_mut().zip(&runs) {
                let time = if selector == "cpu" { run.timing.wall } else { run.timing.kernel };
                if is_warm {
                    *best = best.min(time.as_secs_f64());
                }
            }
            counted += usize::from(is_warm);
        }
        let [relu, leaky, residual] = best;
        let ratios = [leaky / relu, residual / relu];
        logs.iter_mut().zip(ratios).for_each(|(sum, ratio)| *sum += ratio.ln());
        layers += 1;
        println!(
            "{name:16} {:10.1} {:9.1} {:12.1} {:11.3} {:14.3}  {kernel}",
            relu * 1e6,
            leaky * 1e6,
            residual * 1e6,
            ratios[0],
            ratios[1]
        );
    }
    let [leaky, residual] = logs.map(|sum| (sum / f64::from(layers)).exp());
    println!("geometric mean   {leaky:44.3} {residual:14.3}");
    Ok(())
}

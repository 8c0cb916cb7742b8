//! Times a process from its start to its first result: `first_result [DEVICE]`. It prints the milliseconds from the
//! start of `main` until the device is open, a plan is made, and its first run is complete. SPARKLE_CACHE_DIR has its
//! usual meaning.

use std::time::Instant;

use sparkle::{Conv2d, Conv2dDesc, Device};

fn main() -> sparkle::Result<()> {
    let start = Instant::now();
    let name = std::env::args().nth(1).unwrap_or_else(|| "gl:0".to_owned());
    let desc = Conv2dDesc {
        n: 4,
        c: 128,
        h: 28,
        w: 28,
        k: 128,
        r: 3,
        s: 3,
        pad_h: 1,
        pad_w: 1,
        ..Default::default()
    };
    let problem = Conv2d::new(desc)?;
    let (input, weights) = (vec![1.0_f32; problem.input_len()], vec![1.0_f32; problem.weights_len()]);
    let mut output = vec![0.0; problem.output_len()];
    let device = Device::open(&name)?;
    let opened = start.elapsed();
    let plan = device.plan(&problem, &weights, None)?;
    let planned = start.elapsed();
    let run = plan.run(&input, &mut output)?;
    let done = start.elapsed();
    let middle: f32 = output[14 * 28 + 14];
    assert!((middle - 1152.0_f32).abs() < 0.01, "{middle}: nine taps of 128 channels");
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    println!("open {:8.1}  plan {:8.1}  run {:8.1}  {}", ms(opened), ms(planned), ms(done), run.kernel);
    Ok(())
}

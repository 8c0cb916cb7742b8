//! A 3x3 kernel of ones over an image of ones counts the pixels below it.

use sparkle::{Conv2d, Conv2dDesc, Device};

fn main() -> sparkle::Result<()> {
    let desc = Conv2dDesc { c: 1, h: 5, w: 5, k: 1, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    let problem = Conv2d::new(desc)?;
    let mut counts = vec![0.0; problem.output_len()];
    Device::open("auto")?.conv2d(&problem, &[1.0; 25], &[1.0; 9], None, &mut counts)?;
    println!("{} {} {}", counts[0], counts[1], counts[6]);
    Ok(())
}

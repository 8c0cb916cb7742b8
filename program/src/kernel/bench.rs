//! `sparkle kernel bench`: the time of a kernel, and its rates beside those of the device.

use std::path::PathBuf;

use sparkle::kernel::tree::ArgumentKind;
use sparkle::{Device, Kernel};

use super::arguments::{self, Content, Extents, Given, Item, Missing};
use super::source::Source;
use crate::console::{Console, ms};
use crate::device::DeviceOption;
use crate::failure::Failure;
use crate::json::JsonOption;
use crate::measure::{Effort, measure};

/// Points whose operations are counted at least, if there are as many.
const COUNTED: u64 = 2048;

/// Time a kernel, beside the device's own rates.
///
/// Arrays that are not given have their declared shapes and random reals from -1 to 1; their integers are 0. The device is
/// kept busy for 0.4 s, then launches are timed one by one. Times are medians. GB/s count each array once for reading and
/// once for writing, where the kernel does so. GFLOP/s count every operation and function of reals as one; they are counted
/// in some points and scaled. The device's rates are its ceilings, as `sparkle roofline` measures them: reads of memory, and
/// multiply-adds on registers. The least time is the longer one of the two at these rates; arrays in a cache may take less.
#[derive(clap::Args)]
pub struct Args {
    /// A file in the kernel language
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The kernel, if the file has several
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Index space: a number for each dimension
    #[arg(long, value_name = "N[,M[,K]]", value_parser = arguments::extents)]
    extent: Extents,
    /// An argument: a value, or a .npy file
    #[arg(long = "arg", value_name = "NAME=VALUE|NAME=FILE.npy", value_parser = arguments::given)]
    args: Vec<Given>,
    #[command(flatten)]
    device: DeviceOption,
    /// Timed launches [default: enough for 0.5 s, at least 5]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,
    #[command(flatten)]
    json: JsonOption,
}

/// What `--json` prints. Rates are nothing where there is no work, and where several devices computed.
#[derive(serde::Serialize)]
struct Report<'a> {
    kernel: &'a str,
    extents: &'a [usize],
    device: &'a str,
    fallback: Option<&'a str>,
    /// Bytes of the arrays that are read, and of those that are written.
    bytes: u64,
    /// Operations of all points.
    flops: u64,
    /// The points in which operations were counted.
    counted_points: u64,
    kernel_ms: f64,
    wall_ms: f64,
    gbytes_per_second: Option<f64>,
    gflops: Option<f64>,
    roofline: Option<Roofline>,
}

/// The device's rates, and the least time that they allow.
#[derive(serde::Serialize)]
struct Roofline {
    gbytes_per_second: f64,
    gflops: f64,
    least_ms: f64,
    /// What takes that time: `memory` or `arithmetic`.
    bound: &'static str,
    /// The least time over the kernel's.
    share: f64,
}

/// Runs the command.
///
/// # Errors
/// Bad files, arguments and shapes; a device failure.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    args.json.begin(console)?;
    let source = Source::open(&args.file, args.kernel.as_deref(), console)?;
    let (kernel, extents) = (&source.kernel, &args.extent.0[..]);
    let device = args.device.open()?;
    let mut items = arguments::items(kernel, extents, &args.args, Missing::Random)?;
    let points = extents.iter().map(|it| *it as u128).product::<u128>();
    let copies: Result<Vec<Item>, Failure> = items.iter().map(Item::copied).collect();
    let counted = kernel.count_operations(extents, &mut arguments::args(&mut copies?), COUNTED)?;
    let flops = u128::from(counted.operations) * points / u128::from(counted.points.max(1));
    let (flops, bytes) = (u64::try_from(flops).unwrap_or(u64::MAX), moved(kernel, &items));
    let effort = Effort::figure(args.repeat.map(|repeat| repeat as usize));
    let measured = measure(effort, || device.launch(kernel, extents, &mut arguments::args(&mut items)))?;
    let seconds = measured.kernel_time.as_secs_f64();
    let rate = |work: u64| (work > 0 && seconds > 0.0).then(|| work as f64 / seconds / 1e9);
    // `auto` has chosen one.
    let ceilings = Device::open(&measured.device).ok().and_then(|device| device.ceilings().ok());
    let rates = ceilings.and_then(|it| Some([it.peaks.first()?.together, it.levels.last()?.together]));
    let roofline = rates.and_then(|rates| roofline(rates, (flops, bytes), seconds));
    let report = Report {
        kernel: kernel.name(),
        extents,
        device: &measured.device,
        fallback: measured.fallback.as_deref(),
        bytes,
        flops,
        counted_points: counted.points,
        kernel_ms: seconds * 1e3,
        wall_ms: measured.wall_time.as_secs_f64() * 1e3,
        gbytes_per_second: rate(bytes),
        gflops: rate(flops),
        roofline,
    };
    if let Some(reason) = report.fallback {
        console.note(&format!("computed by {}, because {reason}", report.device));
    }
    let (kernel_ms, wall_ms) = (ms(measured.kernel_time), ms(measured.wall_time));
    let (name, device) = (report.kernel, report.device);
    console.line(format!("{name} on {device}: kernel {kernel_ms} ms, wall {wall_ms} ms"));
    let text = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.2}"));
    let roof = report.roofline.as_ref();
    let line = |what: &str, rate: Option<f64>, roof: Option<f64>| {
        format!("{what:<10}{:>12}{:>12}", text(rate), text(roof))
    };
    console.line(format!("{:<10}{:>12}{:>12}", "", "kernel", "device"));
    console.line(line("GB/s", report.gbytes_per_second, roof.map(|it| it.gbytes_per_second)));
    console.line(line("GFLOP/s", report.gflops, roof.map(|it| it.gflops)));
    if let Some(roof) = roof {
        console.line(format!(
            "least time {:.3} ms, by {}: {:.0} % of the kernel's",
            roof.least_ms,
            roof.bound,
            100.0 * roof.share
        ));
    }
    args.json.end(&report, console)
}

/// Bytes of the arrays that a kernel reads, and of those that it writes.
fn moved(kernel: &Kernel, items: &[Item]) -> u64 {
    let arguments = sparkle::kernel::bind::passed(kernel.tree()).zip(items);
    let bytes = arguments.map(|(argument, item)| match (&argument.kind, &item.content) {
        (ArgumentKind::Buffer(buffer), Content::Array { elements, .. }) => {
            let times = u64::from(buffer.is_read) + u64::from(buffer.is_written);
            times * (elements.len() * argument.ty.bytes()) as u64
        }
        _ => 0,
    });
    bytes.sum()
}

/// The roofline of work on a device that computes and moves so much a second; nothing if that is unknown or there is no
/// work.
fn roofline([peak, moved]: [f64; 2], (flops, bytes): (u64, u64), seconds: f64) -> Option<Roofline> {
    if peak <= 0.0 || moved <= 0.0 || seconds <= 0.0 || (flops, bytes) == (0, 0) {
        return None;
    }
    let [arithmetic, memory] = [flops as f64 / peak, bytes as f64 / moved];
    let least = arithmetic.max(memory);
    Some(Roofline {
        gbytes_per_second: moved / 1e9,
        gflops: peak / 1e9,
        least_ms: least * 1e3,
        bound: if memory >= arithmetic { "memory" } else { "arithmetic" },
        share: least / seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_memory_and_arithmetic_bounds() {
        let device = [1e11, 1e10];
        let by_memory = roofline(device, (10_000_000, 10_000_000), 2e-3).unwrap();
        assert_eq!((by_memory.bound, by_memory.least_ms, by_memory.share), ("memory", 1.0, 0.5));
        let by_arithmetic = roofline(device, (1_000_000_000, 10_000_000), 2e-2).unwrap();
        assert_eq!(
            (by_arithmetic.bound, by_arithmetic.least_ms, by_arithmetic.share),
            ("arithmetic", 10.0, 0.5)
        );
        assert!(roofline(device, (0, 0), 1.0).is_none());
        assert!(roofline([0.0, 1.0], (1, 1), 1.0).is_none());
    }
}

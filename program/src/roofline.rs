//! `sparkle roofline`: the measured ceilings of a device, and where programs lie below them.

use std::path::PathBuf;
use std::str::FromStr;

use sparkle::memory::{Ceiling, Ceilings};

use crate::console::{Console, wrapped};
use crate::device::{DeviceOption, Listed};
use crate::failure::Failure;
use crate::files;
use crate::json::JsonOption;
use crate::roof_picture;

/// Measure what no program on a device exceeds, and compare programs with it.
///
/// The ceilings are the rate of multiply-adds on registers and the rate of reads from each level of the memory, by one
/// thread and by all. A level has a ridge: programs with fewer operations per byte of that level are bound by it, others by
/// arithmetic. The measurement takes some tenths of a second and is kept in the cache.
///
/// A point is a program of yours: its operations, the bytes that it reads and writes in main memory, and its time. Its
/// bound is the least time that operations and bytes need on all threads. `@LEVEL` after the bytes means bytes of another
/// level, for instance @L2. auto means the CPU.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    device: DeviceOption,
    /// Threads of the CPU; default: those of SPARKLE_NUM_THREADS
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// A program to compare, as NAME=FLOPS,BYTES[@LEVEL],SECONDS; may be repeated
    #[arg(long, value_name = "POINT")]
    point: Vec<Point>,
    /// Write a picture of the rooflines and points
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    json: JsonOption,
}

/// A program of the user's.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    name: String,
    flops: f64,
    bytes: f64,
    /// The level of the bytes; main memory if it is not given.
    level: Option<String>,
    seconds: f64,
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "expected NAME=FLOPS,BYTES,SECONDS, for instance mine=2e9,8e8@L2,0.05";
        let (name, numbers) = text.rsplit_once('=').ok_or(form)?;
        let parts: Vec<&str> = numbers.split(',').map(str::trim).collect();
        let &[flops, bytes, seconds] = parts.as_slice() else { return Err(form.to_owned()) };
        let (bytes, level) = match bytes.split_once('@') {
            Some((bytes, level)) => (bytes, Some(level.to_owned())),
            None => (bytes, None),
        };
        let number = |what: &str, text: &str| {
            let number = text.parse::<f64>().ok().filter(|number| (1e-18..1e30).contains(number));
            number.ok_or_else(|| format!("{what} is \"{text}\"; expected a positive number"))
        };
        if name.is_empty() || name.chars().count() > 40 {
            return Err("the name has 1 to 40 characters".to_owned());
        }
        Ok(Point {
            name: name.to_owned(),
            flops: number("FLOPS", flops)?,
            bytes: number("BYTES", bytes)?,
            level,
            seconds: number("SECONDS", seconds)?,
        })
    }
}

#[derive(serde::Serialize)]
struct Report {
    device: String,
    name: String,
    ceilings: Ceilings,
    implausible_cache: bool,
    ridges: Vec<Ridge>,
    points: Vec<Placed>,
}

/// Where the bound of a level meets that of arithmetic, in operations per byte.
#[derive(serde::Serialize)]
struct Ridge {
    level: &'static str,
    alone: Option<f64>,
    together: f64,
}

/// A point below its roof.
#[derive(Debug, serde::Serialize)]
pub struct Placed {
    pub name: String,
    /// The level of its bytes.
    pub level: &'static str,
    /// Operations per byte.
    pub intensity: f64,
    /// Operations per second.
    pub rate: f64,
    /// The bound of that rate.
    pub bound: f64,
    /// The rate as a share of the bound.
    pub share: f64,
    /// What binds: `arithmetic`, or the level.
    pub binds: &'static str,
}

/// Runs the command.
///
/// # Errors
/// A device that cannot be opened or measured; a point of a level that the device does not have; a file that cannot be
/// written.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    args.json.begin(console)?;
    if let Some(path) = &args.svg {
        files::check_target(path)?;
    }
    if let Some(threads) = args.threads {
        sparkle::set_num_threads(threads.into())?;
    }
    let device = args.device.open()?;
    let ceilings = device.ceilings()?;
    let id = if device.id().starts_with("gl:") { device.id() } else { "cpu" };
    let listed = sparkle::devices().into_iter().find(|it| it.id.as_deref() == Some(id)).map(Listed::from);
    let points =
        args.point.iter().map(|point| place(point, &ceilings)).collect::<Result<Vec<Placed>, Failure>>()?;
    let report = Report {
        device: id.to_owned(),
        name: listed.map_or_else(|| id.to_owned(), |listed| listed.name),
        implausible_cache: ceilings.is_implausible(),
        ridges: ridges(&ceilings),
        points,
        ceilings,
    };
    print(&report, console);
    if let Some(path) = &args.svg {
        let title = format!("{} ({})", report.name, threads(&report.ceilings));
        let picture = roof_picture::draw(&title, &report.ceilings, &report.points);
        files::write(path, |file| file.write_all(picture.as_bytes()))?;
        console.line(format!("wrote {}", path.display()));
    }
    args.json.end(&report, console)
}

fn threads(ceilings: &Ceilings) -> String {
    match ceilings.threads {
        0 => "the whole device".to_owned(),
        1 => "1 thread".to_owned(),
        count => format!("{count} threads"),
    }
}

fn ridges(ceilings: &Ceilings) -> Vec<Ridge> {
    let Some(peak) = ceilings.peaks.first() else { return vec![] };
    let ridge = |level: &Ceiling| Ridge {
        level: level.name,
        alone: peak.alone.zip(level.alone).map(|(peak, level)| peak / level),
        together: peak.together / level.together,
    };
    ceilings.levels.iter().map(ridge).collect()
}

fn place(point: &Point, ceilings: &Ceilings) -> Result<Placed, Failure> {
    let wanted = point.level.as_deref();
    let found = match wanted {
        None => ceilings.levels.last(),
        Some(name) => ceilings.levels.iter().find(|level| level.name.eq_ignore_ascii_case(name)),
    };
    let (Some(level), Some(peak)) = (found, ceilings.peaks.first()) else {
        let names: Vec<_> = ceilings.levels.iter().map(|level| level.name).collect();
        return Err(Failure::Usage(format!(
            "point {}: there is no level \"{}\"; expected {}",
            point.name,
            wanted.unwrap_or("memory"),
            names.join(", ")
        )));
    };
    let intensity = point.flops / point.bytes;
    let (of_level, rate) = (intensity * level.together, point.flops / point.seconds);
    let (bound, binds) =
        if of_level < peak.together { (of_level, level.name) } else { (peak.together, "arithmetic") };
    Ok(Placed {
        name: point.name.clone(),
        level: level.name,
        intensity,
        rate,
        bound,
        share: rate / bound,
        binds,
    })
}

fn print(report: &Report, console: &mut Console) {
    let Report { ceilings, points, .. } = report;
    console.line(wrapped("", 2, &format!("{} {}, {}", report.device, report.name, threads(ceilings))));
    let row = |cells: [&str; 4]| {
        let [name, rest @ ..] = cells;
        let rest: String = rest.iter().map(|cell| format!("  {cell:>14}")).collect();
        format!("{name:<20}{rest}").trim_end().to_owned()
    };
    let billions = |rate: f64| format!("{:.1}", rate / 1e9);
    let maybe = |rate: Option<f64>, shown: &dyn Fn(f64) -> String| rate.map_or_else(String::new, shown);
    console.line("");
    console.line(row(["multiply-adds", "one, GFLOPS", "all, GFLOPS", ""]));
    for peak in &ceilings.peaks {
        console.line(row([peak.name, &maybe(peak.alone, &billions), &billions(peak.together), ""]));
    }
    console.line("");
    console.line(row(["reads", "one, GB/s", "all, GB/s", "ridge, flop/B"]));
    for (level, ridge) in ceilings.levels.iter().zip(&report.ridges) {
        let ridge = format!("{:.1}", ridge.together);
        console.line(row([level.name, &maybe(level.alone, &billions), &billions(level.together), &ridge]));
    }
    let size = |bytes: usize| format!("{} KiB", bytes >> 10);
    let cache = match (ceilings.described, ceilings.seen) {
        (0, None) => None,
        (0, Some(seen)) => Some(format!("the last cache: reads slow down beyond {}", size(seen))),
        (described, None) => {
            Some(format!("the last cache: {} reported; reads show no end of it", size(described)))
        }
        (described, Some(seen)) => {
            let end = if report.implausible_cache { ": implausible (SPARKLE_CACHES)" } else { "" };
            Some(format!(
                "the last cache: {} reported; reads slow down beyond {}{end}",
                size(described),
                size(seen)
            ))
        }
    };
    cache.iter().for_each(|text| console.line(wrapped("", 2, text)));
    if points.is_empty() {
        return;
    }
    console.line("");
    let row = |cells: [&str; 6]| {
        let [name, rest @ ..] = cells;
        let name: String = name.chars().take(18).collect();
        let widths = [10, 11, 11, 8, 12];
        let rest: String = rest.iter().zip(widths).map(|(cell, width)| format!(" {cell:>width$}")).collect();
        format!("{name:<18}{rest}")
    };
    console.line(row(["point", "flop/byte", "GFLOPS", "bound", "share", "binds"]));
    for it in points {
        let intensity = format!("{:.3}", it.intensity);
        let share = format!("{:.2}", it.share);
        console.line(row([&it.name, &intensity, &billions(it.rate), &billions(it.bound), &share, it.binds]));
    }
    if let Some(point) = points.iter().find(|point| point.share > 1.05) {
        let advice = format!(
            "{} is above its bound: its data came from a nearer level than {}, or its numbers are wrong",
            point.name, point.level
        );
        console.line(wrapped("", 2, &advice));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings() -> Ceilings {
        let ceiling = |name, alone: f64, together: f64| Ceiling { name, alone: Some(alone), together };
        Ceilings {
            threads: 2,
            peaks: vec![ceiling("avx2", 1e11, 2e11)],
            levels: vec![ceiling("L1", 2e11, 4e11), ceiling("memory", 1e10, 2e10)],
            described: 0,
            seen: None,
        }
    }

    #[test]
    fn a_point_is_bound_by_its_level_or_by_arithmetic() {
        let placed = |text: &str| place(&text.parse().unwrap(), &ceilings()).unwrap();
        let stream = placed("a=b=1e9,2e9,0.2");
        assert_eq!((stream.name.as_str(), stream.level, stream.binds), ("a=b", "memory", "memory"));
        assert_eq!((stream.intensity, stream.rate, stream.bound), (0.5, 5e9, 1e10));
        assert_eq!(stream.share, 0.5);
        let product = placed("p=1e12,1e9,10");
        assert_eq!((product.binds, product.bound, product.share), ("arithmetic", 2e11, 0.5));
        let near = placed("n=1e9,1e10@l1,1");
        assert_eq!((near.level, near.binds, near.bound), ("L1", "L1", 4e10));
        let missing = place(&"x=1,1@L3,1".parse().unwrap(), &ceilings()).unwrap_err();
        assert_eq!(missing.to_string(), "point x: there is no level \"L3\"; expected L1, memory");
        let ridges = ridges(&ceilings());
        assert_eq!((ridges[0].together, ridges[1].alone), (0.5, Some(10.0)));
    }

    #[test]
    fn malformed_points_are_refused() {
        for text in
            ["", "x", "x=1", "x=1,2", "x=1,2,3,4", "=1,2,3", "x=a,2,3", "x=1,0,3", "x=1,2,-3", "x=1,2,inf"]
        {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
        let error = "x=1,2,three".parse::<Point>().unwrap_err();
        assert_eq!(error, "SECONDS is \"three\"; expected a positive number");
    }
}

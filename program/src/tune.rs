//! `sparkle tune`: measures the fastest kernel of every layer of a suite on a GL device, and keeps it in the cache.

use std::path::PathBuf;
use std::time::Duration;

use sparkle::lab::{self, Tuned};
use sparkle::report::geomean;

use crate::console::Console;
use crate::failure::Failure;
use crate::{suite, verify};

/// Measure the candidates of every layer of a suite and record the winners.
///
/// Candidates are built, compared with a float64 oracle in some rows, and timed in turns. Clearly slower ones drop
/// out. Plans use the winners if SPARKLE_TUNE is read or full. planned us is the time of the planner's choice without
/// measurements, tuned us that of the winner, each for one run among several back to back. seconds is how long tuning
/// the layer took, including compilation; below it is the longest. tried is the number of candidates that were timed, then
/// that of those refused for a wrong result.
#[derive(clap::Args)]
pub struct Args {
    /// Layers: a CSV file with the columns name,N,C,H,W,K,kernel,stride,pad, and optionally
    /// groups,dilation,kernel_w,pad_w
    #[arg(long, value_name = "FILE")]
    suite: PathBuf,
    /// Device to tune: gl:N
    #[arg(long, value_name = "D", default_value = "gl:0", value_parser = index)]
    device: usize,
    /// Images a batch, instead of the suite's N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=i64::from(i32::MAX)))]
    batch: Option<i64>,
    /// Seconds per layer
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    budget: Duration,
}

fn index(text: &str) -> Result<usize, String> {
    let number = text.strip_prefix("gl:").and_then(|number| number.parse().ok());
    number.ok_or_else(|| "expected gl:N; other devices have nothing to tune".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected 0.01 to 3600 seconds".to_owned())
}

/// Runs the command.
///
/// # Errors
/// A bad suite; no such device; a device failure. The other layers are tuned all the same.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    let layers = suite::read(&args.suite, args.batch)?;
    // A missing device is one error, not one per layer.
    lab::gpu(args.device)?;
    let names = layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0).max("geomean".len());
    console.line(line(
        names,
        ["name", "planned us", "tuned us", "gain", "seconds", "tried", "tuned", "planned"],
    ));
    let (mut gains, mut longest, mut failure) = (vec![], Duration::ZERO, None);
    let bar = console.progress(layers.len() as u64, "layers");
    for layer in &layers {
        bar.set_message(layer.name.clone());
        let tuned = verify::check_memory(&layer.problem)
            .and_then(|()| Ok(lab::tune(args.device, &layer.problem, args.budget)?));
        match tuned {
            Ok(tuned) => {
                gains.extend(gain(&tuned));
                longest = longest.max(tuned.took);
                console.line(row(names, &layer.name, &tuned));
            }
            Err(error) => {
                console.note(&format!("{}: {error}", layer.name));
                error.at(&layer.name).keep_worst(&mut failure);
            }
        }
        bar.inc(1);
    }
    console.end_progress();
    let mean = geomean(&gains).map_or("-".to_owned(), |mean| format!("{mean:.3}"));
    let longest = format!("{:.2}", longest.as_secs_f64());
    console.line(line(names, ["geomean", "", "", &mean, &longest, "", "", ""]));
    failure.map_or(Ok(()), Err)
}

/// How many times faster the winner is than the planner's choice.
fn gain(tuned: &Tuned) -> Option<f64> {
    Some(tuned.planned.1? / tuned.best?.1)
}

fn row(names: usize, name: &str, tuned: &Tuned) -> String {
    let us = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{:.1}", seconds * 1e6));
    let (planned, best) = (tuned.planned.0.to_string(), tuned.best.unwrap_or((tuned.planned.0, f64::NAN)));
    let gain = gain(tuned).map_or("-".to_owned(), |gain| format!("{gain:.3}"));
    let refused = if tuned.refused > 0 { format!("-{}", tuned.refused) } else { String::new() };
    let seconds = format!("{:.2}", tuned.took.as_secs_f64());
    let tried = format!("{}{refused}", tuned.timed);
    let (planned_us, best_us) = (us(tuned.planned.1), us(tuned.best.map(|best| best.1)));
    line(names, [name, &planned_us, &best_us, &gain, &seconds, &tried, &best.0.to_string(), &planned])
}

/// One line of the table.
fn line(
    names: usize,
    [name, planned_us, tuned_us, gain, seconds, tried, tuned, planned]: [&str; 8],
) -> String {
    let text = format!(
        "{name:<names$}  {planned_us:>10}  {tuned_us:>10}  {gain:>6}  {seconds:>7}  {tried:>5}  {tuned}  {planned}"
    );
    text.trim_end().to_owned()
}

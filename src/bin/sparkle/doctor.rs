//! `sparkle doctor`: does every device compute right, and what is missing for more of them?

use sparkle::{Device, config, devices};

use crate::console::Console;
use crate::failure::Failure;
use crate::hints::{Machine, hints};
use crate::selftest::{Check, Outcome, TESTS};

/// Test every usable device's arithmetic, and say what is missing for more.
///
/// A few seconds on hardware; software GL takes longer.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Report {
    version: &'static str,
    ok: bool,
    devices: Vec<Examined>,
    unusable: Vec<Unusable>,
    hints: Vec<String>,
    complaints: &'static [String],
}

#[derive(serde::Serialize)]
struct Examined {
    id: String,
    name: String,
    /// Why it could not be opened, if so; there are no checks then.
    error: Option<String>,
    checks: Vec<Check>,
}

#[derive(serde::Serialize)]
struct Unusable {
    name: String,
    reason: String,
}

/// Runs the command.
///
/// # Errors
/// If a device computes wrong numbers, or fails.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    let all = devices();
    let usable: Vec<_> = all.iter().filter_map(|it| Some((it.id.clone()?, it.name.clone()))).collect();
    let bar = console.progress((usable.len() * TESTS.len()) as u64, "checks");
    let mut examined = vec![];
    for (id, name) in usable {
        if !args.json {
            console.line(format!("{id}  {name}"));
        }
        let mut one = Examined { id, name, error: None, checks: vec![] };
        match Device::open(&one.id) {
            Ok(device) => {
                for test in TESTS {
                    bar.set_message(format!("{}: {}", one.id, test.name));
                    let check = test.run(&device);
                    if !args.json {
                        console.line(line(&check));
                    }
                    one.checks.push(check);
                    bar.inc(1);
                }
            }
            Err(error) => {
                if !args.json {
                    console.line(format!("  FAILED  {error}"));
                }
                one.error = Some(error.to_string());
            }
        }
        examined.push(one);
    }
    console.end_progress();
    let unusable = all
        .iter()
        .filter_map(|device| Some(Unusable { name: device.name.clone(), reason: device.unusable.clone()? }));
    let failure = failure(&examined);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        ok: failure.is_none(),
        unusable: unusable.collect(),
        hints: hints(&all, &Machine::look()),
        complaints: &config().complaints,
        devices: examined,
    };
    if args.json {
        console.json(&report)
    } else {
        print_rest(&report, console)
    }
    failure.map_or(Ok(()), Err)
}

fn line(check: &Check) -> String {
    let (word, detail) = match &check.outcome {
        Outcome::Passed(detail) => ("ok    ", detail),
        Outcome::Wrong(detail) => ("WRONG ", detail),
        Outcome::Failed(detail) => ("FAILED", detail),
    };
    format!("  {word}  {}: {detail}", check.name)
}

/// Wrong numbers are worse than none.
fn failure(devices: &[Examined]) -> Option<Failure> {
    let with = |kind: fn(&Outcome) -> bool| {
        let bad = devices.iter().find(|device| device.checks.iter().any(|check| kind(&check.outcome)));
        bad.map(|device| &device.id)
    };
    let wrong = with(|outcome| matches!(outcome, Outcome::Wrong(_)));
    let failed = with(|outcome| matches!(outcome, Outcome::Failed(_)))
        .or_else(|| devices.iter().find(|device| device.error.is_some()).map(|device| &device.id));
    match (wrong, failed) {
        (Some(id), _) => Some(Failure::Wrong(format!("{id} computes wrong numbers"))),
        (None, Some(id)) => Some(Failure::Device(format!("{id} fails"))),
        (None, None) => None,
    }
}

fn print_rest(report: &Report, console: &mut Console) {
    for Unusable { name, reason } in &report.unusable {
        console.line(format!("-     {name}\n  not usable, because {}", reason.replace('\n', "\n  ")));
    }
    report.complaints.iter().for_each(|complaint| console.line(format!("environment: {complaint}")));
    report.hints.iter().for_each(|hint| console.line(format!("hint: {hint}")));
    let checks: usize = report.devices.iter().map(|device| device.checks.len()).sum();
    if report.ok {
        console.line(format!("all {checks} checks passed on {} device(s)", report.devices.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_numbers_come_before_failures() {
        let device = |outcome| Examined {
            id: "gl:0".into(),
            name: String::new(),
            error: None,
            checks: vec![Check { name: "a check", cases: 1, outcome }],
        };
        let passed = || device(Outcome::Passed(String::new()));
        let wrong = || device(Outcome::Wrong(String::new()));
        let failed = || device(Outcome::Failed(String::new()));
        assert!(failure(&[passed()]).is_none());
        assert!(matches!(failure(&[failed(), wrong()]), Some(Failure::Wrong(_))));
        assert!(matches!(failure(&[passed(), failed()]), Some(Failure::Device(_))));
        let closed = Examined { error: Some("gone".into()), checks: vec![], ..passed() };
        assert!(matches!(failure(&[closed]), Some(Failure::Device(_))));
    }
}

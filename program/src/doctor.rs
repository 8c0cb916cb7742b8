//! `sparkle doctor`: tests the numbers of every device, and suggests what to install or fix.

use indicatif::ProgressBar;
use sparkle::{Device, config, devices};

use crate::console::{Console, wrapped};
use crate::environment::{Ignored, ignored};
use crate::failure::Failure;
use crate::hints::{Machine, hints};
use crate::json::JsonOption;
use crate::selftest::{Check, Outcome, TESTS, Test};

/// Test the numbers of every usable device, and suggest what to install or fix.
///
/// It takes a few seconds on hardware, and longer on software GL.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    json: JsonOption,
}

#[derive(serde::Serialize)]
struct Report {
    ok: bool,
    devices: Vec<Examined>,
    unusable: Vec<Unusable>,
    hints: Vec<String>,
    ignored: Vec<Ignored>,
}

#[derive(serde::Serialize)]
struct Examined {
    id: String,
    name: String,
    /// Why it could not be opened; there are no checks then.
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
    args.json.begin(console)?;
    let all = devices();
    let usable: Vec<_> = all.iter().filter_map(|it| Some((it.id.clone()?, it.name.clone()))).collect();
    let bar = console.progress((usable.len() * TESTS.len()) as u64, "checks");
    let mut say = |line: String| console.line(line);
    let examined: Vec<Examined> =
        usable.into_iter().map(|(id, name)| examine(id, name, &bar, &mut say)).collect();
    console.end_progress();
    let unusable = all
        .iter()
        .filter_map(|device| Some(Unusable { name: device.name.clone(), reason: device.unusable.clone()? }));
    let failure = failure(&examined);
    let report = Report {
        ok: failure.is_none(),
        unusable: unusable.collect(),
        hints: hints(&all, &Machine::look()),
        ignored: ignored(),
        devices: examined,
    };
    print_rest(&report, console);
    args.json.end(&report, console)?;
    failure.map_or(Ok(()), Err)
}

/// Runs all checks on one device, and reports each as it ends.
fn examine(id: String, name: String, bar: &ProgressBar, say: &mut impl FnMut(String)) -> Examined {
    say(format!("{id}  {name}"));
    let device = match Device::open(&id) {
        Ok(device) => device,
        Err(error) => {
            say(format!("  FAILED  {error}"));
            return Examined { id, name, error: Some(error.to_string()), checks: vec![] };
        }
    };
    let run = |test: &Test| {
        bar.set_message(format!("{id}: {}", test.name));
        let check = test.run(&device);
        say(line(&check));
        bar.inc(1);
        check
    };
    let checks = TESTS.iter().map(run).collect();
    Examined { id, name, error: None, checks }
}

fn line(check: &Check) -> String {
    let (word, detail) = match &check.outcome {
        Outcome::Passed(detail) => ("ok    ", detail),
        Outcome::Wrong(detail) => ("WRONG ", detail),
        Outcome::Failed(detail) => ("FAILED", detail),
    };
    wrapped(&format!("  {word}  "), 10, &format!("{}: {detail}", check.name))
}

/// The worst of all devices' failures.
fn failure(devices: &[Examined]) -> Option<Failure> {
    let mut worst = None;
    for Examined { id, error, checks, .. } in devices {
        let failed = || Failure::Device(format!("{id} fails"));
        for check in checks {
            match check.outcome {
                Outcome::Passed(_) => {}
                Outcome::Wrong(_) => {
                    Failure::Wrong(format!("{id} computes wrong numbers")).keep_worst(&mut worst)
                }
                Outcome::Failed(_) => failed().keep_worst(&mut worst),
            }
        }
        if error.is_some() {
            failed().keep_worst(&mut worst);
        }
    }
    worst
}

fn print_rest(report: &Report, console: &mut Console) {
    for Unusable { name, reason } in &report.unusable {
        console.line(format!("-     {name}"));
        for (index, line) in reason.lines().enumerate() {
            console.line(wrapped(if index == 0 { "  not usable, because " } else { "  " }, 4, line));
        }
    }
    for ignored in &config().ignored {
        console.line(wrapped("environment: ", 2, &ignored.to_string()));
    }
    report.hints.iter().for_each(|hint| console.line(wrapped("hint: ", 2, hint)));
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

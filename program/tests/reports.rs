//! What the program reports: the environment, text, JSON documents and the log of calls.

mod program;

use std::fs;
use std::path::Path;
use std::time::Duration;

use program::{code, folder, json, notes, npy, program, sparkle, stderr, stdout};
use sparkle::report::{Interval, Recorder, Source, TraceFile};
use tempfile::TempDir;

const CONV2D: [&str; 7] = ["conv2d", "--input", "x.npy", "--weights", "w.npy", "--output", "y.npy"];

/// A folder with an input and weights for [`CONV2D`].
fn problem() -> TempDir {
    let folder = folder();
    let ones = |count: usize| 1f32.to_le_bytes().repeat(count);
    npy(&folder.path().join("x.npy"), "<f4", false, &[1, 2, 6, 6], &ones(72));
    npy(&folder.path().join("w.npy"), "<f4", false, &[3, 2, 3, 3], &ones(54));
    folder
}

/// The trace of a pipeline that did one upload.
fn trace(path: &Path) {
    let mut recorder = Recorder::new(true);
    let (start, end) = (Duration::from_millis(1), Duration::from_millis(2));
    recorder.add(Interval { engine: 0, slot: 0, start, end, bytes: 8 });
    let mut file = TraceFile::new(fs::File::create(path).unwrap()).unwrap();
    recorder.write_trace(&mut file, "gl:0", (Source::Pipeline(1), Duration::ZERO)).unwrap();
}

/// A value that is not understood. `info` shows it, commands that compute refuse it, and nothing is written.
#[test]
fn a_value_that_is_not_understood_is_an_error() {
    let folder = problem();
    let values = [
        ("SPARKLE_ISA", "sse", "avx512, avx2 or portable"),
        (
            "SPARKLE_CACHES",
            "32M",
            "sizes such as l1=48K,l2=2M,l3=32M/8 (K, M or G; /8: 8 threads share it; 0: there is none)",
        ),
        ("SPARKLE_NUM_THREADS", "abc", "a number of threads of at least 1"),
        ("SPARKLE_LOG", "loud", "debug, info, warn or off"),
        ("SPARKLE_LOG_FORMAT", "xml", "text or json"),
        ("SPARKLE_TUNE", "always", "off, read or full"),
        ("SPARKLE_ALGORITHM", "fft", "auto, direct or winograd"),
    ];
    for (name, value, expected) in values {
        let run =
            |arguments: &[&str]| program(folder.path()).args(arguments).env(name, value).output().unwrap();
        let refused = run(&CONV2D);
        assert_eq!((code(&refused), stdout(&refused)), (2, ""), "{name}");
        assert_eq!(notes(&refused), [format!("sparkle: error: {name} is \"{value}\"; expected {expected}")]);
        assert!(!folder.path().join("y.npy").exists());
        let info = run(&["info", "--json"]);
        let ignored = serde_json::json!([{ "name": name, "value": value, "expected": expected }]);
        assert_eq!(json(&info)["ignored"], ignored);
        let text = run(&["info"]);
        // Other lines may name it too, as advice.
        let shown = |line: &str| line.contains(name) && line.contains(&format!("{value} (ignored)"));
        assert!(stdout(&text).lines().any(shown), "{}", stdout(&text));
        assert_eq!(code(&run(&["completions", "bash"])), 0);
    }
    // Another version may know it.
    let unknown = program(folder.path()).args(CONV2D).env("SPARKLE_DEVISE", "cpu").output().unwrap();
    assert_eq!((code(&unknown), notes(&unknown).len()), (0, 1), "{unknown:?}");
    assert!(stderr(&unknown).contains("SPARKLE_DEVISE=cpu is ignored: unknown variable"));
}

#[test]
fn text_fits_a_terminal() {
    let folder = folder();
    for command in ["info", "doctor"] {
        let output = program(folder.path()).arg(command).env("SPARKLE_TUNE", "always").output().unwrap();
        let text = stdout(&output);
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty() && text.lines().count() > 10, "{command}: {long:#?}");
        // No colours, for a terminal or not.
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}

/// Help and wrong usage have colours on a terminal, or if they are forced. NO_COLOR turns them off.
#[test]
fn no_color_is_heeded() {
    let folder = folder();
    for arguments in [&["--help"][..], &["info", "--loud"]] {
        let colours = |variables: &[(&str, &str)]| {
            let mut command = program(folder.path());
            command.args(arguments).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
            let output = command.envs(variables.iter().copied()).output().unwrap();
            [output.stdout, output.stderr].concat().contains(&0x1b)
        };
        assert!(!colours(&[]) && colours(&[("CLICOLOR_FORCE", "1")]), "{arguments:?}");
        assert!(!colours(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), "{arguments:?}");
    }
}

/// Every report begins in the same way, and goes to standard output alone or to a file beside the text.
#[test]
fn reports_have_one_form() {
    let folder = problem();
    fs::write(folder.path().join("suite.csv"), "name,N,C,H,W,K,kernel,stride,pad\none,1,8,6,6,8,1,1,0\n")
        .unwrap();
    trace(&folder.path().join("trace.json"));
    let kernel = program::root().join("tests/kernels/language/saxpy.f90").display().to_string();
    let commands: [&[&str]; 6] = [
        &["info"],
        &["doctor"],
        &CONV2D,
        &["bench", "--suite", "suite.csv", "--repeat", "1"],
        &["stats", "trace.json"],
        &["kernel", "check", &kernel],
    ];
    for command in commands {
        let run = |option| {
            program(folder.path()).args(command).arg(option).env("SPARKLE_DEVICE", "cpu").output().unwrap()
        };
        let (printed, written) = (run("--json"), run("--json=report.json"));
        assert_eq!((code(&printed), code(&written)), (0, 0), "{command:?}: {printed:?} {written:?}");
        let file = fs::read(folder.path().join("report.json")).unwrap();
        fs::remove_file(folder.path().join("report.json")).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        for report in [&json(&printed), &file] {
            assert_eq!(
                (&report["schema"], &report["version"]),
                (&1.into(), &env!("CARGO_PKG_VERSION").into())
            );
        }
        let keys =
            |report: &serde_json::Value| report.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&json(&printed)), keys(&file), "{command:?}");
        assert!(serde_json::from_slice::<serde_json::Value>(&written.stdout).is_err(), "{command:?}");
    }
}

/// Each call is one JSON object on standard error, through the program as through the library.
#[test]
fn calls_are_logged_as_json() {
    let folder = problem();
    let mut devices = vec!["cpu"];
    let info = json(&sparkle(folder.path(), &["info", "--json"]));
    if info["devices"].as_array().unwrap().iter().any(|it| it["id"] == "gl:0") {
        devices.push("gl:0");
    }
    for device in devices {
        let mut command = program(folder.path());
        command.args(CONV2D).args(["--device", device]);
        let output = command.env("SPARKLE_LOG", "debug").env("SPARKLE_LOG_FORMAT", "json").output().unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
        let lines = stderr(&output).lines().filter(|line| line.starts_with('{'));
        let records: Vec<serde_json::Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
        let calls: Vec<_> = records.iter().filter(|it| it.get("call").is_some()).collect();
        assert_eq!(calls.len(), 1, "{}", stderr(&output));
        let call = calls[0];
        assert_eq!(
            (&call["call"], &call["level"], &call["device"]),
            (&"conv2d".into(), &"debug".into(), &device.into())
        );
        assert!(
            call["ms"].as_f64().unwrap() > 0.0 && call["kernel"].is_string() && call["n"].is_u64(),
            "{call}"
        );
    }
}

//! Tuning across processes: `sparkle tune` measures and records, other processes use the record, or work without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sparkle::problem::exact::Random;

/// Enough work for a choice of kernels, and little enough for a software renderer.
const SUITE: &str = "name,N,C,H,W,K,kernel,stride,pad\ndeep,1,32,16,16,32,3,1,1\n";

/// Runs `sparkle` in `folder`, with its cache there and with `tune` in `SPARKLE_TUNE`.
fn sparkle(folder: &Path, tune: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparkle"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPARKLE_")) {
        command.env_remove(name);
    }
    let cache = folder.join("cache");
    command.current_dir(folder).env("SPARKLE_CACHE_DIR", cache).env("SPARKLE_TUNE", tune);
    command.args(arguments).output().expect("the program starts")
}

/// The columns of the single row that `sparkle tune` prints; `None` on a machine without OpenGL.
fn tune(folder: &Path) -> Option<Vec<String>> {
    let arguments = ["tune", "--suite", "suite.csv", "--device", "gl:0", "--budget", "1"];
    let output = sparkle(folder, "off", &arguments);
    if !output.status.success() && std::env::var_os("SPARKLE_TEST_REQUIRE_GL").is_none() {
        println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let row = text.lines().find(|line| line.starts_with("deep")).expect("a row");
    Some(row.split_whitespace().map(str::to_owned).collect())
}

/// The kernel of a plan, whose result is checked.
fn kernel(folder: &Path, tune: &str) -> String {
    let arguments = ["bench", "--suite", "suite.csv", "--device", "gl:0", "--prepacked", "--repeat", "1"];
    let output = sparkle(folder, tune, &[&arguments[..], &["--json=out.json"]].concat());
    assert!(output.status.success(), "{tune}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&fs::read(folder.join("out.json")).unwrap()).unwrap();
    assert!(report["rows"][0]["error_over_bound"].as_f64().unwrap() <= 1.0);
    report["rows"][0]["kernel"].as_str().unwrap().to_owned()
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("cache")).into_iter().flatten();
    files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect()
}

fn suite() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("suite.csv"), SUITE).unwrap();
    folder
}

#[test]
fn what_one_process_measured_others_take() {
    let folder = suite();
    let Some(row) = tune(folder.path()) else { return };
    // Name, the times of the planner's choice and the winner, gain, seconds, candidates tried; winner, planner's choice.
    let (planned, tuned) = (row[7].as_str(), row[6].as_str());
    assert_eq!(kernel(folder.path(), "off"), planned);
    assert_eq!(kernel(folder.path(), "read"), tuned);
    assert_eq!(kernel(folder.path(), "full"), tuned, "it is on record, so it is not measured again");
    let records =
        kept(folder.path()).iter().filter(|path| path.to_str().unwrap().contains("gl-tuned")).count();
    assert_eq!(records, 1);
}

#[test]
fn whatever_is_wrong_with_the_cache_plans_work() {
    let folder = suite();
    let Some(_) = tune(folder.path()) else { return };
    let first = kernel(folder.path(), "full");
    assert_eq!(kernel(folder.path(), "read"), first);
    let (mut random, mut mutated) = (Random::new(17), 0);
    for (round, path) in
        (0..3).flat_map(|round| kept(folder.path()).into_iter().map(move |path| (round, path)))
    {
        let mut bytes = fs::read(&path).unwrap();
        let at = random.between(0, bytes.len() as i64 - 1) as usize;
        match round {
            0 => bytes[at] ^= 1 << random.between(0, 7),
            1 => bytes.truncate(at),
            _ => bytes = b"of another program".to_vec(),
        }
        fs::write(path, bytes).unwrap();
        mutated += 1;
    }
    assert!(mutated > 6, "{mutated}");
    assert!(kernel(folder.path(), "read").starts_with("conv_"));
    // A file in place of the folder cannot be used as a cache.
    fs::remove_dir_all(folder.path().join("cache")).unwrap();
    fs::write(folder.path().join("cache"), "a file").unwrap();
    assert!(kernel(folder.path(), "full").starts_with("conv_"));
}

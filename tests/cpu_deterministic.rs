//! Tests of `SPARKLE_DETERMINISTIC`, `SPARKLE_TUNE` and `SPARKLE_CACHE_DIR`, each in its own process, because the environment
//! is read once.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use sparkle::problem::exact::Random;
use sparkle::{Conv2d, Conv2dDesc, Device};

/// A layer with several kernels to measure.
fn problem() -> Conv2d {
    let desc =
        Conv2dDesc { c: 64, h: 28, w: 27, k: 64, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    Conv2d::new(desc).unwrap()
}

/// In the child process: computes with several thread counts, and prints the kernel and a checksum of each result.
fn child() {
    let mut random = Random::new(91);
    let problem = problem();
    let input = random.reals(problem.input_len());
    let weights = random.reals(problem.weights_len());
    let mut output = vec![0.0f32; problem.output_len()];
    let device = Device::open("auto").unwrap();
    for threads in [1, 2, 3, 7, 16] {
        sparkle::set_num_threads(threads).unwrap();
        let plan = device.plan(&problem, &weights, None).unwrap();
        let run = plan.run(&input, &mut output).unwrap();
        let bits = output.iter().fold(0u64, |sum, value| sum.rotate_left(5) ^ u64::from(value.to_bits()));
        println!("RESULT {} {} {bits:x}", run.device, run.kernel);
    }
}

/// The lines that a child process with `variables` prints.
fn results(folder: &Path, variables: &[(&str, &str)]) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["deterministic", "--exact", "--nocapture"]).env("SPARKLE_TEST_CHILD", "1");
    for name in ["SPARKLE_ALGORITHM", "SPARKLE_DEVICE", "SPARKLE_NUM_THREADS"] {
        command.env_remove(name);
    }
    command.env("SPARKLE_CACHE_DIR", folder).envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> =
        text.lines().filter_map(|line| Some(line.split_once("RESULT ")?.1.to_owned())).collect();
    assert_eq!(lines.len(), 5, "{text}");
    lines
}

/// The number of cache entries of a kind.
fn entries(folder: &Path, kind: &str) -> usize {
    let Ok(files) = std::fs::read_dir(folder) else { return 0 };
    files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with(kind)).count()
}

#[test]
fn deterministic() {
    if std::env::var("SPARKLE_TEST_CHILD").is_ok() {
        return child();
    }
    let place = tempfile::tempdir().unwrap();
    let tuned = [("SPARKLE_TUNE", "full"), ("SPARKLE_DEVICE", "cpu")];
    let measured = results(place.path(), &tuned);
    // One entry per thread count, if this CPU has several kernels to choose from.
    let kept = entries(place.path(), "conv-");
    assert!(kept == 5 || (kept == 0 && measured.iter().all(|line| line.contains("portable"))), "{kept}");
    assert_eq!(results(place.path(), &tuned), measured, "the record decides");
    assert_eq!(results(place.path(), &[("SPARKLE_TUNE", "read"), tuned[1]]), measured);

    // Deterministic runs ignore the record: `auto` uses the predicted kernel on the CPU, with any number of threads.
    let fixed = [("SPARKLE_TUNE", "full"), ("SPARKLE_DETERMINISTIC", "1")];
    let distinct: BTreeSet<_> = results(place.path(), &fixed).into_iter().collect();
    assert_eq!(distinct.len(), 1, "{distinct:?}");
    assert!(distinct.iter().all(|line| line.starts_with("cpu ")), "{distinct:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(results(elsewhere.path(), &fixed).into_iter().collect::<BTreeSet<_>>(), distinct);
    assert_eq!(results(elsewhere.path(), &tuned[1..]).into_iter().collect::<BTreeSet<_>>(), distinct);
    assert_eq!(entries(elsewhere.path(), ""), 0, "nothing was measured");

    // Without a cache, measurements stay in the process.
    let home = tempfile::tempdir().unwrap();
    for off in ["", "off"] {
        let home = home.path().to_str().unwrap();
        results(
            place.path(),
            &[tuned[0], tuned[1], ("SPARKLE_CACHE_DIR", off), ("HOME", home), ("XDG_CACHE_HOME", home)],
        );
    }
    assert_eq!(entries(home.path(), ""), 0);
}

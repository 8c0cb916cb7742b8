//! The files that the program reads and writes, most of them through `sparkle conv2d`, and errors when memory is short.

mod program;

use std::fs;
use std::path::Path;
use std::process::Output;

use program::{code, folder, json, npy, sparkle, stderr, stdout, success};
use serde_json::Value;

const CONV2D: [&str; 9] =
    ["conv2d", "--input", "x.npy", "--weights", "w.npy", "--output", "y.npy", "--device", "cpu"];

/// `CONV2D` with some of its values changed, and options added.
fn conv2d(folder: &Path, changes: &[(&'static str, &'static str)], options: &[&'static str]) -> Output {
    let mut arguments = CONV2D.to_vec();
    for (option, value) in changes {
        let at = arguments.iter().position(|it| it == option).expect("an option of CONV2D");
        arguments[at + 1] = value;
    }
    sparkle(folder, &[&arguments, options].concat())
}

fn f4(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The shape and the values of a file that the program wrote, read by another implementation.
fn written(path: &Path) -> (Vec<u64>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    let file = npyz::NpyFile::new(&bytes[..]).unwrap();
    assert_eq!(file.order(), npyz::Order::C);
    (file.shape().to_vec(), file.into_vec().unwrap())
}

// ---------------------------------------------------------------------------------------------------- reading

/// A file with this header, in version 1.
fn with_header(path: &Path, dict: &str, data: &[u8]) {
    let length = (dict.len() as u16).to_le_bytes();
    fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], dict.as_bytes(), data].concat()).unwrap();
}

/// `numpy.load` reads all of these as the same array.
#[test]
fn headers_that_numpy_reads_are_read() {
    let folder = folder();
    npy(&folder.path().join("w.npy"), "<f4", false, &[1, 1, 1, 1], &f4(&[2.0]));
    let values = [1.0, -2.0, 3.0, 4.5, 5.0, 6.0];
    let native = values.map(f32::to_ne_bytes).concat();
    for dict in [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 1L, 2L, 3L), }",
        "{'descr': '=f4', 'fortran_order': False, 'shape': (1, 1, 2, 3), }",
        "{'descr': 'f4', 'fortran_order': False, 'shape': (1, 1, 2, 3), }",
        "{'descr': '|f4', 'fortran_order': False, 'shape': (1, 1, 2, 3), }",
        "{'descr': 'float32', 'fortran_order': False, 'shape': (1, 1, 2, 3), }\n",
        "{u'shape': (1,1,2,3,),\n u'descr' : \"<f4\" , u'fortran_order':False} # as Python reads it",
    ] {
        with_header(&folder.path().join("x.npy"), dict, &native);
        success(&conv2d(folder.path(), &[], &[]));
        let twice = values.map(|value| 2.0 * value).to_vec();
        assert_eq!(written(&folder.path().join("y.npy")), (vec![1, 1, 2, 3], twice), "{dict}");
    }
    for (dict, message) in [
        (
            "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 2, 3), }",
            "pickled Python objects are not read",
        ),
        (
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1, 2, 3), }",
            "dtype [('a', '<f4')], shape (1, 1, 2, 3);",
        ),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2, 3", "is no .npy file"),
    ] {
        with_header(&folder.path().join("x.npy"), dict, &native);
        let output = conv2d(folder.path(), &[], &[]);
        assert!(code(&output) == 3 && stderr(&output).contains(message), "{dict}: {}", stderr(&output));
    }
}

/// An empty batch is valid.
#[test]
fn an_empty_batch_gives_an_empty_output_on_every_device() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    npy(&at("x.npy"), "<f4", false, &[0, 2, 5, 5], &[]);
    npy(&at("w.npy"), "<f4", false, &[3, 2, 3, 3], &f4(&[1.0; 54]));
    npy(&at("b.npy"), "<f4", false, &[3], &f4(&[1.0; 3]));
    let info = json(&sparkle(folder.path(), &["info", "--json"]));
    let mut devices: Vec<&str> =
        info["devices"].as_array().unwrap().iter().filter_map(|it| it["id"].as_str()).collect();
    devices.push("auto");
    assert!(devices.contains(&"cpu"));
    for device in devices {
        let arguments = [&CONV2D[..8], &[device, "--bias", "b.npy", "--relu", "--json"]].concat();
        let output = sparkle(folder.path(), &arguments);
        success(&output);
        let report: Value = json(&output);
        assert_eq!(
            (&report["flops"], &report["kernel"], &report["fallback"]),
            (&0.into(), &"none".into(), &Value::Null)
        );
        assert_eq!(report["device"], if device == "auto" { "cpu" } else { device });
        for figure in ["kernel_ms", "wall_ms", "gflops"] {
            assert_eq!(report[figure].as_f64(), Some(0.0), "{figure}");
        }
        assert_eq!(written(&at("y.npy")), (vec![0, 3, 3, 3], vec![]));
    }
    let output = conv2d(folder.path(), &[], &[]);
    assert!(success(&output).contains("0x2x5x5 * 3x2x3x3 -> 0x3x3x3"), "{}", stdout(&output));
    // Weights are still checked, and no other size may be zero.
    npy(&at("w.npy"), "<f4", false, &[3, 4, 3, 3], &f4(&[1.0; 108]));
    assert!(stderr(&conv2d(folder.path(), &[], &[])).contains("the weights' channels, 4, times groups, 1,"));
    npy(&at("w.npy"), "<f4", false, &[3, 2, 6, 3], &f4(&[1.0; 108]));
    assert!(stderr(&conv2d(folder.path(), &[], &[])).contains("a kernel no larger than the padded input"));
    npy(&at("w.npy"), "<f4", false, &[0, 2, 3, 3], &[]);
    assert!(stderr(&conv2d(folder.path(), &[], &[])).contains("k is 0; expected 1 to"));
}

// ---------------------------------------------------------------------------------------------------- memory

/// A sparse file of zeros, which takes no space on disk.
fn sparse(path: &Path, descr: &str, fortran: bool, shape: &[usize], size: usize) {
    npy(path, descr, fortran, shape, &[]);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let header = file.metadata().unwrap().len();
    file.set_len(header + (size * shape.iter().product::<usize>()) as u64).unwrap();
}

/// Runs the program in an address space of so many KiB.
#[cfg(target_os = "linux")]
fn limited(folder: &Path, kib: u64, arguments: &[&str]) -> Output {
    let program = program::program(folder);
    let mut command = std::process::Command::new("sh");
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // The stacks and heaps of the machine's threads are small compared with the limits.
    command.current_dir(folder).env("SPARKLE_NUM_THREADS", "1");
    command.env("MALLOC_ARENA_MAX", "1").env("RUST_MIN_STACK", "262144");
    command.args(["-c", &format!("ulimit -v {kib} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_sparkle")]);
    command.args(arguments).output().unwrap()
}

/// Thirty million elements are 120 MB as float32. The output is small.
#[cfg(target_os = "linux")]
#[test]
fn reading_takes_the_memory_of_the_array_and_no_more() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    npy(&at("w.npy"), "<f4", false, &[1, 3, 1, 1], &f4(&[1.0; 3]));
    let shape = [1, 3, 2500, 4000];
    let strided = [&CONV2D[..], &["--stride", "1000"]].concat();
    for (descr, fortran, size) in [("<f4", false, 4), ("<f8", false, 8), (">f8", true, 8)] {
        sparse(&at("x.npy"), descr, fortran, &shape, size);
        // Less than the array: refused before anything is read, with the file, its shape and the bytes.
        for kib in [60_000, 110_000] {
            let output = limited(folder.path(), kib, &strided);
            let message = format!(
                "x.npy: dtype '{descr}', shape (1, 3, 2500, 4000): not enough memory, 120000000 bytes"
            );
            assert_eq!(code(&output), 3, "{kib} KiB: {}", stderr(&output));
            assert!(stderr(&output).contains(&message), "{kib} KiB: {}", stderr(&output));
            assert!(!at("y.npy").exists());
        }
        // Less than twice the array, and less than a float64 file.
        let output = limited(folder.path(), 220_000, &strided);
        success(&output);
        assert_eq!(written(&at("y.npy")), (vec![1, 1, 3, 4], vec![0.0; 12]), "{descr}");
        fs::remove_file(at("y.npy")).unwrap();
    }
}

/// The program reports a lack of memory wherever it occurs. Its allocator never aborts it.
#[cfg(target_os = "linux")]
#[test]
fn too_little_memory_is_bad_input_wherever_it_is_noticed() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    npy(&at("w.npy"), "<f4", false, &[3, 3, 3, 3], &f4(&[1.0; 81]));
    sparse(&at("x.npy"), "<f8", false, &[1, 3, 2000, 2000], 8);
    let (mut inputs, mut outputs, mut done) = (0, 0, 0);
    for kib in (40_000..=200_000).step_by(8_000) {
        let output = limited(folder.path(), kib, &[&CONV2D[..], &["--pad", "1"]].concat());
        if code(&output) == 0 {
            done += 1;
            continue;
        }
        let message = stderr(&output);
        assert_eq!(code(&output), 3, "{kib} KiB: {message}");
        inputs += usize::from(message.contains("x.npy: dtype '<f8'"));
        outputs += usize::from(message.contains("y.npy: an output of 12000000 elements: not enough memory"));
        assert!(message.contains("memory"), "{kib} KiB: {message}");
    }
    assert!(inputs > 0 && outputs > 0 && done > 0, "{inputs} {outputs} {done}");
}

/// Layers, traces and pictures, each with enough memory and with too little.
#[cfg(target_os = "linux")]
#[test]
fn other_commands_say_that_memory_is_short() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let head = "name,N,C,H,W,K,kernel,stride,pad\n";
    fs::write(at("deep.csv"), format!("{head}deep,1,16,700,700,4,1,1,0\n")).unwrap();
    // One row of outputs, for each of which the oracle needs 16 bytes.
    fs::write(at("wide.csv"), format!("{head}wide,1,1,1,4000000,1,1,1,0\n")).unwrap();
    let mut trace = String::from("{\"traceEvents\":[{}");
    for index in 0..80_000 {
        let (lane, slot) = (index % 3, index % 7);
        let name = ["upload", "compute", "download"][lane];
        trace += &format!(
            ",\n{{\"ph\":\"X\",\"pid\":1,\"tid\":{lane},\"cat\":\"engine\",\"name\":\"{name}\",\"ts\":{index},\"dur\":2,\"args\":{{\"pipeline\":1,\"slot\":{slot},\"bytes\":4}}}}"
        );
    }
    fs::write(at("trace.json"), trace + "]}").unwrap();
    image::RgbImage::new(5000, 5000).save(at("black.png")).unwrap();
    // With less, the system does not even start the program.
    let starts = |kib: &u64| limited(folder.path(), *kib, &["--version"]).status.success();
    let least = (16_000..300_000).step_by(4_000).find(starts).unwrap();
    let bench = |suite| vec!["bench", "--device", "cpu", "--repeat", "1", "--suite", suite];
    for (arguments, enough) in [
        (bench("deep.csv"), true),
        (bench("wide.csv"), true),
        (vec!["stats", "trace.json"], true),
        (vec!["trace", "trace.json", "--svg", "trace.svg"], true),
        // Larger than all of these limits, so that the demo fails before it loads drivers.
        (vec!["demo", "--device", "cpu", "--image", "black.png"], false),
        (vec!["stream", "--device", "cpu", "--batches", "12", "--suite", "deep.csv"], false),
    ] {
        let (mut refused, mut done) = (0, false);
        for kib in (least..=300_000).step_by(20_000) {
            let output = limited(folder.path(), kib, &arguments);
            let message = stderr(&output);
            if code(&output) == 0 {
                done = true;
                break;
            }
            assert!(
                code(&output) == 3 && message.contains("memory"),
                "{arguments:?} in {kib} KiB: {message}"
            );
            refused += 1;
        }
        assert!(refused > 0 && done == enough, "{arguments:?}: {refused} refusals");
    }
    // Longer than any suite.
    fs::write(at("long.csv"), format!("{head}{}", " ".repeat(17 << 20))).unwrap();
    let output = sparkle(folder.path(), &bench("long.csv"));
    assert!(
        code(&output) == 3 && stderr(&output).contains("long.csv: has more than 16777216 bytes"),
        "{}",
        stderr(&output)
    );
}

/// A header may promise data that the file does not have.
#[test]
fn a_header_that_promises_more_than_there_is_costs_no_memory() {
    let folder = folder();
    npy(&folder.path().join("w.npy"), "<f4", false, &[1, 1, 1, 1], &f4(&[1.0]));
    npy(&folder.path().join("x.npy"), "<f4", false, &[1, 1, 1 << 30, 1 << 29], &[0; 64]);
    let output = conv2d(folder.path(), &[], &[]);
    assert_eq!(code(&output), 3);
    assert!(
        stderr(&output).contains("needs 2305843009213693952 bytes of data, has 64"),
        "{}",
        stderr(&output)
    );
    #[cfg(target_os = "linux")]
    {
        // The length of a pipe is not known in advance.
        let mut child = program::program(folder.path())
            .args(CONV2D.map(|it| if it == "x.npy" { "/dev/stdin" } else { it }))
            .stdin(fs::File::open(folder.path().join("x.npy")).map(|_| std::process::Stdio::piped()).unwrap())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let bytes = fs::read(folder.path().join("x.npy")).unwrap();
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes);
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 3);
        assert!(
            stderr(&output).contains("not enough memory, 2305843009213693952 bytes"),
            "{}",
            stderr(&output)
        );
    }
}

// ---------------------------------------------------------------------------------------------------- writing

#[cfg(unix)]
#[test]
fn an_output_through_a_link_goes_where_the_link_leads() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let (folder, elsewhere) = (folder(), program::folder());
    let at = |name: &str| folder.path().join(name);
    let there = elsewhere.path().join("there.npy");
    npy(&at("x.npy"), "<f4", false, &[1, 1, 1, 2], &f4(&[1.0, 2.0]));
    npy(&at("w.npy"), "<f4", false, &[1, 1, 1, 1], &f4(&[3.0]));
    symlink(&there, at("y.npy")).unwrap();
    symlink("none/z.npy", at("nowhere.npy")).unwrap();
    let files = fs::read_dir(folder.path()).unwrap().count();
    // At first the link dangles. Then an older file exists, with its own permissions.
    for round in 0..2 {
        success(&conv2d(folder.path(), &[], &[]));
        assert!(fs::symlink_metadata(at("y.npy")).unwrap().is_symlink(), "{round}");
        assert_eq!(written(&there), (vec![1, 1, 1, 2], vec![3.0, 6.0]), "{round}");
        if round == 1 {
            assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o640);
        }
        fs::write(&there, "an older result").unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::set_permissions(&there, fs::Permissions::from_mode(0o440)).unwrap();
    let output = conv2d(folder.path(), &[], &[]);
    assert_eq!(code(&output), 3);
    let message = format!("cannot write y.npy: it is a link to {}: it is read-only", there.display());
    assert!(stderr(&output).contains(&message), "{}", stderr(&output));
    assert_eq!(fs::read(&there).unwrap(), b"an older result");
    let output = conv2d(folder.path(), &[("--output", "nowhere.npy")], &[]);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("cannot write nowhere.npy: it is a link to"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), files);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_may_be_a_pipe_a_device_or_what_standard_output_is() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    npy(&at("x.npy"), "<f4", false, &[1, 1, 1, 2], &f4(&[1.0, 2.0]));
    npy(&at("w.npy"), "<f4", false, &[1, 1, 1, 1], &f4(&[3.0]));
    let piped = conv2d(folder.path(), &[("--output", "/dev/stdout")], &[]);
    assert_eq!(code(&piped), 0);
    let expected = f4(&[3.0, 6.0]);
    assert!(piped.stdout.starts_with(b"\x93NUMPY") && piped.stdout[128..].starts_with(&expected));
    success(&conv2d(folder.path(), &[("--output", "/dev/null")], &[]));
    let redirected = program::program(folder.path())
        .args(CONV2D.map(|it| if it == "y.npy" { "/dev/stdout" } else { it }))
        .stdout(fs::File::create(at("z.npy")).unwrap())
        .output()
        .unwrap();
    assert_eq!(code(&redirected), 0, "{}", stderr(&redirected));
    assert_eq!(written(&at("z.npy")), (vec![1, 1, 1, 2], vec![3.0, 6.0]));
}

//! The `sparkle` program, run as its users run it: usage, `info`, `doctor`, `conv2d` and `demo`.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use program::{code, folder, json, notes, npy, program, sparkle, stderr, stdout, success};
use sparkle::problem::exact::Random;
use sparkle::problem::oracle;
use sparkle::{Conv2d, Conv2dDesc};
use tempfile::TempDir;

/// The program on a machine whose EGL library does not load.
#[cfg(target_os = "linux")]
fn without_egl(folder: &Path, arguments: &[&str]) -> Output {
    let libraries = folder.join("libraries");
    fs::create_dir_all(&libraries).unwrap();
    for name in ["libEGL.so.1", "libEGL.so"] {
        fs::write(libraries.join(name), "no library").unwrap();
    }
    program(folder).env("LD_LIBRARY_PATH", libraries).args(arguments).output().unwrap()
}

// ---------------------------------------------------------------------------------------------------- usage

#[test]
fn help_lists_commands_and_exit_codes() {
    let folder = folder();
    let help = sparkle(folder.path(), &["--help"]);
    for word in ["info", "doctor", "conv2d", "bench", "demo", "Exit codes:", "no usable device"] {
        assert!(success(&help).contains(word), "{word}");
    }
    assert_eq!(code(&sparkle(folder.path(), &[])), 2);
    assert_eq!(code(&sparkle(folder.path(), &["dance"])), 2);
    assert_eq!(code(&sparkle(folder.path(), &["info", "--loud"])), 2);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let folder = folder();
    for command in ["info", "doctor"] {
        let mut child = program(folder.path())
            .args([command, "--json"])
            .env("SPARKLE_DEVICE", "cpu")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), notes(&output)), (0, vec![]), "{command}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let folder = folder();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = program(folder.path()).arg("info").stdout(full).output().unwrap();
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("cannot write to standard output"), "{}", stderr(&output));
}

// ---------------------------------------------------------------------------------------------------- info, doctor

#[test]
fn info_lists_devices_and_the_environment() {
    let folder = folder();
    let text = sparkle(folder.path(), &["info"]);
    for word in ["Devices", "  cpu ", "usable", "auto", "SPARKLE_DEVICE"] {
        assert!(success(&text).contains(word), "{word} in {}", stdout(&text));
    }
    let info = json(&sparkle(folder.path(), &["info", "--json"]));
    let devices = info["devices"].as_array().unwrap();
    assert_eq!((&devices[0]["id"], &devices[0]["kind"]), (&"cpu".into(), &"cpu".into()));
    for device in devices {
        assert_eq!(device["usable"].as_bool().unwrap(), device["id"].is_string());
        assert_eq!(device["usable"].as_bool().unwrap(), device["reason"].is_null());
    }
    let examples = info["auto"]["examples"].as_array().unwrap();
    assert!(!examples.is_empty());
    for example in examples {
        let predicted = example["predicted"].as_array().unwrap();
        assert!(
            predicted.iter().any(|it| it["device"] == example["prefers"] && it["ms"].as_f64().unwrap() > 0.0)
        );
    }
}

#[test]
fn info_tells_what_was_measured_and_when() {
    let folder = folder();
    let info = || {
        let mut command = program(folder.path());
        command.args(["info", "--json"]).env("SPARKLE_DEVICE", "cpu").env("SPARKLE_NUM_THREADS", "2");
        json(&command.env("SPARKLE_CACHE_DIR", folder.path().join("cache")).output().unwrap())
    };
    let (first, second) = (info(), info());
    let measured = &first["measurements"][0];
    assert_eq!((&measured["moments"], &measured["sure"]), (&1.into(), &false.into()));
    assert!(measured["doubt"].is_null() && measured["first"].as_u64() > Some(1_700_000_000));
    let rates = measured["rates"].as_array().unwrap();
    assert!(rates.len() >= 4);
    for rate in rates {
        assert!(rate["value"].as_f64().unwrap() > 0.0 && rate["agreement"].is_null(), "{rate}");
        assert!(rate["name"].is_string() && rate["unit"].is_string(), "{rate}");
    }
    // The next process finds the same, as it starts too soon for another moment.
    assert_eq!(second["measurements"][0]["rates"], measured["rates"]);
    let when = second["devices"][0]["facts"]["measured when"].as_str().unwrap();
    assert!(when.contains("at one moment; not sure yet"), "{when}");
}

#[test]
fn info_shows_the_environment_and_ignored_variables() {
    let folder = folder();
    let mut command = program(folder.path());
    command.args(["info", "--json"]).env("SPARKLE_DEVICE", "cpu").env("SPARKLE_DEVISE", "gl:0");
    let info = json(&command.env("SPARKLE_NUM_THREADS", "1").output().unwrap());
    assert_eq!(info["threads"], 1);
    assert!(info["auto"]["means"].as_str().unwrap().starts_with("cpu, as set by SPARKLE_DEVICE"));
    let variables = info["environment"].as_array().unwrap();
    assert!(variables.iter().any(|it| it["name"] == "SPARKLE_DEVICE" && it["value"] == "cpu"));
    let ignored = serde_json::json!([{ "name": "SPARKLE_DEVISE", "value": "gl:0", "expected": null }]);
    assert_eq!(info["ignored"], ignored);
}

#[test]
fn doctor_finds_every_device_healthy() {
    let folder = folder();
    let text = sparkle(folder.path(), &["doctor"]);
    assert!(
        success(&text).contains("  ok      conv2d on integers is exact: 48 problems"),
        "{}",
        stdout(&text)
    );
    assert!(!stdout(&text).contains("WRONG") && stdout(&text).contains("checks passed"));
    let usable = json(&sparkle(folder.path(), &["info", "--json"]))["devices"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|device| device["usable"] == true)
        .count();
    let doctor = json(&sparkle(folder.path(), &["doctor", "--json"]));
    assert_eq!(doctor["ok"], true);
    let devices = doctor["devices"].as_array().unwrap();
    assert_eq!(devices.len(), usable);
    for device in devices {
        let checks = device["checks"].as_array().unwrap();
        assert_eq!(checks.len(), 6);
        assert!(checks.iter().all(|check| check["outcome"] == "passed" && check["cases"].as_u64() > Some(0)));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_egl_the_cpu_computes_and_doctor_suggests_packages() {
    let folder = folder();
    let info = json(&without_egl(folder.path(), &["info", "--json"]));
    let unusable = info["devices"].as_array().unwrap().iter().find(|device| device["kind"] == "gl").unwrap();
    assert!(unusable["reason"].as_str().unwrap().starts_with("no EGL library"), "{unusable}");
    let doctor = without_egl(folder.path(), &["doctor"]);
    assert!(success(&doctor).contains("apt install libegl1"), "{}", stdout(&doctor));
    let demo = without_egl(folder.path(), &["demo"]);
    assert!(success(&demo).contains("No OpenGL device can be used, so the CPU does it"), "{}", stdout(&demo));
    check_mosaic(&folder.path().join("sparkle-demo.png"));
}

// ---------------------------------------------------------------------------------------------------- conv2d

/// How an array is stored.
#[derive(Debug, Clone, Copy)]
enum Stored {
    F4,
    BigF4,
    F8,
    FortranF4,
    FortranF8,
}

fn store(path: &Path, stored: Stored, shape: &[usize], values: &[f32]) {
    let fortran = matches!(stored, Stored::FortranF4 | Stored::FortranF8);
    let values = if fortran { fortran_order(shape, values) } else { values.to_vec() };
    let f4 = |encode: fn(f32) -> [u8; 4]| values.iter().flat_map(|&value| encode(value)).collect::<Vec<u8>>();
    let f8 = || values.iter().flat_map(|&value| f64::from(value).to_le_bytes()).collect::<Vec<u8>>();
    match stored {
        Stored::F4 | Stored::FortranF4 => npy(path, "<f4", fortran, shape, &f4(f32::to_le_bytes)),
        Stored::BigF4 => npy(path, ">f4", fortran, shape, &f4(f32::to_be_bytes)),
        Stored::F8 | Stored::FortranF8 => npy(path, "<f8", fortran, shape, &f8()),
    }
}

fn fortran_order(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let mut stored = vec![f32::NAN; values.len()];
    for (at, &value) in values.iter().enumerate() {
        let (mut rest, mut place) = (at, 0);
        for (axis, &side) in shape.iter().enumerate().rev() {
            place += rest % side * shape[..axis].iter().product::<usize>();
            rest /= side;
        }
        stored[place] = value;
    }
    stored
}

/// One call of `sparkle conv2d`.
struct Case {
    options: &'static [&'static str],
    desc: Conv2dDesc,
    stored: Stored,
    rank3: bool,
}

/// Writes the files of a case, runs it, and compares every output with the oracle.
fn judge(case: &Case, device: &str) {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let problem = Conv2d::new(case.desc).unwrap();
    let sizes = problem.sizes();
    let mut random = Random::new(problem.flops());
    let input = random.integers(problem.input_len(), 8);
    let weights = random.integers(problem.weights_len(), 8);
    let bias = case.desc.bias.then(|| random.integers(sizes.k, 8));
    let image = [sizes.n, sizes.c, sizes.h, sizes.w];
    let axes = usize::from(case.rank3);
    store(&at("x.npy"), case.stored, &image[axes..], &input);
    store(&at("w.npy"), case.stored, &[sizes.k, sizes.c / sizes.groups, sizes.r, sizes.s], &weights);
    let mut arguments =
        vec!["conv2d", "--input", "x.npy", "--weights", "w.npy", "--output", "y.npy", "--json"];
    arguments.extend(["--device", device]);
    arguments.extend(case.options);
    if let Some(bias) = &bias {
        store(&at("b.npy"), case.stored, &[sizes.k], bias);
        arguments.extend(["--bias", "b.npy"]);
    }
    let output = sparkle(folder.path(), &arguments);
    success(&output);
    let report = json(&output);
    assert_eq!((&report["flops"], &report["device"]), (&problem.flops().into(), &device.into()));
    let bytes = fs::read(at("y.npy")).unwrap();
    let file = npyz::NpyFile::new(&bytes[..]).unwrap();
    let shape = [sizes.n, sizes.k, sizes.p, sizes.q].map(|side| side as u64);
    assert_eq!((file.shape(), file.order()), (&shape[axes..], npyz::Order::C));
    let got: Vec<f32> = file.into_vec().unwrap();
    let expected = oracle::conv2d(&problem, &input, &weights, bias.as_deref());
    assert_eq!(got.len(), expected.len());
    assert!(
        got.iter().zip(&expected).all(|(&got, expected)| f64::from(got) == expected.value),
        "{:?}",
        case.desc
    );
    assert!(got.iter().filter(|&&value| value != 0.0).count() > got.len() / 4);
}

fn cases() -> Vec<Case> {
    let desc = Conv2dDesc { n: 2, c: 4, h: 9, w: 7, k: 6, r: 3, s: 2, ..Default::default() };
    let case = |options, desc, stored| Case { options, desc, stored, rank3: false };
    vec![
        case(&[], desc, Stored::F4),
        case(&[], desc, Stored::BigF4),
        case(&["--stride", "2"], Conv2dDesc { stride_h: 2, stride_w: 2, ..desc }, Stored::F8),
        case(&["--stride", "2,1"], Conv2dDesc { stride_h: 2, ..desc }, Stored::FortranF4),
        case(&["--pad", "1x2"], Conv2dDesc { pad_h: 1, pad_w: 2, ..desc }, Stored::FortranF8),
        case(&["--dilation", "2"], Conv2dDesc { dilation_h: 2, dilation_w: 2, ..desc }, Stored::F4),
        case(&["--groups", "2"], Conv2dDesc { groups: 2, ..desc }, Stored::F4),
        case(&["--relu"], Conv2dDesc { bias: true, relu: true, ..desc }, Stored::F8),
        Case { options: &[], desc: Conv2dDesc { n: 1, bias: true, ..desc }, stored: Stored::F4, rank3: true },
    ]
}

#[test]
fn conv2d_agrees_with_the_oracle_on_every_kind_of_file() {
    let cases = cases();
    assert!(!cases.is_empty());
    cases.iter().for_each(|case| judge(case, "cpu"));
}

#[test]
fn conv2d_runs_on_every_device() {
    let folder = folder();
    let info = json(&sparkle(folder.path(), &["info", "--json"]));
    let ids: Vec<&str> =
        info["devices"].as_array().unwrap().iter().filter_map(|it| it["id"].as_str()).collect();
    assert!(ids.contains(&"cpu"));
    for id in ids {
        judge(&cases()[0], id);
    }
}

/// Files for the test of refusals: good ones, and one of each bad kind.
fn refusal_files() -> TempDir {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    store(&at("x.npy"), Stored::F4, &[1, 2, 5, 5], &[1.0; 50]);
    store(&at("w.npy"), Stored::F4, &[3, 2, 3, 3], &[1.0; 54]);
    store(&at("b4.npy"), Stored::F4, &[4], &[1.0; 4]);
    store(&at("rank2.npy"), Stored::F4, &[10, 5], &[1.0; 50]);
    store(&at("empty.npy"), Stored::F4, &[1, 2, 0, 5], &[]);
    npy(&at("complex.npy"), "<c8", false, &[1, 2, 5, 5], &[0; 400]);
    npy(&at("short.npy"), "<f4", false, &[1, 2, 5, 5], &[0; 199]);
    fs::write(at("text.npy"), "1 2 3").unwrap();
    fs::write(at("y.npy"), "an older result").unwrap();
    folder
}

#[test]
fn conv2d_refuses_bad_input_and_leaves_the_output_alone() {
    let folder = refusal_files();
    let before = fs::read_dir(folder.path()).unwrap().count();
    let cases: [(&[&str], i32, &str); 23] = [
        (&["--input", "none.npy"], 3, "none.npy: cannot be read"),
        (&["--weights", "none.npy"], 3, "none.npy: cannot be read"),
        (
            &["--input", "complex.npy"],
            3,
            "complex.npy: dtype '<c8', shape (1, 2, 5, 5); expected float16, float32, float64 or an integer type",
        ),
        (&["--output", "x.npy"], 3, "--output: x.npy is also the --input; --overwrite lets it replace that"),
        (&["--output", "./w.npy"], 3, "--output: ./w.npy is also the --weights"),
        (&["--json=x.npy"], 3, "--json: x.npy is also the --input"),
        (&["--json=y.npy"], 3, "--json: y.npy is also the --output"),
        (&["--input", "-", "--weights", "-"], 2, "--input and --weights are both standard input"),
        (&["--output", "-", "--json"], 2, "--output - and --json both write to standard output"),
        (&["--input", "-"], 3, "standard input: is no .npy file"),
        (
            &["--input", "short.npy"],
            3,
            "short.npy: dtype '<f4', shape (1, 2, 5, 5): needs 200 bytes of data, has 199",
        ),
        (&["--input", "text.npy"], 3, "text.npy: is no .npy file"),
        (&["--input", "rank2.npy"], 3, "rank2.npy: shape (10, 5) has rank 2; expected (N, C, H, W)"),
        (&["--input", "empty.npy"], 3, "h is 0"),
        (&["--weights", "b4.npy"], 3, "b4.npy: shape (4,) has rank 1"),
        (&["--bias", "b4.npy"], 3, "b4.npy: shape (4,); expected (3,)"),
        (
            &["--groups", "2"],
            3,
            "x.npy (1, 2, 5, 5) with w.npy (3, 2, 3, 3): the weights' channels, 2, times groups, 2,",
        ),
        (&["--dilation", "3"], 3, "a kernel no larger than the padded input"),
        (&["--stride", "0"], 3, "stride_h is 0"),
        (&["--stride", "x"], 2, "--stride"),
        (
            &["--device", "abacus"],
            2,
            "device is \"abacus\"; expected auto, multi, cpu, gl:N, a stable name or name=TEXT",
        ),
        (&["--device", "gl:99"], 4, "gl:99"),
        (&["--output", "none/y.npy"], 3, "cannot write none/y.npy: none is no directory"),
    ];
    for (change, expected, message) in cases {
        let mut arguments = vec!["conv2d", "--input", "x.npy", "--weights", "w.npy", "--output", "y.npy"];
        for option in change.chunks(2) {
            match arguments.iter().position(|it| *it == option[0]) {
                Some(at) => arguments[at + 1] = option[1],
                None => arguments.extend(option),
            }
        }
        let output = sparkle(folder.path(), &arguments);
        assert_eq!(code(&output), expected, "{change:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{change:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
        assert_eq!(fs::read(folder.path().join("y.npy")).unwrap(), b"an older result", "{change:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before, "{change:?}");
    }
}

/// "-" is standard input and standard output; float16 and uint8 of either byte order give the output of their values.
#[test]
fn conv2d_works_in_a_pipe_and_converts_numbers() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let values: Vec<u8> = (0..50).map(|it| it * 5).collect();
    let data: Vec<f32> = values.iter().map(|value| f32::from(*value)).collect();
    store(&at("x.npy"), Stored::F4, &[1, 2, 5, 5], &data);
    npy(&at("bytes.npy"), "|u1", false, &[1, 2, 5, 5], &values);
    // 1, -2, 0.5 and 0 again and again.
    let (weights, halves) = ([1.0, -2.0, 0.5, 0.0], [[0x3c, 0], [0xc0, 0], [0x38, 0], [0, 0]]);
    let weights: Vec<f32> = (0..54).map(|it| weights[it % 4]).collect();
    let halves: Vec<u8> = (0..54).flat_map(|it| halves[it % 4]).collect();
    store(&at("w.npy"), Stored::F4, &[3, 2, 3, 3], &weights);
    npy(&at("half.npy"), ">f2", false, &[3, 2, 3, 3], &halves);
    success(&sparkle(
        folder.path(),
        &["conv2d", "--input", "x.npy", "--weights", "w.npy", "--output", "y.npy", "--device", "cpu"],
    ));
    let expected = fs::read(at("y.npy")).unwrap();
    let piped = |input: &str, options: &[&str]| {
        let mut command = program(folder.path());
        command.args(["conv2d", "--device", "cpu"]).args(options);
        command.stdin(fs::File::open(at(input)).unwrap()).output().unwrap()
    };
    let output = piped("bytes.npy", &["--input", "-", "--weights", "half.npy", "--output", "-"]);
    assert_eq!((code(&output), notes(&output)), (0, vec![]));
    assert!(output.stdout == expected, "the output alone");
    let output = piped("half.npy", &["--input", "x.npy", "--weights", "-", "--output", "z.npy", "--json"]);
    assert_eq!(json(&output)["output"], "z.npy");
    assert!(fs::read(at("z.npy")).unwrap() == expected);
    // With --overwrite, an input may be replaced.
    let replace = ["--input", "bytes.npy", "--weights", "w.npy", "--output", "bytes.npy", "--overwrite"];
    success(&piped("x.npy", &replace));
    assert!(fs::read(at("bytes.npy")).unwrap() == expected);
}

#[test]
fn conv2d_replaces_an_older_output() {
    let folder = refusal_files();
    let before = fs::read_dir(folder.path()).unwrap().count();
    let arguments = ["conv2d", "--input", "x.npy", "--weights", "w.npy", "--output", "y.npy"];
    let output = sparkle(folder.path(), &arguments);
    assert!(
        success(&output).contains("1x2x5x5 * 3x2x3x3 -> 1x3x3x3, written to y.npy"),
        "{}",
        stdout(&output)
    );
    let bytes = fs::read(folder.path().join("y.npy")).unwrap();
    let file = npyz::NpyFile::new(&bytes[..]).unwrap();
    assert_eq!(file.into_vec::<f32>().unwrap(), [18.0; 27]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);
}

// ---------------------------------------------------------------------------------------------------- demo

/// The mosaic's size. At its lower edge are eight by eight maps of 112 pixels, 2 apart.
const MOSAIC: (u32, u32) = (914, 1182);

fn check_mosaic(path: &Path) -> image::RgbImage {
    let mosaic = image::open(path).unwrap().to_rgb8();
    assert_eq!(mosaic.dimensions(), MOSAIC);
    for index in 0..64 {
        let (left, top) = (2 + index % 8 * 114, MOSAIC.1 - 8 * 114 + index / 8 * 114);
        let pixels = || (0..112 * 112).map(|i| mosaic.get_pixel(left + i % 112, top + i / 112).0);
        let brightness = || pixels().map(|[r, g, b]| u32::from(r) + u32::from(g) + u32::from(b));
        let (least, most) = (brightness().min().unwrap(), brightness().max().unwrap());
        assert!(most > least + 150, "map {index}: {least} to {most}");
    }
    mosaic
}

#[test]
fn demo_draws_the_feature_maps_of_the_chart() {
    let folder = folder();
    let output = sparkle(folder.path(), &["demo"]);
    for word in ["a test chart through 64 filters", "cpu ", "GFLOPS", "auto takes ", "sparkle-demo.png"] {
        assert!(success(&output).contains(word), "{word} in {}", stdout(&output));
    }
    let names: Vec<PathBuf> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [folder.path().join("sparkle-demo.png")]);
    check_mosaic(&names[0]);
}

#[test]
fn demo_takes_photographs() {
    let folder = folder();
    let photo = image::RgbImage::from_fn(400, 300, |x, y| {
        let wave = |place: u32, period: u32| (place % period * 255 / period) as u8;
        image::Rgb([wave(x, 37), wave(y, 53), wave(x + y, 71)])
    });
    let mut mosaics = vec![];
    for ending in ["png", "jpg", "webp", "bmp"] {
        let (name, maps) = (format!("photo.{ending}"), format!("maps.{ending}"));
        photo.save(folder.path().join(&name)).unwrap();
        let arguments = ["demo", "--image", &name, "--output", &maps, "--device", "cpu"];
        assert!(success(&sparkle(folder.path(), &arguments)).contains(&name));
        // Written in the format of its name, which the content shows.
        let (path, bytes) = (folder.path().join(&maps), fs::read(folder.path().join(&maps)).unwrap());
        assert_eq!(image::guess_format(&bytes).unwrap(), image::ImageFormat::from_path(&path).unwrap());
        mosaics.push(check_mosaic(&path));
    }
    assert!(mosaics[0] == mosaics[2] && mosaics[0] == mosaics[3], "WebP and BMP lose nothing");
    success(&sparkle(folder.path(), &["demo", "--device", "cpu"]));
    assert_ne!(check_mosaic(&folder.path().join("sparkle-demo.png")), mosaics[0]);
}

#[test]
fn demo_refuses_bad_pictures_and_options() {
    let folder = folder();
    fs::write(folder.path().join("text.png"), "not a picture").unwrap();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--image", "none.png"], 3, "none.png"),
        (&["--image", "text.png"], 3, "text.png"),
        (&["--device", "abacus"], 2, "abacus"),
        (&["--device", "gl:99"], 4, "gl:99"),
        (&["--output", "none/maps.png"], 3, "none is no directory"),
        (&["--output", "maps.gif"], 3, "maps.gif: no picture is written in this format; expected .png, .jpg"),
        (&["--image", "text.png", "--output", "./text.png"], 3, "--output: ./text.png is also the --image"),
    ];
    for (options, expected, message) in cases {
        let output = sparkle(folder.path(), &[&["demo"], options].concat());
        assert_eq!(code(&output), expected, "{}", stderr(&output));
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is written");
}

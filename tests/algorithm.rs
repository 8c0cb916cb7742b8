//! Tests of `SPARKLE_ALGORITHM`, and of Winograd on GL devices. Each value of the variable needs its own process, because the
//! environment is read once.

use std::process::Command;

use sparkle::problem::{TensorLayout, WeightsLayout};
use sparkle::{Algorithm, Conv2d, Conv2dDesc, Device, Error};

/// A layer that `auto` computes with Winograd if the CPU has kernels for it.
const LAYER: Conv2dDesc = Conv2dDesc {
    n: 1,
    c: 64,
    h: 56,
    w: 56,
    k: 64,
    r: 3,
    s: 3,
    stride_h: 1,
    stride_w: 1,
    pad_h: 1,
    pad_w: 1,
    dilation_h: 1,
    dilation_w: 1,
    groups: 1,
    bias: false,
    relu: false,
    algorithm: Algorithm::Auto,
    pad_bottom: None,
    pad_right: None,
    input_layout: TensorLayout::Nchw,
    output_layout: TensorLayout::Nchw,
    weights_layout: WeightsLayout::Oihw,
};

/// Prints the kernels of some convolutions, for a plan and for a single call. The test below runs it in a child process.
#[test]
#[ignore = "a part of the test below"]
fn kernels() {
    let cpu = Device::open("cpu").unwrap();
    let strided = Conv2dDesc { stride_h: 2, ..LAYER };
    let small = Conv2dDesc { h: 8, w: 8, ..LAYER };
    let told = Conv2dDesc { algorithm: Algorithm::Direct, ..LAYER };
    for (name, desc) in [("layer", LAYER), ("strided", strided), ("small", small), ("told", told)] {
        let problem = Conv2d::new(desc).unwrap();
        let (input, weights) = (vec![1.0; problem.input_len()], vec![1.0; problem.weights_len()]);
        let mut output = vec![0.0; problem.output_len()];
        let plan = cpu.plan(&problem, &weights, None).unwrap();
        let planned = plan.run(&input, &mut output).unwrap().kernel;
        let once = cpu.conv2d(&problem, &input, &weights, None, &mut output).unwrap().kernel;
        println!("kernel {name} {planned} {once}");
    }
    if let Ok(gl) = Device::open("gl:0") {
        let problem = Conv2d::new(Conv2dDesc { c: 16, h: 8, w: 8, k: 16, ..LAYER }).unwrap();
        let plan = gl.plan(&problem, &vec![1.0; problem.weights_len()], None).unwrap();
        let kernel =
            plan.run(&vec![1.0; problem.input_len()], &mut vec![0.0; problem.output_len()]).unwrap().kernel;
        println!("kernel gl {kernel} {kernel}");
    }
}

/// Name, kernel of the plan and kernel of the call, as [`kernels`] prints them with a value of the variable.
fn kernels_under(value: &str) -> Vec<[String; 3]> {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["kernels", "--exact", "--ignored", "--nocapture"])
        .env("SPARKLE_ALGORITHM", value)
        .output()
        .unwrap();
    let stdout = String::from_utf8(child.stdout).unwrap();
    assert!(child.status.success(), "{stdout}{}", String::from_utf8_lossy(&child.stderr));
    let rows = stdout.lines().filter_map(|line| {
        let (_, words) = line.split_once("kernel ")?;
        <[String; 3]>::try_from(words.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).ok()
    });
    rows.collect()
}

#[test]
fn the_environment_says_what_auto_means() {
    let refused = || {
        let desc = Conv2dDesc { algorithm: Algorithm::Winograd, ..LAYER };
        let problem = Conv2d::new(desc).unwrap();
        Device::open("cpu").unwrap().plan(&problem, &vec![0.0; problem.weights_len()], None).is_err()
    };
    let kernels_exist = !refused();
    let mut cases = 0;
    for (value, winograd) in [
        ("auto", ["layer"].as_slice()),
        ("direct", &[]),
        // Winograd is not used where it is unsupported, or where the descriptor asks for the direct algorithm.
        ("winograd", &["layer", "small", "gl"]),
    ] {
        for [name, planned, once] in kernels_under(value) {
            // Winograd on a GPU does not depend on this CPU.
            let expected = (kernels_exist || name == "gl") && winograd.contains(&name.as_str());
            for kernel in [planned, once] {
                assert_eq!(kernel.starts_with("conv_winograd_"), expected, "{value}: {name} by {kernel}");
                cases += 1;
            }
        }
    }
    assert!(cases == 3 * 4 * 2 || cases == 3 * 5 * 2, "{cases} cases");
}

#[test]
fn gl_devices_refuse_winograd_where_it_has_no_form_and_write_nothing() {
    let device = match Device::open("gl:0") {
        Ok(device) => device,
        Err(error) => {
            let required = std::env::var("SPARKLE_TEST_REQUIRE_GL").is_ok_and(|value| value == "1");
            assert!(!required, "SPARKLE_TEST_REQUIRE_GL=1, but {error}");
            return println!("skipped: no GL device ({error})");
        }
    };
    let desc = Conv2dDesc { c: 2, h: 8, w: 8, k: 2, stride_h: 2, algorithm: Algorithm::Winograd, ..LAYER };
    let problem = Conv2d::new(desc).unwrap();
    let (input, weights) = (vec![1.0; problem.input_len()], vec![1.0; problem.weights_len()]);
    let mut output = vec![7.0; problem.output_len()];
    let planned = device.plan(&problem, &weights, None).map(drop);
    let called = device.conv2d(&problem, &input, &weights, None, &mut output).map(drop);
    for refused in [planned, called] {
        let Err(Error::Unsupported { device, what }) = refused else { panic!("{refused:?}") };
        assert!(device == "gl:0" && what.contains("Winograd"), "{device}: {what}");
    }
    assert!(output.iter().all(|&value| value == 7.0));
}

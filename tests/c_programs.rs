//! C programs against the shared library, as a user's would be built and run. What they print is compared to the byte: the
//! library prints nothing.

mod support;

use std::path::PathBuf;
use std::sync::OnceLock;

use support::{compile_c, run};

const PEDANTIC: [&str; 1] = ["-Wpedantic"];

/// The usable GL devices' selectors; where there are none, says so or fails.
#[track_caller]
fn gl_devices() -> Vec<String> {
    if !support::gl_available() {
        return vec![];
    }
    let all = sparkle::devices();
    all.into_iter()
        .filter(|device| device.kind == sparkle::DeviceKind::Gl)
        .filter_map(|device| device.id)
        .collect()
}

#[test]
fn layouts_in_c_and_cpp() {
    for source in ["layout.c", "layout.cpp"] {
        let program = compile_c(source, &PEDANTIC);
        run(&program, &[]).expect("version 0.1.0, as the header says: 1\n");
    }
}

const NEW_API: &str = "devices\nconvolutions\nproducts\nclosed device\nfinalize\nthreads\n";

fn new_api(device: &str) {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let mut command = std::process::Command::new(PROGRAM.get_or_init(|| compile_c("new_api.c", &PEDANTIC)));
    command.arg(device);
    support::run_command(command).expect(NEW_API);
}

#[test]
fn the_new_interface_on_the_cpu() {
    new_api("cpu");
}

#[test]
fn the_new_interface_on_auto() {
    new_api("auto");
    new_api("NULL");
}

#[test]
fn the_new_interface_on_gl() {
    for device in gl_devices() {
        new_api(&device);
    }
}

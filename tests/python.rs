//! The Python package: a wheel that carries this build's library is built, unpacked, and tested as if it were installed.

mod support;

use std::path::Path;
use std::process::Command;

/// A Python that has NumPy, and hatchling to build the wheel.
fn python() -> Option<&'static str> {
    let found = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let mut command = Command::new(python);
        let imports = command.args(["-c", "import numpy, hatchling"]).output();
        imports.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!("skipped: no python3 with numpy and hatchling; `make test` installs them");
    }
    found
}

fn run(command: Command) -> support::Ran {
    let what = format!("{command:?}");
    let ran = support::run_command(command);
    assert!(ran.status.success(), "{what}\n{}\n{}", ran.stdout, ran.stderr);
    ran
}

#[test]
fn the_wheel() {
    let Some(python) = python() else { return };
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let folder = tempfile::tempdir_in(support::scratch()).unwrap();
    let (wheels, site) = (folder.path().join("wheels"), folder.path().join("site"));
    let mut build = Command::new(python);
    build.current_dir(&package).args(["-m", "hatchling", "build", "-t", "wheel", "-d"]).arg(&wheels);
    run({
        build.env("WHEEL_LIBRARY", support::library_dir().join("libsparkle.so"));
        build
    });
    let wheel = std::fs::read_dir(&wheels).unwrap().next().expect("a wheel").unwrap().path();
    let name = wheel.file_name().unwrap().to_str().unwrap().to_owned();
    let expected = format!("sparkle_compute-{}-py3-none-linux_", env!("CARGO_PKG_VERSION"));
    assert!(name.starts_with(&expected), "{name}");
    let mut unpack = Command::new(python);
    unpack.args(["-m", "zipfile", "-e"]).args([&wheel, &site]);
    run(unpack);

    let with_package = || {
        let mut command = Command::new(python);
        command.args(["-W", "error"]).env("PYTHONPATH", &site).env_remove("LD_LIBRARY_PATH");
        command
    };
    let mut tests = with_package();
    tests.args(["-m", "unittest", "discover", "-s"]).arg(package.join("tests"));
    let ran = run(tests);
    let count = ran.stderr.split("Ran ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(count.is_some_and(|count| count >= 16) && !ran.stderr.contains("skipped"), "{}", ran.stderr);

    // The examples of the pages.
    for page in [include_str!("../python/README.md"), include_str!("../README.md")] {
        let example = page.split_once("```python\n").expect("an example").1.split_once("```").unwrap().0;
        let mut program = with_package();
        program.args(["-c", example]);
        let ran = run(program);
        assert!(ran.stderr.is_empty() && !ran.stdout.is_empty(), "{ran:?}");
    }
}

//! Helpers for tests of the program: it runs in a folder of its own, and its output is examined.
#![allow(dead_code)] // Each test file uses some of them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The program in `folder`, with no `SPARKLE_` variables from outside.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparkle"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SPARKLE_") {
            command.env_remove(name);
        }
    }
    // Without a cache, the folder contains only files that the command was asked to write.
    command.current_dir(folder).env("SPARKLE_CACHE_DIR", "off");
    command
}

/// Runs the program in `folder`.
pub fn sparkle(folder: &Path, arguments: &[&str]) -> Output {
    program(folder).args(arguments).output().expect("the program starts")
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The program's own lines on stderr. Drivers may write there, too.
pub fn notes(output: &Output) -> Vec<&str> {
    stderr(output).lines().filter(|line| line.contains("sparkle") || line.contains("panicked")).collect()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("the program ends by itself")
}

/// Asserts success without notes; returns stdout.
pub fn success(output: &Output) -> &str {
    assert_eq!((code(output), notes(output)), (0, vec![]), "{}", stdout(output));
    stdout(output)
}

pub fn json(output: &Output) -> Value {
    serde_json::from_str(stdout(output)).expect("standard output is JSON")
}

pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes a `.npy` file of version 1, without the program's own writer.
pub fn npy(path: &Path, descr: &str, fortran: bool, shape: &[usize], data: &[u8]) {
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let order = if fortran { "True" } else { "False" };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({sides}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((dict.len() as u16).to_le_bytes());
    bytes.extend(dict.as_bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

//! Tests of the compiler as a whole.

mod bad;
mod facts;
mod fortran;
mod limits;
mod mutations;
mod texts;

use super::*;

/// The tree of a program without mistakes.
pub(super) fn unit(text: &str) -> Unit {
    let compiled = compile(text.as_bytes()).unwrap();
    let messages = diagnostics::render_all(&compiled.diagnostics, "test.f90", text.as_bytes()).unwrap();
    compiled.unit.unwrap_or_else(|| panic!("{messages}"))
}

/// The files of a folder of `tests/kernels`, by name.
pub(super) fn files(folder: &str) -> Vec<(String, String)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn good_programs_compile_without_messages() {
    let all = files("language");
    assert!(all.len() >= 6);
    for (name, text) in all {
        let compiled = compile(text.as_bytes()).unwrap();
        let messages = diagnostics::render_all(&compiled.diagnostics, &name, text.as_bytes()).unwrap();
        assert!(compiled.unit.is_some() && messages.is_empty(), "{messages}");
    }
}

//! The shared library's face: the header, the symbols, the layouts.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn manifest(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares a committed file with what it should be; `SPARKLE_BLESS=1` rewrites it.
fn committed(path: &str, expected: &str) {
    let file = manifest(path);
    if std::env::var("SPARKLE_BLESS").as_deref() == Ok("1") {
        fs::write(&file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{path}, line {}; SPARKLE_BLESS=1 rewrites the file", number + 1);
    }
    assert!(found == expected, "{path} is too short or too long; SPARKLE_BLESS=1 rewrites the file");
}

#[test]
fn the_header_is_the_generated_one() {
    committed("include/sparkle.h", include_str!(concat!(env!("OUT_DIR"), "/sparkle.h")));
}

/// Every symbol that the shared library exports.
fn exported() -> BTreeSet<String> {
    let library = support::library_dir().join("libsparkle.so");
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output().expect("nm runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
}

#[test]
fn the_library_exports_what_the_list_says() {
    let list: String = exported().iter().map(|symbol| format!("{symbol}\n")).collect();
    assert!(list.lines().count() >= 35, "{list}");
    committed("include/abi.txt", &list);
}

#[test]
fn the_header_declares_what_the_library_exports() {
    let header = fs::read_to_string(manifest("include/sparkle.h")).unwrap();
    // A declaration starts in the first column, unlike a comment.
    let lines = header.lines().filter(|line| line.starts_with(|start: char| start.is_ascii_alphabetic()));
    let declared = lines.filter_map(|line| {
        let name = line[..line.find('(')?].rsplit([' ', '*']).next()?;
        (!line.starts_with("typedef")).then(|| name.to_owned())
    });
    assert_eq!(declared.collect::<BTreeSet<_>>(), exported());
}

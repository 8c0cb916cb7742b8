//! The README's C and Fortran examples compile and run as they stand; its Rust example is a documentation test.

mod support;

use std::path::PathBuf;
use std::process::Command;

/// Writes the README's code block in `language` to a file with that ending.
fn example(language: &str, ending: &str) -> PathBuf {
    let readme = include_str!("../README.md");
    let opening = format!("```{language}\n");
    let blocks: Vec<&str> = readme.split(&opening).skip(1).collect();
    assert_eq!(blocks.len(), 1, "README.md has one {language} example");
    let code = blocks[0].split("```").next().expect("split returns at least one part");
    let path = support::scratch().join(format!("readme.{ending}"));
    std::fs::write(&path, code).unwrap();
    path
}

#[test]
fn c() {
    let program = support::compile_file(&example("c", "c"), &["-Wall", "-Wextra", "-Werror"]);
    let ran = support::run(&program, &[]);
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(ran.stdout, format!("first output: {}\n", first_output()));
}

/// What the C example prints: the top left output of its convolution.
fn first_output() -> i64 {
    let inside = |position: i64| (0..224).contains(&(position - 3)).then_some(position - 3);
    let mut sum = 0;
    for (c, r, s) in (0..3).flat_map(|c| (0..7).flat_map(move |r| (0..7).map(move |s| (c, r, s)))) {
        if let (Some(y), Some(x)) = (inside(r), inside(s)) {
            sum += ((c * 224 + y) * 224 + x) % 7 * (((c * 7 + r) * 7 + s) % 5 - 2);
        }
    }
    sum
}

#[test]
fn fortran() {
    let folder = tempfile::tempdir_in(support::scratch()).unwrap();
    let build = folder.path().join("build").display().to_string();
    let mut make = Command::new("make");
    make.args(["-C", concat!(env!("CARGO_MANIFEST_DIR"), "/fortran"), &format!("BUILD={build}")]);
    let modules = support::run_command(make);
    assert!(modules.status.success(), "{}", modules.stderr);
    let program = folder.path().join("readme");
    let mut gfortran = Command::new("gfortran");
    gfortran.arg(example("fortran", "f90")).args([
        &format!("-I{build}"),
        &format!("-L{build}"),
        "-lsparkle_fortran",
    ]);
    gfortran.args(support::link_flags()).arg("-o").arg(&program);
    let compiled = support::run_command(gfortran);
    assert!(compiled.status.success(), "{}", compiled.stderr);
    let ran = support::run(&program, &[]);
    assert!(ran.status.success(), "{ran:?}");
    let largest =
        ran.stdout.trim().strip_prefix("largest output:").and_then(|it| it.trim().parse::<f64>().ok());
    // A sum of 147 products of two numbers in 0..1.
    assert!(largest.is_some_and(|value| value > 20.0 && value < 147.0), "{ran:?}");
}

//! `sparkle kernel check` and `sparkle kernel show`, run as users run them.

mod program;

use std::fs;
use std::path::PathBuf;

use program::{code, folder, json, sparkle, stderr, stdout, success};

/// The files of kernels that compile.
fn kernel_files() -> Vec<PathBuf> {
    let root = program::root().join("tests/kernels");
    let list = |name: &str| fs::read_dir(root.join(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = list("language").chain(list("reference")).collect();
    all.sort();
    assert!(all.len() >= 15);
    all
}

fn language(name: &str) -> String {
    let root = program::root();
    root.join("tests/kernels/language").join(name).to_str().unwrap().to_owned()
}

const WRONG: &str = "!@kernel
subroutine f(i, x)
  integer, value :: i
  real, intent(out) :: x
  x = y
  print *, x
end subroutine
";

const WARNED: &str = "!@kernel
subroutine f(i, x)
  use mine
  integer, value :: i
  real, intent(out) :: x
  x = i
end subroutine
";

#[test]
fn every_kernel_of_the_tests_is_accepted() {
    let (folder, files) = (folder(), kernel_files());
    let paths: Vec<&str> = files.iter().map(|it| it.to_str().unwrap()).collect();
    let checked = sparkle(folder.path(), &[&["kernel", "check"], &paths[..]].concat());
    assert_eq!((code(&checked), stderr(&checked)), (0, ""), "{}", stdout(&checked));
    let accepted = stdout(&checked).lines().filter(|line| line.contains(": ok, ")).count();
    assert_eq!(accepted, files.len());
    assert!(stdout(&checked).contains("epilogues.f90: ok, 0 kernel(s), 2 epilogue(s)"));
    let report = json(&sparkle(folder.path(), &["kernel", "check", "--json", &language("saxpy.f90")]));
    assert_eq!((&report["schema"], &report["ok"]), (&1.into(), &true.into()));
    let kernel = &report["files"][0]["kernels"][0];
    assert_eq!((&kernel["name"], &kernel["dims"]), (&"saxpy".into(), &1.into()));
    let x = &kernel["arguments"][3];
    assert_eq!((&x["name"], &x["type"], &x["role"]), (&"x".into(), &"real(real32)".into(), &"array".into()));
    assert_eq!((&x["slot"], &x["rank"], &x["intent"]), (&0.into(), &1.into(), &"in".into()));
    assert_eq!(report["files"][0]["diagnostics"], serde_json::json!([]));
}

#[test]
fn errors_are_drawn_and_listed() {
    let folder = folder();
    fs::write(folder.path().join("wrong.f90"), WRONG).unwrap();
    fs::write(folder.path().join("warned.f90"), WARNED).unwrap();
    let files = ["wrong.f90", "warned.f90", "none.f90"];
    let checked = sparkle(folder.path(), &[&["kernel", "check"], &files[..]].concat());
    assert_eq!(code(&checked), 3);
    let text = stdout(&checked);
    let drawn = "error[K206]: `y` is not declared\n --> wrong.f90:5:7\n  |\n5 |   x = y\n  |       ^";
    assert!(text.starts_with(drawn), "{text}");
    assert!(text.contains("error[K103]") && text.contains("--> wrong.f90:6:3"), "{text}");
    assert!(text.contains("warning[K902]") && text.contains("warned.f90: ok, 1 kernel(s)"), "{text}");
    assert!(text.contains("none.f90\"; expected a readable file: No such file"), "{text}");
    let note = "sparkle: error: 2 error(s); 2 of 3 file(s) do not compile, 1 could not be read\n";
    assert_eq!(stderr(&checked), note);

    let listed = sparkle(folder.path(), &[&["kernel", "check", "--json"], &files[..]].concat());
    assert_eq!((code(&listed), stderr(&listed)), (3, note));
    let report = json(&listed);
    assert_eq!((&report["schema"], &report["ok"]), (&1.into(), &false.into()));
    let files = report["files"].as_array().unwrap();
    assert_eq!(files.iter().map(|it| it["ok"].as_bool().unwrap()).collect::<Vec<_>>(), [false, true, false]);
    let first = &files[0]["diagnostics"][0];
    assert_eq!((&first["code"], &first["severity"]), (&"K206".into(), &"error".into()));
    assert_eq!((&first["line"], &first["column"], &first["end"]), (&5.into(), &7.into(), &8.into()));
    assert_eq!(files[1]["diagnostics"][0]["severity"], "warning");
    assert!(files[1]["error"].is_null() && files[2]["error"].as_str().unwrap().contains("No such file"));
}

#[test]
fn glsl_of_each_version_and_method() {
    let (folder, saxpy) = (folder(), language("saxpy.f90"));
    let show = |more: &[&str]| sparkle(folder.path(), &[&["kernel", "show", &saxpy], more].concat());
    let default = show(&[]);
    let text = success(&default);
    let head = "// ---- kernel saxpy: workgroups of 64 x 1 x 1\n#version 430";
    assert!(text.starts_with(head) && text.contains("binding = 15"), "{text}");
    assert_eq!(success(&show(&["--glsl", "--method", "buffer", "--version", "430"])), text);
    assert!(success(&show(&["--method", "uniform"])).contains("uniform float a;"));
    assert!(success(&show(&["--method", "inline"])).contains("PLACEHOLDER_a"));
    assert!(success(&show(&["--version", "310es"])).contains("#version 310 es"));
    assert!(success(&show(&["--kernel", "SAXPY"])).contains("#version 430"));
    let unknown = show(&["--kernel", "axpy"]);
    assert_eq!((code(&unknown), stdout(&unknown)), (3, ""));
    assert!(stderr(&unknown).contains("no kernel or epilogue axpy; the file has saxpy"));
    for usage in [&["--version", "450"][..], &["--method", "magic"], &["--tree", "--glsl"]] {
        assert_eq!(code(&show(usage)), 2, "{usage:?}");
    }
}

#[test]
fn what_glsl_lacks_is_an_error() {
    let folder = folder();
    let file = "!@kernel(contract=off)\nsubroutine f(i, x)\ninteger, value :: i\nreal, intent(out) :: x\nx = i\n\
        end subroutine\n";
    fs::write(folder.path().join("exact.f90"), file).unwrap();
    assert!(success(&sparkle(folder.path(), &["kernel", "show", "exact.f90"])).contains("precise"));
    let es = sparkle(folder.path(), &["kernel", "show", "exact.f90", "--version", "310es"]);
    assert_eq!((code(&es), stdout(&es)), (3, ""));
    assert!(stderr(&es).contains("error[K603]") && stderr(&es).contains("--> exact.f90:"), "{}", stderr(&es));
    fs::write(folder.path().join("wrong.f90"), WRONG).unwrap();
    let wrong = sparkle(folder.path(), &["kernel", "show", "wrong.f90"]);
    assert_eq!((code(&wrong), stdout(&wrong)), (3, ""));
    assert!(stderr(&wrong).contains("wrong.f90 does not compile:\nerror[K206]"), "{}", stderr(&wrong));
    fs::write(folder.path().join("warned.f90"), WARNED).unwrap();
    let warned = sparkle(folder.path(), &["kernel", "show", "warned.f90"]);
    assert!(code(&warned) == 0 && stderr(&warned).contains("warning[K902]"));
    assert!(stdout(&warned).contains("#version 430"));
}

#[test]
fn reductions_and_epilogues_have_several_texts() {
    let folder = folder();
    let show = |name: &str, more: &[&str]| {
        let output = sparkle(folder.path(), &[&["kernel", "show", &language(name)], more].concat());
        success(&output).to_owned()
    };
    let text = show("reductions.f90", &["--kernel", "extremes"]);
    assert_eq!(text.matches("#version 430").count(), 6, "{text}");
    assert!(text.contains("// ---- kernel extremes: combines the blocks of least\n"));
    let text = show("epilogues.f90", &[]);
    assert_eq!(text.matches("\nfloat epilogue(float ").count(), 2, "{text}");
    assert!(show("epilogues.f90", &["--kernel", "residual"]).starts_with("// ---- epilogue residual\n"));
}

#[test]
fn the_checked_tree() {
    let folder = folder();
    let show = |name: &str| {
        let output = sparkle(folder.path(), &["kernel", "show", &language(name), "--tree"]);
        success(&output).to_owned()
    };
    let expected = "\
kernel saxpy (dims=1, base=0, local_size=[64, 1, 1], contract=fast, guarded)
  int32 i: index argument 1
  int32 n: scalar argument
  real32 a: scalar argument
  real32 x: buffer 0, intent(in), array of (";
    let text = show("saxpy.f90");
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with("  11: y(i) = add(multiply(a, x(i)), y(i))\n"), "{text}");
    for file in kernel_files() {
        let output = sparkle(folder.path(), &["kernel", "show", file.to_str().unwrap(), "--tree"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    let tiled = show("tiled_sgemm.f90");
    for part in [
        "workgroup array (1:16, 1:16)",
        "whole workgroups",
        ": barrier",
        "local_index(1)",
        "loop 0: step from ",
    ] {
        assert!(tiled.contains(part), "{part} in {tiled}");
    }
    assert!(show("reductions.f90").contains("reduction add of total"));
    assert!(show("epilogues.f90").contains("epilogue residual (base=1, contract=fast) result y"));
}

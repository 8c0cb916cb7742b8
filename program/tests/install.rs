//! `make install` and `make uninstall`, and programs of users of the installed library: each folder of `tests/consumers`
//! holds one, with the commands that its user types.
//!
//! What is installed is this build: the library that cargo put beside the tests, and the program.

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;

/// What an installation consists of before it is copied.
struct Built {
    folder: TempDir,
}

impl Built {
    /// The build of this test, in the form in which `make` leaves a release build.
    fn get() -> &'static Built {
        static BUILT: OnceLock<Built> = OnceLock::new();
        BUILT.get_or_init(|| {
            let built = Built { folder: tempfile::tempdir().unwrap() };
            let (target, tests) = (built.target(), std::env::current_exe().unwrap());
            fs::create_dir(&target).unwrap();
            for library in ["libsparkle.so", "libsparkle.a"] {
                let from = tests.parent().unwrap().join(library);
                std::os::unix::fs::symlink(&from, target.join(library)).unwrap();
            }
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sparkle"), target.join("sparkle")).unwrap();
            succeed(built.make("write-pages", &[]));
            let build = format!("BUILD={}/{}", built.fortran().display(), compiler());
            succeed(make().args(["-C", "fortran", &build]));
            built
        })
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("release")
    }

    fn fortran(&self) -> PathBuf {
        self.folder.path().join("fortran")
    }

    /// `make` with what this build is, for somebody who has no cargo.
    fn make(&self, goal: &str, variables: &[&str]) -> &'static mut Command {
        let mut command = Command::new("make");
        command.current_dir(program::root()).args([goal, "CARGO=false"]).args(variables);
        command.arg(format!("TARGET={}", self.target().display()));
        command.arg(format!("FORTRAN={}", self.fortran().display()));
        Box::leak(Box::new(command))
    }
}

/// `make` in the root of the repository.
fn make() -> Command {
    let mut command = Command::new("make");
    command.current_dir(program::root());
    command
}

/// The folder of this machine's Fortran modules.
fn compiler() -> String {
    let output = succeed(make().args(["-s", "-C", "fortran", "compiler"]));
    output.trim().to_owned()
}

/// Runs a command, which must succeed. Returns what it prints.
#[track_caller]
fn succeed(command: &mut Command) -> String {
    // Variables of an outer make would replace ours.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        command.env_remove(variable);
    }
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// All files below `folder`, relative to it.
fn files(folder: &Path) -> BTreeSet<String> {
    fn collect(folder: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                collect(&path, root, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(folder, folder, &mut found);
    found
}

/// An installed tree whose path has a space.
fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = Built::get().folder.path().join("a prefix");
        succeed(Built::get().make("install", &[&format!("PREFIX={}", prefix.display())]));
        prefix
    })
}

/// Runs the commands of a consumer with the installed tree. Returns what its programs print.
#[track_caller]
fn consumer(name: &str) -> String {
    consumer_with(name, &[])
}

#[track_caller]
fn consumer_with(name: &str, variables: &[(&str, &str)]) -> String {
    let out = tempfile::tempdir().unwrap();
    let libraries = out.path().join("libraries");
    std::os::unix::fs::symlink(prefix().join("lib"), &libraries).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-eu", "run.sh"]).current_dir(program::root().join("tests/consumers").join(name));
    for (name, _) in std::env::vars_os() {
        // Those of cargo would reach the cargo of a consumer.
        let name = name.to_string_lossy();
        if name.starts_with("SPARKLE_") || (name.starts_with("CARGO") && name != "CARGO_HOME") {
            shell.env_remove(&*name);
        }
    }
    shell
        .envs(variables.iter().copied())
        .env("PREFIX", prefix())
        .env("OUT", out.path())
        .env("ROOT", program::root());
    shell.env("LIBRARIES", libraries).env("COMPILER", compiler()).env("SPARKLE_CACHE_DIR", "off");
    succeed(shell.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")).env_remove("LD_LIBRARY_PATH"))
}

fn found(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What a program prints: how many pixels of the image lie below the kernel.
const COUNTS: &str = "4 6 9\n";
const REFERENCE: &str = "20480 outputs, verified\n";

#[test]
fn a_c_program() {
    assert_eq!(consumer("gcc"), COUNTS);
}

#[test]
fn fortran_programs() {
    assert_eq!(consumer("gfortran"), [COUNTS, REFERENCE].concat());
}

#[test]
fn programs_through_pkg_config() {
    assert_eq!(consumer("pkg-config"), [COUNTS, COUNTS, REFERENCE, &"0.1.0\n".repeat(3)].concat());
}

#[test]
fn programs_that_contain_the_library() {
    assert_eq!(consumer("static"), COUNTS.repeat(2));
}

#[test]
fn programs_through_cmake() {
    assert_eq!(consumer("cmake"), [COUNTS, COUNTS, COUNTS, REFERENCE].concat().repeat(2));
}

#[test]
fn a_program_of_the_fortran_package_manager() {
    if found("fpm") {
        assert_eq!(consumer("fpm"), COUNTS);
    } else {
        eprintln!("skipped: no fpm");
    }
}

#[test]
fn a_rust_program_that_depends_on_the_published_package() {
    let package = "CHANGELOG.md\nCargo.lock\nCargo.toml\nCargo.toml.orig\nLICENSE\nREADME.md\nbuild.rs\ncbindgen-reference.toml\ncbindgen.toml\ndocs\nglsl\ninclude\nsrc\n";
    assert_eq!(consumer("cargo"), [COUNTS, "17\n", package].concat());
}

#[test]
fn a_python_program() {
    let has_packages = |python: &&str| {
        let imports = Command::new(python).args(["-c", "import numpy, hatchling"]).output();
        imports.is_ok_and(|output| output.status.success())
    };
    match ["python3", "/usr/bin/python3"].into_iter().find(has_packages) {
        Some(python) => assert_eq!(consumer_with("python", &[("PYTHON", python)]), COUNTS.repeat(2)),
        None => eprintln!("skipped: no python3 with numpy and hatchling"),
    }
}

/// The examples of the README in `language`, and the commands below them.
fn example(language: &str) -> (&'static str, &'static str) {
    let page = include_str!("../../README.md");
    let (source, after) =
        page.split_once(&format!("```{language}\n")).unwrap().1.split_once("```\n").unwrap();
    (source, after.trim_start().strip_prefix("```sh\n").unwrap().split_once("```").unwrap().0)
}

#[test]
fn the_commands_of_the_readme() {
    let folder = tempfile::tempdir().unwrap();
    let installed = folder.path().join("installed");
    succeed(Built::get().make("install", &[&format!("PREFIX={}", installed.display())]));
    let examples = [("c", "readme.c", "first output: "), ("fortran", "readme.f90", "largest output: ")];
    for (language, file, output) in examples {
        let (source, commands) = example(language);
        fs::write(folder.path().join(file), source).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-eu", "-c", commands]).current_dir(folder.path());
        shell.env("PKG_CONFIG_PATH", installed.join("lib/pkgconfig"));
        shell.env("LD_LIBRARY_PATH", installed.join("lib"));
        let printed = succeed(&mut shell);
        assert!(printed.starts_with(output), "{language}: {printed}");
    }
}

#[test]
fn what_is_installed_is_complete_and_uninstall_leaves_nothing() {
    let stage = tempfile::tempdir().unwrap();
    let destination = format!("DESTDIR={}", stage.path().display());
    let variables = [destination.as_str(), "PREFIX=/usr", "LIBDIR=/usr/lib/somewhere"];
    succeed(Built::get().make("install", &variables));
    let installed = files(stage.path());
    for file in [
        "usr/bin/sparkle",
        "usr/include/sparkle.h",
        "usr/include/sparkle_reference.h",
        "usr/lib/somewhere/libsparkle.a",
        "usr/lib/somewhere/libsparkle.so",
        "usr/lib/somewhere/libsparkle.so.0",
        "usr/lib/somewhere/libsparkle.so.0.1.0",
        "usr/lib/somewhere/pkgconfig/sparkle.pc",
        "usr/lib/somewhere/pkgconfig/sparkle-fortran.pc",
        "usr/lib/somewhere/cmake/sparkle/sparkle-config.cmake",
        "usr/lib/somewhere/cmake/sparkle/sparkle-config-version.cmake",
        "usr/share/bash-completion/completions/sparkle",
        "usr/share/doc/sparkle/LICENSE",
        "usr/share/doc/sparkle/README.md",
        "usr/share/doc/sparkle/docs/install.md",
        "usr/share/fish/vendor_completions.d/sparkle.fish",
        "usr/share/man/man1/sparkle.1",
        "usr/share/man/man1/sparkle-kernel-check.1",
        "usr/share/sparkle/fpm.toml",
        "usr/share/sparkle/fortran/src/sparkle.f90",
        "usr/share/sparkle/mpi/sparkle_mpi.c",
        "usr/share/sparkle/mpi/sparkle_mpi.h",
        "usr/share/sparkle/mpi/sparkle_mpi.f90",
        "usr/share/sparkle/mpi/sparkle_mpi_f08.f90",
        "usr/share/sparkle/mpi/examples/smooth_field.f90",
        "usr/share/zsh/site-functions/_sparkle",
        &format!("usr/lib/somewhere/sparkle/{}/sparkle.mod", compiler()),
    ] {
        assert!(installed.contains(file), "{file}: {installed:#?}");
    }
    let pc = fs::read_to_string(stage.path().join("usr/lib/somewhere/pkgconfig/sparkle.pc")).unwrap();
    assert!(pc.contains("\nlibdir=${prefix}/lib/somewhere\n"), "{pc}");
    for page in installed.iter().filter(|file| file.ends_with(".1")) {
        let text = fs::read_to_string(stage.path().join(page)).unwrap();
        assert!(text.contains(".TH ") && text.contains(".SH SYNOPSIS"), "{page}");
    }
    // A template's names are all replaced.
    let replaced = installed.iter().filter(|file| file.ends_with(".pc") || file.ends_with(".cmake"));
    for file in replaced {
        let text = fs::read_to_string(stage.path().join(file)).unwrap();
        assert!(!text.contains('@'), "{file}\n{text}");
    }
    // A file of somebody else stays.
    let theirs = stage.path().join("usr/share/sparkle/theirs");
    fs::write(&theirs, "").unwrap();
    succeed(Built::get().make("uninstall", &variables));
    assert_eq!(files(stage.path()), BTreeSet::from(["usr/share/sparkle/theirs".to_owned()]));
    assert!(!stage.path().join("usr/lib/somewhere/sparkle").exists());
    let again = Built::get().make("uninstall", &variables).output().unwrap();
    assert!(!again.status.success(), "{again:?}");
}

#[test]
fn nothing_is_installed_without_a_build() {
    let empty = tempfile::tempdir().unwrap();
    let place = format!("TARGET={}", empty.path().display());
    let mut command = make();
    command.args(["install", "CARGO=false", &place]);
    let output = command.arg(format!("DESTDIR={}/stage", empty.path().display())).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("run make first"), "{stderr}");
    assert!(!empty.path().join("stage").exists());
}

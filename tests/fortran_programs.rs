//! Fortran programs against the shared library, as a user's would be built and run: the modules and examples under
//! `fortran/`, the programs under `tests/fortran/`. Everything compiles with all warnings as errors. A program checks
//! itself and ends by saying how much it checked.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use support::{Ran, run_command};

/// Module files in the order in which they depend on each other.
const MODULES: [&str; 19] = [
    "fortran/src/sparkle_c.f90",
    "fortran/src/sparkle_support.f90",
    "fortran/src/sparkle_runtime.f90",
    "fortran/src/sparkle_convolution.f90",
    "fortran/src/sparkle_matrix.f90",
    "fortran/src/sparkle_stream.f90",
    "fortran/src/sparkle.f90",
    "fortran/reference/sparkle_gl.f90",
    "fortran/reference/sparkle_reference_support.f90",
    "fortran/reference/gpu_opengl_interface.f90",
    "fortran/reference/cpu_conv2d_reference.f90",
    "fortran/reference/gemm_simd_optimized.f90",
    "fortran/reference/universal_memory_optimization.f90",
    "fortran/reference/gpu_async_executor.f90",
    "fortran/reference/sparkle_gpu_kernels.f90",
    "fortran/reference/sparkle_gpu_dispatch.f90",
    "fortran/reference/sparkle_conv2d.f90",
    "fortran/reference/sparkle_conv2d_v2.f90",
    "tests/fortran/checks.f90",
];

/// The strictest flags. `-fcheck=all` would also report at run time, to stderr, each strided section that is packed, which
/// the tests do on purpose.
const STRICT: [&str; 7] =
    ["-std=f2018", "-Wall", "-Wextra", "-fcheck=all", "-fcheck=no-array-temps", "-Werror", "-g"];

/// How modules and programs are compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Build {
    /// With run-time checks.
    Checked,
    /// With run-time checks and OpenMP.
    Threaded,
    /// Optimised, as a release would be: what may be assumed of arguments is assumed.
    Optimised,
}

impl Build {
    fn flags(self) -> Vec<&'static str> {
        match self {
            Build::Checked => STRICT.to_vec(),
            Build::Threaded => [&STRICT[..], &["-fopenmp"]].concat(),
            // No warnings here: the optimiser's guesses about uninitialised array descriptors are wrong (GCC bug 77504).
            Build::Optimised => vec!["-std=f2018", "-O2"],
        }
    }

    /// The directory with the compiled modules.
    fn modules(self) -> &'static Path {
        static DIRS: [OnceLock<PathBuf>; 3] = [const { OnceLock::new() }; 3];
        DIRS[self as usize].get_or_init(|| {
            let dir = directory("modules");
            for module in MODULES {
                let object = dir.join(Path::new(module).with_extension("o").file_name().unwrap());
                let mut command = self.gfortran(&dir);
                command.arg("-c").arg(source(module)).arg("-o").arg(object);
                compiled(&mut command);
            }
            dir
        })
    }

    /// gfortran with this build's flags, finding modules in `dir` and nowhere else.
    fn gfortran(self, dir: &Path) -> Command {
        let mut command = Command::new("gfortran");
        // gfortran looks for module files in the current directory first.
        command.current_dir(dir).args(self.flags()).arg("-J").arg(dir);
        command
    }

    /// Compiles `program` and links it with the modules, the shared library and `libraries`.
    fn program(self, program: &str, libraries: &[&str]) -> PathBuf {
        let modules = self.modules();
        // Its own modules go elsewhere, since several programs are compiled at once.
        let dir = directory("program");
        let executable = dir.join("program");
        let mut command = self.gfortran(&dir);
        command.arg("-I").arg(modules).arg(source(program));
        command.args(
            MODULES.map(|module| modules.join(Path::new(module).with_extension("o").file_name().unwrap())),
        );
        command.args(support::link_flags()).args(libraries).arg("-o").arg(&executable);
        compiled(&mut command);
        executable
    }
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A new directory that stays until the tests end.
fn directory(prefix: &str) -> PathBuf {
    tempfile::Builder::new().prefix(prefix).tempdir_in(support::scratch()).unwrap().keep()
}

/// Runs the compiler, which must succeed in silence.
fn compiled(command: &mut Command) {
    let Output { status, stdout, stderr } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` installs gfortran"));
    let text = [String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)].concat();
    assert!(status.success() && text.is_empty(), "{command:?}\n{text}");
}

/// Runs a program with arguments and environment variables.
fn ran(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied());
    run_command(command)
}

/// Asserts that a program found everything right, and that it and the library wrote only its last line; returns what
/// stands before that.
#[track_caller]
fn passed(ran: &Ran) -> String {
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let output = ran.stdout.trim_end();
    let (before, last) = output.rsplit_once('\n').unwrap_or(("", output));
    let count = last.strip_prefix("ok: ").and_then(|rest| rest.strip_suffix(" checks"));
    let count: u32 = count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{ran:?}"));
    assert!(count > 0, "{ran:?}");
    before.to_owned()
}

/// Compiles and runs a program of `tests/fortran/`, checked and optimised, where it prints nothing but its checks.
#[track_caller]
fn silent(name: &str, variables: &[(&str, &str)]) {
    for build in [Build::Checked, Build::Optimised] {
        let program = build.program(&format!("tests/fortran/{name}.f90"), &[]);
        assert_eq!(passed(&ran(&program, &[], variables)), "");
    }
}

#[test]
fn modern_conv2d() {
    silent("modern_conv2d", &[]);
}

#[test]
fn modern_errors() {
    silent("modern_errors", &[]);
}

#[test]
fn modern_handles() {
    // It waits for a message of the library, which has one about this variable.
    silent("modern_handles", &[("SPARKLE_UNKNOWN_TO_IT", "1")]);
}

#[test]
fn modern_sgemm() {
    silent("modern_sgemm", &[]);
}

/// Where there is a GL device, `auto` is that here.
#[test]
fn modern_stream() {
    let device = if support::gl_available() { "gl:0" } else { "cpu" };
    silent("modern_stream", &[("SPARKLE_DEVICE", device)]);
}

#[test]
fn modern_on_gl() {
    if support::gl_available() {
        silent("modern_gl", &[]);
    }
}

#[test]
fn without_stat_a_failure_stops_the_program() {
    let program = Build::Checked.program("tests/fortran/error_stop.f90", &[]);
    assert_eq!(ran(&program, &[], &[]).stdout, "reached the end\n");
    let expected = [
        ("conv2d", "ERROR STOP sparkle: conv2d: y has extent 1 in dimension 1; expected 2\n"),
        ("sgemm", "ERROR STOP sparkle: sgemm: a has extent 4 in dimension 1; expected 1\n"),
        ("open", "ERROR STOP sparkle: open: device is \"nowhere\"; expected "),
        ("execute", "ERROR STOP sparkle: execute: the plan is not created\n"),
    ];
    for (what, message) in expected {
        let ran = ran(&program, &[what], &[]);
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.starts_with(message), "{ran:?}");
    }
}

#[test]
fn reference_modules_on_the_cpu() {
    silent("reference_cpu", &[]);
    // The same where GPU calls fail, so that the CPU takes over.
    let program = Build::Checked.program("tests/fortran/reference_cpu.f90", &[]);
    let no_gl = [("__EGL_VENDOR_LIBRARY_DIRS", "/nonexistent"), ("EGL_PLATFORM", "nonexistent")];
    passed(&ran(&program, &[], &no_gl));
}

#[test]
fn memory_parameters_im2col_and_products() {
    let caches: Vec<String> = caches_and_cores().iter().map(u64::to_string).collect();
    for build in [Build::Checked, Build::Optimised] {
        let program = build.program("tests/fortran/universal_memory.f90", &[]);
        assert_eq!(passed(&ran(&program, &[&caches.join(" ")], &[])), "");
    }
}

/// L1, L2 and L3 in kilobytes, the cache line, the cores, as the system describes them; 0 where it does not.
fn caches_and_cores() -> [u64; 5] {
    let line = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let folders = |path: &str| {
        std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let mut found = [0; 5];
    for cache in folders("/sys/devices/system/cpu/cpu0/cache") {
        let level: usize = line(cache.join("level")).parse().unwrap_or(0);
        if !(1..=3).contains(&level) || line(cache.join("type")) == "Instruction" {
            continue;
        }
        let size = line(cache.join("size"));
        let (digits, unit) = size.split_at(size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len()));
        found[level - 1] = digits.parse::<u64>().unwrap() * if unit == "M" { 1024 } else { 1 };
        if level == 1 {
            found[3] = line(cache.join("coherency_line_size")).parse().unwrap_or(0);
        }
    }
    let processors = folders("/sys/devices/system/cpu").into_iter();
    let siblings = processors.map(|processor| line(processor.join("topology/thread_siblings_list")));
    let cores: BTreeSet<String> = siblings.filter(|siblings| !siblings.is_empty()).collect();
    found[4] = cores.len() as u64;
    found
}

#[test]
fn reference_modules_on_gl() {
    if !support::gl_available() {
        return;
    }
    for build in [Build::Checked, Build::Optimised] {
        let program = build.program("tests/fortran/reference_gpu.f90", &[]);
        // By default "gpu" is synchronous, by environment asynchronous; the statistics say which way was taken.
        for (value, synchronous, asynchronous) in [("", 2, 1), ("off", 2, 1), ("ON", 1, 2), ("1", 1, 2)] {
            let printed = passed(&ran(&program, &[], &[("SPORKLE_GPU_ASYNC", value)]));
            let calls = |way: &str| {
                let line = printed.lines().find(|line| line.trim_start().starts_with(way)).expect(way);
                line.split_whitespace().nth(2).unwrap().parse::<i32>().unwrap()
            };
            assert_eq!(calls("GPU, synchronous"), synchronous, "{value}: {printed}");
            assert_eq!(calls("GPU, asynchronous"), asynchronous, "{value}: {printed}");
        }
    }
}

#[test]
fn gpu_memory_and_kernels() {
    if support::gl_available() {
        silent("gpu_dispatch", &[]);
    }
}

#[test]
fn asynchronous_executor() {
    if support::gl_available() {
        silent("async_executor", &[]);
    }
}

#[test]
fn unchanged_program_with_its_own_interface() {
    if support::gl_available() {
        silent("original_interface", &[]);
    }
}

#[test]
fn unchanged_program_with_its_own_asynchronous_loop() {
    if support::gl_available() {
        let program = Build::Checked.program("tests/fortran/raw_async_loop.f90", &["-lGL"]);
        assert_eq!(passed(&ran(&program, &[], &[])), "");
    }
}

#[test]
fn openmp_threads() {
    let program = Build::Threaded.program("tests/fortran/openmp_threads.f90", &[]);
    assert_eq!(passed(&ran(&program, &["cpu"], &[])), "");
    if support::gl_available() {
        assert_eq!(passed(&ran(&program, &["gl"], &[])), "");
    }
}

#[test]
fn examples() {
    let run = |name: &str| {
        let program = Build::Checked.program(&format!("fortran/examples/{name}.f90"), &[]);
        let ran = ran(&program, &[], &[("SPARKLE_DEVICE", "cpu")]);
        assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        ran.stdout
    };
    let conv2d = run("conv2d_demo");
    assert!(conv2d.starts_with("sparkle 0.1.0 on cpu: ") && conv2d.ends_with("\nverified\n"), "{conv2d}");
    let sgemm = run("sgemm_demo");
    assert!(sgemm.starts_with("sgemm_") && sgemm.contains("\nverified: largest relative error "), "{sgemm}");
    assert_eq!(run("reference_demo"), "20480 outputs, verified\n");
}

#[test]
fn every_fortran_file_is_compiled_here() {
    let text = include_str!("fortran_programs.rs");
    let mut count = 0;
    for dir in ["fortran/src", "fortran/reference", "fortran/examples", "tests/fortran"] {
        let files = std::fs::read_dir(source(dir)).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "f90")) {
            let name = file.file_stem().unwrap().to_str().unwrap();
            let mentioned =
                [format!("/{name}.f90"), format!("\"{name}\"")].iter().any(|it| text.contains(it));
            assert!(mentioned, "{}", file.display());
            count += 1;
        }
    }
    assert!(count > 25, "{count}");
}

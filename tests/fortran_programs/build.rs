//! How Fortran programs are built and run: modules and programs, each compiled once for each set of flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};

use super::support::{self, Ran, run_command};

/// Module files, sorted by dependency.
pub const MODULES: [&str; 53] = [
    "fortran/src/sparkle_c.f90",
    "fortran/src/sparkle_c_kernels.f90",
    "fortran/src/sparkle_support.f90",
    "fortran/src/sparkle_runtime.f90",
    "fortran/src/sparkle_buffers.f90",
    "fortran/src/sparkle_descriptors.f90",
    "fortran/src/sparkle_convolution.f90",
    "fortran/src/sparkle_forms.f90",
    "fortran/src/sparkle_matrix.f90",
    "fortran/src/sparkle_planning.f90",
    "fortran/src/sparkle_predictions.f90",
    "fortran/src/sparkle_stream.f90",
    "fortran/src/sparkle_ranks.f90",
    "fortran/src/sparkle.f90",
    "fortran/src/sparkle_workgroup.f90",
    "fortran/src/sparkle_kernel.f90",
    "fortran/src/sparkle_epilogue.f90",
    "fortran/reference/sparkle_gl.f90",
    "fortran/reference/sparkle_reference_support.f90",
    "fortran/reference/gpu_opengl_interface.f90",
    "fortran/reference/cpu_conv2d_reference.f90",
    "fortran/reference/cpu_conv2d_simd.f90",
    "fortran/reference/cpu_conv2d_simd_fused.f90",
    "fortran/reference/gemm_simd_optimized.f90",
    "fortran/reference/universal_memory_optimization.f90",
    "fortran/reference/gpu_async_executor.f90",
    "fortran/reference/sparkle_gpu_kernels.f90",
    "fortran/reference/sparkle_gpu_dispatch.f90",
    "fortran/reference/sparkle_conv2d.f90",
    "fortran/reference/sparkle_conv2d_v2.f90",
    "fortran/reference/sparkle_reference_shaders.f90",
    "fortran/reference/sparkle_glsl_generator.f90",
    "fortran/reference/sparkle_rdna_shader_generator.f90",
    "fortran/reference/sparkle_dynamic_shader_system.f90",
    "fortran/reference/gpu_dynamic_execution.f90",
    "fortran/reference/sparkle_device_rates.f90",
    "fortran/reference/intelligent_device_juggling.f90",
    "fortran/reference/sparkle_types.f90",
    "fortran/reference/sparkle_universal_device_selector.f90",
    "fortran/reference/gl_constants.f90",
    "fortran/reference/sparkle_reference_kernels.f90",
    "fortran/reference/sparkle_current_gl.f90",
    "fortran/reference/sparkle_fortran_params.f90",
    "fortran/reference/sparkle_kernel_texts.f90",
    "fortran/reference/sparkle_kernel_programs.f90",
    "fortran/reference/sparkle_shader_parser.f90",
    "fortran/reference/sparkle_shader_parser_v2.f90",
    "fortran/reference/sparkle_shader_parser_simple.f90",
    "fortran/reference/sparkle_fortran_shaders.f90",
    "fortran/reference/sparkle_fortran_shaders_v2.f90",
    "fortran/reference/sparkle_gpu_executor.f90",
    "fortran/reference/sparkle_gpu_benchmark.f90",
    "tests/fortran/checks.f90",
];

/// The strictest flags. `array-temps` is off: it would report on stderr each strided section that is packed, which the tests do
/// on purpose.
pub const STRICT: [&str; 7] =
    ["-std=f2018", "-Wall", "-Wextra", "-fcheck=all", "-fcheck=no-array-temps", "-Werror", "-g"];

/// How modules and programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Build {
    /// With run-time checks.
    Checked,
    /// With run-time checks and OpenMP.
    Threaded,
    /// Optimised like a release: the compiler uses all assumptions about arguments.
    Optimised,
    /// With default reals of 8 bytes and double precision of 16 bytes.
    LongReals,
    /// With default reals and double precision of 8 bytes.
    LongRealsAlone,
    /// With default integers and logicals of 8 bytes.
    LongIntegers,
    /// With default integers, logicals, reals and double precision of 8 bytes.
    LongDefaults,
    /// With a signal for each floating-point exception except inexact.
    Trapping,
}

impl Build {
    pub fn flags(self) -> Vec<&'static str> {
        match self {
            Build::Checked => STRICT.to_vec(),
            Build::Threaded => [&STRICT[..], &["-fopenmp"]].concat(),
            // No warnings: the optimiser wrongly reports array descriptors as uninitialised (GCC bug 77504).
            Build::Optimised => vec!["-std=f2018", "-O2"],
            Build::Trapping => vec!["-O1", "-ffpe-trap=invalid,zero,overflow,underflow,denormal"],
            Build::LongReals => vec!["-O1", "-fdefault-real-8"],
            Build::LongRealsAlone => vec!["-O1", "-fdefault-real-8", "-fdefault-double-8"],
            Build::LongIntegers => vec!["-O1", "-fdefault-integer-8"],
            Build::LongDefaults => {
                vec!["-O1", "-fdefault-integer-8", "-fdefault-real-8", "-fdefault-double-8"]
            }
        }
    }

    /// The directory with the compiled modules.
    pub fn modules(self) -> &'static Path {
        static DIRS: [OnceLock<PathBuf>; 8] = [const { OnceLock::new() }; 8];
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

    /// The compiled modules.
    pub fn objects(self) -> Vec<PathBuf> {
        let names =
            MODULES.map(|module| Path::new(module).with_extension("o").file_name().unwrap().to_owned());
        names.iter().map(|name| self.modules().join(name)).collect()
    }

    /// gfortran with this build's flags; it finds modules only in `dir`.
    pub fn gfortran(self, dir: &Path) -> Command {
        let mut command = Command::new("gfortran");
        // gfortran looks for module files in the current directory first.
        command.current_dir(dir).args(self.flags()).arg("-J").arg(dir);
        command
    }

    /// Compiles `program` and links it with the modules, the shared library and `libraries`, once.
    pub fn program(self, program: &str, libraries: &[&str]) -> PathBuf {
        type Programs = BTreeMap<(Build, String), Arc<OnceLock<PathBuf>>>;
        static PROGRAMS: Mutex<Programs> = Mutex::new(BTreeMap::new());
        let place = PROGRAMS.lock().unwrap().entry((self, program.to_owned())).or_default().clone();
        place.get_or_init(|| self.compiled_program(program, libraries)).clone()
    }

    fn compiled_program(self, program: &str, libraries: &[&str]) -> PathBuf {
        let modules = self.modules();
        // Its own modules go into a separate directory, because several programs are compiled concurrently.
        let dir = directory("program");
        let executable = dir.join("program");
        let mut command = self.gfortran(&dir);
        command.arg("-I").arg(modules).arg(source(program));
        command.args(self.objects()).args(support::link_flags()).args(libraries).arg("-o").arg(&executable);
        compiled(&mut command);
        executable
    }
}

pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A new directory that stays until the tests end.
pub fn directory(prefix: &str) -> PathBuf {
    tempfile::Builder::new().prefix(prefix).tempdir_in(support::scratch()).unwrap().keep()
}

/// Runs the compiler, which must succeed without output.
pub fn compiled(command: &mut Command) {
    let Output { status, stdout, stderr } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` installs gfortran"));
    let text = [String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)].concat();
    assert!(status.success() && text.is_empty(), "{command:?}\n{text}");
}

/// Runs a program with arguments and environment variables.
pub fn ran(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied());
    run_command(command)
}

/// Asserts that all checks of a program passed, and that it and the library wrote nothing but its output. Returns the output
/// before its last line.
#[track_caller]
pub fn passed(ran: &Ran) -> String {
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let output = ran.stdout.trim_end();
    let (before, last) = output.rsplit_once('\n').unwrap_or(("", output));
    let count = last.strip_prefix("ok: ").and_then(|rest| rest.strip_suffix(" checks"));
    let count: u32 = count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{ran:?}"));
    assert!(count > 0, "{ran:?}");
    before.to_owned()
}

/// Compiles and runs a program of `tests/fortran/`, with run-time checks and optimised. It must print only its checks.
#[track_caller]
pub fn silent(name: &str, variables: &[(&str, &str)]) {
    for build in [Build::Checked, Build::Optimised] {
        let program = build.program(&format!("tests/fortran/{name}.f90"), &[]);
        assert_eq!(passed(&ran(&program, &[], variables)), "");
    }
}

//! Helpers for tests of the shared library: they find the library, compile C programs, run them under a watchdog, and
//! report a missing GL device.
#![allow(dead_code)] // Each test file uses some of them.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a program may run. Even on slow machines only a hanging program takes longer.
const WATCHDOG: Duration = Duration::from_secs(300);

/// The directory with this build's `libsparkle.so` and `libsparkle.so.0`, for `-L` and `-Wl,-rpath`.
pub fn library_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        // Cargo puts the library into the folder of the tests.
        let dir = std::env::current_exe().expect("a test has a path").parent().unwrap().to_owned();
        assert!(dir.join("libsparkle.so").exists(), "no libsparkle.so in {}", dir.display());
        let link = dir.join("libsparkle.so.0");
        // Other tests may create the link at the same time.
        if let Err(error) = std::os::unix::fs::symlink("libsparkle.so", &link) {
            assert!(link.exists(), "{}: {error}", link.display());
        }
        dir
    })
}

/// A directory for what tests build. It exists as long as the test process.
pub fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<tempfile::TempDir> = OnceLock::new();
    SCRATCH.get_or_init(|| tempfile::tempdir().expect("a temporary directory")).path()
}

/// The flags that link a program with this build's shared library, and find it at run time. The old form of the search
/// path comes before `LD_LIBRARY_PATH`, where cargo puts the folder of `cargo build`, whose library may be older.
pub fn link_flags() -> Vec<String> {
    let dir = library_dir().display();
    vec![format!("-L{dir}"), "-lsparkle".into(), format!("-Wl,--disable-new-dtags,-rpath,{dir}")]
}

/// Compiles `tests/c/<source>` (C99, or C++11 if it ends in `cpp`) with all warnings as errors, links it with the shared
/// library and `flags`, and returns the program.
pub fn compile_c(source: &str, flags: &[&str]) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source);
    compile_file(&path, &[&["-Wall", "-Wextra", "-Werror"], flags].concat())
}

/// Compiles any C or C++ file with `flags` and links it with the shared library.
pub fn compile_file(path: &Path, flags: &[&str]) -> PathBuf {
    let cpp = path.extension() == Some(OsStr::new("cpp"));
    let program =
        tempfile::Builder::new().prefix("program").tempdir_in(scratch()).unwrap().keep().join("program");
    let mut command = compiler(cpp);
    command.arg(if cpp { "-std=c++11" } else { "-std=c99" }).args(["-g", "-O1", "-pthread", "-I"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    command.arg(path).args(flags).args(link_flags()).args(["-lm", "-ldl", "-o"]).arg(&program);
    let output = command.output().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    let text = String::from_utf8_lossy(&output.stderr);
    let arguments = command.get_args().collect::<Vec<_>>();
    assert!(output.status.success() && text.is_empty(), "{:?} {arguments:?}\n{text}", command.get_program());
    program
}

/// The machine's C or C++ compiler.
pub fn compiler(cpp: bool) -> Command {
    // Cargo tells only build scripts the target. Tests run on the machine that built them.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cc::Build::new();
    build.target(&target).host(&target).opt_level(1).cargo_metadata(false).cpp(cpp).no_default_flags(true);
    build.get_compiler().to_command()
}

/// The result of a program.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything that it wrote to stdout.
    pub stdout: String,
    /// Everything that it wrote to stderr.
    pub stderr: String,
}

impl Ran {
    /// Asserts that the program succeeded and that it and the library wrote nothing but `stdout`.
    #[track_caller]
    pub fn expect(&self, stdout: &str) {
        let got = (self.status.success(), self.stdout.as_str(), self.stderr.as_str());
        assert_eq!(got, (true, stdout, ""), "{:?}", self.status);
    }
}

/// Runs `program` with `variables` added to the environment; kills it and fails if it hangs.
pub fn run(program: &Path, variables: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(program);
    command.envs(variables.iter().copied());
    run_command(command)
}

/// Runs `command` under the same watchdog.
pub fn run_command(mut command: Command) -> Ran {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    let status = wait(&mut child);
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    match status {
        Some(status) => Ran { status, stdout, stderr },
        None => panic!("{command:?} hung and was killed\nstdout: {stdout}\nstderr: {stderr}"),
    }
}

/// Reads all of `pipe` on a thread of its own, so that the program never blocks.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = vec![];
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end; `None` if the watchdog killed the program.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if start.elapsed() > WATCHDOG {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child ends");
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The CPU's selector, if the CPU runs kernels of the kernel language. GL devices always do.
pub fn cpu_with_kernels() -> Option<String> {
    let text =
        "!@kernel\nsubroutine f(i, y)\ninteger, value :: i\nreal, intent(out) :: y\ny = i\nend subroutine\n";
    let kernel = sparkle::Kernel::from_source(text, "f").unwrap();
    let mut y = [0.0_f32; 2];
    match sparkle::Device::open("cpu").unwrap().launch(&kernel, &[2], &mut [(&mut y).into()]) {
        Err(sparkle::Error::Unsupported { .. }) => None,
        outcome => {
            outcome.unwrap();
            assert_eq!(y, [0.0, 1.0]);
            Some("cpu".to_owned())
        }
    }
}

/// Whether this machine has a usable GL device, software or not. If not, it prints that the test is skipped; with
/// `SPARKLE_TEST_REQUIRE_GL=1` it fails instead.
#[track_caller]
pub fn gl_available() -> bool {
    let devices = sparkle::devices();
    let mut gl = devices.iter().filter(|device| device.kind == sparkle::DeviceKind::Gl);
    if gl.any(|device| device.id.is_some()) {
        return true;
    }
    assert!(std::env::var("SPARKLE_TEST_REQUIRE_GL").as_deref() != Ok("1"), "no GL device: {devices:#?}");
    let place = std::panic::Location::caller();
    // The test harness hides the output of eprintln.
    let _ = writeln!(std::io::stderr(), "skipped: no GL device ({}:{})", place.file(), place.line());
    false
}

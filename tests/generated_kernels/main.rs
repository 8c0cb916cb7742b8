//! Random kernels, each computed by gfortran, by the CPU and by the first OpenGL device: the same bits, but for the sign of a
//! zero. `SPARKLE_TEST_KERNELS` says how many, in whole files; `SPARKLE_TEST_SEED` says which. `SPARKLE_TEST_LIBRARIES` names
//! a folder that keeps what gfortran compiled, for machines without it.

#[path = "../support/mod.rs"]
mod support;

mod generator;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use generator::{EXTENTS, File, Generated, Generator};
use sparkle::kernel::diagnostics::Diagnostic;
use sparkle::problem::exact::Random;
use sparkle::{Arg, Device, Kernel};

/// Kernels of a file.
const EACH: usize = 25;

/// The arguments of all kernels.
#[derive(Debug, Clone, PartialEq)]
struct Data {
    n: i32,
    m: i32,
    a: i32,
    b: f32,
    flag: bool,
    x: Vec<i32>,
    r: Vec<f32>,
    y: Vec<i32>,
    s: Vec<f32>,
    f: Vec<i32>,
    ti: i32,
    tr: f32,
}

impl Data {
    fn new(random: &mut Random, dims: usize) -> Self {
        let [n, m] = EXTENTS;
        let m = if dims == 2 { m } else { 1 };
        // Numbers of all sizes.
        let integer = |random: &mut Random| (random.bits() as i32) >> random.between(0, 31);
        let integers = |random: &mut Random| (0..n * m).map(|_| integer(random)).collect::<Vec<_>>();
        Data {
            n: n as i32,
            m: m as i32,
            a: integer(random),
            b: random.between(-300, 300) as f32,
            flag: random.between(0, 1) == 1,
            x: integers(random),
            r: random.integers(n * m, 900),
            y: integers(random),
            s: random.integers(n * m, 900),
            f: (0..n * m).map(|_| random.between(0, 1) as i32).collect(),
            ti: integer(random),
            tr: random.between(-50, 50) as f32,
        }
    }

    /// Computes with gfortran's code.
    fn call(&mut self, library: &libloading::Library, name: &str) {
        type Driver = unsafe extern "C" fn(
            i32,
            i32,
            i32,
            f32,
            i32,
            *const i32,
            *const f32,
            *mut i32,
            *mut f32,
            *mut i32,
            *mut i32,
            *mut f32,
        );
        // SAFETY: the driver has these dummies, and the arrays have n*m elements.
        unsafe {
            let driver = library.get::<Driver>(format!("run_{name}").as_bytes()).unwrap();
            driver(
                self.n,
                self.m,
                self.a,
                self.b,
                self.flag.into(),
                self.x.as_ptr(),
                self.r.as_ptr(),
                self.y.as_mut_ptr(),
                self.s.as_mut_ptr(),
                self.f.as_mut_ptr(),
                &mut self.ti,
                &mut self.tr,
            );
        }
    }

    fn launch(&mut self, device: &Device, kernel: &Kernel, dims: usize) -> sparkle::Result<sparkle::Run> {
        self.with_args(kernel, dims, |extents, args| device.launch(kernel, extents, args))
    }

    /// Computes what the kernel does as its check, and gives what that finds.
    fn check(&mut self, kernel: &Kernel, dims: usize) -> sparkle::Result<Vec<Diagnostic>> {
        self.with_args(kernel, dims, |extents, args| Ok(kernel.check(extents, args)?.messages))
    }

    fn with_args<R>(
        &mut self,
        kernel: &Kernel,
        dims: usize,
        run: impl FnOnce(&[usize], &mut [Arg<'_>]) -> R,
    ) -> R {
        let mut args = vec![self.n.into()];
        let mut extents = vec![self.n as usize];
        if dims == 2 {
            args.push(self.m.into());
            extents.push(self.m as usize);
        }
        args.extend([self.a.into(), self.b.into(), self.flag.into(), (&self.x).into(), (&self.r).into()]);
        args.extend([(&mut self.y).into(), (&mut self.s).into(), (&mut self.f).into()]);
        if !kernel.tree().reductions.is_empty() {
            args.extend([(&mut self.ti).into(), (&mut self.tr).into()]);
        }
        run(&extents, &mut args)
    }

    /// What differs, if anything.
    fn difference(&self, expected: &Data, before: &Data) -> Option<String> {
        fn first<T: PartialEq + std::fmt::Debug>(name: &str, a: &[T], b: &[T]) -> Option<(usize, String)> {
            let at = a.iter().zip(b).position(|(a, b)| a != b)?;
            Some((at, format!("{name} at {at} is {:?}, not {:?}", a[at], b[at])))
        }
        let arrays = first("y", &self.y, &expected.y).or_else(|| first("s", &self.s, &expected.s));
        let arrays = arrays.or_else(|| first("f", &self.f, &expected.f));
        let totals = arrays.or_else(|| first("ti", &[self.ti], &[expected.ti]));
        let (at, what) = totals.or_else(|| first("tr", &[self.tr], &[expected.tr]))?;
        let Data { a, b, flag, x, r, y, s, f, .. } = before;
        let given = (x[at], r[at], y[at], s[at], f[at]);
        Some(format!("{what} with a = {a}, b = {b}, flag = {flag}, (x, r, y, s, f) = {given:?}"))
    }
}

/// The file of a seed, compiled by gfortran now or before.
fn library(seed: u64, file: &File) -> libloading::Library {
    let temporary = tempfile::tempdir().unwrap();
    let built = || compile(file, temporary.path());
    let path = match std::env::var_os("SPARKLE_TEST_LIBRARIES") {
        None => built(),
        Some(folder) => {
            let kept = Path::new(&folder).join(format!("{seed}.so"));
            if !kept.exists() {
                std::fs::copy(built(), &kept).unwrap();
            }
            kept
        }
    };
    // SAFETY: the library has no initialisers besides those of gfortran.
    unsafe { libloading::Library::new(path).unwrap() }
}

/// Compiles a file in `folder`.
fn compile(file: &File, folder: &Path) -> PathBuf {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (kernels, drivers) = (write("kernels.f90", &file.text), write("drivers.f90", &file.drivers));
    let library = folder.join("kernels.so");
    let mut command = Command::new("gfortran");
    command.current_dir(folder).args(["-shared", "-fPIC", "-s", "-O2", "-fwrapv", "-ffp-contract=off", "-w"]);
    command
        .args(["-ffree-line-length-none", "-fno-range-check"])
        .arg("-o")
        .arg(&library)
        .arg(kernels)
        .arg(drivers);
    let output = command.output().unwrap();
    let errors: String = String::from_utf8_lossy(&output.stderr).chars().take(4000).collect();
    assert!(output.status.success(), "{errors}\n{}", file.text);
    library
}

/// The lines of a kernel, for messages.
fn source<'t>(file: &'t File, kernel: &Generated) -> &'t str {
    let end = file.text.find(&format!("end subroutine {}\n", kernel.name)).unwrap();
    let start = file.text[..end].rfind("!@kernel").unwrap();
    &file.text[start..end]
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

/// The part of the files that this process checks, and the number of parts.
const PART: &str = "SPARKLE_TEST_PART";
const PARTS: &str = "SPARKLE_TEST_PARTS";

#[test]
fn generated_kernels_give_the_same_bits_everywhere() {
    let has_libraries = std::env::var_os("SPARKLE_TEST_LIBRARIES").is_some();
    if !has_libraries && Command::new("gfortran").arg("--version").output().is_err() {
        assert!(std::env::var_os("SPARKLE_TEST_REQUIRE_FORTRAN").is_none(), "gfortran is not installed");
        eprintln!("skipped: gfortran is not installed");
        return;
    }
    let (count, seed) = (number("SPARKLE_TEST_KERNELS", 300) as usize, number("SPARKLE_TEST_SEED", 1));
    let seeds: Vec<u64> = (0..count.div_ceil(EACH) as u64).map(|file| seed * 1_000_000 + file).collect();
    if std::env::var_os(PART).is_some() {
        let (part, parts) = (number(PART, 0) as usize, number(PARTS, 1) as usize);
        return check(seeds.into_iter().skip(part).step_by(parts));
    }
    // A software driver takes seconds for each kernel, on one core. So each core has a process with a part of the files.
    let parts = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    let processes: Vec<_> = (0..parts).map(|part| process(part, parts).spawn().unwrap()).collect();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        let text =
            [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        assert!(output.status.success(), "{text}");
        text.lines().filter(|line| line.contains("on OpenGL")).for_each(|line| println!("{line}"));
    }
    if count >= 300 {
        // All that the generator knows.
        let mut reached = BTreeSet::new();
        seeds.into_iter().for_each(|seed| drop(Generator::file(seed, EACH, &mut reached)));
        assert!(reached.len() >= CONSTRUCTS, "{} of {CONSTRUCTS}: {reached:?}", reached.len());
    }
}

/// This test in a process of its own, for one part of the files.
fn process(part: usize, parts: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "generated_kernels_give_the_same_bits_everywhere", "--nocapture"]);
    command.env(PART, part.to_string()).env(PARTS, parts.to_string());
    // Mesa's software driver compiles narrow vectors without optimisation in half the time.
    for (variable, value) in [("LP_NATIVE_VECTOR_WIDTH", "128"), ("GALLIVM_PERF", "nopt")] {
        if std::env::var_os(variable).is_none() {
            command.env(variable, value);
        }
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Checks the kernels of the files with these seeds.
fn check(seeds: impl Iterator<Item = u64>) {
    let cpu = Device::open("cpu").unwrap();
    let gl = support::gl_available().then(|| Device::open("gl:0").unwrap());
    let (mut count, mut on_gl, mut changed, mut wrong) = (0, 0, 0, vec![]);
    for seed in seeds {
        let file = Generator::file(seed, EACH, &mut BTreeSet::new());
        count += EACH;
        let library = library(seed, &file);
        let kernels = Kernel::all_from_source(file.text.as_bytes(), "generated.f90");
        let kernels = kernels.unwrap_or_else(|error| panic!("{error}\n{}", file.text));
        assert_eq!(kernels.len(), file.kernels.len());
        let mut random = Random::new(seed);
        for (kernel, generated) in kernels.iter().zip(&file.kernels) {
            assert_eq!(kernel.name(), generated.name);
            let what = |device: &str| {
                format!("{} on {device} (seed {seed}):\n{}", generated.name, source(&file, generated))
            };
            let data = Data::new(&mut random, generated.dims);
            let mut expected = data.clone();
            expected.call(&library, &generated.name);
            changed += usize::from(expected.y != data.y && expected.s != data.s);
            let mut computed = data.clone();
            let run = computed.launch(&cpu, kernel, generated.dims);
            assert_eq!(&*run.unwrap_or_else(|error| panic!("{error}: {}", what("cpu"))).device, "cpu");
            wrong.extend(computed.difference(&expected, &data).map(|it| format!("{it}: {}", what("cpu"))));
            let mut computed = data.clone();
            let found = computed.check(kernel, generated.dims);
            let found = found.unwrap_or_else(|error| panic!("{error}: {}", what("the check")));
            assert_eq!(found, [], "{}", what("the check"));
            wrong.extend(
                computed.difference(&expected, &data).map(|it| format!("{it}: {}", what("the check"))),
            );
            if let (Some(gl), false) = (&gl, generated.is_wide) {
                let mut computed = data.clone();
                let run = computed.launch(gl, kernel, generated.dims);
                run.unwrap_or_else(|error| panic!("{error}: {}", what("gl:0")));
                wrong.extend(
                    computed.difference(&expected, &data).map(|it| format!("{it}: {}", what("gl:0"))),
                );
                on_gl += 1;
            }
        }
    }
    println!("{count} kernels, {on_gl} of them on OpenGL");
    wrong.sort_by_key(String::len);
    assert!(wrong.is_empty(), "{} are wrong, the shortest: {}", wrong.len(), wrong[0]);
    assert!(changed > count * 9 / 10, "{changed} of {count}");
}

/// The constructs that the generator writes.
const CONSTRUCTS: usize = 115;

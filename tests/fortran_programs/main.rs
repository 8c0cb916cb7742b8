//! Fortran programs that are linked with the shared library, built and run as a user builds and runs them. They use the modules
//! and examples in `fortran/`, and the programs in `tests/fortran/`. Everything compiles with all warnings as errors. A program checks itself and prints the
//! number of its checks at the end. It needs no arguments or variables: see [`every_program_checks_something_by_itself`].

#[path = "../support/mod.rs"]
mod support;

mod build;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use build::*;
use support::run_command;

#[test]
fn modern_conv2d() {
    silent("modern_conv2d", &[]);
}

#[test]
fn modern_layouts() {
    silent("modern_layouts", &[]);
}

#[test]
fn modern_errors() {
    silent("modern_errors", &[]);
}

#[test]
fn modern_handles() {
    silent("modern_handles", &[]);
}

#[test]
fn modern_sgemm() {
    silent("modern_sgemm", &[]);
}

/// With a GL device, `auto` selects it here.
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
fn kernels() {
    let gl = if support::gl_available() { Some("gl:0".to_owned()) } else { None };
    for device in support::cpu_with_kernels().into_iter().chain(gl) {
        let builds = [Build::Checked, Build::Optimised, Build::LongReals];
        for build in builds {
            for name in ["kernel_launch", "resident_buffers"] {
                let program = build.program(&format!("tests/fortran/{name}.f90"), &[]);
                assert_eq!(passed(&ran(&program, &[&device], &[])), "");
            }
        }
        let demo = Build::Checked.program("fortran/examples/saxpy_demo.f90", &[]);
        let ran = ran(&demo, &[], &[("SPARKLE_DEVICE", &device)]);
        assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        assert_eq!(ran.stdout, format!("saxpy: 1000 elements on {device}, verified\n"));
    }
}

/// Every flang in PATH, once for each version: its command, and the name of its folder.
fn flangs() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).filter_map(|folder| std::fs::read_dir(folder).ok());
    for entry in folders.flatten().flatten() {
        let command = entry.file_name().to_string_lossy().into_owned();
        let number = command.trim_start_matches("flang").trim_start_matches("-new").trim_start_matches('-');
        if !command.starts_with("flang") || !number.chars().all(|it| it.is_ascii_digit()) {
            continue;
        }
        let mut name = Command::new("make");
        name.args(["-s", "-C", concat!(env!("CARGO_MANIFEST_DIR"), "/fortran"), "compiler"])
            .arg(format!("FC={command}"));
        found.insert(run_command(name).stdout.trim().to_owned(), command);
    }
    found
}

/// `make fortran FC=flang` with each flang that is installed, and a program that checks itself.
#[test]
fn other_compilers() {
    let flangs = flangs();
    if flangs.is_empty() {
        eprintln!("skipped: no flang (Debian: flang-19)");
    }
    for (name, flang) in flangs {
        let folder = tempfile::tempdir_in(support::scratch()).unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let run = |command: &mut Command| {
            let command = std::mem::replace(command, Command::new("true"));
            let what = format!("{command:?}");
            let ran = run_command(command);
            assert!(ran.status.success(), "{what}\n{}", ran.stderr);
            ran
        };
        let mut make = Command::new("make");
        make.args(["-C", concat!(env!("CARGO_MANIFEST_DIR"), "/fortran"), "FFLAGS=-O0"]);
        run(make.args([format!("FC={flang}"), format!("BUILD={}", at("build"))]));
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fortran");
        let mut compile = Command::new(&flang);
        compile.args([&format!("{tests}/checks.f90"), &format!("{tests}/modern_layouts.f90")]);
        compile.args(["-module-dir", &at("."), "-o", &at("program"), &format!("-I{}", at("build"))]);
        compile.args([&format!("-L{}", at("build")), "-lsparkle_fortran"]).args(support::link_flags());
        run(&mut compile);
        let ran = run(Command::new(at("program")).env("SPARKLE_DEVICE", "cpu"));
        assert!(ran.stdout.starts_with("ok: "), "{name}: {ran:?}");
    }
}

#[test]
fn without_stat_a_failure_stops_the_program() {
    let program = Build::Checked.program("tests/fortran/error_stop.f90", &[]);
    assert_eq!(passed(&ran(&program, &[], &[])), "");
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
fn handlers_at_the_end_of_a_program() {
    if !support::gl_available() {
        return;
    }
    let program = Build::Checked.program("tests/fortran/leaving.f90", &[]);
    let mut cases = 0;
    for device in ["gl:0", "cpu", "auto"] {
        for when in ["early", "late"] {
            for (how, code, said) in [("end", 0, ""), ("stop", 0, ""), ("error stop", 3, "ERROR STOP 3")] {
                let ran = ran(&program, &[device, when, how], &[]);
                let right = ran.status.code() == Some(code)
                    && ran.stdout == "leaving\nleft\n"
                    && ran.stderr.starts_with(said)
                    && ran.stderr.is_empty() == said.is_empty();
                assert!(right, "{device} {when} {how}: {ran:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 18);
}

#[test]
fn reference_modules_on_the_cpu() {
    silent("reference_cpu", &[]);
    silent("reference_cpu", &[("SPORKLE_GPU_ASYNC", "yes")]);
    // The same with failing GPU calls, so that the CPU takes over.
    let program = Build::Checked.program("tests/fortran/reference_cpu.f90", &[]);
    let no_gl = [("__EGL_VENDOR_LIBRARY_DIRS", "/nonexistent"), ("EGL_PLATFORM", "nonexistent")];
    for asynchronous in ["no", "yes"] {
        passed(&ran(&program, &[], &[no_gl[0], no_gl[1], ("SPORKLE_GPU_ASYNC", asynchronous)]));
    }
}

#[test]
fn memory_parameters_im2col_and_products() {
    let caches: Vec<String> = caches_and_cores().iter().map(u64::to_string).collect();
    for build in [Build::Checked, Build::Optimised] {
        let program = build.program("tests/fortran/universal_memory.f90", &[]);
        assert_eq!(passed(&ran(&program, &[&caches.join(" ")], &[])), "");
    }
}

/// L1, L2 and L3 in kilobytes, the cache line, and the cores, from the system; 0 if unknown.
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
        // Calls are asynchronous if the environment allows it and the caller does not forbid it. The statistics show the mode.
        for (value, synchronous, asynchronous) in [("", 3, 0), ("off", 3, 0), ("ON", 1, 2), ("1", 1, 2)] {
            let printed = passed(&ran(&program, &[], &[("SPORKLE_GPU_ASYNC", value)]));
            let calls = |mode: &str| {
                let line = printed.lines().find(|line| line.trim_start().starts_with(mode));
                line.map_or(0, |line| line.split_whitespace().nth(2).unwrap().parse::<i32>().unwrap())
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
fn reference_kernels_are_parsed() {
    silent("kernel_parsers", &[]);
}

#[test]
fn reference_kernels_on_gl() {
    if support::gl_available() {
        silent("kernel_dispatch", &[]);
        silent("kernel_refusals", &[]);
    }
}

#[test]
fn generated_shaders_chosen_by_measured_times() {
    if !support::gl_available() {
        return;
    }
    for build in [Build::Checked, Build::Optimised] {
        let program = build.program("tests/fortran/shader_system.f90", &[]);
        let folder = directory("tuning");
        let run = |how: &str| {
            let variables = [("SPARKLE_CACHE_DIR", folder.to_str().unwrap())];
            passed(&ran(&program, &[how], &variables))
        };
        // The second process uses the tuning history of the first.
        assert_eq!(run("first"), "");
        assert_eq!(run("again"), "");
        let table = run("benchmark");
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["variant", "ms", "GFLOPS", "output"], "{table}");
        assert_eq!(rows[1][0], "reference", "{table}");
        assert!(rows.len() >= 5, "{table}");
        for row in &rows[1..] {
            let positive = |text: &str| text.parse::<f64>().is_ok_and(|number| number > 0.0);
            assert!(row.len() == 4 && positive(row[1]) && positive(row[2]) && row[3] == "right", "{table}");
        }
    }
}

#[test]
fn devices_that_share_by_measured_rates() {
    let program = Build::Checked.program("tests/fortran/device_juggling.f90", &[]);
    passed(&ran(&program, &["1"], &[("SPARKLE_DEVICE", "cpu")]));
    if support::gl_available() {
        passed(&ran(&program, &["2"], &[("SPARKLE_DEVICE", "gl:0")]));
    }
}

#[test]
fn devices_chosen_by_measured_rates() {
    let program = Build::Checked.program("tests/fortran/device_selector.f90", &[]);
    passed(&ran(&program, &["1"], &[("SPARKLE_DEVICE", "cpu")]));
    if support::gl_available() {
        passed(&ran(&program, &["2"], &[("SPARKLE_DEVICE", "gl:0")]));
    }
}

#[test]
fn asynchronous_executor() {
    if !support::gl_available() {
        return;
    }
    silent("async_executor", &[]);
    // The library's own kernels compute the jobs if possible.
    let program = Build::Checked.program("tests/fortran/async_executor.f90", &[]);
    let ran = ran(&program, &[], &[("SPARKLE_LOG", "debug")]);
    let queued = ran.stderr.lines().filter(|line| line.contains(": queued, ")).count();
    assert!(ran.status.success() && queued >= 14, "{queued}: {ran:?}");
}

#[test]
fn kernel_sources() {
    if support::gl_available() {
        let program = Build::Checked.program("tests/fortran/kernel_texts.f90", &["-lGL"]);
        assert_eq!(passed(&ran(&program, &[], &[])), "");
    }
}

#[test]
fn constants_and_interfaces_of_opengl() {
    if support::gl_available() {
        let program = Build::Checked.program("tests/fortran/raw_gl_constants.f90", &["-lGL"]);
        assert_eq!(passed(&ran(&program, &[], &[])), "");
    }
}

#[test]
fn every_public_name_as_the_reference_declares_it() {
    if support::gl_available() {
        for build in [Build::Checked, Build::Optimised] {
            passed(&ran(&build.program("tests/fortran/interfaces.f90", &[]), &[], &[]));
        }
    }
}

/// Modules that only other modules use.
const HELPERS: [&str; 9] = [
    "sparkle_current_gl",
    "sparkle_device_rates",
    "sparkle_gl",
    "sparkle_gpu_kernel_forms",
    "sparkle_kernel_programs",
    "sparkle_kernel_texts",
    "sparkle_reference_kernels",
    "sparkle_reference_shaders",
    "sparkle_reference_support",
];

/// As the reference declares them, everything in these modules is public; `raw_gl_constants.f90` and `device_selector.f90` use
/// their names.
const PUBLIC: [&str; 2] = ["gl_constants", "sparkle_universal_device_selector"];

/// `interfaces.f90` and `device_selector.f90` import exactly the public names of the reference modules, and use each of
/// them.
#[test]
fn the_list_of_public_names_is_complete() {
    let program = ["interfaces", "device_selector"].map(|name| format!("tests/fortran/{name}.f90"));
    let program = program.map(|file| statements(&source(&file))).concat();
    let mut imported = BTreeMap::new();
    for statement in &program {
        if let Some((module, names)) =
            statement.strip_prefix("use ").and_then(|rest| rest.split_once(", only: "))
        {
            imported.insert(module.to_owned(), names_in(names));
        }
    }
    let mut public: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in std::fs::read_dir(source("fortran/reference")).unwrap() {
        let mut module = String::new();
        for statement in statements(&file.unwrap().path()) {
            if let Some(name) =
                statement.strip_prefix("module ").filter(|name| !name.starts_with("procedure"))
            {
                module = name.to_owned();
            } else if let Some(names) = statement.strip_prefix("public :: ") {
                public.entry(module.clone()).or_default().extend(names_in(names));
            } else {
                assert!(
                    !statement.contains(", public ::") || HELPERS.contains(&module.as_str()),
                    "{statement}"
                );
                assert!(
                    statement != "public" || PUBLIC.contains(&module.as_str()),
                    "{module} makes everything public"
                );
            }
        }
    }
    public.retain(|module, _| !HELPERS.contains(&module.as_str()));
    assert!(public.len() == 25, "{:?}", public.keys());
    for (module, names) in &public {
        assert_eq!(imported.get(module), Some(names), "{module}");
    }
    for name in public.values().flatten() {
        let is_used =
            |statement: &&String| !statement.starts_with("use ") && words(statement).any(|it| it == name);
        assert!(program.iter().any(|statement| is_used(&statement)), "interfaces.f90 does not use {name}");
    }
}

/// The statements of a Fortran file in lower case, without comments, with continued lines joined.
fn statements(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap().to_lowercase();
    let lines = text.lines().map(|line| line.split('!').next().unwrap_or_default().trim());
    let mut statements = vec![];
    let mut begun = String::new();
    for line in lines.filter(|line| !line.is_empty()) {
        begun.push_str(line.trim_start_matches('&').trim_end_matches('&'));
        if !line.ends_with('&') {
            statements.push(std::mem::take(&mut begun));
        }
    }
    statements
}

fn words(statement: &str) -> impl Iterator<Item = &str> {
    statement.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

fn names_in(list: &str) -> BTreeSet<String> {
    words(list).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A program that traps its own floating-point exceptions gets no signal from the library or a driver.
#[test]
fn floating_point_traps() {
    let everywhere = ["modern_conv2d", "modern_sgemm", "modern_handles", "modern_stream", "reference_cpu"];
    let gl = ["modern_gl", "reference_gpu", "gpu_dispatch", "async_executor", "kernel_refusals"];
    for name in everywhere.iter().chain(gl.iter().filter(|_| support::gl_available())) {
        passed(&ran(&Build::Trapping.program(&format!("tests/fortran/{name}.f90"), &[]), &[], &[]));
    }
}

/// With other default kinds, everything builds and works; the kinds of C types stay the same.
#[test]
fn other_default_kinds() {
    let gl = ["interfaces", "reference_gpu", "gpu_dispatch", "async_executor"];
    let everywhere = [
        "modern_conv2d",
        "modern_errors",
        "modern_handles",
        "modern_layouts",
        "modern_sgemm",
        "modern_stream",
    ];
    let reference = ["reference_cpu", "universal_memory"];
    let programs = everywhere.iter().chain(&reference);
    let programs: Vec<_> = programs.chain(gl.iter().filter(|_| support::gl_available())).collect();
    for build in [Build::LongReals, Build::LongRealsAlone, Build::LongIntegers, Build::LongDefaults] {
        for name in &programs {
            passed(&ran(&build.program(&format!("tests/fortran/{name}.f90"), &[]), &[], &[]));
        }
    }
}

/// Flags that change the kinds of C types are refused with the reason, in every module that a build may compile first.
#[test]
fn promoted_kinds_are_refused() {
    let cases = [
        ("-freal-4-real-8", "c_float_must_have_32_bits"),
        ("-freal-4-real-16", "c_float_must_have_32_bits"),
        ("-freal-8-real-4", "c_double_must_have_64_bits"),
        ("-finteger-4-integer-8", "c_int_must_have_32_bits"),
    ];
    for (flag, reason) in cases {
        let mut built = vec![];
        let dir = directory("promoted");
        for module in MODULES.iter().filter(|module| !module.contains("checks")) {
            let mut command = Command::new("gfortran");
            command.current_dir(&dir).arg("-J").arg(&dir).args(["-c", flag, "-o", "module.o"]);
            let output = command.arg(source(module)).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                built.push(*module);
            }
            if module.ends_with("/sparkle_c.f90") {
                let advice = flag.replace("real-16", "real-8");
                assert!(
                    text.contains(reason) && text.contains(&format!("compile without {advice}")),
                    "{text}"
                );
            }
        }
        // The module of shader sources declares nothing with a kind; those of workgroups and of types call nothing of
        // the library.
        let expected = [
            "fortran/src/sparkle_workgroup.f90",
            "fortran/reference/sparkle_gpu_kernels.f90",
            "fortran/reference/sparkle_types.f90",
        ];
        assert_eq!(built, expected, "{flag}");
    }
}

/// No program needs an argument or a variable to check something, inside or outside of this harness.
#[test]
fn every_program_checks_something_by_itself() {
    let gl = support::gl_available();
    let needs_gl = |name: &str| {
        std::fs::read_to_string(source(name)).unwrap().lines().take(4).any(|line| line.contains("GL device"))
    };
    let mut count = 0;
    for file in std::fs::read_dir(source("tests/fortran")).unwrap() {
        let name = format!("tests/fortran/{}", file.unwrap().file_name().to_str().unwrap());
        // `checks` is a module. `leaving` ends as its arguments say, and another test checks it.
        let is_excluded = ["checks", "leaving"].iter().any(|it| name.ends_with(&format!("/{it}.f90")));
        if is_excluded || needs_gl(&name) && !gl {
            continue;
        }
        let threads = name.contains("openmp");
        let build = if threads { Build::Threaded } else { Build::Checked };
        let program = build
            .program(&name, if name.contains("raw_") || name.contains("_texts") { &["-lGL"] } else { &[] });
        let mut command = Command::new(&program);
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("SPARKLE_") || text.starts_with("SPORKLE_") {
                command.env_remove(&variable);
            }
        }
        passed(&run_command(command));
        count += 1;
    }
    assert!(count >= if gl { 18 } else { 9 }, "only {count} programs ran");
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
        for asynchronous in ["off", "on"] {
            assert_eq!(passed(&ran(&program, &["gl"], &[("SPORKLE_GPU_ASYNC", asynchronous)])), "");
        }
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
    // A small grid: the times are not checked here.
    let program = Build::Checked.program("fortran/examples/stencil_demo.f90", &[]);
    let stencil = ran(&program, &["1", "60", "50", "24"], &[("SPARKLE_DEVICE", "cpu")]);
    assert!(stencil.status.success() && stencil.stderr.is_empty(), "{stencil:?}");
    let lines: Vec<&str> = stencil.stdout.lines().collect();
    assert!(lines.len() == 4 && lines[3].starts_with("same result; "), "{lines:?}");
    assert!(lines[0].starts_with("blocks of ") && lines[1].starts_with("predicted: "), "{lines:?}");
}

/// The files of kernels in `fortran/examples/kernels`. The program `run_NAME` launches those of `NAME.f90`.
const KERNEL_EXAMPLES: [&str; 10] =
    ["saxpy", "stencil", "im2col", "softmax", "reduction", "dot", "transpose", "scan", "sgemm", "epilogue"];

/// gfortran compiles the kernels, too. The programs compare the results of both.
#[test]
fn kernel_examples() {
    let gl = if support::gl_available() { Some("gl:0".to_owned()) } else { None };
    let devices: Vec<String> = support::cpu_with_kernels().into_iter().chain(gl).collect();
    let folder = source("fortran/examples/kernels");
    let dir = directory("kernels");
    let build = Build::Checked;
    let compile = |name: &str| {
        let mut command = build.gfortran(&dir);
        command.arg("-I").arg(build.modules()).arg("-c").arg(folder.join(format!("{name}.f90")));
        compiled(command.arg("-o").arg(dir.join(format!("{name}.o"))));
    };
    compile("kernel_examples");
    for name in KERNEL_EXAMPLES {
        compile(name);
        let program = dir.join(format!("run_{name}"));
        let mut command = build.gfortran(&dir);
        command.arg("-I").arg(build.modules()).arg(folder.join(format!("run_{name}.f90")));
        command.arg(dir.join(format!("{name}.o"))).arg(dir.join("kernel_examples.o"));
        command.args(build.objects()).args(support::link_flags()).arg("-o").arg(&program);
        compiled(&mut command);
        for device in &devices {
            let ran = ran(&program, &[device, folder.to_str().unwrap()], &[]);
            assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
            // The epilogue is applied by a kernel, a product and a convolution.
            let lines = if name == "epilogue" { 3 } else { 1 };
            let is_report = |line: &str| {
                line.starts_with(name)
                    && line.contains(&format!(" on {device}: "))
                    && line.contains(", largest error ")
            };
            let is_expected = ran.stdout.lines().all(is_report) && ran.stdout.lines().count() == lines;
            assert!(is_expected, "{ran:?}");
        }
    }
}

#[test]
fn every_fortran_file_is_compiled_here() {
    let text = concat!(include_str!("main.rs"), include_str!("build.rs"));
    let mut count = 0;
    let examples = ["fortran/examples", "fortran/examples/kernels"];
    for dir in ["fortran/src", "fortran/reference", "tests/fortran"].into_iter().chain(examples) {
        let files = std::fs::read_dir(source(dir)).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "f90")) {
            let name = file.file_stem().unwrap().to_str().unwrap();
            let name = name.strip_prefix("run_").unwrap_or(name);
            let mentioned =
                [format!("/{name}.f90"), format!("\"{name}\"")].iter().any(|it| text.contains(it));
            assert!(mentioned, "{}", file.display());
            count += 1;
        }
    }
    assert!(count > 25, "{count}");
}

//! C programs that are linked with the shared library, built and run as a user builds and runs them. Their output is compared
//! byte by byte, because the library must print nothing.

mod support;

use std::path::PathBuf;
use std::sync::OnceLock;

use support::{compile_c, run};

const PEDANTIC: [&str; 1] = ["-Wpedantic"];

/// The selectors of the usable GL devices. Without any, the test is reported as skipped, or fails.
#[track_caller]
fn gl_devices() -> Vec<String> {
    if !support::gl_available() {
        return vec![];
    }
    let all = sparkle::devices();
    all.into_iter()
        .filter(|device| device.kind == sparkle::DeviceKind::Gl)
        .filter_map(|device| device.id)
        .collect()
}

#[test]
fn layouts_in_c_and_cpp() {
    for source in ["layout.c", "layout.cpp"] {
        let program = compile_c(source, &PEDANTIC);
        run(&program, &[]).expect("version 0.1.0, equal to the header: 1\n");
    }
}

const NEW_API: &str = "devices\nconvolutions\nproducts\nclosed device\nfinalize\nthreads\npredictions\n";
/// Also of a GPU beside the CPU.
const WITH_SHARES: &str =
    "devices\nconvolutions\nproducts\nclosed device\nfinalize\nthreads\nshares\npredictions\n";

fn new_api(device: &str) {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let mut command = std::process::Command::new(PROGRAM.get_or_init(|| compile_c("new_api.c", &PEDANTIC)));
    command.arg(device);
    support::run_command(command).expect(if device.starts_with("gl:") { WITH_SHARES } else { NEW_API });
}

#[test]
fn the_new_interface_on_the_cpu() {
    new_api("cpu");
}

#[test]
fn the_new_interface_on_auto() {
    new_api("auto");
    new_api("NULL");
}

#[test]
fn the_new_interface_on_gl() {
    for device in gl_devices() {
        new_api(&device);
    }
}

/// Compiles `source` and runs it with `arguments` and `variables`.
fn program(source: &str, flags: &[&str], arguments: &[&str], variables: &[(&str, &str)]) -> support::Ran {
    let mut command = std::process::Command::new(compile_c(source, &[&PEDANTIC, flags].concat()));
    command.args(arguments).envs(variables.iter().copied());
    support::run_command(command)
}

#[test]
fn kernels_as_text() {
    program("kernels.c", &[], &[], &[]).expect("described\nwritten\nrefused\nfrom 64 KiB of stack\n");
}

/// The CPU, if it runs kernels, and all GL devices, which do.
#[track_caller]
fn devices_with_kernels() -> Vec<String> {
    support::cpu_with_kernels().into_iter().chain(gl_devices()).collect()
}

#[test]
fn kernels_launched() {
    let program = compile_c("launch.c", &PEDANTIC);
    for device in devices_with_kernels() {
        let mut command = std::process::Command::new(&program);
        command.arg(device);
        let all = "types\ndimensions\nrefused\nthreads\n64 KiB of stack\nfinalized\n";
        support::run_command(command).expect(all);
    }
}

#[test]
fn buffers() {
    let program = compile_c("buffers.c", &PEDANTIC);
    for device in devices_with_kernels() {
        let mut command = std::process::Command::new(&program);
        command.arg(device);
        support::run_command(command).expect("kernels\na chain\ndevices\nthreads\nforks\n");
    }
}

#[test]
fn orders_and_paddings() {
    program("layouts.c", &[], &["cpu"], &[]).expect("layouts\n");
    program("layouts.c", &[], &["auto"], &[]).expect("layouts\n");
    for device in gl_devices() {
        program("layouts.c", &[], &[&device], &[]).expect("layouts\n");
    }
}

#[test]
fn the_example_of_a_kernel() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/saxpy.c");
    let program = support::compile_file(&path, &["-Wall", "-Wextra", "-Werror", "-Wpedantic"]);
    for device in devices_with_kernels() {
        let mut command = std::process::Command::new(&program);
        command.arg(device);
        support::run_command(command).expect("1000 elements, verified\n");
    }
}

#[test]
fn the_example_of_a_stencil() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/stencil.c");
    let program =
        support::compile_file(&path, &["-Wall", "-Wextra", "-Werror", "-Wpedantic", "-std=c99", "-O2"]);
    let mut command = std::process::Command::new(&program);
    // A small grid: the times are not checked here.
    command.args(["1", "24", "50", "60"]).env("SPARKLE_DEVICE", "cpu");
    let ran = support::run_command(command);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines.len() == 4 && lines[3].starts_with("same result; "), "{ran:?}");
    assert!(lines[0].starts_with("blocks of ") && lines[1].starts_with("predicted: "), "{lines:?}");
}

#[test]
fn sixty_four_threads() {
    program("threads.c", &[], &[], &[]).expect("64 threads\n");
    program("threads.c", &[], &[], &[("SPARKLE_NUM_THREADS", "1")]).expect("64 threads\n");
}

#[test]
fn handles_destroyed_while_in_use() {
    program("races.c", &[], &[], &[]).expect("races\n");
}

#[test]
fn the_static_library() {
    let library = support::library_dir().join("libsparkle.a");
    // The list of `rustc --print native-static-libs`.
    let flags = [library.to_str().unwrap(), "-Wl,--as-needed", "-lgcc_s", "-lpthread", "-lm", "-ldl"];
    let program = compile_c("new_api.c", &flags);
    let needed = std::process::Command::new("readelf").arg("-d").arg(&program).output().unwrap().stdout;
    let needed = String::from_utf8(needed).unwrap();
    assert!(needed.contains("libc.so") && !needed.contains("libsparkle"), "{needed}");
    let mut command = std::process::Command::new(program);
    command.arg("cpu");
    support::run_command(command).expect(NEW_API);
}

/// The libraries that a program linked with `libsparkle.a` needs: the list of `rustc --print native-static-libs` without those
/// of the C library itself.
#[test]
#[cfg(target_os = "linux")]
fn programs_without_a_dynamic_linker() {
    let library = support::library_dir().join("libsparkle.a");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for way in ["-static", "-static-pie"] {
        let program = support::scratch().join(format!("program{way}"));
        let mut compiler = support::compiler(false);
        compiler.args(["-std=c99", "-O1", "-g", way, "-I"]).arg(root.join("include"));
        compiler.arg(root.join("tests/c/static.c")).arg(&library).args([
            "-lm",
            "-lpthread",
            "-ldl",
            "-lgcc_eh",
        ]);
        // The linker warns of functions that need a shared C library, such as `dlopen`.
        let output = compiler.arg("-o").arg(&program).output().unwrap();
        assert!(output.status.success(), "{way}: {}", String::from_utf8_lossy(&output.stderr));
        let headers = std::process::Command::new("readelf").arg("-lW").arg(&program).output().unwrap().stdout;
        assert!(!String::from_utf8_lossy(&headers).contains("INTERP"), "{way}: not static");
        run(&program, &[]).expect("without a dynamic linker\n");
    }
}

#[test]
fn the_log_callback() {
    let with = |way: &str, variables: &[(&str, &str)]| {
        program("log.c", &[], &[way], &[&[("SPARKLE_DEVISE", "cpu")], variables].concat())
    };
    let warning = "SPARKLE_DEVISE=cpu is ignored: unknown variable";
    with("set", &[]).expect(&format!("1: {warning}\n"));
    // A callback replaces stderr.
    with("set", &[("SPARKLE_LOG", "warn")]).expect(&format!("1: {warning}\n"));
    with("unset", &[]).expect("0: \n");
    with("none", &[]).expect("0: \n");
    let asked = with("none", &[("SPARKLE_LOG", "warn")]);
    assert_eq!((asked.stdout.as_str(), asked.stderr), ("0: \n", format!("sparkle: {warning}\n")));
}

#[test]
fn the_helpers() {
    program("helpers.c", &[], &[], &[]).expect("memory\nprefetch\nstreams\nalignment\nticks\n");
}

#[test]
fn forks_on_the_cpu() {
    program("fork.c", &[], &["cpu"], &[]).expect("forks\n");
    program("fork.c", &[], &["auto"], &[]).expect("forks\n");
}

#[test]
fn forks_on_gl() {
    for device in gl_devices() {
        program("fork.c", &[], &[&device], &[]).expect("forks\n");
    }
}

#[test]
fn streams() {
    let program = compile_c("stream.c", &PEDANTIC);
    for device in std::iter::once("cpu".to_owned()).chain(gl_devices()) {
        let run = |way: &[&str]| {
            let mut command = std::process::Command::new(&program);
            command.arg(&device).args(way);
            support::run_command(command)
        };
        run(&[]).expect("jobs\nslots\n");
        for _ in 0..5 {
            run(&["fork"]).expect("jobs\nslots\n");
            run(&["leave"]).expect("leaving\n");
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_floating_point_environment() {
    let program = compile_c("float_env.c", &["-D_GNU_SOURCE"]);
    for device in std::iter::once("cpu".to_owned()).chain(gl_devices()) {
        let mut command = std::process::Command::new(&program);
        command.arg(device);
        support::run_command(command).expect("11 modes\n");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn denormals_kept_and_flushed() {
    for isa in ["avx512", "avx2", "portable"] {
        let isa = ("SPARKLE_ISA", isa);
        program("denormals.c", &[], &["kept"], &[isa]).expect("kept\n");
        program("denormals.c", &[], &["kept"], &[isa, ("SPARKLE_FLUSH_DENORMALS", "0")]).expect("kept\n");
        program("denormals.c", &[], &["flushed"], &[isa, ("SPARKLE_FLUSH_DENORMALS", "1")])
            .expect("flushed\n");
    }
}

#[test]
fn sixty_four_kibibytes_of_stack() {
    let program = compile_c("small_stack.c", &PEDANTIC);
    for device in ["cpu".to_owned(), "auto".to_owned()].into_iter().chain(gl_devices()) {
        for isa in ["avx512", "avx2", "portable"] {
            let mut command = std::process::Command::new(&program);
            command.arg(&device).env("SPARKLE_ISA", isa);
            support::run_command(command).expect("64 KiB\n");
        }
    }
}

#[test]
fn loaded_and_unloaded() {
    let library = support::library_dir().join("libsparkle.so.0");
    // The program does not refer to the library, so the linker omits it.
    let program = compile_c("dlopen.c", &[PEDANTIC[0], "-Wl,--as-needed"]);
    for device in ["cpu".to_owned(), "auto".to_owned()].into_iter().chain(gl_devices()) {
        let mut command = std::process::Command::new(&program);
        command.args([library.to_str().unwrap(), &device]);
        support::run_command(command).expect("50 times\n");
    }
}

#[test]
fn a_thread_that_ends_before_main_does() {
    let program = compile_c("thread_first.c", &PEDANTIC);
    for device in std::iter::once("cpu".to_owned()).chain(gl_devices()) {
        for _ in 0..50 {
            let mut command = std::process::Command::new(&program);
            command.arg(&device);
            support::run_command(command).expect("the thread ended first\n");
        }
    }
}

#[test]
fn leaving_while_another_thread_computes() {
    let program = compile_c("exit.c", &PEDANTIC);
    let devices = std::iter::once("cpu".to_owned()).chain(gl_devices());
    for device in devices {
        for _ in 0..50 {
            let mut command = std::process::Command::new(&program);
            command.arg(&device);
            support::run_command(command).expect("leaving\n");
        }
    }
}

/// Slots: their number, callers that poll or wait, and slots that outlive their pipeline.
#[test]
fn slots_held_by_callers() {
    let program = compile_c("slots.c", &PEDANTIC);
    for device in std::iter::once("cpu".to_owned()).chain(gl_devices()) {
        let mut command = std::process::Command::new(&program);
        command.arg(device);
        let all = "every slot can be held\npolling never blocks\nslots outlive their pipeline\nwaiting callers wake up\n";
        support::run_command(command).expect(all);
    }
}

#[test]
fn both_interfaces_from_several_threads() {
    if support::gl_available() {
        program("mixed.c", &[], &[], &[]).expect("in turn\nmixed\n");
    }
}

#[test]
fn a_display_that_another_library_terminates() {
    if support::gl_available() {
        let ran = program("terminate.c", &["-lEGL"], &[], &[]);
        ran.expect("calls and plans\npipelines\nthe reference interface\n");
    }
}

/// Thread creation fails from the Nth thread on, for every N that the library reaches.
#[test]
fn threads_that_cannot_be_created() {
    let program = compile_c("no_threads.c", &[]);
    for device in std::iter::once("cpu".to_owned()).chain(gl_devices().into_iter().take(1)) {
        let mut failed = 0;
        loop {
            let mut command = std::process::Command::new(&program);
            command.args([&device, &(failed + 1).to_string()]).env("SPARKLE_NUM_THREADS", "3");
            let ran = support::run_command(command);
            if ran.stdout == "enough threads\n" {
                break;
            }
            ran.expect("too few threads\n");
            failed += 1;
        }
        // The threads of the pool and the pipeline; on GL also those of device discovery, the worker and the stages.
        let expected = if device == "cpu" { 3 } else { 6 };
        assert!(failed >= expected, "{device}: only {failed} thread creations failed");
    }
}

#[test]
fn an_existing_program() {
    if support::gl_available() {
        let sections = "before initialisation\ninitialisation\nshapes\nstate\nbad arguments\nbuffers\nshaders\nthreads\ncleanup\n";
        program("reference_api.c", &["-lGL"], &[], &[]).expect(sections);
    }
}

#[test]
fn the_reference_interface_initialised_repeatedly() {
    if support::gl_available() {
        program("reference_cycles.c", &[], &[], &[]).expect("cycles\nthreads\n");
    }
}

#[test]
fn a_users_own_asynchronous_loop() {
    if support::gl_available() {
        program("user_loop.c", &["-lGL"], &[], &[]).expect("every output of 12 images, three times\n");
    }
}

#[test]
fn parameters_and_buffers_that_do_not_match() {
    if support::gl_available() {
        let ran = program("parameters.c", &["-lGL"], &[], &[]);
        ran.expect("every output of 321 dispatches\n");
    }
}

#[test]
fn convolutions_queued_on_a_users_buffers() {
    if support::gl_available() {
        program("queue.c", &["-lGL"], &[], &[]).expect("queued\n");
    }
}

#[test]
fn nan_and_infinity() {
    if support::gl_available() {
        program("not_finite.c", &["-lGL"], &[], &[]).expect("results match the definition\n");
    }
}

#[test]
fn sums_longer_than_a_drivers_loops() {
    if support::gl_available() {
        program("long_sums_reference.c", &["-lGL"], &[], &[]).expect("five convolutions with long sums\n");
        program("long_sums_shaders.c", &[], &[], &[]).expect("correct or refused\n");
    }
}

#[test]
fn millions_of_outputs() {
    if support::gl_available() {
        program("large.c", &[], &[], &[]).expect("every output is correct\n");
    }
}

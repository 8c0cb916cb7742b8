//! Discovery on fake machines: which devices are listed, in which order, and why others are not usable.

use std::sync::Arc;

use super::fake::{
    BAD_ALLOC, BAD_ATTRIBUTE, BAD_DISPLAY, BAD_MATCH, FakeEgl, Gpu, Listed, MODERN, Machine, NOT_INITIALIZED,
    Numbers, SUCCESS,
};
use crate::gl::device::discovery::discover;
use crate::gl::driver::egl::{self, Egl, EglError};

/// All client extensions that the engine knows.
const ALL: &str = "EGL_EXT_client_extensions EGL_EXT_device_base EGL_EXT_device_enumeration \
                   EGL_EXT_platform_device EGL_MESA_platform_surfaceless";
const LLVMPIPE: &str = "llvmpipe (LLVM 15.0.6, 256 bits)";

/// A machine that enumerates `gpus` and has nothing else.
fn machine(gpus: Vec<Gpu>) -> Machine {
    Machine {
        extensions: Some(ALL),
        listed: Ok((0..gpus.len()).map(Listed::new).collect()),
        gpus,
        surfaceless: Err(BAD_DISPLAY),
        default: Err(SUCCESS),
    }
}

/// An expected candidate: name, whether it is software, why it is unusable.
type Expected<'a> = (&'a str, bool, Option<&'a str>);

const NO_SURFACELESS: Expected = ("surfaceless", false, Some("surfaceless: no display: EGL_BAD_DISPLAY"));
const NO_DEFAULT: Expected = ("default display", false, Some("default display: no display: no error given"));

fn hardware(name: &str) -> Expected<'_> {
    (name, false, None)
}

fn software(name: &str) -> Expected<'_> {
    (name, true, None)
}

fn unusable<'a>(name: &'a str, why: &'a str) -> Expected<'a> {
    (name, false, Some(why))
}

/// Discovers a machine's devices and compares them. Checks that all created objects are destroyed. Returns the
/// platforms tried.
fn check(what: &str, machine: Machine, expected: &[Expected]) -> Vec<String> {
    let fake = FakeEgl::new(machine);
    let egl: Arc<dyn Egl> = fake.clone();
    let found = discover(Ok(&egl)).unwrap();
    let seen: Vec<Expected> = found
        .iter()
        .map(|it| &it.candidate)
        .map(|it| (it.name.as_str(), it.software, it.unusable.as_deref()))
        .collect();
    assert_eq!(seen, expected, "{what}");
    for it in &found {
        let usable = it.candidate.unusable.is_none();
        assert_eq!(it.target.is_some(), usable, "{what}");
        assert_eq!(it.candidate.facts.is_empty(), !usable, "{what}");
        assert_eq!(it.candidate.architecture.is_some(), usable, "{what}");
        if let Some(target) = it.target {
            assert!(target.rate.is_finite() && target.rate > 0.0, "{what}: {target:?}");
        }
    }
    assert_eq!(fake.alive(), (0, 0), "{what}: contexts and surfaces left");
    assert_eq!(egl.current_context(), None, "{what}");
    fake.asked()
}

#[test]
fn machines_without_a_usable_egl() {
    for reason in ["no EGL library: libEGL.so.1: cannot open", "the EGL library is too old: eglBindAPI"] {
        let found = discover(Err(reason.to_owned())).unwrap();
        assert_eq!(found.len(), 1);
        let it = &found[0].candidate;
        assert_eq!((it.name.as_str(), it.software, it.unusable.as_deref()), ("OpenGL", false, Some(reason)));
        assert!(found[0].target.is_none());
    }
    let nothing = Machine { extensions: Some(""), ..machine(vec![]) };
    assert_eq!(check("no extensions", nothing, &[NO_DEFAULT]), ["default"]);
    let nulls = Machine { extensions: None, ..machine(vec![]) };
    assert_eq!(check("a NULL string for the client's extensions", nulls, &[NO_DEFAULT]), ["default"]);
    let empty = check("all extensions, no device", machine(vec![]), &[NO_SURFACELESS, NO_DEFAULT]);
    assert_eq!(empty, ["list", "surfaceless", "default"]);
}

/// Looks for EGL in these libraries. Returns the reason that the one candidate gives.
fn reason_without(libraries: &[&str]) -> String {
    let egl = egl::load(libraries);
    let found = discover(egl.as_ref().map_err(Clone::clone)).unwrap();
    assert_eq!(found.len(), 1, "{libraries:?}");
    assert_eq!(found[0].candidate.name, "OpenGL");
    found[0].candidate.unusable.clone().expect("the candidate is unusable")
}

#[test]
fn a_machine_without_libegl_says_so() {
    let reason = reason_without(&["libsparkle-no-such-egl.so.1", "libsparkle-no-such-egl.so"]);
    assert!(reason.starts_with("no EGL library: libsparkle-no-such-egl.so.1: "), "{reason}");
    // A library that exists but is not EGL. The C library is always there.
    let reason = reason_without(&["libsparkle-no-such-egl.so.1", "libc.so.6"]);
    assert!(reason.starts_with("the EGL library is broken: "), "{reason}");
    assert!(reason.contains("eglGetProcAddress"), "{reason}");
}

/// A libEGL older than version 1.4, built for this test.
#[test]
fn a_libegl_that_is_too_old_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("egl.c"), folder.path().join("libEGL.so.1"));
    std::fs::write(&source, "void *eglGetProcAddress(const char *name) { return 0; }\n").unwrap();
    let compiled = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .expect("the C compiler is installed, since it links Rust programs");
    assert!(compiled.success());
    let reason = reason_without(&[library.to_str().unwrap()]);
    assert!(reason.starts_with("the EGL library is too old: "), "{reason}");
}

#[test]
fn machines_with_devices_that_work() {
    let one = machine(vec![Gpu::new("NVIDIA H200/PCIe/SSE2")]);
    let tried = check("one GPU", one, &[hardware("NVIDIA H200/PCIe/SSE2")]);
    assert_eq!(tried, ["list", "device 0"], "with a GPU found nothing else is tried");

    let four = machine(vec![Gpu::new("H200"); 4]);
    check("four GPUs of one model", four, &[hardware("H200"); 4]);

    let software_only = Machine { surfaceless: Ok(0), default: Ok(0), ..machine(vec![Gpu::new(LLVMPIPE)]) };
    let tried = check("software, by all three ways", software_only, &[software(LLVMPIPE)]);
    assert_eq!(tried, ["list", "device 0", "surfaceless", "default"]);

    let mixed = machine(vec![Gpu::new(LLVMPIPE), Gpu::new("Radeon"), Gpu::new("Arc")]);
    check("software listed first", mixed, &[hardware("Radeon"), hardware("Arc"), software(LLVMPIPE)]);

    let mut flagged = machine(vec![Gpu::new("SomeRasterizer")]);
    flagged.listed.as_mut().unwrap()[0].extensions = Some("EGL_MESA_device_software");
    let others = [software("SomeRasterizer"), NO_SURFACELESS, NO_DEFAULT];
    check("software by EGL's word", flagged, &others);

    let surfaceless = Machine {
        extensions: Some("EGL_MESA_platform_surfaceless"),
        surfaceless: Ok(0),
        ..machine(vec![Gpu::new("Mali")])
    };
    assert_eq!(check("surfaceless only", surfaceless, &[hardware("Mali")]), ["surfaceless"]);

    let desktop = Machine { extensions: Some(""), default: Ok(0), ..machine(vec![Gpu::new("GeForce")]) };
    assert_eq!(check("default display only", desktop, &[hardware("GeForce")]), ["default"]);

    let behind = Machine { surfaceless: Ok(1), ..machine(vec![Gpu::new(LLVMPIPE), Gpu::new("Adreno")]) };
    let behind = Machine { listed: Ok(vec![Listed::new(0)]), ..behind };
    let expected = [hardware("Adreno"), software(LLVMPIPE)];
    check("software enumerated, a GPU by the surfaceless way", behind, &expected);

    let silent = Gpu { extensions: None, ..Gpu::new("") };
    check("NULL strings of the device", machine(vec![silent.clone()]), &[hardware("EGL device 0")]);
    check("two of them", machine(vec![silent; 2]), &[hardware("EGL device 0"), hardware("EGL device 1")]);
}

#[test]
fn one_gpu_by_two_ways() {
    let files = "EGL_EXT_device_drm EGL_EXT_device_drm_render_node";
    let listed = |card: &'static str, node: &'static str| Listed {
        extensions: Some(files),
        files: [Some(card), Some(node)],
        ..Listed::new(0)
    };
    let card = "/dev/dri/card0";
    let vendor =
        Listed { extensions: Some("EGL_EXT_device_drm"), files: [Some(card), None], ..Listed::new(0) };
    let mesa = Listed { gpu: Ok(1), ..listed(card, "/dev/dri/renderD128") };
    let gpus = vec![Gpu::new("H200"), Gpu::new("NVK H200")];
    let twice = Machine { listed: Ok(vec![vendor, mesa.clone()]), ..machine(gpus.clone()) };
    check("one GPU listed by two vendors", twice.clone(), &[hardware("H200")]);

    let mut broken = twice;
    broken.gpus[0].initialize = Err(NOT_INITIALIZED);
    let why = "EGL device 0 (/dev/dri/card0): eglInitialize failed: EGL_NOT_INITIALIZED";
    let expected = [hardware("NVK H200"), unusable("EGL device 0 (/dev/dri/card0)", why)];
    check("the first of which does not work", broken, &expected);

    let other = Listed { gpu: Ok(0), ..listed("/dev/dri/card1", "/dev/dri/renderD129") };
    let two = Machine { listed: Ok(vec![mesa, other]), ..machine(gpus) };
    check("two GPUs, each with its files", two, &[hardware("NVK H200"), hardware("H200")]);

    // An empty file name counts as none.
    let unnamed = Machine { listed: Ok(vec![listed("", ""); 2]), ..machine(vec![Gpu::new("H200")]) };
    check("two GPUs without names of files", unnamed, &[hardware("H200"); 2]);

    let fallback = Machine {
        listed: Err(BAD_ALLOC),
        surfaceless: Ok(0),
        default: Ok(0),
        ..machine(vec![Gpu::new("Iris")])
    };
    let why = "eglQueryDevicesEXT failed: EGL_BAD_ALLOC";
    let expected = [hardware("Iris"), unusable("EGL devices", why)];
    let tried = check("enumeration fails, the GPU is found all the same", fallback, &expected);
    assert_eq!(tried, ["list", "surfaceless"]);
}

#[test]
fn devices_that_do_not_work_say_why() {
    let right = || Gpu::new("H200");
    let cases: [(&str, Gpu, &str); 12] = [
        (
            "listed, but not for us",
            Gpu { initialize: Err(NOT_INITIALIZED), ..right() },
            "EGL device 0: eglInitialize failed: EGL_NOT_INITIALIZED",
        ),
        (
            "a failure without an error",
            Gpu { initialize: Err(SUCCESS), ..right() },
            "EGL device 0: eglInitialize failed: no error given",
        ),
        (
            "OpenGL 4.2",
            Gpu { minor: Ok(2), ..right() },
            "EGL device 0: eglCreateContext for OpenGL 4.3 core failed: EGL_BAD_MATCH",
        ),
        (
            "an EGL that knows no versions of contexts",
            Gpu { minor: Err(BAD_ATTRIBUTE), ..right() },
            "EGL device 0: eglCreateContext for OpenGL 4.3 core failed: EGL_BAD_ATTRIBUTE",
        ),
        (
            "no memory for a context",
            Gpu { minor: Err(BAD_ALLOC), ..right() },
            "EGL device 0 is out of memory: eglCreateContext for OpenGL 4.3 core",
        ),
        (
            "an error nobody knows",
            Gpu { minor: Err(EglError(0x4242)), ..right() },
            "EGL device 0: eglCreateContext for OpenGL 4.3 core failed: EGL error 0x4242",
        ),
        (
            "no configurations, and contexts need one",
            Gpu { configs: (false, false), extensions: Some("EGL_KHR_surfaceless_context"), ..right() },
            "EGL device 0: eglChooseConfig failed: no framebuffer configuration for OpenGL",
        ),
        (
            "no configuration with pbuffers, and contexts need a surface",
            Gpu { configs: (false, true), extensions: Some("EGL_KHR_no_config_context"), ..right() },
            "EGL device 0: eglChooseConfig failed: no framebuffer configuration for OpenGL",
        ),
        (
            "an entry point is missing",
            Gpu { missing: Some("glDispatchCompute"), ..right() },
            "EGL device 0: loading OpenGL failed: glDispatchCompute is missing",
        ),
        (
            "one result is wrong",
            Gpu { numbers: Numbers::OneWrong, ..right() },
            "EGL device 0: the probe failed: 1 of 240 results of a small convolution are wrong",
        ),
        (
            "nothing is read back",
            Gpu { numbers: Numbers::Nothing, ..right() },
            "EGL device 0: the probe failed: 240 of 240 results of a small convolution are wrong",
        ),
        ("a panic", Gpu { numbers: Numbers::Panic, ..right() }, "EGL device 0: the probe panicked"),
    ];
    let mut checked = 0;
    for (what, gpu, why) in cases {
        // Alone, and before a device that works.
        let broken = unusable("EGL device 0", why);
        check(what, machine(vec![gpu.clone()]), &[broken, NO_SURFACELESS, NO_DEFAULT]);
        check(what, machine(vec![gpu, Gpu::new("Radeon")]), &[hardware("Radeon"), broken]);
        checked += 1;
    }
    assert_eq!(checked, 12);

    let mut no_display = machine(vec![right()]);
    no_display.listed.as_mut().unwrap().push(Listed { gpu: Err(BAD_MATCH), ..Listed::new(0) });
    let why = "EGL device 1: no display: EGL_BAD_MATCH";
    check("a device without a display", no_display, &[hardware("H200"), unusable("EGL device 1", why)]);

    let no_platform = Machine { extensions: Some("EGL_EXT_device_base"), ..machine(vec![right()]) };
    let why = "EGL_EXT_platform_device is missing";
    check("devices that cannot be opened", no_platform, &[unusable("EGL devices", why), NO_DEFAULT]);

    let stuck = Gpu { initialize: Err(NOT_INITIALIZED), ..right() };
    let listed_only = Machine { surfaceless: Ok(1), ..machine(vec![stuck, Gpu::new(LLVMPIPE)]) };
    let listed_only = Machine { listed: Ok(vec![Listed::new(0)]), ..listed_only };
    let why = "EGL device 0: eglInitialize failed: EGL_NOT_INITIALIZED";
    let expected = [software(LLVMPIPE), unusable("EGL device 0", why), NO_DEFAULT];
    check("a container: a GPU that is listed but closed, and software", listed_only, &expected);
}

/// Contexts need different things: a surface, a configuration, both, or neither.
#[test]
fn contexts_get_what_they_need() {
    let mut checked = 0;
    for (extensions, configs) in [
        (MODERN, (false, false)),
        (MODERN, (false, true)),
        (MODERN, (true, true)),
        ("EGL_KHR_surfaceless_context", (false, true)),
        ("EGL_KHR_surfaceless_context", (true, true)),
        ("EGL_KHR_no_config_context", (true, true)),
        ("", (true, true)),
    ] {
        let gpu = Gpu { extensions: Some(extensions), configs, ..Gpu::new("H200") };
        check(&format!("{extensions:?} {configs:?}"), machine(vec![gpu]), &[hardware("H200")]);
        checked += 1;
    }
    assert_eq!(checked, 7);
}

#[test]
fn drivers_are_asked_what_their_extensions_can_tell() {
    let both = &["GL_KHR_shader_subgroup", "GL_NV_shader_thread_group"];
    for (gl_extensions, subgroup, units) in
        [(&[][..], (32, false), None), (&both[..1], (16, true), None), (&both[..], (16, true), Some(132))]
    {
        let gpu = Gpu { gl_extensions, ..Gpu::new("NVIDIA H200/PCIe/SSE2") };
        let egl: Arc<dyn Egl> = FakeEgl::new(machine(vec![gpu]));
        let found = discover(Ok(&egl)).unwrap();
        let architecture = found[0].candidate.architecture.as_ref().expect("the device is usable");
        assert_eq!((architecture.subgroup_size, architecture.subgroup_size_told), subgroup);
        assert_eq!((architecture.name, architecture.compute_units), ("Hopper", units));
    }
}

//! Generates the C headers from `src/ffi` and sets the name of the shared library.
//!
//! The headers are written to `OUT_DIR`; `include` has the committed copies, and a test compares them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

/// The files that declare the functions and types of `sparkle.h`, in the order in which the header shows them, and the
/// titles of their groups.
const SPARKLE: [(&str, &str); 22] = [
    ("status", "Status codes"),
    ("library", "The library as a whole"),
    ("device", "Devices"),
    ("architecture", "Architectures of GPUs, and shaders as text"),
    ("tuning_history", "Measurements of shaders"),
    ("conv2d", "Convolutions"),
    ("conv2d_forms", "Other forms of convolutions"),
    ("conv1d", "Convolutions of signals"),
    ("plan", "Plans"),
    ("pipeline", "Pipelines"),
    ("gemm", "Products of matrices"),
    ("loops", "Blocks for loops of one's own"),
    ("kernel", "Kernels of one's own"),
    ("buffer", "Buffers on a device"),
    ("launch", "Launches of kernels"),
    ("epilogue", "Epilogues"),
    ("timing", "Times"),
    ("predict", "Predictions"),
    ("shares", "Shares of several devices"),
    ("transport", "Transports between processes"),
    ("group", "Groups of processes"),
    ("group_gemm", "Products of matrices over a group"),
];

/// Those of `sparkle_reference.h`.
const REFERENCE: [(&str, &str); 2] =
    [("reference", "OpenGL as the reference framework has it"), ("helpers", "Memory and processor")];

/// Counts incompatible changes of the C interface: `docs/install.md` says what that promises. The Makefile reads it.
const SOVERSION: u32 = 0;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=cbindgen-reference.toml");
    println!("cargo:rerun-if-changed=src/ffi");
    header("sparkle.h", "cbindgen.toml", &SPARKLE);
    header("sparkle_reference.h", "cbindgen-reference.toml", &REFERENCE);
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsparkle.so.{SOVERSION}");
        // Threads of drivers and of the pool outlive a dlclose. Without nodelete they would run in unmapped code.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        version_symbols();
        link_by_soname();
    }
}

/// Gives all symbols the SONAME as their version. rustc passes a version script of its own, and linkers accept no second
/// one. GNU ld has an option for this, so it links where it is installed; LLVM's linker has none.
fn version_symbols() {
    let native = std::env::var("HOST") == std::env::var("TARGET");
    if native && Command::new("ld.bfd").arg("--version").output().is_ok_and(|found| found.status.success()) {
        println!("cargo:rustc-cdylib-link-arg=-fuse-ld=bfd");
        println!("cargo:rustc-cdylib-link-arg=-Wl,--default-symver");
    }
}

#[cfg(not(unix))]
fn link_by_soname() {}

/// Puts a link with the name of the SONAME beside `libsparkle.so`: programs that are linked with the library load it by
/// that name. Cargo leaves the library only where this package is built for itself, so dependents get no link.
#[cfg(unix)]
fn link_by_soname() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // target/release/build/sparkle-compute-0123456789abcdef/out
    if let (Some(_), Some(folder)) = (option_env!("CARGO_PRIMARY_PACKAGE"), out.ancestors().nth(3)) {
        let link = folder.join(format!("libsparkle.so.{SOVERSION}"));
        if let Err(error) = std::os::unix::fs::symlink("libsparkle.so", &link)
            && link.symlink_metadata().is_err()
        {
            println!("cargo:warning={}: {error}", link.display());
        }
    }
}

/// Writes a header with the declarations of `files`. Each file is a group of Doxygen's.
fn header(name: &str, settings: &str, files: &[(&str, &str)]) {
    let mut config = cbindgen::Config::from_file(settings).expect("the settings are valid");
    let groups = files.iter().map(|(file, title)| format!("\n/** @defgroup sparkle_{file} {title} */"));
    config.header = config.header.map(|text| text + "\n" + &groups.collect::<String>());
    let sources = files.iter().map(|(file, _)| format!("src/ffi/{file}.rs"));
    let builder =
        sources.fold(cbindgen::Builder::new().with_config(config), |builder, path| builder.with_src(path));
    let mut text = Vec::new();
    builder.generate().expect("cbindgen generates C from src/ffi").write(&mut text);
    let text = grouped(&String::from_utf8(text).expect("cbindgen writes UTF-8"), files);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join(name), text).expect("OUT_DIR is writable");
}

/// Adds to the comment of each declaration the group of the file that it comes from.
fn grouped(header: &str, files: &[(&str, &str)]) -> String {
    let mut groups = HashMap::new();
    for (file, _) in files {
        let source = std::fs::read_to_string(format!("src/ffi/{file}.rs")).expect("src/ffi has the files");
        for line in source.lines() {
            let words: Vec<&str> = line.split(|it: char| !it.is_alphanumeric() && it != '_').collect();
            let kinds = ["fn", "struct", "enum", "union", "type", "const"];
            if words[0] == "pub"
                && let Some(at) = words.iter().position(|word| kinds.contains(word))
            {
                groups.insert(words[at + 1].to_owned(), *file);
            }
        }
    }
    let (mut text, mut is_described) = (String::new(), false);
    for line in header.lines() {
        if is_described && let Some(file) = declared(line).and_then(|name| groups.get(name)) {
            text += &format!("/// @ingroup sparkle_{file}\n");
        }
        is_described = line.starts_with("///");
        text += &format!("{line}\n");
    }
    text
}

/// The name that a line of C in the first column declares.
fn declared(line: &str) -> Option<&str> {
    let is_part = |it: char| it.is_alphanumeric() || it == '_';
    let start = ["#define ", "typedef struct ", "typedef union ", "enum "];
    let name = match start.iter().find_map(|start| line.strip_prefix(start)) {
        Some(rest) => rest.split(|it: char| !is_part(it)).next(),
        None if line.starts_with("typedef ") => line.split_once("(*")?.1.split(')').next(),
        None if line.starts_with(is_part) => line.split_once('(')?.0.rsplit(|it: char| !is_part(it)).next(),
        None => None,
    };
    name.filter(|name| !name.is_empty())
}

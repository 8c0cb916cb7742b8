//! Generates the C header from `src/ffi` and sets the name of the shared library.
//!
//! The header is written to `OUT_DIR`; `include/sparkle.h` is the committed copy, and a test compares the two.

use std::path::PathBuf;
use std::process::Command;

/// The files that declare C functions and types, in the order in which the header shows them.
const SOURCES: [&str; 16] = [
    "status",
    "library",
    "device",
    "architecture",
    "tuning_history",
    "conv2d",
    "plan",
    "pipeline",
    "gemm",
    "kernel",
    "buffer",
    "launch",
    "timing",
    "shares",
    "reference",
    "helpers",
];

/// Counts incompatible changes of the C interface: `docs/install.md` says what that promises. The Makefile reads it.
const SOVERSION: u32 = 0;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=src/ffi");
    header();
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

fn header() {
    let config = cbindgen::Config::from_file("cbindgen.toml").expect("cbindgen.toml is valid");
    let sources = SOURCES.iter().map(|name| format!("src/ffi/{name}.rs"));
    let builder =
        sources.fold(cbindgen::Builder::new().with_config(config), |builder, path| builder.with_src(path));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    builder.generate().expect("cbindgen generates C from src/ffi").write_to_file(out.join("sparkle.h"));
}

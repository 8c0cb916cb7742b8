//! Generates the C header from `src/ffi` and sets the name of the shared library.
//!
//! The header is written to `OUT_DIR`; `include/sparkle.h` is the committed copy, and a test compares the two.

use std::path::PathBuf;

/// The files that declare C functions and types, in the order in which the header shows them.
const SOURCES: [&str; 15] = [
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
    "reference",
    "helpers",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=src/ffi");
    header();
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsparkle.so.0");
        // Threads of drivers and of the pool outlive a dlclose. Without nodelete they would run in unmapped code.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
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

//! Every exported function with NULL, with misaligned, overlapping and oversized buffers, with extreme integers, and with invalid
//! handles. Each call must return the documented status, set a new last error, and write nothing.

// The names of the reference interface.
#![allow(non_snake_case)]

mod buffers;
mod cases;
mod conv2d;
mod epilogues;
mod forms;
mod gemm;
mod groups;
mod handles;
mod helpers;
mod kernels;
mod launches;
mod loops;
mod pipeline;
mod reference;
mod shaders;

use std::collections::BTreeSet;

#[test]
fn no_function_is_forgotten() {
    let sources = [
        include_str!("buffers.rs"),
        include_str!("cases.rs"),
        include_str!("conv2d.rs"),
        include_str!("epilogues.rs"),
        include_str!("forms.rs"),
        include_str!("gemm.rs"),
        include_str!("groups.rs"),
        include_str!("handles.rs"),
        include_str!("helpers.rs"),
        include_str!("kernels.rs"),
        include_str!("launches.rs"),
        include_str!("loops.rs"),
        include_str!("pipeline.rs"),
        include_str!("reference.rs"),
        include_str!("shaders.rs"),
    ];
    // These have no arguments, or are tested with the devices that they need.
    let elsewhere = [
        "sparkle_version",
        "sparkle_version_string",
        "sparkle_set_log_callback",
        "sparkle_finalize",
        "gpu_initialize_opengl",
        "create_egl_context",
    ];
    let calls = |name: &&str| sources.iter().any(|source| source.contains(&format!("{name}(")));
    let forgotten: BTreeSet<&str> =
        include_str!("../../include/abi.txt").lines().filter(|name| !calls(name)).collect();
    assert_eq!(forgotten, BTreeSet::from(elsewhere));
}

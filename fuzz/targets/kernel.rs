//! Texts of kernel files: any bytes. Messages can be drawn, and what compiles can be described and written as GLSL.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sparkle::kernel::glsl::{EpilogueOptions, Options, Parameters, Version, epilogue, write};
use sparkle::kernel::{compile, describe, diagnostics};

fuzz_target!(|text: &[u8]| {
    let compiled = compile(text).expect("memory");
    diagnostics::render_all(&compiled.diagnostics, "fuzz.f90", text).expect("memory");
    let errors = compiled.diagnostics.iter().filter(|it| it.is_error()).count();
    assert_eq!(errors == 0, compiled.unit.is_some());
    let Some(unit) = compiled.unit else { return };
    for version in [Version::Desktop430, Version::Es310] {
        for kernel in &unit.kernels {
            describe::kernel(kernel);
            for parameters in [Parameters::Uniform, Parameters::Buffer, Parameters::Inline] {
                let options = Options { version, parameters, ..Options::default() };
                let _ = write(&unit, kernel, &options).expect("memory");
            }
        }
        for it in &unit.epilogues {
            describe::epilogue(it);
            let _ = epilogue(&unit, it, &EpilogueOptions { version, ..EpilogueOptions::default() }).expect("memory");
        }
    }
});

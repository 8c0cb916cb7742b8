//! Every generated text is accepted by glslang.

use super::*;
use crate::kernel::glsl::{EpilogueOptions, Options, Parameters, Version, epilogue, write};

/// Checks shaders, by name: starting the tool takes longer than checking one.
pub(super) fn check_with_glslang(sources: &[(String, String)]) {
    let folder = tempfile::tempdir().unwrap();
    for (chunk, sources) in sources.chunks(100).enumerate() {
        let file = |index: usize, name: &str| folder.path().join(format!("{chunk}-{index}-{name}.comp"));
        let files: Vec<_> = sources.iter().enumerate().map(|(index, (name, _))| file(index, name)).collect();
        for (file, (_, text)) in files.iter().zip(sources) {
            std::fs::write(file, text).unwrap();
        }
        match std::process::Command::new("glslangValidator").args(&files).output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                if !output.status.success() || text.contains("WARNING") {
                    let bad = sources.iter().enumerate().find(|(index, (name, _))| {
                        let prefix = format!("{chunk}-{index}-{name}.comp\nERROR");
                        text.contains(&prefix)
                            || text.contains(&format!("{chunk}-{index}-{name}.comp\nWARNING"))
                    });
                    panic!("{text}\n{}", bad.map_or("", |(_, (_, text))| text));
                }
            }
            Err(_) if std::env::var_os("SPARKLE_TEST_REQUIRE_GL").is_none() => {
                return eprintln!("skipped: glslangValidator is not installed");
            }
            Err(error) => panic!("glslangValidator: {error}"),
        }
    }
}

/// All texts of a unit, in every version and with every method that it allows.
pub(super) fn texts(unit: &Unit, name: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for kernel in &unit.kernels {
        for version in [Version::Desktop430, Version::Es310] {
            for parameters in [Parameters::Uniform, Parameters::Buffer, Parameters::Inline] {
                for (coarsening, checked) in [(1, false), (4, true)] {
                    let options = Options { version, parameters, coarsening, checked, ..Options::default() };
                    let Ok(glsl) = write(unit, kernel, &options).unwrap() else { continue };
                    let mut text = glsl.text;
                    for argument in &kernel.arguments {
                        let value = match argument.ty {
                            tree::Type::Real32 => "1.5",
                            tree::Type::Real64 => "1.5LF",
                            _ => "3",
                        };
                        text = text.replace(&format!("PLACEHOLDER_{};", argument.name), &format!("{value};"));
                    }
                    all.push((format!("{name}-{}", kernel.name), text));
                    let finishers = glsl.finishers.into_iter().map(|it| (format!("{name}-finish"), it.text));
                    all.extend(finishers);
                }
            }
        }
    }
    for it in &unit.epilogues {
        for version in [Version::Desktop430, Version::Es310] {
            let options = EpilogueOptions { version, first_binding: 4, ..EpilogueOptions::default() };
            let Ok(glsl) = epilogue(unit, it, &options).unwrap() else { continue };
            let head = match version {
                Version::Desktop430 => "#version 430 core",
                Version::Es310 => "#version 310 es\nprecision highp float;",
            };
            let text = format!(
                "{head}
layout(local_size_x = 64) in;
layout(std430, binding = 0) buffer Values {{ float values[]; }};
#define K 3
{}
void main() {{ values[gl_GlobalInvocationID.x] = epilogue(values[gl_GlobalInvocationID.x], K, 7); }}
",
                glsl.text
            );
            all.push((format!("{name}-{}", it.name), text));
        }
    }
    all
}

#[test]
fn glslang_accepts_every_program_of_the_language() {
    let all: Vec<_> = files("language").iter().flat_map(|(name, text)| texts(&unit(text), name)).collect();
    assert!(all.len() > 60, "{}", all.len());
    check_with_glslang(&all);
}

/// The 16 kernels of the reference framework, by three methods.
#[test]
fn glslang_accepts_the_reference_kernels() {
    let units: Vec<_> = files("reference").into_iter().map(|(name, text)| (name, unit(&text))).collect();
    let kernels: Vec<_> = units.iter().flat_map(|(_, unit)| &unit.kernels).collect();
    assert_eq!(kernels.len(), 16);
    assert_eq!(kernels.iter().filter(|kernel| kernel.legacy).count(), 7);
    let all: Vec<_> = units.iter().flat_map(|(name, unit)| texts(unit, name)).collect();
    assert_eq!(all.len(), 16 * 12);
    check_with_glslang(&all);
}

//! The kernels of `glsl/`, by name.
//!
//! A kernel's name is the same in the code, in logs, in benchmark rows and in `Run::kernel`; the number at its end is
//! the size of a workgroup or of the tile it computes.

/// One compute shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Its name.
    pub name: &'static str,
    /// Its GLSL.
    pub source: &'static str,
}

/// Convolution with a square kernel, one stride and one padding: the reference ABI's, bindings 0 to 3.
pub const CONV_REFERENCE: Kernel =
    Kernel { name: "conv_reference_64", source: include_str!("../../glsl/conv_reference.comp") };

/// The reference convolution for programs that dispatch it themselves, with any parameters.
pub fn reference_for_callers() -> String {
    CONV_REFERENCE.source.replacen('\n', "\n#define FOR_CALLERS 1\n", 1)
}

/// A file of `glsl/` that uses `numbers.glsl`, or comes in two forms.
macro_rules! with_head {
    ($part:literal, $file:literal) => {
        concat!(
            "#version 430 core\n#define PART ",
            $part,
            "\n\n",
            include_str!("../../glsl/numbers.glsl"),
            "\n",
            include_str!(concat!("../../glsl/", $file))
        )
    };
}

/// Every convolution.
pub const CONV_DIRECT: Kernel =
    Kernel { name: "conv_direct_64", source: with_head!("0", "conv_direct.comp") };

/// Every convolution, a part of its reduction at a time.
pub const CONV_PART: Kernel =
    Kernel { name: "conv_direct_64_parts", source: with_head!("1", "conv_direct.comp") };

/// Many small convolutions at once, out of a queue.
pub const CONV_QUEUE: Kernel = Kernel { name: "conv_queue_64", source: with_head!("0", "conv_queue.comp") };

/// Every matrix product.
pub const SGEMM_DIRECT: Kernel =
    Kernel { name: "sgemm_direct_16x16", source: with_head!("0", "sgemm_direct.comp") };

/// Every matrix product, a part of its depth at a time.
pub const SGEMM_PART: Kernel =
    Kernel { name: "sgemm_direct_16x16_parts", source: with_head!("1", "sgemm_direct.comp") };

/// How many iterations a device's loops make.
pub const PROBE_LOOPS: Kernel =
    Kernel { name: "probe_loops", source: include_str!("../../glsl/probe_loops.comp") };

/// ReLU and the padding's zeros, for what uses them.
pub(super) const NUMBERS: &str = include_str!("../../glsl/numbers.glsl");

/// All of them.
#[cfg(test)]
pub const ALL: [Kernel; 7] =
    [CONV_REFERENCE, CONV_DIRECT, CONV_PART, CONV_QUEUE, SGEMM_DIRECT, SGEMM_PART, PROBE_LOOPS];

/// Has glslangValidator check a shader. It is part of the development setup; where it is missing, the driver's compiler is the
/// judge.
#[cfg(test)]
pub(super) fn check_with_glslang(name: &str, source: &str) {
    check_all_with_glslang(&[(name, source)]);
}

/// As [`check_with_glslang`], of many by name: starting it takes longer than checking one.
#[cfg(test)]
pub(super) fn check_all_with_glslang(sources: &[(&str, &str)]) {
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
                assert!(output.status.success() && !text.contains("WARNING"), "{text}");
            }
            Err(_) if std::env::var_os("SPARKLE_TEST_REQUIRE_GL").is_none() => {
                return eprintln!("skipped: no glslangValidator");
            }
            Err(error) => panic!("glslangValidator: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glslang_accepts_every_kernel() {
        ALL.iter().for_each(|kernel| check_with_glslang(kernel.name, kernel.source));
        check_with_glslang("conv_reference_for_callers", &reference_for_callers());
        assert_eq!(ALL.len(), 7);
    }

    #[test]
    fn the_reference_kernel_keeps_the_reference_interface() {
        let source = CONV_REFERENCE.source;
        assert!(source.starts_with("#version 430 core"));
        assert!(source.contains("local_size_x = 64, local_size_y = 1, local_size_z = 1"));
        for block in [
            "binding = 0) readonly buffer InputBuffer",
            "binding = 1) readonly buffer WeightBuffer",
            "binding = 2) writeonly buffer OutputBuffer",
            "binding = 3) readonly buffer ParamBuffer",
            "int N, H, W, C, K, kernel_size, stride, pad, H_out, W_out;",
        ] {
            assert!(source.contains(block), "{block}");
        }
    }

    /// A line more, the second, and nothing less.
    #[test]
    fn callers_get_the_reference_kernel_and_a_line() {
        let text = reference_for_callers();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "#define FOR_CALLERS 1");
        let others = lines.iter().enumerate().filter(|(index, _)| *index != 1).map(|(_, line)| *line);
        assert!(others.eq(CONV_REFERENCE.source.lines()));
    }
}

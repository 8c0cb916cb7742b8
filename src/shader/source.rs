//! The fixed kernels of `glsl/`, by name.
//!
//! A kernel has the same name in the code, in logs, in benchmark rows and in `Run::kernel`. The number at its end is the size
//! of a workgroup or of the tile that it computes.

/// One compute shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Its name.
    pub name: &'static str,
    /// Its GLSL.
    pub source: &'static str,
}

/// Convolution with a square kernel, one stride and one padding, with the bindings 0 to 3 of the reference ABI.
pub const CONV_REFERENCE: Kernel =
    Kernel { name: "conv_reference_64", source: include_str!("../../glsl/conv_reference.comp") };

/// The reference kernel for programs that dispatch it themselves. It accepts any parameters.
pub fn reference_for_callers() -> String {
    CONV_REFERENCE.source.replacen('\n', "\n#define FOR_CALLERS 1\n", 1)
}

/// The text of a file of `glsl/`, with a version, `PART` and `numbers.glsl` at its head.
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

/// Fallback kernel for every convolution.
pub const CONV_DIRECT: Kernel =
    Kernel { name: "conv_direct_64", source: with_head!("0", "conv_direct.comp") };

/// Fallback kernel for every convolution, one part of the reduction per pass.
pub const CONV_PART: Kernel =
    Kernel { name: "conv_direct_64_parts", source: with_head!("1", "conv_direct.comp") };

/// Many small convolutions in one dispatch, from a queue.
pub const CONV_QUEUE: Kernel = Kernel { name: "conv_queue_64", source: with_head!("0", "conv_queue.comp") };

/// Fallback kernel for every matrix product.
pub const SGEMM_DIRECT: Kernel =
    Kernel { name: "sgemm_direct_16x16", source: with_head!("0", "sgemm_direct.comp") };

/// Fallback kernel for every matrix product, one part of the depth per pass.
pub const SGEMM_PART: Kernel =
    Kernel { name: "sgemm_direct_16x16_parts", source: with_head!("1", "sgemm_direct.comp") };

/// Counts the loop iterations that a device makes.
pub const PROBE_LOOPS: Kernel =
    Kernel { name: "probe_loops", source: include_str!("../../glsl/probe_loops.comp") };

/// ReLU and the padding value.
pub(super) const NUMBERS: &str = include_str!("../../glsl/numbers.glsl");

/// All fixed kernels.
#[cfg(test)]
pub const ALL: [Kernel; 7] =
    [CONV_REFERENCE, CONV_DIRECT, CONV_PART, CONV_QUEUE, SGEMM_DIRECT, SGEMM_PART, PROBE_LOOPS];

/// Checks a shader with glslangValidator. Without that tool, only the driver's compiler checks shaders.
#[cfg(test)]
pub(super) fn check_with_glslang(name: &str, source: &str) {
    check_all_with_glslang(&[(name, source)]);
}

/// Checks many shaders, by name: starting the tool takes longer than checking one shader.
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
                return eprintln!("skipped: glslangValidator is not installed");
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

    /// The text differs by its second line alone.
    #[test]
    fn callers_get_the_reference_kernel_and_a_line() {
        let text = reference_for_callers();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "#define FOR_CALLERS 1");
        let others = lines.iter().enumerate().filter(|(index, _)| *index != 1).map(|(_, line)| *line);
        assert!(others.eq(CONV_REFERENCE.source.lines()));
    }
}

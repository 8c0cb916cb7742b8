//! What a driver can do beyond the required GL 4.3, queried once for each context.

use crate::gl::driver::api::{self, Api};
use crate::gl::driver::architecture::{Architecture, Reported, is_software};

/// The most bytes of a buffer that a kernel uses, whatever the driver allows. Larger offsets are untested.
const MAX_BLOCK: u64 = i32::MAX as u64;

/// Limits and optional features of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `GL_VENDOR`.
    pub vendor: String,
    /// `GL_RENDERER`.
    pub renderer: String,
    /// `GL_VERSION`.
    pub version: String,
    /// `GL_SHADING_LANGUAGE_VERSION`.
    pub glsl: String,
    /// Whether the renderer is software.
    pub software: bool,
    /// The largest buffer that a shader can see, in bytes.
    pub max_block: u64,
    /// The most workgroups in a dispatch, along x, y and z.
    pub max_groups: [u32; 3],
    /// Bytes of shared memory of a workgroup.
    pub max_shared: usize,
    /// Invocations of a workgroup.
    pub max_threads: usize,
    /// Invocations of a workgroup along x, y and z.
    pub max_local_size: [u32; 3],
    /// Storage blocks that a compute shader may use.
    pub max_storage_blocks: usize,
    /// Bindings of storage blocks.
    pub max_storage_bindings: usize,
    /// Bits of a timestamp query's counter; 0 if the driver has no timestamps.
    pub timestamp_bits: i32,
    /// Whether programs can be saved as binaries and loaded from them.
    pub program_binaries: bool,
    /// Persistent mapping (GL 4.4 or ARB_buffer_storage).
    pub buffer_storage: bool,
    /// Whether resets are reported (GL 4.5 or a robustness extension).
    pub reset_status: bool,
    /// Whether a context may lose its shader when another deletes a program, as Mesa's do (`forgotten.rs`).
    pub forgets_shaders: bool,
    /// Numbers that the driver reports about the hardware.
    pub reported: Reported,
}

impl Capabilities {
    /// Queries the current context.
    pub fn query(api: &dyn Api) -> Self {
        let renderer = api.get_string(api::RENDERER);
        // Querying the name without its extension is a GL error.
        let reported = |extension, name| match api.has_extension(extension) {
            true => api.get_integer64(name).clamp(0, 1 << 20) as u32,
            false => 0,
        };
        let version = api.get_string(api::VERSION);
        let groups = |axis| api.get_integer_indexed(api::MAX_COMPUTE_WORK_GROUP_COUNT, axis).max(1) as u32;
        let count = |name| api.get_integer64(name).max(0) as usize;
        Capabilities {
            vendor: api.get_string(api::VENDOR),
            software: is_software(&renderer),
            renderer,
            forgets_shaders: version.contains("Mesa"),
            version,
            glsl: api.get_string(api::SHADING_LANGUAGE_VERSION),
            max_block: api.get_integer64(api::MAX_SHADER_STORAGE_BLOCK_SIZE).max(0) as u64,
            max_groups: [groups(0), groups(1), groups(2)],
            max_shared: api.get_integer64(api::MAX_COMPUTE_SHARED_MEMORY_SIZE).max(0) as usize,
            max_threads: api.get_integer64(api::MAX_COMPUTE_WORK_GROUP_INVOCATIONS).max(0) as usize,
            max_local_size: [0, 1, 2]
                .map(|axis| api.get_integer_indexed(api::MAX_COMPUTE_WORK_GROUP_SIZE, axis).max(1) as u32),
            max_storage_blocks: count(api::MAX_COMPUTE_SHADER_STORAGE_BLOCKS),
            max_storage_bindings: count(api::MAX_SHADER_STORAGE_BUFFER_BINDINGS),
            timestamp_bits: api.timestamp_bits(),
            program_binaries: api.get_integer64(api::NUM_PROGRAM_BINARY_FORMATS) > 0,
            buffer_storage: api.has_buffer_storage(),
            reset_status: api.has_reset_status(),
            reported: Reported {
                subgroup_size: reported("GL_KHR_shader_subgroup", api::SUBGROUP_SIZE),
                compute_units: reported("GL_NV_shader_thread_group", api::SM_COUNT),
            },
        }
    }

    /// A key for device and driver. Measurements and binaries are valid only under the key that they were made under.
    pub fn key(&self) -> String {
        let Capabilities { vendor, renderer, version, glsl, .. } = self;
        format!("{vendor}; {renderer}; {version}; {glsl}")
    }

    /// The device's architecture, as far as it can be identified.
    pub fn architecture(&self) -> Architecture {
        Architecture::identify(&self.vendor, &self.renderer, self.reported)
    }

    /// The most fp32 elements of a buffer that a kernel uses: the driver's limit, and at most 2^31 - 1 bytes. So
    /// indices in kernels fit into 29 bits and byte offsets into 31.
    pub fn max_elements(&self) -> usize {
        (self.max_block.min(MAX_BLOCK) / 4) as usize
    }

    /// Which limit [`Capabilities::max_elements`] comes from, for messages.
    pub fn max_elements_reason(&self) -> &'static str {
        if self.max_block <= MAX_BLOCK { "GL_MAX_SHADER_STORAGE_BLOCK_SIZE" } else { "2^31 - 1 bytes" }
    }
}

//! What a driver can do beyond the GL 4.3 floor, asked once for each context.

use crate::gl::driver::api::{self, Api};
use crate::gl::driver::architecture::{Architecture, Told, is_software};

/// The most bytes of a buffer that a kernel gets, whatever the driver allows: offsets beyond were never tried.
const LARGEST_BLOCK: u64 = i32::MAX as u64;

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
    /// Threads of a workgroup.
    pub max_threads: usize,
    /// Bits of a timestamp query's counter; 0 if there are no timestamps.
    pub timestamp_bits: i32,
    /// Whether programs can be had as bytes, and made of them.
    pub program_binaries: bool,
    /// Persistent mapping (GL 4.4 or ARB_buffer_storage).
    pub buffer_storage: bool,
    /// Whether resets are reported (GL 4.5 or a robustness extension).
    pub reset_status: bool,
    /// Whether contexts may forget their shaders when another deletes a program (`forgotten.rs`): Mesa's do.
    pub forgets_shaders: bool,
    /// What the driver says of the hardware in numbers.
    pub told: Told,
}

impl Capabilities {
    /// Asks the context that is current.
    pub fn query(api: &dyn Api) -> Self {
        let renderer = api.get_string(api::RENDERER);
        // Without the extension the name is an error.
        let told = |extension, name| match api.has_extension(extension) {
            true => api.get_integer64(name).clamp(0, 1 << 20) as u32,
            false => 0,
        };
        let version = api.get_string(api::VERSION);
        let groups = |axis| api.get_integer_indexed(api::MAX_COMPUTE_WORK_GROUP_COUNT, axis).max(1) as u32;
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
            timestamp_bits: api.timestamp_bits(),
            program_binaries: api.get_integer64(api::NUM_PROGRAM_BINARY_FORMATS) > 0,
            buffer_storage: api.has_buffer_storage(),
            reset_status: api.has_reset_status(),
            told: Told {
                subgroup_size: told("GL_KHR_shader_subgroup", api::SUBGROUP_SIZE),
                compute_units: told("GL_NV_shader_thread_group", api::SM_COUNT),
            },
        }
    }

    /// What it is, as far as can be told.
    pub fn architecture(&self) -> Architecture {
        Architecture::identify(&self.vendor, &self.renderer, self.told)
    }

    /// The most fp32 elements of a buffer that a kernel gets: what the driver allows, and at most 2^31 - 1 bytes. So no index in a
    /// kernel needs more than 29 bits, and no driver has to compute an offset in bytes of more than 31.
    pub fn max_elements(&self) -> usize {
        (self.max_block.min(LARGEST_BLOCK) / 4) as usize
    }

    /// What [`Capabilities::max_elements`] comes from, for messages.
    pub fn max_elements_reason(&self) -> &'static str {
        if self.max_block <= LARGEST_BLOCK { "GL_MAX_SHADER_STORAGE_BLOCK_SIZE" } else { "2^31 - 1 bytes" }
    }
}

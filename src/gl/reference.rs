//! The reference interface: process-global state, and a context of the share group current on the calling thread.

use crate::error::{Error, Result};

/// The parameter block of the reference kernel: 40 bytes, also `conv2d_params_t` in C.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Conv2dParams {
    /// Images.
    pub n: i32,
    /// Input height.
    pub h: i32,
    /// Input width.
    pub w: i32,
    /// Input channels.
    pub c: i32,
    /// Output channels.
    pub k: i32,
    /// Kernel height and width.
    pub kernel_size: i32,
    /// Step in both directions.
    pub stride: i32,
    /// Zeros on all four sides.
    pub pad: i32,
    /// Output height.
    pub h_out: i32,
    /// Output width.
    pub w_out: i32,
}

fn not_yet<T>() -> Result<T> {
    Err(Error::Internal("not yet".into()))
}

/// Makes a context current on the calling thread. Idempotent.
pub fn initialize() -> Result<()> {
    not_yet()
}
/// Ends the reference state: unbinds and destroys the calling thread's context, deletes the program.
pub fn cleanup() {}
/// Whether [`initialize`] succeeded since the last [`cleanup`].
pub fn is_initialized() -> bool {
    false
}
/// Builds the reference program if it does not exist yet. Needs [`initialize`].
pub fn compile() -> Result<()> {
    not_yet()
}
/// The program's GL name, 0 if none.
pub fn program() -> u32 {
    0
}
/// Runs one convolution on the current program, initialising first if need be; returns milliseconds.
pub fn execute(_params: &Conv2dParams, _input: &[f32], _weights: &[f32], _output: &mut [f32]) -> Result<f64> {
    not_yet()
}
/// Makes a buffer object of `bytes` bytes, filled from `data` if given; returns its GL name. Needs [`initialize`].
pub fn create_buffer(_data: Option<&[u8]>, _bytes: usize) -> Result<u32> {
    not_yet()
}
/// Copies a buffer object into `into`.
pub fn download_buffer(_buffer: u32, _into: &mut [u8]) -> Result<()> {
    not_yet()
}
/// Deletes a buffer object.
pub fn free_buffer(_buffer: u32) -> Result<()> {
    not_yet()
}
/// Gives the caller's compute shader object the reference kernel's source.
pub fn set_shader_source(_shader: u32) -> Result<()> {
    not_yet()
}
/// Builds `source` and puts it in the place of the reference program; returns its GL name.
pub fn compile_custom(_source: &str) -> Result<u32> {
    not_yet()
}
/// As [`execute`], on `program`; 0 means the current one.
pub fn execute_custom(
    _program: u32,
    _params: &Conv2dParams,
    _input: &[f32],
    _weights: &[f32],
    _output: &mut [f32],
) -> Result<f64> {
    not_yet()
}
/// Builds `source`, runs it once, deletes it. Needs [`initialize`].
pub fn execute_source(
    _source: &str,
    _params: &Conv2dParams,
    _input: &[f32],
    _weights: &[f32],
    _output: &mut [f32],
) -> Result<f64> {
    not_yet()
}

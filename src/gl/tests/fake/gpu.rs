//! A fake GPU of plain loops. It runs the fallback kernels of convolution and the shader that counts iterations.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::{Gpu, Numbers, Speed};
use crate::gl::driver::api::{self, Api, DebugMessage};
use crate::shader::source::{CONV_DIRECT, CONV_PART, CONV_REFERENCE, PROBE_LOOPS};

/// OpenGL on such a machine: one context, one kernel.
pub struct FakeApi {
    gpu: Gpu,
    names: Cell<u32>,
    buffers: RefCell<HashMap<u32, Vec<u8>>>,
    bound: RefCell<HashMap<u32, u32>>,
    blocks: RefCell<[u32; 8]>,
    /// By location; `first` and `count` come first.
    uniforms: Cell<[u32; 8]>,
    /// Sources by program; 0 is the last shader.
    sources: RefCell<HashMap<u32, String>>,
    used: Cell<u32>,
    /// Nanoseconds so far, number of dispatches, and timestamps by query.
    clock: Cell<u64>,
    dispatches: Cell<u64>,
    stamps: RefCell<HashMap<u32, u64>>,
}

impl FakeApi {
    pub fn new(gpu: Gpu) -> Self {
        FakeApi {
            gpu,
            names: Cell::new(0),
            buffers: RefCell::default(),
            bound: RefCell::default(),
            blocks: RefCell::default(),
            uniforms: Cell::default(),
            sources: RefCell::default(),
            used: Cell::new(0),
            clock: Cell::new(0),
            dispatches: Cell::new(0),
            stamps: RefCell::default(),
        }
    }

    fn new_name(&self) -> u32 {
        self.names.set(self.names.get() + 1);
        self.names.get()
    }

    fn with_buffer<R>(&self, target: u32, work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let name = self.bound.borrow()[&target];
        work(self.buffers.borrow_mut().get_mut(&name).expect("a buffer is bound"))
    }

    fn block<T: bytemuck::Pod>(&self, index: usize) -> Vec<T> {
        bytemuck::pod_collect_to_vec(&self.buffers.borrow()[&self.blocks.borrow()[index]])
    }

    /// A dispatch on a GPU of this speed. The host waits for as long.
    fn take_time(&self, speed: &Speed) {
        let [_, groups, steps, ..] = self.uniforms.get().map(u64::from);
        let sources = self.sources.borrow();
        let source = &sources[&self.used.get()];
        let work = match source.contains("measure_fma") || source.contains("measure_shared") {
            true => groups.div_ceil(speed.units) * steps * speed.step,
            false => groups * speed.read,
        };
        self.dispatches.set(self.dispatches.get() + 1);
        let noise = if self.dispatches.get().is_multiple_of(40) { speed.noise } else { 0 };
        let time = speed.launch + work + noise;
        self.clock.set(self.clock.get() + time);
        std::thread::sleep(std::time::Duration::from_nanos(time));
    }

    fn write<T: bytemuck::Pod>(&self, index: usize, data: &[T]) {
        let name = self.blocks.borrow()[index];
        self.buffers.borrow_mut().insert(name, bytemuck::pod_collect_to_vec(data));
    }

    /// Runs `probe_loops`.
    fn count(&self) {
        let [_, _, outer, middle, inner, ..] = self.uniforms.get().map(|it| it as usize);
        let (mut left, mut value, mut made) = (self.gpu.iterations, 1u32, 0u32);
        iterate(&mut left, 0..outer, &mut |left, _| {
            iterate(left, 0..middle, &mut |left, _| {
                iterate(left, 0..inner, &mut |_, _| {
                    value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    made += 1;
                });
            });
        });
        let miscount = u32::from(self.gpu.numbers == Numbers::MiscountedLoops);
        self.write(2, &[value, made - miscount]);
    }

    /// Runs `conv_reference_64`, `conv_direct_64` or a part of the latter.
    fn convolve(&self, source: &str) {
        let (input, weights, params) = (self.block::<f32>(0), self.block::<f32>(1), self.block::<i32>(3));
        let params: Vec<usize> = params.into_iter().map(|it| it as usize).collect();
        let reference = source == CONV_REFERENCE.source;
        let [
            n,
            c,
            h,
            w,
            k,
            r,
            s,
            p,
            q,
            down,
            across,
            top,
            left_pad,
            far_down,
            far_across,
            groups,
            biased,
            relu,
            image_channel,
            image_row,
            image_column,
            kernel_k,
            kernel_c,
            kernel_r,
            kernel_s,
            channels_last,
        ] = match params[..] {
            [n, h, w, c, k, size, stride, pad, p, q] if reference => {
                let taps = size * size;
                let strides = [h * w, w, 1, c * taps, taps, size, 1, 0];
                let sizes = [n, c, h, w, k, size, size, p, q, stride, stride, pad, pad, 1, 1, 1, 0, 0];
                <[usize; 26]>::try_from([&sizes[..], &strides].concat()).unwrap()
            }
            ref all => <[usize; 26]>::try_from(all).unwrap(),
        };
        let mut output = self.block::<f32>(2);
        let [first, count, ranges @ ..] = self.uniforms.get().map(|it| it as usize);
        let whole = [0, c / groups, 0, r, 0, s];
        let ranges = if source == CONV_PART.source { ranges } else { whole };
        let [c_begin, c_end, r_begin, r_end, s_begin, s_end] = ranges;
        assert!(first + count <= output.len() && output.len() >= n * k * p * q, "a dispatch beyond the end");
        for (index, result) in output.iter_mut().enumerate().skip(first).take(count) {
            let (x, y, ki, ni) = match channels_last {
                0 => (index % q, index / q % p, index / q / p % k, index / q / p / k),
                _ => (index / k % q, index / k / q % p, index % k, index / k / q / p),
            };
            let begins = c_begin + r_begin + s_begin == 0;
            let bias = if biased > 0 { self.block::<f32>(4)[ki] } else { 0.0 };
            let mut sum = if begins { bias } else { *result };
            let mut left = self.gpu.iterations;
            iterate(&mut left, c_begin..c_end, &mut |left, ci| {
                iterate(left, r_begin..r_end, &mut |left, ri| {
                    iterate(left, s_begin..s_end, &mut |_, si| {
                        let (row, column) = (y * down + ri * far_down, x * across + si * far_across);
                        let inside =
                            (top..h + top).contains(&row) && (left_pad..w + left_pad).contains(&column);
                        let channel = ki / (k / groups) * (c / groups) + ci;
                        let at = |row: usize, column: usize| {
                            ni * c * h * w
                                + channel * image_channel
                                + (row - top) * image_row
                                + (column - left_pad) * image_column
                        };
                        let pixel = if inside { input[at(row, column)] } else { 0.0 };
                        let tap = ki * kernel_k + ci * kernel_c + ri * kernel_r + si * kernel_s;
                        sum += pixel * weights[tap];
                    });
                });
            });
            if ranges[1] == whole[1] && ranges[3] == r && ranges[5] == s && relu > 0 && sum < 0.0 {
                sum = 0.0;
            }
            *result = if self.gpu.numbers == Numbers::OneWrong && index == 7 { -1e6 } else { sum };
        }
        self.write(2, &output);
    }
}

/// A loop of an invocation. `left` iterations remain for all its loops together.
fn iterate(left: &mut usize, range: std::ops::Range<usize>, body: &mut dyn FnMut(&mut usize, usize)) {
    for index in range {
        body(left, index);
        if *left <= 1 {
            *left = 0;
            return;
        }
        *left -= 1;
    }
    // The last check of the loop's condition counts as well.
    *left = left.saturating_sub(1);
}

impl Api for FakeApi {
    fn gen_buffer(&self) -> u32 {
        self.new_name()
    }
    fn delete_buffer(&self, buffer: u32) {
        self.buffers.borrow_mut().remove(&buffer);
    }
    fn bind_buffer(&self, target: u32, buffer: u32) {
        self.bound.borrow_mut().insert(target, buffer);
    }
    fn bind_buffer_base(&self, _target: u32, index: u32, buffer: u32) {
        self.blocks.borrow_mut()[index as usize] = buffer;
    }
    fn bind_buffer_range(&self, _: u32, _: u32, _: u32, _: i64, _: i64) {
        unreachable!("whole buffers are bound")
    }
    fn buffer_storage(&self, _: u32, _: i64, _: u32) {
        unreachable!("it has no buffer storage")
    }
    fn map_buffer_range(&self, _: u32, _: i64, _: i64, _: u32) -> usize {
        unreachable!("nothing is mapped")
    }
    fn buffer_data(&self, target: u32, size: i64, _usage: u32) {
        let name = self.bound.borrow()[&target];
        self.buffers.borrow_mut().insert(name, vec![0xaa; size as usize]);
    }
    fn buffer_sub_data(&self, target: u32, offset: i64, data: &[u8]) {
        self.with_buffer(target, |it| it[offset as usize..][..data.len()].copy_from_slice(data));
    }
    fn get_buffer_sub_data(&self, target: u32, offset: i64, into: &mut [u8]) {
        if self.gpu.numbers != Numbers::Nothing {
            self.with_buffer(target, |it| into.copy_from_slice(&it[offset as usize..][..into.len()]));
        }
    }
    fn copy_buffer_sub_data(&self, _: u32, _: u32, _: i64, _: i64, _: i64) {
        unreachable!("convolutions copy nothing")
    }
    fn buffer_size(&self, _: u32) -> i64 {
        unreachable!("the engine knows the sizes of its own buffers")
    }
    fn create_compute_shader(&self) -> u32 {
        self.new_name()
    }
    fn shader_source(&self, _shader: u32, source: &str) {
        let known = [CONV_REFERENCE, CONV_DIRECT, CONV_PART, PROBE_LOOPS];
        assert!(self.gpu.speed.is_some() || known.iter().any(|kernel| kernel.source == source));
        // Programs are linked one at a time, each from the last shader.
        self.sources.borrow_mut().insert(0, source.to_owned());
    }
    fn compile_shader(&self, _shader: u32) {}
    fn shader_compiled(&self, _shader: u32) -> bool {
        true
    }
    fn shader_log(&self, _shader: u32) -> String {
        String::new()
    }
    fn delete_shader(&self, _shader: u32) {}
    fn create_program(&self) -> u32 {
        self.new_name()
    }
    fn attach_shader(&self, _program: u32, _shader: u32) {}
    fn detach_shader(&self, _program: u32, _shader: u32) {}
    fn link_program(&self, program: u32) {
        let mut sources = self.sources.borrow_mut();
        let source = sources[&0].clone();
        sources.insert(program, source);
    }
    fn program_linked(&self, _program: u32) -> bool {
        true
    }
    fn program_log(&self, _program: u32) -> String {
        String::new()
    }
    fn compile_in_parallel(&self) {}
    fn keep_program_binary(&self, _program: u32) {}
    fn program_binary(&self, _program: u32) -> Option<(u32, Vec<u8>)> {
        None
    }
    fn load_program_binary(&self, _program: u32, _format: u32, _binary: &[u8]) {}
    fn delete_program(&self, _program: u32) {}
    fn program_local_size(&self, _program: u32) -> [i32; 3] {
        [64, 1, 1]
    }
    fn use_program(&self, program: u32) {
        self.used.set(program);
    }
    fn forget_program(&self) {}
    fn program_is_ready(&self, _program: u32) -> bool {
        true
    }
    fn uniform_1ui(&self, location: u32, value: u32) {
        let mut uniforms = self.uniforms.get();
        uniforms[location as usize] = value;
        self.uniforms.set(uniforms);
    }
    fn uniform_location(&self, _program: u32, _name: &str) -> Option<u32> {
        None
    }
    fn uniform_3ui(&self, _location: u32, _x: u32, _y: u32, _z: u32) {}
    fn uniform_1i(&self, _location: u32, _value: i32) {}
    fn uniform_1f(&self, _location: u32, _value: f32) {}
    fn uniform_1d(&self, _location: u32, _value: f64) {}
    fn dispatch_compute(&self, _x: u32, _y: u32, _z: u32) {
        match self.gpu.numbers {
            _ if self.gpu.speed.is_some() => self.take_time(&self.gpu.speed.unwrap()),
            Numbers::Panic => std::panic::resume_unwind(Box::new("a driver's wrapper")),
            _ => {
                let source = self.sources.borrow()[&self.used.get()].clone();
                if source == PROBE_LOOPS.source { self.count() } else { self.convolve(&source) }
            }
        }
    }
    fn memory_barrier(&self, _barriers: u32) {}
    fn flush(&self) {}
    fn finish(&self) {}
    fn fence_sync(&self) -> usize {
        1
    }
    fn client_wait_sync(&self, _sync: usize, _flags: u32, _timeout_ns: u64) -> u32 {
        api::ALREADY_SIGNALED
    }
    fn wait_sync(&self, _sync: usize) {}
    fn delete_sync(&self, _sync: usize) {}
    fn gen_query(&self) -> u32 {
        self.new_name()
    }
    fn delete_query(&self, _query: u32) {}
    fn query_timestamp(&self, query: u32) {
        self.stamps.borrow_mut().insert(query, self.clock.get());
    }
    fn query_result(&self, query: u32) -> u64 {
        self.stamps.borrow()[&query]
    }
    fn timestamp_bits(&self) -> i32 {
        64
    }
    fn get_error(&self) -> u32 {
        api::NO_ERROR
    }
    fn get_integer64(&self, name: u32) -> i64 {
        match name {
            api::SUBGROUP_SIZE | api::SM_COUNT => {
                assert!(!self.gpu.gl_extensions.is_empty(), "asked of a driver that cannot answer");
                if name == api::SUBGROUP_SIZE { 16 } else { 132 }
            }
            _ => self.gpu.max_block,
        }
    }
    fn get_integer_indexed(&self, _name: u32, _index: u32) -> i32 {
        65_535
    }
    fn get_string(&self, name: u32) -> String {
        match name {
            api::RENDERER => self.gpu.renderer.to_owned(),
            api::VERSION if !self.gpu.renderer.is_empty() => "4.6 fake".to_owned(),
            _ => String::new(),
        }
    }
    fn reset_status(&self) -> u32 {
        0
    }
    fn has_extension(&self, name: &str) -> bool {
        self.gpu.gl_extensions.contains(&name)
    }
    fn has_reset_status(&self) -> bool {
        false
    }
    fn has_buffer_storage(&self) -> bool {
        false
    }
    fn enable_debug_log(&self) {}
    fn next_debug_message(&self) -> Option<DebugMessage> {
        None
    }
}

//! The operations of `sparkle.h`.

use std::ffi::CString;
use std::ptr::{null, null_mut};

use sparkle::ffi::{
    architecture::*, buffer::*, conv2d::*, device::*, gemm::*, kernel::*, launch::*, library::*, pipeline::*,
    plan::*, status::sparkle_status, tuning_history::*,
};
use sparkle::problem::{exact::Random, oracle};
use sparkle::{Algorithm, Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout};
use sparkle_status::{SPARKLE_ERROR_INVALID_ARGUMENT, SPARKLE_OK};

use crate::layers::{Layer, layer, layers};
use crate::support;
use crate::{CANARY, Operation, Run, STATES, Tally, ok, own};

/// All operations on `device`.
pub fn operations(device: &str, tally: &mut Tally) {
    let on_cpu = device == "cpu";
    let threads: &[i32] = if on_cpu { &[1, 2] } else { &[1] };
    let products: Vec<Product> = PRODUCTS.into_iter().map(Product::new).collect();
    let in_place = Product::in_place(300);
    // Through the pipeline of calls, uncut and in pieces.
    let wide = Conv2dDesc { n: 2, c: 16, h: 256, w: 256, k: 4, bias: true, ..Default::default() };
    let streamed = [2, 9].map(|n| layer(&Conv2dDesc { n, ..wide }));
    let (n, algorithm) = (5, Algorithm::Direct);
    let batch = Conv2dDesc { n, c: 32, h: 40, w: 40, k: 32, bias: true, algorithm, ..Default::default() };
    let batch = layer(&batch);
    let small = layer(&Conv2dDesc { c: 4, h: 5, w: 5, k: 2, bias: true, ..Default::default() });
    let many = small.expected.repeat(JOBS);
    let numbers = Random::new(9).integers(100_000, 4);
    let doubled: Vec<f32> = numbers.iter().map(|value| 2.0 * value).collect();
    let layers = layers();
    for &threads in threads {
        ok(sparkle_set_num_threads(threads));
        // The first operation that discovers devices.
        let run = Box::new(|_: &mut [f32]| count());
        let (name, before) = (format!("{device}: devices"), Box::new(|| ()));
        tally.check(Operation { name, before, run, expected: &[], tolerance: 0.0, again: true });
        for (state, reset) in STATES {
            // Discovering a GL device again is too slow for all operations.
            let few = !on_cpu && state == "cold";
            let mut all = |what: &str, run: Run, expected: &[f32], tolerance| {
                let name = format!("{device}, {threads} threads, {state}: {what}");
                tally.check(Operation {
                    name,
                    before: Box::new(reset),
                    run,
                    expected,
                    tolerance,
                    again: true,
                });
            };
            // A software renderer is slow with long kernels.
            let kept = |name: &str| if on_cpu { true } else { name == "direct" || !(few || name == "long") };
            for (name, layer) in layers.iter().filter(|(name, _)| kept(name)) {
                for (what, way) in WAYS {
                    let run = Box::new(move |output: &mut [f32]| way(device, layer, output));
                    all(&format!("{what} of {name}"), run, &layer.expected, layer.tolerance);
                }
            }
            if few {
                continue;
            }
            for product in products.iter().filter(|it| on_cpu || it.sizes.1 != 3 && it.sizes.0 != 3) {
                let (m, n, k) = product.sizes;
                let run = Box::new(|output: &mut [f32]| product.run(device, output));
                all(&format!("product {m}x{n}x{k}"), run, &product.expected, 0.0);
            }
            // A and C are the same memory.
            let run = Box::new(|output: &mut [f32]| {
                let c = (output.as_mut_ptr(), output.len());
                // SAFETY: this makes only an address and a length, as the C interface takes them.
                let a = unsafe { std::slice::from_raw_parts(c.0.cast_const(), 0) };
                in_place.run_on(device, (a, c.1), c)
            });
            all("product in place", run, &in_place.expected, 0.0);
            for (name, layer) in ["streamed", "streamed in pieces"].into_iter().zip(&streamed) {
                for (what, way) in &WAYS[..2] {
                    let run = Box::new(move |output: &mut [f32]| way(device, layer, output));
                    all(&format!("{what} {name}"), run, &layer.expected, 0.0);
                }
            }
            let run = Box::new(|output: &mut [f32]| job_in_pieces(device, &batch, output));
            all("job in pieces", run, &batch.expected, 0.0);
            let run = Box::new(|output: &mut [f32]| many_jobs(device, &small, output));
            all("many jobs", run, &many, 0.0);
            let run = Box::new(|output: &mut [f32]| many_plans(device, &small, output));
            all("many plans", run, &small.expected, 0.0);
            let run = Box::new(|output: &mut [f32]| on_buffers(device, &batch, output));
            all("calls on buffers", run, &batch.expected, 0.0);
            if !on_cpu || support::cpu_with_kernels().is_some() {
                let run = Box::new(|output: &mut [f32]| launch(device, &numbers, output));
                all("launch", run, &doubled, 0.0);
                let run = Box::new(|output: &mut [f32]| launch_on_buffers(device, &numbers, output));
                all("launch on buffers", run, &doubled, 0.0);
            }
            all("shader", Box::new(shader), &[], 0.0);
            let run = Box::new(|_: &mut [f32]| long_texts());
            all("long texts", run, &[], 0.0);
            let run = Box::new(|output: &mut [f32]| call("auto", &layers[0].1, output));
            all("call of auto", run, &layers[0].1.expected, 0.0);
            if !on_cpu {
                let run = Box::new(|_: &mut [f32]| architecture());
                all("architecture", run, &[], 0.0);
            }
        }
    }
}

/// Plans that measure kernels, each for a layer that was not measured before.
pub fn measured(device: &str, tally: &mut Tally) {
    ok(sparkle_set_num_threads(2));
    let mut width = 20;
    let run = Box::new(|output: &mut [f32]| {
        let (mut computed, layer) = own(|| {
            width += 1;
            let desc = Conv2dDesc { c: 64, h: 20, w: width, k: 64, r: 3, s: 3, ..Default::default() };
            let layer = layer(&Conv2dDesc { bias: true, pad_h: 1, pad_w: 1, ..desc });
            (vec![CANARY; layer.expected.len()], layer)
        });
        let status = plan(device, &layer, &mut computed);
        // Any variant may be the fastest, so the results may be rounded.
        let is = |value: f32, expected: f32| (value - expected).abs() < 0.5;
        if status == SPARKLE_OK {
            let right = computed.iter().zip(&layer.expected).all(|(&value, &it)| is(value, it));
            output[0] = f32::from(u8::from(right));
        } else if computed.iter().any(|&value| value != CANARY) {
            output[0] = -1.0;
        }
        own(|| drop((computed, layer)));
        status
    });
    // This takes seconds on a software renderer.
    let again = device == "cpu";
    let (name, before) = (format!("{device}: measured plan"), Box::new(|| ()));
    tally.check(Operation { name, before, run, expected: &[1.0], tolerance: 0.0, again });
}

/// Tuning without regard to the record, as Rust programs call it. A variant without enough memory is not measured, which is not
/// an error.
pub fn tuned() {
    let desc = Conv2dDesc { c: 32, h: 20, w: 20, k: 32, r: 3, s: 3, bias: true, ..Default::default() };
    let problem = Conv2d::new(desc).unwrap();
    let tune = |ms| sparkle::lab::tune(0, &problem, std::time::Duration::from_millis(ms));
    let mut failures = 0;
    for which in 1.. {
        let mut result = None;
        let mut run = || {
            result = Some(tune(20));
            SPARKLE_OK
        };
        let (_, count) = crate::with_failure(which, &mut run);
        if let Some(Err(error)) = result {
            panic!("{error} at failure {which} of {count}");
        }
        if count < which {
            break;
        }
        failures += 1;
    }
    println!("gl:0: tuned: {failures} overcome");
    assert!(failures > 0);
    assert!(tune(1000).unwrap().timed > 0);
}

type Way = fn(&str, &Layer, &mut [f32]) -> sparkle_status;

/// Ways to compute a layer.
const WAYS: [(&str, Way); 4] = [("call", call), ("plan", plan), ("job", job), ("slot", slot)];

fn open(selector: &str) -> Result<*mut sparkle_device, sparkle_status> {
    let (selector, mut device) = (CString::new(selector).unwrap(), null_mut());
    // SAFETY: the string and the pointer to the handle are valid.
    match unsafe { sparkle_device_open(selector.as_ptr(), &mut device) } {
        SPARKLE_OK => Ok(device),
        status => Err(status),
    }
}

/// Opens `device` and runs `job` with it.
fn with_device(device: &str, job: impl FnOnce(*mut sparkle_device) -> sparkle_status) -> sparkle_status {
    let device = match open(device) {
        Ok(device) => device,
        Err(status) => return status,
    };
    let status = job(device);
    ok(sparkle_device_close(device));
    status
}

fn call(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    let Layer { desc, input, weights, bias, .. } = layer;
    // SAFETY: all buffers are as long as given.
    with_device(device, |device| unsafe {
        sparkle_conv2d(
            device,
            desc,
            input.as_ptr(),
            input.len(),
            weights.as_ptr(),
            weights.len(),
            bias.as_ptr(),
            bias.len(),
            output.as_mut_ptr(),
            output.len(),
        )
    })
}

/// A plan of `layer`.
fn plan_of(device: *mut sparkle_device, layer: &Layer) -> Result<*mut sparkle_plan, sparkle_status> {
    let Layer { desc, weights, bias, .. } = layer;
    let mut plan = null_mut();
    // SAFETY: all buffers are as long as given.
    let status = unsafe {
        sparkle_plan_create(
            device,
            desc,
            weights.as_ptr(),
            weights.len(),
            bias.as_ptr(),
            bias.len(),
            &mut plan,
        )
    };
    assert_eq!(plan.is_null(), status != SPARKLE_OK);
    if status == SPARKLE_OK { Ok(plan) } else { Err(status) }
}

fn execute(plan: *mut sparkle_plan, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    // SAFETY: both buffers are as long as given.
    unsafe {
        sparkle_plan_execute(plan, layer.input.as_ptr(), layer.input.len(), output.as_mut_ptr(), output.len())
    }
}

fn plan(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    with_device(device, |device| {
        let plan = match plan_of(device, layer) {
            Ok(plan) => plan,
            Err(status) => return status,
        };
        let status = execute(plan, layer, output);
        ok(sparkle_plan_destroy(plan));
        status
    })
}

/// Compiles a kernel and launches it on large buffers, one of them in parts that are copied on the device.
fn launch_on_buffers(device: &str, x: &[f32], output: &mut [f32]) -> sparkle_status {
    let n = output.len();
    let (mut from, mut to, mut computed) = (null_mut(), null_mut(), own(|| vec![CANARY; n]));
    let real32 = sparkle_type::SPARKLE_TYPE_REAL32 as i32;
    let status = with_device(device, |device| {
        // SAFETY: the places for the handles are valid, and all arrays are as long as given.
        let mut run = || unsafe {
            done(sparkle_buffer_create(device, real32, n + 1, &mut from))?;
            done(sparkle_buffer_create(device, real32, n, &mut to))?;
            done(sparkle_buffer_write(from, 1, x.as_ptr().cast(), n))?;
            let part = |buffer, offset| sparkle_kernel_arg {
                size: size_of::<sparkle_kernel_arg>(),
                r#type: real32,
                form: sparkle_arg_form::SPARKLE_ARG_BUFFER as i32,
                address: null(),
                length: n,
                value: sparkle_arg_value { int64: 0 },
                buffer,
                offset,
            };
            done(launch_with(device, n, [part(from, 1), part(to, 0)]))?;
            done(sparkle_buffer_read(to, 0, computed.as_mut_ptr().cast(), n))
        };
        run().err().unwrap_or(SPARKLE_OK)
    });
    ok(sparkle_buffer_destroy(from));
    ok(sparkle_buffer_destroy(to));
    if status == SPARKLE_OK {
        output.copy_from_slice(&computed);
    }
    own(|| drop(computed));
    status
}

/// A plan and a call, whose input and output are in buffers, and a product of the input with one number.
fn on_buffers(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    let (n, m) = (layer.input.len(), output.len());
    let mut buffers = [null_mut(); 4];
    let mut computed = own(|| vec![CANARY; m]);
    let status = with_device(device, |device| {
        let plan = match plan_of(device, layer) {
            Ok(plan) => plan,
            Err(status) => return status,
        };
        let real32 = sparkle_type::SPARKLE_TYPE_REAL32 as i32;
        let lengths = [n, layer.weights.len() + layer.bias.len(), m + 1, n];
        // SAFETY: the places for the handles are valid, and all arrays are as long as given.
        let mut run = || unsafe {
            for (buffer, length) in buffers.iter_mut().zip(lengths) {
                done(sparkle_buffer_create(device, real32, length, buffer))?;
            }
            let [x, constants, y, z] = buffers;
            let (weights, bias) = (&layer.weights, &layer.bias);
            done(sparkle_buffer_write(x, 0, layer.input.as_ptr().cast(), n))?;
            done(sparkle_buffer_write(constants, 0, weights.as_ptr().cast(), weights.len()))?;
            done(sparkle_buffer_write(constants, weights.len(), bias.as_ptr().cast(), bias.len()))?;
            done(sparkle_plan_execute_buffers(plan, x, 0, y, 1))?;
            let bias = if bias.is_empty() { null_mut() } else { constants };
            let (desc, at) = (&layer.desc, weights.len());
            done(sparkle_conv2d_buffers(device, desc, x, 0, constants, 0, bias, at, y, 0))?;
            done(sparkle_sgemm_buffers(device, &gemm(n, 1, 1), x, 0, x, 1, z, 0))?;
            done(sparkle_buffer_read(y, 0, computed.as_mut_ptr().cast(), m))
        };
        let status = run().err().unwrap_or(SPARKLE_OK);
        ok(sparkle_plan_destroy(plan));
        status
    });
    buffers.into_iter().for_each(|buffer| ok(sparkle_buffer_destroy(buffer)));
    if status == SPARKLE_OK {
        output.copy_from_slice(&computed);
    }
    own(|| drop(computed));
    status
}

fn done(status: sparkle_status) -> Result<(), sparkle_status> {
    if status == SPARKLE_OK { Ok(()) } else { Err(status) }
}

/// Compiles a kernel and launches it on large arrays.
fn launch(device: &str, x: &[f32], output: &mut [f32]) -> sparkle_status {
    let n = output.len();
    let array = |form: sparkle_arg_form, address: *const f32| sparkle_kernel_arg {
        size: size_of::<sparkle_kernel_arg>(),
        r#type: sparkle_type::SPARKLE_TYPE_REAL32 as i32,
        form: form as i32,
        address: address.cast(),
        length: n,
        value: sparkle_arg_value { int64: 0 },
        buffer: null_mut(),
        offset: 0,
    };
    let input = array(sparkle_arg_form::SPARKLE_ARG_INPUT, x.as_ptr());
    let output = array(sparkle_arg_form::SPARKLE_ARG_ARRAY, output.as_mut_ptr().cast_const());
    with_device(device, |device| launch_with(device, n, [input, output]))
}

/// y = 2 x.
fn launch_with(device: *mut sparkle_device, n: usize, [x, y]: [sparkle_kernel_arg; 2]) -> sparkle_status {
    const SOURCE: &str = "!@kernel\nsubroutine doubled(i, a, x, y)\ninteger, value :: i\nreal, value :: a\n\
        real, intent(in) :: x\nreal, intent(out) :: y\ny = a * x\nend subroutine\n";
    let mut kernel = null_mut();
    // SAFETY: the source has the stated length, and the place for the handle is valid.
    let status = unsafe { sparkle_kernel_compile(SOURCE.as_ptr().cast(), SOURCE.len(), null(), &mut kernel) };
    if status != SPARKLE_OK {
        return status;
    }
    let two = sparkle_arg_value { real32: 2.0 };
    let form = sparkle_arg_form::SPARKLE_ARG_SCALAR as i32;
    let scalar = sparkle_kernel_arg {
        form,
        address: null(),
        length: 0,
        value: two,
        buffer: null_mut(),
        offset: 0,
        ..x
    };
    let (args, extents) = ([scalar, x, y], [n as i64, 1, 1]);
    // SAFETY: three extents, three arguments, and arrays as long as they say.
    let status =
        unsafe { sparkle_kernel_launch(device, kernel, extents.as_ptr(), args.as_ptr(), args.len()) };
    ok(sparkle_kernel_destroy(kernel));
    status
}

/// More plans than small tables hold; the last one is run.
fn many_plans(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    const PLANS: usize = 400;
    with_device(device, |device| {
        let (mut plans, mut status) = (Vec::with_capacity(PLANS), SPARKLE_OK);
        while status == SPARKLE_OK && plans.len() < PLANS {
            match plan_of(device, layer) {
                Ok(plan) => plans.push(plan),
                Err(refused) => status = refused,
            }
        }
        if status == SPARKLE_OK {
            status = execute(plans[PLANS - 1], layer, output);
        }
        plans.into_iter().for_each(|plan| ok(sparkle_plan_destroy(plan)));
        status
    })
}

const PRODUCTS: [(usize, usize, usize); 5] =
    [(300, 300, 300), (2000, 3, 500), (3, 2000, 500), (400, 400, 4), (20_000, 1, 40)];

/// A product of small integers.
struct Product {
    sizes: (usize, usize, usize),
    a: Vec<f32>,
    b: Vec<f32>,
    expected: Vec<f32>,
}

impl Product {
    fn new((m, n, k): (usize, usize, usize)) -> Self {
        let mut random = Random::new(8);
        let (a, b) = (random.integers(m * k, 4), random.integers(k * n, 4));
        Self::of((m, n, k), a, b)
    }

    /// A product in place: A and C are the same memory.
    fn in_place(n: usize) -> Self {
        Self::of((n, n, n), vec![CANARY; n * n], Random::new(8).integers(n * n, 2))
    }

    fn of((m, n, k): (usize, usize, usize), a: Vec<f32>, b: Vec<f32>) -> Self {
        let desc = GemmDesc::packed(Layout::RowMajor, m as i64, n as i64, k as i64);
        let problem = Gemm::new(desc).unwrap();
        let element = |index| oracle::gemm_element(&problem, &a, &b, &[], index / n, index % n).value as f32;
        let expected = (0..m * n).map(element).collect();
        Product { sizes: (m, n, k), a, b, expected }
    }

    fn run(&self, device: &str, c: &mut [f32]) -> sparkle_status {
        self.run_on(device, (&self.a, self.a.len()), (c.as_mut_ptr(), c.len()))
    }

    fn run_on(&self, device: &str, a: (&[f32], usize), c: (*mut f32, usize)) -> sparkle_status {
        let (m, n, k) = self.sizes;
        let (desc, a, b) = (gemm(m, n, k), (a.0.as_ptr(), a.1), &self.b);
        // SAFETY: all buffers are as long as given.
        let job = |device| unsafe { sparkle_sgemm(device, &desc, a.0, a.1, b.as_ptr(), b.len(), c.0, c.1) };
        with_device(device, job)
    }
}

fn gemm(m: usize, n: usize, k: usize) -> sparkle_gemm_desc {
    let (m, n, k) = (m as i64, n as i64, k as i64);
    let (layout, no) = (sparkle_layout::SPARKLE_ROW_MAJOR as i32, sparkle_transpose::SPARKLE_NO_TRANS as i32);
    let size = size_of::<sparkle_gemm_desc>();
    sparkle_gemm_desc {
        size,
        layout,
        trans_a: no,
        trans_b: no,
        m,
        n,
        k,
        lda: k,
        ldb: n,
        ldc: n,
        alpha: 1.0,
        beta: 0.0,
    }
}

/// A plan and a pipeline on `device`.
struct Stream {
    plan: *mut sparkle_plan,
    pipeline: *mut sparkle_pipeline,
}

impl Stream {
    fn new(
        device: &str,
        layer: &Layer,
        options: Option<sparkle_pipeline_options>,
    ) -> Result<Self, sparkle_status> {
        let (device, mut pipeline) = (open(device)?, null_mut());
        let options = options.as_ref().map_or(null(), |options| options);
        // SAFETY: options that live as long as the call, or none.
        let piped = unsafe { sparkle_pipeline_create(device, options, &mut pipeline) };
        let plan = plan_of(device, layer);
        ok(sparkle_device_close(device));
        let failed = plan.err().or((piped != SPARKLE_OK).then_some(piped));
        let stream = Stream { plan: plan.unwrap_or(null_mut()), pipeline };
        failed.map_or(Ok(stream), Err)
    }

    /// Submits a job whose buffers live until the stream ends.
    fn submit(&self, layer: &Layer, output: &mut [f32]) -> Result<*mut sparkle_ticket, sparkle_status> {
        let mut ticket = null_mut();
        let (input, len, to) = (layer.input.as_ptr(), layer.input.len(), output.as_mut_ptr());
        // SAFETY: both buffers live until the pipeline is destroyed.
        let status =
            unsafe { sparkle_submit(self.pipeline, self.plan, input, len, to, output.len(), 1, &mut ticket) };
        if status == SPARKLE_OK { Ok(ticket) } else { Err(status) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        ok(sparkle_pipeline_destroy(self.pipeline));
        ok(sparkle_plan_destroy(self.plan));
    }
}

/// Waits for a job.
fn wait(ticket: *mut sparkle_ticket) -> sparkle_status {
    let status = sparkle_ticket_wait(ticket, -1);
    ok(sparkle_ticket_release(ticket));
    status
}

/// A job on the caller's buffers.
fn job(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    let mut run = || wait_for(&Stream::new(device, layer, None)?, layer, output);
    run().err().unwrap_or(SPARKLE_OK)
}

fn wait_for(stream: &Stream, layer: &Layer, output: &mut [f32]) -> Result<(), sparkle_status> {
    match wait(stream.submit(layer, output)?) {
        SPARKLE_OK => Ok(()),
        status => Err(status),
    }
}

fn options() -> sparkle_pipeline_options {
    sparkle_pipeline_options {
        size: size_of::<sparkle_pipeline_options>(),
        slots: 3,
        queue: 256,
        piece_bytes: 128 << 20,
        one_context: 0,
        reserved: 0,
    }
}

/// A job that is cut into single images.
fn job_in_pieces(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    let options = sparkle_pipeline_options { piece_bytes: 64 << 10, one_context: 1, ..options() };
    let mut run = || wait_for(&Stream::new(device, layer, Some(options))?, layer, output);
    run().err().unwrap_or(SPARKLE_OK)
}

/// Jobs that wait at the same time, more than small tables hold.
const JOBS: usize = 3000;

/// They wait in one queue, and the caller waits for all of them together.
fn many_jobs(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    let mut computed = own(|| vec![CANARY; output.len()]);
    let mut run = || {
        let stream =
            Stream::new(device, layer, Some(sparkle_pipeline_options { queue: JOBS as i32, ..options() }))?;
        let outputs = computed.chunks_mut(layer.expected.len());
        let mut result = Ok(());
        let mut tickets = own(|| Vec::with_capacity(JOBS));
        for output in outputs {
            match stream.submit(layer, output) {
                Ok(ticket) => tickets.push(ticket),
                Err(status) => result = result.and(Err(status)),
            }
        }
        // Enough handles that the library needs a large table.
        let many = own(|| tickets.repeat(4));
        let mut first = 0;
        // SAFETY: the number of tickets is correct, and the pointer to the index is valid.
        let status = unsafe { sparkle_ticket_wait_any(many.as_ptr(), many.len(), -1, &mut first) };
        if !many.is_empty() && status != SPARKLE_OK {
            result = result.and(Err(status));
        }
        ok(sparkle_pipeline_flush(stream.pipeline));
        for ticket in tickets {
            let status = wait(ticket);
            if status != SPARKLE_OK {
                result = result.and(Err(status));
            }
        }
        result
    };
    let status = run().err().unwrap_or(SPARKLE_OK);
    if status == SPARKLE_OK {
        output.copy_from_slice(&computed);
    }
    status
}

/// The text of a shader for a layer.
fn shader(_: &mut [f32]) -> sparkle_status {
    let desc: sparkle_conv2d_desc =
        Conv2dDesc { c: 64, h: 40, w: 40, k: 64, r: 3, s: 3, ..Default::default() }.into();
    let size = size_of::<sparkle_shader_options>();
    let mut status = SPARKLE_OK;
    for (registers, shared) in [(16, 0), (256, 0), (256, 1)] {
        let options = sparkle_shader_options {
            size,
            threads_x: 8,
            threads_y: 8,
            registers,
            shared,
            chains: 2,
            reserved: 0,
        };
        let mut length = 0;
        // SAFETY: the structs state their sizes; without a buffer, only the length is returned.
        status = unsafe { sparkle_shader_source(&desc, &options, null_mut(), 0, &mut length) };
        if status != SPARKLE_OK {
            break;
        }
    }
    status
}

/// Texts that are too long or invalid are refused without a copy.
fn long_texts() -> sparkle_status {
    let text = own(|| CString::new("x".repeat(1 << 20)).unwrap());
    let broken = own(|| CString::new(vec![0xff; 1 << 20]).unwrap());
    let (text, broken) = (text.as_ptr(), broken.as_ptr());
    let mut record =
        sparkle_tuning_record { size: size_of::<sparkle_tuning_record>(), runs: 1, mean_ms: 1.0, rate: 1.0 };
    let mut device = null_mut();
    // SAFETY: the texts end with a NUL, and the pointers to results are valid.
    let all = unsafe {
        [
            sparkle_device_open(text, &mut device),
            sparkle_device_open(broken, &mut device),
            sparkle_tuning_history_load(0, text, c"variant".as_ptr(), &mut record),
            sparkle_tuning_history_save(0, c"task".as_ptr(), broken, &record),
        ]
    };
    assert_eq!(all, [SPARKLE_ERROR_INVALID_ARGUMENT; 4], "{}", crate::last_error());
    assert!(crate::last_error().len() < 1000);
    SPARKLE_OK
}

/// Counts the devices.
fn count() -> sparkle_status {
    let mut count = 0;
    // SAFETY: the pointer to the count is valid.
    unsafe { sparkle_device_count(&mut count) }
}

/// Describes the first GPU, which is measured for that.
fn architecture() -> sparkle_status {
    let size = size_of::<sparkle_architecture>();
    // SAFETY: the struct has only numbers, for which zero is valid.
    let mut found = sparkle_architecture { size, ..unsafe { std::mem::zeroed() } };
    // SAFETY: the struct states its size.
    unsafe { sparkle_device_architecture(1, &mut found) }
}

/// A job in a slot of the pipeline.
fn slot(device: &str, layer: &Layer, output: &mut [f32]) -> sparkle_status {
    let stream = match Stream::new(device, layer, None) {
        Ok(stream) => stream,
        Err(status) => return status,
    };
    let (mut slot, mut ticket, mut fill, mut result) = (null_mut(), null_mut(), null_mut(), null());
    // SAFETY: the slot's memory has the lengths of the plan's input and output.
    let status = unsafe {
        match sparkle_slot_acquire(stream.pipeline, stream.plan, 1, &mut slot) {
            SPARKLE_OK => {
                ok(sparkle_slot_memory(slot, &mut fill, &mut result));
                std::slice::from_raw_parts_mut(fill, layer.input.len()).copy_from_slice(&layer.input);
                match sparkle_slot_submit(slot, &mut ticket) {
                    SPARKLE_OK => sparkle_ticket_wait(ticket, -1),
                    refused => refused,
                }
            }
            refused => refused,
        }
    };
    if status == SPARKLE_OK {
        // SAFETY: as above.
        output.copy_from_slice(unsafe { std::slice::from_raw_parts(result, output.len()) });
    }
    ok(sparkle_slot_release(slot));
    ok(sparkle_ticket_release(ticket));
    status
}

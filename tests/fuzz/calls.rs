//! The random calls of one thread.

use std::ffi::{CString, c_char, c_void};
use std::ptr::{null, null_mut};

use sparkle::ffi::status::sparkle_status::{self, *};
use sparkle::ffi::{
    architecture::*, buffer::sparkle_buffer_destroy, conv2d::*, device::*, gemm::*,
    kernel::sparkle_kernel_destroy, library::*, pipeline::*, plan::*, predict::*, reference::*, shares::*,
    timing::*,
};

#[path = "kernels.rs"]
mod kernels;

use super::choices::Choices;
use super::world::{CANARY, Held, KINDS, Kind, Problem, World, pointer};

/// A job of this thread, with its buffers.
struct Job {
    ticket: usize,
    buffers: [Vec<f32>; 2],
    problem: usize,
}

pub struct Caller<'a> {
    world: &'a World,
    choices: Choices,
    jobs: Vec<Job>,
}

/// Devices and plans that exist at a time.
const MAX_HANDLES: usize = 12;

impl<'a> Caller<'a> {
    pub fn new(world: &'a World, choices: Choices) -> Self {
        Caller { world, choices, jobs: vec![] }
    }

    /// Whether the choices are used up. A seeded generator never ends.
    #[allow(dead_code)]
    pub fn is_exhausted(&self) -> bool {
        self.choices.is_exhausted()
    }

    fn below(&mut self, count: usize) -> usize {
        self.choices.below(count)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A number at or beyond a limit of some type.
    fn extreme(&mut self) -> i64 {
        self.choices.pick(&[0, -1, i64::MIN, i64::MAX, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, 7, 65_536])
    }

    /// A handle for a call: mostly a valid one of this kind; sometimes one of another kind, an invented one, or NULL.
    fn handle(&mut self, kind: Kind) -> Held {
        let number = self.below(1 << 20);
        let valid = self.world.some(kind, number, false).unwrap_or(Held { handle: 0, problem: 0 });
        if !self.one_in(12) {
            return valid;
        }
        // Another valid handle of this kind would belong to another problem.
        let other = KINDS[self.below(KINDS.len())];
        let handle = match self.below(4) {
            0 => 0,
            1 => self.choices.bits() as usize,
            2 => valid.handle.wrapping_add(1),
            _ => self
                .world
                .some(other, number, false)
                .filter(|_| other != kind)
                .map_or(usize::MAX, |it| it.handle),
        };
        Held { handle, ..valid }
    }

    /// Returns the correct length, or sometimes a wrong one.
    fn length(&mut self, right: usize) -> usize {
        match self.below(40) {
            0 => right + 1,
            1 => right.saturating_sub(1),
            2 => 0,
            _ => right,
        }
    }

    fn desc(&mut self, problem: usize) -> sparkle_conv2d_desc {
        let mut desc = self.world.problems[problem].desc;
        if self.one_in(10) {
            let extreme = self.extreme();
            let fields = [
                &mut desc.n,
                &mut desc.c,
                &mut desc.h,
                &mut desc.w,
                &mut desc.k,
                &mut desc.r,
                &mut desc.s,
                &mut desc.stride_h,
                &mut desc.stride_w,
                &mut desc.pad_h,
                &mut desc.pad_w,
                &mut desc.dilation_h,
                &mut desc.dilation_w,
                &mut desc.groups,
            ];
            let count = fields.len();
            *fields.into_iter().nth(self.choices.below(count)).unwrap() = extreme;
            match self.below(12) {
                // Too small or too large. A size in between would describe memory that does not exist.
                0 => desc.size = self.choices.pick(&[0, 1, 15, desc.size - 1, 5_000, usize::MAX]),
                1 => desc.algorithm = extreme as i32,
                2 => desc.relu = 2,
                3 => desc.reserved = 1,
                4 => desc.bias = self.below(3) as i32,
                _ => {}
            }
        }
        desc
    }

    /// Checks the output of a call: exact after success, untouched after failure.
    #[track_caller]
    fn settle(&self, status: sparkle_status, output: &[f32], expected: &[f32]) {
        match self.world.note(status) {
            SPARKLE_OK => self.world.verify(output, expected),
            _ => {
                assert!(output.iter().all(|&value| value == CANARY), "{status:?}, but the output was written")
            }
        }
    }

    /// Makes one call, or a few that belong together.
    pub fn step(&mut self) {
        match self.below(40) {
            0 | 1 => self.open(),
            2 => self.give_up(Kind::Device),
            3..=6 => self.conv2d(),
            7 | 8 => self.plan(),
            9..=12 => self.execute(),
            13 => self.give_up(Kind::Plan),
            14..=16 => self.sgemm(),
            17 => self.pipeline(),
            18 => self.give_up(Kind::Pipeline),
            19 | 20 => self.submit(),
            21 | 22 => self.reap(),
            23 => self.look_at_ticket(),
            24 => self.acquire(),
            25 => self.use_slot(),
            26 => self.give_up(Kind::Slot),
            27 => self.pipeline_figures(),
            28 => self.questions(),
            29 => self.texts(),
            30 => self.reference(),
            31 | 32 => self.compile(),
            33 => self.give_up(Kind::Kernel),
            34 => self.launch(),
            35 | 36 => self.create_buffer(),
            37 => self.use_buffer(),
            38 => self.give_up(Kind::Buffer),
            _ => self.rare(),
        }
    }

    fn open(&mut self) {
        let names = [
            self.world.device.as_str(),
            "auto",
            "cpu",
            "multi",
            "multi:cpu=2",
            "gl:99",
            "name=no such",
            "",
            "\u{e9}",
        ];
        let name = if self.one_in(3) { names[self.below(names.len())] } else { names[0] };
        let (name, mut device) = (CString::new(name).unwrap(), null_mut());
        // SAFETY: a string, and a place for the handle.
        let status = self.world.note(unsafe { sparkle_device_open(name.as_ptr(), &mut device) });
        if status != SPARKLE_OK {
            assert!(device.is_null());
        } else if self.world.count(Kind::Device) < MAX_HANDLES {
            self.world.put(Kind::Device, device.addr(), 0);
        } else {
            self.world.note(sparkle_device_close(device));
        }
    }

    /// Destroys a handle that other threads may be using.
    fn give_up(&mut self, kind: Kind) {
        let number = self.below(1 << 20);
        // Keeps two handles of each kind.
        let Some(Held { handle, .. }) =
            (self.world.count(kind) > 2).then(|| self.world.some(kind, number, true)).flatten()
        else {
            return;
        };
        let status = match kind {
            Kind::Device => sparkle_device_close(pointer(handle)),
            Kind::Plan => sparkle_plan_destroy(pointer(handle)),
            Kind::Pipeline => sparkle_pipeline_destroy(pointer(handle)),
            Kind::Slot => sparkle_slot_release(pointer(handle)),
            Kind::Ticket => sparkle_ticket_release(pointer(handle)),
            Kind::Kernel => sparkle_kernel_destroy(pointer(handle)),
            Kind::Buffer => sparkle_buffer_destroy(pointer(handle)),
        };
        // Another thread may have finalised the library.
        assert!([SPARKLE_OK, SPARKLE_ERROR_INVALID_HANDLE].contains(&self.world.note(status)));
    }

    fn conv2d(&mut self) {
        let (number, device) = (self.below(self.world.problems.len()), self.handle(Kind::Device));
        let desc = self.desc(number);
        let Problem { input, weights, bias, expected, .. } = &self.world.problems[number];
        let mut output = vec![CANARY; expected.len()];
        let lens = [input, weights, bias, expected].map(|buffer| buffer.len()).map(|len| self.length(len));
        // SAFETY: the buffers are as long as the problem says. Any other length is refused before anything is read.
        let status = unsafe {
            sparkle_conv2d(
                pointer(device.handle),
                &desc,
                input.as_ptr(),
                lens[0],
                weights.as_ptr(),
                lens[1],
                if bias.is_empty() { null() } else { bias.as_ptr() },
                lens[2],
                output.as_mut_ptr(),
                lens[3],
            )
        };
        if status == SPARKLE_OK && !same_problem(&desc, &self.world.problems[number].desc) {
            // The changed description is another problem with the same buffer sizes.
            self.world.note(status);
            return;
        }
        self.settle(status, &output, expected);
    }

    fn plan(&mut self) {
        let (number, device) = (self.below(self.world.problems.len()), self.handle(Kind::Device));
        let desc = self.desc(number);
        let Problem { weights, bias, desc: own, .. } = &self.world.problems[number];
        let (mut plan, lens) =
            (null_mut(), [weights, bias].map(|buffer| buffer.len()).map(|len| self.length(len)));
        // SAFETY: as above.
        let status = self.world.note(unsafe {
            let bias = if bias.is_empty() { null() } else { bias.as_ptr() };
            sparkle_plan_create(
                pointer(device.handle),
                &desc,
                weights.as_ptr(),
                lens[0],
                bias,
                lens[1],
                &mut plan,
            )
        });
        if status != SPARKLE_OK {
            return assert!(plan.is_null());
        }
        if self.world.count(Kind::Plan) < MAX_HANDLES && same_problem(&desc, own) {
            self.world.put(Kind::Plan, plan.addr(), number);
        } else {
            self.world.note(sparkle_plan_destroy(plan));
        }
    }

    fn execute(&mut self) {
        let plan = self.handle(Kind::Plan);
        let Problem { input, expected, .. } = &self.world.problems[plan.problem];
        let mut output = vec![CANARY; expected.len()];
        let lens = [input, expected].map(|buffer| buffer.len()).map(|len| self.length(len));
        // SAFETY: as above. An invented handle may be another problem's plan, whose lengths then differ.
        let status = unsafe {
            sparkle_plan_execute(pointer(plan.handle), input.as_ptr(), lens[0], output.as_mut_ptr(), lens[1])
        };
        self.settle(status, &output, expected);
        let (mut packed, mut workspace) = (0, 0);
        // SAFETY: places for two numbers.
        self.world.note(unsafe { sparkle_plan_memory(pointer(plan.handle), &mut packed, &mut workspace) });
    }

    fn sgemm(&mut self) {
        let [m, n, k] = [(); 3].map(|()| self.below(40));
        let device = self.handle(Kind::Device);
        let (a, b) = (self.choices.integers(m * k, 3), self.choices.integers(k * n, 3));
        let mut desc = sparkle_gemm_desc {
            size: size_of::<sparkle_gemm_desc>(),
            layout: sparkle_layout::SPARKLE_ROW_MAJOR as i32,
            trans_a: sparkle_transpose::SPARKLE_NO_TRANS as i32,
            trans_b: sparkle_transpose::SPARKLE_NO_TRANS as i32,
            m: m as i64,
            n: n as i64,
            k: k as i64,
            lda: k.max(1) as i64,
            ldb: n.max(1) as i64,
            ldc: n.max(1) as i64,
            alpha: 1.0,
            beta: 0.0,
        };
        let broken = self.one_in(8);
        if broken {
            let extreme = self.extreme();
            match self.below(7) {
                0 => desc.m = extreme.max(1 << 31),
                1 => desc.n = extreme.min(-1),
                2 => desc.lda = extreme.min(0),
                3 => desc.layout = 7,
                4 => desc.trans_b = 3,
                5 => desc.size = 3,
                _ => desc.k = i64::MAX,
            }
        }
        let mut c = vec![CANARY; m * n];
        // SAFETY: the matrices are as long as the sizes say; other sizes are refused.
        let status = unsafe {
            let (device, c) = (pointer(device.handle), c.as_mut_ptr());
            sparkle_sgemm(device, &desc, a.as_ptr(), a.len(), b.as_ptr(), b.len(), c, m * n)
        };
        assert!(!broken || status != SPARKLE_OK, "{m} x {n} x {k}: not refused");
        let sum = |i: usize, j: usize| (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum::<f32>();
        let expected: Vec<f32> = (0..m * n).map(|at| sum(at / n, at % n)).collect();
        self.settle(status, &c, &expected);
        let mut timing = sparkle_timing { size: size_of::<sparkle_timing>(), ..zeroed() };
        // SAFETY: the struct is as large as it says.
        self.world.note(unsafe { sparkle_last_timing(&mut timing) });
        let (mut shares, mut count) =
            ([sparkle_share { size: size_of::<sparkle_share>(), ..zeroed() }; 2], 0);
        // SAFETY: the array has as many elements as it says, of the size that the first one says.
        self.world.note(unsafe { sparkle_last_shares(shares.as_mut_ptr(), 2, &mut count) });
        let mut predictions = [sparkle_prediction { size: size_of::<sparkle_prediction>(), ..zeroed() }; 2];
        let mut desc = sparkle_conv2d_desc { size: size_of::<sparkle_conv2d_desc>(), ..zeroed() };
        // SAFETY: the struct is as large as it says.
        self.world.note(unsafe { sparkle_conv2d_desc_init(&mut desc) });
        desc.h = m as i64;
        // SAFETY: as for the shares, and the device is one that was opened or closed by the interface.
        self.world.note(unsafe {
            let device = pointer(device.handle);
            sparkle_device_predict(device, &desc, predictions.as_mut_ptr(), 2, &mut count)
        });
    }

    fn pipeline(&mut self) {
        if self.world.count(Kind::Pipeline) >= 4 {
            return self.give_up(Kind::Pipeline);
        }
        let device = self.handle(Kind::Device);
        let mut options = sparkle_pipeline_options {
            size: size_of::<sparkle_pipeline_options>(),
            slots: self.below(4) as i32,
            queue: self.below(5) as i32,
            piece_bytes: [0, 1, 4_000][self.below(3)],
            one_context: self.below(2) as i32,
            reserved: 0,
        };
        let broken = self.one_in(8);
        if broken {
            match self.below(4) {
                0 => options.slots = 17,
                1 => options.queue = -1,
                2 => options.one_context = 2,
                _ => options.reserved = 1,
            }
        }
        let (mut pipeline, options) = (null_mut(), if self.one_in(5) { null() } else { &raw const options });
        // SAFETY: the options are NULL or alive.
        let status = unsafe { sparkle_pipeline_create(pointer(device.handle), options, &mut pipeline) };
        if self.world.note(status) == SPARKLE_OK {
            assert!(!broken || options.is_null());
            self.world.put(Kind::Pipeline, pipeline.addr(), 0);
        }
    }

    fn submit(&mut self) {
        let (pipeline, plan) = (self.handle(Kind::Pipeline), self.handle(Kind::Plan));
        let Problem { input, expected, .. } = &self.world.problems[plan.problem];
        let mut buffers = [input.clone(), vec![CANARY; expected.len()]];
        let (wait, mut ticket) = (self.below(2) as i32, null_mut());
        let lens = [input, expected].map(|buffer| buffer.len()).map(|len| self.length(len));
        // SAFETY: the buffers stay until the job is done: in `jobs`, or in the graveyard.
        let status = self.world.note(unsafe {
            let (input, output) = (buffers[0].as_ptr(), buffers[1].as_mut_ptr());
            let (pipeline, plan) = (pointer(pipeline.handle), pointer(plan.handle));
            sparkle_submit(pipeline, plan, input, lens[0], output, lens[1], wait, &mut ticket)
        });
        if status == SPARKLE_OK {
            let ticket = ticket.addr();
            self.world.put(Kind::Ticket, ticket, plan.problem);
            self.jobs.push(Job { ticket, buffers, problem: plan.problem });
        } else {
            assert!(
                buffers[1].iter().all(|&value| value == CANARY),
                "{status:?}, but the output was written"
            );
        }
    }

    /// Waits for one of this thread's jobs.
    fn reap(&mut self) {
        let Some(index) = self.choices.bits().checked_rem(self.jobs.len() as u64) else { return };
        let timeout = self.choices.pick(&[-1, 0, 1, 1_000]);
        let job = &self.jobs[index as usize];
        let status = self.world.note(sparkle_ticket_wait(pointer(job.ticket), timeout));
        match status {
            SPARKLE_ERROR_TIMEOUT => return,
            SPARKLE_OK => self.world.verify(&job.buffers[1], &self.world.problems[job.problem].expected),
            // Another thread released the ticket or finalised the library, so the job may still be running.
            SPARKLE_ERROR_INVALID_HANDLE => {}
            _ => assert!(
                job.buffers[1].iter().all(|&value| value == CANARY),
                "{status:?}, but the output was written"
            ),
        }
        let Job { ticket, buffers, .. } = self.jobs.swap_remove(index as usize);
        if status == SPARKLE_ERROR_INVALID_HANDLE {
            return self.world.bury(buffers);
        }
        self.world.note(sparkle_ticket_release(pointer(ticket)));
        self.world.forget(Kind::Ticket, ticket);
    }

    fn look_at_ticket(&mut self) {
        let held = [(); 3].map(|()| self.handle(Kind::Ticket));
        let tickets = held.map(|it| pointer::<sparkle_ticket>(it.handle));
        let (mut done, mut index, timeout) = (7, 99, self.choices.pick(&[0, 1, -1]));
        // SAFETY: places for the answers, an array of three handles.
        unsafe {
            match self.below(4) {
                0 => drop(self.world.note(sparkle_ticket_poll(tickets[0], &mut done))),
                1 => drop(self.world.note(sparkle_ticket_cancel(tickets[0], &mut done))),
                2 => {
                    let count = self.below(4);
                    let array = if self.one_in(8) { null() } else { tickets.as_ptr() };
                    let status = sparkle_ticket_wait_any(array, count, timeout, &mut index);
                    assert_eq!(self.world.note(status) == SPARKLE_OK, index < count);
                }
                _ if self.one_in(3) => {
                    self.world.note(sparkle_ticket_release(tickets[0]));
                    self.world.forget(Kind::Ticket, held[0].handle);
                }
                _ => drop(self.world.note(sparkle_ticket_wait(tickets[0], timeout))),
            }
        }
    }

    fn acquire(&mut self) {
        let (pipeline, plan) = (self.handle(Kind::Pipeline), self.handle(Kind::Plan));
        // Waiting could last for ever, because this thread and all others may hold slots.
        let mut slot = null_mut();
        // SAFETY: a place for the handle.
        let status =
            unsafe { sparkle_slot_acquire(pointer(pipeline.handle), pointer(plan.handle), 0, &mut slot) };
        if self.world.note(status) == SPARKLE_OK {
            self.world.put(Kind::Slot, slot.addr(), plan.problem);
        }
    }

    /// Fills a slot, computes and compares. Other threads cannot take the slot meanwhile.
    fn use_slot(&mut self) {
        let number = self.below(1 << 20);
        let Some(Held { handle, problem }) = self.world.some(Kind::Slot, number, true) else { return };
        let _memory_stays = self.world.memory_of_slots.read().unwrap();
        let slot = pointer(handle);
        let (mut fill, mut result, mut ticket) = (null_mut(), null(), null_mut());
        let Problem { input, expected, .. } = &self.world.problems[problem];
        // SAFETY: the slot's memory is as long as its plan's input and output. It belongs to this thread while no job
        // runs in it. A slot that was finalised returns no memory.
        unsafe {
            let mut alive = self.world.note(sparkle_slot_memory(slot, &mut fill, &mut result)) == SPARKLE_OK;
            if alive {
                fill.copy_from_nonoverlapping(input.as_ptr(), input.len());
                alive = self.world.note(sparkle_slot_submit(slot, &mut ticket)) == SPARKLE_OK;
            }
            if alive {
                let status = self.world.note(sparkle_ticket_wait(ticket, -1));
                self.world.note(sparkle_ticket_release(ticket));
                alive = status == SPARKLE_OK
                    && self.world.note(sparkle_slot_memory(slot, null_mut(), &mut result)) == SPARKLE_OK;
            }
            if alive {
                self.world.verify(std::slice::from_raw_parts(result, expected.len()), expected);
            }
        }
        if self.one_in(2) {
            self.world.note(sparkle_slot_release(slot));
        } else {
            self.world.put(Kind::Slot, handle, problem);
        }
    }

    fn pipeline_figures(&mut self) {
        let pipeline = self.handle(Kind::Pipeline);
        let mut stats = sparkle_pipeline_stats { size: size_of::<sparkle_pipeline_stats>(), ..zeroed() };
        // SAFETY: the struct is as large as it says.
        self.world.note(unsafe { sparkle_pipeline_get_stats(pointer(pipeline.handle), &mut stats) });
        if self.one_in(3) {
            self.world.note(sparkle_pipeline_flush(pointer(pipeline.handle)));
        }
    }

    fn questions(&mut self) {
        let (mut count, index) = (0, self.below(5));
        let mut info = sparkle_device_info { size: size_of::<sparkle_device_info>(), ..zeroed() };
        let number = self.below(self.world.problems.len());
        let desc = self.desc(number);
        let (mut p, mut q) = (0, 0);
        // SAFETY: places for the answers; the structs are as large as they say.
        unsafe {
            self.world.note(sparkle_device_count(&mut count));
            assert_eq!(
                self.world.note(sparkle_device_describe(index, &mut info)) == SPARKLE_OK,
                index < count
            );
            self.world.note(sparkle_conv2d_output_size(&desc, &mut p, &mut q));
            self.world.note(sparkle_device_count(null_mut()));
        }
        assert_eq!(sparkle_version(), SPARKLE_VERSION_NUMBER);
    }

    fn texts(&mut self) {
        let number = self.below(self.world.problems.len());
        let desc = self.desc(number);
        let mut text = vec![0u8; self.below(3) * 20_000];
        let mut length = 0;
        // SAFETY: the text has the stated room; places for the answers.
        unsafe {
            let to = text.as_mut_ptr().cast::<c_char>();
            self.world.note(sparkle_shader_source(&desc, null(), to, text.len(), &mut length));
            sparkle_status_string(self.extreme() as i32);
        }
    }

    /// Calls of the reference interface, which uses GL devices only.
    fn reference(&mut self) {
        if !self.world.device.starts_with("gl:") {
            return;
        }
        let number = self.below(self.world.problems.len());
        let problem = &self.world.problems[number];
        match (self.below(6), &problem.reference) {
            (0, _) => assert_eq!(gpu_initialize_opengl(), 1),
            (1, _) if self.one_in(4) => gpu_cleanup_opengl(),
            (2, _) => {
                // SAFETY: the data has the stated length.
                let buffer =
                    unsafe { gpu_create_buffer(problem.input.as_ptr().cast(), problem.input.len() * 4) };
                if buffer.buffer_id != 0 {
                    let mut back = vec![CANARY; problem.input.len()];
                    // SAFETY: as above. Nothing is downloaded if another thread has cleaned up.
                    unsafe { gpu_download_buffer(buffer, back.as_mut_ptr().cast::<c_void>()) };
                    assert!(back == problem.input || back.iter().all(|&value| value == CANARY));
                    gpu_free_buffer(buffer);
                }
            }
            (_, Some(expected)) => {
                let d = &problem.desc;
                let [n, c, h, w, k, r, stride, pad] =
                    [d.n, d.c, d.h, d.w, d.k, d.r, d.stride_h, d.pad_h].map(|value| value as i32);
                let [p, q] = problem.output_sides();
                let mut output = vec![CANARY; expected.len()];
                let (input, weights) = (problem.input.as_ptr(), problem.weights.as_ptr());
                let wrong = i32::from(self.one_in(8));
                // SAFETY: the buffers are as long as the sizes say; inconsistent sizes are refused.
                let ms = unsafe {
                    let output = output.as_mut_ptr();
                    gpu_execute_conv2d_fortran(
                        input,
                        weights,
                        output,
                        n,
                        c,
                        h,
                        w,
                        k,
                        r,
                        stride,
                        pad,
                        p + wrong,
                        q,
                    )
                };
                assert!(ms >= 0.0 || wrong == 1, "{}", super::world::last_error());
                let status = if ms < 0.0 { SPARKLE_ERROR_INVALID_ARGUMENT } else { SPARKLE_OK };
                self.settle(status, &output, expected);
            }
            _ => assert!([0, 1].contains(&gpu_is_initialized())),
        }
        self.world.note(SPARKLE_OK);
    }

    fn rare(&mut self) {
        match self.below(12) {
            0 => drop(self.world.note(sparkle_set_num_threads([1, 2, 3, 0, -1][self.below(5)]))),
            1 => assert!(sparkle_get_num_threads() >= 1),
            3 if self.one_in(20) => self.world.finalize(),
            2 => {
                unsafe extern "C" fn ignore(_: i32, _: *const c_char, _: *mut c_void) {}
                let callback: sparkle_log_callback = if self.one_in(2) { Some(ignore) } else { None };
                // SAFETY: a function that lives as long as the program.
                self.world.note(unsafe { sparkle_set_log_callback(callback, null_mut()) });
            }
            _ => {}
        }
    }

    /// Waits for this thread's jobs.
    pub fn end(mut self) {
        for Job { ticket, buffers, problem } in std::mem::take(&mut self.jobs) {
            match self.world.note(sparkle_ticket_wait(pointer(ticket), -1)) {
                SPARKLE_OK => self.world.verify(&buffers[1], &self.world.problems[problem].expected),
                _ => self.world.bury(buffers),
            }
        }
    }
}

/// A struct of numbers, all zero.
fn zeroed<T: Copy>() -> T {
    // SAFETY: used only for the interface's structs of numbers, for which all bit patterns are valid.
    unsafe { std::mem::zeroed() }
}

fn same_problem(a: &sparkle_conv2d_desc, b: &sparkle_conv2d_desc) -> bool {
    let sizes = |d: &sparkle_conv2d_desc| {
        let shape = [d.n, d.c, d.h, d.w, d.k, d.r, d.s, d.stride_h, d.stride_w, d.pad_h, d.pad_w];
        (shape, [d.dilation_h, d.dilation_w, d.groups], [d.bias, d.relu])
    };
    sizes(a) == sizes(b)
}

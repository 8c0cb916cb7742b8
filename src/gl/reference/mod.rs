//! The reference interface: process-global state, and a context of the share group current on the calling thread.
//!
//! `ffi` calls it. It is the only module that works on the caller's thread: existing programs make GL calls of their
//! own between calls of this interface, on the program that [`program`] names and with their own buffers. It may use
//! every other folder of `gl` except `lab` and `pipeline`. Each calling thread gets a context of one share group,
//! which stays current on it. The program belongs to the group and is the same in all of them. One call runs at a
//! time.
//!
//! A thread's first call makes its context. The context ends with the thread, or at its first call after [`cleanup`].
//! The state after [`execute`] is part of the contract: the program is in use, bindings 0 to 2 are empty, and the
//! parameters are at binding 3. A caller that then dispatches the program finds its parameters bound; before the first
//! call, a block of zeros. The kernel writes NaN if they cannot be the parameters of the bound buffers
//! (`glsl/conv_reference.comp`).

pub mod queued;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::allocate;
use crate::config::config;
use crate::error::{Error, Result};
use crate::gl::convolution;
use crate::gl::convolution::Buffered;
use crate::gl::convolution::fallback;
use crate::gl::device::discovery;
use crate::gl::device::engine::Engine;
use crate::gl::device::registry;
use crate::gl::driver::api;
use crate::gl::driver::context::{Context, ShareGroup, is_terminated};
use crate::gl::driver::exit::{self, Inside};
use crate::gl::driver::forgotten::{self, Member};
use crate::gl::driver::resource::{Buffer, Program};
use crate::gl::execution::programs::Programs;
use crate::gl::reference::queued::Recent;
use crate::gl::tune;
use crate::problem::Conv2d;
use crate::shader::pass_plan::ShaderSource;
use crate::shader::single::{ANY_GRID, iterations_of};
use crate::shader::source::{CONV_REFERENCE, reference_for_callers};

/// The state that the process shares.
struct State {
    group: Arc<ShareGroup>,
    /// Keeps the device open while the interface is in use.
    engine: Arc<Engine>,
    /// The program that callers see. It never runs [`execute`], which sets uniforms: this one's must stay 0.
    program: Option<Named>,
}

impl State {
    fn new(engine: Arc<Engine>) -> Result<Self> {
        Ok(State { group: engine.share_group()?, engine, program: None })
    }
}

/// A program by its GL name, which is valid in all contexts of the group.
#[derive(Clone, Copy)]
struct Named {
    name: u32,
    /// Whether it came from the caller, not from `glsl/`.
    custom: bool,
    /// Iterations of a tile, if this library generated the text.
    iterations: Option<usize>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// The parameter block at index 3 between calls.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct LeftOver {
    params: fallback::ReferenceParams,
    /// [`LEFT_BY_A_CALL`] tells the kernel that these are a call's parameters, not those of the dispatch that reads
    /// them.
    mark: i32,
}

/// As in `glsl/conv_reference.comp`.
const LEFT_BY_A_CALL: i32 = 0x4c45_4654;

/// The state of one thread.
struct Thread {
    /// A [`LeftOver`], bound at index 3 between calls.
    params: Buffer,
    /// The convolution whose parameters these are, after a call.
    last: Option<Conv2d>,
    /// Convolutions queued on the caller's buffers.
    recent: Recent,
    programs: Programs,
    member: Member,
    /// Held while the fields above are dropped, so that no other thread dispatches. None once the process is ending.
    turn: Option<MutexGuard<'static, ()>>,
    inside: Option<Inside>,
}

impl Thread {
    /// Binds the parameters of no convolution, so that a caller that dispatches the program before the first call
    /// gets NaN.
    fn new(context: Rc<Context>) -> Result<Self> {
        let nothing = <LeftOver as bytemuck::Zeroable>::zeroed();
        let params = Buffer::with_data(&context, bytemuck::bytes_of(&nothing))?;
        bind_params(&context, &params)?;
        Ok(Thread {
            params,
            last: None,
            recent: Recent::default(),
            programs: Programs::new(context),
            member: Member::new(),
            turn: None,
            inside: None,
        })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.inside = exit::enter().ok();
        // If the thread ends with another context current, the objects must not be deleted from that one.
        let context = self.programs.context();
        if context.group().is_gone() {
            return;
        }
        self.turn = forgotten::turn().ok();
        if !context.is_current() {
            // If this fails, `resource::delete` leaves the objects alone.
            let _ = context.make_current();
        }
    }
}

thread_local! {
    static THREAD: RefCell<Option<Thread>> = const { RefCell::new(None) };
}

/// Locks the process's state.
///
/// # Errors
/// [`Error::Forked`] in the child of a process that used OpenGL: a thread that does not exist here may hold the lock.
fn state() -> Result<MutexGuard<'static, Option<State>>> {
    if discovery::is_forked() {
        return Err(Error::Forked { what: "the OpenGL context".to_owned() });
    }
    exit::lock(&STATE)
}

fn not_initialized(what: &'static str) -> Error {
    Error::invalid(what, "called before gpu_initialize_opengl", "a call after it")
}

/// Makes a context current on the calling thread, on the device that `SPARKLE_DEVICE` names or else the first usable
/// one. That may be a software renderer: this interface asks for OpenGL. May be called again.
///
/// # Errors
/// The reason why there is no device or no context.
pub fn initialize() -> Result<()> {
    let mut state = state()?;
    ensure_state(&mut state)?;
    on_thread(state, |_, _| Ok(()))
}

/// As [`initialize`], on a test's engine.
#[cfg(test)]
pub fn initialize_on(engine: Arc<Engine>) -> Result<()> {
    let mut state = state()?;
    *state = Some(State::new(engine)?);
    on_thread(state, |_, _| Ok(()))
}

/// Undoes [`initialize`]: deletes the program and destroys the calling thread's context. Contexts of other threads
/// end with their threads, or at their next call.
pub fn cleanup() {
    if let Ok(mut state) = state() {
        end(&mut state);
    }
}

/// Whether [`initialize`] has succeeded and [`cleanup`] has not been called since.
pub fn is_initialized() -> bool {
    state().is_ok_and(|state| state.is_some())
}

/// Makes the reference kernel the current program. Needs [`initialize`].
///
/// # Errors
/// The compiler's log, or the reason why there is no context.
pub fn compile() -> Result<()> {
    let state = state()?;
    if state.is_none() {
        return Err(not_initialized("gpu_compile_conv2d_shader"));
    }
    on_thread(state, |state, thread| reference_program(state, thread).map(drop))
}

/// The program's GL name; 0 if there is none.
pub fn program() -> u32 {
    current().map_or(0, |program| program.name)
}

/// Whether a program is the reference kernel that [`program`] names, not a caller's program.
pub fn is_reference_program(program: u32) -> bool {
    current().is_some_and(|it| it.name == program && !it.custom)
}

fn current() -> Option<Named> {
    state().ok()?.as_ref()?.program
}

/// Runs one convolution on the current program, and initialises and compiles first if necessary. Returns milliseconds.
///
/// # Errors
/// The device's failure; `output` is then unchanged.
pub fn execute(problem: &Conv2d, input: &[f32], weights: &[f32], output: &mut [f32]) -> Result<f64> {
    execute_custom(0, problem, input, weights, output)
}

/// As [`execute`], on the program of that name in the group; 0 means the current one.
///
/// # Errors
/// As [`execute`].
pub fn execute_custom(
    program: u32,
    problem: &Conv2d,
    input: &[f32],
    weights: &[f32],
    output: &mut [f32],
) -> Result<f64> {
    let mut state = state()?;
    ensure_state(&mut state)?;
    on_thread(state, |state, thread| {
        let current = match state.program {
            None if program == 0 => reference_program(state, thread)?,
            Some(current) if program == 0 || program == current.name => current,
            _ => Named { name: program, custom: true, iterations: None },
        };
        let mut computed = allocate::zeroed(output.len(), "the output")?;
        let prepared = if current.custom {
            check_iterations(thread.programs.context(), current.iterations)?;
            Buffered::custom(thread.programs.context(), (current.name, false), problem, weights)?
        } else {
            tune::prepare(&mut thread.programs, tune::policy(problem, config()), problem, weights, None)?
        };
        let ran = prepared.run(input, &mut computed)?;
        drop(prepared);
        leave_bound(thread, current.name, problem)?;
        output.copy_from_slice(&computed);
        Ok(ran.time.as_secs_f64() * 1e3)
    })
}

/// Runs `source`, built at its first use on this thread. Needs [`initialize`].
///
/// # Errors
/// The compiler's log; else as [`execute`].
pub fn execute_source(
    source: &str,
    problem: &Conv2d,
    input: &[f32],
    weights: &[f32],
    output: &mut [f32],
) -> Result<f64> {
    let state = state()?;
    if state.is_none() {
        return Err(not_initialized("gpu_execute_conv2d_with_shader"));
    }
    on_thread(state, |state, thread| {
        let context = thread.programs.context().clone();
        let text = ShaderSource {
            name: "the caller's shader".to_owned(),
            text: allocate::text(source, "a shader")?,
        };
        let program = thread.programs.generated(&text)?;
        check_iterations(&context, iterations_of(source))?;
        let any_grid = source.lines().any(|line| line == ANY_GRID);
        let prepared = Buffered::custom(&context, (program.name(), any_grid), problem, weights)?;
        let mut computed = allocate::zeroed(output.len(), "the output")?;
        let ran = prepared.run(input, &mut computed)?;
        drop(prepared);
        leave_bound(thread, state.program.map_or(0, |program| program.name), problem)?;
        output.copy_from_slice(&computed);
        Ok(ran.time.as_secs_f64() * 1e3)
    })
}

/// Builds `source` and makes it the current program; the old one is deleted. Returns its GL name. Needs [`initialize`].
///
/// # Errors
/// The compiler's log; then nothing has changed.
pub fn compile_custom(source: &str) -> Result<u32> {
    let state = state()?;
    if state.is_none() {
        return Err(not_initialized("gpu_compile_custom_shader"));
    }
    on_thread(state, |state, thread| {
        let context = thread.programs.context();
        let program = Program::build(context, "the caller's shader", source)?;
        let custom = Named { name: 0, custom: true, iterations: iterations_of(source) };
        replace_program(state, context, program, custom).map(|program| program.name)
    })
}

/// Queues `problem` between the caller's buffer objects `[input, weights, output]`, with a better kernel than the
/// reference program, which `program` must be. Without `problem` it is that of the last call on this thread, if its
/// parameters are bound. Leaves the same state as a caller's dispatch of that program. Needs [`initialize`].
///
/// # Errors
/// [`Error::Unsupported`] if there is no better kernel; [`Error::InvalidArgument`] for another program, for unknown
/// parameters, or for buffers that do not fit them; what GL reports. The caller may then dispatch `program`.
pub fn enqueue(program: u32, problem: Option<&Conv2d>, buffers: [u32; 3]) -> Result<()> {
    let state = state()?;
    if state.is_none() {
        return Err(not_initialized("gpu_enqueue_conv2d"));
    }
    on_thread(state, |state, thread| {
        if !state.program.is_some_and(|current| current.name == program && !current.custom) {
            return Err(Error::invalid("program", program, "the program of gpu_compile_conv2d_shader"));
        }
        let context = thread.programs.context().clone();
        let api = context.api();
        let params = api.get_integer_indexed(api::SHADER_STORAGE_BUFFER_BINDING, convolution::PARAMS) as u32;
        let left = thread.last.filter(|_| params == thread.params.name());
        let (problem, exactly) = problem.map_or((left, true), |problem| (Some(*problem), false));
        let problem = problem.ok_or_else(|| {
            Error::invalid(
                "params",
                "NULL",
                "the parameters, or those that a call left behind bound at index 3",
            )
        })?;
        let queued = thread.recent.enqueue(&mut thread.programs, &problem, buffers, exactly);
        let [input, weights, output] = buffers;
        let bound =
            [(convolution::INPUT, input), (convolution::WEIGHTS, weights), (convolution::OUTPUT, output)];
        for (index, buffer) in bound.into_iter().chain([(convolution::PARAMS, params)]) {
            api.bind_buffer_base(api::SHADER_STORAGE_BUFFER, index, buffer);
        }
        api.bind_buffer(api::SHADER_STORAGE_BUFFER, 0);
        api.use_program(program);
        queued.and_then(|()| context.check("glUseProgram"))
    })
}

/// Makes a buffer object of `bytes` bytes, filled from `data` if given, and returns its GL name. The caller owns it.
/// Needs [`initialize`].
///
/// # Errors
/// [`Error::OutOfMemory`], or what GL reports.
pub fn create_buffer(data: Option<&[u8]>, bytes: usize) -> Result<u32> {
    on_initialized("gpu_create_buffer", |context| {
        let buffer = Buffer::new(context, bytes)?;
        data.map_or(Ok(()), |data| buffer.upload(data))?;
        Ok(buffer.into_name())
    })
}

/// Copies a buffer object's beginning into `into`, after all shaders that write it.
///
/// # Errors
/// What GL reports, for instance that the buffer is smaller; `into` is then unchanged.
pub fn download_buffer(buffer: u32, into: &mut [u8]) -> Result<()> {
    on_initialized("gpu_download_buffer", |context| {
        let mut read = allocate::zeroed(into.len(), "what is read from a buffer")?;
        context.api().memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
        context.check("glMemoryBarrier")?;
        let buffer = Buffer::adopt(context, buffer, into.len());
        let result = buffer.read(&mut read);
        buffer.into_name();
        result.map(|()| into.copy_from_slice(&read))
    })
}

/// Deletes a buffer object.
///
/// # Errors
/// [`Error::InvalidArgument`] without [`initialize`].
pub fn free_buffer(buffer: u32) -> Result<()> {
    on_initialized("gpu_free_buffer", |context| {
        drop(Buffer::adopt(context, buffer, 0));
        context.check("glDeleteBuffers")
    })
}

/// Sets the source of the caller's compute shader object to the reference kernel. Needs [`initialize`].
///
/// # Errors
/// What GL reports, for instance that there is no such shader.
pub fn set_shader_source(shader: u32) -> Result<()> {
    on_initialized("set_conv2d_shader_source", |context| {
        context.api().shader_source(shader, &reference_for_callers());
        context.check("glShaderSource")
    })
}

/// Releases the program, the calling thread's context and the device.
fn end(state: &mut Option<State>) {
    let Some(ended) = state.take() else { return };
    let inside = exit::enter();
    if let Some(program) = ended.program.filter(|_| inside.is_ok()) {
        delete_program(&ended.group, program.name);
    }
    // A thread that is ending has dropped its context already.
    let _ = THREAD.try_with(RefCell::take);
}

/// Opens the device, unless it is open.
fn ensure_state(state: &mut Option<State>) -> Result<()> {
    if state.is_some() {
        return Ok(());
    }
    let engine = match config().device.as_deref().and_then(|device| device.strip_prefix("gl:")) {
        Some(index) => registry::engine(index.parse().map_err(|_| {
            Error::invalid("SPARKLE_DEVICE", format_args!("\"gl:{index}\""), "gl:N, N from 0 up")
        })?)?,
        None => registry::engine(0)?,
    };
    *state = Some(State::new(engine)?);
    Ok(())
}

/// Runs `job` with the calling thread's context current; makes the context if necessary. `state` is set.
fn on_thread<T>(
    mut guard: MutexGuard<Option<State>>,
    job: impl FnOnce(&mut State, &mut Thread) -> Result<T>,
) -> Result<T> {
    let state = guard.as_mut().expect("set by the caller");
    let inside = exit::enter()?;
    let outcome = THREAD.try_with(|slot| {
        let slot = &mut *slot.borrow_mut();
        let mut made = make_current(slot, &state.group);
        if made.as_ref().is_err_and(is_terminated) {
            // No work has begun, so a new group can replace this one.
            *slot = None;
            *state = State::new(state.engine.clone())?;
            made = make_current(slot, &state.group);
        }
        made?;
        let thread = slot.as_mut().expect("just made");
        let context = thread.programs.context().clone();
        // Since the last call, the caller may have used the context.
        context.forget_errors();
        context.api().forget_program();
        let _turn = forgotten::turn()?;
        let result = thread.member.remember(&context).and_then(|()| job(state, thread));
        Ok((result, context.take_messages()))
    });
    // In destructors at a thread's end its context is gone, and there is no place for another.
    let outcome =
        outcome.unwrap_or_else(|_| Err(Error::Ending { what: "the calling thread is ending".to_owned() }));
    let (result, messages) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            // Without a context no work has begun, unless another thread has one.
            if guard.as_ref().is_some_and(|state| state.program.is_none()) {
                *guard = None;
            }
            return Err(error);
        }
    };
    if matches!(result, Err(Error::DeviceLost { .. })) {
        // A lost device: nothing can be used again, and the next call starts over.
        end(&mut guard);
    }
    drop((guard, inside));
    // A log callback may call this interface.
    messages.iter().for_each(|(level, text)| crate::log::message(*level, format_args!("{text}")));
    result
}

/// Makes the calling thread's context of `group` current; creates it if necessary.
fn make_current(slot: &mut Option<Thread>, group: &Arc<ShareGroup>) -> Result<()> {
    if slot.as_ref().is_some_and(|thread| !Arc::ptr_eq(thread.programs.context().group(), group)) {
        *slot = None;
    }
    let thread = match slot {
        Some(thread) => thread,
        None => slot.insert(Thread::new(group.context()?)?),
    };
    let context = thread.programs.context();
    if context.is_current() { Ok(()) } else { context.make_current() }
}

/// As [`on_thread`], for calls that need [`initialize`] and only the context.
fn on_initialized<T>(what: &'static str, job: impl FnOnce(&Rc<Context>) -> Result<T>) -> Result<T> {
    let state = state()?;
    if state.is_none() {
        return Err(not_initialized(what));
    }
    on_thread(state, |_, thread| job(thread.programs.context()))
}

/// The reference program, built unless it is the current one.
fn reference_program(state: &mut State, thread: &Thread) -> Result<Named> {
    match state.program {
        Some(program) if !program.custom => Ok(program),
        _ => {
            let context = thread.programs.context();
            let program = Program::build(context, CONV_REFERENCE.name, &reference_for_callers())?;
            replace_program(state, context, program, Named { name: 0, custom: false, iterations: None })
        }
    }
}

/// Refuses a program whose tile takes more iterations than the device's loops make: its results would be NaN.
fn check_iterations(context: &Context, iterations: Option<usize>) -> Result<()> {
    let limit = context.group().max_iterations();
    let Some(iterations) = iterations.filter(|&iterations| iterations > limit) else { return Ok(()) };
    let what =
        format!("a shader whose loops make {iterations} iterations for a tile; its loops make {limit}");
    Err(Error::Unsupported { device: context.device().to_owned(), what })
}

/// Makes `program`, which `named` describes, the current one and deletes the old one.
fn replace_program(state: &mut State, context: &Context, program: Program, named: Named) -> Result<Named> {
    // Finishes before another context of the group may use the program.
    context.api().finish();
    context.check("glFinish")?;
    let named = Named { name: program.into_name(), ..named };
    if let Some(old) = state.program.replace(named) {
        context.api().delete_program(old.name);
    }
    Ok(named)
}

/// Deletes the group's program from the calling thread's context, or from a temporary one if the thread has none.
fn delete_program(group: &Arc<ShareGroup>, name: u32) {
    // Contexts that use the program keep it until they end.
    let delete = move |context: &Context| context.api().delete_program(name);
    let deleted = THREAD.try_with(|slot| {
        let slot = slot.borrow();
        let context = slot.as_ref().map(|thread| thread.programs.context())?;
        let ours =
            Arc::ptr_eq(context.group(), group) && (context.is_current() || context.make_current().is_ok());
        ours.then(|| delete(context))
    });
    if deleted.ok().flatten().is_none() {
        let group = group.clone();
        // If this fails, too, the program goes with the group's last context.
        let work = move || {
            let inside = exit::enter();
            drop(inside.and_then(|_inside| group.context().map(|context| delete(&context))));
        };
        let _ = crate::thread::spawn("gl", "cleanup", work).map(JoinHandle::join);
    }
}

/// Restores the state of the contract: parameters at binding 3, the program in use.
fn leave_bound(thread: &mut Thread, program: u32, problem: &Conv2d) -> Result<()> {
    let context = thread.programs.context();
    let block = LeftOver { params: fallback::reference_params(problem), mark: LEFT_BY_A_CALL };
    thread.last = None;
    thread.params.upload(bytemuck::bytes_of(&block))?;
    thread.last = Some(*problem);
    bind_params(context, &thread.params)?;
    context.api().use_program(program);
    context.check("glUseProgram")
}

/// Binds `params` where the program reads its parameters.
fn bind_params(context: &Context, params: &Buffer) -> Result<()> {
    params.bind(convolution::PARAMS);
    // Binding to an index binds the general target, too.
    context.api().bind_buffer(api::SHADER_STORAGE_BUFFER, 0);
    context.check("glBindBufferBase")
}

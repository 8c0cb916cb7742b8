//! Kernels of the kernel language: compiled from text, launched on a device.

use std::sync::Arc;

use super::Device;
use super::choice::{EngineChoice, fall_back, fastest};
use super::record::{self, Why};
use crate::allocate;
use crate::backend::{Backend, DeviceMemory, Guard, Run};
use crate::cpu::{self, Coverage};
use crate::error::{Error, Result};
use crate::float_env::FloatEnv;
use crate::kernel::bind::{Launch, Resident};
use crate::kernel::describe::{self, Description};
use crate::kernel::{self, diagnostics, tree};
use crate::memory::roofline::{self, Work};
use crate::report::Timing;

pub use crate::cpu::Checked;
pub use crate::kernel::bind::Arg;

/// A kernel of the kernel language, for any device. Cheap to clone.
///
/// ```
/// use sparkle::{Device, Kernel};
/// let text = "
///     !@kernel
///     subroutine saxpy(i, n, a, x, y)
///       use iso_fortran_env, only: int32, real32
///       integer(int32), value :: i, n
///       real(real32), value :: a
///       real(real32), intent(in) :: x(0:n-1)
///       real(real32), intent(inout) :: y(0:n-1)
///       y(i) = a * x(i) + y(i)
///     end subroutine
/// ";
/// let kernel = Kernel::from_source(text, "saxpy")?;
/// let (x, mut y) = ([1.0f32, 2.0, 3.0], [10.0f32, 20.0, 30.0]);
/// let device = Device::open("cpu")?;
/// let run = device.launch(&kernel, &[3], &mut [3.into(), 2.0f32.into(), (&x).into(), (&mut y).into()])?;
/// assert_eq!(y, [12.0, 24.0, 36.0]);
/// assert_eq!(&*run.device, "cpu");
/// # Ok::<(), sparkle::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Kernel {
    unit: Arc<tree::Unit>,
    index: usize,
    warnings: Arc<str>,
}

/// A compiled text: its kernels and the messages about it.
pub(super) struct Source {
    pub unit: Option<tree::Unit>,
    pub messages: String,
}

/// Compiles on a thread of the library, because the caller's may have little stack and another floating-point
/// environment.
pub(super) fn compile(text: &[u8], file: &str) -> Result<Source> {
    let (text, name) =
        (allocate::copied(text, "the source of a kernel")?, allocate::text(file, "a file's name")?);
    let body = move || {
        let compiled = kernel::compile(&text)?;
        let messages = diagnostics::render_all(&compiled.diagnostics, &name, &text)?;
        Ok(Source { unit: compiled.unit, messages })
    };
    let thread = crate::thread::spawn("host", "compiler", body)?;
    thread.join().map_err(|panic| {
        let text = crate::thread::panic_text(&*panic);
        Error::Internal(format!("the compiler of kernels panicked: {text}"))
    })?
}

impl Kernel {
    /// Compiles a source and takes the kernel `name` of it.
    ///
    /// # Errors
    /// [`Error::Source`] with the compiler's messages; [`Error::InvalidArgument`] if there is no such kernel, with the
    /// names of those that there are; [`Error::OutOfMemory`].
    pub fn from_source(text: &str, name: &str) -> Result<Self> {
        let kernels = Kernel::all_from_source(text.as_bytes(), "kernel source")?;
        let find = |is: &dyn Fn(&str) -> bool| kernels.iter().find(|it| is(it.name())).cloned();
        let found = find(&|it| it == name).or_else(|| find(&|it| it.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| {
            let names: Vec<_> = kernels.iter().take(20).map(Kernel::name).collect();
            let expected = match names.is_empty() {
                true => "a source with kernels".to_owned(),
                false => format!("one of: {}", names.join(", ")),
            };
            Error::invalid("kernel name", name, expected)
        })
    }

    /// Compiles a source, and gives its kernels in order. `file` names the source in messages.
    ///
    /// # Errors
    /// [`Error::Source`] with the compiler's messages; [`Error::OutOfMemory`].
    pub fn all_from_source(text: &[u8], file: &str) -> Result<Vec<Self>> {
        let source = compile(text, file)?;
        let Some(unit) = source.unit else {
            return Err(Error::Source { file: file.to_owned(), messages: source.messages });
        };
        let (unit, warnings): (_, Arc<str>) = (Arc::new(unit), source.messages.into());
        let kernels = 0..unit.kernels.len();
        let made = kernels.map(|index| Ok(Kernel { unit: unit.clone(), index, warnings: warnings.clone() }));
        allocate::collected(made, "kernels")
    }

    /// Its name as declared.
    pub fn name(&self) -> &str {
        &self.tree().name
    }

    /// The compiler's warnings about its source, as text; empty if there are none.
    pub fn warnings(&self) -> &str {
        &self.warnings
    }

    /// Its arguments with types, and what else a host needs to know.
    pub fn description(&self) -> Description {
        describe::kernel(self.tree())
    }

    /// Its checked tree.
    pub fn tree(&self) -> &tree::Kernel {
        &self.unit.kernels[self.index]
    }

    /// Computes a launch slowly, on one thread of the CPU, and looks for faults: two points that access one element
    /// without order, accesses outside of an array, and variables that are read before they have a value. `docs/kernel.md`
    /// says what counts. The arrays have the results of a launch afterwards; accesses outside of them do nothing.
    ///
    /// # Errors
    /// As [`Device::launch`]. [`Error::InvalidArgument`] for a [`Buffer`](super::Buffer); [`Error::Unsupported`] for more than
    /// 2^32 - 2 points, and for calls that are nested too deeply; [`Error::OutOfMemory`]. What is wrong with the kernel is
    /// among [`Checked::messages`].
    pub fn check(&self, extents: &[usize], args: &mut [Arg<'_>]) -> Result<Checked> {
        cpu::check_kernel(&Launch::new(&self.unit, self.index, extents, args)?, Coverage::All)
    }

    /// Computes at least `points` evenly spread points of a launch, or all, and counts their operations. Nothing is looked
    /// for. Arrays are written, and results of reductions are not.
    ///
    /// # Errors
    /// As [`Kernel::check`].
    pub fn count_operations(&self, extents: &[usize], args: &mut [Arg<'_>], points: u64) -> Result<Checked> {
        cpu::check_kernel(&Launch::new(&self.unit, self.index, extents, args)?, Coverage::Sample(points))
    }

    /// The checked file that it belongs to.
    pub fn unit(&self) -> &Arc<tree::Unit> {
        &self.unit
    }
}

/// The work of a launch, for the choice of a device. Loops count as one iteration: their trip counts are unknown.
fn work(launch: &Launch<'_>) -> Work {
    let points = u64::try_from(launch.points()).unwrap_or(u64::MAX);
    let operations = launch.kernel().code.expressions.len() as u64;
    let (mut upload, mut download) = (0u64, 0u64);
    let arrays = launch.buffers().iter().enumerate();
    for (slot, elements) in arrays.filter(|(slot, _)| launch.resident(*slot).is_none()) {
        let bytes = elements.bytes() as u64;
        upload = upload.saturating_add(if launch.reads(slot) { bytes } else { 0 });
        download = download.saturating_add(if launch.writes(slot) { bytes } else { 0 });
    }
    let (flops, bytes) = (points.saturating_mul(operations), upload.saturating_add(download));
    Work { flops, bytes, upload, download }
}

/// The engine of the first buffer among the arguments of a launch.
pub(super) fn first_owner(launch: &Launch<'_>) -> Option<usize> {
    (0..launch.buffers().len()).find_map(|slot| Some(launch.resident(slot)?.owner.0))
}

/// Locks the buffers of a launch, each once, except those that are `held` already.
///
/// # Errors
/// [`Error::InUse`] that names the argument; [`Error::OutOfMemory`].
pub(super) fn lock<'a>(launch: &Launch<'a>, held: &[&DeviceMemory]) -> Result<Vec<Guard<'a>>> {
    let slots = 0..launch.buffers().len();
    let residents = || slots.clone().filter_map(|slot| Some((slot, launch.resident(slot)?)));
    let mut guards = Vec::new();
    for (slot, resident) in residents() {
        let same = |(_, other): &(usize, Resident<'_>)| other.identity() == resident.identity();
        if residents().take_while(|(other, _)| *other < slot).any(|it| same(&it)) {
            continue;
        }
        let writes = residents().any(|it| same(&it) && launch.writes(it.0));
        let memory: &'a DeviceMemory = resident
            .memory
            .downcast_ref()
            .ok_or_else(|| Error::Internal("a buffer that is none".to_owned()))?;
        if held.iter().any(|it| std::ptr::eq(*it, memory)) {
            continue;
        }
        let called = if launch.kernel().is_epilogue { "epilogue" } else { "kernel" };
        let guard =
            memory.lock(writes, || format!("the buffer of {called} argument \"{}\"", launch.name(slot)))?;
        allocate::push(&mut guards, guard, "the locks of a launch")?;
    }
    Ok(guards)
}

/// The result of a launch on buffers that has no points. Nothing runs, unless a reduction ends in the host's memory.
fn without_points(launch: &Launch<'_>, backend: &Arc<dyn Backend>) -> Result<Run> {
    let is_host =
        (0..launch.buffers().len()).all(|slot| launch.resident(slot).is_none_or(|it| is_of_host(&it)));
    let (kernel, timing) = match (launch.kernel().reductions.is_empty(), is_host) {
        (true, _) => (launch.kernel().name.as_str().into(), Timing::default()),
        (false, true) => cpu::open().launch(launch)?,
        (false, false) => {
            let what = "reductions of no points into buffers".to_owned();
            return Err(Error::Unsupported { device: backend.id().to_owned(), what });
        }
    };
    Ok(Run::new(backend.shared_id(), kernel, timing, None))
}

/// Whether a buffer is memory of the host.
fn is_of_host(resident: &Resident<'_>) -> bool {
    let memory: Option<&DeviceMemory> = resident.memory.downcast_ref();
    memory.is_some_and(|memory| memory.engine().host().is_some())
}

impl Device {
    /// Runs a kernel once for each point of an index space. There is an extent for each of its dimensions, and an
    /// argument for each dummy except the index arguments: a scalar, an array, or a [`Buffer`](super::Buffer), which is used
    /// in place on its device.
    ///
    /// `auto` chooses as for convolutions: a device that cannot run the kernel leaves it to the CPU, and
    /// [`Run::fallback`] holds the reason. With a buffer it is the buffer's device, and errors are returned. Without
    /// points the CPU answers, and only results of reductions change.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the argument: a wrong number of extents or arguments, a wrong type, an
    /// array that is too short, one that is written and overlaps another one, a buffer of another device. Nothing has run
    /// then. [`Error::ContentsLost`] for a buffer that has no contents. Or the device's failure; arrays are then untouched,
    /// and buffers that the kernel writes may have lost their contents.
    pub fn launch(&self, kernel: &Kernel, extents: &[usize], args: &mut [Arg<'_>]) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.launch_inside(kernel, extents, args)
    }

    /// [`Device::launch`] for a caller that has already entered the library's floating-point environment.
    ///
    /// # Errors
    /// As [`Device::launch`].
    pub(crate) fn launch_inside(
        &self,
        kernel: &Kernel,
        extents: &[usize],
        args: &mut [Arg<'_>],
    ) -> Result<Run> {
        let (launch, mut why) = (Launch::new(&kernel.unit, kernel.index, extents, args)?, Why::default());
        let result = self.launch_chosen(&launch, &mut why);
        record::launch(&launch, &why, &result);
        result
    }

    /// Runs a checked launch, and says why on that device.
    fn launch_chosen(&self, launch: &Launch<'_>, why: &mut Why) -> Result<Run> {
        let on = |backend: &Arc<dyn Backend>, fallback: Option<Arc<str>>| {
            let (kernel, timing) = backend.launch(launch)?;
            Ok(Run::new(backend.shared_id(), kernel, timing, fallback))
        };
        if let Some(owner) = first_owner(launch) {
            *why = Why::OfBuffers;
            let missing = || Error::Internal("the device of a buffer is none of the engines".to_owned());
            let Some(backend) = self.engine_of(owner) else {
                // Of an engine that was opened before the library was finalised, or that has a name of its own.
                return launch.check_owner((0, self.id())).and_then(|()| Err(missing()));
            };
            launch.check_owner(Device::owner(backend))?;
            let _locks = lock(launch, &[])?;
            return if launch.points() == 0 { without_points(launch, backend) } else { on(backend, None) };
        }
        if launch.points() == 0 {
            *why = Why::Empty;
            let cpu: Arc<dyn Backend> = cpu::open();
            return on(&cpu, None);
        }
        match &self.choice {
            EngineChoice::Fixed(backend) => {
                *why = Why::Named;
                on(backend, None)
            }
            EngineChoice::Auto { cpu, gpus, .. } => {
                let gpu;
                (gpu, *why) = fastest(cpu, gpus, work(launch));
                match gpu {
                    None => on(cpu, None),
                    Some(gpu) => on(gpu, None).or_else(|error| on(cpu, Some(fall_back(gpu, error)?))),
                }
            }
            EngineChoice::Multi(multi) => {
                *why = Why::BestOfSeveral;
                multi.on_one(|hierarchy| roofline::seconds(hierarchy, work(launch)), on)
            }
        }
    }
}

//! A kernel's programs on a context, with the places of their uniforms.

use std::rc::Rc;

use crate::allocate;
use crate::error::{Error, Result};
use crate::gl::driver::capabilities::Capabilities;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Program;
use crate::gl::execution::programs::Programs;
use crate::kernel::bind::Launch;
use crate::kernel::glsl::{self, Glsl, Options, Parameters, Version};
use crate::kernel::tree::{ArgumentKind, Kernel, LocalSize, Value};
use crate::log::Level;
use crate::shader::iterations::{MAX_PROBED, safe_limit};
use crate::shader::pass_plan::ShaderSource;

use super::limits;
use super::pace::{Pace, Paces, bits};

/// What `local_size=auto` means, for 1, 2 and 3 dimensions. Each has 256 invocations, which every device runs: enough to
/// hide memory's latency, few enough that a small index space spreads over all compute units.
pub const AUTO_LOCAL_SIZES: [[u32; 3]; 3] = [[256, 1, 1], [16, 16, 1], [8, 8, 4]];

/// A uniform's location; none if the compiler removed it.
pub type Location = Option<u32>;

/// Points of a launch from which on an invocation computes several of them. Devices start fewer than a workgroup in a
/// nanosecond: on an H200 a saxpy of 2^27 points took twice the time with a point each.
const MANY_POINTS: u128 = 1 << 22;

/// How the points of a launch are dealt to invocations, where the kernel leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dealing {
    /// One point each.
    Single,
    /// [`Dealing::POINTS`] points each.
    Several,
    /// [`Dealing::STREAMED_POINTS`] points at a time, by as many workgroups of [`Dealing::STREAMED_THREADS`] as run at once.
    Streamed,
}

impl Dealing {
    const POINTS: u32 = 4;
    /// Measured on an H200, as the two below: a saxpy of 2^27 elements moved 2,900 GB/s with [`Dealing::Several`], 3,680
    /// with workgroups that stay, and 3,920 of 4,150 with the stores of eight points after their loads. Workgroups of
    /// 512 invocations reached 3,830.
    const STREAMED_POINTS: u32 = 8;
    const STREAMED_THREADS: u32 = 1024;
    /// Invocations for each compute unit: twice as many as are resident.
    const STREAMED_THREADS_PER_UNIT: u32 = 4096;

    /// The dealing of a launch on a device.
    pub fn of(context: &Context, launch: &Launch<'_>) -> Self {
        if launch.points() < MANY_POINTS || ends_loops(context, launch) {
            return Dealing::Single;
        }
        let capabilities = context.capabilities();
        let fits = capabilities.max_threads >= Self::STREAMED_THREADS as usize;
        let is_known = streaming_groups(capabilities).is_some();
        if fits && is_known && glsl::can_stream(launch.kernel()) {
            Dealing::Streamed
        } else {
            Dealing::Several
        }
    }

    fn points(self) -> u32 {
        match self {
            Dealing::Single => 1,
            Dealing::Several => Self::POINTS,
            Dealing::Streamed => Self::STREAMED_POINTS,
        }
    }
}

/// The workgroups of a streamed launch, if the device tells its compute units.
pub fn streaming_groups(capabilities: &Capabilities) -> Option<u32> {
    let units = capabilities.architecture().compute_units?;
    Some(units.saturating_mul(Dealing::STREAMED_THREADS_PER_UNIT / Dealing::STREAMED_THREADS))
}

/// Whether the device may end loops of the kernel early.
fn ends_loops(context: &Context, launch: &Launch<'_>) -> bool {
    let is_limited = context.group().max_iterations() < safe_limit(MAX_PROBED);
    is_limited && glsl::has_loops(launch.unit(), launch.kernel())
}

/// The uniform of a text for devices that end loops early: the last loop's first value, its iterations and its result.
const PROBE: [u32; 2] = [19, 3];

/// A program with the uniforms that every text has.
pub struct Sliced {
    program: Rc<Program>,
    first: Location,
    count: Location,
}

/// The program that combines the results of a reduction's blocks.
pub struct Finishing {
    pub sliced: Sliced,
    pub last: Location,
    /// Whether the result is combined with the argument's value.
    pub combines: bool,
}

/// A kernel's programs.
pub struct Prepared {
    main: Sliced,
    parameters: Parameters,
    /// Locations of the scalars, each at the position of its argument.
    scalars: Vec<Location>,
    /// The values in the text, for [`Parameters::Inline`].
    values: Vec<Value>,
    finishings: Vec<Finishing>,
    shape: Shape,
    /// For a device that ends loops early: where the text learns what its last loop must give.
    probe: Option<Location>,
    paces: Paces,
}

impl Sliced {
    fn new(programs: &mut Programs, source: &ShaderSource) -> Result<Self> {
        let program = programs.generated(source).map_err(|error| without_log(programs.context(), error))?;
        let locate = |name| programs.context().api().uniform_location(program.name(), name);
        Ok(Sliced { first: locate("first"), count: locate("count"), program })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Sets the uniforms, while the program is in use.
    pub fn set(&self, context: &Context, [fx, fy, fz]: [u32; 3], [cx, cy, cz]: [u32; 3]) {
        let api = context.api();
        self.first.into_iter().for_each(|at| api.uniform_3ui(at, fx, fy, fz));
        self.count.into_iter().for_each(|at| api.uniform_3ui(at, cx, cy, cz));
    }
}

/// A driver's log is about a text that nobody wrote, so it goes to the messages.
fn without_log(context: &Context, error: Error) -> Error {
    match error {
        Error::Shader { device, kernel, log } => {
            context.note(Level::Warn, format_args!("{device}: {kernel}: the driver's log: {log}"));
            let log = "the driver refuses the generated text; its log is among the messages".to_owned();
            Error::Shader { device, kernel, log }
        }
        other => other,
    }
}

/// The workgroups of a text.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub local_size: [u32; 3],
    /// Points of an invocation along the first axis.
    pub coarsening: u32,
    /// Whether workgroups take blocks of points in turn.
    pub streamed: bool,
}

/// The local size of the text; none if it is the source's.
fn local_size(kernel: &Kernel, dealing: Dealing) -> Option<[u32; 3]> {
    match kernel.local_size {
        _ if dealing == Dealing::Streamed => Some([Dealing::STREAMED_THREADS, 1, 1]),
        LocalSize::Auto => Some(AUTO_LOCAL_SIZES[kernel.dims - 1]),
        LocalSize::Fixed(_) => None,
    }
}

impl Prepared {
    /// Writes the texts of a launch's kernel and builds them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for what GLSL or the device lacks; [`Error::Shader`]; [`Error::OutOfMemory`].
    pub fn new(
        programs: &mut Programs,
        launch: &Launch<'_>,
        (parameters, dealing): (Parameters, Dealing),
    ) -> Result<Self> {
        let kernel = launch.kernel();
        let mut values = Vec::new();
        if parameters == Parameters::Inline {
            allocate::append(&mut values, launch.scalars().iter().flatten().copied(), "scalars of a kernel")?;
        }
        let options = Options {
            version: Version::Desktop430,
            parameters,
            values: allocate::copied(&values, "scalars of a kernel")?,
            local_size: local_size(kernel, dealing),
            coarsening: dealing.points(),
            streamed: dealing == Dealing::Streamed,
            loop_limit: ends_loops(programs.context(), launch),
            ..Options::default()
        };
        let glsl = glsl::write(launch.unit(), kernel, &options)?.map_err(|diagnostic| {
            let what = format!("kernel \"{}\": {}", kernel.name, diagnostic.message);
            Error::Unsupported { device: programs.context().device().to_owned(), what }
        })?;
        limits::check_text(programs.context(), kernel, &glsl, (parameters, options.loop_limit))?;
        let source = ShaderSource { name: kernel.name.clone(), text: glsl.text };
        let mut finishers = allocate::with_capacity(glsl.finishers.len(), "a kernel's programs")?;
        for finisher in glsl.finishers {
            let name = format!("{} (reduction)", kernel.name);
            finishers.push((ShaderSource { name, text: finisher.text }, finisher.combines));
        }
        let sources = || [&source].into_iter().chain(finishers.iter().map(|(source, _)| source));
        programs.begin(sources())?;
        let mut build = || {
            let main = Sliced::new(programs, &source)?;
            let finishings = finishers.iter().map(|(source, combines)| {
                let sliced = Sliced::new(programs, source)?;
                let last = programs.context().api().uniform_location(sliced.program.name(), "last");
                Ok(Finishing { sliced, last, combines: *combines })
            });
            Ok((main, allocate::collected(finishings, "a kernel's programs")?))
        };
        let built = build();
        let (main, finishings) = built.inspect_err(|_| programs.give_up(sources()))?;
        let api = programs.context().api();
        let locate = |name: &str| match parameters {
            Parameters::Uniform => api.uniform_location(main.program.name(), name),
            _ => None,
        };
        let names = kernel.arguments.iter().zip(&glsl.names);
        let scalars = names.map(|(argument, name)| {
            Ok(if argument.kind == ArgumentKind::Scalar { locate(name) } else { None })
        });
        let scalars = allocate::collected(scalars, "scalars of a kernel")?;
        let probe = options.loop_limit.then(|| api.uniform_location(main.program.name(), "sparkle_probe"));
        programs.context().check("glGetUniformLocation")?;
        let paces = Paces::new(launch.unit(), kernel);
        let Glsl { local_size, coarsening, streamed, .. } = glsl;
        let shape = Shape { local_size, coarsening, streamed };
        Ok(Prepared { main, parameters, scalars, values, finishings, shape, probe, paces })
    }

    /// The kernel's program.
    pub fn program(&self) -> &Program {
        self.main.program()
    }

    /// The programs of its reductions.
    pub fn finishings(&self) -> &[Finishing] {
        &self.finishings
    }

    /// The way of its scalars.
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// Its workgroups.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the device may end loops early, so that the text tells if it has.
    pub fn tells_of_loops(&self) -> bool {
        self.probe.is_some()
    }

    /// Operations of a point.
    pub fn operations(&self) -> f64 {
        self.paces.operations()
    }

    /// As [`Paces::of`].
    ///
    /// # Errors
    /// As [`Paces::of`].
    pub fn pace(&self, launch: &Launch<'_>, device_rate: f64) -> Result<Pace> {
        self.paces.of(launch, device_rate)
    }

    /// Whether the values in the text, if any, are those of a launch.
    pub fn has_values_of(&self, launch: &Launch<'_>) -> bool {
        let given = launch.scalars().iter().flatten().map(|value| bits(*value));
        self.parameters != Parameters::Inline || self.values.iter().map(|value| bits(*value)).eq(given)
    }

    /// Sets the uniforms of a launch's scalars, while the program is in use.
    pub fn set_scalars(&self, context: &Context, launch: &Launch<'_>) {
        let api = context.api();
        if let Some(location) = self.probe.flatten() {
            let [first, iterations] = PROBE;
            api.uniform_3ui(location, first, iterations, glsl::probe_result(first, iterations));
        }
        for (location, value) in self.scalars.iter().zip(launch.scalars()) {
            let (Some(location), Some(value)) = (*location, *value) else { continue };
            match value {
                Value::Int32(value) => api.uniform_1i(location, value),
                Value::Real32(value) => api.uniform_1f(location, value),
                Value::Real64(value) => api.uniform_1d(location, value),
                Value::Logical(value) => api.uniform_1i(location, value.into()),
                // The writer has refused it.
                Value::Int64(_) => {}
            }
        }
    }

    /// Sets the uniforms of a slice, while the program is in use.
    pub fn set_slice(&self, context: &Context, first: [u32; 3], count: [u32; 3]) {
        self.main.set(context, first, count);
    }
}

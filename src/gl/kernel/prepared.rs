//! A kernel's programs on a context, with the places of their uniforms.

use std::rc::Rc;

use crate::allocate;
use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Program;
use crate::gl::execution::programs::Programs;
use crate::kernel::bind::Launch;
use crate::kernel::glsl::{self, Options, Parameters, Version};
use crate::kernel::tree::{ArgumentKind, Kernel, LocalSize, Value};
use crate::log::Level;
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
/// How many it then computes.
const COARSENING: u32 = 4;

/// The points of an invocation, where the kernel leaves them open.
pub fn coarsening(launch: &Launch<'_>) -> u32 {
    if launch.points() >= MANY_POINTS { COARSENING } else { 1 }
}

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
    local_size: [u32; 3],
    coarsening: u32,
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

/// The local size of the text; none if it is the source's.
fn local_size(kernel: &Kernel) -> Option<[u32; 3]> {
    match kernel.local_size {
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
        (parameters, coarsening): (Parameters, u32),
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
            local_size: local_size(kernel),
            coarsening,
            ..Options::default()
        };
        let glsl = glsl::write(launch.unit(), kernel, &options)?.map_err(|diagnostic| {
            let what = format!("kernel \"{}\": {}", kernel.name, diagnostic.message);
            Error::Unsupported { device: programs.context().device().to_owned(), what }
        })?;
        limits::check_text(programs.context(), kernel, &glsl, parameters)?;
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
        programs.context().check("glGetUniformLocation")?;
        let paces = Paces::new(launch.unit(), kernel);
        let (local_size, coarsening) = (glsl.local_size, glsl.coarsening);
        Ok(Prepared { main, parameters, scalars, values, finishings, local_size, coarsening, paces })
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

    /// The local size, and the points of an invocation.
    pub fn shape(&self) -> ([u32; 3], u32) {
        (self.local_size, self.coarsening)
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

//! The tree as GLSL: version 430 or 310 es.
//!
//! # What a program binds
//!
//! - **Buffers**: binding = slot, in the order of declaration. A logical value is an `int`.
//! - **Scalars**, by [`Parameters`]: plain uniforms; or the block `params` at binding [`PARAMETER_BINDING`], std430,
//!   one member for each index argument (ignored) and scalar in the order of the arguments; or constants in the text.
//! - **`uniform uvec3 count`**: the extents of the index space. If `count.x` is 0, points are guarded by the lengths
//!   of the buffers, so programs that know nothing of it are guarded, too.
//! - **`uniform uvec3 first`**: the workgroup that this dispatch begins with. An index space can so be computed in
//!   slices.
//!
//! A one-dimensional index space may be dispatched as a grid of up to three dimensions: the workgroups are numbered
//! through. The same holds for reductions, whose workgroups take blocks in turn.
//!
//! # Reductions
//!
//! A kernel with a reduction and several dimensions needs `count`. It writes the result of block `b` to element `b`
//! of the reduction's buffer. [`Glsl::finishers`] has a second program for each reduction, which combines 256 values
//! at a time, until one is left: see [`Finisher`].
//!
//! Helper functions and variables of the writer begin with `sparkle_`; other names are changed where GLSL reserves
//! them.

mod constants;
mod entry;
mod epilogue;
mod expressions;
mod helpers;
mod loops;
mod names;
mod reduction;
mod statements;
mod streaming;

use crate::allocate;
use crate::error::Result;

use super::diagnostics::{Code as Message, Diagnostic};
use super::span::Span;
use super::tree::{
    ArgumentKind, Code, Contract, Kernel, LocalSize, Operation, Type, Unit, Value, VariableId,
};

use helpers::Helpers;
use names::Names;

pub use epilogue::{EpilogueGlsl, EpilogueOptions, epilogue};
pub use reduction::{BLOCKS_OF_GROUP, Finisher};
pub use streaming::can_stream;

/// The binding of the parameter block.
pub const PARAMETER_BINDING: u32 = 15;

/// A version of GLSL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// `#version 430`.
    #[default]
    Desktop430,
    /// `#version 310 es`. It has no `real64` and no `contract=off`.
    Es310,
}

/// How scalars reach a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Parameters {
    /// `uniform T name`.
    Uniform,
    /// A block at binding [`PARAMETER_BINDING`].
    #[default]
    Buffer,
    /// `const T name = value`, or `PLACEHOLDER_name` where no value is known.
    Inline,
}

/// What a text is written for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The version.
    pub version: Version,
    /// How scalars arrive.
    pub parameters: Parameters,
    /// The values of the scalars in the order of the arguments, for [`Parameters::Inline`]. Empty: placeholders.
    pub values: Vec<Value>,
    /// The local size. Nothing: that of the source; for [`LocalSize::Auto`], [`DEFAULT_LOCAL_SIZES`]. It is ignored
    /// for kernels with reductions and for cooperative ones.
    pub local_size: Option<[u32; 3]>,
    /// Points of each invocation along the first axis, 0 and 1 for one. Ignored as the local size is.
    pub coarsening: u32,
    /// Whether workgroups take blocks of points in turn, where [`can_stream`] allows it. `count.x` is then where the
    /// points of a dispatch end, and never 0; `first.x` is its first block.
    pub streamed: bool,
    /// Whether each access to an element is checked. See [`FAULT_BINDING`].
    pub checked: bool,
    /// Whether the text is for a device that ends all loops of an invocation after a total number of iterations, without an
    /// error. Bodies of innermost loops then stand in the text [`REPEATED`] times if they are short, so that an iteration of the
    /// text is several of the kernel's. At its end an invocation makes a loop whose result only the host knows: `uniform
    /// uvec3 sparkle_probe` is the loop's first value, its iterations, and [`probe_result`]. If the device has ended any
    /// loop, it ends this one, too. Then the block at [`FAULT_BINDING`], an `uint` that is 0 before, becomes 1.
    pub loop_limit: bool,
}

/// What the last loop of an invocation computes from `first` in so many iterations: see [`Options::loop_limit`].
pub fn probe_result(first: u32, iterations: u32) -> u32 {
    (0..iterations).fold(first, |value, _| value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
}

/// Whether the text of a kernel has loops of the kernel's own.
pub fn has_loops(unit: &Unit, kernel: &Kernel) -> bool {
    let loops = |code: &Code| {
        let powers = code.expressions.iter().any(|it| matches!(it.operation, Operation::PowerInteger(..)));
        code.loops > 0 || powers
    };
    let reached = entry::reachable(unit, &kernel.code);
    let called = unit.procedures.iter().zip(reached).filter(|(_, reached)| *reached);
    loops(&kernel.code) || called.map(|(procedure, _)| &procedure.code).any(loops)
}

/// How often the body of a short innermost loop stands in a text for a device that ends loops early.
pub const REPEATED: u32 = 16;

/// The binding of the block that a checked text writes: four `int`s, all zero before. If an element outside its buffer or
/// array is accessed, the first is the line of the source, the second the variable's index in the kernel's code, or -1
/// for a variable of a procedure, the third the position in memory, and the fourth the number of elements. The
/// access itself goes to the first element.
pub const FAULT_BINDING: u32 = 14;

/// Local sizes for 1, 2 and 3 dimensions where nothing else is said.
pub const DEFAULT_LOCAL_SIZES: [[u32; 3]; 3] = [[64, 1, 1], [16, 16, 1], [8, 8, 4]];

/// A kernel as GLSL.
#[derive(Debug, Clone)]
pub struct Glsl {
    /// The text.
    pub text: String,
    /// The local size in it.
    pub local_size: [u32; 3],
    /// Points of each invocation along the first axis.
    pub coarsening: u32,
    /// Whether workgroups take blocks of points in turn.
    pub streamed: bool,
    /// The name of each argument in the text, in order: of a uniform, constant, member of `params`, or array.
    pub names: Vec<String>,
    /// A second program for each reduction.
    pub finishers: Vec<Finisher>,
}

/// Why a text cannot be written.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The host is out of memory.
    Failed(crate::error::Error),
    /// This version of GLSL lacks something.
    Unsupported(Box<Diagnostic>),
}

impl From<crate::error::Error> for Refusal {
    fn from(error: crate::error::Error) -> Self {
        Refusal::Failed(error)
    }
}

type Write<T = ()> = std::result::Result<T, Refusal>;

/// A kernel of a unit as GLSL. The inner error says what this version of GLSL lacks.
///
/// # Errors
/// The host is out of memory.
pub fn write(
    unit: &Unit,
    kernel: &Kernel,
    options: &Options,
) -> Result<std::result::Result<Glsl, Box<Diagnostic>>> {
    match entry::kernel(unit, kernel, options) {
        Ok(glsl) => Ok(Ok(glsl)),
        Err(Refusal::Unsupported(diagnostic)) => Ok(Err(diagnostic)),
        Err(Refusal::Failed(error)) => Err(error),
    }
}

/// The local size of a kernel's text.
fn local_size(kernel: &Kernel, options: &Options) -> [u32; 3] {
    if !kernel.reductions.is_empty() {
        return [super::tree::REDUCTION_BLOCK as u32, 1, 1];
    }
    match (kernel.local_size, options.local_size) {
        (LocalSize::Fixed(size), _) if kernel.cooperative => size,
        (_, Some(size)) => size,
        (LocalSize::Fixed(size), None) => size,
        (LocalSize::Auto, None) => DEFAULT_LOCAL_SIZES[kernel.dims - 1],
    }
}

/// Where the current code's variables come from.
#[derive(Debug, Clone, Copy)]
enum Owner<'t> {
    Kernel(&'t Kernel),
    Epilogue(&'t super::tree::Epilogue),
    Procedure(&'t super::tree::Procedure),
}

/// Writes one text.
struct Writer<'t> {
    unit: &'t Unit,
    version: Version,
    parameters: Parameters,
    contract: Contract,
    names: Names,
    helpers: Helpers,
    /// Functions and statements. The head is written last, when it is known which helpers they need.
    out: String,
    indent: usize,
    owner: Owner<'t>,
    code: &'t Code,
    /// Names of the current code's variables.
    variables: Vec<String>,
    /// Names of all procedures.
    procedures: Vec<String>,
    loops: loops::Loops,
    /// Counts temporary variables.
    temporaries: usize,
    /// Whether accesses are checked.
    checked: bool,
    /// How often the bodies of innermost loops may be repeated.
    repeated: u32,
}

const WHAT: &str = "the GLSL of a kernel";

impl<'t> Writer<'t> {
    fn put(&mut self, text: &str) -> Write {
        Ok(allocate::push_str(&mut self.out, text, WHAT)?)
    }

    /// Begins a line.
    fn begin(&mut self) -> Write {
        for _ in 0..self.indent {
            self.put("  ")?;
        }
        Ok(())
    }

    /// A whole line.
    fn line(&mut self, text: &str) -> Write {
        self.begin()?;
        self.put(text)?;
        self.put("\n")
    }

    /// A line, after which lines are indented.
    fn open(&mut self, text: &str) -> Write {
        self.line(text)?;
        self.indent += 1;
        Ok(())
    }

    fn close(&mut self, text: &str) -> Write {
        self.indent -= 1;
        self.line(text)
    }

    fn unsupported<T>(&self, code: Message, span: Span, message: &str) -> Write<T> {
        Err(Refusal::Unsupported(Box::new(Diagnostic::new(code, span, message))))
    }

    /// `precise ` where arithmetic is exact.
    fn precise(&self) -> &'static str {
        match self.contract {
            Contract::Off => "precise ",
            Contract::Fast => "",
        }
    }

    /// The GLSL type of a variable.
    fn ty(&self, ty: Type, span: Span) -> Write<&'static str> {
        match ty {
            Type::Int32 => Ok("int"),
            Type::Real32 => Ok("float"),
            Type::Logical => Ok("bool"),
            Type::Int64 => self.unsupported(
                Message::NoInt64,
                span,
                "OpenGL has no 64-bit integers; the CPU runs this kernel",
            ),
            Type::Real64 if self.version == Version::Es310 => self.unsupported(
                Message::NoReal64,
                span,
                "GLSL ES has no real(real64); the CPU and desktop OpenGL run this kernel",
            ),
            Type::Real64 => Ok("double"),
        }
    }

    /// The GLSL type of an element in a buffer.
    fn stored(&self, ty: Type, span: Span) -> Write<&'static str> {
        match ty {
            Type::Logical => Ok("int"),
            other => self.ty(other, span),
        }
    }

    fn name(&self, id: VariableId) -> &str {
        &self.variables[id.0 as usize]
    }

    /// What an argument of the current code is.
    fn argument_kind(&self, position: usize) -> Option<&'t ArgumentKind> {
        let arguments = match self.owner {
            Owner::Kernel(kernel) => &kernel.arguments,
            Owner::Epilogue(epilogue) => &epilogue.arguments,
            Owner::Procedure(_) => return None,
        };
        arguments.get(position).map(|argument| &argument.kind)
    }

    /// A name for a temporary variable.
    fn temporary(&mut self, what: &str) -> String {
        self.temporaries += 1;
        format!("sparkle_{what}{}", self.temporaries)
    }
}

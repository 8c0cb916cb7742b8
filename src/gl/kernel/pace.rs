//! How much work a point of a kernel is, for the length of dispatches.
//!
//! Nothing tells how often loops run, so a loop counts as many iterations. A first dispatch is then too short rather
//! than too long, and its time corrects the rate. A kernel's rates are its own: elsewhere operations are counted, not
//! guessed.

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use crate::allocate;
use crate::error::Result;
use crate::gl::execution::budget::DispatchBudget;
use crate::gl::tunables::MAX_QUEUED_SHAPES;
use crate::kernel::bind::Launch;
use crate::kernel::tree::{Action, Block, Code, Kernel, Unit, Value};

/// Iterations that a loop is assumed to make.
const ITERATIONS: f64 = 1024.0;
/// The most operations that a point is assumed to be.
const MOST_OPERATIONS: f64 = 16_777_216.0;

/// A budget with the rate that it has learnt.
pub type Pace = (Rc<DispatchBudget>, Rc<Cell<f64>>);

/// The paces of a kernel.
pub struct Paces {
    operations: f64,
    has_loops: bool,
    /// By what loops may depend on. The latest is the last.
    known: RefCell<Vec<(u64, Pace)>>,
}

impl Paces {
    /// Those of a kernel that has not run.
    pub fn new(unit: &Unit, kernel: &Kernel) -> Self {
        let procedures = unit.procedures.iter().map(|it| &it.code);
        let called = procedures.clone().map(nesting).max().unwrap_or(0);
        let depth = nesting(&kernel.code) + called;
        let nodes: usize =
            procedures.chain([&kernel.code]).map(|code| code.expressions.len() + code.statements.len()).sum();
        let operations = nodes.max(1) as f64 * ITERATIONS.powi(depth.min(8) as i32);
        Paces { operations: operations.min(MOST_OPERATIONS), has_loops: depth > 0, known: RefCell::default() }
    }

    /// Operations of a point.
    pub fn operations(&self) -> f64 {
        self.operations
    }

    /// The pace of a launch, on a device whose rate is `device_rate` before anything is known. Loops depend on scalars
    /// and lengths, so a rate holds for a launch with the same ones.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn of(&self, launch: &Launch<'_>, device_rate: f64) -> Result<Pace> {
        let key = if self.has_loops { hash_of_counts(launch) } else { 0 };
        let mut known = self.known.borrow_mut();
        if let Some((_, pace)) = known.iter().find(|(it, _)| *it == key) {
            return Ok(pace.clone());
        }
        if known.len() >= MAX_QUEUED_SHAPES {
            known.remove(0);
        }
        let pace = (Rc::new(DispatchBudget::new()), Rc::new(Cell::new(device_rate)));
        allocate::push(&mut known, (key, pace.clone()), "the paces of a kernel")?;
        Ok(pace)
    }
}

/// What loops may depend on: integers and lengths.
fn hash_of_counts(launch: &Launch<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    launch.scalars().iter().flatten().filter_map(|value| value.integer()).for_each(|it| it.hash(&mut hasher));
    launch.lengths().hash(&mut hasher);
    hasher.finish()
}

/// All scalars, bit by bit.
pub fn hash_of_scalars(launch: &Launch<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for value in launch.scalars().iter().flatten() {
        bits(*value).hash(&mut hasher);
    }
    hasher.finish()
}

/// A scalar's type and bits.
pub fn bits(value: Value) -> (u8, u64) {
    match value {
        Value::Int32(value) => (0, value as u64),
        Value::Int64(value) => (1, value as u64),
        Value::Real32(value) => (2, value.to_bits().into()),
        Value::Real64(value) => (3, value.to_bits()),
        Value::Logical(value) => (4, value.into()),
    }
}

/// The deepest nesting of loops.
fn nesting(code: &Code) -> usize {
    fn of(code: &Code, block: &Block) -> usize {
        let inner = |action: &Action| match action {
            Action::Do { body, .. } | Action::While { body, .. } => 1 + of(code, body),
            Action::If { branches, otherwise } => {
                branches.iter().map(|(_, block)| of(code, block)).fold(of(code, otherwise), usize::max)
            }
            Action::Select { cases, otherwise, .. } => {
                cases.iter().map(|case| of(code, &case.body)).fold(of(code, otherwise), usize::max)
            }
            _ => 0,
        };
        block.iter().map(|id| inner(&code.statement(*id).action)).max().unwrap_or(0)
    }
    of(code, &code.body)
}

//! Kernels of the kernel language on the machine's first device, between guard words.
//!
//! Every program runs with each of the three ways of scalars. Oracles compute in float64 or in integers; inputs are
//! small integers, so that all but transcendental functions are exact.

mod failures;
mod language;
mod long_loops;
mod own;
mod reference;
mod remainders;
mod streamed;

use std::sync::Arc;

use super::guards::{Guards, guarded};
use crate::error::Result;
use crate::gl::device::engine::Engine;
use crate::kernel::bind::{Arg, Launch};
use crate::kernel::glsl::Parameters;
use crate::kernel::tree::{Unit, Value};
use crate::kernel::{compile, diagnostics};
use crate::problem::exact::Random;
use crate::report::Timing;

/// An argument, owned.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    Scalar(Value),
    Ints(Vec<i32>),
    Longs(Vec<i64>),
    Reals(Vec<f32>),
    Doubles(Vec<f64>),
}

impl Given {
    fn arg(&mut self) -> Arg<'_> {
        match self {
            Given::Scalar(value) => Arg::scalar(*value),
            Given::Ints(elements) => elements.into(),
            Given::Longs(elements) => elements.into(),
            Given::Reals(elements) => elements.into(),
            Given::Doubles(elements) => elements.into(),
        }
    }

    /// The elements of an array of integers.
    pub fn ints(&mut self) -> &mut Vec<i32> {
        let Given::Ints(elements) = self else { panic!("{self:?}") };
        elements
    }

    /// The elements of an array of reals.
    pub fn reals(&mut self) -> &mut Vec<f32> {
        let Given::Reals(elements) = self else { panic!("{self:?}") };
        elements
    }

    /// The elements of an array of doubles.
    pub fn doubles(&mut self) -> &mut Vec<f64> {
        let Given::Doubles(elements) = self else { panic!("{self:?}") };
        elements
    }

    /// Whether reals are `expected` up to a relative error; all else bit by bit, but for the sign of a zero.
    fn is_near(&self, expected: &Given, tolerance: f64) -> bool {
        let near = |a: f64, b: f64| a == b || (a - b).abs() <= tolerance * b.abs().max(1e-3);
        match (self, expected) {
            (Given::Reals(a), Given::Reals(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near((*a).into(), (*b).into()))
            }
            (Given::Doubles(a), Given::Doubles(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b))
            }
            _ => self == expected,
        }
    }
}

/// A scalar integer.
pub fn int(value: i64) -> Given {
    Given::Scalar(Value::Int32(i32::try_from(value).unwrap()))
}

/// A scalar real.
pub fn real(value: f32) -> Given {
    Given::Scalar(Value::Real32(value))
}

/// Random integers as reals.
pub fn reals(random: &mut Random, len: usize) -> Given {
    Given::Reals(random.integers(len, 8))
}

/// Random integers.
pub fn ints(random: &mut Random, len: usize, largest: i64) -> Given {
    Given::Ints((0..len).map(|_| random.between(-largest, largest) as i32).collect())
}

/// A compiled text.
pub fn unit(text: &str) -> Arc<Unit> {
    let compiled = compile(text.as_bytes()).unwrap();
    let messages = diagnostics::render_all(&compiled.diagnostics, "test.f90", text.as_bytes()).unwrap();
    Arc::new(compiled.unit.unwrap_or_else(|| panic!("{messages}")))
}

/// A compiled file of `tests/kernels`.
pub fn file(name: &str) -> Arc<Unit> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(name);
    unit(&std::fs::read_to_string(path).unwrap())
}

/// Launches a kernel of a file.
pub fn launch(
    engine: &Engine,
    (unit, name): (&Arc<Unit>, &str),
    extents: &[usize],
    given: &mut [Given],
    parameters: Parameters,
) -> Result<Timing> {
    let index = unit.kernels.iter().position(|it| it.name == name).unwrap();
    let mut args: Vec<Arg> = given.iter_mut().map(Given::arg).collect();
    let launch = Launch::new(unit, index, extents, &mut args)?;
    engine.launch_with(&launch, parameters)
}

/// An engine between guards, and the number of launches that it has checked.
pub struct Checker {
    pub engine: Engine,
    guards: Arc<Guards>,
    pub checked: usize,
}

impl Checker {
    pub fn new() -> Option<Self> {
        let (engine, guards) = guarded()?;
        Some(Checker { engine, guards, checked: 0 })
    }

    /// Runs a kernel with each way of scalars. `oracle` changes the arguments as the kernel should.
    pub fn check(
        &mut self,
        kernel: (&Arc<Unit>, &str),
        extents: &[usize],
        given: Vec<Given>,
        tolerance: f64,
        oracle: impl FnOnce(&mut [Given]),
    ) {
        let mut expected = given.clone();
        oracle(&mut expected);
        assert_ne!(expected, given, "{}: the oracle changes something", kernel.1);
        for parameters in [Parameters::Uniform, Parameters::Buffer, Parameters::Inline] {
            let mut computed = given.clone();
            let timing = launch(&self.engine, kernel, extents, &mut computed, parameters).unwrap();
            assert!(timing.dispatches > 0);
            for (position, (computed, expected)) in computed.iter().zip(&expected).enumerate() {
                let what = format!("{}, {parameters:?}, argument {position}", kernel.1);
                assert!(computed.is_near(expected, tolerance), "{what}: {computed:?}, not {expected:?}");
            }
            assert_eq!(self.guards.broken(), Vec::<String>::new(), "{}", kernel.1);
            self.checked += 1;
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.guards.checked() > self.checked, "{} guards", self.guards.checked());
        }
    }
}

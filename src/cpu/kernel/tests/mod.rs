//! Tests of kernels on the CPU: beside the same text compiled by gfortran, and beside oracles.

mod epilogues;
mod fortran;
mod language;
mod memory;
mod reference;
mod values;

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::cpu::pool::Team;
use crate::kernel::bind::Arg;
use crate::kernel::tree::Unit;

/// An argument of a test.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cpu::kernel) enum Item {
    I(i32),
    F(f32),
    D(f64),
    B(bool),
    Is(Vec<i32>),
    Ls(Vec<i64>),
    Fs(Vec<f32>),
    Ds(Vec<f64>),
}

impl Item {
    pub(in crate::cpu::kernel) fn arg(&mut self) -> Arg<'_> {
        match self {
            Item::I(value) => (*value).into(),
            Item::F(value) => (*value).into(),
            Item::D(value) => (*value).into(),
            Item::B(value) => (*value).into(),
            Item::Is(values) => values.into(),
            Item::Ls(values) => values.into(),
            Item::Fs(values) => values.into(),
            Item::Ds(values) => values.into(),
        }
    }

    /// The bits of all elements.
    pub(super) fn bits(&self) -> Vec<u64> {
        match self {
            Item::Is(values) => values.iter().map(|it| *it as u32 as u64).collect(),
            Item::Ls(values) => values.iter().map(|it| *it as u64).collect(),
            Item::Fs(values) => values.iter().map(|it| it.to_bits().into()).collect(),
            Item::Ds(values) => values.iter().map(|it| it.to_bits()).collect(),
            _ => vec![],
        }
    }

    pub(super) fn reals(&self) -> &[f32] {
        match self {
            Item::Fs(values) => values,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn integers(&self) -> &[i32] {
        match self {
            Item::Is(values) => values,
            other => panic!("{other:?}"),
        }
    }
}

pub(in crate::cpu::kernel) fn unit(text: &str) -> Arc<Unit> {
    let compiled = crate::kernel::compile(text.as_bytes()).unwrap();
    let messages = crate::kernel::diagnostics::render_all(&compiled.diagnostics, "test.f90", text.as_bytes());
    Arc::new(compiled.unit.unwrap_or_else(|| panic!("{}", messages.unwrap())))
}

/// The text of a file of `tests/kernels`.
pub(in crate::cpu::kernel) fn text(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(path);
    std::fs::read_to_string(path).unwrap()
}

/// The check gives the same bits as the engine, and reports nothing.
fn check_also(unit: &Arc<Unit>, index: usize, extents: &[usize], (before, after): (&[Item], &[Item])) {
    let mut items = before.to_vec();
    let mut args: Vec<_> = items.iter_mut().map(Item::arg).collect();
    let launch = Launch::new(unit, index, extents, &mut args).unwrap();
    let name = launch.kernel().name.clone();
    let checked = check(&launch, Coverage::All).unwrap();
    drop(launch);
    drop(args);
    assert_eq!(checked.messages, [], "{name}");
    for (one, other) in items.iter().zip(after) {
        assert_eq!(one.bits(), other.bits(), "{name}, checked");
    }
}

/// Runs a kernel with each instruction set and with 1, 2, 3 and 8 threads, which must all give the same bits.
/// Returns the arguments afterwards.
pub(super) fn run(text: &str, name: &str, extents: &[usize], items: &[Item]) -> Vec<Item> {
    run_and(text, name, extents, items, check_also)
}

/// As [`run`], for a kernel that the check would report.
pub(super) fn run_faulty(text: &str, name: &str, extents: &[usize], items: &[Item]) -> Vec<Item> {
    run_and(text, name, extents, items, |_, _, _, _| ())
}

fn run_and(
    text: &str,
    name: &str,
    extents: &[usize],
    items: &[Item],
    check: impl Fn(&Arc<Unit>, usize, &[usize], (&[Item], &[Item])),
) -> Vec<Item> {
    let unit = unit(text);
    let index = unit.kernels.iter().position(|it| it.name == name).unwrap();
    let mut first: Option<Vec<Item>> = None;
    for isa in Isa::all() {
        for threads in [1, 2, 3, 8] {
            let original = items;
            let mut items = items.to_vec();
            let mut args: Vec<_> = items.iter_mut().map(Item::arg).collect();
            let launch = Launch::new(&unit, index, extents, &mut args).unwrap();
            let mut team = Team::of(threads);
            run::run(isa, &launch, &mut team, Instant::now()).unwrap();
            drop(launch);
            drop(args);
            match &first {
                None => {
                    check(&unit, index, extents, (original, &items));
                    first = Some(items);
                }
                Some(first) => {
                    for (one, other) in first.iter().zip(&items) {
                        assert_eq!(one.bits(), other.bits(), "{name}, {}, {threads} threads", isa.name());
                    }
                }
            }
        }
    }
    first.unwrap()
}

/// Numbers without an order, the same in each run.
pub(super) fn numbers(count: usize, seed: u64) -> Vec<i32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as i32
    };
    (0..count).map(next).collect()
}

/// Whole numbers from `-limit` to `limit`, as reals.
pub(super) fn whole(count: usize, seed: u64, limit: i32) -> Vec<f32> {
    numbers(count, seed).into_iter().map(|it| (it.rem_euclid(2 * limit + 1) - limit) as f32).collect()
}

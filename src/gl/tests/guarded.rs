//! Every kernel family with its options, exact on small integers, with and without NaN and infinities. Each buffer
//! lies between guard words.
//!
//! `SPARKLE_TEST_CASES` is the number of cases of each of the four tests, `SPARKLE_TEST_SEED` selects them.
//! Together they cover nearly every kind of kernel on a driver with 32 KiB of shared memory. A software driver
//! spends most of the time on compiling.

use std::collections::BTreeSet;

use super::guards::guarded;
use crate::gl::cache;
use crate::gl::device::engine::Engine;
use crate::gl::device::session::Session;
use crate::gl::driver::api;
use crate::gl::driver::resource::{Buffer, Program};
use crate::gl::lab::{Numbers, compare_on};
use crate::memory::tiles::Gpu;
use crate::problem::Conv2d;
use crate::shader::cases::Cases;
use crate::shader::variant::Variant;

/// Default number of cases of all four tests together: distinct pairs of a problem and a variant.
const CASES: usize = 520;
/// Distance between selected cases. Neighbouring cases are similar; a distance makes few cases cover all kinds.
const STRIDE: usize = 7;

/// A device with these limits.
pub fn limits(engine: &Engine) -> Gpu {
    let limits = |session: &mut Session| {
        let it = session.context().capabilities();
        Ok(cache::with_limits(Gpu::ASSUMED, it, session.context().group().max_iterations()))
    };
    engine.worker().call(limits).unwrap()
}

/// The guards detect accesses beyond the end.
#[test]
fn guards_see_writes_beyond_the_end() {
    let Some((engine, guards)) = guarded() else { return };
    let context = engine.share_group().unwrap().context().unwrap();
    for (index, broken) in [(15, 0), (16, 1), (16 + 1023, 2)] {
        let source = format!(
            "#version 430 core\nlayout(local_size_x = 1) in;\nlayout(std430, binding = 2) buffer B {{ float x[]; }};\n\
             void main() {{ x[{index}] = 1.0; }}"
        );
        let (buffer, program) =
            (Buffer::new(&context, 64).unwrap(), Program::build(&context, "far", &source).unwrap());
        buffer.bind(2);
        context.api().use_program(program.name());
        context.api().dispatch_compute(1, 1, 1);
        context.api().memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
        drop(buffer);
        context.check("glDispatchCompute").unwrap();
        assert_eq!(guards.broken().len(), broken, "{index}: {:?}", guards.broken());
    }
    assert_eq!(guards.checked(), 6);
}

/// The number in an environment variable.
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A quarter of the cases for a device with these limits: case `first`, and every fourth after it.
fn chosen(first: usize, limits: Gpu) -> impl Iterator<Item = (usize, (Conv2d, Variant))> {
    let cases = Cases::new(number("SPARKLE_TEST_SEED", 41) as u64, limits);
    let count = number("SPARKLE_TEST_CASES", CASES / 4);
    cases.enumerate().skip(STRIDE * first).step_by(4 * STRIDE).take(count)
}

/// Holds for any device. With less shared memory there are fewer tiles, and the sequence of kinds repeats sooner.
#[test]
fn the_cases_are_all_different() {
    for shared_bytes in [16 << 10, 32 << 10, 48 << 10, 64 << 10] {
        let limits = Gpu { shared_bytes, ..Gpu::ASSUMED };
        let all: Vec<String> =
            (0..4).flat_map(|first| chosen(first, limits)).map(|(_, case)| format!("{case:?}")).collect();
        let distinct: BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "with {shared_bytes} bytes");
    }
}

fn exact(first: usize) {
    let Some((engine, guards)) = guarded() else { return };
    let (mut ran, mut not_finite) = (0, 0);
    for (index, (problem, variant)) in chosen(first, limits(&engine)) {
        for numbers in [Numbers::Integers, Numbers::NotFinite] {
            let compared = compare_on(&engine, &problem, &variant, numbers, index as u64).unwrap();
            assert_eq!(compared.wrong, 0, "{variant}, {numbers:?}: {problem:?}");
            not_finite += compared.not_finite;
        }
        assert_eq!(guards.broken(), Vec::<String>::new(), "{variant}: {problem:?}");
        ran += 1;
    }
    assert!(ran > 0 && guards.checked() > 8 * ran, "{ran} cases, {} guards", guards.checked());
    assert!(not_finite > ran, "{not_finite} outputs that are not finite");
}

#[test]
fn families_are_exact_between_guards_1() {
    exact(0);
}

#[test]
fn families_are_exact_between_guards_2() {
    exact(1);
}

#[test]
fn families_are_exact_between_guards_3() {
    exact(2);
}

#[test]
fn families_are_exact_between_guards_4() {
    exact(3);
}

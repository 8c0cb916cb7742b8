//! Sequences of calls of the C interface on the CPU, from one thread. The fuzzer's bytes choose calls, handles,
//! lengths and sizes. The calls and their checks are those of `tests/fuzz`.

#![no_main]
// The target uses a part of what it includes.
#![allow(dead_code)]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzz/calls.rs"]
mod calls;
#[path = "../../tests/fuzz/choices.rs"]
mod choices;
#[path = "../../tests/fuzz/world.rs"]
mod world;

use calls::Caller;
use choices::Choices;
use world::World;

/// Calls per input. More would only repeat.
const MAX_STEPS: usize = 200;

fuzz_target!(|bytes: &[u8]| {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(|| World::new("cpu"));
    let mut caller = Caller::new(world, Choices::from_bytes(bytes));
    for _ in 0..MAX_STEPS {
        if caller.is_exhausted() {
            break;
        }
        caller.step();
    }
    caller.end();
    // The next input starts without handles.
    world.finalize();
});

//! Programs' buffers on the machine's first device: used in place, at any offset, without transfers; lost with the device
//! or when a call fails.

use std::sync::Arc;

use super::faulty::{Fault, Machine};
use super::kernels::{file, unit};
use super::rig::Rig;
use crate::backend::{Backend, DeviceMemory};
use crate::error::{Error, Result};
use crate::gl::device::engine::Engine;
use crate::gl::driver::api;
use crate::kernel::bind::{Arg, Launch, Resident};
use crate::kernel::tree::{Type, Unit};
use crate::problem::exact::Random;

/// Elements of real32 on a device, as the device layer holds them.
pub struct Held {
    pub memory: DeviceMemory,
    pub len: usize,
}

impl Held {
    pub fn new(engine: &Engine, data: &[f32]) -> Result<Self> {
        let bytes = size_of_val(data);
        let held = Held { memory: DeviceMemory::new(engine.memory(bytes)?, bytes), len: data.len() };
        held.write(0, data)?;
        Ok(held)
    }

    pub fn write(&self, offset: usize, data: &[f32]) -> Result<()> {
        // SAFETY: one thread uses it, within its length.
        unsafe { self.memory.engine().write(4 * offset, bytemuck::cast_slice(data)) }
    }

    pub fn read(&self) -> Result<Vec<f32>> {
        let mut data = vec![f32::NAN; self.len];
        // SAFETY: as above.
        unsafe { self.memory.engine().read(0, bytemuck::cast_slice_mut(&mut data)) }?;
        Ok(data)
    }

    pub fn arg(&self, (offset, len): (usize, usize), is_writable: bool) -> Arg<'_> {
        let resident = Resident { memory: &self.memory, offset: 4 * offset, owner: (1, "gl") };
        // SAFETY: it is no memory of the host.
        unsafe { Arg::resident(resident, (None, len), Type::Real32, is_writable) }
    }

    pub fn whole(&self, is_writable: bool) -> Arg<'_> {
        self.arg((0, self.len), is_writable)
    }
}

fn launch(engine: &Engine, unit: &Arc<Unit>, name: &str, n: usize, args: &mut [Arg<'_>]) -> Result<()> {
    let index = unit.kernels.iter().position(|it| it.name == name).unwrap();
    engine.launch(&Launch::new(unit, index, &[n], args)?).map(drop)
}

/// y = a x + y.
fn saxpy(engine: &Engine, unit: &Arc<Unit>, (a, x): (f32, Arg<'_>), y: Arg<'_>, n: usize) -> Result<()> {
    launch(engine, unit, "saxpy", n, &mut [(n as i32).into(), a.into(), x, y])
}

#[test]
fn buffers_are_used_in_place_at_any_offset() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let (engine, unit) = (rig.open().unwrap(), file("language/saxpy.f90"));
    let n = 3000;
    let mut random = Random::new(41);
    let (x, y) = (random.integers(n, 8), random.integers(n, 8));
    let (on_x, on_y) = (Held::new(&engine, &x).unwrap(), Held::new(&engine, &y).unwrap());
    let mut expected = y.clone();
    // The second numbers of elements are not where a device binds buffers.
    let parts = [(0, 0, n), (64, 128, 1000), (1, 0, 700), (0, 3, 700), (5, 7, 900), (n - 1, 2, 1), (9, n, 0)];
    for (from, to, len) in parts {
        if len == 0 {
            continue;
        }
        saxpy(&engine, &unit, (2.0, on_x.arg((from, len), false)), on_y.arg((to, len), true), len).unwrap();
        (0..len).for_each(|at| expected[to + at] += 2.0 * x[from + at]);
        assert_eq!(on_y.read().unwrap(), expected, "{from} {to} {len}");
    }
    // Two parts of one buffer, and an array of the host.
    saxpy(&engine, &unit, (3.0, on_y.arg((1, 99), false)), on_y.arg((101, 99), true), 99).unwrap();
    (0..99).for_each(|at| expected[101 + at] += 3.0 * expected[1 + at]);
    saxpy(&engine, &unit, (-1.0, (&x).into()), on_y.whole(true), n).unwrap();
    (0..n).for_each(|at| expected[at] -= x[at]);
    let mut host = y.clone();
    saxpy(&engine, &unit, (1.0, on_y.whole(false)), (&mut host).into(), n).unwrap();
    assert_eq!((on_y.read().unwrap(), on_x.read().unwrap()), (expected.clone(), x));
    assert!(host.iter().zip(expected.iter().zip(&y)).all(|(it, (a, b))| *it == a + b));
    // Writes and reads of parts.
    on_y.write(17, &[1.5, 2.5]).unwrap();
    expected[17..19].copy_from_slice(&[1.5, 2.5]);
    assert_eq!(on_y.read().unwrap(), expected);
    drop((on_x, on_y));
    engine.worker().call(|_| Ok(())).unwrap();
    assert_eq!(rig.faults.objects().get("buffer"), None, "dropped");
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

#[test]
fn fresh_buffers_are_zero() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    for bytes in [0, 4, 4096, 4100, 1 << 20, (1 << 20) + 12] {
        // The driver's memory may have been used.
        drop(Held::new(&engine, &vec![7.0; bytes / 4]).unwrap());
        let memory = engine.memory(bytes).unwrap();
        let mut back = vec![1u8; bytes];
        // SAFETY: as in `Held`.
        unsafe { memory.read(0, &mut back) }.unwrap();
        assert!(back.iter().all(|&byte| byte == 0), "{bytes}");
    }
}

#[test]
fn reductions_end_in_buffers() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let (engine, unit) = (rig.open().unwrap(), file("language/reductions.f90"));
    let n = 70_000;
    let mut random = Random::new(42);
    let (x, y) = (random.integers(n, 4), random.integers(n, 4));
    let on_x = Held::new(&engine, &x).unwrap();
    let totals = Held::new(&engine, &[1.0, 2.0, 3.0]).unwrap();
    let dot: f32 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    for at in 0..3 {
        let args = &mut [(n as i32).into(), on_x.whole(false), (&y).into(), totals.arg((at, 1), true)];
        launch(&engine, &unit, "dot", n, args).unwrap();
    }
    assert_eq!(totals.read().unwrap(), [1.0 + dot, 2.0 + dot, 3.0 + dot]);
    rig.faults.take_transfers();
    let args = &mut [(n as i32).into(), on_x.whole(false), on_x.whole(false), totals.arg((0, 1), true)];
    launch(&engine, &unit, "dot", n, args).unwrap();
    assert_eq!(rig.faults.take_transfers(), Vec::<i64>::new());
    let squares: f32 = x.iter().map(|x| x * x).sum();
    assert_eq!(totals.read().unwrap()[0], 1.0 + dot + squares);
}

/// A kernel that overwrites all of its output, and one that does not.
const COPIES: &str = "!@kernel
subroutine copy(i, n, x, y)
  integer, value :: i, n
  real, intent(in) :: x(0:n-1)
  real, intent(out) :: y(0:n-1)
  y(i) = x(i)
end subroutine
!@kernel
subroutine half(i, n, x, y)
  integer, value :: i, n
  real, intent(in) :: x(0:n-1)
  real, intent(out) :: y(0:n-1)
  if (x(i) > 0) y(i) = x(i)
end subroutine
";

#[track_caller]
fn assert_lost<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::ContentsLost { what: it, .. } if it.contains(what)), "{error}");
}

#[test]
fn a_lost_device_loses_contents_until_all_is_written_anew() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let (engine, unit) = (rig.open().unwrap(), unit(COPIES));
    let n = 500;
    let data: Vec<f32> = (0..n).map(|at| at as f32 + 1.0).collect();
    for fault in [Fault::Lost, Fault::LostSilently] {
        let (x, y) = (Held::new(&engine, &data).unwrap(), Held::new(&engine, &data).unwrap());
        let copy = |name, from: &Held, to: &Held| {
            let args = &mut [(n as i32).into(), from.whole(false), to.whole(true)];
            launch(&engine, &unit, name, n, args)
        };
        copy("copy", &x, &y).unwrap();
        rig.faults.arm(fault, 1);
        let error = x.read().unwrap_err();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
        assert_eq!(rig.faults.disarm(), Some("bind_buffer"));
        // Both are lost; nothing that needs their contents runs.
        for _ in 0..2 {
            assert_lost(x.read(), "the buffer");
            assert_lost(y.write(1, &data[1..]), "the buffer");
            assert_lost(y.write(0, &data[1..]), "the buffer");
            assert_lost(copy("copy", &x, &y), "x");
            assert_lost(y.read(), "the buffer");
        }
        // A whole write is a beginning.
        x.write(0, &data).unwrap();
        assert_eq!(x.read().unwrap(), data);
        // Only a kernel that overwrites everything needs no contents of its output.
        assert_lost(copy("half", &x, &y), "y");
        let args = &mut [(n as i32 - 1).into(), x.arg((0, n - 1), false), y.arg((0, n - 1), true)];
        assert_lost(launch(&engine, &unit, "copy", n - 1, args), "y");
        assert_lost(y.read(), "the buffer");
        copy("copy", &x, &y).unwrap();
        assert_eq!(y.read().unwrap(), data);
        copy("half", &x, &y).unwrap();
    }
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

/// Each call of a launch fails once. What it only reads stays, unless the device is lost; what it writes is as before or
/// lost, never half written; arrays of the host are untouched; the next launch works.
#[test]
fn every_call_fails_once() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let (engine, unit) = (rig.open().unwrap(), file("language/saxpy.f90"));
    let n = 1000;
    let mut random = Random::new(43);
    let (x, y) = (random.integers(n, 8), random.integers(n, 8));
    let (on_x, on_y) = (Held::new(&engine, &x).unwrap(), Held::new(&engine, &y).unwrap());
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 2.0 * x + y).collect();
    // In place, and as a copy.
    let run = |first: usize| {
        let (from, to) = (on_x.arg((first, n - first), false), on_y.arg((first, n - first), true));
        saxpy(&engine, &unit, (2.0, from), to, n - first)
    };
    run(0).unwrap();
    run(3).unwrap();
    let faults = [
        Fault::Error(api::OUT_OF_MEMORY),
        Fault::Error(api::INVALID_OPERATION),
        Fault::Lost,
        Fault::LostSilently,
        Fault::WaitFails,
        Fault::NeverSignals,
        Fault::NoObject,
        Fault::Panic,
    ];
    let (mut hits, mut kept, mut lost) = (0, 0, 0);
    for (fault, first) in faults.into_iter().flat_map(|fault| [(fault, 0), (fault, 3)]) {
        for number in 1.. {
            on_x.write(0, &x).unwrap();
            on_y.write(0, &y).unwrap();
            rig.faults.arm(fault, number);
            let result = run(first);
            let hit = rig.faults.disarm();
            let when = format!("{fault:?} at call {number}, {hit:?}: {result:?}");
            let is_lost = matches!(fault, Fault::Lost | Fault::LostSilently | Fault::Panic);
            match (on_x.read(), &result) {
                (Ok(it), _) => assert_eq!(it, x, "{when}"),
                (Err(Error::ContentsLost { .. } | Error::DeviceLost { .. }), _) => assert!(is_lost, "{when}"),
                (Err(error), _) => panic!("{when}: {error}"),
            }
            match (on_y.read(), &result) {
                (Ok(it), Ok(())) => assert_eq!(it[first..], expected[first..], "{when}"),
                (Ok(it), Err(_)) => {
                    assert_eq!(it, y, "{when}");
                    kept += 1;
                }
                (Err(Error::ContentsLost { .. } | Error::DeviceLost { .. }), _) => {
                    assert!(result.is_err() || is_lost, "{when}");
                    lost += 1;
                }
                (Err(error), _) => panic!("{when}: {error}"),
            }
            if hit.is_none() {
                result.unwrap();
                break;
            }
            hits += 1;
        }
    }
    assert!(hits > 100 && kept > 10 && lost > 50, "{hits} {kept} {lost}");
    drop((on_x, on_y));
    engine.worker().call(|_| Ok(())).unwrap();
    assert_eq!(rig.faults.objects().get("buffer"), None, "dropped");
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

/// Allocations, writes and reads fail at every call.
#[test]
fn transfers_fail_once() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let data: Vec<f32> = (0..2000).map(|at| at as f32 + 1.0).collect();
    let faults = [
        Fault::Error(api::OUT_OF_MEMORY),
        Fault::Error(api::INVALID_OPERATION),
        Fault::Lost,
        Fault::LostSilently,
        Fault::ReadFails,
        Fault::NoObject,
        Fault::Panic,
    ];
    let mut hits = 0;
    for fault in faults {
        for number in 1.. {
            rig.faults.arm(fault, number);
            let held = Held::new(&engine, &data);
            let back = held.as_ref().map_err(Clone::clone).and_then(Held::read);
            let hit = rig.faults.disarm();
            let when = format!("{fault:?} at call {number}, {hit:?}: {:?}", back.as_ref().err());
            assert!(back.as_ref().map_or(hit.is_some(), |back| *back == data), "{when}");
            if let Ok(held) = &held {
                // A failed read loses nothing, and a failed write all.
                let again = held.read();
                assert!(again.as_ref().map_or(hit.is_some(), |back| *back == data), "{when}");
                held.write(0, &data).unwrap();
                assert_eq!(held.read().unwrap(), data, "{when}");
            }
            drop(held);
            engine.worker().call(|_| Ok(())).unwrap();
            assert_eq!(rig.faults.objects().get("buffer"), None, "{when}: dropped");
            if hit.is_none() {
                break;
            }
            hits += 1;
        }
    }
    assert!(hits > 50, "{hits}");
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

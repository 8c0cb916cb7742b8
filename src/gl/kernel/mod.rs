//! Kernels of the kernel language on a context: programs, buffers, slices of the index space, reductions.
//!
//! `device` calls [`Kernels::launch`] on the worker's thread. It builds programs and submits work through `execution`,
//! and touches neither the store nor threads.
//!
//! - **Programs.** The text of a kernel depends on its source, the way of its scalars, the local size, the points of an
//!   invocation (more than one in large launches) and the version of GLSL, and on nothing else. [`prepared`](mod@prepared)
//!   writes it once for each compiled file. The store's key is the text with device and driver, so two processes share a
//!   binary.
//! - **Scalars** are plain uniforms: they cost no memory access, and every device has room for them. The other ways of
//!   [`Parameters`] compute the same, and tests run them.
//! - **`local_size=auto`** is [`AUTO_LOCAL_SIZES`](prepared::AUTO_LOCAL_SIZES) until sizes are raced; no measurement chooses it.
//! - **Slices.** A launch is cut into dispatches of about 100 ms ([`grid`](mod@grid)).
//! - **Results** are read into memory of the launch. The caller copies them into its arrays when all of them are there.
//! - **Buffers of the program** are used in place ([`residents`](crate::gl::execution::residents)). A launch that fails after
//!   its first dispatch takes the contents of those that it may have written.

mod buffers;
mod grid;
mod limits;
mod pace;
mod prepared;
mod reduction;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use crate::allocate;
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::execution::budget::KernelWork;
use crate::gl::execution::dispatch::{self, Ran};
use crate::gl::execution::programs::Programs;
use crate::gl::execution::residents::Residents;
use crate::gl::tunables::MAX_PROGRAMS;
use crate::kernel::bind::Launch;
use crate::kernel::glsl::Parameters;
use crate::kernel::tree::Unit;

use buffers::Bound;
pub use buffers::Results;
use grid::Grid;
use prepared::{Dealing, Prepared};

/// A kernel of a compiled file, and the way of its scalars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// The file's address. The entry's [`Weak`] keeps it from being used again.
    unit: usize,
    kernel: usize,
    parameters: Parameters,
    dealing: Dealing,
    /// What the values in the text are, for [`Parameters::Inline`].
    values: u64,
}

/// The kernels prepared on a context.
#[derive(Default)]
pub struct Kernels {
    prepared: HashMap<Key, (Weak<Unit>, Rc<Prepared>)>,
}

impl Kernels {
    /// Runs a launch that has points. The results are not yet in the launch's arrays.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for what GLSL lacks and for launches beyond the device's limits;
    /// [`Error::Shader`](crate::Error::Shader); [`Error::ContentsLost`](crate::Error::ContentsLost); else the device's failure.
    pub fn launch(
        &mut self,
        programs: &mut Programs,
        residents: &mut Residents,
        launch: &Launch<'_>,
        parameters: Parameters,
    ) -> Result<(Results, Ran)> {
        limits::check_launch(programs.context(), launch)?;
        let prepared = self.prepared(programs, launch, parameters)?;
        let context = programs.context();
        let written = buffers::written(launch)?;
        let bound = Bound::new(context, residents, launch, &prepared);
        let bound = residents.keep_if(bound)?;
        let ran = run(context, launch, &prepared, &bound);
        residents.end(ran, &written)
    }

    fn prepared(
        &mut self,
        programs: &mut Programs,
        launch: &Launch<'_>,
        parameters: Parameters,
    ) -> Result<Rc<Prepared>> {
        let values = if parameters == Parameters::Inline { pace::hash_of_scalars(launch) } else { 0 };
        let unit = Arc::as_ptr(launch.unit()).addr();
        let dealing = Dealing::of(programs.context(), launch);
        let key = Key { unit, kernel: launch.kernel_index(), parameters, dealing, values };
        if let Some((_, prepared)) = self.prepared.get(&key)
            && prepared.has_values_of(launch)
        {
            return Ok(prepared.clone());
        }
        let prepared = Rc::new(Prepared::new(programs, launch, (parameters, dealing))?);
        if self.prepared.len() >= MAX_PROGRAMS {
            self.prepared.retain(|_, (unit, _)| unit.strong_count() > 0);
        }
        if self.prepared.len() >= MAX_PROGRAMS {
            self.prepared.clear();
        }
        allocate::reserve_one(&mut self.prepared, "the kernels of a device")?;
        self.prepared.insert(key, (Arc::downgrade(launch.unit()), prepared.clone()));
        Ok(prepared)
    }
}

/// Dispatches a launch whose buffers are there, and reads its results.
fn run(
    context: &Rc<Context>,
    launch: &Launch<'_>,
    prepared: &Prepared,
    bound: &Bound,
) -> Result<(Results, Ran)> {
    let grid = Grid::new(launch, prepared, context.capabilities());
    let (pace, rate) = prepared.pace(launch, context.group().rate())?;
    let per_unit = f64::from(grid.points_per_unit()) * prepared.operations();
    let work = KernelWork { units: grid.units(), per_group: 1, operations: per_unit };
    bound.bind(context);
    context.check("glBindBufferBase")?;
    let ran =
        dispatch::run_with(context, prepared.program(), (&work, &pace, Some(&rate)), &mut |first, units| {
            if first == 0 {
                prepared.set_scalars(context, launch);
            }
            let slice = grid.slice(first, units);
            prepared.set_slice(context, slice.first, slice.count);
            let [x, y, z] = slice.groups;
            context.api().dispatch_compute(x, y, z);
            context.check("glDispatchCompute")?;
            if first + slice.units >= grid.units() {
                bound.finish_reductions(context, launch, prepared)?;
            }
            Ok(slice.units)
        })?;
    Ok((bound.read(context, launch)?, ran))
}

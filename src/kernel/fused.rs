//! An epilogue as the engines get it: its tree, and its arguments once they are bound.

use std::sync::Arc;

use crate::allocate;
use crate::error::{Error, Result};

use super::bind::{Arg, Launch};
use super::tree::{Epilogue, Kernel, Unit};

/// An epilogue of a compiled file. A [`Launch`] binds its arguments as those of a kernel: [`Launch::kernel`] has its dummies
/// and statements, [`epilogue_of`] is the epilogue itself.
#[derive(Debug, Clone)]
pub struct Fused {
    unit: Arc<Unit>,
    index: usize,
}

impl Fused {
    /// The epilogues of a file, in order.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn all(mut unit: Unit) -> Result<Vec<Self>> {
        let kernels = unit.epilogues.iter().map(|epilogue| Ok(epilogue.as_kernel()));
        // Only these: a place in the list of kernels is that in the list of epilogues.
        unit.kernels = allocate::collected(kernels, "epilogues")?;
        let unit = Arc::new(unit);
        let all = (0..unit.epilogues.len()).map(|index| Ok(Fused { unit: unit.clone(), index }));
        allocate::collected(all, "epilogues")
    }

    /// The epilogue.
    pub fn epilogue(&self) -> &Epilogue {
        &self.unit.epilogues[self.index]
    }

    /// The epilogue whose arguments a launch holds.
    ///
    /// # Errors
    /// As [`epilogue_of`].
    pub fn of(launch: &Launch<'_>) -> Result<Self> {
        epilogue_of(launch)?;
        Ok(Fused { unit: launch.unit().clone(), index: launch.kernel_index() })
    }

    /// The epilogue as a kernel ([`Epilogue::as_kernel`]), for the checks of its arguments.
    pub fn kernel(&self) -> &Kernel {
        &self.unit.kernels[self.index]
    }

    /// The file.
    pub fn unit(&self) -> &Arc<Unit> {
        &self.unit
    }

    /// Checks the arguments: one for each dummy after the value, the channel and the position, in their order.
    ///
    /// # Errors
    /// As [`Launch::new`].
    pub fn bind<'a>(&self, args: &'a mut [Arg<'_>]) -> Result<Launch<'a>> {
        Launch::new(&self.unit, self.index, &[1], args)
    }
}

/// The epilogue whose arguments a launch holds.
///
/// # Errors
/// [`Error::Internal`] if it is the launch of a kernel.
pub fn epilogue_of<'l>(launch: &'l Launch<'_>) -> Result<&'l Epilogue> {
    let epilogue = launch.unit().epilogues.get(launch.kernel_index());
    let epilogue = epilogue.filter(|_| launch.kernel().is_epilogue);
    epilogue.ok_or_else(|| Error::Internal("the launch of a kernel in place of an epilogue's".to_owned()))
}

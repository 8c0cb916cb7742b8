//! Layer 7: calls that several processes ("ranks") compute together.
//!
//! `ffi` and Rust callers use it; it uses `device` and the layers below it. It does no I/O: what ranks send each other
//! goes through a [`Transport`], which the caller provides. So the library contains no MPI; `mpi/sparkle_mpi.c` is a
//! transport over MPI, which the user's `mpicc` compiles.
//!
//! A [`Group`] is a device of this process and a transport. Its calls are collective: every rank makes the same calls in
//! the same order. Before data moves, the ranks agree that all of them can go on (`agreement.rs`). Each has checked its
//! arguments and allocated its memory by then. So a wrong argument or a lack of memory on one rank is an error on all, and
//! no rank waits for one that has given up.
//!
//! Data stays distributed: a rank passes its part of the input and receives its part of the output.
//!
//! | [`Distribution`] | a rank holds | moves in each run |
//! | --- | --- | --- |
//! | [`Batch`](Distribution::Batch) | some images | nothing |
//! | [`Rows`](Distribution::Rows) | some rows of all images | the rows at the edges; the inner rows are computed meanwhile |
//! | [`Channels`](Distribution::Channels) | some channels of input and output | the input, unless there are groups |

mod agreement;
mod conv2d;
mod cut;
mod gemm;
mod plan;
mod resident;
mod rows;
mod transport;

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use crate::device::{Device, Run};
use crate::error::{Error, Result};
use crate::report::Timing;

pub(crate) use conv2d::Wanted;
pub use cut::{Distribution, Span, Weight};
pub use gemm::{GroupGemm, GroupGemmPart};
pub use plan::{GroupPart, GroupPlan, Pending};
pub use transport::{Exchange, Message, Started, Transport};

/// The ranks that compute together, as one of them sees it. Cheap to clone.
///
/// Its calls are collective. They run on the calling thread, and only there do they use the transport. While a call uses the
/// group, another thread's call fails with [`Error::InUse`].
#[derive(Clone)]
pub struct Group(Arc<Inner>);

struct Inner {
    device: Device,
    rank: usize,
    ranks: usize,
    transport: Mutex<Box<dyn Transport>>,
}

impl Group {
    /// The group of all ranks of `transport`; this rank computes on `device`. Collective.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the transport's rank is not one of its ranks, or the ranks use different versions of
    /// the library; [`Error::Transport`].
    pub fn new(device: &Device, transport: Box<dyn Transport>) -> Result<Self> {
        Group::new_settled::<Error>(Ok(device.clone()), transport)
    }

    /// As [`Group::new`], for a device that may be wrong already.
    ///
    /// # Errors
    /// As [`Group::new`].
    pub(crate) fn new_settled<E: From<Error> + std::fmt::Display>(
        device: std::result::Result<Device, E>,
        mut transport: Box<dyn Transport>,
    ) -> std::result::Result<Self, E> {
        let (rank, ranks) = (transport.rank(), transport.ranks());
        if rank >= ranks || i32::try_from(ranks).is_err() {
            let expected = format!("less than the number of ranks, {ranks}, which fits in 31 bits");
            return Err(Error::invalid("rank", rank, expected).into());
        }
        let number = |text: &str| text.parse().unwrap_or(0);
        let facts = [
            ("the major version", number(env!("CARGO_PKG_VERSION_MAJOR"))),
            ("the minor version", number(env!("CARGO_PKG_VERSION_MINOR"))),
            ("the patch level", number(env!("CARGO_PKG_VERSION_PATCH"))),
            ("the number of ranks", ranks as i64),
        ];
        let device = agreement::settle(&mut *transport, (rank, ranks), device, &facts)?;
        Ok(Group(Arc::new(Inner { device, rank, ranks, transport: Mutex::new(transport) })))
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.0.rank
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        self.0.ranks
    }

    /// The device that this rank computes on.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Tells all ranks whether this one can go on. Collective. `local` is this rank's own result, and `facts` are numbers
    /// that must be the same on all ranks.
    ///
    /// # Errors
    /// This rank's own error; [`Error::OtherRank`] if another one failed; [`Error::InvalidArgument`] on all ranks if
    /// they differ about a fact; [`Error::InUse`].
    pub(crate) fn settle<T, E: From<Error> + std::fmt::Display>(
        &self,
        local: std::result::Result<T, E>,
        facts: &[(&'static str, i64)],
    ) -> std::result::Result<T, E> {
        let mut transport = self.transport()?;
        self.settle_on(&mut **transport, local, facts)
    }

    /// As [`Group::settle`], for a caller that goes on with the transport.
    ///
    /// # Errors
    /// As [`Group::settle`].
    fn settle_on<T, E: From<Error> + std::fmt::Display>(
        &self,
        transport: &mut dyn Transport,
        local: std::result::Result<T, E>,
        facts: &[(&'static str, i64)],
    ) -> std::result::Result<T, E> {
        agreement::settle(transport, (self.0.rank, self.0.ranks), local, facts)
    }

    /// Lets messages that are under way go on, without waiting for them. Call it now and then between
    /// [`GroupPlan::begin`] and [`Pending::finish`], if the transport has no thread of its own. Not collective.
    ///
    /// # Errors
    /// [`Error::Transport`], [`Error::InUse`].
    pub fn progress(&self) -> Result<()> {
        self.transport()?.progress()
    }

    fn transport(&self) -> Result<MutexGuard<'_, Box<dyn Transport>>> {
        match self.0.transport.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { what: "the group".to_owned() }),
        }
    }

    /// The report of a rank that has nothing to compute.
    fn idle(&self) -> Run {
        Run::new(self.0.device.id().into(), "none".into(), Timing::default(), None)
    }
}

/// The report of parts that were computed one after the other.
fn merged(runs: impl IntoIterator<Item = Run>) -> Option<Run> {
    runs.into_iter().reduce(|all, run| Run {
        timing: Timing {
            kernel: all.timing.kernel + run.timing.kernel,
            wall: all.timing.wall + run.timing.wall,
            dispatches: all.timing.dispatches.saturating_add(run.timing.dispatches),
        },
        fallback: all.fallback.or(run.fallback),
        ..all
    })
}

//! What a call did.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::report::Timing;

/// What one call did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// Id of the device that computed it; `multi` if several did.
    pub device: Arc<str>,
    /// Name of its kernel; several names are joined by ` + `.
    pub kernel: Arc<str>,
    /// The times of the attempt that succeeded.
    pub timing: Timing,
    /// Why another device than the planned one computed it, or a part of it; `None` without a fallback.
    pub fallback: Option<Arc<str>>,
    /// The shares of the devices; empty unless the call went through the device `multi`.
    pub shares: Shares,
}

impl Run {
    /// A run on one device.
    pub fn new(device: Arc<str>, kernel: Arc<str>, timing: Timing, fallback: Option<Arc<str>>) -> Self {
        Run { device, kernel, timing, fallback, shares: Shares::default() }
    }
}

/// A part of a call that one device computed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Share {
    /// The device's id.
    pub device: Arc<str>,
    /// What was cut.
    pub dimension: Dimension,
    /// The first index of the share in that dimension, from 0.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// The time that was predicted for the share; zero if nothing was predicted, because the split is fixed.
    pub predicted: Duration,
    /// The time that the share took on its device, transfers included.
    pub measured: Duration,
}

/// The dimension in which a call is cut into shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dimension {
    /// The images of a batch.
    Images,
    /// The output channels of a convolution.
    Channels,
    /// The rows of a matrix product.
    Rows,
    /// The columns of a matrix product.
    Columns,
}

impl Dimension {
    /// Its name: `images`, `channels`, `rows`, `columns`.
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Images => "images",
            Dimension::Channels => "channels",
            Dimension::Rows => "rows",
            Dimension::Columns => "columns",
        }
    }
}

/// The shares of a call, in the order of their first index. Cheap to clone; a call without shares allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shares(Option<Arc<[Share]>>);

impl Deref for Shares {
    type Target = [Share];
    fn deref(&self) -> &[Share] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<Vec<Share>> for Shares {
    fn from(shares: Vec<Share>) -> Self {
        Shares((!shares.is_empty()).then(|| shares.into()))
    }
}

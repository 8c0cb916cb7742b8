//! Layer 5: the OpenGL engine.

use std::sync::Arc;

use crate::backend::Backend;
use crate::error::{Error, Result};

pub mod reference;

/// A GL device that was found, usable or not.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Renderer, or what is known of a device that could not be used.
    pub name: String,
    /// Whether it renders in software.
    pub software: bool,
    /// Why it cannot be used; `None` if it can. Usable candidates are `gl:0`, `gl:1`... in this order.
    pub unusable: Option<String>,
    /// Facts for `sparkle info`: vendor, version, how it was found, limits.
    pub facts: Vec<(&'static str, String)>,
}

/// All GL devices, found and probed once a process.
pub fn candidates() -> Vec<Candidate> {
    vec![]
}

/// The engine of `gl:index`, shared by all who hold it.
///
/// # Errors
/// [`Error::NoDevice`] if there is no such device.
pub fn open(index: usize) -> Result<Arc<dyn Backend>> {
    Err(Error::NoDevice { selector: format!("gl:{index}"), reason: "no GL device".into() })
}

/// Closes what nothing refers to any more.
pub fn shutdown() {}

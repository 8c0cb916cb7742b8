//! Layer 5: the OpenGL engine. Compute shaders on any GPU with a GL 4.3 driver, headless through EGL.
//!
//! | folder | what it holds |
//! | --- | --- |
//! | `driver` | EGL, OpenGL and its objects; what a driver can do; leaving the process |
//! | `execution` | programs, passes of generated shaders, dispatches cut short and timed |
//! | `cache` | what is kept from run to run |
//! | `convolution`, `product` | a convolution prepared on a context; matrix products |
//! | `measure` | a device's rates and limits, measured |
//! | `tune` | which variant computes a problem, by prediction and by measurement |
//! | `device` | discovery, the engine, its worker thread and its session |
//! | `pipeline` | jobs in flight: upload, compute and download at once |
//! | `reference` | the reference interface, on the caller's own thread |
//! | `lab` | timing and checking variants, for benchmarks and tests |
//!
//! `crate::device` opens engines here and calls them through `Backend`. Imports point down this table's floors, which
//! `docs/architecture.md` draws. Everything from `execution` to `tune` works on any thread whose current context is the one it is given: the
//! worker's, a pipeline's, or a caller's own in [`reference`](mod@reference).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::backend::Backend;
use crate::error::{Error, Result};

mod cache;
mod convolution;
mod device;
mod driver;
mod execution;
pub mod experience;
pub mod lab;
mod measure;
mod pipeline;
mod product;
pub mod reference;
mod tune;

use device::contexts;
use device::discovery::{self, discovered};
use device::engine::Engine;
use driver::architecture::Architecture;
use driver::exit;

pub use driver::architecture;

/// A GL device that was found, usable or not.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Renderer, or what is known of a device that could not be used.
    pub name: String,
    /// Whether it renders in software.
    pub software: bool,
    /// Why it cannot be used; `None` if it can. Usable candidates are `gl:0`, `gl:1`... in this order.
    pub unusable: Option<String>,
    /// What it is; `None` if it cannot be used.
    pub architecture: Option<Architecture>,
    /// Facts for `sparkle info`: vendor, version, how it was found, limits.
    pub facts: Vec<(&'static str, String)>,
}

/// All GL devices, found and probed once a process. Without an EGL library there is one candidate, which says so; and one where there
/// is no memory to look for them at present.
pub fn candidates() -> Vec<Candidate> {
    let candidate = |found: &discovery::Found| {
        let mut candidate = found.candidate.clone();
        if let Some(capabilities) = &found.capabilities {
            let known = contexts::known(capabilities).map(contexts::Seconds::words);
            let words = known.unwrap_or_else(|| "one context or three: not measured yet".to_owned());
            candidate.facts.push(("pipelines", words));
        }
        candidate
    };
    match discovered() {
        Ok(all) => all.found.iter().map(candidate).collect(),
        Err(error) => vec![discovery::rejected("OpenGL", error.to_string()).candidate],
    }
}

/// Looks for devices, if nobody has yet.
///
/// # Errors
/// [`Error::OutOfMemory`] if the host has no memory for that at present.
pub fn look() -> Result<()> {
    discovered().map(drop)
}

/// The engines in use, by device. Weak: whoever uses one holds it.
static ENGINES: Mutex<BTreeMap<usize, Weak<Engine>>> = Mutex::new(BTreeMap::new());

/// The engine of `gl:index`, shared by all who hold it.
///
/// # Errors
/// [`Error::NoDevice`] if there is no such device; else why it could not be opened.
pub fn open(index: usize) -> Result<Arc<dyn Backend>> {
    engine(index).map(|engine| engine as Arc<dyn Backend>)
}

fn engine(index: usize) -> Result<Arc<Engine>> {
    let no_device = |reason: String| Error::NoDevice { selector: format!("gl:{index}"), reason };
    let all = discovered()?;
    let usable = all.found.iter().filter_map(|found| Some((found, found.target?)));
    let (Some((found, target)), Some(egl)) = (usable.clone().nth(index), &all.egl) else {
        let reasons = all.found.iter().filter_map(|it| it.candidate.unusable.as_deref()).collect::<Vec<_>>();
        let count = usable.count();
        let reason = match reasons.as_slice() {
            [] => format!("{count} usable GL devices"),
            reasons => format!("{count} usable GL devices ({})", reasons.join("; ")),
        };
        return Err(no_device(reason));
    };
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(engine) = engines.get(&index).and_then(Weak::upgrade) {
        return Ok(engine);
    }
    let id = format!("gl:{index}");
    let engine = Arc::new(Engine::new(egl, &id, found.candidate.software, target)?);
    engines.insert(index, Arc::downgrade(&engine));
    Ok(engine)
}

/// Forgets engines that nobody holds; those have closed already when their last holder let go.
pub fn shutdown() {
    if discovery::is_forked() {
        return;
    }
    if let Ok(mut engines) = exit::lock(&ENGINES) {
        engines.retain(|_, engine| engine.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests;

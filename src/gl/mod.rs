//! Layer 5: the OpenGL engine. Compute shaders on any GPU with a GL 4.3 driver, headless through EGL.
//!
//! ```text
//!   mod        candidates(), open(): one engine a device, shared by all who hold it
//!   engine     Backend and Plan; results reach the caller only when all has succeeded
//!   worker     one thread a device, which owns its context
//!   session    the programs and prepared convolutions that live with a context
//!   conv2d, gemm, calibrate       what is run;   dispatch, pace   how: cut short, timed
//!   queued     convolutions between a caller's buffers, for the reference interface
//!   fallback   the kernels that compute everything, deep reductions in several passes;   loops   how deep is too deep
//!   passes, tuning, trial         generated kernels: run, raced against each other, tried;   rates, kept   measured, remembered
//!   resource, fence               GL objects that delete themselves; waiting
//!   forgotten  a driver's contexts that forget their shaders, where several share a program
//!   baseline   one batch as the reference framework computes it, for comparison
//!   pipeline   jobs in flight: upload, compute and download at once, each in a context of its own
//!   exit       leaving the process while a device works
//!   contexts   whether pipelines are faster with three of them
//!   context    share groups and contexts;   capabilities   what the driver can do;   architecture   what the device is
//!   discovery  finding devices and probing them
//!   api, egl   the seams;   native   OpenGL itself
//! ```
//!
//! Everything from `session` down works on any thread whose current context is the one it is given: the worker's, or a caller's
//! own in [`reference`](mod@reference).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::backend::Backend;
use crate::error::{Error, Result};

mod api;
pub mod architecture;
pub mod baseline;
mod calibrate;
mod capabilities;
mod context;
pub(crate) mod contexts;
mod conv2d;
mod discovery;
mod dispatch;
mod egl;
mod engine;
mod exit;
mod fallback;
mod fence;
mod forgotten;
mod gemm;
mod kept;
mod loops;
mod native;
mod pace;
mod passes;
mod pipeline;
mod queued;
mod rates;
pub mod reference;
mod resource;
mod scratch;
mod session;
pub mod trial;
mod tuning;
pub mod tuning_history;
mod worker;

use architecture::Architecture;
use discovery::discovered;
use engine::Engine;

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

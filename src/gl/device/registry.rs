//! The open engines: one for each device, shared by all its users.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::contexts;
use super::discovery::{self, Candidate, discovered};
use super::engine::Engine;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::gl::driver::exit;
use crate::memory::tiles::Gpu;

/// All GL devices, found and probed once in a process. If there is no EGL library, or no memory for discovery at
/// present, the list is one candidate that says so.
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

/// Looks for devices, unless that was done.
///
/// # Errors
/// [`Error::OutOfMemory`] if the host has no memory for it at present.
pub fn look() -> Result<()> {
    discovered().map(drop)
}

/// The open engines by device. Weak: their users hold them.
static ENGINES: Mutex<BTreeMap<usize, Weak<Engine>>> = Mutex::new(BTreeMap::new());

/// The engine of `gl:index`, shared by all its users.
///
/// # Errors
/// [`Error::NoDevice`] if there is no such device; else the reason why it could not be opened.
pub fn open(index: usize) -> Result<Arc<dyn Backend>> {
    engine(index).map(|engine| engine as Arc<dyn Backend>)
}

/// As [`open`], but returns the concrete type.
///
/// # Errors
/// As [`open`].
pub fn engine(index: usize) -> Result<Arc<Engine>> {
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

/// The planner's description of `gl:index`.
///
/// # Errors
/// [`Error::NoDevice`] if there is no such device; else the reason why it could not be measured.
pub fn gpu(index: usize) -> Result<Gpu> {
    engine(index)?.gpu()
}

/// Forgets engines without users. They closed when their last user dropped them.
pub fn shutdown() {
    if discovery::is_forked() {
        return;
    }
    if let Ok(mut engines) = exit::lock(&ENGINES) {
        engines.retain(|_, engine| engine.strong_count() > 0);
    }
}

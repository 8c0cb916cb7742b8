//! Which devices there are, and what a selector means.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Choice;
use super::architecture::Architecture;
use crate::backend::Backend;
use crate::config::config;
use crate::error::{Error, Result};
use crate::{cpu, gl};

/// What kind of engine drives a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU path.
    Cpu,
    /// OpenGL compute.
    Gl,
}

/// A device as [`devices`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The selector that opens it, `cpu` or `gl:N`; `None` if it cannot be used.
    pub id: Option<String>,
    /// What kind of engine drives it.
    pub kind: DeviceKind,
    /// Model or renderer.
    pub name: String,
    /// Whether it is OpenGL in software: right but slow, and never chosen by `auto`.
    pub software: bool,
    /// Why it cannot be used, if so.
    pub unusable: Option<String>,
    /// What GPU it is; `None` for the CPU and what cannot be used.
    pub architecture: Option<Architecture>,
    /// More about it, name and value.
    pub facts: Vec<(&'static str, String)>,
}

/// All devices: the CPU first, then every GL device that was found, usable or not, with the reason.
pub fn devices() -> Vec<DeviceInfo> {
    let (name, facts) = cpu::describe();
    let cpu = DeviceInfo {
        id: Some("cpu".to_owned()),
        kind: DeviceKind::Cpu,
        name,
        software: false,
        unusable: None,
        architecture: None,
        facts,
    };
    let mut next = 0;
    let gl = gl::candidates().into_iter().map(|candidate| {
        let id = candidate.unusable.is_none().then(|| {
            next += 1;
            format!("gl:{}", next - 1)
        });
        DeviceInfo {
            id,
            kind: DeviceKind::Gl,
            name: candidate.name,
            software: candidate.software,
            unusable: candidate.unusable,
            architecture: candidate.architecture,
            facts: candidate.facts,
        }
    });
    std::iter::once(cpu).chain(gl).collect()
}

/// As [`devices`], where an error can be given.
///
/// # Errors
/// [`Error::OutOfMemory`] if the host has no memory to look for devices at present.
pub(crate) fn found() -> Result<Vec<DeviceInfo>> {
    gl::look()?;
    Ok(devices())
}

/// Bytes that a selector may have: messages repeat it.
const LONGEST_SELECTOR: usize = 1000;

/// Opens what `selector` names; `auto` gives way to `SPARKLE_DEVICE`.
pub(super) fn open(selector: &str) -> Result<Choice> {
    // Not a `Once`: the log's callback may open a device itself, and would wait for its own end.
    static COMPLAINED: AtomicBool = AtomicBool::new(false);
    if !COMPLAINED.swap(true, Ordering::Relaxed) {
        config().complaints.iter().for_each(|what| crate::log::warning!("{what}"));
    }
    let asked = match (selector, &config().device) {
        ("auto", Some(device)) => device.as_str(),
        _ => selector,
    };
    if asked == "auto" {
        return Ok(auto());
    }
    if asked == "cpu" {
        return Ok(Choice::Fixed(cpu::open()));
    }
    if asked.len() > LONGEST_SELECTOR {
        let expected = format!("a selector of at most {LONGEST_SELECTOR} bytes");
        return Err(Error::invalid("device", format_args!("\"{asked}\""), expected));
    }
    if let Some(index) = asked.strip_prefix("gl:") {
        let index = index
            .parse()
            .map_err(|_| Error::invalid("device", format!("\"{asked}\""), "gl:N, N from 0 up"))?;
        return gl::open(index).map(Choice::Fixed);
    }
    match asked.strip_prefix("name=").map(str::to_lowercase) {
        Some(text) => by_name(asked, &text),
        None => Err(Error::invalid("device", format!("\"{asked}\""), "auto, cpu, gl:N or name=TEXT")),
    }
}

/// The first usable device whose name contains `text`, given in lower case.
fn by_name(selector: &str, text: &str) -> Result<Choice> {
    let all = found()?;
    let found = all.iter().find(|device| device.id.is_some() && device.name.to_lowercase().contains(text));
    match found.and_then(|device| device.id.as_deref()) {
        Some(id) => open(id),
        None => {
            let names: Vec<&str> =
                all.iter().filter(|device| device.id.is_some()).map(|device| device.name.as_str()).collect();
            let reason = format!("the usable devices are: {}", names.join("; "));
            Err(Error::NoDevice { selector: selector.to_owned(), reason })
        }
    }
}

/// The CPU and every hardware GPU that opens. Which of them is fastest is a measurement, so with
/// `SPARKLE_DETERMINISTIC` it is the CPU.
fn auto() -> Choice {
    if config().deterministic {
        return Choice::Auto { cpu: cpu::open(), gpus: vec![] };
    }
    let mut gpus: Vec<Arc<dyn Backend>> = vec![];
    for (index, candidate) in gl::candidates().iter().filter(|it| it.unusable.is_none()).enumerate() {
        if candidate.software {
            crate::log::info!("auto: gl:{index} ({}) renders in software and is left out", candidate.name);
            continue;
        }
        match gl::open(index) {
            Ok(gpu) => gpus.push(gpu),
            Err(error) => crate::log::warning!("auto: gl:{index} is left out: {error}"),
        }
    }
    Choice::Auto { cpu: cpu::open(), gpus }
}

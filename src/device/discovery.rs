//! Lists the devices and resolves selectors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::choice::EngineChoice;
use super::multi::{MAX_MEMBERS, Member, Multi};
use crate::backend::Backend;
use crate::config::config;
use crate::error::{Error, Result};
use crate::gl::architecture::Architecture;
use crate::{cpu, gl};

/// The kind of engine that drives a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The CPU engine.
    Cpu,
    /// OpenGL compute.
    Gl,
}

/// One device in the list of [`devices`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The selector that opens it, `cpu` or `gl:N`; `None` if it cannot be used.
    pub id: Option<String>,
    /// The engine that drives it.
    pub kind: DeviceKind,
    /// The CPU's model or the GL renderer's name.
    pub name: String,
    /// Whether it is a software renderer: correct but slow, and never chosen by `auto`.
    pub software: bool,
    /// Why it cannot be used; `None` if it can.
    pub unusable: Option<String>,
    /// The GPU's architecture; `None` for the CPU and for unusable devices.
    pub architecture: Option<Architecture>,
    /// Further selectors that open it: its files, `pci:ADDRESS`, `uuid:UUID`, `cuda:N`, as far as the system and the
    /// driver tell them. They do not depend on the other devices.
    pub names: Vec<String>,
    /// Further facts, as pairs of name and value.
    pub facts: Vec<(&'static str, String)>,
}

/// Lists all devices: the CPU first, then every GL device that was found, usable or not.
pub fn devices() -> Vec<DeviceInfo> {
    let (name, facts) = cpu::describe();
    let cpu = DeviceInfo {
        id: Some("cpu".to_owned()),
        kind: DeviceKind::Cpu,
        name,
        software: false,
        unusable: None,
        architecture: None,
        names: vec![],
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
            names: candidate.names,
            facts: candidate.facts,
        }
    });
    std::iter::once(cpu).chain(gl).collect()
}

/// As [`devices`], but reports an error.
///
/// # Errors
/// [`Error::OutOfMemory`] if the host has no memory for the search.
pub(crate) fn found() -> Result<Vec<DeviceInfo>> {
    gl::look()?;
    Ok(devices())
}

/// Maximum length of a selector in bytes. Error messages quote the selector.
const MAX_SELECTOR_LEN: usize = 1000;

/// Opens the device that `selector` names. `SPARKLE_DEVICE` replaces `auto`.
pub(super) fn open(selector: &str) -> Result<EngineChoice> {
    // Not a `Once`: the log's callback may itself open a device, and would deadlock.
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        config().ignored.iter().for_each(|what| crate::log::warning!("{what}"));
    }
    let asked = match (selector, &config().device) {
        ("auto", Some(device)) => device.as_str(),
        _ => selector,
    };
    if asked == "auto" {
        return Ok(auto());
    }
    if asked == "cpu" {
        return Ok(EngineChoice::Fixed(cpu::open()));
    }
    if asked.len() > MAX_SELECTOR_LEN {
        let expected = format!("a selector of at most {MAX_SELECTOR_LEN} bytes");
        return Err(Error::invalid("device", format_args!("\"{asked}\""), expected));
    }
    if asked == "multi" {
        return Ok(EngineChoice::Multi(Arc::new(all_together())));
    }
    if let Some(members) = asked.strip_prefix("multi:") {
        return Ok(EngineChoice::Multi(Arc::new(named_together(asked, members)?)));
    }
    if let Some(index) = asked.strip_prefix("gl:") {
        let index = index
            .parse()
            .map_err(|_| Error::invalid("device", format!("\"{asked}\""), "gl:N with N = 0, 1, ..."))?;
        return gl::open(index).map(EngineChoice::Fixed);
    }
    if gl::is_name(asked) {
        return by_stable_name(asked);
    }
    match asked.strip_prefix("name=").map(str::to_lowercase) {
        Some(text) => by_name(asked, &text),
        None => {
            let expected = "auto, multi, cpu, gl:N, a stable name or name=TEXT";
            Err(Error::invalid("device", format!("\"{asked}\""), expected))
        }
    }
}

/// The CPU and every hardware GPU, to share the work of each call.
fn all_together() -> Multi {
    let gpus = hardware("multi").into_iter().map(|gpu| Member::new(gpu, true));
    let members = gpus.chain([Member::new(cpu::open(), false)]).collect();
    Multi::new("multi".to_owned(), members, None)
}

/// The devices of a list like `gl:0,gl:1=2,cpu`, to share the work of each call. A number after `=` is the device's
/// weight; if there is one, devices without it have the weight 1, and the shares are fixed.
fn named_together(selector: &str, list: &str) -> Result<Multi> {
    let refused = |expected: &str| Error::invalid("device", format_args!("\"{selector}\""), expected);
    let (mut members, mut weights, mut has_weights) = (vec![], vec![], false);
    let mut ids: Vec<String> = vec![];
    for entry in list.split(',').map(str::trim) {
        let (name, weight) = match entry.split_once('=') {
            Some((name, weight)) => (name.trim(), Some(weight.trim())),
            None => (entry, None),
        };
        let weight = match weight.map(str::parse::<f64>) {
            None => 1.0,
            Some(Ok(weight)) if (1e-6..=1e6).contains(&weight) => weight,
            Some(_) => return Err(refused("weights from 0.000001 to 1000000")),
        };
        has_weights |= entry.contains('=');
        if !(name == "cpu" || name.starts_with("gl:") || gl::is_name(name)) {
            return Err(refused(
                "multi: with a list of cpu, gl:N and stable names, each with =WEIGHT or without",
            ));
        }
        let EngineChoice::Fixed(backend) = open(name)? else {
            return Err(Error::Internal(format!("{name} is several devices")));
        };
        if ids.iter().any(|id| id == backend.id()) {
            return Err(refused("different devices"));
        }
        ids.push(backend.id().to_owned());
        let is_software = devices().iter().any(|it| it.id.as_deref() == Some(backend.id()) && it.software);
        let is_hardware_gpu = backend.id() != "cpu" && !is_software;
        members.push(Member::new(backend, is_hardware_gpu));
        weights.push(weight);
        if members.len() > MAX_MEMBERS {
            return Err(refused(&format!("at most {MAX_MEMBERS} devices")));
        }
    }
    Ok(Multi::new(selector.to_owned(), members, has_weights.then_some(weights)))
}

/// Opens the usable device with this stable name.
fn by_stable_name(selector: &str) -> Result<EngineChoice> {
    let all = found()?;
    let usable = all.iter().filter(|device| device.id.is_some());
    let means = |device: &&DeviceInfo| device.names.iter().any(|name| gl::means(selector, name));
    match usable.clone().find(means).and_then(|device| device.id.as_deref()) {
        Some(id) => open(id),
        None => {
            let names: Vec<&str> = usable.flat_map(|device| &device.names).map(String::as_str).collect();
            let reason = match names.as_slice() {
                [] => "no usable device has such a name".to_owned(),
                names => format!("the names of the usable devices are {}", names.join(", ")),
            };
            Err(Error::NoDevice { selector: selector.to_owned(), reason })
        }
    }
}

/// Opens the first usable device whose name contains `text`, which is in lower case.
fn by_name(selector: &str, text: &str) -> Result<EngineChoice> {
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

/// The CPU and every hardware GPU that can be opened. With `SPARKLE_DETERMINISTIC` only the CPU, because choosing the
/// fastest device depends on measurements.
fn auto() -> EngineChoice {
    if config().deterministic {
        return EngineChoice::auto(cpu::open(), vec![]);
    }
    EngineChoice::auto(cpu::open(), hardware("auto"))
}

/// Every hardware GPU that can be opened, for the device `name`.
fn hardware(name: &str) -> Vec<Arc<dyn Backend>> {
    let mut gpus: Vec<Arc<dyn Backend>> = vec![];
    for (index, candidate) in gl::candidates().iter().filter(|it| it.unusable.is_none()).enumerate() {
        if candidate.software {
            crate::log::info!(
                "{name}: gl:{index} ({}) is skipped: it is a software renderer",
                candidate.name
            );
            continue;
        }
        match gl::open(index) {
            Ok(gpu) => gpus.push(gpu),
            Err(error) => crate::log::warning!("{name}: gl:{index} is skipped: {error}"),
        }
    }
    gpus
}

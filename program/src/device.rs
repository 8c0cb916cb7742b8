//! The `--device` option, and how reports name devices.

use sparkle::{Device, DeviceInfo, DeviceKind, Run};

use crate::failure::Failure;

/// `--device`, for the commands that have one.
#[derive(clap::Args)]
pub struct DeviceOption {
    /// Device to run on: auto, multi, cpu, gl:N, a stable name or name=TEXT
    #[arg(long, value_name = "D", default_value = "auto")]
    pub device: String,
}

impl DeviceOption {
    /// Opens the device.
    ///
    /// # Errors
    /// If the selector is malformed, or matches no usable device.
    pub fn open(&self) -> Result<Device, Failure> {
        Ok(Device::open(&self.device)?)
    }
}

/// The device that computed, marked if it replaced another.
pub fn label(run: &Run) -> String {
    if run.fallback.is_some() { format!("{} (fallback)", run.device) } else { run.device.to_string() }
}

/// A device as reports list it.
#[derive(serde::Serialize)]
pub struct Listed {
    /// The selector that opens it.
    pub id: Option<String>,
    kind: &'static str,
    /// Model or renderer.
    pub name: String,
    /// Whether it can be used.
    pub usable: bool,
    /// Whether it is OpenGL in software.
    pub software: bool,
    /// Why it cannot be used, if so.
    pub reason: Option<String>,
    /// Properties: name and value.
    #[serde(serialize_with = "as_object")]
    pub facts: Vec<(&'static str, String)>,
}

fn as_object<S: serde::Serializer>(
    facts: &[(&'static str, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(facts.iter().map(|(name, value)| (name, value)))
}

impl From<DeviceInfo> for Listed {
    fn from(device: DeviceInfo) -> Self {
        Listed {
            usable: device.unusable.is_none(),
            id: device.id,
            kind: match device.kind {
                DeviceKind::Cpu => "cpu",
                DeviceKind::Gl => "gl",
                _ => "other",
            },
            name: device.name,
            software: device.software,
            reason: device.unusable,
            facts: device.facts,
        }
    }
}

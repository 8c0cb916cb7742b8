//! Devices: what there is, and handles to them.

use std::ffi::c_char;
use std::sync::Arc;

use super::boundary::Call;
use super::handle::{self, Opaque, Shared, Table};
use super::pointer::{self, Growing};
use super::status::{Outcome, sparkle_status};
use crate::device::{Device, DeviceInfo, DeviceKind, found};
use crate::error::Error;

/// An opened device.
pub struct sparkle_device {
    _opaque: [u8; 0],
}

impl Opaque for sparkle_device {
    type Value = Device;
    const MARK: usize = 1;
    const NAME: &'static str = "device";
    fn table() -> &'static Table<Device> {
        static DEVICES: Table<Device> = Shared::new(std::collections::BTreeMap::new());
        &DEVICES
    }
    fn dies_in_a_fork(device: &Device) -> bool {
        // `auto` goes on with the CPU.
        device.id().starts_with("gl:")
    }
}

/// What kind of engine drives a device.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_device_kind {
    /// The processor.
    SPARKLE_DEVICE_KIND_CPU = 0,
    /// OpenGL compute.
    SPARKLE_DEVICE_KIND_GL = 1,
}

/// A device as sparkle_device_describe shows it. Texts are UTF-8, end with a NUL, and are cut where they are too long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_device_info {
    /// sizeof(sparkle_device_info), set by the caller.
    pub size: usize,
    /// A sparkle_device_kind.
    pub kind: i32,
    /// 1 if sparkle_device_open can open it.
    pub usable: i32,
    /// 1 if it is OpenGL in software: right but slow, and never chosen by "auto".
    pub software: i32,
    /// The selector that opens it, "" if it is not usable.
    pub id: [c_char; 32],
    /// Model or renderer.
    pub name: [c_char; 256],
    /// Why it is not usable, "" if it is.
    pub reason: [c_char; 512],
}

// SAFETY: repr(C), integers only, size first.
unsafe impl Growing for sparkle_device_info {
    const NAME: &'static str = "sparkle_device_info";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, reason) + size_of::<[c_char; 512]>();
}

impl From<&DeviceInfo> for sparkle_device_info {
    fn from(device: &DeviceInfo) -> Self {
        let kind = match device.kind {
            DeviceKind::Cpu => sparkle_device_kind::SPARKLE_DEVICE_KIND_CPU,
            DeviceKind::Gl => sparkle_device_kind::SPARKLE_DEVICE_KIND_GL,
        };
        let mut info = sparkle_device_info {
            size: size_of::<Self>(),
            kind: kind as i32,
            usable: device.id.is_some().into(),
            software: device.software.into(),
            id: [0; 32],
            name: [0; 256],
            reason: [0; 512],
        };
        pointer::copy_text(device.id.as_deref().unwrap_or_default(), &mut info.id);
        pointer::copy_text(&device.name, &mut info.name);
        pointer::copy_text(device.unusable.as_deref().unwrap_or_default(), &mut info.reason);
        info
    }
}

/// The number of devices, usable or not, into `*out`. Index 0 is the CPU. The first call probes the GPUs, which may
/// take a second.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_device_count(out: *mut usize) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out", out)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, found()?.len()) }
    })
}

/// Describes a device into `*out`, whose `size` the caller has set. `index` counts from 0 to below the number of
/// devices; another one is SPARKLE_ERROR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_device_describe(
    index: usize,
    out: *mut sparkle_device_info,
) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out", out)?;
        let all = found()?;
        let expected = || format!("less than the number of devices, {}", all.len());
        let device = all.get(index).ok_or_else(|| Error::invalid("index", index, expected()))?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &device.into()) }
    })
}

/// Opens a device and puts its handle into `*out`. `selector`: "auto" or NULL (what SPARKLE_DEVICE says, or else for
/// each problem the device predicted fastest, with the CPU standing in if a GPU fails), "cpu", "gl:0" and so on (as
/// sparkle_device_describe lists them), or "name=TEXT" (the first whose name contains TEXT). A device other than
/// "auto" never stands back: its errors are returned. The caller closes the handle.
///
/// SPARKLE_ERROR_NO_DEVICE if nothing usable fits; the last error says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_device_open(
    selector: *const c_char,
    out: *mut *mut sparkle_device,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let selector = if selector.is_null() {
            "auto"
        } else {
            // SAFETY: C's promise for `selector`.
            unsafe { pointer::text("selector", selector)? }
        };
        let device = handle::insert(call, Device::open(selector)?)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, device) }
    })
}

/// Closes a device; NULL is fine. Plans made from it stay valid.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_device_close(device: *mut sparkle_device) -> sparkle_status {
    boundary!(|call| { if device.is_null() { Ok(()) } else { handle::remove(call, "device", device) } })
}

/// The device that NULL means, opened once, and the process that opened it.
static AUTO: Shared<Option<(u32, Arc<Device>)>> = Shared::new(None);

/// The device that a call is to use.
pub(super) fn resolve(call: &Call, device: *const sparkle_device) -> Outcome<Arc<Device>> {
    if !device.is_null() {
        return handle::get(call, "device", device);
    }
    let own = |auto: &Option<(u32, Arc<Device>)>| match auto {
        Some((process, device)) if *process == call.process() => Some(device.clone()),
        _ => None,
    };
    if let Some(device) = own(&*AUTO.lock(call)?) {
        return Ok(device);
    }
    // Unlocked: to open takes time, and writes to the log, whose callback may call Sparkle.
    let device = Arc::new(Device::open("auto")?);
    if crate::loader::is_held() {
        // GPUs could not be looked for: not to be kept.
        return Ok(device);
    }
    let mut auto = AUTO.lock(call)?;
    if let Some(first) = own(&auto) {
        return Ok(first);
    }
    // A parent process's, whose GPUs are of no use here and must not be closed from here.
    std::mem::forget(auto.replace((call.process(), device.clone())));
    Ok(device)
}

/// Closes the device that NULL means; the next call opens it again.
pub(super) fn forget_auto(call: &Call) -> Outcome<()> {
    let auto = AUTO.lock(call)?.take();
    match auto {
        Some((process, device)) if process != call.process() => std::mem::forget(device),
        own => drop(own),
    }
    Ok(())
}

//! Devices: the list of them, and their handles.

use std::ffi::c_char;
use std::sync::Arc;

use super::boundary::Call;
use super::handle::{self, Opaque, Shared, Table};
use super::pointer::{self, Growing};
use super::status::{Outcome, sparkle_status};
use crate::device::{Device, DeviceInfo, DeviceKind, found};
use crate::error::Error;

/// An opened device. Any number of threads may use it at once.
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
        // `auto` continues with the CPU.
        device.is_gl()
    }
}

/// The kind of engine that drives a device.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_device_kind {
    /// The processor.
    SPARKLE_DEVICE_KIND_CPU = 0,
    /// OpenGL compute.
    SPARKLE_DEVICE_KIND_GL = 1,
}

/// A device as sparkle_device_describe shows it. Texts are UTF-8, end with a NUL, and are truncated if they are too
/// long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_device_info {
    /// sizeof(sparkle_device_info), set by the caller.
    pub size: usize,
    /// A sparkle_device_kind.
    pub kind: i32,
    /// 1 if sparkle_device_open can open it, else 0.
    pub usable: i32,
    /// 1 if it is a software renderer (correct but slow, and never chosen by "auto"), else 0.
    pub software: i32,
    /// The selector that opens it, "" if it is not usable.
    pub id: [c_char; 32],
    /// The CPU's model or the GL renderer's name.
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

/// Writes the number of devices, usable or not, to `*out`. Index 0 is the CPU. The first call probes the GPUs, which
/// may take a second.
///
/// SPARKLE_ERROR_OUT_OF_MEMORY if there is no memory to look for GPUs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_device_count(out: *mut usize) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out", out)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, found()?.len()) }
    })
}

/// Describes the device at `index` into `*out`, whose `size` the caller has set. `index` is less than the number of
/// devices.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT for any other `index`.
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

/// Opens a device and writes its handle to `*out`. The caller closes the handle with sparkle_device_close. `selector`
/// is one of:
/// - "auto" or NULL: the device that SPARKLE_DEVICE names, or else, for each problem, the device with the shortest
///   predicted time. If a GPU fails, the CPU computes the problem;
/// - "multi": the CPU and all hardware GPUs together share the work of each call: images of a batch, or output channels
///   if there are fewer images than devices, or rows or columns of a product. The shares are learned from the calls.
///   "multi:gl:0,gl:1=2,cpu" names the devices; if one has a weight, the weights fix the shares. sparkle_last_shares
///   tells who did what. If a device fails, the others compute its share. Only if the CPU fails as well, an output may
///   be partly written;
/// - "cpu", or "gl:0", "gl:1" and so on, as sparkle_device_describe lists them;
/// - "pci:ADDRESS", "uuid:UUID", "cuda:N" or the path of a render node: names that do not depend on other devices, where
///   the system and the driver tell them; "sparkle info" lists them;
/// - "name=TEXT": the first usable device whose name contains TEXT; case is ignored.
///
/// A device other than "auto" and "multi" does not fall back to the CPU: its errors are returned. The one exception is a GPU that
/// is lost after part of a large output was written: the CPU then recomputes the output, and sparkle_last_timing reports it.
///
/// SPARKLE_ERROR_NO_DEVICE if no usable device matches; the last error says why. SPARKLE_ERROR_INVALID_ARGUMENT for an
/// invalid selector.
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

/// Closes a device; NULL is ignored. Plans made from it stay valid.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_device_close(device: *mut sparkle_device) -> sparkle_status {
    boundary!(|call| { if device.is_null() { Ok(()) } else { handle::remove(call, "device", device) } })
}

/// The device for a NULL handle, opened once per process, with the process that opened it.
static AUTO: Shared<Option<(u32, Arc<Device>)>> = Shared::new(None);

/// The device of a handle; NULL means `auto`.
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
    // Not under the lock: opening takes time and writes to the log, whose callback may call Sparkle.
    let device = Arc::new(Device::open("auto")?);
    if crate::loader::is_held() {
        // GPUs cannot be searched for while the loader is held, so this device is not kept.
        return Ok(device);
    }
    let mut auto = AUTO.lock(call)?;
    if let Some(first) = own(&auto) {
        return Ok(first);
    }
    // An entry of the parent process: its GPUs cannot be used or closed here.
    std::mem::forget(auto.replace((call.process(), device.clone())));
    Ok(device)
}

/// Closes the device for NULL handles; the next call that needs it opens it again.
pub(super) fn forget_auto(call: &Call) -> Outcome<()> {
    let auto = AUTO.lock(call)?.take();
    match auto {
        Some((process, device)) if process != call.process() => std::mem::forget(device),
        own => drop(own),
    }
    Ok(())
}

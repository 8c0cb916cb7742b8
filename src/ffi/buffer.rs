//! Buffers: memory that lives on a device.

use std::ffi::c_void;
use std::ptr::NonNull;

use super::device::{self, sparkle_device};
use super::handle::{self, Opaque, Shared, Table};
use super::launch;
use super::mapping::Access;
use super::pointer;
use super::status::{Outcome, sparkle_status};
use crate::device::{Buffer, BufferView};
use crate::error::Error;

/// Memory that lives on a device. Threads may use one at once as long as no call writes it.
pub struct sparkle_buffer {
    _opaque: [u8; 0],
}

impl Opaque for sparkle_buffer {
    type Value = Buffer;
    const MARK: usize = 13;
    const NAME: &'static str = "buffer";
    fn table() -> &'static Table<Buffer> {
        static BUFFERS: Table<Buffer> = Shared::new(std::collections::BTreeMap::new());
        &BUFFERS
    }
    fn dies_in_a_fork(buffer: &Buffer) -> bool {
        buffer.dies_in_a_fork()
    }
}

/// Allocates a buffer of `length` elements of a sparkle_type, zeros at first, and writes its handle to `*out`. It lives on
/// the device; `device` NULL means "auto", which takes its first GPU, or the CPU without one. The buffer stays valid when
/// the device is closed. The caller destroys it with sparkle_buffer_destroy.
///
/// Calls that take buffers read and write them in place, without a transfer. Such a call runs on the buffers' device: its
/// device is that one or "auto", and it does not fall back to the CPU. All buffers of a call belong to one device.
///
/// A lost device loses the contents of its buffers, and so does a call that fails while it writes them. Every use then
/// returns SPARKLE_ERROR_CONTENTS_LOST until all of the buffer is written. A buffer that a call writes must not be in use by
/// another call: whichever comes second returns SPARKLE_ERROR_BUSY and does nothing.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT for an unknown type, or a length that the address space has not;
/// SPARKLE_ERROR_UNSUPPORTED for "multi", because a buffer lives on one device; SPARKLE_ERROR_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_buffer_create(
    device: *mut sparkle_device,
    r#type: i32,
    length: usize,
    out: *mut *mut sparkle_buffer,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let ty = launch::element_type(r#type)
            .ok_or_else(|| Error::invalid("type", r#type, "a sparkle_type, 0 to 4"))?;
        let buffer = device::resolve(call, device)?.buffer_inside(length, ty)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, buffer)?) }
    })
}

/// The bytes of `length` elements of a buffer at C's `data`, whose memory allows `access`. None if there are none.
fn bytes(buffer: &Buffer, data: *const c_void, length: usize, access: Access) -> Outcome<NonNull<[u8]>> {
    let size = buffer.element_type().bytes();
    pointer::check_range_of("data", (data, length), size, access)?;
    let start = NonNull::new(data.cast_mut().cast::<u8>()).filter(|_| length > 0);
    Ok(NonNull::slice_from_raw_parts(start.unwrap_or(NonNull::dangling()), length * size))
}

/// Copies `length` elements at `data` to a buffer, from element `offset` on. `data` has the buffer's type.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if they do not fit; SPARKLE_ERROR_CONTENTS_LOST for a part of a buffer whose contents were
/// lost; SPARKLE_ERROR_BUSY if another call uses the buffer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_buffer_write(
    buffer: *mut sparkle_buffer,
    offset: usize,
    data: *const c_void,
    length: usize,
) -> sparkle_status {
    boundary!(|call| {
        let buffer = handle::get(call, "buffer", buffer)?;
        let data = bytes(&buffer, data, length, Access::Read)?;
        // SAFETY: not NULL and of at most isize::MAX bytes, as just checked; readable and not written to, as C promises.
        let data = unsafe { data.as_ref() };
        Ok(buffer.write_bytes((offset, length), data)?)
    })
}

/// Copies `length` elements of a buffer, from element `offset` on, to `data`, which has the buffer's type.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if there are not so many; SPARKLE_ERROR_CONTENTS_LOST; SPARKLE_ERROR_BUSY if another call
/// writes the buffer. After a failure of the device, `data` is undefined.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_buffer_read(
    buffer: *mut sparkle_buffer,
    offset: usize,
    data: *mut c_void,
    length: usize,
) -> sparkle_status {
    boundary!(|call| {
        let buffer = handle::get(call, "buffer", buffer)?;
        let mut data = bytes(&buffer, data, length, Access::Write)?;
        // SAFETY: as in sparkle_buffer_write; also writable and used by nothing else, as C promises.
        let data = unsafe { data.as_mut() };
        Ok(buffer.read_bytes((offset, length), data)?)
    })
}

/// `len` elements of a buffer from `offset` on, as C's argument `name`.
pub(super) fn part<'a>(
    name: &'static str,
    buffer: &'a Buffer,
    (offset, len): (usize, usize),
) -> Outcome<BufferView<'a>> {
    let given = format_args!("{len} elements from {offset} on of a buffer");
    let expected = || format!("at most the {} that it has", buffer.len());
    buffer.view(offset, len).map_err(|_| Error::invalid(name, given, expected()).into())
}

/// Destroys a buffer; NULL is ignored. Running calls end normally.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_buffer_destroy(buffer: *mut sparkle_buffer) -> sparkle_status {
    boundary!(|call| { if buffer.is_null() { Ok(()) } else { handle::remove(call, "buffer", buffer) } })
}

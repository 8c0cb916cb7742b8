//! The memory of the slots: on the host's side and on the device's, for input and output.

use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use super::ring::Stage;
use crate::allocate;
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Buffer, Region};

/// What all threads know of a slot's memory. It changes only while the slot is being prepared.
#[derive(Debug, Clone, Copy)]
pub struct SlotMemory {
    /// Host's side of the input.
    pub input: NonNull<u8>,
    /// Host's side of the output.
    pub output: NonNull<u8>,
    /// Bytes of each.
    capacity: [usize; 2],
    /// Buffers that hold the host's sides; `None` if the driver cannot keep buffers mapped.
    pub staging: Option<[u32; 2]>,
    /// Buffers on the device's side.
    device: [u32; 2],
    /// The fences behind the last upload and the last computation.
    pub fences: [usize; 3],
    /// Dispatches of the last stage.
    pub dispatches: u32,
    /// When the last stage that was seen to end did so, as the pipeline's age.
    pub landed: Duration,
}

// SAFETY: addresses and names; who uses what they stand for, the ring decides.
unsafe impl Send for SlotMemory {}

impl SlotMemory {
    /// No memory.
    pub const NONE: SlotMemory = SlotMemory {
        input: NonNull::dangling(),
        output: NonNull::dangling(),
        capacity: [0; 2],
        staging: None,
        device: [0; 2],
        fences: [0; 3],
        dispatches: 0,
        landed: Duration::ZERO,
    };

    /// The device's side of the input and of the output.
    pub fn regions(&self, bytes: [usize; 2]) -> [Region; 2] {
        [0, 1].map(|side| Region { buffer: self.device[side], offset: 0, bytes: bytes[side] })
    }

    /// The fence that comes before `stage`.
    pub fn fence_before(&self, stage: Stage) -> Option<usize> {
        (stage as usize).checked_sub(1).map(|before| self.fences[before])
    }

    /// Whether it has room for these many bytes.
    pub fn fits(&self, bytes: [usize; 2]) -> bool {
        self.capacity[0] >= bytes[0] && self.capacity[1] >= bytes[1]
    }
}

/// What owns it, on the thread of the upload.
#[derive(Default)]
pub struct SlotBuffers {
    _host: Vec<Host>,
    _device: Vec<Buffer>,
}

/// Memory on the host's side.
enum Host {
    Mapped {
        _buffer: Buffer,
    },
    /// Where the driver cannot keep buffers mapped.
    Plain {
        _memory: Vec<u64>,
    },
}

impl SlotBuffers {
    /// Memory for at least these many bytes of input and output.
    ///
    /// # Errors
    /// What the device lacks.
    pub fn new(context: &Rc<Context>, bytes: [usize; 2]) -> Result<(Self, SlotMemory)> {
        let capacity = bytes.map(rounded);
        let (mut host, mut addresses, mut staging) = (vec![], vec![], vec![]);
        let mut device = vec![];
        for bytes in capacity {
            if context.capabilities().buffer_storage {
                let (buffer, address) = Buffer::mapped(context, bytes)?;
                staging.push(buffer.name());
                addresses.push(address);
                host.push(Host::Mapped { _buffer: buffer });
            } else {
                let mut memory: Vec<u64> = allocate::zeroed(bytes.div_ceil(8), "a slot")?;
                addresses.push(NonNull::new(memory.as_mut_ptr().cast()).expect("a Vec's address"));
                host.push(Host::Plain { _memory: memory });
            }
            device.push(Buffer::new(context, bytes)?);
        }
        // Other contexts see the buffers once they are there.
        context.api().finish();
        context.check("glFinish")?;
        let memory = SlotMemory {
            input: addresses[0],
            output: addresses[1],
            capacity,
            staging: staging.try_into().ok(),
            device: [device[0].name(), device[1].name()],
            fences: [0; 3],
            dispatches: 0,
            landed: Duration::ZERO,
        };
        Ok((SlotBuffers { _host: host, _device: device }, memory))
    }
}

/// Bytes of a slot for `bytes` of input and output: on the host's side, where the device fetches and leaves them, and on the device's.
pub fn bytes_of_slot(bytes: [usize; 2]) -> usize {
    2 * bytes.into_iter().map(rounded).sum::<usize>()
}

/// Rounds up, so that jobs of slightly different sizes do not each need new memory.
fn rounded(bytes: usize) -> usize {
    const STEP: usize = 1 << 20;
    if bytes < STEP { bytes.max(4096).next_power_of_two() } else { bytes.next_multiple_of(STEP) }
}

//! The memory of the slots, on the host's side and on the device's, for input and output.

use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use super::ring::Stage;
use crate::allocate;
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Buffer, Region};

/// What all threads know of a slot's memory. Addresses, sizes and buffers change only while the slot is being
/// prepared.
#[derive(Debug, Clone, Copy)]
pub struct SlotMemory {
    /// The input on the host's side.
    pub input: NonNull<u8>,
    /// The output on the host's side.
    pub output: NonNull<u8>,
    /// Capacity of input and output in bytes.
    capacity: [usize; 2],
    /// The buffers whose mapped memory is the host's side; `None` if the driver cannot keep buffers mapped.
    pub staging: Option<[u32; 2]>,
    /// The buffers on the device's side.
    device: [u32; 2],
    /// The fences after the last commands of each stage.
    pub fences: [usize; 3],
    /// Dispatches of the last submission.
    pub dispatches: u32,
    /// When the last completed stage ended, as the pipeline's age.
    pub completed_at: Duration,
}

// SAFETY: these are only addresses and names. The ring decides which thread uses what they refer to.
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
        completed_at: Duration::ZERO,
    };

    /// The buffers on the device's side, for input and output of `bytes` bytes.
    pub fn regions(&self, bytes: [usize; 2]) -> [Region; 2] {
        [0, 1].map(|side| Region { buffer: self.device[side], offset: 0, bytes: bytes[side] })
    }

    /// The fence of the stage before `stage`.
    pub fn fence_before(&self, stage: Stage) -> Option<usize> {
        (stage as usize).checked_sub(1).map(|before| self.fences[before])
    }

    /// Whether it has room for `bytes` bytes of input and output.
    pub fn fits(&self, bytes: [usize; 2]) -> bool {
        self.capacity[0] >= bytes[0] && self.capacity[1] >= bytes[1]
    }
}

/// Owns a slot's memory, on the upload thread.
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
    /// Ordinary memory, where the driver cannot keep buffers mapped.
    Plain {
        _memory: Vec<u64>,
    },
}

impl SlotBuffers {
    /// Memory for at least `bytes` bytes of input and output.
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
        // Other contexts can use the buffers only once they exist.
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
            completed_at: Duration::ZERO,
        };
        Ok((SlotBuffers { _host: host, _device: device }, memory))
    }
}

/// Bytes of a slot for `bytes` bytes of input and output, on the host's side and on the device's together.
pub fn bytes_of_slot(bytes: [usize; 2]) -> usize {
    2 * bytes.into_iter().map(rounded).sum::<usize>()
}

/// Rounds up, so that jobs of similar sizes can share memory.
fn rounded(bytes: usize) -> usize {
    const STEP: usize = 1 << 20;
    if bytes < STEP { bytes.max(4096).next_power_of_two() } else { bytes.next_multiple_of(STEP) }
}

//! The micro-kernel on explicit vectors, written once for every instruction set that has fused multiply-adds
//! and masks. Only `src/cpu` calls this folder; it touches only the memory that its callers name.
//!
//! ```text
//!                 b: one row of V vectors a step, in registers
//!                 +--------+--------+--------+
//!   a: M elements | vector | vector | vector |
//!   a step, one   +--------+--------+--------+
//!   at a time  +-+----------------------------
//!   broadcast  | |  M x V accumulators, all in registers; an element of A meets V vectors of B
//!              +-+
//! ```
//!
//! M and V are constants of an instance. The edge of C runs an instance of its own size, so only lanes of one last
//! vector are computed in vain. Those lanes are masked: neither B nor C is touched beyond its edge.

pub(in crate::cpu) mod copy;
mod define;
pub(in crate::cpu) mod dots;
pub(in crate::cpu) mod pixels;
pub(in crate::cpu) mod register;
pub(in crate::cpu) mod tile;
pub(in crate::cpu) mod view;

pub(in crate::cpu) use define::{define_vector_kernel, for_vectors};
pub(in crate::cpu) use register::finish_one;
pub(in crate::cpu) use register::{Vector, unrolled};
pub(in crate::cpu) use view::{is_whole, view_of};

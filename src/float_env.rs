//! The floating-point environment of the library, which is independent of the caller's.
//!
//! A thread's environment controls rounding, the flushing of denormals to zero, and the exceptions that raise a signal.
//! Programs change it (`-ffpe-trap=invalid`, `-ffast-math`, `fesetround`), and new threads inherit it. The library's
//! results and the drivers must not depend on it. So all library code runs in one environment: rounding to nearest,
//! denormals kept (unless `SPARKLE_FLUSH_DENORMALS=1`), no traps. A calling thread enters it for the duration of a
//! call. The call then restores the caller's environment bit for bit, including the exception flags. The library's own
//! threads are in it from their first instruction ([`crate::thread`]).
//!
//! The guards are cheap: if the environment is as required, a call reads only two registers.

use std::marker::PhantomData;

use arch::Control;

/// A guard: the calling thread is in the library's environment. Dropping it restores the caller's. It stays on its
/// thread.
pub struct FloatEnv {
    saved: Control,
    _on_its_thread: PhantomData<*const ()>,
}

impl FloatEnv {
    /// Enters the library's environment for arithmetic.
    #[inline]
    pub fn enter() -> Self {
        let saved = arch::control();
        arch::set_if_other(saved);
        FloatEnv { saved, _on_its_thread: PhantomData }
    }
}

impl Drop for FloatEnv {
    #[inline]
    fn drop(&mut self) {
        arch::restore(self.saved);
    }
}

/// A guard for calls of drivers. Drivers are foreign code, so it also covers the x87 unit on x86.
pub struct DriverFloatEnv {
    // The two are independent; they drop in this order.
    _legacy: arch::LegacyUnit,
    _env: FloatEnv,
}

impl DriverFloatEnv {
    /// Enters the environment for drivers.
    pub fn enter() -> Self {
        DriverFloatEnv { _legacy: arch::LegacyUnit::enter(), _env: FloatEnv::enter() }
    }
}

/// Puts the calling thread, which must belong to the library, into the library's environment permanently.
pub fn set_for_own_thread() {
    arch::set_if_other(arch::control());
    std::mem::forget(arch::LegacyUnit::enter());
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod arch {
    use std::arch::asm;

    use crate::config::config;

    /// MXCSR: control bits and exception flags.
    pub type Control = u32;

    /// Round to nearest, all exceptions masked, no flag raised.
    const DEFAULT: Control = 0x1f80;
    /// Denormal results become zero (FTZ), and denormal operands count as zero (DAZ).
    const FLUSH: Control = 0x8040;
    /// The exception flags, which are sticky.
    const FLAGS: Control = 0x3f;

    #[inline]
    pub fn control() -> Control {
        let mut value = 0u32;
        // SAFETY: writes the four bytes of `value`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    #[inline]
    fn set(value: Control) {
        // SAFETY: reads the four bytes of `value`. No reserved bit is set: the value came from this register, or is one
        // of the constants above. Rust code assumes rounding to nearest and masked exceptions. The library's
        // environment has these, and the caller's environment is restored only after the library's code has ended.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }

    /// The library's control bits.
    #[inline]
    fn wanted() -> Control {
        if config().flush_denormals { DEFAULT | FLUSH } else { DEFAULT }
    }

    #[inline]
    pub fn set_if_other(saved: Control) {
        let wanted = wanted();
        if saved & !FLAGS != wanted {
            set(wanted);
        }
    }

    /// Writes unconditionally: reading the register takes longer than writing it.
    #[inline]
    pub fn restore(saved: Control) {
        set(saved);
    }

    /// The x87 unit with its default control word: double-extended precision, round to nearest, exceptions masked.
    pub struct LegacyUnit {
        saved: Option<Environment>,
    }

    /// The data that `fnstenv` stores.
    #[repr(C, align(4))]
    struct Environment([u8; 28]);

    /// The control word after `fninit`.
    const X87_DEFAULT: u16 = 0x037f;
    /// The bits of the control word that mask exceptions and select precision and rounding.
    const X87_CONTROL: u16 = 0x0f3f;

    impl LegacyUnit {
        pub fn enter() -> Self {
            let mut word = 0u16;
            // SAFETY: writes the two bytes of `word`.
            unsafe { asm!("fnstcw [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
            if word & X87_CONTROL == X87_DEFAULT & X87_CONTROL {
                return LegacyUnit { saved: None };
            }
            let (mut saved, default) = (Environment([0; 28]), X87_DEFAULT);
            // SAFETY: stores 28 bytes, the size of `saved`, and loads two. `fnstenv` does not change the register
            // stack.
            unsafe {
                asm!(
                    "fnstenv [{saved}]",
                    "fldcw [{default}]",
                    saved = in(reg) &raw mut saved,
                    default = in(reg) &raw const default,
                    options(nostack, preserves_flags),
                );
            }
            LegacyUnit { saved: Some(saved) }
        }
    }

    impl Drop for LegacyUnit {
        fn drop(&mut self) {
            if let Some(saved) = &self.saved {
                // SAFETY: loads the 28 bytes that `fnstenv` stored. By the calling convention, the register stack is
                // empty, as it was then. Flags that were raised in between are discarded, so none becomes a trap.
                unsafe {
                    asm!("fldenv [{}]", in(reg) &raw const *saved, options(nostack, preserves_flags));
                }
            }
        }
    }
}

/// The exception flags of MXCSR that `body` raises, except for inexact.
#[cfg(all(test, target_arch = "x86_64", not(miri)))]
pub fn raised(body: impl FnOnce()) -> u32 {
    /// Invalid, denormal, division by zero, overflow, underflow.
    const SERIOUS: u32 = 0x1f;
    let _before = FloatEnv::enter();
    arch::restore(0x1f80);
    body();
    arch::control() & SERIOUS
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod arch {
    use std::arch::asm;

    use crate::config::config;

    /// FPCR, the control bits, and FPSR, the exception flags.
    pub type Control = (u64, u64);

    /// Flushes denormals to zero (FZ). All other control bits are zero: round to nearest, no traps.
    const FLUSH: u64 = 1 << 24;

    #[inline]
    pub fn control() -> Control {
        let (control, status): Control;
        // SAFETY: reads two registers.
        unsafe {
            asm!("mrs {}, fpcr", "mrs {}, fpsr", out(reg) control, out(reg) status, options(nomem, nostack));
        }
        (control, status)
    }

    #[inline]
    fn set((control, status): Control) {
        // SAFETY: the values came from these registers, or are the default with or without FZ. Rust code assumes the
        // default, and the caller's values are restored only after the library's code has ended.
        unsafe {
            asm!("msr fpcr, {}", "msr fpsr, {}", in(reg) control, in(reg) status, options(nomem, nostack));
        }
    }

    #[inline]
    pub fn set_if_other((control, status): Control) {
        let wanted = if config().flush_denormals { FLUSH } else { 0 };
        if control != wanted {
            set((wanted, status));
        }
    }

    #[inline]
    pub fn restore(saved: Control) {
        if control() != saved {
            set(saved);
        }
    }

    /// This architecture has no such unit.
    pub struct LegacyUnit;

    impl LegacyUnit {
        pub fn enter() -> Self {
            LegacyUnit
        }
    }
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod arch {
    /// The environment of this architecture is unknown, or Miri does not model it, so it is not changed.
    pub type Control = ();

    pub fn control() -> Control {}

    pub fn set_if_other((): Control) {}

    pub fn restore((): Control) {}

    /// This architecture has no such unit.
    pub struct LegacyUnit;

    impl LegacyUnit {
        pub fn enter() -> Self {
            LegacyUnit
        }
    }
}

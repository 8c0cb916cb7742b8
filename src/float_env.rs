//! The floating-point environment that the library computes in, whatever its caller's is.
//!
//! A thread's environment says how results are rounded, whether tiny numbers are taken for zero, and which exceptions
//! raise a signal. Programs set it for themselves (`-ffpe-trap=invalid`, `-ffast-math`, `fesetround`), and new threads
//! inherit it. The library's results and drivers must not depend on it, so all of its code runs in one environment:
//! rounding to nearest, denormals kept (unless `SPARKLE_FLUSH_DENORMALS=1`), no traps. A calling thread enters it for
//! the time of a call and gets back its own, bit for bit, exception flags included. The library's own threads are in it
//! from their first instruction ([`crate::thread`]).
//!
//! The guards of this module are cheap: a call that finds the environment as it wants it reads two registers.

use std::marker::PhantomData;

use arch::Control;

/// A calling thread in the library's environment; dropping it gives the thread its own back. Stays on its thread.
pub struct FloatEnv {
    callers: Control,
    _on_its_thread: PhantomData<*const ()>,
}

impl FloatEnv {
    /// Enters the library's environment, for arithmetic.
    #[inline]
    pub fn enter() -> Self {
        let callers = arch::control();
        arch::set_if_other(callers);
        FloatEnv { callers, _on_its_thread: PhantomData }
    }
}

impl Drop for FloatEnv {
    #[inline]
    fn drop(&mut self) {
        arch::restore(self.callers);
    }
}

/// A calling thread in an environment that is fit for a driver, whose code is not the library's: beside what
/// [`FloatEnv`] covers, that is the x87 unit on x86.
pub struct DriverFloatEnv {
    // Dropped in this order; the two are independent.
    _legacy: arch::LegacyUnit,
    _env: FloatEnv,
}

impl DriverFloatEnv {
    /// Enters it.
    pub fn enter() -> Self {
        DriverFloatEnv { _legacy: arch::LegacyUnit::enter(), _env: FloatEnv::enter() }
    }
}

/// Puts the calling thread, which is the library's own, into the library's environment for good.
pub fn set_for_own_thread() {
    arch::set_if_other(arch::control());
    std::mem::forget(arch::LegacyUnit::enter());
}

#[cfg(target_arch = "x86_64")]
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
        // SAFETY: reads the four bytes of `value`. No reserved bit is set: it came from this register, or is one of the
        // constants above. Rust code takes rounding to nearest and masked exceptions for granted, which is what the
        // library's environment has; the caller's own is only put back when the library's code has ended.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }

    /// The library's control bits.
    #[inline]
    fn wanted() -> Control {
        if config().flush_denormals { DEFAULT | FLUSH } else { DEFAULT }
    }

    #[inline]
    pub fn set_if_other(callers: Control) {
        let wanted = wanted();
        if callers & !FLAGS != wanted {
            set(wanted);
        }
    }

    /// Without a look at what is there: to read the register takes longer than to write it.
    #[inline]
    pub fn restore(callers: Control) {
        set(callers);
    }

    /// The x87 unit with its default control word: double-extended precision, round to nearest, exceptions masked.
    pub struct LegacyUnit {
        callers: Option<Environment>,
    }

    /// What `fnstenv` stores.
    #[repr(C, align(4))]
    struct Environment([u8; 28]);

    /// The control word after `fninit`, and its bits that mask exceptions, choose a precision and a rounding.
    const X87_DEFAULT: u16 = 0x037f;
    const X87_CONTROL: u16 = 0x0f3f;

    impl LegacyUnit {
        pub fn enter() -> Self {
            let mut word = 0u16;
            // SAFETY: writes the two bytes of `word`.
            unsafe { asm!("fnstcw [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
            if word & X87_CONTROL == X87_DEFAULT & X87_CONTROL {
                return LegacyUnit { callers: None };
            }
            let (mut callers, default) = (Environment([0; 28]), X87_DEFAULT);
            // SAFETY: stores 28 bytes, which `callers` has, and loads two. `fnstenv` leaves the register stack alone.
            unsafe {
                asm!(
                    "fnstenv [{callers}]",
                    "fldcw [{default}]",
                    callers = in(reg) &raw mut callers,
                    default = in(reg) &raw const default,
                    options(nostack, preserves_flags),
                );
            }
            LegacyUnit { callers: Some(callers) }
        }
    }

    impl Drop for LegacyUnit {
        fn drop(&mut self) {
            if let Some(callers) = &self.callers {
                // SAFETY: loads the 28 bytes that `fnstenv` stored; by the calling convention the register stack is as
                // empty now as it was then. Flags that were raised meanwhile are gone, so none becomes a trap.
                unsafe {
                    asm!("fldenv [{}]", in(reg) &raw const *callers, options(nostack, preserves_flags));
                }
            }
        }
    }
}

/// The exception flags that `body` raises, as MXCSR has them, but for the inexact one.
#[cfg(all(test, target_arch = "x86_64"))]
pub fn raised(body: impl FnOnce()) -> u32 {
    /// Invalid, denormal, division by zero, overflow, underflow.
    const SERIOUS: u32 = 0x1f;
    let _before = FloatEnv::enter();
    arch::restore(0x1f80);
    body();
    arch::control() & SERIOUS
}

#[cfg(target_arch = "aarch64")]
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
        // SAFETY: the values came from these registers, or are the default with or without FZ. Rust code takes the
        // default for granted; the caller's own is only put back when the library's code has ended.
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
    pub fn restore(callers: Control) {
        if control() != callers {
            set(callers);
        }
    }

    /// There is none.
    pub struct LegacyUnit;

    impl LegacyUnit {
        pub fn enter() -> Self {
            LegacyUnit
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    /// Nothing is known of this architecture's environment, so it is left alone.
    pub type Control = ();

    pub fn control() -> Control {}

    pub fn set_if_other((): Control) {}

    pub fn restore((): Control) {}

    /// There is none.
    pub struct LegacyUnit;

    impl LegacyUnit {
        pub fn enter() -> Self {
            LegacyUnit
        }
    }
}

//! Handles: the ids that C holds, and the tables that own the values.
//!
//! A handle is never an address. It is a number that is used once, marked with its kind, and outside the range of valid
//! addresses. A lookup either finds the living value or proves that the handle is invalid. So a double free, a use
//! after free, a handle of the wrong kind and a stray pointer are all reported as errors.
//!
//! A [`Table`] owns each value until its handle is destroyed or the library is finalised. [`get`] returns it to a call
//! as an `Arc`, so that destroying the handle during the call does not free the value.

use std::collections::BTreeMap;
use std::ptr::without_provenance_mut;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::boundary::Call;
use super::status::{Failure, Outcome};
use crate::error::Error;

/// An opaque C type and the value it stands for.
pub(super) trait Opaque: Sized + 'static {
    /// The type of the value.
    type Value: Send + Sync;
    /// The mark of this kind in the handle's lowest bits. It is odd, so that no handle is an aligned address, and
    /// unique.
    const MARK: usize;
    /// The name of this kind in messages.
    const NAME: &'static str;
    /// The table of all living values.
    fn table() -> &'static Table<Self::Value>;
    /// Whether the value cannot be used in a process forked from its own.
    fn dies_in_a_fork(value: &Self::Value) -> bool;
    /// Called when the handle is destroyed, before the table drops the value. It ends the calls that wait for the
    /// value.
    fn retire(_value: &Arc<Self::Value>) {}
}

/// The bits that hold the marks.
const MARKS: usize = 0x1f;

/// The bits that no address has set on a 64-bit machine; there are none on other machines.
const ABOVE_ADDRESSES: usize = if usize::BITS == 64 { !(usize::MAX >> 16) } else { 0 };

/// The pattern in those bits that every handle has and no address has.
const NO_ADDRESS: usize = ABOVE_ADDRESSES & 0x5350_5350_5350_5350_u64 as usize;

/// The living values of one kind by their handles' value.
pub(super) type Table<T> = Shared<BTreeMap<usize, Entry<T>>>;

/// A living value and the process that created it.
pub(super) struct Entry<T> {
    value: Arc<T>,
    process: u32,
}

/// Moves `value` into its table and returns the handle for C.
pub(super) fn insert<O: Opaque>(call: &Call, value: O::Value) -> Outcome<*mut O> {
    // All kinds share the ids, and no id is used twice: at a billion per second they last for nine years.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let room = usize::MAX & !MARKS & !ABOVE_ADDRESSES;
    let handle =
        usize::try_from(id).ok().and_then(|id| id.checked_mul(MARKS + 1)).filter(|&bits| bits <= room);
    let handle = NO_ADDRESS | O::MARK | handle.ok_or(Error::Internal("no handles are left".into()))?;
    let entry = Entry { value: Arc::new(value), process: call.process() };
    O::table().lock(call)?.insert(handle, entry);
    Ok(without_provenance_mut(handle))
}

/// The value of `handle`, which is C's argument `argument`.
pub(super) fn get<O: Opaque>(call: &Call, argument: &str, handle: *const O) -> Outcome<Arc<O::Value>> {
    let table = O::table().lock(call)?;
    let entry = table.get(&handle.addr()).ok_or_else(|| unknown(argument, handle))?;
    if entry.process != call.process() && O::dies_in_a_fork(&entry.value) {
        return Err(Error::Forked { what: format!("{argument} (a {})", O::NAME) }.into());
    }
    Ok(entry.value.clone())
}

/// Puts `value` in the place of the handle's value. Calls that use the old one end with it.
pub(super) fn replace<O: Opaque>(
    call: &Call,
    argument: &str,
    handle: *const O,
    value: O::Value,
) -> Outcome<()> {
    let new = Entry { value: Arc::new(value), process: call.process() };
    let mut table = O::table().lock(call)?;
    let entry = table.get_mut(&handle.addr()).ok_or_else(|| unknown(argument, handle))?;
    let old = std::mem::replace(entry, new);
    drop(table);
    old.leave(call);
    Ok(())
}

/// Removes the value from its table; it is freed when the last call that uses it returns.
pub(super) fn remove<O: Opaque>(call: &Call, argument: &str, handle: *mut O) -> Outcome<()> {
    let Some(mut table) = O::table().lock_unless_lost(call) else {
        // All values of a table that was lost in a fork are the parent's.
        let could_be_one = handle.addr() & (ABOVE_ADDRESSES | MARKS) == NO_ADDRESS | O::MARK;
        return if could_be_one { Ok(()) } else { Err(unknown(argument, handle)) };
    };
    let entry = table.remove(&handle.addr());
    drop(table);
    entry.ok_or_else(|| unknown(argument, handle))?.end::<O>(call);
    Ok(())
}

/// Removes all values from their table.
pub(super) fn clear<O: Opaque>(call: &Call) -> Outcome<()> {
    let Some(mut table) = O::table().lock_unless_lost(call) else { return Ok(()) };
    let entries = std::mem::take(&mut *table);
    drop(table);
    entries.into_values().for_each(|entry| entry.end::<O>(call));
    Ok(())
}

impl<T> Entry<T> {
    /// Ends the table's ownership. The table is not locked here, because freeing a plan takes time.
    fn end<O: Opaque<Value = T>>(self, call: &Call) {
        if self.process == call.process() {
            O::retire(&self.value);
        }
        self.leave(call);
    }

    /// Drops the value, unless it is the parent's.
    fn leave(self, call: &Call) {
        if self.process != call.process() {
            // Its threads and GPU objects belong to the parent: a cleanup would wait for the former and damage the
            // latter.
            std::mem::forget(self.value);
        }
    }
}

/// The error for a `handle` that is not in the table of its kind.
fn unknown<O: Opaque>(argument: &str, handle: *const O) -> Failure {
    let value = handle.addr();
    if handle.is_null() {
        return Failure::handle(argument, "NULL");
    }
    if value & ABOVE_ADDRESSES != NO_ADDRESS || value & 1 == 0 {
        return Failure::handle(argument, format_args!("{value:#x}, which Sparkle never gave out"));
    }
    if value & MARKS != O::MARK {
        return Failure::handle(argument, format_args!("{value:#x}, which is not a {}", O::NAME));
    }
    Failure::handle(argument, format_args!("{value:#x}, a {} that no longer exists", O::NAME))
}

/// A value behind a lock that does not deadlock after a fork.
///
/// If a thread holds the lock at the moment of a fork, the lock stays held in the child, where no thread can release
/// it. So the first calls in a child do not wait: they try for a while and then return an error.
pub(super) struct Shared<T> {
    value: Mutex<T>,
    process: AtomicU32,
}

impl<T> Shared<T> {
    pub(super) const fn new(value: T) -> Self {
        Shared { value: Mutex::new(value), process: AtomicU32::new(0) }
    }

    /// Locks the value. Hold the lock for no longer than it takes to look something up.
    pub(super) fn lock(&self, call: &Call) -> Outcome<MutexGuard<'_, T>> {
        let lost = || Error::Forked { what: "a table that was in use at that moment".into() }.into();
        self.lock_unless_lost(call).ok_or_else(lost)
    }

    /// Locks the value. `None` if another thread held the lock at the fork that made this process.
    fn lock_unless_lost(&self, call: &Call) -> Option<MutexGuard<'_, T>> {
        let unpoisoned = std::sync::PoisonError::into_inner;
        if self.process.load(Ordering::Relaxed) == call.process() {
            return Some(self.value.lock().unwrap_or_else(unpoisoned));
        }
        for _ in 0..10_000 {
            let guard = match self.value.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(poisoned)) => unpoisoned(poisoned),
                Err(TryLockError::WouldBlock) => {
                    std::thread::yield_now();
                    continue;
                }
            };
            // The lock was free after the fork: from now on only threads of this process hold it.
            self.process.store(call.process(), Ordering::Relaxed);
            return Some(guard);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::sparkle_status::*;
    use super::*;

    macro_rules! opaque {
        ($name:ident, $value:ty, $mark:expr) => {
            struct $name;
            impl Opaque for $name {
                type Value = $value;
                const MARK: usize = $mark;
                const NAME: &'static str = stringify!($name);
                fn table() -> &'static Table<$value> {
                    static TABLE: Table<$value> = Shared::new(BTreeMap::new());
                    &TABLE
                }
                fn dies_in_a_fork(value: &$value) -> bool {
                    &**value == "dies"
                }
            }
        };
    }
    opaque!(Pear, Arc<str>, 5);
    opaque!(Plum, Arc<str>, 7);

    fn status<T>(outcome: Outcome<T>) -> (i32, String) {
        let failure = outcome.err().expect("should fail");
        (failure.status as i32, failure.message)
    }

    #[test]
    fn handles_that_are_none_are_told_apart() {
        let call = Call::of_process(1);
        let pear: *mut Pear = insert(&call, "p".into()).unwrap();
        assert_eq!(&**get(&call, "x", pear).unwrap(), "p");
        let cases: [(*mut Plum, &str); 5] = [
            (std::ptr::null_mut(), "x is NULL"),
            (pear.cast(), "which is not a Plum"),
            ((&raw const call).cast_mut().cast(), "which Sparkle never gave out"),
            (without_provenance_mut(usize::MAX), "which Sparkle never gave out"),
            (without_provenance_mut(pear.addr() & !1), "which Sparkle never gave out"),
        ];
        for (handle, reason) in cases {
            for (code, message) in
                [status(get(&call, "x", handle.cast_const())), status(remove(&call, "x", handle))]
            {
                assert_eq!(code, SPARKLE_ERROR_INVALID_HANDLE as i32);
                assert!(message.starts_with("x is ") && message.ends_with(reason), "{message}");
            }
        }
        remove(&call, "x", pear).unwrap();
        for gone in [status(get(&call, "x", pear.cast_const())), status(remove(&call, "x", pear))] {
            assert_eq!(gone.0, SPARKLE_ERROR_INVALID_HANDLE as i32);
            assert!(gone.1.ends_with(", a Pear that no longer exists"), "{}", gone.1);
        }
    }

    #[test]
    fn handles_are_never_given_out_twice() {
        let call = Call::of_process(1);
        let make = || {
            let handle: *mut Pear = insert(&call, "once".into()).unwrap();
            remove(&call, "x", handle).unwrap();
            handle.addr()
        };
        let handles: std::collections::BTreeSet<usize> = (0..1000).map(|_| make()).collect();
        assert_eq!(handles.len(), 1000);
    }

    #[test]
    fn a_value_outlives_its_handle_while_a_call_uses_it() {
        let call = Call::of_process(1);
        let value: Arc<str> = "held".into();
        let handle: *mut Plum = insert(&call, value.clone()).unwrap();
        let lent = get(&call, "x", handle.cast_const()).unwrap();
        remove(&call, "x", handle).unwrap();
        assert_eq!((&**lent.as_ref(), Arc::strong_count(&value)), ("held", 2));
        drop(lent);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_value_is_replaced_while_calls_use_the_old_one() {
        let (parent, child) = (Call::of_process(1), Call::of_process(2));
        let old: Arc<str> = "old".into();
        let handle: *mut Plum = insert(&parent, old.clone()).unwrap();
        let lent = get(&parent, "x", handle.cast_const()).unwrap();
        replace(&parent, "x", handle.cast_const(), "new".into()).unwrap();
        assert_eq!((&**lent.as_ref(), &**get(&parent, "x", handle.cast_const()).unwrap()), ("old", "new"));
        drop(lent);
        assert_eq!(Arc::strong_count(&old), 1, "it was freed after its last use");
        let kept: Arc<str> = "the parent's".into();
        replace(&parent, "x", handle.cast_const(), kept.clone()).unwrap();
        replace(&child, "x", handle.cast_const(), "the child's".into()).unwrap();
        assert_eq!(Arc::strong_count(&kept), 2, "what the parent made is left alone");
        remove(&child, "x", handle).unwrap();
        let (code, _) = status(replace(&child, "x", handle.cast_const(), "late".into()));
        assert_eq!(code, SPARKLE_ERROR_INVALID_HANDLE as i32);
    }

    #[test]
    fn a_forked_process_keeps_what_can_live_and_frees_nothing_of_its_parents() {
        let (parent, child) = (Call::of_process(1), Call::of_process(2));
        let value: Arc<str> = "lives".into();
        let lives: *mut Plum = insert(&parent, value.clone()).unwrap();
        let dies: *mut Plum = insert(&parent, "dies".into()).unwrap();
        assert_eq!(&**get(&child, "x", lives.cast_const()).unwrap(), "lives");
        let forked = (
            SPARKLE_ERROR_FORKED as i32,
            "x (a Plum) was made before fork(); open it again in the child process",
        );
        let (code, message) = status(get(&child, "x", dies.cast_const()));
        assert_eq!((code, message.as_str()), forked);
        remove(&child, "x", dies).unwrap();
        remove(&child, "x", lives).unwrap();
        assert_eq!(Arc::strong_count(&value), 2, "what the parent made is left alone");
    }

    #[test]
    fn a_lock_held_at_the_fork_does_not_hang_the_child() {
        let (parent, child) = (Call::of_process(1), Call::of_process(2));
        let shared = Shared::new(7);
        let held = shared.lock(&parent).unwrap();
        assert_eq!(status(shared.lock(&child)).0, SPARKLE_ERROR_FORKED as i32);
        drop(held);
        assert_eq!(*shared.lock(&child).unwrap(), 7);
    }

    #[test]
    fn closing_what_a_lost_table_holds_succeeds_in_the_child() {
        opaque!(Fig, Arc<str>, 9);
        let (parent, child) = (Call::of_process(1), Call::of_process(2));
        let fig: *mut Fig = insert(&parent, "f".into()).unwrap();
        let held = Fig::table().lock(&parent).unwrap();
        assert_eq!(status(get(&child, "x", fig.cast_const())).0, SPARKLE_ERROR_FORKED as i32);
        remove(&child, "x", fig).unwrap();
        clear::<Fig>(&child).unwrap();
        let (code, message) = status(remove::<Fig>(&child, "x", std::ptr::null_mut()));
        assert_eq!((code, message.as_str()), (SPARKLE_ERROR_INVALID_HANDLE as i32, "x is NULL"));
        drop(held);
        assert_eq!(&**get(&parent, "x", fig.cast_const()).unwrap(), "f", "the parent's value is left alone");
    }

    /// No address of a program has these bits.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn a_handle_is_no_address() {
        assert_eq!((ABOVE_ADDRESSES, NO_ADDRESS), (0xffff << 48, 0x5350 << 48));
    }
}

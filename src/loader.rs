//! Whether the calling thread holds the lock of the dynamic loader.
//!
//! The constructors and destructors of a library run under this lock while it is loaded or unloaded. Other threads need
//! the lock to start, to register a destructor, and in drivers that load a part of themselves or look up a function. So
//! a destructor that `dlclose` runs must not wait for such a thread: that is a deadlock. Code that needs another thread
//! calls [`check`] first.
//!
//! glibc has no function for this. Its lock is a recursive mutex in `_rtld_global`, directly before the mutex that
//! `dl_iterate_phdr` holds during its callback. So a callback searches for that one. If the search fails, the lock
//! counts as not held.

use std::time::Duration;

use crate::error::{Error, Result};

/// How long a thread that holds the lock waits for work that may not need the lock.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// Checks that the calling thread does not hold the loader's lock.
///
/// # Errors
/// [`Error::Ending`] if it does, because waiting for other threads could then be a deadlock.
#[inline]
pub fn check() -> Result<()> {
    if is_held() {
        let what = "the calling thread is loading or unloading a library".to_owned();
        return Err(Error::Ending { what });
    }
    Ok(())
}

/// Whether the calling thread holds the loader's lock.
#[inline]
pub fn is_held() -> bool {
    lock::is_held()
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod lock {
    use std::cell::Cell;
    use std::ffi::{c_int, c_void};
    use std::mem::MaybeUninit;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI32, Ordering};

    /// The number of words of glibc's `pthread_mutex_t`. Its static initialisers fix this layout.
    const WORDS: usize = 10;
    /// The word that holds the owner's thread id.
    const OWNER: usize = 2;
    /// The word that holds the kind.
    const KIND: usize = 4;
    /// The kind of a recursive mutex.
    const RECURSIVE: i32 = 1;

    thread_local! {
        /// The process id at the time of the query, and the thread's id.
        static THREAD: Cell<(u32, i32)> = const { Cell::new((0, 0)) };
    }

    #[inline]
    pub fn is_held() -> bool {
        static OWNER_OF_LOCK: OnceLock<Option<&'static AtomicI32>> = OnceLock::new();
        let owner = OWNER_OF_LOCK.get_or_init(find).map_or(0, |owner| owner.load(Ordering::Relaxed));
        // Usually the lock is free. Only this thread writes its own id there.
        owner != 0 && owner == this_thread()
    }

    fn this_thread() -> i32 {
        let process = crate::process::id();
        if THREAD.get().0 != process {
            // SAFETY: takes no argument and cannot fail.
            THREAD.set((process, unsafe { libc::gettid() }));
        }
        THREAD.get().1
    }

    /// The memory that the callback of `dl_iterate_phdr` searches, and its result.
    struct Search {
        words: &'static [AtomicI32],
        found: Option<&'static AtomicI32>,
    }

    /// The word that holds the owner of the loader's lock.
    fn find() -> Option<&'static AtomicI32> {
        let mut search = Search { words: loader_state()?, found: None };
        // SAFETY: `look` gets the address of `search`, which no other code uses during the call, and does not unwind.
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
        search.found
    }

    /// The words of `_rtld_global`.
    fn loader_state() -> Option<&'static [AtomicI32]> {
        /// `RTLD_DL_SYMENT` of `dlfcn.h`.
        const SYMBOL_ENTRY: c_int = 1;
        // SAFETY: the name is a constant C string.
        let state = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_rtld_global".as_ptr()) };
        if state.is_null() || !state.cast::<AtomicI32>().is_aligned() {
            return None;
        }
        let mut info = MaybeUninit::<libc::Dl_info>::uninit();
        let mut symbol = std::ptr::null_mut::<c_void>();
        // SAFETY: both pointers are to variables of the types that this flag requires.
        let known = unsafe { libc::dladdr1(state, info.as_mut_ptr(), &raw mut symbol, SYMBOL_ENTRY) };
        if known == 0 || symbol.is_null() {
            return None;
        }
        // SAFETY: with this flag, `dladdr1` returns the symbol's entry in the loader's own table, which is never
        // unloaded.
        let symbol = unsafe { &*symbol.cast::<libc::Elf64_Sym>() };
        let words = usize::try_from(symbol.st_size).ok()? / size_of::<AtomicI32>();
        // SAFETY: the symbol is an object of this size, aligned, initialised and never unmapped. Other code writes to
        // it as to mutexes, by atomic operations or under a lock. This code only reads it, atomically.
        Some(unsafe { std::slice::from_raw_parts(state.cast::<AtomicI32>(), words) })
    }

    /// Searches for the lock. The calling thread holds the mutex after it during the callback.
    unsafe extern "C" fn look(_: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
        // SAFETY: `find` passes the address of its `Search`.
        let search = unsafe { &mut *search.cast::<Search>() };
        let this = this_thread();
        let is_recursive = |mutex: &[AtomicI32]| mutex[KIND].load(Ordering::Relaxed) == RECURSIVE;
        let is_held = |mutex: &[AtomicI32]| mutex[OWNER].load(Ordering::Relaxed) == this;
        // If the thread holds the loader's lock as well, that comes first. So the last match is the other mutex.
        let pairs = search.words.windows(2 * WORDS).step_by(2).rev();
        let pair = pairs
            .map(|pair| pair.split_at(WORDS))
            .find(|(lock, other)| is_recursive(lock) && is_recursive(other) && is_held(other));
        search.found = pair.map(|(lock, _)| &lock[OWNER]);
        // Ends the iteration.
        1
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// The arguments and the result of the callback below.
        struct Report {
            in_callback: bool,
            lock: Option<&'static AtomicI32>,
        }

        unsafe extern "C" fn record(_: *mut libc::dl_phdr_info, _: usize, report: *mut c_void) -> c_int {
            // SAFETY: the test passes the address of a `Report`.
            let report = unsafe { &mut *report.cast::<Report>() };
            report.in_callback = report.lock.is_some_and(|owner| {
                // The callback holds the other mutex, which comes after the lock.
                // SAFETY: `find` found both mutexes in one object.
                let other = unsafe { &*std::ptr::from_ref(owner).add(WORDS) };
                other.load(Ordering::Relaxed) == this_thread()
            });
            1
        }

        #[test]
        fn the_lock_is_found_and_not_held() {
            let mut report = Report { in_callback: false, lock: find() };
            assert!(report.lock.is_some(), "glibc's lock was not found");
            assert!(!is_held());
            // SAFETY: `record` gets the address of `report`, which no other code uses during the call, and does not
            // unwind.
            unsafe { libc::dl_iterate_phdr(Some(record), (&raw mut report).cast()) };
            assert!(report.in_callback && !is_held());
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
mod lock {
    pub fn is_held() -> bool {
        false
    }
}

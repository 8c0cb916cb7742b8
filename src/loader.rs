//! The dynamic loader's lock, and whether the calling thread holds it.
//!
//! While a library is loaded or unloaded, its constructors and destructors run under this lock. Other threads need it: to start, to
//! note a destructor of theirs, and in drivers that load a part of themselves or look a function up. So who waits for such a
//! thread in a destructor that `dlclose` runs waits for ever. What needs another thread asks here first.
//!
//! glibc has no function that tells. Its lock is a recursive mutex within `_rtld_global`, right before the one that `dl_iterate_phdr`
//! holds while it calls back, so that one is looked for in a callback. Where there is no such place, nobody is said to
//! hold the lock.

use std::time::Duration;

use crate::error::{Error, Result};

/// How long one waits, holding the lock, for what may need no lock.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// # Errors
/// [`Error::Ending`] if the calling thread holds the loader's lock, so that other threads can do nothing for it.
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

    /// Words of glibc's `pthread_mutex_t`, and in it those that name the holder and the kind, as its static initialisers fix them.
    const WORDS: usize = 10;
    const OWNER: usize = 2;
    const KIND: usize = 4;
    const RECURSIVE: i32 = 1;

    thread_local! {
        /// The process in which the thread's number was asked for, and the number.
        static THREAD: Cell<(u32, i32)> = const { Cell::new((0, 0)) };
    }

    #[inline]
    pub fn is_held() -> bool {
        static OWNER_OF_LOCK: OnceLock<Option<&'static AtomicI32>> = OnceLock::new();
        let owner = OWNER_OF_LOCK.get_or_init(find).map_or(0, |owner| owner.load(Ordering::Relaxed));
        // Mostly nobody; and only this thread writes its own number there.
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

    /// What a callback of `dl_iterate_phdr` looks through, and what it finds.
    struct Search {
        words: &'static [AtomicI32],
        found: Option<&'static AtomicI32>,
    }

    /// The word that names the holder of the loader's lock.
    fn find() -> Option<&'static AtomicI32> {
        let mut search = Search { words: loader_state()?, found: None };
        // SAFETY: `look` gets the address of `search`, which nobody else uses meanwhile, and does not unwind.
        unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
        search.found
    }

    /// The words of `_rtld_global`.
    fn loader_state() -> Option<&'static [AtomicI32]> {
        /// RTLD_DL_SYMENT of `dlfcn.h`.
        const SYMBOL_ENTRY: c_int = 1;
        // SAFETY: a constant text.
        let state = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_rtld_global".as_ptr()) };
        if state.is_null() || !state.cast::<AtomicI32>().is_aligned() {
            return None;
        }
        let mut info = MaybeUninit::<libc::Dl_info>::uninit();
        let mut symbol = std::ptr::null_mut::<c_void>();
        // SAFETY: both are places for what is asked for.
        let known = unsafe { libc::dladdr1(state, info.as_mut_ptr(), &raw mut symbol, SYMBOL_ENTRY) };
        if known == 0 || symbol.is_null() {
            return None;
        }
        // SAFETY: with this flag `dladdr1` gives the symbol's entry in the loader's own table, which is never unloaded.
        let symbol = unsafe { &*symbol.cast::<libc::Elf64_Sym>() };
        let words = usize::try_from(symbol.st_size).ok()? / size_of::<AtomicI32>();
        // SAFETY: the symbol is an object of so many bytes, aligned, initialised and never unmapped; others write to it as they
        // do to mutexes, by atomic operations or while they hold them, and here it is only read atomically.
        Some(unsafe { std::slice::from_raw_parts(state.cast::<AtomicI32>(), words) })
    }

    /// Called while the calling thread holds the mutex after the one that is looked for.
    unsafe extern "C" fn look(_: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> c_int {
        // SAFETY: as `find` says.
        let search = unsafe { &mut *search.cast::<Search>() };
        let this = this_thread();
        let is_recursive = |mutex: &[AtomicI32]| mutex[KIND].load(Ordering::Relaxed) == RECURSIVE;
        let is_held = |mutex: &[AtomicI32]| mutex[OWNER].load(Ordering::Relaxed) == this;
        // If the loader's lock is held, too, it comes first; so the last is the other one.
        let pairs = search.words.windows(2 * WORDS).step_by(2).rev();
        let pair = pairs
            .map(|pair| pair.split_at(WORDS))
            .find(|(lock, other)| is_recursive(lock) && is_recursive(other) && is_held(other));
        search.found = pair.map(|(lock, _)| &lock[OWNER]);
        // Once is enough.
        1
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// What the callback below tells.
        struct Told {
            in_callback: bool,
            lock: Option<&'static AtomicI32>,
        }

        unsafe extern "C" fn tell(_: *mut libc::dl_phdr_info, _: usize, told: *mut c_void) -> c_int {
            // SAFETY: the test gives the address of a `Told`.
            let told = unsafe { &mut *told.cast::<Told>() };
            told.in_callback = told.lock.is_some_and(|owner| {
                // The callback holds the other mutex, which comes after the lock.
                // SAFETY: `find` saw both mutexes within one object.
                let other = unsafe { &*std::ptr::from_ref(owner).add(WORDS) };
                other.load(Ordering::Relaxed) == this_thread()
            });
            1
        }

        #[test]
        fn the_lock_is_found_and_not_held() {
            let mut told = Told { in_callback: false, lock: find() };
            assert!(told.lock.is_some(), "glibc's lock is not where it was");
            assert!(!is_held());
            // SAFETY: as `find` says of its own.
            unsafe { libc::dl_iterate_phdr(Some(tell), (&raw mut told).cast()) };
            assert!(told.in_callback && !is_held());
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
mod lock {
    pub fn is_held() -> bool {
        false
    }
}

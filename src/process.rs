//! The process id, without a system call each time.
//!
//! `getpid()` is a system call, which is too slow for every small convolution. On Linux the id is cached in a page that
//! the kernel clears in a forked child (`MADV_WIPEONFORK`, since 4.14), so a child never sees the id of its parent.
//! Without such a page, each call asks the system.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The id of this process. It is correct immediately after a fork.
#[inline]
pub fn id() -> u32 {
    static CACHED: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
    let Some(cached) = CACHED.get_or_init(wiped_on_fork) else { return std::process::id() };
    match cached.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            cached.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

/// A number that is zero at first, and again in a forked child. It lives as long as the process.
#[cfg(all(target_os = "linux", not(miri)))]
fn wiped_on_fork() -> Option<&'static AtomicU32> {
    // SAFETY: no argument is an address.
    let len = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at any address affects no existing memory.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: this is the whole new mapping, which no other code uses.
    if unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above.
        unsafe { libc::munmap(page, len) };
        return None;
    }
    // SAFETY: the page is aligned, readable, writable and zero, and is never unmapped. The kernel changes it only in a
    // new process, before that runs.
    Some(unsafe { AtomicU32::from_ptr(page.cast()) })
}

#[cfg(any(not(target_os = "linux"), miri))]
fn wiped_on_fork() -> Option<&'static AtomicU32> {
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_id_is_that_of_the_system() {
        for _ in 0..3 {
            assert_eq!(super::id(), std::process::id());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_forked_child_has_its_own() {
        super::id();
        // SAFETY: the child only compares numbers, and ends without running any code of the parent.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let right = super::id() == std::process::id() && super::id() == std::process::id();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if right { 7 } else { 8 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the new child.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
    }
}

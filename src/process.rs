//! Which process this is, without asking the system each time.
//!
//! The C library asks the kernel for every `getpid()`, which costs more than a small convolution has to spare. On Linux
//! the answer is kept in a page that the kernel empties in a forked child (`MADV_WIPEONFORK`, since 4.14), so it is never
//! the parent's. Where there is no such page, the system is asked.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The id of this process, also right after a fork.
#[inline]
pub fn id() -> u32 {
    static KEPT: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
    let Some(kept) = KEPT.get_or_init(wiped_on_fork) else { return std::process::id() };
    match kept.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            kept.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

/// A number that is zero, also in a forked child; lives as long as the process.
#[cfg(target_os = "linux")]
fn wiped_on_fork() -> Option<&'static AtomicU32> {
    // SAFETY: no argument refers to memory of ours.
    let len = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping anywhere touches no memory there is.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the whole of the mapping that was just made, which nobody else knows.
    if unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above.
        unsafe { libc::munmap(page, len) };
        return None;
    }
    // SAFETY: the page is aligned, readable, writable and zero, and is never unmapped. The kernel changes it only in a
    // new process, before that has run.
    Some(unsafe { AtomicU32::from_ptr(page.cast()) })
}

#[cfg(not(target_os = "linux"))]
fn wiped_on_fork() -> Option<&'static AtomicU32> {
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_what_the_system_says() {
        for _ in 0..3 {
            assert_eq!(super::id(), std::process::id());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_forked_child_has_its_own() {
        super::id();
        // SAFETY: the child only compares numbers and ends without running anything of the parent's.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let right = super::id() == std::process::id() && super::id() == std::process::id();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if right { 7 } else { 8 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was just made.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
    }
}

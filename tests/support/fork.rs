//! Work in a forked child.

/// Forks. Returns whether `work` returned true in the child. An alarm ends a child that takes longer than `seconds`. The
/// child ends with `_exit`, as a forked child should: Mesa's exit handler joins threads that exist only in the parent, and
/// crashes.
pub fn in_child(seconds: u32, work: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child uses only this library, which is under test, and memory, which the C library makes usable after a
    // fork. It never returns into the test harness.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork failed");
        if child == 0 {
            libc::alarm(seconds);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
            libc::_exit(i32::from(!done));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}

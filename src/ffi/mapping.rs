//! Checks that a large range of addresses is mapped memory.
//!
//! The reference functions receive sizes as plain integers, without buffer lengths. An uninitialised or overflowed size
//! describes a buffer of hundreds of gigabytes that does not exist. Such a buffer is looked up in the process's memory
//! map before it is accessed, so that the result is an error and not a crash. Small buffers are not checked: the lookup
//! would cost more than their use.

use std::io::{BufRead, BufReader};
use std::ops::Range;

/// Buffers of at least this size are looked up. Reading the map takes a few 100 us; reading so much memory takes some
/// 10 ms.
const LARGE: usize = 256 << 20;

/// The access to check for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Access {
    /// The expectation, for error messages.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Access::Read => "readable memory",
            Access::Write => "writable memory",
        }
    }
}

/// Returns false if `range` is large and part of it is not mapped for `access`.
pub(super) fn may_be_memory(range: &Range<usize>, access: Access) -> bool {
    if range.len() < LARGE {
        return true;
    }
    // Without this file the answer is unknown.
    std::fs::File::open("/proc/self/maps").map_or(true, |maps| covers(BufReader::new(maps), range, access))
}

/// Whether the mappings in `maps`, which are sorted by address, cover `range` without a gap.
fn covers(maps: impl BufRead, range: &Range<usize>, access: Access) -> bool {
    let mut reached = range.start;
    // The file of a large process has megabytes, so it is read line by line.
    let lines = maps.lines().map_while(Result::ok);
    for (start, end) in lines.filter_map(|line| mapping(&line, access)) {
        if reached >= range.end || start > reached {
            break;
        }
        reached = reached.max(end);
    }
    reached >= range.end
}

/// The bounds of one mapping, if it allows `access`: `7f0c00000000-7f0c00021000 rw-p ...`.
fn mapping(line: &str, access: Access) -> Option<(usize, usize)> {
    let (bounds, rest) = line.split_once(' ')?;
    let (start, end) = bounds.split_once('-')?;
    let (read, write) = (rest.starts_with('r'), rest.get(1..2) == Some("w"));
    let allowed = if access == Access::Read { read } else { write };
    let address = |text| usize::from_str_radix(text, 16).ok();
    allowed.then_some((address(start)?, address(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_rights_are_seen() {
        let maps =
            "1000-3000 r--p 0 0 0\n3000-5000 rw-p 0 0 0 [heap]\n6000-7000 rw-p 0 0 0\n7000-8000 ---p 0 0 0\n";
        for (start, end, read, write) in [
            (0x1000, 0x3000, true, false),
            (0x1800, 0x4800, true, false),
            (0x3000, 0x5000, true, true),
            (0x3000, 0x5001, false, false),
            (0x4000, 0x6800, false, false),
            (0x6000, 0x7000, true, true),
            (0x6000, 0x7001, false, false),
            (0x800, 0x1800, false, false),
            (0x9000, 0xa000, false, false),
        ] {
            let got =
                [Access::Read, Access::Write].map(|access| covers(maps.as_bytes(), &(start..end), access));
            assert_eq!(got, [read, write], "{start:#x}..{end:#x}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn large_buffers_are_looked_up() {
        // Mapped, but never touched.
        let memory = Vec::<u8>::with_capacity(LARGE);
        let start = memory.as_ptr().addr();
        for access in [Access::Read, Access::Write] {
            assert!(may_be_memory(&(start..start + LARGE), access));
            assert!(!may_be_memory(&(start..start + (LARGE << 16)), access));
            assert!(may_be_memory(&(start..start + 1), access));
        }
    }

    /// Small buffers are not looked up; the threshold is the documented one.
    #[cfg(target_os = "linux")]
    #[test]
    fn buffers_are_looked_up_from_a_size_on() {
        // Never mapped: the system reserves the lowest addresses.
        let start = 4096;
        for access in [Access::Read, Access::Write] {
            assert!(may_be_memory(&(start..start + 1), access));
            assert!(may_be_memory(&(start..start + LARGE - 1), access));
            assert!(!may_be_memory(&(start..start + LARGE), access));
        }
        assert_eq!(LARGE, 268_435_456);
    }
}

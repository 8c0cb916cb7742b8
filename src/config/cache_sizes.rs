//! `SPARKLE_CACHES`: the sizes of caches, for machines that misreport them.

use std::fmt;

/// The size of a cache, as the user gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSize {
    /// Bytes; 0 if there is no such cache.
    pub bytes: usize,
    /// The hardware threads that share the cache; `None` if that is as the system reports it.
    pub threads: Option<usize>,
}

/// The caches of the levels 1 to 3. Those that are `None` are as the system reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheSizes(pub [Option<CacheSize>; 3]);

/// The most bytes of a cache: a terabyte. More is taken for a mistake.
const MAX_BYTES: usize = 1 << 40;
/// The most threads that share a cache.
const MAX_THREADS: usize = 1 << 16;
/// The units of sizes, the largest first.
const UNITS: [(char, u32); 3] = [('G', 30), ('M', 20), ('K', 10)];

impl CacheSizes {
    /// What [`CacheSizes::parse`] understands.
    pub(super) const EXPECTED: &str =
        "sizes such as l1=48K,l2=2M,l3=32M/8 (K, M or G; /8: 8 threads share it; 0: there is none)";

    /// Parses `l1=48K,l2=2M,l3=32M/8`: each level at most once, at least one level.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut sizes = CacheSizes::default();
        for part in text.split(',') {
            let (name, size) = part.split_once('=')?;
            let level =
                ["l1", "l2", "l3"].iter().position(|level| name.trim().eq_ignore_ascii_case(level))?;
            let (bytes, threads) = match size.split_once('/') {
                Some((bytes, threads)) => (bytes, Some(whole(threads.trim())?)),
                None => (size, None),
            };
            let in_range = threads.is_none_or(|threads| (1..=MAX_THREADS).contains(&threads));
            let size = CacheSize { bytes: bytes_of(bytes.trim())?, threads };
            if !in_range || sizes.0[level].replace(size).is_some() {
                return None;
            }
        }
        Some(sizes)
    }
}

/// Digits without a sign.
fn whole(text: &str) -> Option<usize> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn bytes_of(text: &str) -> Option<usize> {
    let unit = UNITS.iter().find(|(letter, _)| text.ends_with([*letter, letter.to_ascii_lowercase()]));
    let (number, shift) = unit.map_or((text, 0), |&(_, shift)| (&text[..text.len() - 1], shift));
    whole(number)?.checked_mul(1 << shift).filter(|&bytes| bytes <= MAX_BYTES)
}

/// As `CacheSizes::parse` reads it.
impl fmt::Display for CacheSizes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let levels = self.0.iter().enumerate().filter_map(|(index, size)| Some((index + 1, (*size)?)));
        for (index, (level, CacheSize { bytes, threads })) in levels.enumerate() {
            let unit = UNITS.iter().find(|&&(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
            write!(f, "{}l{level}=", if index == 0 { "" } else { "," })?;
            match unit {
                Some((letter, shift)) => write!(f, "{}{letter}", bytes >> shift)?,
                None => write!(f, "{bytes}")?,
            }
            threads.map_or(Ok(()), |threads| write!(f, "/{threads}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let all = CacheSizes::parse("l1=48K, L2=2m,l3=32M/8").unwrap();
        let size = |bytes, threads| Some(CacheSize { bytes, threads });
        assert_eq!(all, CacheSizes([size(48 << 10, None), size(2 << 20, None), size(32 << 20, Some(8))]));
        assert_eq!(all.to_string(), "l1=48K,l2=2M,l3=32M/8");
        let one = CacheSizes::parse("l3=0").unwrap();
        assert_eq!((one, one.to_string().as_str()), (CacheSizes([None, None, size(0, None)]), "l3=0"));
        for text in ["l2=1000", "l1=1K/2,l3=1G/128", "l3=1024G"] {
            assert_eq!(CacheSizes::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "x",
            "32M",
            "l3",
            "l3=",
            "l3=M",
            "l4=1M",
            "l0=1K",
            "l3=1M,",
            "l3=1M,l3=2M",
            "l3=-1",
            "l3=+1",
            "l3=1.5M",
            "l3=1T",
            "l3=1M/",
            "l3=1M/0",
            "l3=1M/x",
            "l3=1M/99999999",
            "l3=1025G",
            "l3=1M 8",
            "l3=99999999999999999999",
            "l3=18014398509481985K",
            "l3=1é",
        ] {
            assert_eq!(CacheSizes::parse(text), None, "{text}");
        }
    }
}

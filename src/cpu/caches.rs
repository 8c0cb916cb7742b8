//! The system's description of this CPU: its hardware threads and their caches.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::isa::Isa;
use crate::config::{CacheSizes, config};
use crate::memory::{Caches, Hierarchy};

/// This CPU as the system and `SPARKLE_CACHES` describe it, without measurements. Block sizes depend on nothing else. Read once. Unknown
/// values are zero.
pub fn described() -> &'static Hierarchy {
    static DESCRIBED: OnceLock<Hierarchy> = OnceLock::new();
    DESCRIBED.get_or_init(|| {
        let system = Path::new("/sys/devices/system/cpu");
        let online = fs::read_to_string(system.join("online")).unwrap_or_default();
        Hierarchy {
            threads: threads(online.trim()),
            registers: Isa::best().registers(),
            caches: with_sizes(reported(), config().caches.unwrap_or_default()),
            ..Hierarchy::UNKNOWN
        }
    })
}

/// The caches as the system reports them.
pub fn reported() -> Caches {
    read(Path::new("/sys/devices/system/cpu/cpu0/cache"))
}

/// `caches` with the user's sizes in place of some. A cache that the system did not report is a thread's own, unless the
/// user says how many share it.
fn with_sizes(mut caches: Caches, CacheSizes([l1, l2, l3]): CacheSizes) -> Caches {
    for (size, bytes, threads) in [
        (l1, &mut caches.l1, &mut caches.l1_threads),
        (l2, &mut caches.l2, &mut caches.l2_threads),
        (l3, &mut caches.l3, &mut caches.l3_threads),
    ] {
        let Some(size) = size else { continue };
        *bytes = size.bytes;
        *threads = if size.bytes == 0 { 0 } else { size.threads.unwrap_or((*threads).max(1)) };
    }
    caches
}

/// The caches in words.
pub fn words(caches: &Caches) -> String {
    let level = |name: &str, bytes: usize, threads: usize| {
        let shared = if threads > 1 { format!(" for {threads} threads") } else { String::new() };
        (bytes > 0).then(|| format!("{name} {} KiB{shared}", bytes >> 10))
    };
    let Caches { l1, l1_threads, l2, l2_threads, l3, l3_threads, .. } = *caches;
    let levels = [level("L1", l1, l1_threads), level("L2", l2, l2_threads), level("L3", l3, l3_threads)];
    let known: Vec<_> = levels.into_iter().flatten().collect();
    if known.is_empty() { "not known".into() } else { known.join(", ") }
}

/// Reads Linux's description: a directory `indexN` for each cache.
fn read(directory: &Path) -> Caches {
    let mut caches = Caches::UNKNOWN;
    for index in 0..8 {
        let fact = |name: &str| {
            let text = fs::read_to_string(directory.join(format!("index{index}")).join(name)).ok()?;
            Some(text.trim().to_owned())
        };
        let Some(bytes) = fact("size").as_deref().and_then(bytes) else { continue };
        if fact("type").is_none_or(|kind| kind == "Instruction") {
            continue;
        }
        let sharing = fact("shared_cpu_list").as_deref().map_or(0, threads);
        match fact("level").as_deref() {
            Some("1") => (caches.l1, caches.l1_threads) = (bytes, sharing),
            Some("2") => (caches.l2, caches.l2_threads) = (bytes, sharing),
            Some("3") => (caches.l3, caches.l3_threads) = (bytes, sharing),
            _ => {}
        }
        caches.line = fact("coherency_line_size").and_then(|line| line.parse().ok()).unwrap_or(caches.line);
    }
    caches
}

/// Parses `48K`, `32M` or a number of bytes. More than a terabyte is rejected as an error of the system.
fn bytes(text: &str) -> Option<usize> {
    let (number, unit) = match text.strip_suffix(['K', 'k']) {
        Some(number) => (number, 10),
        None => text.strip_suffix('M').map_or((text, 0), |number| (number, 20)),
    };
    let bytes = number.parse::<usize>().ok()?.checked_mul(1 << unit)?;
    (bytes <= 1 << 40).then_some(bytes)
}

/// Counts the entries of a list such as `0-3,8`. Returns zero if the list is malformed.
fn threads(list: &str) -> usize {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').map(count).try_fold(0usize, |sum, part| sum.checked_add(part?)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CacheSize;

    #[test]
    fn a_described_cpu_is_read_and_an_unknown_one_is_unknown() {
        let directory = tempfile::tempdir().unwrap();
        let index = |number: u32, facts: [&str; 5]| {
            let cache = directory.path().join(format!("index{number}"));
            fs::create_dir(&cache).unwrap();
            let names = ["level", "type", "size", "coherency_line_size", "shared_cpu_list"];
            names.iter().zip(facts).for_each(|(name, fact)| fs::write(cache.join(name), fact).unwrap());
        };
        index(0, ["1\n", "Data\n", "48K\n", "64\n", "0\n"]);
        index(1, ["1\n", "Instruction\n", "32K\n", "64\n", "0\n"]);
        index(2, ["2\n", "Unified\n", "1024K\n", "64\n", "0,8\n"]);
        index(3, ["3\n", "Unified\n", "32M\n", "64\n", "0-3,8-11\n"]);
        let expected = Caches {
            l1: 48 << 10,
            l1_threads: 1,
            l2: 1 << 20,
            l2_threads: 2,
            l3: 32 << 20,
            l3_threads: 8,
            line: 64,
        };
        assert_eq!(read(directory.path()), expected);
        assert_eq!(words(&expected), "L1 48 KiB, L2 1024 KiB for 2 threads, L3 32768 KiB for 8 threads");
        assert_eq!(read(&directory.path().join("absent")), Caches::UNKNOWN);
        assert_eq!(words(&Caches::UNKNOWN), "not known");
    }

    #[test]
    fn the_user_corrects_what_the_system_reports() {
        let size = |bytes, threads| Some(CacheSize { bytes, threads });
        let reported =
            Caches { l1: 32 << 10, l1_threads: 2, l3: 480 << 20, l3_threads: 2, ..Caches::UNKNOWN };
        assert_eq!(with_sizes(reported, CacheSizes::default()), reported);
        let given = CacheSizes([None, size(1 << 20, None), size(32 << 20, Some(16))]);
        let corrected = Caches { l2: 1 << 20, l2_threads: 1, l3: 32 << 20, l3_threads: 16, ..reported };
        assert_eq!(with_sizes(reported, given), corrected);
        // The sharing is as reported, and no cache is shared by nobody.
        let given = CacheSizes([size(48 << 10, None), None, size(0, Some(4))]);
        let corrected = Caches { l1: 48 << 10, l3: 0, l3_threads: 0, ..reported };
        assert_eq!(with_sizes(reported, given), corrected);
    }

    #[test]
    fn senseless_facts_are_no_facts() {
        assert_eq!(
            ["", "K", "-1K", "99999999999999999999K", "18446744073709551615K", "2097152M"].map(bytes),
            [None; 6]
        );
        assert_eq!(["", "3-1", "0-", "x", "0,,1", "0-18446744073709551615"].map(threads), [0; 6]);
    }
}

//! The ceilings of a device: what no program exceeds, as short code measures it.
//!
//! All engines measure the same two things: multiply-adds on registers, and reads of data that stay in one level of the
//! memory. With them a roofline has a roof for each level (the cache-aware roofline of Ilic, Pratas and Sousa, 2014), and
//! a share of a roof means the same on every device.

/// The ceilings of a device.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Ceilings {
    /// The threads that `together` means; 0 on a GPU, whose threads are not counted.
    pub threads: usize,
    /// Multiply-adds on registers, in operations a second: one for each instruction set, the one in use first.
    pub peaks: Vec<Ceiling>,
    /// Reads in bytes a second, the nearest level first; the last one is main memory.
    pub levels: Vec<Ceiling>,
    /// The last cache's size as it is described (by the system, or by `SPARKLE_CACHES`) in bytes; 0 if it is not known.
    pub described: usize,
    /// The last cache's size as reads see it: the largest amount of data that is read faster than main memory, a power of
    /// two. `None` if no size slowed them down.
    pub seen: Option<usize>,
}

/// One ceiling.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Ceiling {
    /// The level, or the instruction set.
    pub name: &'static str,
    /// The rate of one thread alone; `None` if that was not measured.
    pub alone: Option<f64>,
    /// The rate of all threads together.
    pub together: f64,
}

/// Rates differ from level to level by more than this factor.
const VISIBLE: f64 = 1.25;

/// A described size is implausible from this multiple of the size seen. Neighbours on the same host take a half of a
/// cache, and often more, but rarely three quarters.
const IMPLAUSIBLE: usize = 4;

impl Ceilings {
    /// Whether the last cache is described as much larger than reads see it.
    pub fn is_implausible(&self) -> bool {
        self.seen.is_some_and(|seen| self.described >= IMPLAUSIBLE.saturating_mul(seen))
    }

    /// The rates of reads, by level.
    pub fn reads(&self) -> Reads {
        let [l1, l2, l3, memory] = ["L1", "L2", "L3", "memory"].map(|name| {
            let level = self.levels.iter().find(|level| level.name == name);
            level.map_or([0.0; 2], |level| [level.alone.unwrap_or(0.0), level.together])
        });
        Reads { l1, l2, l3, memory }
    }

    /// The last cache's size in bytes: as described, if that is plausible.
    pub fn last_cache(&self) -> usize {
        match self.seen {
            Some(seen) if self.described == 0 || self.is_implausible() => seen,
            _ => self.described,
        }
    }
}

/// The largest size whose data are read faster than those of the largest size. `sweep` has sizes in bytes, ascending, and
/// the rates of reading them again and again. The limit is halfway between the best rate and the last, on a scale of
/// logarithms. `None` if these differ little.
pub fn capacity(sweep: &[(usize, f64)]) -> Option<usize> {
    let far = sweep.last()?.1;
    let near = sweep.iter().map(|&(_, rate)| rate).fold(0.0, f64::max);
    let is_visible = far > 0.0 && near >= VISIBLE * far;
    let limit = (near * far).sqrt();
    is_visible.then(|| sweep.iter().rfind(|&&(_, rate)| rate >= limit).map(|&(size, _)| size)).flatten()
}

/// Bytes per second of reads from each level of a CPU's memory: by one thread alone, and by all threads together. Zero if it
/// was not measured.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Reads {
    /// From the L1 cache.
    pub l1: [f64; 2],
    /// From the L2 cache.
    pub l2: [f64; 2],
    /// From the L3 cache.
    pub l3: [f64; 2],
    /// From main memory.
    pub memory: [f64; 2],
}

impl Reads {
    /// No rates.
    pub const UNKNOWN: Self = Reads { l1: [0.0; 2], l2: [0.0; 2], l3: [0.0; 2], memory: [0.0; 2] };
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: usize = 1 << 20;

    #[test]
    fn the_capacity_is_where_the_rate_falls() {
        // A Zen 3 whose 32 MiB of L3 are shared with neighbours.
        let shared = [(2, 38.7), (4, 43.3), (8, 48.4), (16, 48.9), (32, 22.8), (64, 18.0), (128, 17.8)];
        assert_eq!(capacity(&shared), Some(16));
        // A size in between that was disturbed does not count.
        assert_eq!(capacity(&[(2, 40.0), (4, 20.0), (8, 40.0), (16, 20.0)]), Some(8));
        // No fall: nothing is known.
        assert_eq!(capacity(&[(2, 20.0), (4, 21.0), (8, 19.0)]), None);
        assert_eq!(capacity(&[]), None);
        assert_eq!(capacity(&[(2, 20.0), (4, 0.0)]), None);
    }

    #[test]
    fn a_cache_is_implausible_if_reads_see_a_quarter_or_less() {
        let of = |described, seen| Ceilings { threads: 2, peaks: vec![], levels: vec![], described, seen };
        let virtual_machine = of(480 * M, Some(32 * M));
        assert!(virtual_machine.is_implausible());
        assert_eq!(virtual_machine.last_cache(), 32 * M);
        let shared = of(32 * M, Some(16 * M));
        assert!(!shared.is_implausible() && shared.last_cache() == 32 * M);
        assert!(of(32 * M, Some(8 * M)).is_implausible());
        let unseen = of(480 * M, None);
        assert!(!unseen.is_implausible() && unseen.last_cache() == 480 * M);
        assert_eq!(of(0, Some(8 * M)).last_cache(), 8 * M);
        assert_eq!(of(0, None).last_cache(), 0);
    }
}

//! A device as the planner sees it: registers, caches and rates, nothing else.
//!
//! What the system describes (registers, caches, hardware threads) is known at once and never changes; the rates are
//! measured. Block sizes depend on the former alone, so that no noise of a measurement reaches the bits of a result.

/// What a device is described as, and what it was measured to do. Rates that were not measured are zero.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Hierarchy {
    /// fp32 operations a second of one thread's multiply-adds on registers alone: what no kernel exceeds.
    pub peak: f64,
    /// fp32 operations a second that the engine's kernels reach on a problem of middling size.
    pub flops: f64,
    /// Bytes a second that one thread reads and writes in its level 2 cache.
    pub l2: f64,
    /// Bytes a second that one thread reads and writes in level 3.
    pub l3: f64,
    /// Bytes a second between the compute units and the device's main memory.
    pub memory: f64,
    /// Bytes a second from the caller's memory to the device's; infinite where they are the same.
    pub upload: f64,
    /// Bytes a second back; infinite where they are the same.
    pub download: f64,
    /// Seconds from handing over an empty job to its end.
    pub launch: f64,
    /// Hardware threads.
    pub threads: usize,
    /// The vector registers of one of them.
    pub registers: Registers,
    /// Its caches, as far as known.
    pub caches: Caches,
}

impl Hierarchy {
    /// Nothing is known and nothing was measured.
    pub const UNKNOWN: Self = Hierarchy {
        peak: 0.0,
        flops: 0.0,
        l2: 0.0,
        l3: 0.0,
        memory: 0.0,
        upload: 0.0,
        download: 0.0,
        launch: 0.0,
        threads: 0,
        registers: Registers::UNKNOWN,
        caches: Caches::UNKNOWN,
    };

    /// The caches as one of `threads` threads sees them that work at once: each level divided among those that
    /// share it. The system spreads threads over cores, so a level is shared only when there are more of them than
    /// there are caches of that level.
    pub fn caches_for(&self, threads: usize) -> Caches {
        let share = |bytes: usize, sharing: usize| {
            let caches = (self.threads / sharing.max(1)).max(1);
            bytes / threads.div_ceil(caches).clamp(1, sharing.max(1))
        };
        let Caches { l1, l1_threads, l2, l2_threads, l3, l3_threads, line } = self.caches;
        let [l1, l2, l3] = [share(l1, l1_threads), share(l2, l2_threads), share(l3, l3_threads)];
        Caches { l1, l1_threads, l2, l2_threads, l3, l3_threads, line }
    }
}

/// The vector registers of an instruction set. Zero means not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Registers {
    /// How many.
    pub count: usize,
    /// fp32 elements of one.
    pub lanes: usize,
}

impl Registers {
    /// Nothing is known.
    pub const UNKNOWN: Self = Registers { count: 0, lanes: 0 };
}

/// The caches between a core and memory, in bytes, and the hardware threads that share one. Zero means not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Caches {
    /// Level 1, of data.
    pub l1: usize,
    /// Hardware threads that share one level 1.
    pub l1_threads: usize,
    /// Level 2.
    pub l2: usize,
    /// Hardware threads that share one level 2.
    pub l2_threads: usize,
    /// Level 3.
    pub l3: usize,
    /// Hardware threads that share one level 3.
    pub l3_threads: usize,
    /// A line.
    pub line: usize,
}

impl Caches {
    /// Nothing is known.
    pub const UNKNOWN: Self =
        Caches { l1: 0, l1_threads: 0, l2: 0, l2_threads: 0, l3: 0, l3_threads: 0, line: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_shared_once_there_are_more_threads_than_caches() {
        // Eight cores of two threads, two level 3 caches.
        let caches = Caches {
            l1: 48 << 10,
            l1_threads: 2,
            l2: 1 << 20,
            l2_threads: 2,
            l3: 32 << 20,
            l3_threads: 8,
            line: 64,
        };
        let machine = Hierarchy { threads: 16, caches, ..Hierarchy::UNKNOWN };
        let seen = |threads| {
            let Caches { l1, l2, l3, .. } = machine.caches_for(threads);
            (l1 >> 10, l2 >> 10, l3 >> 20)
        };
        assert_eq!(seen(1), (48, 1024, 32));
        assert_eq!(seen(8), (48, 1024, 8));
        assert_eq!(seen(9), (24, 512, 6));
        assert_eq!(seen(16), (24, 512, 4));
        // More threads than the machine has take turns: no more of them compute at once.
        assert_eq!(seen(64), (24, 512, 4));
        // A level 2 that four single-threaded cores share.
        let cluster = Caches { l1_threads: 1, l2_threads: 4, ..caches };
        let cluster = Hierarchy { threads: 8, caches: cluster, ..machine };
        assert_eq!([1, 2, 4, 8].map(|threads| cluster.caches_for(threads).l2 >> 10), [1024, 1024, 512, 256]);
        assert_eq!(Hierarchy::UNKNOWN.caches_for(4), Caches::UNKNOWN);
    }
}

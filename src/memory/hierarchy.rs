//! The description of a device for planners: registers, caches and rates.
//!
//! The system reports registers, caches and hardware threads; they never change. Rates are measured. Block sizes depend
//! only on the former, so that measurement noise does not influence the bits of a result.

use super::ceilings::Reads;

/// A device's reported properties and measured rates. Rates that were not measured are zero.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Hierarchy {
    /// fp32 operations per second of one thread's multiply-adds on registers: the upper bound of all kernels.
    pub peak: f64,
    /// fp32 operations per second of the backend's kernels on a problem of medium size.
    pub flops: f64,
    /// Bytes per second that one thread reads and writes in its L2 cache.
    pub l2: f64,
    /// Bytes per second that one thread reads and writes in the L3 cache.
    pub l3: f64,
    /// Bytes per second between the compute units and the device's main memory.
    pub memory: f64,
    /// Bytes per second from the caller's memory to the device's; infinite if they are the same memory.
    pub upload: f64,
    /// Bytes per second back; infinite if they are the same memory.
    pub download: f64,
    /// Seconds from the submission of an empty job to its end.
    pub launch: f64,
    /// Reads from each level. Zero unless they were asked for ([`Device::hierarchy`](crate::Device::hierarchy)).
    pub reads: Reads,
    /// Hardware threads.
    pub threads: usize,
    /// The vector registers of one hardware thread.
    pub registers: Registers,
    /// The caches, as far as known.
    pub caches: Caches,
}

impl Hierarchy {
    /// A device without any known property or rate.
    pub const UNKNOWN: Self = Hierarchy {
        peak: 0.0,
        flops: 0.0,
        l2: 0.0,
        l3: 0.0,
        memory: 0.0,
        upload: 0.0,
        download: 0.0,
        launch: 0.0,
        reads: Reads::UNKNOWN,
        threads: 0,
        registers: Registers::UNKNOWN,
        caches: Caches::UNKNOWN,
    };

    /// The share of the caches that each of `threads` concurrent threads has. The system spreads threads over cores, so
    /// threads share a cache only if there are more threads than caches of that level.
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

/// The vector registers of an instruction set. Zero means unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Registers {
    /// The number of registers.
    pub count: usize,
    /// fp32 elements of a register.
    pub lanes: usize,
}

impl Registers {
    /// Unknown registers or caches.
    pub const UNKNOWN: Self = Registers { count: 0, lanes: 0 };
}

/// The caches between a core and memory, in bytes, and the hardware threads that share a cache. Zero means unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Caches {
    /// Size of the L1 data cache.
    pub l1: usize,
    /// Hardware threads that share an L1 cache.
    pub l1_threads: usize,
    /// Size of the L2 cache.
    pub l2: usize,
    /// Hardware threads that share an L2 cache.
    pub l2_threads: usize,
    /// Size of the L3 cache.
    pub l3: usize,
    /// Hardware threads that share an L3 cache.
    pub l3_threads: usize,
    /// Size of a cache line.
    pub line: usize,
}

impl Caches {
    /// Unknown registers or caches.
    pub const UNKNOWN: Self =
        Caches { l1: 0, l1_threads: 0, l2: 0, l2_threads: 0, l3: 0, l3_threads: 0, line: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_shared_once_there_are_more_threads_than_caches() {
        // Eight cores of two threads, two L3 caches.
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
        // More threads than the machine has take turns, so no more of them compute at once.
        assert_eq!(seen(64), (24, 512, 4));
        // An L2 cache that four single-threaded cores share.
        let cluster = Caches { l1_threads: 1, l2_threads: 4, ..caches };
        let cluster = Hierarchy { threads: 8, caches: cluster, ..machine };
        assert_eq!([1, 2, 4, 8].map(|threads| cluster.caches_for(threads).l2 >> 10), [1024, 1024, 512, 256]);
        assert_eq!(Hierarchy::UNKNOWN.caches_for(4), Caches::UNKNOWN);
    }
}

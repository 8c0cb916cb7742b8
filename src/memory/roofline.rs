//! The roofline model: the least time of a problem on a device (Williams, Waterman and Patterson 2009).

use super::Hierarchy;

/// The work of one call, computed from the problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations.
    pub flops: u64,
    /// The least bytes moved between compute units and device memory.
    pub bytes: u64,
    /// Bytes uploaded to the device in this call.
    pub upload: u64,
    /// Bytes downloaded in this call.
    pub download: u64,
}

/// The predicted seconds of `work` on a device: the transfers, the slower of arithmetic and memory, and the launch.
///
/// The steps of a synchronous call do not overlap, so their times add up.
pub fn seconds(device: &Hierarchy, work: Work) -> f64 {
    let compute = (work.flops as f64 / device.flops).max(work.bytes as f64 / device.memory);
    work.upload as f64 / device.upload + compute + work.download as f64 / device.download + device.launch
}

/// The predicted seconds of `work` where the steps of `pieces` equal pieces overlap: the slowest step of all pieces, the
/// other steps of one piece, and the launch.
pub fn streamed_seconds(device: &Hierarchy, work: Work, pieces: usize) -> f64 {
    let compute = (work.flops as f64 / device.flops).max(work.bytes as f64 / device.memory);
    let steps = [work.upload as f64 / device.upload, compute, work.download as f64 / device.download];
    let (slowest, all) = (steps.into_iter().fold(0.0, f64::max), steps.iter().sum::<f64>());
    slowest + (all - slowest) / pieces.max(1) as f64 + device.launch
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Hierarchy = Hierarchy {
        flops: 1e11,
        memory: 2e10,
        upload: f64::INFINITY,
        download: f64::INFINITY,
        launch: 1e-6,
        ..Hierarchy::UNKNOWN
    };
    const GPU: Hierarchy = Hierarchy {
        flops: 1e13,
        memory: 1e12,
        upload: 1e10,
        download: 1e10,
        launch: 3e-5,
        ..Hierarchy::UNKNOWN
    };

    #[test]
    fn small_work_belongs_on_the_cpu_and_large_work_on_the_gpu() {
        let small = Work { flops: 100_000, bytes: 4_000, upload: 2_000, download: 2_000 };
        let large =
            Work { flops: 10_000_000_000, bytes: 100_000_000, upload: 50_000_000, download: 50_000_000 };
        assert!(seconds(&CPU, small) < seconds(&GPU, small));
        assert!(seconds(&GPU, large) < seconds(&CPU, large));
    }

    #[test]
    fn pieces_overlap() {
        let work =
            Work { flops: 20_000_000_000_000, bytes: 1, upload: 10_000_000_000, download: 5_000_000_000 };
        // Steps of 1, 2 and 0.5 s.
        for (pieces, expected) in [(0, 3.5), (1, 3.5), (5, 2.3), (1_000_000, 2.0)] {
            let seconds = streamed_seconds(&GPU, work, pieces);
            assert!((seconds - expected).abs() < 1e-4, "{pieces}: {seconds}");
        }
        assert_eq!(streamed_seconds(&GPU, work, 1), seconds(&GPU, work));
    }

    #[test]
    fn the_slower_of_arithmetic_and_memory_counts() {
        let bound_by_memory = Work { flops: 1, bytes: 20_000_000_000, upload: 0, download: 0 };
        assert!((seconds(&CPU, bound_by_memory) - 1.0).abs() < 1e-5);
        let bound_by_transfer = Work { flops: 1, bytes: 1, upload: 10_000_000_000, download: 5_000_000_000 };
        assert!((seconds(&GPU, bound_by_transfer) - 1.5).abs() < 1e-4);
    }
}

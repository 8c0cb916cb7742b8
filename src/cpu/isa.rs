//! The CPU's model, and the micro-kernels it can run.

use std::sync::OnceLock;

use super::kernels::Portable;
#[cfg(target_arch = "x86_64")]
use super::kernels::{Avx2, Avx512};
use crate::config::config;
use crate::memory::Registers;

/// A micro-kernel that this CPU can run. A value proves it.
#[derive(Debug, Clone, Copy)]
pub enum Isa {
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// The architecture's baseline.
    Portable(Portable),
}

/// Checks for each kernel, the fastest first.
const CANDIDATES: &[fn() -> Option<Isa>] = &[
    #[cfg(target_arch = "x86_64")]
    || Avx512::detect().map(Isa::Avx512),
    #[cfg(target_arch = "x86_64")]
    || Avx2::detect().map(Isa::Avx2),
    || Some(Isa::Portable(Portable)),
];

impl Isa {
    /// All kernels that this CPU can run, the fastest first. Never empty.
    #[cfg(test)]
    pub fn all() -> Vec<Isa> {
        CANDIDATES.iter().filter_map(|detect| detect()).collect()
    }

    /// The kernel in use: the one that `SPARKLE_ISA` names if this CPU can run it, else the fastest. Determined once.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::choose(config().isa.as_deref()))
    }

    /// The kernel with this name in `SPARKLE_ISA`, if this CPU can run it.
    pub fn named(name: &str) -> Option<Isa> {
        CANDIDATES.iter().filter_map(|detect| detect()).find(|isa| isa.name() == name)
    }

    /// The named kernel if this CPU can run it, else the fastest.
    fn choose(name: Option<&str>) -> Isa {
        let mut usable = CANDIDATES.iter().filter_map(|detect| detect());
        name.and_then(Isa::named).or_else(|| usable.next()).unwrap_or(Isa::Portable(Portable))
    }

    /// The name in `SPARKLE_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            Isa::Portable(_) => "portable",
        }
    }

    /// The vector registers that its kernels use.
    pub fn registers(self) -> Registers {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => Registers { count: 32, lanes: 16 },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => Registers { count: 16, lanes: 8 },
            // The baselines: NEON has 32 registers, SSE2 16; of others it is not known.
            Isa::Portable(_) if cfg!(target_arch = "aarch64") => Registers { count: 32, lanes: 4 },
            Isa::Portable(_) if cfg!(target_arch = "x86_64") => Registers { count: 16, lanes: 4 },
            Isa::Portable(_) => Registers::UNKNOWN,
        }
    }
}

/// This CPU's vector features that kernels use, for `sparkle info`.
pub fn features() -> Vec<&'static str> {
    let mut found = vec![];
    #[cfg(target_arch = "x86_64")]
    {
        for (name, present) in [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
        ] {
            found.extend(present.then_some(name));
        }
    }
    #[cfg(target_arch = "aarch64")]
    found.extend(std::arch::is_aarch64_feature_detected!("neon").then_some("neon"));
    found
}

/// The CPU's model as the system names it, or else the architecture. Read once.
pub fn model() -> &'static str {
    static MODEL: OnceLock<String> = OnceLock::new();
    MODEL.get_or_init(read_model)
}

fn read_model() -> String {
    let file = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = file.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        // x86 has the first key, some ARM systems one of the others.
        matches!(key.trim(), "model name" | "Model" | "Hardware").then(|| value.trim().to_owned())
    });
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("{} CPU", std::env::consts::ARCH))
}

/// Evaluates an expression for the kernel that an [`Isa`] holds. The expression is generic over the kernel.
macro_rules! with_kernel {
    ($isa:expr, $kernel:ident => $body:expr) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Isa::Avx512($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Isa::Avx2($kernel) => $body,
            $crate::cpu::isa::Isa::Portable($kernel) => $body,
        }
    };
}
pub(super) use with_kernel;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::Kernel;
    use crate::memory::tile::register_tiles;

    #[test]
    fn every_kernels_tile_is_one_that_the_model_admits() {
        fn check<K: Kernel>(_: K, registers: Registers) {
            assert_eq!(K::LANES, registers.lanes, "{}", K::SGEMM);
            let tiles = register_tiles(registers);
            let found = tiles.iter().find(|tile| (tile.mr, tile.nr) == (K::MR, K::NR));
            let tile = found.unwrap_or_else(|| panic!("{} does not fit {registers:?}", K::SGEMM));
            assert!(tile.reuse >= 1.0, "{} loads more than it computes: {tile:?}", K::SGEMM);
            assert!(tile.reuse >= 0.6 * tiles[0].reuse, "{tile:?} beside {:?}", tiles[0]);
        }
        let mut cases = 0;
        for isa in Isa::all().into_iter().filter(|isa| isa.registers() != Registers::UNKNOWN) {
            with_kernel!(isa, kernel => check(kernel, isa.registers()));
            cases += 1;
        }
        assert!(cases > 0 || !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")));
    }

    #[test]
    fn the_best_is_the_first_and_the_portable_is_always_there() {
        let all = Isa::all();
        assert_eq!(Isa::choose(None).name(), all[0].name());
        assert_eq!(Isa::choose(Some("avx1024")).name(), all[0].name());
        for isa in &all {
            assert_eq!(Isa::choose(Some(isa.name())).name(), isa.name());
        }
        assert!(matches!(all.last(), Some(Isa::Portable(_))));
    }
}

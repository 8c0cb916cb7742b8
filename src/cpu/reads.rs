//! Reads with the widest loads of an instruction set, and nothing else: what no program reads faster.

use std::hint::black_box;

use super::isa::Isa;

/// Elements of a step: eight loads of the widest registers, so that the loop itself does not count.
const STEP: usize = 128;

/// Reads the whole steps of `data`, `passes` times.
pub fn run(isa: Isa, data: &[f32], passes: usize) {
    for _ in 0..passes {
        let data = black_box(data);
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the value proves that the CPU has the instructions.
            Isa::Avx512(_) => unsafe { x86::avx512(data) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2(_) => unsafe { x86::avx2(data) },
            Isa::Portable(_) => baseline(data),
        }
    }
}

/// Bytes that a pass over `len` elements reads.
pub fn bytes(len: usize) -> usize {
    len / STEP * STEP * size_of::<f32>()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{STEP, black_box};

    #[target_feature(enable = "avx512f")]
    pub fn avx512(data: &[f32]) {
        let mut sums = [_mm512_setzero_si512(); 8];
        for step in data.as_chunks::<STEP>().0 {
            for (index, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a step has 8 x 16 elements.
                let loaded = unsafe { _mm512_loadu_si512(step.as_ptr().add(16 * index).cast()) };
                *sum = _mm512_or_si512(*sum, loaded);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2(data: &[f32]) {
        let mut sums = [_mm256_setzero_ps(); 8];
        for step in data.as_chunks::<STEP>().0 {
            for (index, vector) in step.as_chunks::<8>().0.iter().enumerate() {
                // SAFETY: a vector has 8 elements.
                let loaded = unsafe { _mm256_loadu_ps(vector.as_ptr()) };
                sums[index % 8] = _mm256_or_ps(sums[index % 8], loaded);
            }
        }
        black_box(sums);
    }
}

/// As the compiler generates them for the architecture's baseline.
fn baseline(data: &[f32]) {
    let mut sums = [0u32; 32];
    for step in data.as_chunks::<STEP>().0 {
        for part in step.as_chunks::<32>().0 {
            for (sum, element) in sums.iter_mut().zip(part) {
                *sum |= element.to_bits();
            }
        }
    }
    black_box(sums);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_reads_whole_steps_only() {
        let data: Vec<f32> = (0..1000).map(|index| index as f32).collect();
        for isa in Isa::all() {
            // Miri and the sanitizers see a read outside.
            for len in [0, 1, 127, 128, 129, 1000] {
                run(isa, &data[1000 - len..], 2);
            }
        }
        assert_eq!([0, 127, 128, 1000].map(bytes), [0, 0, 512, 3584]);
    }
}

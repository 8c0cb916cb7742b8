//! Options of the shader generators: any convolution, device limits and variant. Every variant that is possible by
//! the planner is generated, names can be parsed, and nothing overflows.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sparkle::memory::tiles::{Gpu, TILES, Tile};
use sparkle::shader::pass_plan::generate;
use sparkle::shader::single::{Single, Request, iterations_of};
use sparkle::shader::tuner::Record;
use sparkle::shader::variant::{Family, Variant, candidates, is_possible, seconds};
use sparkle::{Algorithm, Conv2d, Conv2dDesc};

/// A side: mostly of usual size, now and then any number.
#[derive(Debug, Arbitrary)]
enum Side {
    Small(u8),
    Usual(u16),
    Any(i64),
}

impl Side {
    fn value(&self) -> i64 {
        match *self {
            Side::Small(value) => i64::from(value % 16),
            Side::Usual(value) => i64::from(value),
            Side::Any(value) => value,
        }
    }
}

#[derive(Debug, Arbitrary)]
struct Input {
    sizes: [Side; 14],
    bias: bool,
    relu: bool,
    algorithm: u8,
    limits: [u32; 4],
    family: u8,
    tile: u8,
    splits: u8,
    wish: [u8; 4],
    text: String,
}

impl Input {
    fn problem(&self) -> Option<Conv2d> {
        let [n, c, h, w, k, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups] =
            self.sizes.each_ref().map(Side::value);
        let algorithm =
            [Algorithm::Auto, Algorithm::Direct, Algorithm::Winograd][usize::from(self.algorithm) % 3];
        let desc = Conv2dDesc {
            n,
            c,
            h,
            w,
            k,
            r,
            s,
            stride_h,
            stride_w,
            pad_h,
            pad_w,
            dilation_h,
            dilation_w,
            groups,
            bias: self.bias,
            relu: self.relu,
            algorithm,
            ..Default::default()
        };
        Conv2d::new(desc).ok()
    }

    /// A device: the assumed one with other limits. GL guarantees 1,024 invocations, 32 KiB and 2^27 bytes a binding.
    fn gpu(&self) -> Gpu {
        let [threads, shared, elements, iterations] = self.limits.map(|it| it as usize);
        Gpu {
            max_threads: 1024 + threads % 1024,
            shared_bytes: (32 << 10) + shared % (128 << 10),
            max_elements: (1 << 25) + elements % ((1 << 31) - (1 << 25)),
            max_iterations: 3584 + iterations % 900_000,
            ..Gpu::ASSUMED
        }
    }

    /// A variant, which the planner need not consider.
    fn variant(&self) -> Variant {
        let families = [
            Family::Fallback,
            Family::Grouped(1),
            Family::Grouped(2),
            Family::Grouped(4),
            Family::Grouped(8),
            Family::Igemm,
            Family::Table,
            Family::Pointwise(2),
            Family::Pointwise(4),
            Family::Pointwise(8),
            Family::Winograd(2),
            Family::Winograd(4),
        ];
        let family = families[usize::from(self.family) % families.len()];
        match family {
            Family::Fallback | Family::Grouped(_) | Family::Pointwise(_) => {
                Variant { family, ..Variant::FALLBACK }
            }
            Family::Winograd(_) => Variant { family, tile: self.tile(), splits: 1 },
            _ => Variant { family, tile: self.tile(), splits: 1 + usize::from(self.splits % 32) },
        }
    }

    fn tile(&self) -> Tile {
        TILES[usize::from(self.tile) % TILES.len()]
    }
}

/// Every pass of a possible variant has work, bindings and text.
fn check(variant: &Variant, problem: &Conv2d) {
    let Some(recipe) = generate(variant, problem) else {
        return assert_eq!(variant.family, Family::Fallback, "{variant} is possible, but not generated");
    };
    assert!(!recipe.run.is_empty());
    for pass in recipe.prepare.iter().chain(&recipe.run) {
        assert!(pass.source.text.starts_with("#version 430"), "{}", pass.source.name);
        assert!(!pass.bindings.is_empty(), "{}", pass.source.name);
    }
}

fuzz_target!(|input: Input| {
    // Texts from elsewhere: names of variants, lines that tell iterations, records of the tuner.
    if let Ok(variant) = input.text.parse::<Variant>() {
        assert_eq!(variant.to_string(), input.text);
    }
    let _ = iterations_of(&input.text);
    if let Some(record) = Record::from_text(&input.text) {
        assert_eq!(record.to_text().lines().count(), record.entries().len());
    }
    let Some(problem) = input.problem().filter(|problem| !problem.is_empty()) else { return };
    let (gpu, variant) = (input.gpu(), input.variant());
    if is_possible(&problem, &gpu, &variant) {
        check(&variant, &problem);
    }
    for variant in candidates(&problem, &gpu) {
        assert_eq!(variant.to_string().parse(), Ok(variant));
        assert!(seconds(&problem, &gpu, &variant) > 0.0);
        check(&variant, &problem);
    }
    let [x, y, registers, more] = input.wish;
    let wish = Request {
        threads: [x, y].map(|it| 1 << (it % 12)),
        registers: usize::from(registers),
        shared: more & 1 == 1,
        chains: usize::from(more >> 1) % 4,
    };
    if let Ok(single) = Single::new(&wish, &problem)
        && let Ok(source) = single.source(&problem)
    {
        assert!(iterations_of(&source.text).is_some(), "{}", source.name);
    }
});

//! Problems for correctness tests. Together they reach every option of every template.
//!
//! [`Cases`] walks through all families, tiles and numbers of splits in a fixed order. For each it draws a shape that fits no
//! tile: odd sides, one channel more or less than a slice, kernels larger than the image. The same seed draws the same cases.
//! [`deep`] returns the deepest sums that each family supports.

use super::iterations;
use super::variant::{Family, POINTWISE_PARTS, Variant, is_possible};
use crate::memory::tiles::{Gpu, TILES, Tile};
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Conv2dDesc, TensorLayout, WeightsLayout};

/// Numbers of parts of the reduction that are tested with each tile.
const SPLITS: [usize; 4] = [1, 2, 3, 7];
/// Shapes to draw before a variant counts as impossible on the device.
const MAX_DRAWS: usize = 200;

/// The code path of a template that a drawn shape takes, where the variant does not determine it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Any kernel, stride, dilation and padding.
    Any,
    /// 1x1 on an image of whole vectors: pixels and outputs are accessed four at a time.
    Pointwise,
    /// Outputs are stored four at a time, pixels are read one by one.
    WholeRows,
}

/// An endless iterator over cases that a device can run.
#[derive(Debug, Clone)]
pub struct Cases {
    random: Random,
    gpu: Gpu,
    kinds: Vec<(Variant, Form)>,
    next: usize,
}

impl Cases {
    /// The cases of `seed` for a device with these limits.
    pub fn new(seed: u64, gpu: Gpu) -> Self {
        let mut kinds = vec![(Variant::FALLBACK, Form::Any)];
        for tm in [1, 2, 4, 8] {
            let variant = Variant { family: Family::Grouped(tm), ..Variant::FALLBACK };
            kinds.extend([Form::Any, Form::WholeRows].map(|form| (variant, form)));
        }
        for kg in POINTWISE_PARTS {
            let variant = Variant { family: Family::Pointwise(kg), ..Variant::FALLBACK };
            kinds.push((variant, Form::Pointwise));
        }
        for tile in TILES.into_iter().filter(|tile| tile.fits(&gpu)) {
            kinds.extend(tiled(tile));
        }
        Cases { random: Random::new(seed), gpu, kinds, next: 0 }
    }

    /// The number of cases of one walk through all options.
    pub fn kinds(&self) -> usize {
        self.kinds.len()
    }

    fn draw(&mut self, variant: &Variant, form: Form) -> Option<Conv2d> {
        let (random, gpu) = (&mut self.random, &self.gpu);
        let drawn = std::iter::repeat_with(|| Conv2d::new(desc(random, variant, form)).ok()).take(MAX_DRAWS);
        drawn.flatten().find(|problem| is_possible(problem, gpu, variant))
    }
}

impl Iterator for Cases {
    type Item = (Conv2d, Variant);

    fn next(&mut self) -> Option<Self::Item> {
        // This ends: the fallback is always possible.
        loop {
            let (variant, form) = self.kinds[self.next % self.kinds.len()];
            self.next += 1;
            if let Some(problem) = self.draw(&variant, form) {
                return Some((problem, variant));
            }
        }
    }
}

/// The deepest sums that each family and tile supports on a device, with few outputs. They fail if the device ends loops early.
/// The fallback kernels need several passes for theirs.
pub fn deep(gpu: &Gpu) -> Vec<(Conv2d, Variant)> {
    let base = Conv2dDesc { k: 5, w: 3, relu: true, ..Default::default() };
    let square = Conv2dDesc { h: 3, w: 3, r: 3, s: 3, pad_h: 1, pad_w: 1, ..base };
    let mut deepest = vec![];
    let mut add = |variant: Variant, desc: Conv2dDesc| {
        let problem = |c| Conv2d::new(Conv2dDesc { c, ..desc }).ok();
        let can = |&c: &i64| problem(c).is_some_and(|it| is_possible(&it, gpu, &variant));
        // Binary search: all depths below the largest possible one are possible.
        let most = if matches!(variant.family, Family::Winograd(_)) { DEEPEST_WINOGRAD } else { DEEPEST };
        let (mut possible, mut too_many) = (16, most);
        while too_many - possible > 1 {
            let middle = possible.midpoint(too_many);
            *(if can(&middle) { &mut possible } else { &mut too_many }) = middle;
        }
        deepest.extend(Some(possible).filter(can).and_then(problem).map(|problem| (problem, variant)));
    };
    for tile in TILES.into_iter().filter(|tile| tile.fits(gpu)) {
        for (splits, desc) in [(1, base), (2, square)] {
            add(Variant { family: Family::Igemm, tile, splits }, desc);
        }
        for m in [2, 4] {
            add(Variant { family: Family::Winograd(m), tile, splits: 1 }, square);
        }
    }
    for tm in [1, 4] {
        let family = Family::Grouped(tm);
        add(Variant { family, ..Variant::FALLBACK }, Conv2dDesc { k: tm as i64, ..square });
    }
    let pass =
        iterations::parts(&problem_of(Conv2dDesc { c: DEEPEST, ..base }), gpu.max_iterations).unwrap()[0];
    let c = 2 * pass.products() as i64 + 3;
    let long = 2 * gpu.max_iterations.min(iterations::MAX_PASS_ITERATIONS) as i64;
    let rows = Conv2dDesc { h: long / 50, w: 60, r: long / 50, s: 59, bias: true, ..base };
    for desc in [
        Conv2dDesc { c, ..base },
        Conv2dDesc { c: 2 * (c / 5), groups: 2, k: 4, bias: true, dilation_h: 2, ..square },
        rows,
        Conv2dDesc { w: long, s: long - 1, pad_w: 1, ..base },
    ] {
        deepest.push((problem_of(desc), Variant::FALLBACK));
    }
    deepest
}

/// The maximum depth: up to here, float32 sums of the test's integers are exact.
const DEEPEST: i64 = 1 << 21;
/// With more channels, transformed weights take gigabytes.
const DEEPEST_WINOGRAD: i64 = 1 << 15;

fn problem_of(desc: Conv2dDesc) -> Conv2d {
    Conv2d::new(desc).expect("sound sizes")
}

/// All variants and forms of the tile template.
fn tiled(tile: Tile) -> Vec<(Variant, Form)> {
    let mut kinds = vec![];
    for family in [Family::Igemm, Family::Table] {
        for splits in SPLITS {
            let variant = Variant { family, tile, splits };
            kinds.extend([Form::Any, Form::Pointwise, Form::WholeRows].map(|form| (variant, form)));
        }
    }
    for m in [2, 4] {
        let variant = Variant { family: Family::Winograd(m), tile, splits: 1 };
        kinds.extend([Form::Any, Form::WholeRows].map(|form| (variant, form)));
    }
    kinds
}

/// Draws sizes and layouts for `variant`, which may not support all of them.
fn desc(random: &mut Random, variant: &Variant, form: Form) -> Conv2dDesc {
    let desc = plain_desc(random, variant, form);
    let weights = [WeightsLayout::Oihw, WeightsLayout::Hwio, WeightsLayout::Ohwi];
    let weights_layout = random.pick(&weights);
    if form != Form::Any || matches!(variant.family, Family::Pointwise(_)) {
        return Conv2dDesc { weights_layout, ..desc };
    }
    let [input_layout, output_layout] =
        [(); 2].map(|()| random.pick(&[TensorLayout::Nchw, TensorLayout::Nhwc]));
    Conv2dDesc { input_layout, output_layout, weights_layout, ..desc }
}

/// [`desc`] with images in NCHW and weights in OIHW.
fn plain_desc(random: &mut Random, variant: &Variant, form: Form) -> Conv2dDesc {
    let few = [1, 2, 3, 5, 7, 15];
    let many = [16, 17, 31, 33, 40];
    let flags =
        Conv2dDesc { bias: random.between(0, 1) == 0, relu: random.between(0, 1) == 0, ..Default::default() };
    let base = Conv2dDesc { n: random.between(1, 3), ..flags };
    let side = |random: &mut Random| match form {
        Form::Any => (random.between(1, 15), random.between(1, 15)),
        _ => (random.between(1, 9), 4 * random.between(1, 4)),
    };
    let (h, w) = side(random);
    match variant.family {
        Family::Winograd(_) => {
            let pad = if form == Form::WholeRows { 1 } else { random.between(0, 1) };
            let (c, k) = (random.pick(&many), random.pick(&[1, 4, 5, 33, 65]));
            let desc = Conv2dDesc { c, k, h: h + 1, w: w.max(2), r: 3, s: 3, pad_h: pad, pad_w: pad, ..base };
            if form == Form::WholeRows {
                return desc;
            }
            let [below, right] = [(); 2].map(|()| random.pick(&[None, Some(0), Some(1)]));
            Conv2dDesc { pad_bottom: below, pad_right: right, ..desc }
        }
        Family::Grouped(tm) => {
            let groups = random.pick(&[1, 2, 3, 8]);
            let (c, k) = (groups * random.pick(&few), groups * tm as i64 * random.between(1, 2));
            shaped(random, form, Conv2dDesc { c, k, h, w, groups, ..base })
        }
        Family::Pointwise(_) => {
            let (c, k) = (random.pick(&[8, 16, 17, 33, 63]), random.pick(&[1, 4, 5, 33, 65]));
            Conv2dDesc { c, k, h, w, r: 1, s: 1, ..base }
        }
        family => {
            let groups = random.pick(&[1, 1, 1, 2, 3]);
            let channels = match family {
                Family::Table => random.pick(&few),
                Family::Igemm => random.pick(&many),
                _ => random.pick(&few[..]),
            };
            let (c, k) = (groups * channels, groups * random.pick(&[1, 2, 4, 5, 16, 35]));
            shaped(random, form, Conv2dDesc { c, k, h, w, groups, ..base })
        }
    }
}

/// Adds a kernel, strides, dilation and padding to `desc`.
fn shaped(random: &mut Random, form: Form, desc: Conv2dDesc) -> Conv2dDesc {
    if form == Form::Pointwise {
        return Conv2dDesc { r: 1, s: 1, ..desc };
    }
    let (r, s) = random.pick(&[(1, 1), (3, 3), (3, 3), (2, 3), (5, 5), (7, 7), (1, 4), (11, 11)]);
    if form == Form::WholeRows {
        // An odd kernel keeps the width, and so the whole vectors.
        let s = s | 1;
        return Conv2dDesc { r, s, pad_h: r / 2, pad_w: s / 2, ..desc };
    }
    let (stride_h, stride_w) = random.pick(&[(1, 1), (1, 1), (2, 2), (2, 1), (1, 3), (4, 4)]);
    let (dilation_h, dilation_w) = random.pick(&[(1, 1), (1, 1), (1, 1), (2, 1), (2, 3)]);
    let (pad_h, pad_w) = (random.between(0, r / 2 + 1), random.between(0, s / 2 + 1));
    let pad_bottom = Some(random.between(-1, r / 2 + 1)).filter(|&pad| pad >= 0);
    let pad_right = Some(random.between(-1, s / 2 + 1)).filter(|&pad| pad >= 0);
    let kernel = Conv2dDesc { r, s, stride_h, stride_w, dilation_h, dilation_w, ..desc };
    Conv2dDesc { pad_h, pad_w, pad_bottom, pad_right, ..kernel }
}

#[cfg(test)]
mod drawn;

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::shader::pass_plan::{Pass, PassPlan, generate};
    use crate::shader::source::check_all_with_glslang;
    use crate::shader::variant::candidates;

    /// The limits of a device that can run every tile.
    pub const LARGE: Gpu = Gpu { shared_bytes: 128 << 10, ..Gpu::ASSUMED };

    /// All passes of a plan.
    pub fn passes(plan: &PassPlan) -> impl Iterator<Item = &Pass> {
        plan.prepare.iter().chain(&plan.run)
    }

    #[test]
    fn glslang_accepts_every_case() {
        let cases = Cases::new(6, LARGE);
        let kinds = cases.kinds();
        assert!(kinds > 500, "{kinds}");
        let mut sources = BTreeMap::new();
        for (problem, variant) in cases.take(kinds) {
            if let Some(plan) = generate(&variant, &problem) {
                sources
                    .extend(passes(&plan).map(|pass| (pass.source.text.clone(), pass.source.name.clone())));
            }
        }
        assert!(sources.len() > 900, "{}", sources.len());
        let sources: Vec<(&str, &str)> =
            sources.iter().map(|(text, name)| (name.as_str(), text.as_str())).collect();
        check_all_with_glslang(&sources);
    }

    /// The sums are as deep as the iterations allow, or as memory allows.
    #[test]
    fn deep_sums_are_as_deep_as_can_be() {
        for most in [3584, 57_344, 917_504] {
            let gpu = Gpu { max_iterations: most, ..LARGE };
            let all = deep(&gpu);
            let mut seen = BTreeMap::<String, usize>::new();
            for (problem, variant) in &all {
                let iterations = match generate(variant, problem) {
                    Some(plan) => passes(&plan).map(|pass| pass.iterations).max().unwrap(),
                    None => {
                        let parts = iterations::parts(problem, most).unwrap();
                        assert!(parts.len() > 1, "{problem:?}");
                        assert_eq!(
                            parts.iter().map(|part| part.products()).sum::<usize>(),
                            problem.reduction()
                        );
                        most
                    }
                };
                assert!(iterations <= most, "{variant}: {iterations} of {most}");
                let near = iterations > most / 2 || problem.reduction() > 1 << 18;
                assert!(
                    near || matches!(variant.family, Family::Winograd(_)),
                    "{variant}: {iterations} of {most}"
                );
                *seen.entry(format!("{:?}", variant.family)).or_default() += 1;
            }
            let families = ["Fallback", "Grouped(1)", "Grouped(4)", "Igemm", "Winograd(2)", "Winograd(4)"];
            assert!(seen.keys().eq(families), "{most}: {seen:?}");
        }
    }

    /// The same seed draws the same cases, another seed draws others.
    #[test]
    fn a_seed_stands_for_its_cases() {
        let of = |seed| Cases::new(seed, LARGE).take(40).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    /// Threads and shared bytes of a workgroup, as the GLSL declares them.
    pub fn declared(source: &str) -> (usize, usize) {
        let size = |name: &str| -> Option<usize> {
            let line = source.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")))?;
            line.parse().ok()
        };
        let Some(threads) = size("THREADS") else { return (64, 0) };
        if source.contains("shared vec4 parts[KG * 4 * 64]") {
            return (threads, 16 * 4 * 64 * size("KG").unwrap());
        }
        let [bm, bn, bk, kg] = ["BM", "BN", "BK", "KG"].map(|name| size(name).unwrap());
        let operands = 2 * bk * bm + 2 * bk * bn;
        let others = if kg > 1 { kg / 2 * bm * bn } else { 0 };
        let depth = size("CHANNELS").unwrap() * size("R").unwrap() * size("S").unwrap();
        let table = if size("TABLE") == Some(1) { 2 * depth.next_multiple_of(bk) } else { 0 };
        (threads, 4 * (operands + others + table))
    }

    /// Neither the planner nor these cases exceed the limits of a device.
    #[test]
    fn what_exceeds_a_device_is_never_offered() {
        let mut random = Random::new(8);
        let (mut checked, mut refused) = (0, 0);
        for _ in 0..60 {
            let gpu = Gpu {
                shared_bytes: random.pick(&[4, 8, 16, 32, 48, 64]) << 10,
                max_threads: random.pick(&[64, 128, 256, 1024]),
                max_elements: 1 << random.between(12, 20),
                ..Gpu::ASSUMED
            };
            let fits = |problem: &Conv2d, variant: &Variant| {
                let Some(plan) = generate(variant, problem) else { return };
                let largest = plan.scratch.iter().copied().max().unwrap_or_default().max(plan.packed);
                assert!(largest <= gpu.max_elements, "{variant}: {largest} elements, {gpu:?}");
                for pass in passes(&plan) {
                    let (threads, shared) = declared(&pass.source.text);
                    let right = threads <= gpu.max_threads && shared <= gpu.shared_bytes;
                    assert!(right, "{variant}: {threads} threads, {shared} bytes, {gpu:?}");
                }
            };
            for (problem, variant) in Cases::new(random.bits(), gpu).take(20) {
                fits(&problem, &variant);
                let (offered, all) = (candidates(&problem, &gpu), candidates(&problem, &LARGE));
                offered.iter().for_each(|variant| fits(&problem, variant));
                checked += offered.len();
                refused += all.len() - offered.len().min(all.len());
            }
        }
        assert!(checked > 1000 && refused > 1000, "{checked} offered, {refused} refused");
    }
}

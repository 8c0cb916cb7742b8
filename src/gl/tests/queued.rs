//! Convolutions on a caller's buffers, with every kind of kernel. Weights are packed anew each time.

use std::rc::Rc;

use super::share_group;
use crate::error::Error;
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::dispatch::DispatchBudget;
use crate::gl::execution::passes::{Buffers, Passes};
use crate::gl::execution::programs::Programs;
use crate::gl::reference::queued::Recent;
use crate::memory::tiles::Tile;
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Conv2dDesc, oracle};
use crate::shader::pass_plan;
use crate::shader::variant::{Family, Variant};

fn problem(c: i64, k: i64) -> Conv2d {
    let desc = Conv2dDesc { n: 2, c, h: 24, w: 27, k, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    Conv2d::new(desc).unwrap()
}

/// A caller's buffers, which belong to no program cache.
struct Case {
    problem: Conv2d,
    input: Vec<f32>,
    weights: Vec<f32>,
    buffers: [Buffer; 3],
}

impl Case {
    /// With buffers that are `more` elements longer than needed.
    fn new(context: &Rc<Context>, problem: Conv2d, seed: u64, more: usize) -> Self {
        let mut random = Random::new(seed);
        let (input, weights) =
            (random.integers(problem.input_len(), 4), random.integers(problem.weights_len(), 4));
        let longer = |data: &[f32]| -> Buffer {
            let data: Vec<f32> = data.iter().copied().chain(std::iter::repeat_n(f32::NAN, more)).collect();
            Buffer::with_data(context, bytemuck::cast_slice(&data)).unwrap()
        };
        let output = vec![f32::NAN; problem.output_len()];
        let buffers = [longer(&input), longer(&weights), longer(&output)];
        Case { problem, input, weights, buffers }
    }

    fn names(&self) -> [u32; 3] {
        self.buffers.each_ref().map(Buffer::name)
    }

    fn change_weights(&mut self, seed: u64) {
        self.weights = Random::new(seed).integers(self.problem.weights_len(), 4);
        self.buffers[1].upload(bytemuck::cast_slice(&self.weights)).unwrap();
    }

    fn output(&self, context: &Context) -> Vec<f32> {
        context.api().memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
        let mut output = vec![0.0; self.problem.output_len()];
        self.buffers[2].read(bytemuck::cast_slice_mut(&mut output)).unwrap();
        output
    }

    fn check(&self, context: &Context, exactly: bool) {
        let expected = oracle::conv2d(&self.problem, &self.input, &self.weights, None);
        let right = |(&got, expected): (&f32, oracle::Expected)| match exactly {
            true => f64::from(got) == expected.value,
            false => (f64::from(got) - expected.value).abs() < 1e-2,
        };
        assert!(self.output(context).iter().zip(expected).all(right), "{:?}", self.problem);
    }
}

#[test]
fn every_kind_of_kernel_with_weights_that_change() {
    let Some(group) = share_group() else { return };
    let context = group.context().unwrap();
    let mut programs = Programs::new(context.clone());
    let mut packed = 0;
    for family in [Family::Igemm, Family::Table, Family::Grouped(4), Family::Winograd(2)] {
        let problem = problem(16, 24);
        let variant = Variant { family, tile: Tile::new(32, 32, 16, 4, 4, 1), splits: 1 };
        let Some(recipe) = pass_plan::generate(&variant, &problem) else { panic!("no recipe for {variant}") };
        packed += usize::from(recipe.packed > 0);
        let passes = Passes::with_packed(&mut programs, &recipe, DispatchBudget::new()).unwrap();
        let mut case = Case::new(&context, problem, 1, 0);
        for seed in 2..5 {
            case.change_weights(seed);
            let [input, weights, output] = &case.buffers;
            passes.enqueue_packing(weights).unwrap();
            passes.enqueue_cut(&Buffers { input, weights, bias: None, output, epilogue: None }).unwrap();
            case.check(&context, !matches!(family, Family::Winograd(_)));
        }
    }
    assert!(packed >= 2, "{packed}");
}

#[test]
fn more_shapes_than_are_kept() {
    let Some(group) = share_group() else { return };
    let context = group.context().unwrap();
    let mut programs = Programs::new(context.clone());
    let mut recent = Recent::default();
    for turn in 0..24 {
        // Ten shapes, every third with the fallback kernel.
        let problem = if turn % 3 == 2 { problem(1, 2) } else { problem(14 + turn % 10, 17) };
        let case = Case::new(&context, problem, turn as u64, 0);
        let queued = recent.enqueue(&mut programs, &problem, case.names(), true);
        if turn % 3 == 2 {
            assert!(matches!(queued, Err(Error::Unsupported { .. })), "{queued:?}");
            assert!(case.output(&context).iter().all(|value| value.is_nan()));
        } else {
            queued.unwrap();
            case.check(&context, false);
        }
    }
}

#[test]
fn buffers_of_the_wrong_size() {
    let Some(group) = share_group() else { return };
    let context = group.context().unwrap();
    let mut programs = Programs::new(context.clone());
    let mut recent = Recent::default();
    let problem = problem(16, 24);
    let case = Case::new(&context, problem, 1, 5);
    recent.enqueue(&mut programs, &problem, case.names(), false).unwrap();
    case.check(&context, false);
    let refused = |recent: &mut Recent, programs: &mut Programs, names: [u32; 3], exactly: bool| {
        let queued = recent.enqueue(programs, &problem, names, exactly);
        programs.context().forget_errors();
        assert!(queued.is_err());
    };
    refused(&mut recent, &mut programs, case.names(), true);
    let small = Buffer::new(&context, 64).unwrap();
    for index in 0..3 {
        for bad in [small.name(), 0, 0x7fff_ffff] {
            let mut names = case.names();
            names[index] = bad;
            refused(&mut recent, &mut programs, names, false);
        }
    }
    case.check(&context, false);
}

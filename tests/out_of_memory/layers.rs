//! Layers of small integers with exact outputs from the float64 oracle.

use sparkle::ffi::conv2d::sparkle_conv2d_desc;
use sparkle::problem::exact::Random;
use sparkle::problem::oracle;
use sparkle::{Algorithm, Conv2d, Conv2dDesc};

/// A layer and its expected output.
pub struct Layer {
    pub desc: sparkle_conv2d_desc,
    pub input: Vec<f32>,
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
    pub expected: Vec<f32>,
    /// The tolerance of the output: Winograd's transforms round.
    pub tolerance: f32,
}

pub fn layer(desc: &Conv2dDesc) -> Layer {
    let (problem, mut random) = (Conv2d::new(*desc).unwrap(), Random::new(7));
    let mut integers = |len| random.integers(len, 4);
    let input = integers(problem.input_len());
    let (weights, bias) = (integers(problem.weights_len()), integers(desc.k as usize));
    let expected = oracle::conv2d(&problem, &input, &weights, desc.bias.then_some(&bias));
    let largest = expected.iter().fold(0.0, |most: f64, it| most.max(it.magnitude));
    let rounds = desc.algorithm == Algorithm::Winograd;
    Layer {
        desc: (*desc).into(),
        input,
        weights,
        bias,
        expected: expected.into_iter().map(|it| it.value as f32).collect(),
        tolerance: if rounds { largest as f32 * 1e-4 } else { 0.0 },
    }
}

/// Layers that use different algorithms, with buffers that are large allocations.
pub fn layers() -> Vec<(&'static str, Layer)> {
    let base = Conv2dDesc { bias: true, ..Default::default() };
    let square = Conv2dDesc { c: 64, h: 24, w: 24, k: 64, r: 3, s: 3, ..base };
    let layers = [
        ("direct", Conv2dDesc { algorithm: Algorithm::Direct, ..square }),
        ("pointwise", Conv2dDesc { c: 256, h: 16, w: 16, k: 128, ..base }),
        ("strided", Conv2dDesc { c: 64, h: 41, w: 41, k: 48, r: 3, s: 3, stride_h: 2, stride_w: 2, ..base }),
        ("grouped", Conv2dDesc { c: 128, h: 34, w: 34, k: 128, r: 3, s: 3, groups: 128, ..base }),
        ("deep", Conv2dDesc { c: 512, h: 5, w: 5, k: 64, r: 3, s: 3, algorithm: Algorithm::Direct, ..base }),
        ("long", Conv2dDesc { c: 2, h: 1, w: 12_000, k: 4, r: 1, s: 9_000, ..base }),
        ("winograd", Conv2dDesc { algorithm: Algorithm::Winograd, ..square }),
    ];
    layers.map(|(name, desc)| (name, layer(&desc))).into()
}

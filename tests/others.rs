//! Compares every device with the crate `matrixmultiply`. The results agree within the error bounds.

mod cpu_cases;

use cpu_cases::{ConvCase, GemmCase, Values, conv_desc, gemm_desc};
use sparkle::problem::exact::Random;
use sparkle::problem::oracle::{Expected, gamma};
use sparkle::{Conv2dDesc, Device, DeviceKind};

/// The CPU and every usable GL device.
fn devices() -> Vec<Device> {
    let all = sparkle::devices();
    let ids = all
        .iter()
        .filter(|it| it.kind == DeviceKind::Cpu || it.id.as_deref().is_some_and(|id| id.starts_with("gl:")));
    ids.filter_map(|it| it.id.as_deref()).map(|id| Device::open(id).unwrap()).collect()
}

/// Checks that two float32 results of one sum differ by at most two error bounds.
#[track_caller]
fn check(what: &dyn std::fmt::Debug, got: f32, other: f32, expected: Expected, terms: usize) {
    let bound = 2.0 * gamma(terms) * expected.magnitude + 2.0 * f64::from(f32::from_bits(1)) * terms as f64;
    let distance = (f64::from(got) - f64::from(other)).abs();
    assert!(distance <= bound, "{what:?}: {got} and {other}; expected {}", expected.value);
}

#[test]
fn products() {
    let mut random = Random::new(71);
    let (devices, mut cases, mut compared) = (devices(), 0, 0);
    while cases < 300 {
        let case = GemmCase::new(gemm_desc(&mut random), Values::Real, &mut random);
        let s = *case.problem.sizes();
        // Software GL is too slow for larger products.
        if s.m * s.n * s.k > 1 << 20 {
            continue;
        }
        let mut theirs = case.c.clone();
        let [a, b, c] = [(s.a_row, s.a_col), (s.b_row, s.b_col), (s.c_row, s.c_col)]
            .map(|(row, col)| (row as isize, col as isize));
        // SAFETY: the matrices hold all elements of the sizes and strides.
        unsafe {
            matrixmultiply::sgemm(
                s.m,
                s.k,
                s.n,
                case.desc.alpha,
                case.a.as_ptr(),
                a.0,
                a.1,
                case.b.as_ptr(),
                b.0,
                b.1,
                case.desc.beta,
                theirs.as_mut_ptr(),
                c.0,
                c.1,
            );
        }
        for device in &devices {
            let mut ours = case.c.clone();
            device.sgemm(&case.problem, &case.a, &case.b, &mut ours).unwrap();
            for (index, expected) in case.expected() {
                check(&(device.id(), case.desc), ours[index], theirs[index], expected, case.problem.terms());
                compared += usize::from(ours[index] != 0.0);
            }
        }
        cases += 1;
    }
    assert!(compared > 100_000, "{compared} in {cases} cases");
}

/// Convolutions. `matrixmultiply` multiplies the weights by the im2col matrix.
#[test]
fn convolutions() {
    let mut random = Random::new(72);
    let (devices, mut cases, mut compared) = (devices(), 0, 0);
    while cases < 200 {
        let desc = Conv2dDesc { relu: false, bias: false, ..conv_desc(&mut random) };
        let case = ConvCase::new(desc, Values::Real, &mut random);
        if case.problem.flops() > 4_000_000 {
            continue;
        }
        let (expected, theirs) = (case.expected(), by_im2col(&case));
        for device in &devices {
            let mut ours = vec![f32::NAN; theirs.len()];
            device.conv2d(&case.problem, &case.input, &case.weights, None, &mut ours).unwrap();
            for ((&ours, &theirs), &expected) in ours.iter().zip(&theirs).zip(&expected) {
                check(&(device.id(), case.desc), ours, theirs, expected, case.problem.terms());
                compared += usize::from(ours != 0.0);
            }
        }
        cases += 1;
    }
    assert!(compared > 100_000, "{compared} in {cases} cases");
}

fn by_im2col(case: &ConvCase) -> Vec<f32> {
    let s = case.problem.sizes();
    let (c, k, pixels, depth) = (s.c / s.groups, s.k / s.groups, s.p * s.q, case.problem.reduction());
    let mut output = vec![0.0f32; case.problem.output_len()];
    for (n, group) in (0..s.n).flat_map(|n| (0..s.groups).map(move |group| (n, group))) {
        let mut matrix = vec![0.0f32; depth * pixels];
        for (row, line) in matrix.chunks_exact_mut(pixels).enumerate() {
            let (channel, r, t) = (row / (s.r * s.s), row / s.s % s.r, row % s.s);
            let plane = &case.input[((n * s.c) + group * c + channel) * s.h * s.w..][..s.h * s.w];
            for (pixel, value) in line.iter_mut().enumerate() {
                let y = (pixel / s.q * s.stride_h + r * s.dilation_h).wrapping_sub(s.pad_h);
                let x = (pixel % s.q * s.stride_w + t * s.dilation_w).wrapping_sub(s.pad_w);
                if y < s.h && x < s.w {
                    *value = plane[y * s.w + x];
                }
            }
        }
        let (weights, to) = (&case.weights[group * k * depth..], (n * s.k + group * k) * pixels);
        let (depth_step, pixel_step) = (depth as isize, pixels as isize);
        // SAFETY: weights are k x depth, the matrix is depth x pixels, and the output has k x pixels elements from this address.
        unsafe {
            let (a, b, c) = (weights.as_ptr(), matrix.as_ptr(), output[to..].as_mut_ptr());
            matrixmultiply::sgemm(
                k, depth, pixels, 1.0, a, depth_step, 1, b, pixel_step, 1, 0.0, c, pixel_step, 1,
            );
        }
    }
    output
}

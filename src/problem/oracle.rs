//! The float64 oracle: both problems solved the naive way, and the bound every fp32 result must keep.
//!
//! Beside each value stands its magnitude, the same sum over absolute values. An fp32 sum of K products in any
//! order, with or without fused multiply-adds, differs from the exact one by at most gamma_(K+3) times the
//! magnitude, where gamma_n = n u / (1 - n u) and u = 2^-24 (Higham, Accuracy and Stability of Numerical
//! Algorithms, 2nd ed., section 3.1). ReLU moves no two values further apart, so the bound holds behind it too.
//!
//! NaN and infinity are numbers like any other here: an output is the sum of all its C/G*R*S products, those with the padding's zeros
//! among them, so that an infinite weight there makes NaN. ReLU leaves NaN as it is.

use super::{Conv2d, Conv2dSizes, Gemm, GemmSizes};

/// One exact result with the magnitude of its sum.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Expected {
    /// The result in float64.
    pub value: f64,
    /// The sum of the absolute values of its terms.
    pub magnitude: f64,
}

/// Computes one row of outputs, `(n, k, p, 0..Q)`, into `row`.
pub fn conv2d_row(
    problem: &Conv2d,
    (input, weights, bias): (&[f32], &[f32], Option<&[f32]>),
    (n, k, p): (usize, usize, usize),
    row: &mut [Expected],
) {
    let Conv2dSizes { c, h, w, r, s, groups, .. } = *problem.sizes();
    let Conv2dSizes { stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, .. } = *problem.sizes();
    let (c_group, first) = (c / groups, k / (problem.sizes().k / groups) * (c / groups));
    let start = bias.map_or(0.0, |bias| f64::from(bias[k]));
    row.fill(Expected { value: start, magnitude: start.abs() });
    for (ci, ri) in (0..c_group).flat_map(|ci| (0..r).map(move |ri| (ci, ri))) {
        let y = (p * stride_h + ri * dilation_h).wrapping_sub(pad_h);
        let line = if y < h { &input[((n * c + first + ci) * h + y) * w..][..w] } else { &[] };
        for si in 0..s {
            let weight = f64::from(weights[((k * c_group + ci) * r + ri) * s + si]);
            for (q, expected) in row.iter_mut().enumerate() {
                let x = (q * stride_w + si * dilation_w).wrapping_sub(pad_w);
                let term = weight * line.get(x).map_or(0.0, |&pixel| f64::from(pixel));
                expected.value += term;
                expected.magnitude += term.abs();
            }
        }
    }
    if problem.relu() {
        // Not max(), which would turn NaN into 0.
        row.iter_mut().filter(|it| it.value < 0.0).for_each(|expected| expected.value = 0.0);
    }
}

/// Computes the whole convolution, row after row.
pub fn conv2d(problem: &Conv2d, input: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<Expected> {
    let Conv2dSizes { k, p, q, .. } = *problem.sizes();
    let mut output = vec![Expected::default(); problem.output_len()];
    for (index, row) in output.chunks_exact_mut(q).enumerate() {
        conv2d_row(problem, (input, weights, bias), (index / p / k, index / p % k, index % p), row);
    }
    output
}

/// Computes C(i, j) of a matrix product; `c` holds the old C.
pub fn gemm_element(problem: &Gemm, a: &[f32], b: &[f32], c: &[f32], i: usize, j: usize) -> Expected {
    let GemmSizes { k, a_row, a_col, b_row, b_col, c_row, c_col, .. } = *problem.sizes();
    let mut sum = Expected::default();
    if !problem.is_scaling() {
        for p in 0..k {
            let term = f64::from(a[i * a_row + p * a_col]) * f64::from(b[p * b_row + j * b_col]);
            sum.value += f64::from(problem.alpha()) * term;
            sum.magnitude += (f64::from(problem.alpha()) * term).abs();
        }
    }
    if problem.beta() != 0.0 {
        let term = f64::from(problem.beta()) * f64::from(c[i * c_row + j * c_col]);
        sum.value += term;
        sum.magnitude += term.abs();
    }
    sum
}

/// The factor gamma_(terms + 3) of the error bound.
pub fn gamma(terms: usize) -> f64 {
    let nu = (terms as f64 + 3.0) * 2f64.powi(-24);
    nu / (1.0 - nu)
}

/// How far `got` is from what was expected, in units of the bound: at most 1 is right. NaN is right where NaN was
/// expected, an infinity where that infinity was; anywhere else they are infinitely wrong.
pub fn error_over_bound(got: f32, expected: Expected, terms: usize) -> f64 {
    let got = f64::from(got);
    let error = (got - expected.value).abs();
    // A product or sum that underflows is off by up to the smallest denormal.
    let bound = gamma(terms) * expected.magnitude + f64::from(f32::from_bits(1)) * terms as f64;
    if got == expected.value || (got.is_nan() && expected.value.is_nan()) {
        0.0
    } else if !error.is_finite() {
        f64::INFINITY
    } else {
        error / bound
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Conv2dDesc, GemmDesc, Layout};
    use super::*;

    #[test]
    fn a_convolution_worked_by_hand() {
        // A 3x3 image, a 2x2 kernel, padding 1 on top and bottom only, stride 2 down.
        let desc =
            Conv2dDesc { h: 3, w: 3, r: 2, s: 2, stride_h: 2, pad_h: 1, bias: true, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let input = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let output = conv2d(&problem, &input, &[1.0, -1.0, 10.0, 100.0], Some(&[0.5]));
        let values: Vec<f64> = output.iter().map(|expected| expected.value).collect();
        assert_eq!(values, [210.5, 320.5, -1.0 + 870.0 + 0.5, -1.0 + 980.0 + 0.5]);
        assert_eq!(output[2].magnitude, 0.5 + 4.0 + 5.0 + 70.0 + 800.0);
    }

    #[test]
    fn infinite_weights_meet_the_padding() {
        let desc =
            Conv2dDesc { h: 2, w: 2, r: 2, s: 2, pad_h: 1, pad_w: 1, relu: true, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let weights = [1.0, f32::INFINITY, 1.0, 1.0];
        let output = conv2d(&problem, &[1.0, 2.0, 3.0, -4.0], &weights, None);
        let kind = |value: f64| {
            if value.is_nan() {
                'n'
            } else if value.is_infinite() {
                'i'
            } else {
                'f'
            }
        };
        let kinds: String = output.iter().map(|expected| kind(expected.value)).collect();
        // The infinite weight lies on the pixel above each output's own: on padding in the first row and the last column.
        assert_eq!(kinds, "nnniinifn");
        assert_eq!((output[3].value, output[7].value), (f64::INFINITY, 0.0));
    }

    #[test]
    fn a_product_worked_by_hand() {
        let desc = GemmDesc { alpha: 2.0, beta: -1.0, ..GemmDesc::packed(Layout::ColMajor, 1, 1, 2) };
        let problem = Gemm::new(desc).unwrap();
        let got = gemm_element(&problem, &[3.0, -4.0], &[5.0, 6.0], &[7.0], 0, 0);
        assert_eq!(got, Expected { value: 2.0 * (15.0 - 24.0) - 7.0, magnitude: 30.0 + 48.0 + 7.0 });
    }

    #[test]
    fn the_bound_tells_right_from_wrong() {
        let expected = Expected { value: 1.0, magnitude: 1.0 };
        assert_eq!(error_over_bound(1.0, expected, 1), 0.0);
        assert!(error_over_bound(1.0 + f32::EPSILON, expected, 1) <= 1.0);
        assert!(error_over_bound(1.0 + 4.0 * f32::EPSILON, expected, 1) > 1.0);
        assert_eq!(error_over_bound(f32::NAN, expected, 1), f64::INFINITY);
        assert!(error_over_bound(1e-30, Expected::default(), 9) > 1.0);
        let nan = Expected { value: f64::NAN, magnitude: f64::NAN };
        assert_eq!(error_over_bound(f32::NAN, nan, 1), 0.0);
        assert_eq!(error_over_bound(0.0, nan, 1), f64::INFINITY);
        let infinite = Expected { value: f64::INFINITY, magnitude: f64::INFINITY };
        assert_eq!(error_over_bound(f32::INFINITY, infinite, 1), 0.0);
        assert_eq!(error_over_bound(f32::NEG_INFINITY, infinite, 1), f64::INFINITY);
    }
}

//! The float64 oracle: both problems solved the naive way, and the bound every fp32 result must keep.
//!
//! Beside each value stands its magnitude, the same sum over absolute values. An fp32 sum of K products in any
//! order, with or without fused multiply-adds, differs from the exact one by at most gamma_(K+3) times the
//! magnitude, where gamma_n = n u / (1 - n u) and u = 2^-24 (Higham, Accuracy and Stability of Numerical
//! Algorithms, 2nd ed., section 3.1). ReLU moves no two values further apart, so the bound holds after it, too.
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
    let (of_input, of_weights) = (problem.sizes().input_strides(), problem.sizes().weights_strides());
    let start = bias.map_or(0.0, |bias| f64::from(bias[k]));
    row.fill(Expected { value: start, magnitude: start.abs() });
    for (ci, ri) in (0..c_group).flat_map(|ci| (0..r).map(move |ri| (ci, ri))) {
        let y = (p * stride_h + ri * dilation_h).wrapping_sub(pad_h);
        for si in 0..s {
            let weight = f64::from(weights[of_weights.at(k, ci, ri, si)]);
            for (q, expected) in row.iter_mut().enumerate() {
                let x = (q * stride_w + si * dilation_w).wrapping_sub(pad_w);
                let inside = y < h && x < w;
                let pixel = if inside { input[of_input.at(n, first + ci, y, x)] } else { 0.0 };
                let term = weight * f64::from(pixel);
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

/// Computes the whole convolution, row after row, in the order of its output.
pub fn conv2d(problem: &Conv2d, input: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<Expected> {
    let Conv2dSizes { n, k, p, q, .. } = *problem.sizes();
    let mut output = vec![Expected::default(); problem.output_len()];
    let strides = problem.sizes().output_strides();
    let mut row = vec![Expected::default(); q];
    for index in 0..n * k * p {
        let (n, k, p) = (index / p / k, index / p % k, index % p);
        conv2d_row(problem, (input, weights, bias), (n, k, p), &mut row);
        row.iter().enumerate().for_each(|(q, expected)| output[strides.at(n, k, p, q)] = *expected);
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
    use super::super::exact::Random;
    use super::super::{Conv2dDesc, GemmDesc, Layout, Transpose};
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

    /// The definition, term by term, with coordinates that may lie outside of the image.
    fn defined(problem: &Conv2d, input: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<Expected> {
        let sizes = problem.sizes();
        let (c_group, k_group) = (sizes.c / sizes.groups, sizes.k / sizes.groups);
        let mut output = vec![];
        for index in 0..problem.output_len() {
            let (q, p) = (index % sizes.q, index / sizes.q % sizes.p);
            let (k, n) = (index / (sizes.p * sizes.q) % sizes.k, index / (sizes.p * sizes.q * sizes.k));
            let mut expected = Expected::default();
            let mut add = |term: f64| {
                expected.value += term;
                expected.magnitude += term.abs();
            };
            add(bias.map_or(0.0, |bias| bias[k].into()));
            for tap in 0..c_group * sizes.r * sizes.s {
                let (s, r, c) = (tap % sizes.s, tap / sizes.s % sizes.r, tap / (sizes.r * sizes.s));
                let y = (p * sizes.stride_h + r * sizes.dilation_h) as i64 - sizes.pad_h as i64;
                let x = (q * sizes.stride_w + s * sizes.dilation_w) as i64 - sizes.pad_w as i64;
                if (0..sizes.h as i64).contains(&y) && (0..sizes.w as i64).contains(&x) {
                    let channel = n * sizes.c + k / k_group * c_group + c;
                    let pixel = input[(channel * sizes.h + y as usize) * sizes.w + x as usize];
                    add(f64::from(weights[k * c_group * sizes.r * sizes.s + tap]) * f64::from(pixel));
                }
            }
            if problem.relu() && expected.value < 0.0 {
                expected.value = 0.0;
            }
            output.push(expected);
        }
        output
    }

    #[test]
    fn convolutions_of_every_kind_are_as_defined() {
        let mut random = Random::new(11);
        let mut with = [0; 5];
        for _ in 0..200 {
            let groups = random.between(1, 3);
            let mut small = |least| random.between(least, 3);
            let desc = Conv2dDesc {
                n: small(1),
                c: groups * small(1),
                h: small(1) + 6,
                w: small(1) + 7,
                k: groups * small(1),
                r: small(1),
                s: small(1),
                stride_h: small(1),
                stride_w: small(1),
                pad_h: small(0),
                pad_w: small(0),
                dilation_h: small(1),
                dilation_w: small(1),
                groups,
                bias: small(0) > 1,
                relu: small(0) > 1,
                ..Default::default()
            };
            let problem = Conv2d::new(desc).unwrap();
            let input = random.integers(problem.input_len(), 5);
            let weights = random.integers(problem.weights_len(), 5);
            let bias = desc.bias.then(|| random.integers(problem.sizes().k, 5));
            let expected = defined(&problem, &input, &weights, bias.as_deref());
            assert_eq!(conv2d(&problem, &input, &weights, bias.as_deref()), expected, "{desc:?}");
            let kinds = [groups > 1, desc.stride_h > 1, desc.dilation_w > 1, desc.pad_h > desc.r, desc.relu];
            with.iter_mut().zip(kinds).for_each(|(count, is)| *count += usize::from(is));
        }
        assert!(with.iter().all(|&count| count > 10), "{with:?}");
    }

    #[test]
    fn relu_keeps_nan_and_zero() {
        let problem = Conv2d::new(Conv2dDesc { w: 5, relu: true, ..Default::default() }).unwrap();
        let output = conv2d(&problem, &[-2.0, 0.0, 3.0, f32::NAN, f32::NEG_INFINITY], &[1.0], None);
        let values: Vec<f64> = output.iter().map(|it| it.value).collect();
        assert_eq!((&values[..3], values[4]), (&[0.0, 0.0, 3.0][..], 0.0));
        assert!(values[3].is_nan());
        assert_eq!(output[0].magnitude, 2.0, "the bound is that of the sum");
    }

    #[test]
    fn products_of_every_layout_are_as_defined() {
        let (m, n, k) = (3, 4, 5);
        let mut random = Random::new(12);
        for layout in [Layout::RowMajor, Layout::ColMajor] {
            for (trans_a, trans_b) in [(false, false), (true, false), (false, true), (true, true)] {
                let transpose = |yes| if yes { Transpose::Yes } else { Transpose::No };
                let desc = GemmDesc {
                    trans_a: transpose(trans_a),
                    trans_b: transpose(trans_b),
                    lda: 6,
                    ldb: 7,
                    ldc: 8,
                    alpha: -3.0,
                    beta: 2.0,
                    ..GemmDesc::packed(layout, m, n, k)
                };
                let problem = Gemm::new(desc).unwrap();
                let [a, b, c] = problem.lens().map(|len| random.integers(len, 9));
                // Stored row i, column j: side by side along a row, or along a column.
                let at = |data: &[f32], ld: usize, i: usize, j: usize| match layout {
                    Layout::RowMajor => f64::from(data[i * ld + j]),
                    Layout::ColMajor => f64::from(data[j * ld + i]),
                };
                for (i, j) in (0..m as usize).flat_map(|i| (0..n as usize).map(move |j| (i, j))) {
                    let of_a = |p| if trans_a { at(&a, 6, p, i) } else { at(&a, 6, i, p) };
                    let of_b = |p| if trans_b { at(&b, 7, j, p) } else { at(&b, 7, p, j) };
                    let terms =
                        || (0..k as usize).map(|p| -3.0 * of_a(p) * of_b(p)).chain([2.0 * at(&c, 8, i, j)]);
                    let value = terms().sum::<f64>();
                    let magnitude = terms().map(f64::abs).sum::<f64>();
                    assert_eq!(gemm_element(&problem, &a, &b, &c, i, j), Expected { value, magnitude });
                }
            }
        }
        // Neither the operands nor the old C are looked at where their factor is zero.
        let none =
            Gemm::new(GemmDesc { alpha: 0.0, beta: 2.0, ..GemmDesc::packed(Layout::RowMajor, 1, 1, 1) })
                .unwrap();
        assert_eq!(gemm_element(&none, &[], &[], &[4.0], 0, 0), Expected { value: 8.0, magnitude: 8.0 });
        let fresh = Gemm::new(GemmDesc::packed(Layout::RowMajor, 1, 1, 1)).unwrap();
        assert_eq!(gemm_element(&fresh, &[2.0], &[4.0], &[], 0, 0), Expected { value: 8.0, magnitude: 8.0 });
    }

    #[test]
    fn the_bound_worked_by_hand() {
        // 2^20 + 3 - 3 roundings of 2^-24 each: 1/16, over 15/16.
        assert_eq!(gamma((1 << 20) - 3), 1.0 / 15.0);
        assert_eq!(gamma(1), 4.0 * 2f64.powi(-24) / (1.0 - 4.0 * 2f64.powi(-24)));
        let expected = Expected { value: 3.0, magnitude: 5.0 };
        let denormal = f64::from(f32::from_bits(1));
        let bound = 5.0 / 15.0 + denormal * ((1 << 20) - 3) as f64;
        assert_eq!(error_over_bound(3.25, expected, (1 << 20) - 3), 0.25 / bound);
        assert_eq!(error_over_bound(2.75, expected, (1 << 20) - 3), 0.25 / bound);
        // Nothing but underflow: a denormal for each term.
        assert_eq!(error_over_bound(f32::from_bits(6), Expected::default(), 3), 2.0);
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

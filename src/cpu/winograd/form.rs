//! The forms F(m x m, 3 x 3): the transforms, and why they compute a convolution.
//!
//! By Cook and Toom, m outputs of a correlation with three weights need only alpha = m + 2 products:
//!
//! ```text
//! y = A^T [(G g) . (B^T d)]        d: alpha inputs, g: three weights, "." element by element
//! ```
//!
//! Choose alpha - 1 points p_i, and infinity. Let N_i(x) be the product of (x - p_j) over all j other than i, and N(x)
//! the product over all j. Then
//!
//! ```text
//! A^T: column i is 1, p_i, p_i^2, ... (m of them)          infinity: 0, ..., 0, 1
//! G:   row i is (1, p_i, p_i^2) / N_i(p_i)                 infinity: 0, 0, 1
//! B^T: row i holds the coefficients of N_i(x)              infinity: those of N(x)
//! ```
//!
//! (the transpose of evaluating two polynomials at the points and interpolating their product). Applied in both
//! directions, this takes alpha^2 products for m^2 outputs of a 3 x 3 kernel. The definition takes 9 m^2: 2.25 times as
//! many for F(2x2), 4 times for F(4x4), 5.06 times for F(6x6).
//!
//! The transforms are written out, with common subexpressions computed once. A test compares them with the matrices.

use super::vector::Lane;
use crate::problem::Conv2d;

/// The largest alpha.
pub const MAX_ALPHA: usize = 8;

/// A form. Transforms take and return arrays whose first alpha or m elements are valid.
pub trait Form: Copy + Send + Sync + 'static {
    /// Outputs in each direction.
    const M: usize;
    /// Inputs in each direction: M + 2.
    const ALPHA: usize = Self::M + 2;
    /// The finite points; infinity is the last point.
    #[cfg(test)]
    const POINTS: &'static [f64];
    /// About the number of operations of the weight transform.
    fn preparation(problem: &Conv2d) -> u64 {
        let elements = problem.weights_len() / 9 * Self::ALPHA * Self::ALPHA;
        6 * elements as u64
    }

    /// G g: transforms three weights.
    fn weights<L: Lane>(g: [L; 3]) -> [L; MAX_ALPHA];

    /// B^T d: transforms alpha inputs.
    fn input<L: Lane>(d: [L; MAX_ALPHA]) -> [L; MAX_ALPHA];

    /// A^T t: transforms alpha products into m outputs.
    fn output<L: Lane>(t: [L; MAX_ALPHA]) -> [L; MAX_ALPHA];
}

/// F(2x2, 3x3).
#[derive(Debug, Clone, Copy)]
pub struct F2;

/// F(4x4, 3x3).
#[derive(Debug, Clone, Copy)]
pub struct F4;

/// F(6x6, 3x3).
#[derive(Debug, Clone, Copy)]
pub struct F6;

impl Form for F2 {
    const M: usize = 2;
    #[cfg(test)]
    const POINTS: &'static [f64] = &[0.0, 1.0, -1.0];

    #[inline(always)]
    fn weights<L: Lane>([a, b, c]: [L; 3]) -> [L; MAX_ALPHA] {
        let (even, odd) = (a.add(c).scaled(0.5), b.scaled(0.5));
        [a.scaled(-1.0), even.add(odd), even.sub(odd), c, c, c, c, c]
    }

    #[inline(always)]
    fn input<L: Lane>(d: [L; MAX_ALPHA]) -> [L; MAX_ALPHA] {
        [d[2].sub(d[0]), d[2].add(d[1]), d[2].sub(d[1]), d[3].sub(d[1]), d[0], d[0], d[0], d[0]]
    }

    #[inline(always)]
    fn output<L: Lane>(t: [L; MAX_ALPHA]) -> [L; MAX_ALPHA] {
        let (sum, difference) = (t[1].add(t[2]), t[1].sub(t[2]));
        [t[0].add(sum), difference.add(t[3]), sum, sum, sum, sum, sum, sum]
    }
}

impl Form for F4 {
    const M: usize = 4;
    // -1/2 as the partner of 2, instead of -2: smaller entries in the transforms, and so a smaller error.
    #[cfg(test)]
    const POINTS: &'static [f64] = &[0.0, 1.0, -1.0, 2.0, -0.5];

    #[inline(always)]
    fn weights<L: Lane>([a, b, c]: [L; 3]) -> [L; MAX_ALPHA] {
        let even = a.add(c);
        [
            a,
            even.add(b).scaled(-1.0 / 3.0),
            even.sub(b).scaled(1.0 / 3.0),
            a.add_scaled(2.0, b).add_scaled(4.0, c).scaled(1.0 / 15.0),
            a.add_scaled(-0.5, b).add_scaled(0.25, c).scaled(-16.0 / 15.0),
            c,
            c,
            c,
        ]
    }

    #[inline(always)]
    fn input<L: Lane>(d: [L; MAX_ALPHA]) -> [L; MAX_ALPHA] {
        // All rows except those of 1 and -1 have the factor x^2 - 1: one difference per power.
        let (e0, e1, e2, e3) = (d[2].sub(d[0]), d[3].sub(d[1]), d[4].sub(d[2]), d[5].sub(d[3]));
        let (even, odd) = (e2.add_scaled(-1.5, d[3]), e1.add_scaled(-1.5, d[2]));
        [
            e2.add_scaled(-1.5, e1).sub(e0),
            even.add(odd),
            even.sub(odd),
            e2.add_scaled(0.5, e1),
            e2.add_scaled(-2.0, e1),
            e3.add_scaled(-1.5, e2).sub(e1),
            d[0],
            d[0],
        ]
    }

    #[inline(always)]
    fn output<L: Lane>(t: [L; MAX_ALPHA]) -> [L; MAX_ALPHA] {
        let (sum, difference) = (t[1].add(t[2]), t[1].sub(t[2]));
        [
            t[0].add(sum).add(t[3].add(t[4])),
            difference.add_scaled(2.0, t[3]).add_scaled(-0.5, t[4]),
            sum.add_scaled(4.0, t[3]).add_scaled(0.25, t[4]),
            difference.add_scaled(8.0, t[3]).add_scaled(-0.125, t[4]).add(t[5]),
            sum,
            sum,
            sum,
            sum,
        ]
    }
}

impl Form for F6 {
    const M: usize = 6;
    #[cfg(test)]
    const POINTS: &'static [f64] = &[0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5];

    #[inline(always)]
    fn weights<L: Lane>([a, b, c]: [L; 3]) -> [L; MAX_ALPHA] {
        let (even1, even2, even3) = (a.add(c), a.add_scaled(4.0, c), a.add_scaled(0.25, c));
        [
            a.scaled(-1.0),
            even1.add(b).scaled(-2.0 / 9.0),
            even1.sub(b).scaled(-2.0 / 9.0),
            even2.add_scaled(2.0, b).scaled(1.0 / 90.0),
            even2.add_scaled(-2.0, b).scaled(1.0 / 90.0),
            even3.add_scaled(0.5, b).scaled(32.0 / 45.0),
            even3.add_scaled(-0.5, b).scaled(32.0 / 45.0),
            c,
        ]
    }

    #[inline(always)]
    fn input<L: Lane>(d: [L; MAX_ALPHA]) -> [L; MAX_ALPHA] {
        // Points come in pairs p, -p: their rows are the sum and the difference of an even and an odd half.
        let half = |a: L, b: L, c: L, middle: f32, last: f32| a.add_scaled(middle, b).add_scaled(last, c);
        let (even1, odd1) = (half(d[6], d[4], d[2], -4.25, 1.0), half(d[5], d[3], d[1], -4.25, 1.0));
        let (even2, odd2) = (half(d[6], d[4], d[2], -1.25, 0.25), half(d[5], d[3], d[1], -1.25, 0.25));
        let (even3, odd3) = (half(d[6], d[4], d[2], -5.0, 4.0), half(d[5], d[3], d[1], -5.0, 4.0));
        [
            d[6].sub(d[0]).add_scaled(5.25, d[2].sub(d[4])),
            even1.add(odd1),
            even1.sub(odd1),
            even2.add_scaled(2.0, odd2),
            even2.add_scaled(-2.0, odd2),
            even3.add_scaled(0.5, odd3),
            even3.add_scaled(-0.5, odd3),
            d[7].sub(d[1]).add_scaled(5.25, d[3].sub(d[5])),
        ]
    }

    #[inline(always)]
    fn output<L: Lane>(t: [L; MAX_ALPHA]) -> [L; MAX_ALPHA] {
        let (sum1, sum2, sum3) = (t[1].add(t[2]), t[3].add(t[4]), t[5].add(t[6]));
        let (dif1, dif2, dif3) = (t[1].sub(t[2]), t[3].sub(t[4]), t[5].sub(t[6]));
        [
            t[0].add(sum1).add(sum2.add(sum3)),
            dif1.add_scaled(2.0, dif2).add_scaled(0.5, dif3),
            sum1.add_scaled(4.0, sum2).add_scaled(0.25, sum3),
            dif1.add_scaled(8.0, dif2).add_scaled(0.125, dif3),
            sum1.add_scaled(16.0, sum2).add_scaled(0.0625, sum3),
            dif1.add_scaled(32.0, dif2).add_scaled(0.03125, dif3).add(t[7]),
            sum1,
            sum1,
        ]
    }
}

/// G: alpha rows of three elements.
#[cfg(test)]
pub fn weight_matrix<F: Form>() -> [[f64; 3]; MAX_ALPHA] {
    let mut matrix = [[0.0; 3]; MAX_ALPHA];
    for (i, (row, &point)) in matrix.iter_mut().zip(F::POINTS).enumerate() {
        let others = F::POINTS.iter().enumerate().filter(|&(j, _)| j != i);
        let scale: f64 = others.map(|(_, other)| point - other).product();
        *row = [1.0, point, point * point].map(|power| power / scale);
    }
    matrix[F::ALPHA - 1] = [0.0, 0.0, 1.0];
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::exact::Random;

    /// Coefficients of the product of (x - p) over all points except one, the lowest power first.
    fn polynomial(points: &[f64], without: Option<usize>) -> [f64; MAX_ALPHA] {
        let mut product = [0.0; MAX_ALPHA];
        product[0] = 1.0;
        for (_, point) in points.iter().enumerate().filter(|&(i, _)| Some(i) != without) {
            for power in (0..MAX_ALPHA).rev() {
                let lower = if power == 0 { 0.0 } else { product[power - 1] };
                product[power] = lower - point * product[power];
            }
        }
        product
    }

    fn unit(index: usize) -> [f64; MAX_ALPHA] {
        std::array::from_fn(|i| f64::from(u8::from(i == index)))
    }

    fn the_written_transforms_are_the_matrices<F: Form>() {
        assert_eq!((F::POINTS.len(), F::M + 2), (F::ALPHA - 1, F::ALPHA));
        for j in 0..3 {
            let column = F::weights(std::array::from_fn(|i| f64::from(u8::from(i == j))));
            for (i, &got) in column.iter().enumerate().take(F::ALPHA) {
                let expected = weight_matrix::<F>()[i][j];
                assert!((got - expected).abs() <= 2f64.powi(-24) * expected.abs(), "G at {i}, {j}: {got}");
            }
        }
        for j in 0..F::ALPHA {
            let column = F::input(unit(j));
            for (i, &got) in column.iter().enumerate().take(F::ALPHA) {
                let without = (i < F::POINTS.len()).then_some(i);
                assert_eq!(got, polynomial(F::POINTS, without)[j], "B^T at {i}, {j}");
            }
            let column = F::output(unit(j));
            for (i, &got) in column.iter().enumerate().take(F::M) {
                let infinity = f64::from(u8::from(i == F::M - 1));
                let expected = F::POINTS.get(j).map_or(infinity, |point| point.powi(i as i32));
                assert_eq!(got, expected, "A^T at {i}, {j}");
            }
        }
    }

    fn one_dimension_is_a_correlation<F: Form>() {
        let (g_matrix, mut random) = (weight_matrix::<F>(), Random::new(41));
        for _ in 0..100 {
            let d: [f64; MAX_ALPHA] = std::array::from_fn(|_| random.between(-9, 9) as f64);
            // Multiples of all denominators of G, so that every step is exact.
            let g: [f64; 3] = std::array::from_fn(|_| (720 * random.between(-9, 9)) as f64);
            let weights = g_matrix.map(|row| row[0] * g[0] + row[1] * g[1] + row[2] * g[2]);
            let inputs = F::input(d);
            let output = F::output(std::array::from_fn(|i| weights[i] * inputs[i]));
            for (i, got) in output.into_iter().enumerate().take(F::M) {
                let expected = d[i] * g[0] + d[i + 1] * g[1] + d[i + 2] * g[2];
                assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
            }
        }
    }

    #[test]
    fn every_form_is_derived_from_its_points_and_correlates() {
        the_written_transforms_are_the_matrices::<F2>();
        the_written_transforms_are_the_matrices::<F4>();
        the_written_transforms_are_the_matrices::<F6>();
        one_dimension_is_a_correlation::<F2>();
        one_dimension_is_a_correlation::<F4>();
        one_dimension_is_a_correlation::<F6>();
    }
}

//! G g G^T: the weight transform, once a plan, in float64.

use super::form::{Form, MAX_ALPHA, weight_matrix};
use super::product::{PANEL, panel_start, panels};
use super::vector::MAX_LANES;

/// Transforms `weights`, K x C x 3 x 3, into panels: [frequency][panel][c][lanes of k]. `u` holds zeros, which stay
/// for output channels that do not exist.
#[inline(always)]
pub fn transform<const LANES: usize, F: Form>(weights: &[f32], (c, k): (usize, usize), u: &mut [f32]) {
    let (matrix, blocks) = (weight_matrix::<F>(), k.div_ceil(LANES));
    assert_eq!((weights.len(), u.len()), (9 * c * k, F::ALPHA * F::ALPHA * blocks * LANES * c));
    for block in 0..blocks {
        let (panel, within) = (block / PANEL, block % PANEL);
        let vectors = PANEL.min(blocks - panel * PANEL);
        let present = LANES.min(k - block * LANES);
        for channel in 0..c {
            let mut kernels = [[0.0; MAX_LANES]; 9];
            for lane in 0..present {
                let kernel = &weights[((block * LANES + lane) * c + channel) * 9..][..9];
                for (row, &weight) in kernels.iter_mut().zip(kernel) {
                    row[lane] = f64::from(weight);
                }
            }
            let frequencies = both_ways::<F>(&matrix, &kernels);
            for (f, values) in frequencies.iter().take(F::ALPHA * F::ALPHA).enumerate() {
                let start = panel_start(f * panels(blocks) + panel, c, blocks, LANES);
                let to = &mut u[start + (channel * vectors + within) * LANES..][..LANES];
                for (to, &value) in to.iter_mut().zip(values) {
                    *to = value as f32;
                }
            }
        }
    }
}

/// `G g G^T` for a vector of kernels.
#[inline(always)]
fn both_ways<F: Form>(
    matrix: &[[f64; 3]; MAX_ALPHA],
    kernels: &[[f64; MAX_LANES]; 9],
) -> [[f64; MAX_LANES]; MAX_ALPHA * MAX_ALPHA] {
    let mut frequencies = [[0.0; MAX_LANES]; MAX_ALPHA * MAX_ALPHA];
    for (fy, down) in matrix.iter().take(F::ALPHA).enumerate() {
        let mut rows = [[0.0; MAX_LANES]; 3];
        for (s, row) in rows.iter_mut().enumerate() {
            for (lane, value) in row.iter_mut().enumerate() {
                *value = down[0] * kernels[s][lane]
                    + down[1] * kernels[3 + s][lane]
                    + down[2] * kernels[6 + s][lane];
            }
        }
        for (fx, across) in matrix.iter().take(F::ALPHA).enumerate() {
            for (lane, value) in frequencies[fy * F::ALPHA + fx].iter_mut().enumerate() {
                *value = across[0] * rows[0][lane] + across[1] * rows[1][lane] + across[2] * rows[2][lane];
            }
        }
    }
    frequencies
}

//! G g G^T: the weight transform, once a plan, in float64.

use super::form::{Form, weight_matrix};
use super::product::{PANEL, panel_start, panels};

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
            let mut kernels = [[0.0f64; LANES]; 9];
            for lane in 0..present {
                let kernel = &weights[((block * LANES + lane) * c + channel) * 9..][..9];
                for (row, &weight) in kernels.iter_mut().zip(kernel) {
                    row[lane] = f64::from(weight);
                }
            }
            for (fy, down) in matrix.iter().take(F::ALPHA).enumerate() {
                let rows: [[f64; LANES]; 3] =
                    std::array::from_fn(|s| combine(down, [&kernels[s], &kernels[3 + s], &kernels[6 + s]]));
                for (fx, across) in matrix.iter().take(F::ALPHA).enumerate() {
                    let start = panel_start((fy * F::ALPHA + fx) * panels(blocks) + panel, c, blocks, LANES);
                    let to = &mut u[start + (channel * vectors + within) * LANES..][..LANES];
                    let values = combine(across, [&rows[0], &rows[1], &rows[2]]);
                    for (to, value) in to.iter_mut().zip(values) {
                        *to = value as f32;
                    }
                }
            }
        }
    }
}

/// One row of G times three vectors.
#[inline(always)]
fn combine<const LANES: usize>(row: &[f64; 3], of: [&[f64; LANES]; 3]) -> [f64; LANES] {
    std::array::from_fn(|lane| row[0] * of[0][lane] + row[1] * of[1][lane] + row[2] * of[2][lane])
}

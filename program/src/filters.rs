//! A bank of 64 filters, 7x7 on three colours, like those that first layers of image networks learn.
//!
//! Eight rows of eight: Gabor filters (a wave under a Gaussian) fine and coarse, even and odd, on brightness; edges
//! between opponent colours; blobs; and centre-surround filters and other small patterns. All but the blobs sum to
//! zero, so that their output on an even surface is zero. The absolute values of each filter sum to one.

use std::f32::consts::{PI, TAU};

/// The number of filters.
pub const COUNT: usize = 64;

/// Height and width.
pub const SIDE: usize = 7;

/// The kind of filters in each row of eight.
pub const ROWS: [&str; 8] = [
    "fine lines",
    "fine edges",
    "coarse lines",
    "coarse edges",
    "red-green edges",
    "blue-yellow edges",
    "blobs",
    "spots and patterns",
];

/// The blobs. They do not sum to zero, so their maps have no natural zero.
pub const BLOBS: std::ops::Range<usize> = 48..56;

/// Shares of red, green and blue.
type Colour = [f32; 3];

const BRIGHT: Colour = [1.0, 1.0, 1.0];
const RED_GREEN: Colour = [1.0, -1.0, 0.0];
const BLUE_YELLOW: Colour = [-0.5, -0.5, 1.0];

/// All weights, in OIHW order: 64 x 3 x 7 x 7.
pub fn bank() -> Vec<f32> {
    let oriented = |wavelength, sigma, phase, colour| {
        (0..8).map(move |step| {
            let angle = PI * step as f32 / 8.0;
            filter(true, move |x, y| scaled(colour, gabor(x, y, angle, wavelength, sigma, phase)))
        })
    };
    let mut bank = Vec::with_capacity(COUNT * 3 * SIDE * SIDE);
    for (wavelength, sigma, phase, colour) in [
        (3.0, 1.2, 0.0, BRIGHT),
        (3.0, 1.2, PI / 2.0, BRIGHT),
        (6.0, 2.0, 0.0, BRIGHT),
        (6.0, 2.0, PI / 2.0, BRIGHT),
        (7.0, 1.8, PI / 2.0, RED_GREEN),
        (7.0, 1.8, PI / 2.0, BLUE_YELLOW),
    ] {
        bank.extend(oriented(wavelength, sigma, phase, colour).flatten());
    }
    bank.extend(blobs().into_iter().chain(patterns()).flatten());
    bank
}

fn blobs() -> [Vec<f32>; 8] {
    let blob = |sigma, colour| filter(false, move |x, y| scaled(colour, gauss(x, y, sigma)));
    [
        blob(0.7, BRIGHT),
        blob(2.0, BRIGHT),
        blob(1.2, [1.0, 0.0, 0.0]),
        blob(1.2, [0.0, 1.0, 0.0]),
        blob(1.2, [0.0, 0.0, 1.0]),
        blob(1.2, RED_GREEN),
        blob(1.2, BLUE_YELLOW),
        blob(1.2, [0.5, -1.0, 0.5]),
    ]
}

fn patterns() -> [Vec<f32>; 8] {
    let spot = |sigma, sign: f32| filter(true, move |x, y| scaled(BRIGHT, sign * spot(x, y, sigma)));
    let parity = |x: f32, y: f32| if (x + y).rem_euclid(2.0) < 0.5 { 1.0 } else { -1.0 };
    let pattern = |value: fn(f32, f32) -> f32| filter(true, move |x, y| scaled(BRIGHT, value(x, y)));
    // The centre sees one colour, the surround its opponent.
    let double = |colour: Colour| {
        filter(true, move |x, y| scaled(colour, gauss(x, y, 0.9) - gauss(x, y, 2.0) * (0.9f32 / 2.0).powi(2)))
    };
    [
        spot(0.8, 1.0),
        spot(1.3, 1.0),
        spot(1.8, -1.0),
        filter(true, move |x, y| scaled(BRIGHT, parity(x, y) * gauss(x, y, 1.6))),
        pattern(|x, y| x * y * gauss(x, y, 1.5)),
        pattern(|x, y| (x * x - y * y) * gauss(x, y, 1.5)),
        double(RED_GREEN),
        double(BLUE_YELLOW),
    ]
}

/// A filter from a function of the position, with the origin in the middle. `zero` makes it sum to zero.
fn filter(zero: bool, value: impl Fn(f32, f32) -> Colour) -> Vec<f32> {
    let middle = (SIDE / 2) as f32;
    let mut planes = vec![0.0; 3 * SIDE * SIDE];
    for (index, weight) in planes.iter_mut().enumerate() {
        let (plane, y, x) = (index / SIDE / SIDE, index / SIDE % SIDE, index % SIDE);
        *weight = value(x as f32 - middle, y as f32 - middle)[plane];
    }
    if zero {
        for plane in planes.chunks_exact_mut(SIDE * SIDE) {
            let mean = plane.iter().sum::<f32>() / plane.len() as f32;
            plane.iter_mut().for_each(|weight| *weight -= mean);
        }
    }
    let size: f32 = planes.iter().map(|weight| weight.abs()).sum();
    planes.iter_mut().for_each(|weight| *weight /= size);
    planes
}

fn scaled(colour: Colour, factor: f32) -> Colour {
    colour.map(|share| share * factor)
}

fn gauss(x: f32, y: f32, sigma: f32) -> f32 {
    (-(x * x + y * y) / (2.0 * sigma * sigma)).exp()
}

fn gabor(x: f32, y: f32, angle: f32, wavelength: f32, sigma: f32, phase: f32) -> f32 {
    let along = x * angle.cos() + y * angle.sin();
    (TAU * along / wavelength + phase).cos() * gauss(x, y, sigma)
}

/// The Laplacian of a Gaussian, positive in the middle.
fn spot(x: f32, y: f32, sigma: f32) -> f32 {
    let radius = (x * x + y * y) / (2.0 * sigma * sigma);
    (1.0 - radius) * (-radius).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bank_has_64_different_filters() {
        let bank = bank();
        assert_eq!(bank.len(), COUNT * 3 * SIDE * SIDE);
        let filters: Vec<&[f32]> = bank.chunks_exact(3 * SIDE * SIDE).collect();
        for (index, filter) in filters.iter().enumerate() {
            let size: f32 = filter.iter().map(|weight| weight.abs()).sum();
            assert!((size - 1.0).abs() < 1e-4, "{index}");
            let sum: f32 = filter.iter().sum();
            assert!(BLOBS.contains(&index) || sum.abs() < 1e-5, "{index}: {sum}");
            for other in &filters[..index] {
                // By angle, because a scaled or negated copy is no new filter.
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
                let cosine = dot(filter, other) / (dot(filter, filter) * dot(other, other)).sqrt();
                assert!(cosine.abs() < 0.99, "{index}: {cosine}");
            }
        }
    }

    #[test]
    fn edges_point_where_they_say() {
        let bank = bank();
        // The first filter of each oriented row varies across, the fifth down the image.
        let vary = |filter: usize, across: bool| {
            let plane = &bank[filter * 3 * 49..][..49];
            let at = |i: usize, j: usize| if across { plane[j * 7 + i] } else { plane[i * 7 + j] };
            let sum = |i: usize| (0..7).map(|j| at(i, j)).sum::<f32>();
            (0..6).map(|i| (sum(i) - sum(i + 1)).abs()).sum::<f32>()
        };
        for row in 0..5 {
            assert!(vary(8 * row, true) > 4.0 * vary(8 * row, false), "{row}");
            assert!(vary(8 * row + 4, false) > 4.0 * vary(8 * row + 4, true), "{row}");
        }
    }
}

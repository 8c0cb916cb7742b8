//! The demo's test chart, for use without a photograph: edges of every orientation, fine and coarse, colours, and text.

use std::f32::consts::{PI, TAU};

use image::{Rgb, RgbImage};

use crate::font;

/// Height and width of the chart and of every picture that the demo filters.
pub const SIDE: u32 = 224;

/// Samples per pixel in each direction, so that edges are as soft as a camera's.
const SAMPLES: u32 = 4;

type Colour = [f32; 3];

const WHITE: Colour = [1.0, 1.0, 1.0];
const PAPER: Colour = [0.93, 0.92, 0.88];
const INK: Colour = [0.08, 0.09, 0.11];

/// Draws the chart.
pub fn chart() -> RgbImage {
    let mut image = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let mut sum = [0.0; 3];
        for (i, j) in (0..SAMPLES).flat_map(|i| (0..SAMPLES).map(move |j| (i, j))) {
            let place = |pixel: u32, sample: u32| pixel as f32 + (sample as f32 + 0.5) / SAMPLES as f32;
            let colour = at(place(x, i), place(y, j));
            sum.iter_mut().zip(colour).for_each(|(sum, share)| *sum += share);
        }
        Rgb(sum.map(|sum| (sum / (SAMPLES * SAMPLES) as f32 * 255.0).round() as u8))
    });
    for (line, y, scale) in [("SPARKLE", 121, 2), ("ABCDEFGHIJKLMNOP", 140, 1), ("QRSTUVWXYZ 01234", 150, 1)]
    {
        font::draw(line, scale, |dx, dy| {
            image.put_pixel(120 + dx, y + dy, Rgb(INK.map(|share| (share * 255.0) as u8)))
        });
    }
    image
}

/// The colour at a place: four quarters with a thin margin.
fn at(x: f32, y: f32) -> Colour {
    let half = SIDE as f32 / 2.0;
    let (u, v) = (x % half, y % half);
    if !(4.0..half - 4.0).contains(&u) || !(4.0..half - 4.0).contains(&v) {
        return PAPER;
    }
    match (x < half, y < half) {
        (true, true) => star(u - half / 2.0, v - half / 2.0),
        (false, true) => rings(u - 4.0, v - 4.0),
        (true, false) => colours(u - 4.0, v - 4.0),
        (false, false) => details(u, v),
    }
}

/// Spokes of every colour: every orientation, finer towards the middle.
fn star(x: f32, y: f32) -> Colour {
    let radius = x.hypot(y);
    if !(3.0..51.0).contains(&radius) {
        return PAPER;
    }
    let angle = y.atan2(x);
    if (angle * 18.0).sin() > 0.0 { hue(angle / TAU).map(|share| 0.7 * share) } else { WHITE }
}

/// A colour of the rainbow. Positions repeat after 1.
fn hue(place: f32) -> Colour {
    [0.0, 1.0, 2.0].map(|third| 0.5 + 0.5 * (TAU * (place - third / 3.0)).cos())
}

/// A frequency sweep: rings that grow finer away from the corner.
fn rings(x: f32, y: f32) -> Colour {
    let radius = x.hypot(y);
    // The period is three pixels in the opposite corner.
    let wave = (PI * radius * radius / 420.0).cos();
    [0.5 + 0.45 * wave; 3]
}

/// Patches of colour above a sweep of hues and one of greys.
fn colours(x: f32, y: f32) -> Colour {
    const PATCHES: [Colour; 12] = [
        [0.85, 0.12, 0.12],
        [0.12, 0.62, 0.20],
        [0.12, 0.22, 0.75],
        [0.95, 0.83, 0.10],
        [0.10, 0.70, 0.75],
        [0.75, 0.15, 0.60],
        [0.95, 0.50, 0.10],
        [0.45, 0.25, 0.10],
        [0.95, 0.75, 0.65],
        [0.35, 0.45, 0.15],
        [0.30, 0.15, 0.45],
        [0.55, 0.75, 0.95],
    ];
    const WIDTH: f32 = 104.0;
    match y {
        0.0..72.0 => PATCHES[(y / 24.0) as usize * 4 + (x / (WIDTH / 4.0)) as usize],
        72.0..88.0 => hue(x / WIDTH),
        _ => [x / WIDTH; 3],
    }
}

/// Below the text: line pairs, a checkerboard, a disc, a tilted square and a ring.
fn details(u: f32, v: f32) -> Colour {
    let stripe = |place: f32, width: f32| (place / width).rem_euclid(2.0) < 1.0;
    let ink = match (u, v) {
        (_, ..50.0) => false,
        (8.0..32.0, 52.0..76.0) => stripe(u, 1.0 + ((v - 52.0) / 8.0).floor()),
        (36.0..60.0, 52.0..76.0) => stripe(v, 1.0 + ((u - 36.0) / 8.0).floor()),
        (64.0..104.0, 52.0..76.0) => stripe(u, 4.0) != stripe(v, 4.0),
        (_, 80.0..) => {
            let disc = (u - 20.0).hypot(v - 93.0) < 10.0;
            let square = (u - 52.0).abs() + (v - 93.0).abs() < 12.0;
            let ring = ((u - 88.0).hypot(v - 93.0) - 9.0).abs() < 2.0;
            if disc {
                return [0.85, 0.12, 0.12];
            }
            if square {
                return [0.12, 0.22, 0.75];
            }
            ring
        }
        _ => false,
    };
    if ink { INK } else { PAPER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_light_dark_and_colour_in_every_quarter() {
        let chart = chart();
        let half = SIDE / 2;
        for (left, top) in [(0, 0), (half, 0), (0, half), (half, half)] {
            let pixels = || (0..half * half).map(|i| chart.get_pixel(left + i % half, top + i / half).0);
            let brightness =
                || pixels().map(|pixel| pixel.iter().map(|&share| u32::from(share)).sum::<u32>());
            assert!(brightness().any(|sum| sum < 300), "dark at {left} {top}");
            assert!(brightness().any(|sum| sum > 680), "light at {left} {top}");
        }
        let most = |plane: usize| {
            chart
                .pixels()
                .filter(|pixel| (0..3).all(|i| i == plane || pixel[i].saturating_add(60) < pixel[plane]))
                .count()
        };
        assert!((0..3).all(|plane| most(plane) > 200));
    }
}

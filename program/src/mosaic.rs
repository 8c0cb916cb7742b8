//! The demo's picture: input and filters above, the 64 feature maps in eight rows of eight below.
//!
//! Every map has its own scale, because the largest values differ by orders of magnitude. Zero is black; colours are
//! warm where the filter matches and cold where its opposite matches. The blobs' maps have no natural zero and are
//! grey, from the least to the largest value.

use image::{Rgb, RgbImage, imageops};

use crate::filters::{self, BLOBS, COUNT};
use crate::font;

/// Height and width of a feature map.
pub const TILE: u32 = 112;
/// Pixels between maps.
const GAP: u32 = 2;
/// Pixels around the parts of the upper band.
const MARGIN: u32 = 16;
/// A filter's side, with 4x4 pixels per weight, and the distance from one filter to the next.
const FILTER: u32 = 4 * filters::SIDE as u32;
const FILTER_STEP: u32 = FILTER + 2;
const FILTERS: u32 = 8 * FILTER_STEP - 2;
const BAND: u32 = MARGIN + FILTERS + MARGIN - GAP;

/// Width of the whole picture.
pub const WIDTH: u32 = 8 * TILE + 9 * GAP;
/// Its height.
pub const HEIGHT: u32 = BAND + 8 * TILE + 9 * GAP;

const BACKGROUND: Rgb<u8> = Rgb([24, 26, 31]);
const TITLE: Rgb<u8> = Rgb([245, 240, 228]);
const TEXT: Rgb<u8> = Rgb([150, 156, 168]);

/// Draws the mosaic of `maps`, 64 x 112 x 112 values.
pub fn mosaic(picture: &RgbImage, bank: &[f32], maps: &[f32]) -> RgbImage {
    let mut image = RgbImage::from_pixel(WIDTH, HEIGHT, BACKGROUND);
    let top = MARGIN + (FILTERS - picture.height()) / 2;
    imageops::replace(&mut image, picture, i64::from(MARGIN), i64::from(top));
    let left = 2 * MARGIN + picture.width();
    draw_filters(&mut image, bank, left);
    draw_text(&mut image, left + FILTERS + 2 * MARGIN);
    let size = (TILE * TILE) as usize;
    for (index, map) in (0u32..).zip(maps.chunks_exact(size)).take(COUNT) {
        let tile = tile(map, BLOBS.contains(&(index as usize)));
        let (x, y) = tile_place(index);
        imageops::replace(&mut image, &tile, i64::from(x), i64::from(y));
    }
    image
}

/// The position of a map's upper left corner.
fn tile_place(index: u32) -> (u32, u32) {
    (GAP + index % 8 * (TILE + GAP), BAND + GAP + index / 8 * (TILE + GAP))
}

fn draw_filters(image: &mut RgbImage, bank: &[f32], left: u32) {
    let side = filters::SIDE;
    for (index, filter) in (0u32..).zip(bank.chunks_exact(3 * side * side)) {
        let largest = filter.iter().fold(f32::MIN_POSITIVE, |largest, weight| largest.max(weight.abs()));
        let (x0, y0) = (left + index % 8 * FILTER_STEP, MARGIN + index / 8 * FILTER_STEP);
        for (y, x) in (0..FILTER).flat_map(|y| (0..FILTER).map(move |x| (y, x))) {
            let place = (y / 4) as usize * side + (x / 4) as usize;
            let share = |plane: usize| byte(0.5 + 0.5 * filter[plane * side * side + place] / largest);
            image.put_pixel(x0 + x, y0 + y, Rgb([share(0), share(1), share(2)]));
        }
    }
}

fn draw_text(image: &mut RgbImage, left: u32) {
    let mut y = MARGIN;
    let mut write = |text: &str, scale: u32, colour: Rgb<u8>, gap: u32| {
        font::draw(text, scale, |dx, dy| {
            if left + dx < WIDTH && y + dy < BAND {
                image.put_pixel(left + dx, y + dy, colour);
            }
        });
        y += font::HEIGHT * scale + gap;
    };
    write("sparkle", 5, TITLE, 16);
    write("3 x 224 x 224 -> 64 x 112 x 112", 1, TITLE, 6);
    write("64 filters 7 x 7, stride 2, pad 3", 1, TITLE, 18);
    for (number, row) in (1..).zip(filters::ROWS) {
        write(&format!("row {number}: {row}"), 1, TEXT, 6);
    }
    write("", 1, TEXT, 0);
    write("orange: the filter fits", 1, warm(0.75), 6);
    write("blue: its opposite fits", 1, cold(0.75), 0);
}

/// One map as a picture.
fn tile(map: &[f32], grey: bool) -> RgbImage {
    let (low, high) = spread(map);
    let largest = low.abs().max(high.abs()).max(f32::MIN_POSITIVE);
    let range = (high - low).max(f32::MIN_POSITIVE);
    let colour = |value: f32| {
        if grey {
            return Rgb([byte((value - low) / range); 3]);
        }
        let strength = (value.abs() / largest).min(1.0).powf(0.75);
        if value < 0.0 { cold(strength) } else { warm(strength) }
    };
    RgbImage::from_fn(TILE, TILE, |x, y| colour(map[(y * TILE + x) as usize]))
}

/// The range without the outermost half percent at both ends, so that one bright pixel does not darken the rest.
fn spread(map: &[f32]) -> (f32, f32) {
    let mut sorted = map.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let outer = sorted.len() / 200;
    (sorted[outer], sorted[sorted.len() - 1 - outer])
}

/// From black through orange to light yellow.
fn warm(strength: f32) -> Rgb<u8> {
    Rgb([byte(1.6 * strength), byte(1.25 * strength * strength), byte(0.85 * strength.powi(4))])
}

/// From black through blue to light cyan.
fn cold(strength: f32) -> Rgb<u8> {
    Rgb([byte(0.75 * strength.powi(4)), byte(1.1 * strength * strength), byte(1.6 * strength)])
}

fn byte(share: f32) -> u8 {
    (share.clamp(0.0, 1.0) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_its_place() {
        let size = (TILE * TILE) as usize;
        let maps: Vec<f32> = (0..COUNT * size).map(|i| (i % size) as f32 - size as f32 / 2.0).collect();
        let picture = RgbImage::from_pixel(224, 224, Rgb([1, 2, 3]));
        let image = mosaic(&picture, &filters::bank(), &maps);
        assert_eq!(image.dimensions(), (914, 1182));
        assert_eq!(image.get_pixel(MARGIN + 5, MARGIN + 50).0, [1, 2, 3]);
        for index in 0..64 {
            let (x, y) = tile_place(index);
            let [first, last] = [(x, y), (x + TILE - 1, y + TILE - 1)].map(|(x, y)| *image.get_pixel(x, y));
            assert_ne!(first, last, "{index}");
            assert_eq!(*image.get_pixel(x - 1, y), BACKGROUND);
            assert_eq!(*image.get_pixel(x + TILE, y + TILE - 1), BACKGROUND);
        }
    }

    #[test]
    fn colours_tell_the_sign_and_zero_is_black() {
        assert_eq!((warm(0.0).0, cold(0.0).0), ([0; 3], [0; 3]));
        assert!(warm(0.8)[0] > warm(0.8)[2] && cold(0.8)[2] > cold(0.8)[0]);
        let flat = tile(&vec![0.0; (TILE * TILE) as usize], false);
        assert!(flat.pixels().all(|pixel| pixel.0 == [0; 3]));
    }

    #[test]
    fn one_bright_pixel_does_not_darken_the_rest() {
        let mut map = vec![1.0; (TILE * TILE) as usize];
        map[7] = 1e6;
        map[8] = -1.0;
        assert_eq!(spread(&map), (1.0, 1.0));
        assert!(tile(&map, false).get_pixel(0, 0)[0] > 200);
    }
}

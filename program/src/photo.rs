//! The demo's input: a photograph or the test chart, as 3 x 224 x 224 values.

use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, RgbImage, imageops::FilterType};

use crate::chart::{SIDE, chart};
use crate::failure::Failure;
use crate::memory;

/// Reads a PNG, JPEG, WebP or BMP file, turns it upright, and scales its middle square to 224 x 224. Without a path it draws the
/// chart.
///
/// # Errors
/// Names the file, and what is wrong with it or how much memory it needs.
pub fn picture(path: Option<&Path>) -> Result<RgbImage, Failure> {
    let Some(path) = path else {
        return Ok(chart());
    };
    let failure = |error: ImageError| Failure::Input(format!("{}: {error}", path.display()));
    let open = || {
        let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
        let orientation = decoder.orientation()?;
        Ok((decoder, orientation))
    };
    let (decoder, orientation) = open().map_err(failure)?;
    // The decoder allocates without a check. Its own buffers are no larger than the file and a picture.
    let length = std::fs::metadata(path).map_or(0, |facts| facts.len());
    let bytes = memory_of(decoder.dimensions(), decoder.total_bytes()).saturating_add(length);
    memory::check(path.display(), usize::try_from(bytes).unwrap_or(usize::MAX))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(failure)?;
    image.apply_orientation(orientation);
    Ok(square(&image))
}

/// The most bytes that a picture of this size takes. Decoding, turning and cropping need a copy each, and the decoder
/// holds one. Scaling needs 16 bytes for each pixel of a strip as high as the result.
fn memory_of((width, height): (u32, u32), bytes: u64) -> u64 {
    bytes.saturating_mul(4).saturating_add(16 * u64::from(SIDE) * u64::from(width.max(height)))
}

fn square(image: &DynamicImage) -> RgbImage {
    let side = image.width().min(image.height());
    let (left, top) = ((image.width() - side) / 2, (image.height() - side) / 2);
    image.crop_imm(left, top, side, side).resize_exact(SIDE, SIDE, FilterType::CatmullRom).to_rgb8()
}

/// The picture as a network's input: planes of red, green and blue, scaled to -1..1.
pub fn planes(picture: &RgbImage) -> Vec<f32> {
    let plane = |index: usize| picture.pixels().map(move |pixel| f32::from(pixel[index]) / 127.5 - 1.0);
    (0..3).flat_map(plane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn the_middle_square_is_kept() {
        let wide = RgbImage::from_fn(600, 300, |x, _| {
            if (150..450).contains(&x) { Rgb([10, 20, 30]) } else { Rgb([255; 3]) }
        });
        let picture = square(&DynamicImage::ImageRgb8(wide));
        assert_eq!(picture.dimensions(), (SIDE, SIDE));
        assert!(picture.pixels().all(|pixel| pixel.0 == [10, 20, 30]));
    }

    #[test]
    fn planes_run_from_minus_one_to_one() {
        let picture =
            RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb([0, 255, 51]) } else { Rgb([255, 0, 204]) });
        assert_eq!(planes(&picture), [-1.0, 1.0, 1.0, -1.0, -0.6, 0.6]);
    }
}

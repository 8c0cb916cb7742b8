//! The demo's input: a photograph or the test chart, as 3 x 224 x 224 values.

use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage, imageops::FilterType};

use crate::chart::{SIDE, chart};
use crate::failure::Failure;

/// Reads a PNG or JPEG file, turned upright, its middle square scaled to 224 x 224; without a path, draws the chart.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn picture(path: Option<&Path>) -> Result<RgbImage, Failure> {
    let Some(path) = path else {
        return Ok(chart());
    };
    let read = || {
        let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok::<_, image::ImageError>(image)
    };
    read().map(|image| square(&image)).map_err(|error| Failure::Input(format!("{}: {error}", path.display())))
}

fn square(image: &DynamicImage) -> RgbImage {
    let side = image.width().min(image.height());
    let (left, top) = ((image.width() - side) / 2, (image.height() - side) / 2);
    image.crop_imm(left, top, side, side).resize_exact(SIDE, SIDE, FilterType::CatmullRom).to_rgb8()
}

/// The picture as a network's input: planes of red, green and blue, from -1 to 1.
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

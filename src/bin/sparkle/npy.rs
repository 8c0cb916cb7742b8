//! NumPy's `.npy` files: float32 in C order out; float32 and float64, either byte order, C and Fortran order in.

use std::io::{self, Write};
use std::path::Path;

use npyz::{DType, NpyFile, NpyHeader, Order, TypeChar, WriterBuilder};

use crate::failure::Failure;

/// An array in C order: the last index runs fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its sides.
    pub shape: Vec<usize>,
    /// Its elements.
    pub data: Vec<f32>,
}

impl Array {
    /// The shape as Python writes it.
    pub fn shape_text(&self) -> String {
        shape_text(&self.shape)
    }
}

/// Reads a file.
///
/// # Errors
/// Names the file, and its dtype and shape if these are the trouble.
pub fn read(path: &Path) -> Result<Array, Failure> {
    let at = |reason: String| Failure::Input(format!("{}: {reason}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| at(format!("cannot be read: {error}")))?;
    parse(&bytes).map_err(at)
}

/// Writes `data`, of `shape` in C order, as float32.
///
/// # Errors
/// Those of `file`.
pub fn write(file: &mut dyn Write, shape: &[usize], data: &[f32]) -> io::Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&side| side as u64).collect();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file).begin_nd()?;
    writer.extend(data.iter().copied())?;
    writer.finish()
}

fn parse(bytes: &[u8]) -> Result<Array, String> {
    check_header(bytes)?;
    let mut rest = bytes;
    let header = NpyHeader::from_reader(&mut rest).map_err(|error| format!("is no .npy file: {error}"))?;
    let sides = header.shape().to_vec();
    let text = format!("dtype {}, shape {}", header.dtype().descr(), shape_text(&sides));
    let size = match header.dtype() {
        DType::Plain(kind) if kind.type_char() == TypeChar::Float => kind.size_field(),
        _ => 0,
    };
    if size != 4 && size != 8 {
        return Err(format!("{text}; expected float32 or float64"));
    }
    let count = sides.iter().try_fold(1u64, |product, &side| product.checked_mul(side));
    match count.and_then(|count| count.checked_mul(size)) {
        Some(needed) if needed <= rest.len() as u64 => {}
        Some(needed) => return Err(format!("{text}: needs {needed} bytes of data, has {}", rest.len())),
        None => return Err(format!("{text}: too large")),
    }
    let order = header.order();
    let file = NpyFile::with_header(header, rest);
    let data = match size {
        4 => file.into_vec::<f32>().map_err(|error| error.to_string())?,
        _ => narrow(&file.into_vec::<f64>().map_err(|error| error.to_string())?)
            .map_err(|error| format!("{text}: {error}"))?,
    };
    let shape: Vec<usize> = sides.iter().map(|&side| side as usize).collect();
    let data = if order == Order::Fortran { to_c_order(&shape, &data) } else { data };
    Ok(Array { shape, data })
}

/// Refuses headers that the parser would choke on: it recurses into brackets, and multiplies sizes unchecked.
fn check_header(bytes: &[u8]) -> Result<(), String> {
    let (start, length) = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
            (10, usize::from(u16::from_le_bytes([*a, *b])))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', _, _, a, b, c, d, ..] => {
            (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => return Err("is no .npy file".to_owned()),
    };
    let header = bytes[start..].get(..length).ok_or("is cut short within its header")?;
    let open = header.iter().filter(|&byte| b"([{".contains(byte)).count();
    let numbers = header.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let product = numbers
        .map(|digits| std::str::from_utf8(digits).expect("digits are text").parse().unwrap_or(u64::MAX))
        .try_fold(1u64, |product, number| product.checked_mul(number.max(1)));
    if open > 64 || product.is_none() {
        return Err("its header describes no array of reasonable size".to_owned());
    }
    Ok(())
}

/// Rounds to float32; what float32 cannot hold is refused rather than made infinite.
fn narrow(values: &[f64]) -> Result<Vec<f32>, String> {
    let convert = |(index, &value): (usize, &f64)| {
        let rounded = value as f32;
        if rounded.is_infinite() && value.is_finite() {
            return Err(format!("stored element {index} is {value:e}, which float32 cannot hold"));
        }
        Ok(rounded)
    };
    values.iter().enumerate().map(convert).collect()
}

/// Reorders from Fortran order, where the first index runs fastest.
fn to_c_order(shape: &[usize], stored: &[f32]) -> Vec<f32> {
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |product, &side| {
            let stride = *product;
            *product *= side;
            Some(stride)
        })
        .collect();
    let mut index = vec![0; shape.len()];
    let mut next = || {
        let offset: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        for (i, &side) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < side {
                break;
            }
            *i = 0;
        }
        stored[offset]
    };
    (0..stored.len()).map(|_| next()).collect()
}

fn shape_text<T: ToString>(shape: &[T]) -> String {
    let sides: Vec<String> = shape.iter().map(T::to_string).collect();
    if sides.len() == 1 { format!("({},)", sides[0]) } else { format!("({})", sides.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version 1 file.
    fn file(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let dict = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((dict.len() as u16).to_le_bytes());
        bytes.extend(dict.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn bytes<const SIZE: usize>(values: &[f32], encode: fn(f32) -> [u8; SIZE]) -> Vec<u8> {
        values.iter().flat_map(|&value| encode(value)).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let array = Array { shape: vec![2, 1, 3], data: vec![1.0, -2.5, f32::MAX, 0.0, 1e-40, -7.0] };
        let mut bytes = vec![];
        write(&mut bytes, &array.shape, &array.data).unwrap();
        assert_eq!(parse(&bytes).unwrap(), array);
    }

    #[test]
    fn every_encoding_gives_the_same_array() {
        let expected = Array { shape: vec![2, 3], data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        let c = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let fortran = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
        for (descr, order, data) in [
            ("'<f4'", "False", bytes(&c, f32::to_le_bytes)),
            ("'>f4'", "False", bytes(&c, f32::to_be_bytes)),
            ("'<f8'", "False", bytes(&c, |value| f64::from(value).to_le_bytes())),
            ("'>f8'", "False", bytes(&c, |value| f64::from(value).to_be_bytes())),
            ("'<f4'", "True", bytes(&fortran, f32::to_le_bytes)),
            ("'>f8'", "True", bytes(&fortran, |value| f64::from(value).to_be_bytes())),
        ] {
            assert_eq!(parse(&file(descr, order, "(2, 3)", &data)).unwrap(), expected, "{descr} {order}");
        }
    }

    #[test]
    fn fortran_order_of_four_sides() {
        let shape = [2, 3, 4, 5];
        let value = |i: [usize; 4]| (((i[0] * 3 + i[1]) * 4 + i[2]) * 5 + i[3]) as f32;
        let stored: Vec<f32> = (0..120).map(|at| value([at % 2, at / 2 % 3, at / 6 % 4, at / 24])).collect();
        let expected: Vec<f32> = (0..120).map(|i| i as f32).collect();
        assert_eq!(to_c_order(&shape, &stored), expected);
    }

    #[test]
    fn anything_else_is_refused_with_dtype_and_shape() {
        let refused = |bytes: &[u8]| parse(bytes).unwrap_err();
        let message = refused(&file("'<i4'", "False", "(2, 3)", &[0; 24]));
        assert_eq!(message, "dtype '<i4', shape (2, 3); expected float32 or float64");
        assert!(refused(&file("'<f2'", "False", "(7,)", &[0; 14])).contains("dtype '<f2', shape (7,)"));
        assert!(refused(&file("'<c8'", "False", "(1,)", &[0; 8])).contains("expected float32"));
        assert!(refused(&file("'|O'", "False", "(1,)", &[0; 8])).contains("expected float32"));
        assert!(refused(&file("[('a', '<f4')]", "False", "(1,)", &[0; 4])).contains("expected float32"));
        assert!(
            refused(&file("'<f4'", "False", "(2, 3)", &[0; 23])).ends_with("needs 24 bytes of data, has 23")
        );
        let big = bytes(&[1.0], |_| 1e300f64.to_le_bytes());
        assert!(
            refused(&file("'<f8'", "False", "(1,)", &big)).ends_with("is 1e300, which float32 cannot hold")
        );
    }

    #[test]
    fn malformed_files_are_refused() {
        let good = file("'<f4'", "False", "(2, 3)", &[0; 24]);
        let refused = |bytes: &[u8]| parse(bytes).unwrap_err();
        for length in 0..good.len() {
            refused(&good[..length]);
        }
        assert_eq!(refused(b"PK\x03\x04 an archive"), "is no .npy file");
        let huge = "(4294967296, 4294967296, 4294967296)";
        assert!(refused(&file("'<f4'", "False", huge, &[0; 4])).contains("no array of reasonable size"));
        let deep = "(".repeat(20_000);
        assert!(refused(&file("'<f4'", "False", &deep, &[])).contains("no array of reasonable size"));
        assert!(refused(&file("'<f4'", "Maybe", "(1,)", &[0; 4])).starts_with("is no .npy file"));
    }
}

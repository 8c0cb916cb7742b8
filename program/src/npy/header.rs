//! The header of a `.npy` file: type, order and shape.
//!
//! NumPy writes it as a Python dictionary and reads any valid Python literal; so does this module. NumPy's format
//! specification: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{ErrorKind, Read};

use super::literal::{self, Literal, shape_text};

/// The most bytes of a header. Version 1 has the same limit; a longer header describes no plain array.
const MAX_BYTES: usize = 0xffff;

/// The most characters of a literal in messages.
const MAX_TEXT: usize = 200;

/// A parsed header.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The type of its elements.
    pub number: Number,
    /// Whether the first index runs fastest.
    pub fortran_order: bool,
    /// The shape.
    pub shape: Vec<usize>,
    /// The number of elements.
    pub count: usize,
    /// The bytes of all elements.
    pub bytes: u64,
    /// Type and shape, for messages.
    pub text: String,
    /// The offset of the elements.
    pub start: u64,
}

/// What a reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// float16, float32, float64, and integers of 1 to 8 bytes.
    Numbers,
    /// These and bool.
    All,
}

impl Accepts {
    fn text(self) -> &'static str {
        match self {
            Accepts::Numbers => "expected float16, float32, float64 or an integer type",
            Accepts::All => "expected bool, an integer type, float16, float32 or float64",
        }
    }
}

/// The type of a file's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    Float(Float),
    Integer(Integer),
    /// A byte; zero is false.
    Bool,
}

impl Number {
    /// The type that `descr` means to NumPy.
    fn named(descr: &str, accepts: Accepts) -> Option<Self> {
        match descr.trim_start_matches(['|', '=', '<', '>']) {
            "b1" | "?" | "bool" => (accepts == Accepts::All).then_some(Number::Bool),
            _ => {
                let float = Float::named(descr).map(Number::Float);
                float.or_else(|| Integer::named(descr).map(Number::Integer))
            }
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Number::Float(float) => float.size,
            Number::Integer(integer) => integer.size,
            Number::Bool => 1,
        }
    }

    /// The number in `bytes`, rounded to float32. Their count is that of the type.
    ///
    /// # Errors
    /// A number that float32 cannot hold.
    pub fn decode(self, bytes: &[u8]) -> Result<f32, f64> {
        match self {
            Number::Float(float) => float.decode(bytes),
            Number::Integer(integer) => Ok(integer.decode(bytes) as f32),
            Number::Bool => Ok(f32::from(u8::from(bytes[0] != 0))),
        }
    }
}

/// How an integer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integer {
    /// Bytes: 1, 2, 4 or 8.
    pub size: usize,
    /// Whether it may be negative.
    pub is_signed: bool,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
}

impl Integer {
    /// The type that `descr` means to NumPy, if it is an integer of a fixed size.
    fn named(descr: &str) -> Option<Self> {
        let native = cfg!(target_endian = "big");
        let (name, big_endian) = match descr.split_at_checked(1) {
            Some(("<", name)) => (name, false),
            Some((">", name)) => (name, true),
            Some(("=" | "|", name)) => (name, native),
            _ => (descr, native),
        };
        let (is_signed, size) = match name {
            "i1" | "int8" | "b" => (true, 1),
            "i2" | "int16" | "h" => (true, 2),
            "i4" | "int32" | "i" => (true, 4),
            "i8" | "int64" | "q" | "l" => (true, 8),
            "u1" | "uint8" | "B" => (false, 1),
            "u2" | "uint16" | "H" => (false, 2),
            "u4" | "uint32" | "I" => (false, 4),
            "u8" | "uint64" | "Q" | "L" => (false, 8),
            _ => return None,
        };
        Some(Integer { size, is_signed, big_endian })
    }

    /// The number in `bytes`, whose count is that of the type.
    pub fn decode(self, bytes: &[u8]) -> i128 {
        let place = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        let value = match self.big_endian {
            true => bytes.iter().fold(0, place),
            false => bytes.iter().rev().fold(0, place),
        };
        let unused = 64 - 8 * self.size as u32;
        match self.is_signed {
            true => i128::from((value << unused) as i64 >> unused),
            false => i128::from(value),
        }
    }
}

/// How a real number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Float {
    /// Bytes: 2, 4 or 8.
    pub size: usize,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
}

impl Float {
    /// The type that `descr` means to NumPy, if it is float16, float32 or float64.
    fn named(descr: &str) -> Option<Self> {
        let native = cfg!(target_endian = "big");
        let size = |name: &str| match name {
            "e" => Some(2),
            "f" => Some(4),
            "d" => Some(8),
            _ => name
                .strip_prefix('f')?
                .trim_start_matches(' ')
                .parse()
                .ok()
                .filter(|size| matches!(size, 2 | 4 | 8)),
        };
        let (name, big_endian) = match descr {
            "float16" | "half" => return Some(Float { size: 2, big_endian: native }),
            "float32" | "single" => return Some(Float { size: 4, big_endian: native }),
            "float64" | "double" | "float" => return Some(Float { size: 8, big_endian: native }),
            _ => match descr.split_at_checked(1) {
                Some(("<", name)) => (name, false),
                Some((">", name)) => (name, true),
                Some(("=" | "|", name)) => (name, native),
                _ => (descr, native),
            },
        };
        Some(Float { size: size(name)?, big_endian })
    }

    /// The number in `bytes`, as float32. Their count is that of the type.
    ///
    /// # Errors
    /// A number that float32 cannot hold.
    pub fn decode(self, bytes: &[u8]) -> Result<f32, f64> {
        let stored = match (bytes, self.big_endian) {
            (&[a, b], false) => return Ok(half(u16::from_le_bytes([a, b]))),
            (&[a, b], true) => return Ok(half(u16::from_be_bytes([a, b]))),
            (&[a, b, c, d], false) => return Ok(f32::from_le_bytes([a, b, c, d])),
            (&[a, b, c, d], true) => return Ok(f32::from_be_bytes([a, b, c, d])),
            (&[a, b, c, d, e, f, g, h], false) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            (&[a, b, c, d, e, f, g, h], true) => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => unreachable!("a float has 2, 4 or 8 bytes"),
        };
        let value = stored as f32;
        // An error instead of infinity.
        if value.is_infinite() && stored.is_finite() { Err(stored) } else { Ok(value) }
    }
}

/// The float16 number with these bits. float32 holds all of them.
pub fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) =
        (u32::from(bits >> 15), u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    let magnitude = match exponent {
        // 1023 / 2^24 and less are exact.
        0 => (fraction as f32 / 16_777_216.0).to_bits(),
        31 => 255 << 23 | fraction << 13,
        // The biases of the exponents are 15 and 127.
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign << 31 | magnitude)
}

/// Reads a header and nothing after it.
///
/// # Errors
/// Says what is wrong.
pub fn read(file: &mut impl Read, accepts: Accepts) -> Result<Header, String> {
    let cut = |error: std::io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => "is cut short within its header".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let mut start = [0; 8];
    let mark = file.read_exact(&mut start).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => "is no .npy file".to_owned(),
        _ => format!("cannot be read: {error}"),
    });
    mark?;
    let version = match start {
        [0x93, b'N', b'U', b'M', b'P', b'Y', version @ 1..=3, 0] => version,
        [0x93, b'N', b'U', b'M', b'P', b'Y', major, minor] => {
            return Err(format!("has version {major}.{minor} of the .npy format; expected 1.0, 2.0 or 3.0"));
        }
        [b'P', b'K', ..] => {
            return Err("is an archive and not a .npy file; extract one of its arrays".to_owned());
        }
        _ => return Err("is no .npy file".to_owned()),
    };
    let mut length = [0; 4];
    let field = if version == 1 { 2 } else { 4 };
    file.read_exact(&mut length[..field]).map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_BYTES {
        return Err(format!("its header has {length} bytes which no array of reasonable size has"));
    }
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).map_err(cut)?;
    let text = match version {
        3 => String::from_utf8(bytes).map_err(|_| "is no .npy file: its header is not UTF-8".to_owned())?,
        _ => bytes.into_iter().map(char::from).collect(),
    };
    let header = literal::parse(&text, version < 3)
        .map_err(|what| format!("is no .npy file: {what} of its header"))?;
    describe(header, (8 + field + length) as u64, accepts)
}

/// Interprets a header whose elements start at `start`.
fn describe(header: Literal, start: u64, accepts: Accepts) -> Result<Header, String> {
    let broken = |what: &str| format!("is no .npy file: its header {what}");
    let Literal::Dict(entries) = header else { return Err(broken("is no dictionary")) };
    let (mut descr, mut order, mut sides) = (None, None, None);
    for (key, value) in entries {
        match &key {
            Literal::Text(key) if key == "descr" => descr = Some(value),
            Literal::Text(key) if key == "fortran_order" => order = Some(value),
            Literal::Text(key) if key == "shape" => sides = Some(value),
            key => return Err(broken(&format!("has an entry {}", shown(key)))),
        }
    }
    let (Some(descr), Some(order), Some(Literal::Tuple(sides))) = (descr, order, sides) else {
        return Err(broken("lacks one of the entries descr, fortran_order and shape, a tuple"));
    };
    let Literal::Truth(fortran_order) = order else {
        return Err(broken("has a fortran_order that is neither True nor False"));
    };
    let shape = sides.iter().map(|side| match *side {
        Literal::Number(side) => usize::try_from(side).ok().filter(|&side| isize::try_from(side).is_ok()),
        _ => None,
    });
    let shape: Option<Vec<usize>> = shape.collect();
    let shape = shape.ok_or_else(|| broken(&format!("has the shape {}", shown(&Literal::Tuple(sides)))))?;
    let text = format!("dtype {}, shape {}", shown(&descr), shape_text(&shape));
    let number = match &descr {
        Literal::Text(name)
            if matches!(name.trim_start_matches(['<', '>', '=', '|']), "O" | "O8" | "object") =>
        {
            return Err(format!("{text}: pickled Python objects are not read; {}", accepts.text()));
        }
        Literal::Text(name) => Number::named(name, accepts),
        _ => None,
    };
    let number = number.ok_or_else(|| format!("{text}; {}", accepts.text()))?;
    // A side of 0 makes an empty array, even if the other sides would overflow.
    let mut sides = shape.iter();
    let count = if shape.contains(&0) {
        Some(0)
    } else {
        sides.try_fold(1usize, |product, &side| product.checked_mul(side))
    };
    let bytes = count
        .and_then(|count| count.checked_mul(number.bytes()))
        .filter(|&bytes| isize::try_from(bytes).is_ok());
    match (count, bytes) {
        (Some(count), Some(bytes)) => {
            Ok(Header { number, fortran_order, shape, count, bytes: bytes as u64, text, start })
        }
        _ => Err(format!("{text}: describes no array of reasonable size")),
    }
}

/// A literal for a message, shortened to a line.
fn shown(literal: &Literal) -> String {
    let text = literal.to_string();
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_integers_as_numpy_takes_them() {
        let native = cfg!(target_endian = "big");
        for (descr, size, is_signed, big_endian) in [
            ("<i4", 4, true, false),
            (">i8", 8, true, true),
            ("|u1", 1, false, native),
            ("=u2", 2, false, native),
            ("int64", 8, true, native),
            ("uint32", 4, false, native),
            ("|i1", 1, true, native),
        ] {
            let expected = Number::Integer(Integer { size, is_signed, big_endian });
            for accepts in [Accepts::Numbers, Accepts::All] {
                assert_eq!(Number::named(descr, accepts), Some(expected), "{descr}");
            }
        }
        for descr in ["|b1", "?", "bool"] {
            assert_eq!(Number::named(descr, Accepts::All), Some(Number::Bool), "{descr}");
            assert_eq!(Number::named(descr, Accepts::Numbers), None, "{descr}");
        }
        for descr in ["", "<", "i3", "u16", "<c8", "U4", "M8", "f3", "<<i4"] {
            assert_eq!(Number::named(descr, Accepts::All), None, "{descr}");
        }
        let decode = |descr, bytes: &[u8]| match Number::named(descr, Accepts::All) {
            Some(Number::Integer(integer)) => integer.decode(bytes),
            other => panic!("{other:?}"),
        };
        assert_eq!(decode("<i2", &[0xfe, 0xff]), -2);
        assert_eq!(decode(">i2", &[0xff, 0xfe]), -2);
        assert_eq!(decode("<u2", &[0xfe, 0xff]), 0xfffe);
        assert_eq!(decode("|i1", &[0x80]), -128);
        assert_eq!(decode("<u8", &[0xff; 8]), i128::from(u64::MAX));
        assert_eq!(decode("<i8", &i64::MIN.to_le_bytes()), i128::from(i64::MIN));
    }

    #[test]
    fn names_of_floats_as_numpy_takes_them() {
        let native = cfg!(target_endian = "big");
        for (descr, size, big_endian) in [
            ("<f2", 2, false),
            (">e", 2, true),
            ("float16", 2, native),
            ("half", 2, native),
            ("<f4", 4, false),
            (">f4", 4, true),
            ("=f4", 4, native),
            ("|f4", 4, native),
            ("f4", 4, native),
            ("f", 4, native),
            (">f", 4, true),
            ("float32", 4, native),
            ("single", 4, native),
            ("f04", 4, native),
            ("f 4", 4, native),
            ("<f8", 8, false),
            (">d", 8, true),
            ("=d", 8, native),
            ("float64", 8, native),
            ("double", 8, native),
            ("float", 8, native),
        ] {
            assert_eq!(Float::named(descr), Some(Float { size, big_endian }), "{descr}");
        }
        for descr in [
            "", "<", "f3", "f16", "g", "i4", "F4", "Float32", "<float32", "<<f4", " f4", "f4,", "(1,)f4",
            "f-4", "é4",
        ] {
            assert_eq!(Float::named(descr), None, "{descr}");
        }
    }

    #[test]
    fn every_float16_has_its_value() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-24),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
            };
            let expected = if bits >> 15 == 1 { -magnitude } else { magnitude };
            let got = f64::from(half(bits));
            let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
            assert!(same, "{bits:#06x}: {got}, not {expected}");
        }
    }
}

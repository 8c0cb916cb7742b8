//! Arrays as Fortran keeps them: column-major, of the types of the kernel language.
//!
//! Element `a(i,j)` of an array with default bounds is NumPy's `a[i-1, j-1]`, whatever the order of the file. A value is
//! converted to another type only if it stays the same.

use std::io::{self, Read, Write};
use std::path::Path;

use super::header::{self, Accepts, Header, Number, half};
use super::{CHUNK, Places, check_length, each, write_header};
use crate::failure::Failure;
use crate::memory;

/// A number of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stored {
    Bool(bool),
    Integer(i128),
    Real32(f32),
    Real64(f64),
}

impl std::fmt::Display for Stored {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stored::Bool(value) => write!(to, "{}", if *value { "True" } else { "False" }),
            Stored::Integer(value) => value.fmt(to),
            Stored::Real32(value) => write!(to, "{value:?}"),
            Stored::Real64(value) => write!(to, "{value:?}"),
        }
    }
}

/// A type that arrays have in memory.
pub trait Element: Copy + Default {
    /// The value, if the type holds it exactly.
    fn exactly(stored: Stored) -> Option<Self>;
}

/// A real number that is an integer.
fn whole(value: f64) -> Option<i128> {
    (value.trunc() == value && value.abs() < 1e30).then_some(value as i128)
}

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl Element for $integer {
            fn exactly(stored: Stored) -> Option<Self> {
                let value = match stored {
                    Stored::Bool(_) => return None,
                    Stored::Integer(value) => value,
                    Stored::Real32(value) => whole(value.into())?,
                    Stored::Real64(value) => whole(value)?,
                };
                value.try_into().ok()
            }
        }
    )*};
}

integers!(i32 i64);

macro_rules! reals {
    ($($real:ty, $other:ident => $convert:expr;)*) => {$(
        impl Element for $real {
            fn exactly(stored: Stored) -> Option<Self> {
                match stored {
                    Stored::Bool(_) => None,
                    Stored::Integer(value) => {
                        let real = value as $real;
                        // A cast back saturates, so values at the end of the range are told apart by size.
                        (real as i128 == value && value.unsigned_abs() < 1 << 100).then_some(real)
                    }
                    Stored::$other(value) => $convert(value),
                    other => same(other),
                }
            }
        }
    )*};
}

reals! {
    f32, Real64 => |value: f64| {
        let real = value as f32;
        (f64::from(real) == value || value.is_nan()).then_some(real)
    };
    f64, Real32 => |value: f32| Some(f64::from(value));
}

/// The number itself, where its type is the wanted one.
fn same<T: 'static + Copy>(stored: Stored) -> Option<T> {
    let any: &dyn std::any::Any = match &stored {
        Stored::Bool(value) => value,
        Stored::Integer(value) => value,
        Stored::Real32(value) => value,
        Stored::Real64(value) => value,
    };
    any.downcast_ref().copied()
}

/// A logical value, as the kernel language keeps it in memory: 0 or 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Logical(pub i32);

impl Element for Logical {
    fn exactly(stored: Stored) -> Option<Self> {
        match stored {
            Stored::Bool(value) => Some(Logical(value.into())),
            Stored::Integer(value @ 0..=1) => Some(Logical(value as i32)),
            _ => None,
        }
    }
}

/// Reads a file. `name` is the type for messages.
///
/// # Errors
/// As [`read`](super::read), and if an element cannot be converted exactly.
pub fn read<T: Element>(path: &Path, name: &str) -> Result<(Vec<usize>, Vec<T>), Failure> {
    super::read_with(path, |file, length| parse(file, length, name))
}

/// Reads a file's content, of `length` bytes if known. Failures do not name the file.
fn parse<T: Element>(
    mut file: impl Read,
    length: Option<u64>,
    name: &str,
) -> Result<(Vec<usize>, Vec<T>), Failure> {
    let header = header::read(&mut file, Accepts::All).map_err(Failure::Input)?;
    check_length(&header, length)?;
    let mut array = memory::filled(&header.text, header.count, T::default())?;
    let in_order = header.fortran_order || header.shape.len() < 2;
    let mut place = Places::new(header.shape.iter().rev().copied());
    let number = header.number;
    each(&mut file, &header, |index, bytes| {
        let stored = decode(number, bytes);
        let value = T::exactly(stored);
        let value = value.ok_or_else(|| format!("stored element {index} is {stored}, which is no {name}"))?;
        let at = if in_order { index as usize } else { place.next() };
        array[at] = value;
        Ok(())
    })?;
    let Header { shape, .. } = header;
    Ok((shape, array))
}

fn decode(number: Number, bytes: &[u8]) -> Stored {
    match number {
        Number::Bool => Stored::Bool(bytes[0] != 0),
        Number::Integer(integer) => Stored::Integer(integer.decode(bytes)),
        Number::Float(float) => match (bytes, float.big_endian) {
            (&[a, b], false) => Stored::Real32(half(u16::from_le_bytes([a, b]))),
            (&[a, b], true) => Stored::Real32(half(u16::from_be_bytes([a, b]))),
            (&[a, b, c, d], false) => Stored::Real32(f32::from_le_bytes([a, b, c, d])),
            (&[a, b, c, d], true) => Stored::Real32(f32::from_be_bytes([a, b, c, d])),
            (&[a, b, c, d, e, f, g, h], false) => {
                Stored::Real64(f64::from_le_bytes([a, b, c, d, e, f, g, h]))
            }
            (&[a, b, c, d, e, f, g, h], true) => Stored::Real64(f64::from_be_bytes([a, b, c, d, e, f, g, h])),
            _ => unreachable!("a float has 2, 4 or 8 bytes"),
        },
    }
}

/// Writes a column-major array in Fortran order. `encode` appends the bytes of an element.
///
/// # Errors
/// Those of `file`.
pub fn write<T: Copy>(
    file: &mut dyn Write,
    descr: &str,
    (shape, data): (&[usize], &[T]),
    encode: impl Fn(T, &mut Vec<u8>),
) -> io::Result<()> {
    write_header(file, descr, shape.len() > 1, shape)?;
    let mut bytes = Vec::with_capacity(CHUNK);
    for part in data.chunks(CHUNK / size_of::<T>().max(1)) {
        bytes.clear();
        part.iter().for_each(|value| encode(*value, &mut bytes));
        file.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((dict.len() as u16).to_le_bytes());
        bytes.extend(dict.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn read<T: Element>(bytes: &[u8]) -> Result<(Vec<usize>, Vec<T>), String> {
        parse(bytes, Some(bytes.len() as u64), "int32").map_err(|failure| failure.to_string())
    }

    #[test]
    fn both_orders_become_columns() {
        // Rows of 0 1 2 and 3 4 5.
        let rows: Vec<u8> = (0..6i32).flat_map(i32::to_le_bytes).collect();
        let columns: Vec<u8> = [0i32, 3, 1, 4, 2, 5].into_iter().flat_map(i32::to_be_bytes).collect();
        let expected = Ok((vec![2, 3], vec![0, 3, 1, 4, 2, 5]));
        assert_eq!(read::<i32>(&file("<i4", "False", "(2, 3)", &rows)), expected);
        assert_eq!(read::<i32>(&file(">i4", "True", "(2, 3)", &columns)), expected);
        // a[i, j, k] of shape (2, 3, 2) is at i + 2 * (j + 3 * k).
        let rows: Vec<u8> = (0..12u8).collect();
        let (_, data) = read::<i64>(&file("|u1", "False", "(2, 3, 2)", &rows)).unwrap();
        for (i, j, k) in [(0, 0, 0), (1, 0, 0), (0, 2, 0), (1, 2, 1), (0, 1, 1)] {
            assert_eq!(data[i + 2 * (j + 3 * k)], (6 * i + 2 * j + k) as i64);
        }
        assert_eq!(read::<i32>(&file("<i4", "False", "(2, 0)", &[])), Ok((vec![2, 0], vec![])));
        assert_eq!(read::<i32>(&file("<i4", "False", "()", &7i32.to_le_bytes())), Ok((vec![], vec![7])));
    }

    #[test]
    fn values_are_converted_only_exactly() {
        use Stored::{Bool, Integer, Real32, Real64};
        assert_eq!(i32::exactly(Integer(i128::from(i32::MAX))), Some(i32::MAX));
        assert_eq!(i32::exactly(Integer(1 << 31)), None);
        assert_eq!(i32::exactly(Real64(-3.0)), Some(-3));
        assert_eq!((i32::exactly(Real64(0.5)), i32::exactly(Real32(f32::NAN))), (None, None));
        assert_eq!((i32::exactly(Bool(true)), i64::exactly(Real64(9.3e18))), (None, None));
        assert_eq!(i64::exactly(Integer(i128::from(u64::MAX))), None);
        assert_eq!(
            (f32::exactly(Integer(1 << 24)), f32::exactly(Integer((1 << 24) + 1))),
            (Some(16_777_216.0), None)
        );
        assert_eq!((f32::exactly(Real64(0.5)), f32::exactly(Real64(0.1))), (Some(0.5), None));
        assert_eq!(
            (f32::exactly(Real64(1e300)), f32::exactly(Real64(f64::INFINITY))),
            (None, Some(f32::INFINITY))
        );
        assert!(f32::exactly(Real64(f64::NAN)).unwrap().is_nan());
        assert_eq!(
            (f64::exactly(Real32(0.1)), f64::exactly(Integer(i128::from(i64::MAX)))),
            (Some(0.1f32.into()), None)
        );
        assert_eq!((f64::exactly(Bool(false)), f32::exactly(Real32(0.1))), (None, Some(0.1)));
        let logical = Logical::exactly;
        assert_eq!(
            (logical(Bool(true)), logical(Integer(0)), logical(Integer(2))),
            (Some(Logical(1)), Some(Logical(0)), None)
        );
        let message = read::<i32>(&file("<f4", "False", "(2,)", &[0, 0, 0, 0, 0, 0, 0, 63])).unwrap_err();
        assert_eq!(message, "dtype '<f4', shape (2,): stored element 1 is 0.5, which is no int32");
        assert!(
            read::<i32>(&file("<c8", "False", "(1,)", &[0; 8]))
                .unwrap_err()
                .contains("expected bool, an integer")
        );
        assert!(
            read::<i32>(&file("<i4", "False", "(2,)", &[0; 7]))
                .unwrap_err()
                .contains("needs 8 bytes of data, has 7")
        );
    }

    #[test]
    fn what_was_written_is_read() {
        let data = [0i64, 3, 1, 4, 2, -5];
        let mut bytes = Vec::new();
        write(&mut bytes, "<i8", (&[2, 3], &data), |it, to| to.extend(it.to_le_bytes())).unwrap();
        assert_eq!(read::<i64>(&bytes), Ok((vec![2, 3], data.to_vec())));
        let file = npyz::NpyFile::new(&bytes[..]).unwrap();
        assert_eq!((file.shape(), file.order()), (&[2, 3][..], npyz::Order::Fortran));
        assert_eq!(file.into_vec::<i64>().unwrap(), data);
    }
}

//! Reads and writes NumPy's `.npy` files of either byte order, in C and Fortran order. Images and weights become float32
//! in C order; numbers of other types are rounded. Arrays of kernels have any numeric type and are column-major ([`columns`]).
//!
//! A file is read in one pass. Each element is converted and stored at its place, so reading takes the memory of the
//! array and of one small buffer. The file's length and the memory are checked first.
//!
//! Commands call `read` and `write` and need not know the file format.

pub mod columns;
mod header;
mod literal;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::failure::Failure;
use crate::memory;
use header::{Accepts, Header};
use literal::shape_text;

/// Bytes per read or write.
const CHUNK: usize = 64 << 10;

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
/// Names the file, and as it applies dtype, shape or the missing memory.
pub fn read(path: &Path) -> Result<Array, Failure> {
    read_with(path, parse)
}

/// Reads the array that comes through standard input.
///
/// # Errors
/// As [`read`].
pub fn read_standard_input() -> Result<Array, Failure> {
    parse(io::stdin().lock(), None).map_err(|failure| match failure {
        Failure::Input(reason) => Failure::Input(format!("standard input: {reason}")),
        other => other,
    })
}

/// Opens a file and reads it with `parse`, whose failures do not name the file.
fn read_with<T>(
    path: &Path,
    parse: impl FnOnce(File, Option<u64>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let at = |reason: String| Failure::Input(format!("{}: {reason}", path.display()));
    let open = || {
        let file = File::open(path)?;
        let facts = file.metadata()?;
        // The length of a pipe is unknown.
        Ok((file, facts.is_file().then_some(facts.len())))
    };
    let (file, length) = open().map_err(|error: io::Error| at(format!("cannot be read: {error}")))?;
    parse(file, length).map_err(|failure| match failure {
        Failure::Input(reason) => at(reason),
        other => other,
    })
}

/// Writes `data`, of `shape` in C order, as float32.
///
/// # Errors
/// Those of `file`.
pub fn write(file: &mut dyn Write, shape: &[usize], data: &[f32]) -> io::Result<()> {
    write_header(file, "<f4", false, shape)?;
    let mut bytes = Vec::with_capacity(CHUNK);
    for part in data.chunks(CHUNK / size_of::<f32>()) {
        bytes.clear();
        bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes what comes before the elements.
fn write_header(file: &mut dyn Write, descr: &str, fortran_order: bool, shape: &[usize]) -> io::Result<()> {
    let (shape, order) = (shape_text(shape), if fortran_order { "True" } else { "False" });
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    // The elements start at a multiple of 64, like in NumPy's files.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header = format!("{header:<width$}\n", width = padded - 1);
    let length = u16::try_from(header.len()).map_err(io::Error::other)?;
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(header.as_bytes())
}

/// Reads a file's content, of `length` bytes if known. Failures do not name the file.
pub fn parse(mut file: impl Read, length: Option<u64>) -> Result<Array, Failure> {
    let header = header::read(&mut file, Accepts::Numbers).map_err(Failure::Input)?;
    let number = header.number;
    check_length(&header, length)?;
    let mut array = memory::reserved(&header.text, header.count)?;
    let mut place = Places::new(header.shape.iter().copied());
    if header.fortran_order {
        array.resize(header.count, 0.0);
    }
    each(&mut file, &header, |index, bytes| {
        let value = number
            .decode(bytes)
            .map_err(|stored| format!("stored element {index} is {stored:e}, which float32 cannot hold"))?;
        if header.fortran_order {
            array[place.next()] = value;
        } else {
            array.push(value);
        }
        Ok(())
    })?;
    Ok(Array { shape: header.shape, data: array })
}

/// A file without all of its elements.
fn short(header: &Header, has: u64) -> Failure {
    Failure::Input(format!("{}: needs {} bytes of data, has {has}", header.text, header.bytes))
}

/// Checks the length of a file, if it is known.
fn check_length(header: &Header, length: Option<u64>) -> Result<(), Failure> {
    let data = length.map(|length| length.saturating_sub(header.start));
    data.filter(|&has| has < header.bytes).map_or(Ok(()), |has| Err(short(header, has)))
}

/// Reads the elements after a header, and calls `take` with the index and the bytes of each. It says what is wrong with
/// one.
fn each(
    file: &mut impl Read,
    header: &Header,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), String>,
) -> Result<(), Failure> {
    let (size, mut buffer) = (header.number.bytes(), vec![0; CHUNK]);
    let mut read = 0;
    while read < header.bytes {
        let wanted = (CHUNK as u64).min(header.bytes - read) as usize;
        let got = fill(file, &mut buffer[..wanted]);
        let got = got.map_err(|error| Failure::Input(format!("cannot be read: {error}")))?;
        if got < wanted {
            return Err(short(header, read + got as u64));
        }
        for (index, bytes) in (read / size as u64..).zip(buffer[..wanted].chunks_exact(size)) {
            take(index, bytes).map_err(|what| Failure::Input(format!("{}: {what}", header.text)))?;
        }
        read += wanted as u64;
    }
    Ok(())
}

/// Reads until `buffer` is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// The places in C order of elements in Fortran order, where the first index runs fastest. With the sides in reverse, it
/// is the other way round.
struct Places {
    /// Each side, the distance of its elements in C order, and the current index.
    sides: Vec<(usize, usize, usize)>,
    at: usize,
}

impl Places {
    fn new(shape: impl DoubleEndedIterator<Item = usize>) -> Self {
        // With a side of 0 there are no places, and the distances do not matter.
        let mut distance = 1usize;
        let sides = shape.rev().map(|side| {
            let this = (side, distance, 0);
            distance = distance.wrapping_mul(side);
            this
        });
        let mut sides: Vec<_> = sides.collect();
        sides.reverse();
        Places { sides, at: 0 }
    }

    /// The next element's place.
    fn next(&mut self) -> usize {
        let place = self.at;
        for (side, distance, index) in &mut self.sides {
            *index += 1;
            self.at += *distance;
            if *index < *side {
                break;
            }
            self.at -= *distance * *side;
            *index = 0;
        }
        place
    }
}

#[cfg(test)]
mod tests;

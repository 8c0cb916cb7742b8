//! Reads kernel files. Everything else of the compiler works on text in memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::allocate;
use crate::error::{Error, Result};

use super::source::MAX_SOURCE_BYTES;

/// The bytes of a kernel file, for [`compile`](super::compile).
///
/// # Errors
/// [`Error::InvalidArgument`] if the file cannot be read, or is larger than a source may be. [`Error::OutOfMemory`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let refused = |why: &dyn std::fmt::Display| {
        Error::invalid("path", format_args!("\"{}\"", path.display()), format!("a readable file: {why}"))
    };
    let mut file = File::open(path).map_err(|error| refused(&error))?;
    let mut text = allocate::zeroed::<u8>(MAX_SOURCE_BYTES + 1, "a kernel file")?;
    let mut len = 0;
    while len < text.len() {
        match file.read(&mut text[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(refused(&error)),
        }
    }
    if len > MAX_SOURCE_BYTES {
        return Err(refused(&format_args!("it has more than {MAX_SOURCE_BYTES} bytes")));
    }
    text.truncate(len);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel.f90");
        let refused = |path: &Path| read(path).unwrap_err().to_string();
        assert!(refused(&path).contains("kernel.f90\"; expected a readable file: No such file"));
        assert!(refused(folder.path()).contains("Is a directory"));
        for len in [0, 1, MAX_SOURCE_BYTES] {
            std::fs::write(&path, vec![b'!'; len]).unwrap();
            assert_eq!(read(&path).unwrap(), vec![b'!'; len]);
        }
        std::fs::write(&path, vec![b'!'; MAX_SOURCE_BYTES + 1]).unwrap();
        assert!(refused(&path).ends_with("it has more than 1048576 bytes"));
    }
}

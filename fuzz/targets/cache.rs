//! Damaged files of the cache. Loading returns the saved value or nothing. If the checksum is mended after the
//! damage, which no accident does, the value may differ, but nothing crashes.
//!
//! The module that reads and writes the files is included by path, with stand-ins for what it uses of the crate.

#![no_main]
// The target uses a part of what it includes.
#![allow(dead_code)]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[rustfmt::skip]
#[path = "../../src/allocate.rs"]
mod allocate;
#[rustfmt::skip]
#[path = "../../src/error.rs"]
mod error;
#[rustfmt::skip]
#[path = "../../src/store.rs"]
mod store;

/// In place of the library's configuration: the target names its folder itself.
mod config {
    pub struct Config;
    impl Config {
        pub fn cache_folder(&self) -> Option<std::path::PathBuf> {
            None
        }
    }
    pub fn config() -> Config {
        Config
    }
}

/// In place of the library's log.
mod log {
    macro_rules! debug {
        ($($arg:tt)*) => { let _ = format_args!($($arg)*); };
    }
    pub(crate) use debug;
}

use store::Store;

/// What happens to a file.
#[derive(Debug, Arbitrary)]
enum Change {
    /// A byte gets another value.
    Byte(u16, u8),
    /// The file ends early.
    Cut(u16),
    /// More follows.
    Append(Vec<u8>),
    /// Other content.
    Replace(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
struct Input {
    key: String,
    value: Vec<u8>,
    changes: Vec<Change>,
    mend_checksum: bool,
}

/// This process's folder, in memory where the system has such a place.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        parent.join(format!("sparkle-fuzz-{}", std::process::id()))
    })
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Byte(at, value) => {
            let len = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(usize::from(*at) % len) {
                *byte = *value;
            }
        }
        Change::Cut(len) => bytes.truncate(usize::from(*len)),
        Change::Append(more) => bytes.extend_from_slice(more),
        Change::Replace(content) => bytes.clone_from(content),
    }
}

fuzz_target!(|input: Input| {
    let Input { key, value, changes, mend_checksum } = input;
    let folder = folder();
    assert!(Store::new(Some(folder.clone())).save("fuzz", &key, &value), "the folder takes files");
    let entries =
        fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry").path());
    let [path] = &entries.collect::<Vec<_>>()[..] else { panic!("one save makes one file") };
    let original = fs::read(path).expect("the file is there");
    let mut bytes = original.clone();
    changes.iter().for_each(|it| change(&mut bytes, it));
    if mend_checksum && let Some((body, checksum)) = bytes.split_last_chunk_mut::<8>() {
        *checksum = store::hash(body.iter().copied()).to_le_bytes();
    }
    fs::write(path, &bytes).expect("the file can be changed");
    // Stores that remember nothing.
    let loaded: Option<Vec<u8>> = Store::new(Some(folder.clone())).load("fuzz", &key);
    let _: Option<String> = Store::new(Some(folder.clone())).load("fuzz", &key);
    let _: Option<[f64; 4]> = Store::new(Some(folder.clone())).load("fuzz", &key);
    if bytes == original {
        assert_eq!(loaded.as_ref(), Some(&value));
    } else if !mend_checksum {
        assert_eq!(loaded, None);
    }
    fs::remove_dir_all(folder).expect("the folder can be removed");
});

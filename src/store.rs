//! The cache on disk: measured rates, winners of measurements, and compiled programs of this machine.
//!
//! An entry is a file, named by its kind and a hash of its key. It holds a mark, the lengths, the whole key with the
//! library's version, the value, and a checksum. Any other content (truncated, changed, another key with the same hash)
//! and any other kind of file (a folder, a pipe) counts as no entry, and the caller measures again. No function returns
//! an error: if the folder is not readable or writable, the next process has to measure again. The checksum protects
//! against accidents only. Users who may write to the folder are trusted, like users who may write to the program.
//!
//! A writer writes a file of its own and renames it, so that readers and concurrent writers see only whole entries.
//! Small entries are in memory as well, so a process measures only once even if the folder is disabled.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::time::SystemTime;

use crate::allocate;
use crate::config::config;

/// The most bytes of an entry. Larger values are not stored, and larger files are not read.
const LARGEST: usize = 64 << 20;
/// The most bytes of all entries together. If they exceed it, the oldest are deleted until half of it is left.
const TOTAL: u64 = 512 << 20;
/// The most entries in memory.
const REMEMBERED: usize = 1024;
/// The most bytes of an entry in memory.
const REMEMBERED_BYTES: usize = 64 << 10;

/// The start of every file: the format and its version.
const MARK: &[u8; 8] = b"SPARKLE1";
/// Mark, length of the key, length of the value. Key, value and checksum follow.
const HEADER: usize = MARK.len() + 2 * size_of::<u64>();
const CHECKSUM: usize = size_of::<u64>();
/// The file extension of entries.
const ENDING: &str = "entry";
/// The file extension of entries that are being written.
const WRITING: &str = "writing";

/// A value that can be stored. If an allocation fails, the entry counts as missing.
pub trait Stored: Sized {
    /// The bytes of the value, if there is memory for them.
    fn to_bytes(&self) -> Option<Vec<u8>>;
    /// The value with these bytes, if they are valid.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Stored for Vec<u8> {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        copied(self)
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        copied(bytes)
    }
}

impl Stored for String {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        copied(self.as_bytes())
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(copied(bytes)?).ok()
    }
}

impl<const N: usize> Stored for [f64; N] {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        Some(self.iter().flat_map(|value| value.to_le_bytes()).collect())
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (values, rest) = bytes.as_chunks::<8>();
        let values: [[u8; 8]; N] = values.try_into().ok()?;
        rest.is_empty().then(|| values.map(f64::from_le_bytes))
    }
}

fn copied(bytes: &[u8]) -> Option<Vec<u8>> {
    allocate::copied(bytes, "an entry of the store").ok()
}

/// A folder of entries, and the entries in memory.
pub struct Store {
    folder: Option<PathBuf>,
    memory: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// The store of this process, in the folder of the configuration.
pub fn store() -> &'static Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    // Tests use no folder, so that they do not depend on earlier runs.
    STORE.get_or_init(|| Store::new(config().cache_folder().filter(|_| !cfg!(test))))
}

impl Store {
    /// A store in `folder`, which is created with the first entry; without a folder, in memory only.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Store { folder, memory: Mutex::default() }
    }

    /// Loads the entry of `kind`, a short lower-case word, that this version of the library saved under `key`.
    pub fn load<T: Stored>(&self, kind: &str, key: &str) -> Option<T> {
        let key = whole_key(kind, key);
        if let Some(bytes) = self.remembered(|memory| memory.get(&key).and_then(|it| copied(it))).flatten() {
            return T::from_bytes(&bytes);
        }
        self.load_file(kind, &key)
    }

    /// As [`Store::load`], but finds what another process has saved since this one loaded the entry.
    pub fn load_again<T: Stored>(&self, kind: &str, key: &str) -> Option<T> {
        self.load_file(kind, &whole_key(kind, key)).or_else(|| self.load(kind, key))
    }

    fn load_file<T: Stored>(&self, kind: &str, whole_key: &str) -> Option<T> {
        let bytes = read(&self.folder.as_ref()?.join(file_name(kind, whole_key)))?;
        let value = value_of(&bytes, whole_key)?;
        self.remember(whole_key, value);
        T::from_bytes(value)
    }

    /// Saves an entry and replaces one with the same key. Returns whether other processes will find it.
    pub fn save<T: Stored>(&self, kind: &str, key: &str, value: &T) -> bool {
        let key = whole_key(kind, key);
        let Some(value) = value.to_bytes() else { return false };
        self.remember(&key, &value);
        let Some(folder) = &self.folder else { return false };
        if value.len() > LARGEST {
            return false;
        }
        let Some(entry) = entry(&key, &value) else { return false };
        let written = write(folder, &file_name(kind, &key), &entry);
        if let Err(error) = &written {
            crate::log::debug!("store: cannot save {} in {}: {error}", kind, folder.display());
        }
        written.is_ok()
    }

    /// Calls `look` with the entries in memory, unless another thread uses them: in a forked child, waiting could block
    /// forever.
    fn remembered<R>(&self, look: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> R) -> Option<R> {
        match self.memory.try_lock() {
            Ok(mut memory) => Some(look(&mut memory)),
            Err(TryLockError::Poisoned(poisoned)) => Some(look(&mut poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn remember(&self, key: &str, value: &[u8]) {
        if value.len() <= REMEMBERED_BYTES {
            self.remembered(|memory| {
                if memory.len() < REMEMBERED || memory.contains_key(key) {
                    copied(value).map(|value| memory.insert(key.to_owned(), value));
                }
            });
        }
    }
}

/// The key in the file. It includes the version, so that entries of other versions are not used.
fn whole_key(kind: &str, key: &str) -> String {
    debug_assert!(!kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
    format!("{}\n{kind}\n{key}", env!("CARGO_PKG_VERSION"))
}

fn file_name(kind: &str, whole_key: &str) -> String {
    format!("{kind}-{:016x}.{ENDING}", hash(whole_key.bytes()))
}

/// The 64-bit hash FNV-1a (Fowler, Noll and Vo). Each step is one-to-one, so a change of any single byte changes the
/// hash.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The bytes of a file, if there is memory for them.
fn entry(key: &str, value: &[u8]) -> Option<Vec<u8>> {
    let len = HEADER + key.len() + value.len() + CHECKSUM;
    let mut bytes = allocate::with_capacity(len, "an entry of the store").ok()?;
    bytes.extend_from_slice(MARK);
    bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(&hash(bytes.iter().copied()).to_le_bytes());
    Some(bytes)
}

/// The value in the bytes of a file, if they are a valid entry for `key`.
fn value_of<'a>(bytes: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if hash(body.iter().copied()) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let (mark, rest) = body.split_first_chunk::<{ MARK.len() }>()?;
    let (key_len, rest) = rest.split_first_chunk::<8>()?;
    let (value_len, rest) = rest.split_first_chunk::<8>()?;
    let key_len = usize::try_from(u64::from_le_bytes(*key_len)).ok()?;
    let (found, value) = rest.split_at_checked(key_len)?;
    let sound = mark == MARK && value.len() as u64 == u64::from_le_bytes(*value_len);
    (sound && found == key.as_bytes()).then_some(value)
}

/// Reads a file, if it is a regular file that is not too long.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    // The path may be a pipe; opening it must not wait for a writer. Miri does not know the flag.
    #[cfg(all(unix, not(miri)))]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = options.open(path).ok()?;
    let facts = file.metadata().ok()?;
    let longest = (LARGEST + REMEMBERED_BYTES) as u64;
    if !facts.is_file() || facts.len() > longest {
        return None;
    }
    // If another process grows the file in the meantime, the bytes read here are not a valid entry.
    let mut bytes = allocate::with_capacity(facts.len() as usize, "an entry of the store").ok()?;
    file.take(facts.len()).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Writes a file atomically.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    create_folder(folder)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Containers that share a folder may share process ids as well, hence the time.
    let own = folder.join(format!("{name}.{}-{now}-{number}.{WRITING}", std::process::id()));
    let mut file = File::create_new(&own)?;
    let written = file.write_all(bytes).and_then(|()| fs::rename(&own, folder.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&own);
    }
    prune(folder, TOTAL);
    written
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    // Private to the user, as the XDG base directory specification requires.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// If our files together exceed `limit` bytes, removes the oldest until they have at most half of it.
fn prune(folder: &Path, limit: u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let ours = |path: &Path| path.extension().is_some_and(|ending| ending == ENDING || ending == WRITING);
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let facts = fs::symlink_metadata(&path).ok().filter(|facts| facts.is_file() && ours(&path))?;
            Some((facts.modified().ok()?, facts.len(), path))
        })
        .collect();
    let mut total: u64 = files.iter().map(|file| file.1).sum();
    if total <= limit {
        return;
    }
    files.sort_unstable();
    for (_, len, path) in files {
        if total <= limit / 2 {
            return;
        }
        // Another process may remove it at the same time, for the same reason.
        let _ = fs::remove_file(path);
        total -= len;
    }
}

#[cfg(test)]
pub(crate) mod tests;

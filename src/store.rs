//! What was learnt about this machine, kept on disk from run to run: measured rates, winners of measurements,
//! compiled programs.
//!
//! An entry is a file of its own, named by its kind and a hash of its key. It carries a mark, the lengths, the whole key
//! again, with the library's version in it, and a checksum. Whatever is not exactly that (cut short, changed, of another
//! key with the same hash, a folder, a pipe) is no entry: the caller measures again. Nothing here is ever an error; a
//! folder that cannot be read or written costs only the time of measuring again in the next process. The checksum is
//! against accidents: who may write to the folder is trusted, like who may write to the program.
//!
//! Writers go to a file of their own and rename it, so that readers, and eight writers at once, see whole entries only.
//! Small entries are kept in memory as well: with the folder turned off a process still measures only once.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::time::SystemTime;

use crate::allocate;
use crate::config::config;

/// Bytes that an entry may have; larger ones are not kept, and files that are larger not read.
const LARGEST: usize = 64 << 20;
/// Bytes that all entries may have together. When they have more, the oldest go until half of it is left.
const TOTAL: u64 = 512 << 20;
/// Entries that are kept in memory: as many, and each as small.
const REMEMBERED: usize = 1024;
const REMEMBERED_BYTES: usize = 64 << 10;

/// Opens every file: the format and its version.
const MARK: &[u8; 8] = b"SPARKLE1";
/// Mark, length of the key, length of the value; behind the value comes the checksum.
const HEADER: usize = MARK.len() + 2 * size_of::<u64>();
const CHECKSUM: usize = size_of::<u64>();
/// How entries' files end, and those that are still being written.
const ENDING: &str = "entry";
const WRITING: &str = "writing";

/// What can be kept. Memory that cannot be had makes an entry one that is not there.
pub trait Stored: Sized {
    /// Its bytes, if there is memory for them.
    fn to_bytes(&self) -> Option<Vec<u8>>;
    /// The value that these bytes stand for, if any.
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

/// A folder of entries, and what of it is in memory.
pub struct Store {
    folder: Option<PathBuf>,
    memory: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// The store of this process: in the folder that the configuration names.
pub fn store() -> &'static Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    // What tests find does not depend on what was run before them.
    STORE.get_or_init(|| Store::new(config().cache_folder().filter(|_| !cfg!(test))))
}

impl Store {
    /// A store in `folder`, which is made when the first entry is saved; in memory only without one.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Store { folder, memory: Mutex::default() }
    }

    /// The entry of `kind`, a short word in lower case, that was saved with `key` by this version of the library.
    pub fn load<T: Stored>(&self, kind: &str, key: &str) -> Option<T> {
        let key = whole_key(kind, key);
        if let Some(bytes) = self.remembered(|memory| memory.get(&key).and_then(|it| copied(it))).flatten() {
            return T::from_bytes(&bytes);
        }
        let bytes = read(&self.folder.as_ref()?.join(file_name(kind, &key)))?;
        let value = value_of(&bytes, &key)?;
        self.remember(&key, value);
        T::from_bytes(value)
    }

    /// Keeps an entry, in place of one with the same key. Says whether other processes will find it.
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
            crate::log::debug!("store: {} is not kept in {}: {error}", kind, folder.display());
        }
        written.is_ok()
    }

    /// Looks at the entries in memory, unless another thread does: to wait could be for ever in a forked child.
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

/// The key as it stands in the file. What another version measured or compiled is not looked at.
fn whole_key(kind: &str, key: &str) -> String {
    debug_assert!(!kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
    format!("{}\n{kind}\n{key}", env!("CARGO_PKG_VERSION"))
}

fn file_name(kind: &str, whole_key: &str) -> String {
    format!("{kind}-{:016x}.{ENDING}", hash(whole_key.bytes()))
}

/// FNV-1a of 64 bits (Fowler, Noll and Vo): each step is one-to-one, so no change of a single byte goes unseen.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A file's bytes, if there is memory for them.
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

/// The value in a file's bytes, if they are a sound entry for `key`.
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

/// A file's bytes, if it is an ordinary file that is not too long.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    // What is no file may be there: a pipe must not make us wait for a writer.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = options.open(path).ok()?;
    let facts = file.metadata().ok()?;
    let longest = (LARGEST + REMEMBERED_BYTES) as u64;
    if !facts.is_file() || facts.len() > longest {
        return None;
    }
    // One that grows meanwhile is another process's mistake; what is read of it is no sound entry.
    let mut bytes = allocate::with_capacity(facts.len() as usize, "an entry of the store").ok()?;
    file.take(facts.len()).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Writes a file so that it is there as a whole or not at all.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    create_folder(folder)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Containers that share a folder may share process ids as well: hence the time.
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
    // Nobody else's business, as the base directory specification has it.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Removes the oldest of our files if all together have more than `limit` bytes, until they have half of it.
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
        // Whoever else removes it meanwhile has the same aim.
        let _ = fs::remove_file(path);
        total -= len;
    }
}

#[cfg(test)]
pub(crate) mod tests;

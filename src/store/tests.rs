use std::time::Duration;

use super::*;
use crate::problem::exact::Random;

/// The store of a new process in `folder`.
fn fresh(folder: &Path) -> Store {
    Store::new(Some(folder.to_owned()))
}

/// The only file in `folder`.
fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn the_next_process_finds_saved_entries() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("made/when/needed");
    assert_eq!(fresh(&folder).load::<String>("a", "key"), None);
    assert!(fresh(&folder).save("a", "key", &"one".to_owned()));
    assert!(fresh(&folder).save("a", "other", &vec![7u8; 300_000]));
    assert!(fresh(&folder).save("b", "key", &[1.5, f64::INFINITY]));
    assert_eq!(fresh(&folder).load("a", "key"), Some("one".to_owned()));
    assert_eq!(fresh(&folder).load("a", "other"), Some(vec![7u8; 300_000]));
    assert_eq!(fresh(&folder).load("b", "key"), Some([1.5, f64::INFINITY]));
    assert_eq!(fresh(&folder).load::<[f64; 3]>("b", "key"), None, "of another length");
    assert!(fresh(&folder).save("a", "key", &"two".to_owned()));
    assert_eq!(fresh(&folder).load("a", "key"), Some("two".to_owned()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "one file per entry, none half written");
}

#[test]
fn what_another_process_saved_is_found_on_request() {
    let place = tempfile::tempdir().unwrap();
    let text = |text: &str| Some(text.to_owned());
    let (mine, other) = (fresh(place.path()), fresh(place.path()));
    mine.save("a", "key", &"mine".to_owned());
    other.save("a", "key", &"other".to_owned());
    assert_eq!(mine.load("a", "key"), text("mine"));
    assert_eq!(mine.load_again("a", "key"), text("other"));
    assert_eq!(mine.load("a", "key"), text("other"));
    fs::remove_file(only_file(place.path())).unwrap();
    assert_eq!(mine.load_again("a", "key"), text("other"), "known in memory");
    assert_eq!(mine.load_again::<String>("a", "another"), None);
}

#[test]
fn without_a_folder_the_process_remembers() {
    let store = Store::new(None);
    assert!(!store.save("a", "key", &"one".to_owned()));
    assert_eq!(store.load("a", "key"), Some("one".to_owned()));
    assert_eq!(store.load_again("a", "key"), Some("one".to_owned()));
    assert_eq!(store.load::<String>("a", "other"), None);
    for index in 0..2 * REMEMBERED {
        store.save("a", &index.to_string(), &vec![0u8; 10]);
    }
    store.save("a", "long", &vec![0u8; REMEMBERED_BYTES + 1]);
    assert!(store.memory.lock().unwrap().len() <= REMEMBERED, "and never more than so much");
}

#[test]
fn ten_thousand_damaged_files_are_not_entries() {
    let place = tempfile::tempdir().unwrap();
    let value: Vec<u8> = (0..200).collect();
    assert!(fresh(place.path()).save("a", "key", &value));
    let path = only_file(place.path());
    let whole = fs::read(&path).unwrap();
    let mut random = Random::new(31);
    let mut cases = 0;
    for case in 0..10_500 {
        let mut bytes = whole.clone();
        let at = random.between(0, bytes.len() as i64 - 1) as usize;
        match case % 6 {
            0 => bytes[at] ^= 1 << random.between(0, 7),
            1 => bytes.truncate(at),
            2 => bytes.extend((0..=at).map(|byte| byte as u8)),
            3 => {
                bytes.remove(at);
            }
            4 => bytes[at..].fill(0),
            _ => (0..9).for_each(|_| {
                let at = random.between(0, bytes.len() as i64 - 1) as usize;
                bytes[at] = bytes[at].wrapping_add(random.between(1, 255) as u8);
            }),
        }
        // Filling zeros with zeros, or changing a byte back, is no damage.
        if bytes == whole {
            continue;
        }
        fs::write(&path, &bytes).unwrap();
        assert_eq!(fresh(place.path()).load::<Vec<u8>>("a", "key"), None, "case {case} at {at}");
        cases += 1;
    }
    assert!(cases >= 10_000, "{cases}");
    assert!(fresh(place.path()).save("a", "key", &value), "damage is overwritten");
    assert_eq!(fresh(place.path()).load("a", "key"), Some(value));
}

#[test]
fn valid_files_of_another_key_version_or_format_are_not_entries() {
    let place = tempfile::tempdir().unwrap();
    let mine = whole_key("a", "key");
    let path = place.path().join(file_name("a", &mine));
    let value = b"value";
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = entry(&mine, value).unwrap();
        bytes.truncate(bytes.len() - CHECKSUM);
        change(&mut bytes);
        let checksum = hash(bytes.iter().copied()).to_le_bytes();
        bytes.extend_from_slice(&checksum);
        bytes
    };
    let foreign = [
        entry(&whole_key("a", "another"), value).unwrap(),
        entry(&mine.replacen(env!("CARGO_PKG_VERSION"), "0.0.0", 1), value).unwrap(),
        damaged(&|bytes| bytes[7] = b'2'),
        damaged(&|bytes| bytes[8..16].fill(0xff)),
        damaged(&|bytes| bytes[16..24].fill(0xff)),
        damaged(&|bytes| bytes.clear()),
    ];
    for (index, bytes) in foreign.iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        assert_eq!(fresh(place.path()).load::<Vec<u8>>("a", "key"), None, "{index}");
    }
    fs::write(&path, damaged(&|_| {})).unwrap();
    assert_eq!(fresh(place.path()).load("a", "key"), Some(value.to_vec()));
}

#[test]
fn anything_but_a_file_is_neither_an_entry_nor_an_error() {
    let place = tempfile::tempdir().unwrap();
    let name = file_name("a", &whole_key("a", "key"));
    let path = place.path().join(&name);
    let check = |kept: bool| {
        let store = fresh(place.path());
        assert_eq!(store.load::<String>("a", "key"), None);
        assert_eq!(store.save("a", "key", &"value".to_owned()), kept);
        assert_eq!(store.load("a", "key"), Some("value".to_owned()), "in memory at least");
    };
    fs::create_dir(&path).unwrap();
    check(false);
    fs::remove_dir(&path).unwrap();
    #[cfg(unix)]
    {
        let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path is a C string.
        assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
        // A rename replaces the pipe.
        check(true);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&name, &path).unwrap();
        check(true);
    }
    let file = File::create(&path).unwrap();
    file.set_len(LARGEST as u64 * 4).unwrap();
    assert_eq!(fresh(place.path()).load::<String>("a", "key"), None, "too long, and not read");
    assert!(!fresh(place.path()).save("a", "large", &vec![0u8; LARGEST + 1]));
    // The folder can be a file, or lie below one.
    for folder in [path.clone(), path.join("below")] {
        assert!(!fresh(&folder).save("a", "key", &"value".to_owned()));
        assert_eq!(fresh(&folder).load::<String>("a", "key"), None);
    }
}

/// Runs `job` while `folder`, which lies in a folder of the test, is not writable. Root may write regardless of
/// permission bits, so this thread has the rights of the user nobody during that time. `None` if the process cannot do
/// that.
#[cfg(target_os = "linux")]
pub(crate) fn read_only<T>(folder: &Path, job: impl FnOnce() -> T) -> Option<T> {
    use std::os::unix::fs::PermissionsExt;
    /// Restores the rights of the thread, also if a test fails.
    struct Rights(libc::c_int);
    impl Drop for Rights {
        fn drop(&mut self) {
            // SAFETY: sets the user of this thread for file systems; nothing else depends on it.
            unsafe { libc::setfsuid(self.0 as libc::uid_t) };
        }
    }
    const NOBODY: libc::uid_t = 65534;
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(folder.parent().unwrap(), 0o755);
    mode(folder, 0o555);
    // SAFETY: as above.
    let rights = Rights(unsafe { libc::setfsuid(NOBODY) });
    let can_read = fs::read_dir(folder).is_ok();
    let done = if can_read && File::create_new(folder.join("probe")).is_err() {
        Some(job())
    } else {
        eprintln!("skipped: this process cannot create a folder that it may read but not write");
        None
    };
    drop(rights);
    mode(folder, 0o755);
    done
}

#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_cannot_be_written_is_harmless() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("cache");
    assert!(fresh(&folder).save("a", "key", &"before".to_owned()));
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    read_only(&folder, || {
        let store = fresh(&folder);
        assert!(!store.save("a", "other", &"value".to_owned()));
        assert_eq!(store.load("a", "other"), Some("value".to_owned()), "known in memory");
        assert!(!store.save("a", "key", &"after".to_owned()));
        assert_eq!(fresh(&folder).load("a", "key"), Some("before".to_owned()));
    });
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // Not even root can write here.
    assert!(!fresh(Path::new("/proc/self/sparkle")).save("a", "key", &"value".to_owned()));
}

/// Writes that fail after some bytes, as on a full disk, leave no files, and existing entries stay.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_harmless() {
    let name = "store::tests::a_full_disk_is_harmless";
    let Ok(folder) = std::env::var("SPARKLE_TEST_FOLDER") else {
        let place = tempfile::tempdir().unwrap();
        assert!(fresh(place.path()).save("a", "key", &"before".to_owned()));
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args([name, "--exact"]).env("SPARKLE_TEST_FOLDER", place.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        assert_eq!(fresh(place.path()).load("a", "key"), Some("before".to_owned()));
        only_file(place.path());
        return;
    };
    let folder = Path::new(&folder);
    // SAFETY: in this process, which belongs to the test, writing more than the limit becomes an error instead of a
    // signal.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    let mut cases = 0;
    for len in [100, 10_000, 1_000_000] {
        let store = fresh(folder);
        assert!(!store.save("a", "key", &vec![7u8; len]));
        // Small values are in memory; otherwise the old entry stays.
        let expected = if len <= REMEMBERED_BYTES { vec![7u8; len] } else { b"before".to_vec() };
        assert_eq!(store.load("a", "key"), Some(expected));
        cases += 1;
    }
    assert_eq!(cases, 3);
}

/// Writes and reads one key. Every value read must be one that a writer wrote.
fn write_and_read(folder: &Path, writer: u8) {
    for round in 0..100 {
        let store = fresh(folder);
        assert!(store.save("race", "key", &vec![writer; 1_000 + 100 * usize::from(writer) + round]));
        let seen: Vec<u8> = fresh(folder).load("race", "key").expect("there is always a whole entry");
        assert!(seen.iter().all(|&byte| byte == seen[0]) && seen[0] < 16);
        assert!((0..100).contains(&(seen.len() - 1_000 - 100 * usize::from(seen[0]))));
    }
}

#[test]
fn eight_threads_at_once() {
    let place = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let folder = place.path();
            scope.spawn(move || write_and_read(folder, writer));
        }
    });
    assert!(only_file(place.path()).extension().is_some_and(|ending| ending == ENDING));
}

#[test]
fn sixteen_processes_at_once() {
    let name = "store::tests::sixteen_processes_at_once";
    if let Ok(writer) = std::env::var("SPARKLE_TEST_CHILD") {
        let folder = std::env::var("SPARKLE_TEST_FOLDER").unwrap();
        return write_and_read(Path::new(&folder), writer.parse().unwrap());
    }
    let place = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..16)
        .map(|writer| {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args([name, "--exact"]).env("SPARKLE_TEST_CHILD", writer.to_string());
            child.env("SPARKLE_TEST_FOLDER", place.path()).stdout(std::process::Stdio::piped());
            child.spawn().unwrap()
        })
        .collect();
    assert_eq!(children.len(), 16);
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
    assert!(only_file(place.path()).extension().is_some_and(|ending| ending == ENDING));
}

#[test]
fn the_oldest_entries_are_removed_first() {
    let place = tempfile::tempdir().unwrap();
    let start = SystemTime::now() - Duration::from_secs(1_000);
    for index in 0..10u64 {
        let path = place.path().join(format!("a-{index}.{}", if index == 3 { WRITING } else { ENDING }));
        fs::write(&path, [0u8; 100]).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(start + Duration::from_secs(index))
            .unwrap();
    }
    fs::write(place.path().join("somebody-elses"), [0u8; 5_000]).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(place.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        names
    };
    prune(place.path(), 1_000);
    assert_eq!(names().len(), 11, "not too much yet");
    prune(place.path(), 999);
    assert_eq!(names(), ["a-6.entry", "a-7.entry", "a-8.entry", "a-9.entry", "somebody-elses"]);
}

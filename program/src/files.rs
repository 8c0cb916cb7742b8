//! Output files that appear whole or not at all.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::failure::Failure;

/// The most symbolic links in a path. Linux has the same limit.
const MAX_LINKS: usize = 40;

/// Where an output goes.
#[derive(Debug)]
enum Target {
    /// A pipe, a device or an open descriptor, which is written directly.
    Through,
    /// A file to replace, after following all links, and the metadata of the present file if there is one.
    Replaced(PathBuf, Option<Metadata>),
}

/// Checks that a file can be created at `path`, before any long work.
///
/// # Errors
/// If it is a directory, its directory does not exist, it is write-protected, or its links are broken.
pub fn check_target(path: &Path) -> Result<(), Failure> {
    target(path).map(drop).map_err(|reason| failure(path, reason))
}

/// Writes a file. The content goes to a temporary file beside it, which is renamed when it is complete; an error
/// leaves the old file as it was. A symbolic link stays: the file that it points to is replaced or created. A
/// replaced file keeps its permissions.
///
/// # Errors
/// If something could not be written.
pub fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let written = match target(path).map_err(|reason| failure(path, reason))? {
        Target::Through => write_through(path, content).map_err(|error| error.to_string()),
        Target::Replaced(target, before) => write_and_rename(&target, before, content),
    };
    written.map_err(|reason| failure(path, reason))
}

/// Follows the links of `path`.
fn target(path: &Path) -> Result<Target, String> {
    let mut at = path.to_owned();
    for _ in 0..=MAX_LINKS {
        let linked = if at == path { String::new() } else { format!("it is a link to {}: ", at.display()) };
        let refuse = |reason: String| Err(format!("{linked}{reason}"));
        let name = at.file_name().filter(|_| !ends_as_folder(&at));
        let Some(name) = name.map(ToOwned::to_owned) else { return refuse("it is a directory".to_owned()) };
        let folder = match fs::canonicalize(folder_of(&at)) {
            Ok(folder) if folder.is_dir() => folder,
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return refuse(format!("{}: {error}", folder_of(&at).display()));
            }
            _ => return refuse(format!("{} is no directory", folder_of(&at).display())),
        };
        at = folder.join(name);
        let facts = match fs::symlink_metadata(&at) {
            Ok(facts) => facts,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Target::Replaced(at, None)),
            Err(error) => return refuse(error.to_string()),
        };
        if facts.is_symlink() {
            // /dev/stdout points to a link in /proc that stands for an open descriptor. The link names a path only
            // for files.
            if folder.starts_with("/proc") && fs::metadata(&at).is_ok_and(|facts| !facts.is_file()) {
                return Ok(Target::Through);
            }
            at = folder.join(fs::read_link(&at).map_err(|error| format!("{linked}{error}"))?);
        } else if facts.is_dir() {
            return refuse("it is a directory".to_owned());
        } else if !facts.is_file() {
            return Ok(Target::Through);
        } else if facts.permissions().readonly() {
            return refuse("it is read-only".to_owned());
        } else if let Err(error) = OpenOptions::new().write(true).open(&at) {
            return refuse(error.to_string());
        } else {
            return Ok(Target::Replaced(at, Some(facts)));
        }
    }
    Err("its symbolic links form a circle, or there are too many of them".to_owned())
}

fn write_through(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::new(OpenOptions::new().write(true).open(path)?);
    content(&mut file)?;
    file.flush()
}

fn write_and_rename(
    target: &Path,
    before: Option<Metadata>,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), String> {
    let temporary = fill(target, before, content)?;
    fs::rename(&temporary.path, target).map_err(|error| error.to_string())
}

/// A complete temporary file beside `target`.
fn fill(
    target: &Path,
    before: Option<Metadata>,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Temporary, String> {
    let temporary = Temporary::create(folder_of(target))?;
    let fill = || {
        let mut file = BufWriter::new(&temporary.file);
        content(&mut file)?;
        file.flush()?;
        drop(file);
        if let Some(before) = before {
            keep_owner(&temporary.file, &before);
            temporary.file.set_permissions(before.permissions())?;
        }
        temporary.file.sync_all()
    };
    fill().map_err(|error: io::Error| error.to_string())?;
    Ok(temporary)
}

/// What a file is to contain.
pub type Content<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>;

/// Writes several files. None appears before the contents of all are on the disk.
///
/// # Errors
/// If something could not be written. The old files are then as they were, unless the system refuses to rename a file
/// or a pipe cannot be written.
pub fn write_all(all: Vec<(&Path, Content<'_>)>) -> Result<(), Failure> {
    let (mut complete, mut through) = (Vec::new(), Vec::new());
    for (path, content) in all {
        match target(path).map_err(|reason| failure(path, reason))? {
            Target::Through => through.push((path, content)),
            Target::Replaced(target, before) => {
                let temporary = fill(&target, before, content).map_err(|reason| failure(path, reason))?;
                complete.push((path, target, temporary));
            }
        }
    }
    for (path, content) in through {
        write_through(path, content).map_err(|error| failure(path, error))?;
    }
    for (path, target, temporary) in complete {
        fs::rename(&temporary.path, target).map_err(|error| failure(path, error))?;
    }
    Ok(())
}

/// Whether two paths lead to one existing file.
pub fn are_same(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| fs::metadata(path).map(|facts| (facts.dev(), facts.ino())).ok();
        identity(one).is_some_and(|it| identity(other) == Some(it))
    }
    #[cfg(not(unix))]
    {
        let real = |path: &Path| fs::canonicalize(path).ok();
        real(one).is_some_and(|it| real(other) == Some(it))
    }
}

/// Whether two outputs would be written to one place.
pub fn lead_to_one(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| match target(path) {
        Ok(Target::Replaced(target, _)) => Some(target),
        _ => None,
    };
    are_same(one, other) || place(one).is_some_and(|it| place(other) == Some(it))
}

/// Sets the owner and group of `file` to those of the file that it replaces, if permitted: usually only for root.
fn keep_owner(file: &File, before: &Metadata) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let _ = fchown(file, Some(before.uid()), Some(before.gid()));
    }
    #[cfg(not(unix))]
    let _ = (file, before);
}

/// A file that is removed on drop, unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(folder: &Path) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A process with the same id in another container may have left a file of this name.
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".sparkle-{}-{number}.tmp", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Temporary { path, file }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < u32::MAX => {}
                Err(error) => return Err(format!("cannot create a file in {}: {error}", folder.display())),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename this name no longer exists.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the path's ending names a folder.
fn ends_as_folder(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    text.ends_with(b"/") || text.ends_with(b"/.")
}

/// The directory that contains `path`.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failure(path: &Path, reason: impl std::fmt::Display) -> Failure {
    Failure::Input(format!("cannot write {}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("y.npy");
        write(&path, |file| file.write_all(b"old")).unwrap();
        let error = write(&path, |file| {
            file.write_all(b"new")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(error.unwrap_err().to_string().ends_with("y.npy: the disk is full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write(&path, |file| file.write_all(b"newer")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn several_files_appear_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("x.npy"), folder.path().join("y.npy"));
        fs::write(&one, "old").unwrap();
        let text =
            |text: &'static str| -> Content<'_> { Box::new(move |file| file.write_all(text.as_bytes())) };
        let broken: Content<'_> = Box::new(|_| Err(io::Error::other("the disk is full")));
        let error = write_all(vec![(&one, text("new")), (&other, broken)]).unwrap_err().to_string();
        assert!(error.ends_with("y.npy: the disk is full"), "{error}");
        assert_eq!((fs::read(&one).unwrap(), other.exists()), (b"old".to_vec(), false));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_all(vec![(&one, text("new")), (&other, text("second"))]).unwrap();
        assert_eq!(
            (fs::read(&one).unwrap(), fs::read(&other).unwrap()),
            (b"new".to_vec(), b"second".to_vec())
        );
    }

    #[test]
    fn two_paths_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("x"), "").unwrap();
        fs::hard_link(at("x"), at("linked")).unwrap();
        assert!(are_same(&at("x"), &at("linked")) && are_same(&at("x"), &at("./x")));
        assert!(!are_same(&at("x"), &at("y")) && !are_same(&at("y"), &at("y")));
        assert!(lead_to_one(&at("y"), &at("./y")) && !lead_to_one(&at("y"), &at("z")));
    }

    #[test]
    fn names_may_be_as_long_as_the_system_allows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("y".repeat(255));
        write(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| check_target(path).unwrap_err().to_string();
        assert!(message(folder.path()).ends_with("it is a directory"));
        assert!(message(&folder.path().join("y.npy/")).ends_with("it is a directory"));
        assert!(message(&folder.path().join("..")).ends_with("it is a directory"));
        assert!(message(&folder.path().join("none/y.npy")).ends_with("none is no directory"));
        assert!(message(Path::new("")).ends_with("it is a directory"));
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

        use super::*;

        fn mode(path: &Path) -> u32 {
            fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
        }

        #[test]
        fn links_stay_and_what_they_lead_to_is_written() {
            let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let at = |name: &str| folder.path().join(name);
            let there = elsewhere.path().join("there.npy");
            symlink("file.npy", at("to a file")).unwrap();
            symlink(&there, at("elsewhere")).unwrap();
            symlink("to a file", at("to a link")).unwrap();
            fs::create_dir(at("folder")).unwrap();
            symlink("folder", at("to a folder")).unwrap();
            symlink("../to a file", at("folder/up")).unwrap();
            // The target of the links does not exist at first and is created.
            let links = [("to a file", at("file.npy")), ("elsewhere", there), ("to a link", at("file.npy"))];
            let folders = [("to a folder/up", at("file.npy")), ("to a folder/new", at("folder/new"))];
            let cases = [&links[..], &folders].concat();
            for (round, (link, target)) in cases.iter().chain(&cases).enumerate() {
                check_target(&at(link)).unwrap();
                write(&at(link), |file| write!(file, "{round}")).unwrap();
                assert_eq!(fs::read_to_string(target).unwrap(), round.to_string(), "{link}");
            }
            for link in ["to a file", "elsewhere", "to a link", "to a folder", "folder/up"] {
                assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
            }
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6, "nothing else was left");
            assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
        }

        #[test]
        fn links_that_lead_nowhere_are_refused_and_stay() {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            symlink("none/y.npy", at("to none")).unwrap();
            symlink("circle", at("circle")).unwrap();
            symlink(".", at("to a folder")).unwrap();
            for (link, reason) in [
                ("to none", "none is no directory"),
                ("circle", "its symbolic links form a circle, or there are too many of them"),
                ("to a folder", "it is a directory"),
            ] {
                let refused = [check_target(&at(link)), write(&at(link), |file| file.write_all(b"new"))];
                for message in refused.map(|it| it.unwrap_err().to_string()) {
                    assert!(message.starts_with("cannot write ") && message.ends_with(reason), "{message}");
                }
                assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink());
            }
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        }

        #[test]
        fn permissions_stay_and_read_only_files_are_refused() {
            let folder = tempfile::tempdir().unwrap();
            let (file, link) = (folder.path().join("file"), folder.path().join("link"));
            symlink("file", &link).unwrap();
            for bits in [0o600, 0o664, 0o751] {
                fs::write(&file, "old").unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(bits)).unwrap();
                let owner = fs::metadata(&file).unwrap().uid();
                write(&link, |file| file.write_all(b"new")).unwrap();
                assert_eq!((fs::read(&file).unwrap(), mode(&file)), (b"new".to_vec(), bits));
                assert_eq!(fs::metadata(&file).unwrap().uid(), owner);
            }
            fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
            let refused = [check_target(&file), write(&link, |file| file.write_all(b"newer"))];
            for message in refused.map(|it| it.unwrap_err().to_string()) {
                assert!(message.ends_with("it is read-only"), "{message}");
            }
            assert_eq!((fs::read(&file).unwrap(), mode(&file)), (b"new".to_vec(), 0o444));
        }

        #[test]
        fn devices_and_pipes_are_written_through() {
            let folder = tempfile::tempdir().unwrap();
            let null = folder.path().join("null");
            symlink("/dev/null", &null).unwrap();
            write(&null, |file| file.write_all(b"gone")).unwrap();
            assert!(!fs::metadata("/dev/null").unwrap().is_file());
            assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
            let (mut reader, writer) = io::pipe().unwrap();
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(&writer);
            for path in [format!("/dev/fd/{descriptor}"), format!("/proc/self/fd/{descriptor}")] {
                write(Path::new(&path), |file| file.write_all(b"through")).unwrap();
                let mut got = [0; 7];
                io::Read::read_exact(&mut reader, &mut got).unwrap();
                assert_eq!(&got, b"through", "{path}");
            }
        }
    }
}

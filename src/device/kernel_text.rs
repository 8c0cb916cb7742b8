//! Kernels from the bytes of sources and from files, and kernels as GLSL.

use std::path::Path;

use super::kernel::Kernel;
use crate::error::{Error, Result};
use crate::kernel;
use crate::kernel::glsl::{self, Glsl, Options, Version};

/// The most names in a message.
const MAX_NAMES: usize = 20;

/// The one with this name: the exact spelling first, then any case. Without a name, the only one. `what` is what messages
/// call the name, and what they expect where there is none at all.
///
/// # Errors
/// [`Error::InvalidArgument`] with the names of those that there are.
pub(super) fn named<T: Clone>(
    all: &[T],
    name_of: fn(&T) -> &str,
    name: Option<&str>,
    what: (&'static str, &str),
) -> Result<T> {
    let found = match name {
        Some(name) => {
            let exact = all.iter().find(|it| name_of(it) == name);
            exact.or_else(|| all.iter().find(|it| name_of(it).eq_ignore_ascii_case(name)))
        }
        None if all.len() == 1 => all.first(),
        None => None,
    };
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = all.iter().take(MAX_NAMES).map(name_of).collect();
        let expected = match names.is_empty() {
            true => what.1.to_owned(),
            false => format!("one of: {}", names.join(", ")),
        };
        Error::invalid(what.0, name.unwrap_or("missing"), expected)
    })
}

impl Kernel {
    /// Compiles a source and takes the kernel `name` of it: the exact spelling first, then any case. Without a name,
    /// its only kernel. `file` names the source in messages.
    ///
    /// # Errors
    /// [`Error::Source`] with the compiler's messages; [`Error::InvalidArgument`] if there is no such kernel, or
    /// several without a name, with the names of those that there are; [`Error::OutOfMemory`].
    pub fn from_bytes(text: &[u8], file: &str, name: Option<&str>) -> Result<Self> {
        let kernels = Kernel::all_from_source(text, file)?;
        named(&kernels, Kernel::name, name, ("kernel name", "a source with kernels"))
    }

    /// Reads a file and takes the kernel `name` of it, as [`Kernel::from_bytes`] does.
    ///
    /// # Errors
    /// As [`Kernel::from_bytes`], and [`Error::InvalidArgument`] if the file cannot be read or has more than 1 MiB.
    pub fn from_file(path: impl AsRef<Path>, name: Option<&str>) -> Result<Self> {
        let path = path.as_ref();
        Kernel::from_bytes(&kernel::read(path)?, &path.display().to_string(), name)
    }

    /// The kernel as a GLSL compute shader. It is written on a thread of the library, whatever stack the caller has.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the place of what this version of GLSL lacks; [`Error::OutOfMemory`].
    pub fn glsl(&self, options: Options) -> Result<Glsl> {
        let (kernel, version) = (self.clone(), options.version);
        let body = move || glsl::write(kernel.unit(), kernel.tree(), &options);
        let thread = crate::thread::spawn("host", "compiler", body)?;
        let written = thread.join().map_err(|panic| {
            let text = crate::thread::panic_text(&*panic);
            Error::Internal(format!("the writer of GLSL panicked: {text}"))
        })?;
        written?.map_err(|lacking| {
            let version = match version {
                Version::Desktop430 => "GLSL 4.30",
                Version::Es310 => "GLSL ES 3.10",
            };
            let (span, code, message) = (lacking.span, lacking.code, &lacking.message);
            let place = format!("line {}, column {}", span.line, span.column);
            let what = format!("kernel {} ({place}): {message} [{code}]", self.name());
            Error::Unsupported { device: version.to_owned(), what }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] =
        b"!@kernel\nsubroutine One(i, x)\ninteger, value :: i\nreal, intent(out) :: x\nx = i\n\
        end subroutine\n!@kernel(contract=off)\nsubroutine two(i, x)\ninteger, value :: i\n\
        real, intent(out) :: x\nx = 2*i\nend subroutine\n";

    #[test]
    fn kernels_are_found_by_name() {
        let name = |name| Kernel::from_bytes(TWO, "two.f90", name).map(|it| it.name().to_owned());
        assert_eq!(name(Some("ONE")).unwrap(), "One");
        assert_eq!(name(Some("two")).unwrap(), "two");
        let refused = |it| name(it).unwrap_err().to_string();
        assert_eq!(refused(Some("three")), "kernel name is three; expected one of: One, two");
        assert_eq!(refused(None), "kernel name is missing; expected one of: One, two");
        let one = TWO.split_at(TWO.len() / 2 - 30).0;
        let Err(Error::Source { file, messages }) = Kernel::from_bytes(one, "half.f90", None) else {
            panic!("it has no end")
        };
        assert!(file == "half.f90" && messages.contains("error[K"), "{messages}");
    }

    #[test]
    fn glsl_and_what_it_lacks() {
        let two = Kernel::from_bytes(TWO, "two.f90", Some("two")).unwrap();
        assert!(two.glsl(Options::default()).unwrap().text.starts_with("#version 430"));
        let es = two.glsl(Options { version: Version::Es310, ..Options::default() });
        let Err(Error::Unsupported { device, what }) = es else { panic!("ES has no exact arithmetic") };
        assert_eq!(device, "GLSL ES 3.10");
        assert!(what.starts_with("kernel two (line ") && what.ends_with("[K603]"), "{what}");
    }
}

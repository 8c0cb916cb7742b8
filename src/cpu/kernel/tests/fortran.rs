//! A kernel file as a shared library made by gfortran, which is called point by point.

use std::ffi::{CString, c_void};
use std::path::Path;
use std::process::Command;

use super::text;

/// A file of `tests/kernels/language`, compiled by gfortran.
pub(super) struct Library {
    handle: *mut c_void,
    module: String,
    _folder: tempfile::TempDir,
}

impl Library {
    /// Nothing, if gfortran is not installed and tests do not require it.
    pub(super) fn build(file: &str, module: &str) -> Option<Library> {
        Library::build_text(&text(&format!("language/{file}.f90")), module)
    }

    pub(super) fn build_text(source: &str, module: &str) -> Option<Library> {
        let folder = tempfile::tempdir().unwrap();
        let (file, library) = (folder.path().join("kernel.f90"), folder.path().join("kernel.so"));
        std::fs::write(&file, source).unwrap();
        let workgroup = Path::new(env!("CARGO_MANIFEST_DIR")).join("fortran/src/sparkle_workgroup.f90");
        let mut command = Command::new("gfortran");
        command.current_dir(folder.path()).args(["-shared", "-fPIC", "-O2", "-fwrapv", "-ffp-contract=off"]);
        let output = match command.arg("-o").arg(&library).arg(workgroup).arg(&file).output() {
            Ok(output) => output,
            Err(_) if std::env::var_os("SPARKLE_TEST_REQUIRE_FORTRAN").is_none() => {
                eprintln!("skipped: gfortran is not installed");
                return None;
            }
            Err(error) => panic!("gfortran: {error}"),
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = CString::new(library.to_str().unwrap()).unwrap();
        // SAFETY: the path is a string, and the library has no initialisers besides those of gfortran.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null());
        Some(Library { handle, module: module.to_owned(), _folder: folder })
    }

    /// The address of a subroutine.
    pub(super) fn subroutine(&self, name: &str) -> *mut c_void {
        let symbol = CString::new(format!("__{}_MOD_{name}", self.module)).unwrap();
        // SAFETY: the handle is open, and the name is a string.
        let address = unsafe { libc::dlsym(self.handle, symbol.as_ptr()) };
        assert!(!address.is_null(), "{symbol:?}");
        address
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nothing of the library is used any more.
        unsafe { libc::dlclose(self.handle) };
    }
}

/// gfortran's description of an array with one dimension.
#[repr(C)]
pub(super) struct Descriptor {
    address: *mut c_void,
    offset: isize,
    element_bytes: usize,
    version: i32,
    rank: i8,
    ty: i8,
    attribute: i16,
    span: isize,
    stride: isize,
    lower: isize,
    upper: isize,
}

impl Descriptor {
    pub(super) fn of(values: &mut [f32]) -> Descriptor {
        Descriptor {
            address: values.as_mut_ptr().cast(),
            offset: -1,
            element_bytes: 4,
            version: 0,
            rank: 1,
            ty: 3,
            attribute: 0,
            span: 4,
            stride: 1,
            lower: 1,
            upper: values.len() as isize,
        }
    }
}

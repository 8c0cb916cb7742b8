//! Kernels: sources that do not compile, names, handles, texts.

use std::ffi::{CStr, CString, c_char};
use std::ptr::{null, null_mut};

use sparkle::ffi::kernel::{sparkle_argument_kind::*, sparkle_intent::*, sparkle_type::*, *};
use sparkle::ffi::status::sparkle_status::{self, *};

use super::cases::{Cases, extremes, last_error};

/// A kernel whose local size has no effect, which is a warning, and one with 64-bit integers.
const SOURCE: &CStr = c"
!@kernel(local_size_x=32)
!@reduce(+: total)
subroutine dot(i, n, scale, x, y, total)
  use iso_fortran_env
  integer(int32), value :: i, n
  real(real64), value :: scale
  real(real32), intent(in) :: x(0:n-1), y(0:n-1)
  real(real32), intent(inout) :: total
  total = total + real(scale) * x(i) * y(i)
end subroutine
!@kernel(dims=2, base=1, local_size=auto, contract=off)
subroutine Fill(i, j, n, flags, a)
  use iso_fortran_env
  integer(int32), value :: i, j, n
  logical, intent(in) :: flags
  integer(int64), intent(out) :: a(n, *)
  if (flags) a(i, j) = 1_int64
end subroutine
";

fn compile(source: &CStr, name: *const c_char, out: *mut *mut sparkle_kernel) -> sparkle_status {
    // SAFETY: the source and the name are sound, and the call refuses an `out` that is NULL or misaligned.
    unsafe { sparkle_kernel_compile(source.as_ptr(), source.count_bytes(), name, out) }
}

fn kernel(name: &CStr) -> *mut sparkle_kernel {
    let mut kernel = null_mut();
    assert_eq!(compile(SOURCE, name.as_ptr(), &mut kernel), SPARKLE_OK, "{}", last_error());
    kernel
}

fn text(of: &[c_char]) -> &str {
    // SAFETY: the arrays of infos end with a NUL.
    unsafe { CStr::from_ptr(of.as_ptr()) }.to_str().unwrap()
}

#[test]
fn kernels_are_described() {
    // SAFETY: both structs have only numbers.
    let (mut info, mut argument): (sparkle_kernel_info, sparkle_argument_info) =
        unsafe { std::mem::zeroed() };
    (info.size, argument.size) = (size_of_val(&info), size_of_val(&argument));
    let (dot, fill) = (kernel(c"dot"), kernel(c"FILL"));
    // SAFETY: every pointer is valid.
    unsafe {
        assert_eq!(sparkle_kernel_describe(dot, &mut info), SPARKLE_OK);
        assert_eq!((text(&info.name), info.dims, info.base, info.local_size), ("dot", 1, 0, [32, 1, 1]));
        assert_eq!((info.arguments, info.buffers, info.parameter_bytes), (6, 3, 16));
        assert_eq!((info.exact, info.cooperative, info.legacy), (0, 0, 0));
        let all = [
            ("i", SPARKLE_TYPE_INT32, SPARKLE_ARGUMENT_INDEX, SPARKLE_INTENT_IN, [0, -1, 0]),
            ("n", SPARKLE_TYPE_INT32, SPARKLE_ARGUMENT_SCALAR, SPARKLE_INTENT_IN, [0, -1, 4]),
            ("scale", SPARKLE_TYPE_REAL64, SPARKLE_ARGUMENT_SCALAR, SPARKLE_INTENT_IN, [0, -1, 8]),
            ("x", SPARKLE_TYPE_REAL32, SPARKLE_ARGUMENT_ARRAY, SPARKLE_INTENT_IN, [1, 0, -1]),
            ("y", SPARKLE_TYPE_REAL32, SPARKLE_ARGUMENT_ARRAY, SPARKLE_INTENT_IN, [1, 1, -1]),
            ("total", SPARKLE_TYPE_REAL32, SPARKLE_ARGUMENT_REDUCTION, SPARKLE_INTENT_INOUT, [0, 2, -1]),
        ];
        for (index, (name, ty, kind, intent, numbers)) in all.into_iter().enumerate() {
            assert_eq!(sparkle_kernel_argument(dot, index, &mut argument), SPARKLE_OK);
            assert_eq!(text(&argument.name), name);
            let found = (argument.r#type, argument.kind, argument.intent);
            assert_eq!(found, (ty as i32, kind as i32, intent as i32), "{name}");
            assert_eq!([argument.rank, argument.slot, argument.offset], numbers, "{name}");
        }
        assert_eq!(sparkle_kernel_describe(fill, &mut info), SPARKLE_OK);
        assert_eq!((text(&info.name), info.dims, info.base, info.local_size), ("Fill", 2, 1, [0; 3]));
        assert_eq!((info.arguments, info.buffers, info.exact), (5, 2, 1));
        assert_eq!(sparkle_kernel_argument(fill, 3, &mut argument), SPARKLE_OK);
        let found = (argument.r#type, argument.kind, argument.intent, argument.slot);
        assert_eq!(found, (SPARKLE_TYPE_LOGICAL as i32, SPARKLE_ARGUMENT_ELEMENT as i32, 0, 0));
        assert_eq!(sparkle_kernel_argument(fill, 4, &mut argument), SPARKLE_OK);
        let found = (argument.r#type, argument.intent, argument.rank, argument.slot);
        assert_eq!(found, (SPARKLE_TYPE_INT64 as i32, SPARKLE_INTENT_OUT as i32, 2, 1));
    }
    assert_eq!((sparkle_kernel_destroy(dot), sparkle_kernel_destroy(fill)), (SPARKLE_OK, SPARKLE_OK));
}

#[test]
fn sources_that_do_not_compile() {
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let (mut cases, mut kernel) = (Cases::default(), null_mut::<sparkle_kernel>());
    cases.refused(null_pointer, "out is NULL", || compile(SOURCE, c"dot".as_ptr(), null_mut()));
    let odd = (&raw mut kernel).wrapping_byte_add(1);
    cases.refused(invalid, "out is at address", || compile(SOURCE, c"dot".as_ptr(), odd));
    // SAFETY: the calls refuse the sources: NULL, or a range that cannot be memory.
    unsafe {
        cases.refused(null_pointer, "source is NULL", || {
            sparkle_kernel_compile(null(), 9, null(), &mut kernel)
        });
        cases.refused(null_pointer, "source is NULL", || {
            sparkle_kernel_compile(null(), 0, null(), &mut kernel)
        });
        for length in [usize::MAX, isize::MAX as usize + 1, 1 << 62] {
            cases.refused(invalid, "source is", || {
                sparkle_kernel_compile(SOURCE.as_ptr(), length, null(), &mut kernel)
            });
        }
        // The length counts, not a NUL.
        cases.refused(invalid, "error[K", || {
            sparkle_kernel_compile(SOURCE.as_ptr(), 80, c"dot".as_ptr(), &mut kernel)
        });
    }
    cases.refused(invalid, "one of: dot, Fill", || compile(SOURCE, null(), &mut kernel));
    for name in [c"dots", c"", c"\xff\xfe"] {
        cases.refused(invalid, "name is", || compile(SOURCE, name.as_ptr(), &mut kernel));
    }
    let long = CString::new("n".repeat(1001)).unwrap();
    cases.refused(invalid, "name is", || compile(SOURCE, long.as_ptr(), &mut kernel));
    for (source, code) in [
        (c"", "K219"),
        (c"!@kernel\nsubroutine f(i)\ninteger, value :: i\nx = 1\nend subroutine\n", "K206"),
        (c"!@kernel\nsubroutine f(i)\ninteger, value :: i\nprint *, i\nend subroutine\n", "K103"),
        (c"\xff", "K002"),
        (c"!@kernel(", "K"),
    ] {
        cases.refused(invalid, code, || compile(source, null(), &mut kernel));
        assert!(last_error().starts_with("source does not compile:\nerror[K"), "{}", last_error());
    }
    let large = CString::new("!".repeat((1 << 20) + 1)).unwrap();
    cases.refused(invalid, "K001", || compile(&large, null(), &mut kernel));
    // Deep nesting is an error, too.
    let deep = format!(
        "!@kernel\nsubroutine f(i)\ninteger, value :: i\ni = {}1\nend subroutine\n",
        "(".repeat(90_000)
    );
    let deep = CString::new(deep).unwrap();
    cases.refused(invalid, "K008", || compile(&deep, null(), &mut kernel));
    assert!(kernel.is_null());
    cases.at_least(20);
}

#[test]
fn files() {
    let (mut cases, mut kernel) = (Cases::default(), null_mut::<sparkle_kernel>());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| CString::new(folder.path().join(name).to_str().unwrap()).unwrap();
    let (good, bad, none) = (path("good.f90"), path("bad.f90"), path("none.f90"));
    std::fs::write(good.to_str().unwrap(), SOURCE.to_bytes()).unwrap();
    std::fs::write(bad.to_str().unwrap(), "!@kernel\nsubroutine f(i)\nend subroutine\n").unwrap();
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    // SAFETY: every pointer is valid, or the call refuses it because it is NULL.
    let file = |path: *const c_char, name: *const c_char, out: *mut *mut sparkle_kernel| unsafe {
        sparkle_kernel_compile_file(path, name, out)
    };
    let dot = c"dot".as_ptr();
    cases.refused(null_pointer, "out is NULL", || file(good.as_ptr(), dot, null_mut()));
    cases.refused(null_pointer, "path is NULL", || file(null(), dot, &mut kernel));
    cases.refused(invalid, "path is", || file(c"\xff".as_ptr(), dot, &mut kernel));
    cases.refused(invalid, "No such file", || file(none.as_ptr(), dot, &mut kernel));
    cases.refused(invalid, "Is a directory", || file(path("").as_ptr(), dot, &mut kernel));
    cases.refused(invalid, "bad.f90:2:14", || file(bad.as_ptr(), null(), &mut kernel));
    cases.refused(invalid, "one of: dot, Fill", || file(good.as_ptr(), null(), &mut kernel));
    assert!(kernel.is_null());
    assert_eq!(file(good.as_ptr(), dot, &mut kernel), SPARKLE_OK);
    assert_eq!(sparkle_kernel_destroy(kernel), SPARKLE_OK);
    cases.at_least(7);
}

#[test]
fn texts_and_handles() {
    let (dot, fill) = (kernel(c"dot"), kernel(c"fill"));
    let (mut cases, mut length) = (Cases::default(), 7);
    let mut memory = vec![1; 1 << 16];
    let (into, room) = (memory.as_mut_ptr(), memory.len());
    // SAFETY: every pointer is valid, or the call refuses it because it is NULL.
    let source = |kernel, version, method, text: *mut c_char, capacity, length: *mut usize| unsafe {
        sparkle_kernel_source(kernel, version, method, text, capacity, length)
    };
    // SAFETY: as above.
    let warnings = |kernel, text: *mut c_char, capacity, length: *mut usize| unsafe {
        sparkle_kernel_diagnostics(kernel, text, capacity, length)
    };
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    for (method, expected) in [(0, "uniform int n;"), (1, "binding = 15"), (2, "PLACEHOLDER_n")] {
        assert_eq!(source(dot, 430, method, null_mut(), 0, &mut length), SPARKLE_OK, "{}", last_error());
        let full = length;
        cases.refused(invalid, &format!("at least {}", full + 1), || {
            source(dot, 430, method, into, full, &mut length)
        });
        assert_eq!(source(dot, 430, method, into, full + 1, &mut length), SPARKLE_OK);
        // SAFETY: the text was just written.
        let written = unsafe { CStr::from_ptr(into) }.to_str().unwrap();
        assert!(written.starts_with("#version 430") && written.contains(expected), "{written}");
        assert_eq!((written.len(), length), (full, full));
    }
    memory.fill(1);
    let into = memory.as_mut_ptr();
    assert_eq!(warnings(dot, into, room, &mut length), SPARKLE_OK);
    // SAFETY: as above.
    let written = unsafe { CStr::from_ptr(into) }.to_str().unwrap();
    assert!(written.starts_with("warning[K904]") && written.contains("source:2:"), "{written}");
    assert_eq!(written.len(), length);
    memory.fill(1);
    length = 7;
    let into = memory.as_mut_ptr();
    let unsupported = SPARKLE_ERROR_UNSUPPORTED;
    cases.refused(unsupported, "[K601]", || source(fill, 430, 0, into, room, &mut length));
    cases.refused(unsupported, "[K602]", || source(dot, 310, 0, into, room, &mut length));
    for wrong in extremes().filter_map(|it| i32::try_from(it).ok()).filter(|it| !(0..=2).contains(it)) {
        cases.refused(invalid, "version is", || source(dot, wrong, 0, into, room, &mut length));
        cases.refused(invalid, "method is", || source(dot, 430, wrong, into, room, &mut length));
    }
    cases.refused(null_pointer, "length is NULL", || source(dot, 430, 0, into, room, null_mut()));
    cases.refused(null_pointer, "text is NULL", || source(dot, 430, 0, null_mut(), 9, &mut length));
    cases.refused(null_pointer, "length is NULL", || warnings(dot, into, room, null_mut()));
    cases.refused(null_pointer, "text is NULL", || warnings(dot, null_mut(), 9, &mut length));
    cases.refused(invalid, "capacity is 1", || warnings(dot, into, 1, &mut length));

    // SAFETY: both structs have only numbers.
    let (mut info, mut argument): (sparkle_kernel_info, sparkle_argument_info) =
        unsafe { std::mem::zeroed() };
    // SAFETY: every pointer is valid, or the call refuses it because it is NULL or its size is not set.
    unsafe {
        cases.refused(invalid, "sparkle_kernel_info", || sparkle_kernel_describe(dot, &mut info));
        cases.refused(invalid, "sparkle_argument_info", || sparkle_kernel_argument(dot, 0, &mut argument));
        (info.size, argument.size) = (size_of_val(&info), size_of_val(&argument));
        cases.refused(null_pointer, "out is NULL", || sparkle_kernel_describe(dot, null_mut()));
        cases.refused(null_pointer, "out is NULL", || sparkle_kernel_argument(dot, 0, null_mut()));
        for index in [6, 1 << 32, usize::MAX] {
            cases.refused(invalid, "index is", || sparkle_kernel_argument(dot, index, &mut argument));
        }
    }
    assert_eq!((sparkle_kernel_destroy(dot), sparkle_kernel_destroy(fill)), (SPARKLE_OK, SPARKLE_OK));
    let foreign = std::ptr::without_provenance_mut(dot.addr() ^ 2);
    for handle in [null_mut(), dot, foreign, std::ptr::without_provenance_mut(usize::MAX)] {
        let bad = SPARKLE_ERROR_INVALID_HANDLE;
        cases.refused(bad, "kernel is", || source(handle, 430, 0, into, room, &mut length));
        cases.refused(bad, "kernel is", || warnings(handle, into, room, &mut length));
        // SAFETY: the structs are valid, and the calls refuse the handle.
        unsafe {
            cases.refused(bad, "kernel is", || sparkle_kernel_describe(handle, &mut info));
            cases.refused(bad, "kernel is", || sparkle_kernel_argument(handle, 0, &mut argument));
        }
        if handle.is_null() {
            assert_eq!(sparkle_kernel_destroy(handle), SPARKLE_OK);
        } else {
            cases.refused(bad, "kernel is", || sparkle_kernel_destroy(handle));
        }
    }
    assert!(
        length == 7 && memory.iter().all(|&byte| byte == 1) && info.name[0] == 0 && argument.name[0] == 0
    );
    cases.at_least(45);
}

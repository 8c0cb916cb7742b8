//! `sparkle kernel bind`: the modules are compiled by gfortran with all warnings as errors, and their subroutines launch
//! kernels and check shapes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod program;

use program::{code, folder, root, sparkle, stderr, stdout, success};

/// Kernels with arguments of every kind and type. Some are named as what the module itself uses.
const KERNELS: &str = "module demo
  use iso_fortran_env
  implicit none
  integer, parameter :: pad = 2
contains
  !@kernel
  pure subroutine saxpy(i, n, a, x, y)
    integer(int32), value :: i, n
    real(real32), value :: a
    real(real32), intent(in) :: x(0:n-1)
    real(real32), intent(inout) :: y(0:n-1)
    y(i) = a * x(i) + y(i) ! isn't it?
  end subroutine saxpy

  !@kernel(dims=2, base=1)
  pure subroutine padded(i, j, n, m, size, stat, old, new)
    integer(int32), value :: i, j, n, m, size
    logical, value :: stat
    integer(int64), intent(in) :: old(n, m)
    integer(int64), intent(inout) :: new(-pad:n+pad, max(m, size) / 2, *)
    if (stat) new(i - 1, (j + 1) / 2, 1 + mod(j + 1, 2)) = old(i, j) * size
  end subroutine padded

  !@kernel(dims=2)
  pure subroutine scaled(i, j, factor, x, y, flags)
    integer(int32), value :: i, j
    real(real64), value :: factor
    real(real64), intent(in) :: x
    real(real64), intent(out) :: y
    logical, intent(inout) :: flags(:)
    y = factor * x
    if (j == 0 .and. i < 2) flags(i + 1) = .not. flags(i + 1)
  end subroutine scaled

  !@kernel
  !@reduce(+: total)
  pure subroutine summed(i, n, x, total)
    integer(int32), value :: i, n
    integer(int32), intent(in) :: x(n)
    integer(int32), intent(inout) :: total
    total = total + x(i + 1)
  end subroutine summed
end module demo
";

const PROGRAM: &str = "program check
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
  use sparkle, only: sparkle_device, SPARKLE_OK
  use demo_bound
  implicit none
  type(sparkle_device) :: device
  real(real32) :: x(4), y(4), wide(2, 8)
  integer(int64) :: old(2, 4), new(7, 2, 2)
  real(real64) :: a(3, 2), b(3, 2)
  logical(int32) :: flags(2)
  integer(int32) :: total
  integer :: stat, i
  character(len=200) :: errmsg

  call device%open('cpu')
  x = [1, 2, 3, 4]
  y = [10, 20, 30, 40]
  call saxpy([4], 4_int32, 2.0_real32, x, y, device=device)
  if (any(abs(y - [12, 24, 36, 48]) > 0)) error stop 1
  ! A section that is not contiguous is copied in and out.
  wide = 1
  call saxpy([4], n=4_int32, a=2.0_real32, x=wide(1, ::2), y=wide(2, ::2), device=device, stat=stat, errmsg=errmsg)
  if (stat /= SPARKLE_OK) error stop 2
  if (any(abs(wide(2, :) - [3, 1, 3, 1, 3, 1, 3, 1]) > 0)) error stop 3

  call saxpy([4], 4_int32, 2.0_real32, x(:3), y, device, stat, errmsg)
  print '(i0,1x,a)', stat, trim(errmsg)
  if (any(abs(y - [12, 24, 36, 48]) > 0)) error stop 4

  old = reshape([(int(i, int64), i = 1, 8)], [2, 4])
  new = 0
  call padded([2, 4], 2_int32, 4_int32, 3_int32, .true._int32, old, new, device)
  if (any(new(3:4, 1, 1) /= 3 * old(:, 1)) .or. any(new(3:4, 2, 2) /= 3 * old(:, 4))) error stop 5
  if (sum(new) /= 3 * sum(old)) error stop 6
  call padded([2, 4], 2_int32, 4_int32, 3_int32, .true._int32, old, new(2:, :, :), device, stat, errmsg)
  print '(i0,1x,a)', stat, trim(errmsg)
  call padded([2, 4], 2_int32, 4_int32, 3_int32, .true._int32, old(:, 2:), new, device, stat, errmsg)
  print '(i0,1x,a)', stat, trim(errmsg)

  a = reshape([1, 2, 3, 4, 5, 6], [3, 2])
  flags = [.true., .false.]
  call scaled([3, 2], 0.5_real64, a, b, flags, device)
  if (any(abs(b - a / 2) > 0)) error stop 7
  if (flags(1) .or. .not. flags(2)) error stop 8
  call scaled([2, 3], 0.5_real64, a, b, flags, device, stat, errmsg)
  print '(i0,1x,a)', stat, trim(errmsg)

  total = 100
  call summed([3], 3_int32, [1, 2, 3], total, device)
  if (total /= 106) error stop 9
  call summed([3], 2_int32, [1, 2, 3], total)
end program check
";

fn compiled(command: &mut Command) {
    let output = command.output().expect("gfortran starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// The flags that link a program with this build's shared library, which cargo puts into the folder of the tests.
fn link_flags() -> Vec<String> {
    let exe = std::env::current_exe().expect("a test has a path");
    let dir = exe.parent().unwrap();
    assert!(dir.join("libsparkle.so").exists(), "no libsparkle.so in {}", dir.display());
    let link = dir.join("libsparkle.so.0");
    // Other tests may create the link at the same time.
    if let Err(error) = std::os::unix::fs::symlink("libsparkle.so", &link) {
        assert!(link.exists(), "{}: {error}", link.display());
    }
    let dir = dir.display();
    vec![format!("-L{dir}"), "-lsparkle".into(), format!("-Wl,--disable-new-dtags,-rpath,{dir}")]
}

/// Compiles files in order, and links the last one's program.
fn built(folder: &Path, sources: &[&Path], flags: &[&str]) -> PathBuf {
    let mut objects = Vec::new();
    for source in sources {
        let object = folder.join(source.with_extension("o").file_name().unwrap());
        let mut command = Command::new("gfortran");
        command.current_dir(folder).args(["-J", ".", "-c"]).args(flags).arg(source).arg("-o").arg(&object);
        compiled(&mut command);
        objects.push(object);
    }
    let program = folder.join("program");
    compiled(Command::new("gfortran").args(&objects).args(link_flags()).arg("-o").arg(&program));
    program
}

/// The files of the modern modules, in order of dependence, as the Makefile lists them.
fn modern() -> Vec<PathBuf> {
    let makefile = fs::read_to_string(root().join("fortran/Makefile")).unwrap().replace("\\\n", " ");
    let list = makefile.lines().find_map(|line| line.strip_prefix("MODERN := ")).expect("a list of modules");
    list.split_whitespace().map(|name| root().join("fortran/src").join(format!("{name}.f90"))).collect()
}

#[test]
fn bound_kernels_are_launched_and_shapes_checked() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("demo.f90"), KERNELS).unwrap();
    fs::write(at("check.f90"), PROGRAM).unwrap();
    success(&sparkle(folder.path(), &["kernel", "bind", "demo.f90", "-o", "bound.f90"]));
    let printed = sparkle(folder.path(), &["kernel", "bind", "demo.f90"]);
    assert_eq!(success(&printed), fs::read_to_string(at("bound.f90")).unwrap());
    let modern = modern();
    let own = [at("bound.f90"), at("check.f90")];
    let sources: Vec<&Path> = modern.iter().chain(&own).map(|it| it.as_path()).collect();
    let flags = ["-std=f2018", "-Wall", "-Wextra", "-fcheck=all", "-fcheck=no-array-temps", "-Werror", "-g"];
    let program = built(folder.path(), &sources, &flags);
    let output = Command::new(&program).env("SPARKLE_CACHE_DIR", "off").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = "\
1 argument \"x\" has shape (3); expected (4)
1 argument \"new\" has shape (6, 2, 2); expected (7, 2, *)
1 argument \"old\" has shape (2, 3); expected (2, 4)
1 argument \"x\" has shape (3, 2); expected (2, 3)
";
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text, expected, "{errors}");
    // Without `stat` the program stops.
    assert!(!output.status.success());
    let message = "ERROR STOP sparkle: summed: argument \"x\" has shape (3); expected (2)";
    assert!(errors.contains(message), "{errors}");
}

#[test]
fn what_cannot_be_bound_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let legacy = "!@kernel
subroutine f(i, a, A)
integer, value :: i
real, intent(in) :: a
real, intent(out) :: A
A[i] = a[i]
end subroutine
";
    fs::write(at("legacy.f90"), legacy).unwrap();
    let refused = sparkle(folder.path(), &["kernel", "bind", "legacy.f90", "-o", "x.f90"]);
    assert_eq!((code(&refused), stdout(&refused)), (3, ""));
    assert!(
        stderr(&refused).contains("kernel f: has dummies that differ only in case"),
        "{}",
        stderr(&refused)
    );
    let own = sparkle(folder.path(), &["kernel", "bind", "legacy.f90", "-o", "./legacy.f90"]);
    assert!(code(&own) == 3 && stderr(&own).contains("is the kernels' own file"));
    assert_eq!(fs::read_to_string(at("legacy.f90")).unwrap(), legacy);
    let named = sparkle(folder.path(), &["kernel", "bind", "legacy.f90", "--module", "1"]);
    assert_eq!(code(&named), 2);
    assert!(!at("x.f90").exists());
}

/// Every kernel of the examples can be bound.
#[test]
fn the_examples_are_bound() {
    let folder = folder();
    let mut bound = 0;
    for file in fs::read_dir(root().join("fortran/examples/kernels")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("run_") || name == "kernel_examples.f90" {
            continue;
        }
        let text = sparkle(folder.path(), &["kernel", "bind", path.to_str().unwrap()]);
        assert!(success(&text).contains("end subroutine"), "{name}");
        bound += 1;
    }
    assert_eq!(bound, 10);
}

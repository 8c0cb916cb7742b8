//! `sparkle kernel run`: arrays of every type and order, bad arguments, outputs, and the check. `sparkle kernel bench`.

use std::fs;
use std::path::Path;

mod program;
use program::{code, folder, json, npy, sparkle, stderr, stdout, success};

const SAXPY: &str = "!@kernel
pure subroutine saxpy(i, n, a, x, y)
  integer, value :: i, n
  real, value :: a
  real, intent(in) :: x(0:n-1)
  real, intent(inout) :: y(0:n-1)
  y(i) = a * x(i) + y(i)
end subroutine
";

const MATRIX: &str = "!@kernel(dims=2, base=1)
pure subroutine mark(i, j, n, m, a, b)
  integer, value :: i, j, n, m
  integer, intent(in) :: a(n, m)
  integer, intent(inout) :: b(m, n)
  b(j, i) = a(i, j) + 10 * i + 100 * j
end subroutine
";

/// Little-endian bytes.
fn bytes<T: Copy, const N: usize>(values: &[T], encode: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| encode(*value)).collect()
}

fn floats(path: &Path, values: &[f32]) {
    npy(path, "<f4", false, &[values.len()], &bytes(values, f32::to_le_bytes));
}

/// The shape, and the elements in C order, as NumPy indexes them.
fn read<T: npyz::Deserialize + Copy>(path: &Path) -> (Vec<u64>, Vec<T>) {
    let file = npyz::NpyFile::new(fs::File::open(path).unwrap()).unwrap();
    let (shape, order) = (file.shape().to_vec(), file.order());
    let all: Vec<T> = file.into_vec().unwrap();
    if shape.len() != 2 || order == npyz::Order::C {
        return (shape, all);
    }
    let (rows, columns) = (shape[0] as usize, shape[1] as usize);
    let rows_first = (0..rows * columns).map(|at| all[at / columns + at % columns * rows]);
    (shape, rows_first.collect())
}

/// Runs `sparkle kernel run` with words that blanks separate.
fn run(folder: &Path, words: &str) -> std::process::Output {
    let words: Vec<&str> = ["kernel", "run"].into_iter().chain(words.split_whitespace()).collect();
    sparkle(folder, &words)
}

fn saxpy_folder() -> tempfile::TempDir {
    let folder = folder();
    fs::write(folder.path().join("saxpy.f90"), SAXPY).unwrap();
    floats(&folder.path().join("x.npy"), &[1.0, 2.0, 3.0, 4.0]);
    floats(&folder.path().join("y.npy"), &[10.0, 20.0, 30.0, 40.0]);
    folder
}

const ALL: &str = "saxpy.f90 --extent 4 --device cpu --arg n=4 --arg a=0.5 --arg x=x.npy --arg y=y.npy";

#[test]
fn arrays_and_scalars_by_their_names() {
    let folder = saxpy_folder();
    let at = |name: &str| folder.path().join(name);
    let output = run(folder.path(), &format!("{ALL} --output y=z.npy"));
    let text = success(&output);
    assert!(
        text.starts_with("saxpy on cpu: 4 points, kernel ") && text.ends_with("y written to z.npy\n"),
        "{text}"
    );
    assert_eq!(read::<f32>(&at("z.npy")), (vec![4], vec![10.5, 21.0, 31.5, 42.0]));
    assert_eq!(read::<f32>(&at("y.npy")).1, [10.0, 20.0, 30.0, 40.0]);
    // Names in any case; the scalar from a file; float64 that is exact.
    npy(&at("a.npy"), "<f8", false, &[], &0.5f64.to_le_bytes());
    let words = "saxpy.f90 --extent 4 --device cpu --arg N=4 --arg A=a.npy --arg x=x.npy --arg y=y.npy --check --json --output Y=z.npy";
    let report = json(&run(folder.path(), words));
    assert_eq!((&report["ok"], &report["checked"]), (&true.into(), &true.into()));
    assert_eq!((&report["kernel"], &report["device"]), (&"saxpy".into(), &"cpu".into()));
    assert_eq!(report["arguments"][1]["value"], "0.5");
    assert_eq!(
        (&report["arguments"][3]["name"], &report["arguments"][3]["output"]),
        (&"y".into(), &"z.npy".into())
    );
    assert_eq!(read::<f32>(&at("z.npy")).1, [10.5, 21.0, 31.5, 42.0]);
}

#[test]
fn element_i_j_is_numpys_whatever_the_order() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("mark.f90"), MATRIX).unwrap();
    // a[i, j] = 1000 (i + 1) + j + 1, of shape (2, 3).
    let value = |i: i32, j: i32| 1000 * (i + 1) + j + 1;
    let rows: Vec<i32> = (0..6).map(|at| value(at / 3, at % 3)).collect();
    let columns: Vec<i32> = (0..6).map(|at| value(at % 2, at / 2)).collect();
    npy(&at("c.npy"), "<i4", false, &[2, 3], &bytes(&rows, i32::to_le_bytes));
    npy(&at("f.npy"), ">i4", true, &[2, 3], &bytes(&columns, i32::to_be_bytes));
    let expected: Vec<i32> =
        (0..6).map(|at| (at / 2, at % 2)).map(|(j, i)| value(i, j) + 10 * (i + 1) + 100 * (j + 1)).collect();
    for input in ["c.npy", "f.npy"] {
        let words = format!(
            "mark.f90 --extent 2,3 --device cpu --arg n=2 --arg m=3 --arg a={input} --output b=b.npy"
        );
        success(&run(folder.path(), &words));
        assert_eq!(read::<i32>(&at("b.npy")), (vec![3, 2], expected.clone()), "{input}");
    }
}

#[test]
fn every_type_of_the_language() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let text = "!@kernel
!@reduce(+: total)
subroutine all(i, n, k, d, flag, a, b, c, e, l, total)
  use iso_fortran_env
  integer, value :: i, n
  integer(int64), value :: k
  real(real64), value :: d
  logical, value :: flag
  integer(int32), intent(inout) :: a(0:n-1)
  integer(int64), intent(inout) :: b(0:n-1)
  real(real32), intent(inout) :: c(0:n-1)
  real(real64), intent(inout) :: e(0:n-1)
  logical, intent(inout) :: l(0:n-1)
  real(real64), intent(inout) :: total
  a(i) = a(i) + 1
  b(i) = b(i) * k
  c(i) = c(i) / 2
  e(i) = e(i) + d
  l(i) = l(i) .neqv. flag
  total = total + e(i)
end subroutine
";
    fs::write(at("all.f90"), text).unwrap();
    npy(&at("a.npy"), "|i1", false, &[3], &[1, 2, 0xff]);
    npy(&at("b.npy"), "<u4", false, &[3], &bytes(&[1, 2, u32::MAX], u32::to_le_bytes));
    npy(&at("c.npy"), "<i8", false, &[3], &bytes(&[1, -2, 3], i64::to_le_bytes));
    npy(&at("e.npy"), ">f4", false, &[3], &bytes(&[0.5, 1.5, 2.5], f32::to_be_bytes));
    npy(&at("l.npy"), "|b1", false, &[3], &[1, 0, 1]);
    let words = "all.f90 --extent 3 --device cpu --check --arg n=3 --arg k=4294967296 --arg d=1d2 --arg flag=.true. --arg a=a.npy \
        --arg b=b.npy --arg c=c.npy --arg e=e.npy --arg l=l.npy --arg total=1 \
        --output a=a2.npy --output b=b2.npy --output c=c2.npy --output e=e2.npy --output l=l2.npy --output total=t.npy";
    let output = run(folder.path(), words);
    assert!(success(&output).contains("\ntotal = 305.5\n"), "{}", stdout(&output));
    assert_eq!(read::<i32>(&at("a2.npy")).1, [2, 3, 0]);
    assert_eq!(read::<i64>(&at("b2.npy")).1, [1 << 32, 2 << 32, i64::from(u32::MAX) << 32]);
    assert_eq!(read::<f32>(&at("c2.npy")).1, [0.5, -1.0, 1.5]);
    assert_eq!(read::<f64>(&at("e2.npy")).1, [100.5, 101.5, 102.5]);
    assert_eq!(read::<bool>(&at("l2.npy")).1, [false, true, false]);
    assert_eq!(read::<f64>(&at("t.npy")), (vec![], vec![305.5]));
}

#[test]
fn bad_arguments_are_named_and_nothing_is_written() {
    let folder = saxpy_folder();
    let at = |name: &str| folder.path().join(name);
    npy(&at("wide.npy"), "<f8", false, &[4], &bytes(&[1.0, 0.1, 2.0, 3.0], f64::to_le_bytes));
    floats(&at("short.npy"), &[1.0, 2.0, 3.0]);
    npy(&at("flat.npy"), "<f4", false, &[2, 2], &[0; 16]);
    let before = fs::read_dir(folder.path()).unwrap().count();
    let base = "saxpy.f90 --extent 4 --device cpu --output y=z.npy";
    for (words, message) in [
        ("--arg n=4 --arg a=1 --arg x=x.npy", "argument y: is missing; give it with --arg y=FILE.npy"),
        ("--arg n=4 --arg x=x.npy --arg y=y.npy", "argument a: is missing; give it with --arg a=VALUE"),
        ("--arg n=4 --arg N=4 --arg a=1 --arg x=x.npy --arg y=y.npy", "argument n: is given twice"),
        ("--arg b=1", "argument b: is unknown; kernel saxpy has n, a, x, y"),
        ("--arg i=1", "argument i: is an index argument, which the launch itself sets"),
        ("--arg n=4.5 --arg a=1 --arg x=x.npy --arg y=y.npy", "argument n: \"4.5\" is no integer(int32)"),
        ("--arg n=4 --arg a=one --arg x=x.npy --arg y=y.npy", "argument a: \"one\" is no real(real32)"),
        ("--arg n=4 --arg a=1e39 --arg x=x.npy --arg y=y.npy", "argument a: \"1e39\" is no real(real32)"),
        ("--arg n=4 --arg a=1 --arg x=1 --arg y=y.npy", "argument x: is an array, and \"1\" is no FILE.npy"),
        (
            "--arg n=4 --arg a=1 --arg x=wide.npy --arg y=y.npy",
            "argument x: wide.npy: dtype '<f8', shape (4,): stored element 1 is 0.1, which is no float32",
        ),
        ("--arg n=4 --arg a=1 --arg x=none.npy --arg y=y.npy", "argument x: none.npy: cannot be read"),
        ("--arg n=4 --arg a=1 --arg x=short.npy --arg y=y.npy", "argument x: has shape [3]; expected [4]"),
        ("--arg n=4 --arg a=1 --arg x=flat.npy --arg y=y.npy", "argument x: has shape [2, 2]; expected [4]"),
        (
            "--arg n=4 --arg a=x.npy --arg x=x.npy --arg y=y.npy",
            "argument a: x.npy has shape [4]; expected a single",
        ),
        ("--kernel axpy", "saxpy.f90: no kernel axpy; the file has saxpy"),
        ("--output x=q.npy", "output x: the kernel does not write this argument"),
        ("--output Y=q.npy", "argument y: is given twice"),
    ] {
        let output = run(folder.path(), &format!("{base} {words}"));
        assert_eq!((code(&output), stdout(&output)), (3, ""), "{words}");
        assert!(stderr(&output).contains(&format!("error: {message}")), "{words}: {}", stderr(&output));
    }
    for (words, message) in [
        ("saxpy.f90 --extent 4,4", "--extent has 2 number(s); kernel saxpy has 1 dimension(s)"),
        ("none.f90 --extent 4", "none.f90"),
    ] {
        let output = run(folder.path(), words);
        assert!(code(&output) == 3 && stderr(&output).contains(message), "{}", stderr(&output));
    }
    for usage in [
        "saxpy.f90",
        "saxpy.f90 --extent 4 --arg n",
        "saxpy.f90 --extent x",
        "saxpy.f90 --extent 4 --device abacus",
    ] {
        let all = if usage.contains("abacus") { format!("{ALL} --device abacus") } else { usage.to_owned() };
        assert_eq!(code(&run(folder.path(), &all)), 2, "{all}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);
}

#[test]
fn outputs_replace_inputs_only_if_asked() {
    let folder = saxpy_folder();
    let at = |name: &str| folder.path().join(name);
    fs::hard_link(at("y.npy"), at("linked.npy")).unwrap();
    for (output, input) in [("./y.npy", "y"), ("x.npy", "x"), ("linked.npy", "y")] {
        let refused = run(folder.path(), &format!("{ALL} --output y={output}"));
        assert_eq!(code(&refused), 3);
        let message = format!("output y: {output} is the input {input}; --overwrite lets it replace that");
        assert!(stderr(&refused).contains(&message), "{}", stderr(&refused));
    }
    let missing = run(folder.path(), &format!("{ALL} --output y=none/y.npy"));
    assert!(
        code(&missing) == 3 && stderr(&missing).contains("output y: cannot write none/y.npy"),
        "{}",
        stderr(&missing)
    );
    assert_eq!(read::<f32>(&at("y.npy")).1, [10.0, 20.0, 30.0, 40.0]);
    success(&run(folder.path(), &format!("{ALL} --output y=y.npy --overwrite")));
    assert_eq!(read::<f32>(&at("y.npy")).1, [10.5, 21.0, 31.5, 42.0]);
    // Two outputs in one place.
    let two = "!@kernel
subroutine two(i, n, a, b)
integer, value :: i, n
real, intent(out) :: a(0:n-1), b(0:n-1)
a(i) = 1
b(i) = 2
end subroutine
";
    fs::write(at("two.f90"), two).unwrap();
    let words = "two.f90 --extent 3 --device cpu --arg n=3 --output a=q.npy --output b=";
    let refused = run(folder.path(), &format!("{words}./q.npy"));
    assert!(code(&refused) == 3 && stderr(&refused).contains("output b: ./q.npy is also the output a"));
    assert!(!at("q.npy").exists());
    success(&run(folder.path(), &format!("{words}r.npy")));
    assert_eq!(read::<f32>(&at("r.npy")), (vec![3], vec![2.0; 3]));
}

#[test]
fn the_check_draws_faults_and_keeps_the_kernel_from_running() {
    let folder = saxpy_folder();
    let at = |name: &str| folder.path().join(name);
    let shifted = SAXPY.replace("y(i) = a * x(i) + y(i)", "y(i) = a * x(i) + y(max(i - 1, 0))");
    fs::write(at("shifted.f90"), shifted).unwrap();
    let words = ALL.replace("saxpy.f90", "shifted.f90") + " --output y=z.npy --check";
    let found = run(folder.path(), &words);
    assert_eq!(code(&found), 3);
    assert!(
        stderr(&found).ends_with("error: the check found 1 fault(s) in kernel saxpy\n"),
        "{}",
        stderr(&found)
    );
    let drawn = "error[K701]: the points with i = 0 and i = 1 both access `y(0)`, and nothing orders them
 --> shifted.f90:7:21
  |
7 |   y(i) = a * x(i) + y(max(i - 1, 0))
  |                     ^^^^^^^^^^^^^^^^ the point with i = 1 reads it
  |   ---- the point with i = 0 accesses it
";
    assert_eq!(stdout(&found), drawn);
    assert!(!at("z.npy").exists());
    let report = json(&run(folder.path(), &format!("{words} --json")));
    assert_eq!((&report["ok"], &report["device"]), (&false.into(), &serde_json::Value::Null));
    let first = &report["diagnostics"][0];
    assert_eq!((&first["code"], &first["line"], &first["column"]), (&"K701".into(), &7.into(), &21.into()));
    // One point too many. Without the check it is an error of the launch's author alone.
    let long =
        run(folder.path(), &format!("{} --check --output y=z.npy", ALL.replace("--extent 4", "--extent 5")));
    assert!(
        code(&long) == 3
            && stdout(&long).contains("error[K702]: the subscript of `x` is 4, its bounds are 0:3")
    );
    // The compiler finds divergent barriers.
    let barrier = "!@kernel(local_size=[16])
subroutine f(i, n, y)
use sparkle_workgroup, only: barrier
integer, value :: i, n
real, intent(inout) :: y(0:n-1)
if (i < n) call barrier()
y(i) = 1
end subroutine
";
    fs::write(at("barrier.f90"), barrier).unwrap();
    let found = run(folder.path(), "barrier.f90 --extent 16 --check --arg n=16 --output y=z.npy");
    assert!(code(&found) == 3 && stderr(&found).contains("error[K501]"), "{}", stderr(&found));
    assert!(stderr(&found).contains("--> barrier.f90:6:"), "{}", stderr(&found));
}

#[test]
fn bench_counts_what_a_kernel_moves_and_computes() {
    let folder = saxpy_folder();
    let bench = |words: &str| {
        let words: Vec<&str> = ["kernel", "bench"].into_iter().chain(words.split_whitespace()).collect();
        sparkle(folder.path(), &words)
    };
    let words = "saxpy.f90 --extent 100000 --arg n=100000 --arg a=2 --device cpu --repeat 2";
    let text = bench(words);
    let text = success(&text);
    assert!(
        text.starts_with("saxpy on cpu: kernel ") && text.contains("\nGB/s") && text.contains("\nGFLOP/s"),
        "{text}"
    );
    assert!(text.contains("least time ") && text.contains(" ms, by "), "{text}");
    let report = json(&bench(&format!("{words} --json")));
    // x is read, y is read and written; a product and a sum for each point.
    assert_eq!((&report["bytes"], &report["flops"]), (&1_200_000.into(), &200_000.into()));
    assert!(report["counted_points"].as_u64().unwrap() >= 2048);
    let number = |value: &serde_json::Value| value.as_f64().filter(|it| *it > 0.0).expect("a rate");
    let (rate, seconds) = (number(&report["gbytes_per_second"]), number(&report["kernel_ms"]) / 1e3);
    assert!((rate * 1e9 * seconds / 1_200_000.0 - 1.0).abs() < 1e-6);
    let roof = &report["roofline"];
    let least = (1.2e-3 / number(&roof["gbytes_per_second"])).max(0.2e-3 / number(&roof["gflops"]));
    assert!((number(&roof["least_ms"]) / 1e3 / least - 1.0).abs() < 1e-6);
    assert!((number(&roof["share"]) * seconds / least - 1.0).abs() < 1e-6);
    let missing = bench("saxpy.f90 --extent 4 --device cpu --arg n=4");
    assert!(code(&missing) == 3 && stderr(&missing).contains("argument a: is missing"));
}

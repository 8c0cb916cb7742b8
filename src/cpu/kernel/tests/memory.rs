//! What is outside of an array is neither read nor written, and wrong arguments are refused before anything runs.

use super::*;

const HEAD: &str = "!@kernel\nsubroutine f(i, n, x, y)\nuse iso_fortran_env, only: int32, real32\n\
    integer(int32), value :: i, n\nreal(real32), intent(in) :: x(0:n-1)\nreal(real32), intent(inout) :: y(0:n-1)\n";

fn kernel(body: &str) -> String {
    format!("{HEAD}{body}\nend subroutine\n")
}

/// Elements beyond what the kernel gets keep their values.
#[test]
fn indices_outside_of_an_array_read_zero_and_write_nothing() {
    let n = 1000usize;
    let mut x: Vec<f32> = (0..n + 64).map(|it| it as f32).collect();
    let mut y = vec![-1.0f32; n + 64];
    for body in [
        "y(i + 5) = x(i + 7)",
        "y(i - 5) = x(i - 7)",
        "y(i * 3 - 100) = x(i * 5 - 90)",
        "y(i + 2147483647) = x(i * 2147483647)",
        "y(2147483647) = x(2147483646)",
    ] {
        let unit = unit(&kernel(body));
        for isa in Isa::all() {
            y.fill(-1.0);
            let mut args = [Arg::from(n as i32), (&mut x[32..32 + n]).into(), (&mut y[32..32 + n]).into()];
            let launch = Launch::new(&unit, 0, &[n], &mut args).unwrap();
            run::run(isa, &launch, &mut Team::of(2), Instant::now()).unwrap();
            drop(launch);
            assert!(y[..32].iter().chain(&y[32 + n..]).all(|it| *it == -1.0), "{body}");
            match body {
                "y(i + 5) = x(i + 7)" => {
                    assert_eq!(y[32 + 4..32 + 6], [-1.0, 32.0 + 7.0]);
                    assert_eq!(y[32 + n - 3..32 + n], [32.0 + n as f32 - 1.0, 0.0, 0.0]);
                }
                "y(i - 5) = x(i - 7)" => assert_eq!(y[32..32 + 3], [0.0, 0.0, 32.0]),
                _ => {}
            }
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let unit = unit(&kernel("y(i) = 2 * x(i)"));
    let (mut x, mut y) = ([1.0f32; 8], [5.0f32; 8]);
    let mut doubles = [1.0f64; 8];
    let refused = |extents: &[usize], args: &mut [Arg<'_>], expected: &str| {
        let error = Launch::new(&unit, 0, extents, args).unwrap_err();
        assert!(matches!(error, crate::Error::InvalidArgument { .. }));
        assert_eq!(error.to_string(), expected);
    };
    refused(&[8, 1], &mut [], "number of extents is 2; expected 1 for kernel \"f\"");
    refused(&[1 << 31], &mut [], "extent is 2147483648; expected at most 2147483647");
    refused(&[8], &mut [8.into()], "number of kernel arguments is 1; expected 3 for kernel \"f\"");
    refused(
        &[8],
        &mut [8.0f32.into(), (&x).into(), (&mut y).into()],
        "kernel argument is \"n\" with type real(real32); expected integer(int32)",
    );
    refused(
        &[8],
        &mut [(&x).into(), (&x).into(), (&mut y).into()],
        "kernel argument is \"n\" with an array of real(real32); expected a scalar of integer(int32)",
    );
    refused(
        &[8],
        &mut [8.into(), 1.0f32.into(), (&mut y).into()],
        "kernel argument is \"x\" with a scalar of real(real32); expected an array of real(real32)",
    );
    refused(
        &[8],
        &mut [8.into(), (&mut doubles).into(), (&mut y).into()],
        "kernel argument is \"x\" with elements of type real(real64); expected real(real32)",
    );
    refused(
        &[8],
        &mut [8.into(), (&x).into(), (&y).into()],
        "kernel argument is \"y\" with read-only elements; expected elements that may be written",
    );
    refused(
        &[8],
        &mut [9.into(), (&x).into(), (&mut y).into()],
        "kernel argument is \"x\" with 8 elements; expected at least 9",
    );
    let address = x.as_mut_ptr();
    let part = |from: usize, len, is_writable| {
        // SAFETY: the parts lie in `x`, which nothing else uses, and the launch is refused.
        unsafe { Arg::array(crate::kernel::tree::Type::Real32, address.add(from).cast(), len, is_writable) }
    };
    refused(
        &[3],
        &mut [3.into(), part(0, 4, false), part(3, 4, true)],
        "kernel argument is \"y\" with memory of \"x\"; expected arrays that do not overlap where one is written",
    );
    let mut args = [Arg::from(3), part(0, 4, false), part(4, 4, true)];
    assert!(Launch::new(&unit, 0, &[3], &mut args).is_ok());
    assert_eq!((x, y), ([1.0; 8], [5.0; 8]));
}

#[test]
fn nothing_to_do_and_elements_by_index() {
    let unit_ = unit(&kernel("y(i) = 2 * x(i)"));
    let (x, mut y) = ([1.0f32; 1], [5.0f32; 1]);
    let mut args = [Arg::from(0), (&x).into(), (&mut y).into()];
    let launch = Launch::new(&unit_, 0, &[0], &mut args).unwrap();
    super::super::launch(Isa::best(), &launch).unwrap();
    assert_eq!(y, [5.0]);
    let file = text("reference/kernels.f90");
    let (index, of) = (1, unit(&file));
    let (x, mut y) = ([1.0f32; 7], [5.0f32; 8]);
    let mut args = [Arg::from(2.0f32), (&x).into(), (&mut y).into()];
    let error = Launch::new(&of, index, &[8], &mut args).unwrap_err().to_string();
    assert_eq!(error, "kernel argument is \"x\" with 7 elements; expected at least 8");
}

/// A launch without points gives reductions their identity.
#[test]
fn an_empty_reduction() {
    let file = text("language/reductions.f90");
    let items = [Item::I(0), Item::Fs(vec![]), Item::Fs(vec![]), Item::Fs(vec![4.5])];
    assert_eq!(run(&file, "dot", &[0], &items)[3].reals(), [4.5]);
}

/// A subscript that is an element of the same array.
#[test]
fn subscripts_from_the_same_array() {
    let text = "!@kernel(base=1)\nsubroutine f(i, n, x, y)\ninteger, value :: i, n\ninteger, intent(in) :: x(n)\n\
        integer, intent(inout) :: y(n)\ninteger :: p(3:9), j\ndo j = 3, 9\np(j) = mod(j + i, 7) + 3\nend do\n\
        p(p(p(4))) = 100\ny(i) = p(p(5)) + x(x(x(i)))\nend subroutine\n";
    let n = 600usize;
    let x: Vec<i32> = (0..n as i32).map(|it| it * 7 % n as i32 + 1).collect();
    let ours = run_faulty(text, "f", &[n], &[Item::I(n as i32), Item::Is(x.clone()), Item::Is(vec![0; n])]);
    let of = |i: i32| x[i as usize - 1];
    for i in 1..=n as i32 {
        let mut p: Vec<i32> = (0..10).map(|j| (j + i) % 7 + 3).collect();
        let at = p[p[4] as usize] as usize;
        p[at] = 100;
        // Outside of the array an element reads as zero.
        let element = p.get(p[5] as usize).copied().unwrap_or(0);
        assert_eq!(ours[2].integers()[i as usize - 1], element + of(of(of(i))), "{i}");
    }
}

/// All points leave a loop together, before its last statements.
#[test]
fn nothing_happens_after_the_exit_from_a_loop() {
    let text = "!@kernel(base=1)\nsubroutine f(i, n, y)\ninteger, value :: i, n\ninteger, intent(inout) :: y(n)\n\
        integer :: c, k\nc = 0\nk = 5\ndo\nc = c + 1\nif (c > 2) exit\nk = c * 10\nend do\ny(i) = k + c\nend subroutine\n";
    let ours = run(text, "f", &[300], &[Item::I(300), Item::Is(vec![0; 300])]);
    assert_eq!(ours[1].integers(), vec![23; 300]);
}

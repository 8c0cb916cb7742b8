//! Buffers through the public API, on the CPU and on the first GL device: types, ranges, views, devices.

mod support;

use sparkle::kernel::tree::Type;
use sparkle::problem::exact::Random;
use sparkle::problem::oracle;
use sparkle::{Algorithm, Arg, Buffer, Conv2d, Conv2dDesc, Device, Error, Gemm, GemmDesc, Kernel, Layout};

const SOURCE: &str = "
!@kernel
subroutine add(i, n, a, x, y)
  use iso_fortran_env
  integer(int32), value :: i, n
  real(real32), value :: a
  real(real32), intent(in) :: x(0:n-1)
  real(real32), intent(inout) :: y(0:n-1)
  y(i) = a * x(i) + y(i)
end subroutine
";

/// All devices with buffers.
fn devices() -> Vec<Device> {
    let gl = support::gl_available().then_some("gl:0");
    ["cpu"].into_iter().chain(gl).map(|selector| Device::open(selector).unwrap()).collect()
}

/// All devices that run kernels.
fn devices_with_kernels() -> Vec<Device> {
    let runs = |device: &Device| device.id() != "cpu" || support::cpu_with_kernels().is_some();
    devices().into_iter().filter(runs).collect()
}

fn filled(device: &Device, data: &[f32]) -> Buffer {
    let mut buffer = device.buffer(data.len(), Type::Real32).unwrap();
    buffer.write(0, data).unwrap();
    buffer
}

fn contents(buffer: &Buffer) -> Vec<f32> {
    let mut data = vec![f32::NAN; buffer.len()];
    buffer.read(0, &mut data).unwrap();
    data
}

/// y += a x for n elements.
fn add(device: &Device, a: f32, x: Arg<'_>, y: Arg<'_>, n: usize) -> Result<sparkle::Run, Error> {
    let kernel = Kernel::from_source(SOURCE, "add").unwrap();
    device.launch(&kernel, &[n], &mut [(n as i32).into(), a.into(), x, y])
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, expected: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn contents_of_every_type() {
    for device in devices() {
        let mut ints = device.buffer(5, Type::Int32).unwrap();
        assert_eq!((ints.len(), ints.element_type(), ints.device()), (5, Type::Int32, device.id()));
        ints.write(1, &[7, i32::MIN]).unwrap();
        let mut back = [1; 5];
        ints.read(0, &mut back).unwrap();
        assert_eq!(back, [0, 7, i32::MIN, 0, 0]);
        refused(ints.write(0, &[1.0f32]), "element type is real(real32); expected integer(int32)");
        refused(
            ints.write(4, &[1, 2]),
            "buffer range is 2 elements from 4 on; expected at most the 5 that it has",
        );
        assert!(ints.write(usize::MAX, &[1, 2]).is_err() && ints.read(6, &mut back[..0]).is_err());
        ints.read(5, &mut back[..0]).unwrap();

        let mut longs = device.buffer(2, Type::Int64).unwrap();
        longs.write(0, &[i64::MAX, -1]).unwrap();
        let mut back = [0i64; 2];
        longs.read(0, &mut back).unwrap();
        assert_eq!(back, [i64::MAX, -1]);
        let mut doubles = device.buffer(3, Type::Real64).unwrap();
        doubles.write(2, &[0.1f64]).unwrap();
        let mut back = [1.0f64; 3];
        doubles.read(0, &mut back).unwrap();
        assert_eq!(back, [0.0, 0.0, 0.1]);
        let mut flags = device.buffer(2, Type::Logical).unwrap();
        flags.write(0, &[1, 0]).unwrap();
        refused(flags.read(0, &mut [0i64]), "element type is integer(int64); expected logical");

        let nothing = device.buffer(0, Type::Real32).unwrap();
        assert!(nothing.is_empty() && contents(&nothing).is_empty());
        let length = format!(
            "buffer length is {}; expected at most {}",
            usize::MAX,
            isize::MAX as usize / size_of::<f64>()
        );
        refused(device.buffer(usize::MAX, Type::Real64), &length);
        let error = device.buffer(1 << 55, Type::Real32).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    }
}

#[test]
fn kernels_use_views_in_place() {
    for device in devices_with_kernels() {
        let mut random = Random::new(51);
        let (x, mut expected) = (random.integers(1000, 8), random.integers(1000, 8));
        let (on_x, mut y) = (filled(&device, &x), filled(&device, &expected));
        let run = add(&device, 2.0, (&on_x).into(), (&mut y).into(), 1000).unwrap();
        assert_eq!((&*run.device, &*run.kernel, run.fallback), (device.id(), "add", None));
        (0..1000).for_each(|at| expected[at] += 2.0 * x[at]);
        assert_eq!(contents(&y), expected);
        // Parts, at offsets where the device binds buffers and where not.
        for (from, to, len) in [(0, 64, 100), (3, 5, 700), (999, 0, 1)] {
            let (from_x, to_y) = (on_x.view(from, len).unwrap(), y.view_mut(to, len).unwrap());
            assert_eq!(
                (from_x.len(), to_y.len(), from_x.is_empty(), to_y.is_empty()),
                (len, len, false, false)
            );
            add(&device, -1.0, from_x.into(), to_y.into(), len).unwrap();
            (0..len).for_each(|at| expected[to + at] -= x[from + at]);
            assert_eq!(contents(&y), expected);
        }
        let (first, second) = y.split_at_mut(400).unwrap();
        assert_eq!((first.len(), second.len()), (400, 600));
        add(&device, 1.0, first.into(), second.into(), 400).unwrap();
        (0..400).for_each(|at| expected[400 + at] += expected[at]);
        assert_eq!(contents(&y), expected);
        // An array of the host beside a buffer.
        let mut host = x.clone();
        add(&device, 1.0, (&y).into(), (&mut host).into(), 1000).unwrap();
        assert!(host.iter().zip(expected.iter().zip(&x)).all(|(it, (y, x))| *it == y + x));
        // No points: nothing changes.
        add(&device, 1.0, (&on_x).into(), (&mut y).into(), 0).unwrap();
        assert_eq!((contents(&y), contents(&on_x)), (expected, x));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in devices() {
        let (x, mut y) = (filled(&device, &[1.0; 8]), filled(&device, &[2.0; 8]));
        assert!(x.view(8, 1).is_err() && x.view(0, 9).is_err() && y.view_mut(1, usize::MAX).is_err());
        assert!(y.split_at_mut(9).is_err());
        let refuse = |x: Arg<'_>, y: Arg<'_>, expected: &str| {
            refused(add(&device, 1.0, x, y, 8), &format!("kernel argument is {expected}"));
        };
        let written = "elements that may be written";
        refuse((&x).into(), (&y).into(), &format!("\"y\" with read-only elements; expected {written}"));
        let short = "\"x\" with 7 elements; expected at least 8";
        refuse(x.view(1, 7).unwrap().into(), (&mut y).into(), short);
        let mut ints = device.buffer(8, Type::Int32).unwrap();
        let types = "\"y\" with elements of type integer(int32); expected real(real32)";
        refuse((&x).into(), (&mut ints).into(), types);
        assert_eq!((contents(&x), contents(&y)), (vec![1.0; 8], vec![2.0; 8]));
    }
}

/// Buffers belong to one device.
#[test]
fn buffers_of_another_device_are_refused() {
    let all = devices();
    let [cpu, gl] = &all[..] else { return };
    for (here, there) in [(cpu, gl), (gl, cpu)] {
        let (x, mut y) = (filled(here, &[1.0; 8]), filled(there, &[2.0; 8]));
        let expected = |name, device: &Device, other: &Device| {
            format!(
                "kernel argument is \"{name}\" with a buffer of {}; expected the host's memory, or a buffer of the opened {}",
                device.id(),
                other.id()
            )
        };
        refused(add(here, 1.0, (&x).into(), (&mut y).into(), 8), &expected("y", there, here));
        refused(add(there, 1.0, (&x).into(), (&mut y).into(), 8), &expected("x", here, there));
        assert_eq!((contents(&x), contents(&y)), (vec![1.0; 8], vec![2.0; 8]));
    }
}

/// `auto` takes a device of its own, and then uses it.
#[test]
fn auto_uses_the_device_of_its_buffers() {
    let auto = Device::open("auto").unwrap();
    let (x, mut y) = (filled(&auto, &[1.0; 8]), filled(&auto, &[2.0; 8]));
    match add(&auto, 3.0, (&x).into(), (&mut y).into(), 8) {
        Ok(run) => assert_eq!((&*run.device, contents(&y)), (y.device(), vec![5.0; 8])),
        Err(Error::Unsupported { device, .. }) => assert_eq!((&*device, contents(&y)), ("cpu", vec![2.0; 8])),
        Err(error) => panic!("{error}"),
    }
}

/// A buffer lives on one device, which several that share work use, too.
#[test]
fn several_devices_use_the_buffers_of_one() {
    let (multi, cpu) = (Device::open("multi:cpu").unwrap(), Device::open("cpu").unwrap());
    let error = multi.buffer(8, Type::Real32).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let gemm = Gemm::new(GemmDesc::packed(Layout::RowMajor, 2, 2, 2)).unwrap();
    let (a, mut c) = (filled(&cpu, &[1.0, 2.0, 3.0, 4.0]), filled(&cpu, &[0.0; 4]));
    let run = multi.sgemm_on(&gemm, &a, &a, &mut c).unwrap();
    assert_eq!((&*run.device, contents(&c)), ("cpu", vec![7.0, 10.0, 15.0, 22.0]));
}

#[test]
fn buffers_outlive_their_devices() {
    for device in devices_with_kernels() {
        let (x, mut y) = (filled(&device, &[1.0; 8]), filled(&device, &[2.0; 8]));
        let id = device.id().to_owned();
        drop(device);
        assert_eq!(contents(&x), [1.0; 8]);
        let again = Device::open(&id).unwrap();
        add(&again, 1.0, (&x).into(), (&mut y).into(), 8).unwrap();
        assert_eq!(contents(&y), [3.0; 8]);
    }
}

/// A convolution of small integers, its data and its exact result.
fn convolution(desc: Conv2dDesc) -> (Conv2d, [Vec<f32>; 3], Vec<f32>) {
    let problem = Conv2d::new(Conv2dDesc { algorithm: Algorithm::Direct, ..desc }).unwrap();
    let mut random = Random::new(52);
    let mut data = |len| random.integers(len, 3);
    let (input, weights, bias) =
        (data(problem.input_len()), data(problem.weights_len()), data(desc.k as usize));
    let expected = oracle::conv2d(&problem, &input, &weights, desc.bias.then_some(&bias[..]));
    (problem, [input, weights, bias], expected.iter().map(|it| it.value as f32).collect())
}

#[test]
fn convolutions_and_products_on_buffers() {
    let base =
        Conv2dDesc { n: 2, c: 3, h: 9, w: 8, k: 4, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    let (problem, [input, weights, bias], expected) =
        convolution(Conv2dDesc { bias: true, relu: true, ..base });
    for device in devices() {
        let plan = device.plan(&problem, &weights, Some(&bias)).unwrap();
        let (x, mut y) = (filled(&device, &input), device.buffer(expected.len() + 3, Type::Real32).unwrap());
        for offset in [0, 3] {
            let run = plan.run_on(&x, y.view_mut(offset, expected.len()).unwrap()).unwrap();
            assert_eq!((&*run.device, run.fallback), (device.id(), None));
            assert!(run.timing.dispatches > 0);
            assert_eq!(contents(&y)[offset..][..expected.len()], expected);
        }
        // In one call, with the weights in a buffer, too.
        let (on_weights, on_bias) = (filled(&device, &weights), filled(&device, &bias));
        for offset in [0, 3] {
            let mut z = filled(&device, &vec![f32::NAN; expected.len() + 3]);
            let (to, bias) = (z.view_mut(offset, expected.len()).unwrap(), Some((&on_bias).into()));
            let run = device.conv2d_on(&problem, &x, &on_weights, bias, to).unwrap();
            assert_eq!(&*run.device, device.id());
            assert_eq!(contents(&z)[offset..][..expected.len()], expected);
        }
        let mut z = filled(&device, &expected);
        refused(
            device.conv2d_on(&problem, &x, &on_weights, None, &mut z),
            "bias is missing; expected 4 elements",
        );
        refused(
            device.conv2d_on(&problem, &x, &on_bias, Some((&on_bias).into()), &mut z),
            "weights length is 4 elements; expected 108 elements",
        );
        assert_eq!(contents(&z), expected);
        // The output times a matrix: 8 rows of 72.
        let gemm = Gemm::new(GemmDesc { beta: 1.0, ..GemmDesc::packed(Layout::RowMajor, 8, 5, 72) }).unwrap();
        let mut random = Random::new(53);
        let (b, c) = (random.integers(72 * 5, 2), random.integers(40, 9));
        let (on_b, mut on_c) = (filled(&device, &b), filled(&device, &c));
        let run = device.sgemm_on(&gemm, y.view(3, 8 * 72).unwrap(), &on_b, &mut on_c).unwrap();
        assert_eq!(&*run.device, device.id());
        let product = |at: usize| oracle::gemm_element(&gemm, &expected, &b, &c, at / 5, at % 5).value as f32;
        assert_eq!(contents(&on_c), (0..40).map(product).collect::<Vec<_>>());
        assert_eq!((contents(&x), contents(&on_b)), (input.clone(), b));

        // What does not fit.
        let mut ints = device.buffer(expected.len(), Type::Int32).unwrap();
        refused(
            plan.run_on(&x, &mut y),
            &format!(
                "output length is {} elements; expected {} elements",
                expected.len() + 3,
                expected.len()
            ),
        );
        refused(
            plan.run_on(x.view(1, 9).unwrap(), &mut on_c),
            &format!("input length is 9 elements; expected {} elements", input.len()),
        );
        refused(plan.run_on(&x, &mut ints), "output is a buffer of integer(int32); expected real(real32)");
        refused(
            device.sgemm_on(&gemm, &on_b, &on_b, &mut y),
            "a length is 360 elements; expected at least 576 elements",
        );
        assert_eq!(contents(&x), input);
    }
}

/// A plan runs on its own device, and a product on that of its buffers.
#[test]
fn convolutions_and_products_of_another_device() {
    let all = devices();
    let [cpu, gl] = &all[..] else { return };
    let (problem, [input, weights, _], expected) =
        convolution(Conv2dDesc { c: 2, h: 4, w: 4, k: 2, ..Default::default() });
    let gemm = Gemm::new(GemmDesc::packed(Layout::RowMajor, 2, 2, 2)).unwrap();
    for (here, there) in [(cpu, gl), (gl, cpu)] {
        let plan = here.plan(&problem, &weights, None).unwrap();
        let (x, mut y) = (filled(there, &input), there.buffer(expected.len(), Type::Real32).unwrap());
        let mut own = here.buffer(expected.len(), Type::Real32).unwrap();
        let made = format!(
            "input is a buffer of {}; expected a buffer of {}, for which the plan was made",
            there.id(),
            here.id()
        );
        refused(plan.run_on(&x, &mut y), &made);
        let mixed = |name| {
            format!("{name} is a buffer of {}; expected a buffer of the opened {}", there.id(), here.id())
        };
        refused(plan.run_on(&filled(here, &input), &mut y), &mixed("output"));
        refused(here.sgemm_on(&gemm, &x, &x, &mut own), &mixed("a"));
        refused(here.sgemm_on(&gemm, &x, &x, &mut y), &mixed("a"));
        assert_eq!(contents(&y), vec![0.0; expected.len()]);
    }
}

#[test]
fn empty_batches_and_empty_products() {
    for device in devices() {
        let problem = Conv2d::new(Conv2dDesc { n: 0, c: 2, h: 4, w: 4, k: 2, ..Default::default() }).unwrap();
        let plan = device.plan(&problem, &[1.0; 4], None).unwrap();
        let (x, mut y) = (filled(&device, &[]), filled(&device, &[]));
        assert_eq!(&*plan.run_on(&x, &mut y).unwrap().kernel, "none");
        let gemm = Gemm::new(GemmDesc { beta: 2.0, ..GemmDesc::packed(Layout::RowMajor, 2, 3, 0) }).unwrap();
        let mut c = filled(&device, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        device.sgemm_on(&gemm, &x, &x, &mut c).unwrap();
        assert_eq!(contents(&c), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    }
}

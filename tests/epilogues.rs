//! Epilogues through the public API, on the CPU and on the first GL device: convolutions and products, arrays and buffers, and
//! arguments of every wrong kind, after which nothing has run.

mod support;

use sparkle::kernel::tree::Type;
use sparkle::problem::exact::Random;
use sparkle::problem::oracle;
use sparkle::{
    Algorithm, Arg, Conv2d, Conv2dDesc, Device, Epilogue, Error, Gemm, GemmDesc, Layout, PipelineOptions,
    WhenFull,
};

const SOURCE: &str = "
module layers
  use iso_fortran_env, only: int32, real32
  implicit none
contains
  !@kernel
  pure subroutine other(i, x)
    integer(int32), value :: i
    real(real32), intent(inout) :: x
    x = x + i
  end subroutine

  !@epilogue(base=1)
  pure function residual(x, channel, position, k, bias, skip, slope) result(y)
    real(real32), intent(in) :: x
    integer(int32), intent(in) :: channel, position, k
    real(real32), intent(in) :: bias(k), skip(*), slope
    real(real32) :: y
    y = x + bias(channel) + skip(position)
    y = merge(y, slope * y, y > 0)
  end function

  !@epilogue
  pure function clamped(x, channel, position) result(y)
    real(real32), intent(in) :: x
    integer(int32), intent(in) :: channel, position
    real(real32) :: y
    y = min(max(x, 0.0), 6.0)
  end function
end module
";

/// Fills outputs that must stay.
const CANARY: f32 = -12345.75;

fn devices() -> Vec<Device> {
    let gl = support::gl_available().then_some("gl:0");
    ["cpu", "auto"].into_iter().chain(gl).map(|selector| Device::open(selector).unwrap()).collect()
}

fn epilogue(name: &str) -> Epilogue {
    Epilogue::from_source(SOURCE, name).unwrap()
}

/// A layer of small integers, and what an epilogue makes of it.
struct Layer {
    desc: Conv2dDesc,
    problem: Conv2d,
    input: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    skip: Vec<f32>,
    plain: Vec<f32>,
}

impl Layer {
    fn new() -> Self {
        let desc = Conv2dDesc {
            n: 2,
            c: 6,
            h: 11,
            w: 9,
            k: 7,
            r: 3,
            s: 3,
            pad_h: 1,
            pad_w: 1,
            algorithm: Algorithm::Direct,
            ..Default::default()
        };
        let (problem, mut random) = (Conv2d::new(desc).unwrap(), Random::new(5));
        let mut numbers = |len| random.integers(len, 5);
        let (input, weights) = (numbers(problem.input_len()), numbers(problem.weights_len()));
        let (bias, skip) = (numbers(7), numbers(problem.output_len()));
        let plain = oracle::conv2d(&problem, &input, &weights, None);
        let plain = plain.into_iter().map(|it| it.value as f32).collect();
        Layer { desc, problem, input, weights, bias, skip, plain }
    }

    fn expected(&self) -> Vec<f32> {
        let sizes = self.problem.sizes();
        let value = |(at, x): (usize, &f32)| {
            let y = x + self.bias[at / (sizes.p * sizes.q) % sizes.k] + self.skip[at];
            if y > 0.0 { y } else { -2.0 * y }
        };
        self.plain.iter().enumerate().map(value).collect()
    }

    fn args(&self) -> [Arg<'_>; 4] {
        [7.into(), (&self.bias).into(), (&self.skip).into(), (-2.0f32).into()]
    }
}

#[test]
fn plans_apply_epilogues() {
    let layer = Layer::new();
    for device in devices() {
        let (weights, residual) = (&layer.weights, epilogue("residual"));
        let plan = device.plan_fused(&layer.problem, weights, None, &residual).unwrap();
        for _ in 0..2 {
            let mut output = vec![CANARY; layer.plain.len()];
            let run = plan.run_fused(&layer.input, &mut output, &mut layer.args()).unwrap();
            assert_eq!(output, layer.expected(), "{} {}", run.device, run.kernel);
        }
        // One without arguments, which a plain run applies, too.
        let plan = device.plan_fused(&layer.problem, weights, None, &epilogue("CLAMPED")).unwrap();
        let clamped: Vec<f32> = layer.plain.iter().map(|x| x.clamp(0.0, 6.0)).collect();
        let mut output = vec![CANARY; layer.plain.len()];
        plan.run(&layer.input, &mut output).unwrap();
        assert_eq!(output, clamped);
        // An empty batch.
        let empty = Conv2d::new(Conv2dDesc { n: 0, ..layer.desc }).unwrap();
        let plan = device.plan_fused(&empty, weights, None, &residual).unwrap();
        plan.run_fused(&[], &mut [], &mut layer.args()).unwrap();
    }
}

#[test]
fn plans_apply_epilogues_to_buffers() {
    let layer = Layer::new();
    for device in devices().into_iter().filter(|it| it.id() != "auto") {
        let plan = device.plan_fused(&layer.problem, &layer.weights, None, &epilogue("residual")).unwrap();
        let filled = |data: &[f32]| {
            let mut buffer = device.buffer(data.len(), Type::Real32).unwrap();
            buffer.write(0, data).unwrap();
            buffer
        };
        let (input, skip) = (filled(&layer.input), filled(&layer.skip));
        let mut output = filled(&vec![CANARY; layer.plain.len()]);
        let mut args = [7.into(), (&layer.bias).into(), (&skip).into(), (-2.0f32).into()];
        plan.run_fused_on(&input, &mut output, &mut args).unwrap();
        let mut got = vec![0.0; layer.plain.len()];
        output.read(0, &mut got).unwrap();
        assert_eq!(got, layer.expected());
        // A buffer beside arrays of the host.
        let mut got = vec![0.0; layer.plain.len()];
        plan.run_fused(&layer.input, &mut got, &mut args).unwrap();
        assert_eq!(got, layer.expected());
        // A part of the output's buffer, beside the output.
        let len = layer.plain.len();
        let mut both = filled(&[vec![CANARY; len], layer.skip.clone()].concat());
        let (output, skip) = both.split_at_mut(len).unwrap();
        let mut args = [7.into(), (&layer.bias).into(), skip.into(), (-2.0f32).into()];
        plan.run_fused_on(&input, output, &mut args).unwrap();
        let mut got = vec![0.0; len];
        both.read(0, &mut got).unwrap();
        assert_eq!(got, layer.expected());
    }
}

#[test]
fn products_apply_epilogues() {
    let mut random = Random::new(8);
    for device in devices() {
        for (layout, (m, n, k)) in [(Layout::RowMajor, (9, 7, 5)), (Layout::ColMajor, (70, 40, 90))] {
            let desc = GemmDesc { beta: 1.0, ..GemmDesc::packed(layout, m, n, k) };
            let problem = Gemm::new(GemmDesc { ldc: desc.ldc + 2, ..desc }).unwrap();
            let sizes = *problem.sizes();
            let [a, b, c] = problem.lens().map(|len| random.integers(len, 5));
            let (bias, skip) = (random.integers(m as usize, 5), random.integers(c.len(), 5));
            let mut args = [(m as i32).into(), (&bias).into(), (&skip).into(), (-2.0f32).into()];
            let mut got = c.clone();
            device.sgemm_fused(&problem, (&a, &b), &mut got, &epilogue("residual"), &mut args).unwrap();
            let mut expected = c.clone();
            for (i, j) in (0..sizes.m).flat_map(|i| (0..sizes.n).map(move |j| (i, j))) {
                let at = i * sizes.c_row + j * sizes.c_col;
                let y = oracle::gemm_element(&problem, &a, &b, &c, i, j).value as f32 + bias[i] + skip[at];
                expected[at] = if y > 0.0 { y } else { -2.0 * y };
            }
            assert_eq!(got, expected, "{} {layout:?}", device.id());
            if device.id() == "auto" {
                continue;
            }
            let filled = |data: &[f32]| {
                let mut buffer = device.buffer(data.len(), Type::Real32).unwrap();
                buffer.write(0, data).unwrap();
                buffer
            };
            let (a, b, mut on) = (filled(&a), filled(&b), filled(&c));
            device.sgemm_fused_on(&problem, (&a, &b), &mut on, &epilogue("residual"), &mut args).unwrap();
            let mut got = vec![0.0; c.len()];
            on.read(0, &mut got).unwrap();
            assert_eq!(got, expected, "{} {layout:?}", device.id());
        }
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, expected: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn wrong_arguments_are_named_and_nothing_runs() {
    let layer = Layer::new();
    for device in devices() {
        let plan = device.plan_fused(&layer.problem, &layer.weights, None, &epilogue("residual")).unwrap();
        let mut output = vec![CANARY; layer.plain.len()];
        let mut check = |args: &mut [Arg<'_>], expected: &str| {
            refused(plan.run_fused(&layer.input, &mut output, args), expected);
            assert!(output.iter().all(|it| *it == CANARY), "{expected}");
        };
        let (bias, skip) = (&layer.bias, &layer.skip);
        let doubles = [1.0f64; 7];
        let number = "number of epilogue arguments is 1; expected 4 for epilogue \"residual\"";
        check(&mut [7.into()], number);
        check(
            &mut [7.0f32.into(), bias.into(), skip.into(), 1.0f32.into()],
            "epilogue argument is \"k\" with type real(real32); expected integer(int32)",
        );
        check(
            &mut [7.into(), (&doubles).into(), skip.into(), 1.0f32.into()],
            "epilogue argument is \"bias\" with elements of type real(real64); expected real(real32)",
        );
        check(
            &mut [7.into(), (&bias[..6]).into(), skip.into(), 1.0f32.into()],
            "epilogue argument is \"bias\" with 6 elements; expected at least 7",
        );
        check(
            &mut [7.into(), bias.into(), 3.0f32.into(), 1.0f32.into()],
            "epilogue argument is \"skip\" with a scalar of real(real32); expected an array of real(real32)",
        );
        check(
            &mut [7.into(), bias.into(), skip.into(), skip.into()],
            "epilogue argument is \"slope\" with an array of real(real32); expected a scalar of real(real32)",
        );
        // Memory of the output.
        let mut all = vec![CANARY; 2 * layer.plain.len()];
        let (address, len) = (all.as_mut_ptr(), layer.plain.len());
        // SAFETY: the memory is that of `all`; the call is refused, so nothing is written while it is read.
        let (part, overlapping) = unsafe {
            (
                std::slice::from_raw_parts_mut(address, len),
                Arg::array(Type::Real32, address.add(len - 1).cast(), len, false),
            )
        };
        let mut args = [7.into(), bias.into(), overlapping, 1.0f32.into()];
        refused(
            plan.run_fused(&layer.input, part, &mut args),
            "epilogue argument is \"skip\" with memory of the output; expected memory of its own",
        );
        assert!(all.iter().all(|it| *it == CANARY));

        // Plans that are no such plans.
        let mut output = vec![CANARY; len];
        let plain = device.plan(&layer.problem, &layer.weights, None).unwrap();
        refused(
            plain.run_fused(&layer.input, &mut output, &mut layer.args()),
            "plan is one without an epilogue; expected a plan made with an epilogue",
        );
        let without = plan.run(&layer.input, &mut output).unwrap_err().to_string();
        assert_eq!(without, "number of epilogue arguments is 0; expected 4 for epilogue \"residual\"");
        let pipeline = device.pipeline(PipelineOptions::default()).unwrap();
        let submitted = pipeline.submit(&plan, layer.input.clone(), output.clone(), WhenFull::Wait);
        let error = submitted.map(|_| ()).unwrap_err();
        let what = "pipelines of plans with an epilogue (\"residual\")";
        assert!(matches!(&error, Error::Unsupported { what: it, .. } if it == what), "{error}");
        assert!(output.iter().all(|it| *it == CANARY));
    }
}

#[test]
fn buffers_of_other_devices_and_the_output_are_refused() {
    let layer = Layer::new();
    let cpu = Device::open("cpu").unwrap();
    let plan = cpu.plan_fused(&layer.problem, &layer.weights, None, &epilogue("residual")).unwrap();
    let input = cpu.buffer(layer.input.len(), Type::Real32).unwrap();
    let mut output = cpu.buffer(2 * layer.plain.len(), Type::Real32).unwrap();
    let len = layer.plain.len();
    // The same elements as array and output: views of one buffer, one of them lent through a launch's argument.
    if support::gl_available() {
        let gl = Device::open("gl:0").unwrap();
        let skip = gl.buffer(len, Type::Real32).unwrap();
        let mut args = [7.into(), (&layer.bias).into(), (&skip).into(), 1.0f32.into()];
        let view = output.view_mut(0, len).unwrap();
        let result = plan.run_fused_on(&input, view, &mut args);
        let expected = "epilogue argument is \"skip\" with a buffer of gl:0; expected the host's memory, or a buffer \
                        of the opened cpu";
        refused(result, expected);
        let mut host = vec![CANARY; len];
        refused(plan.run_fused(&layer.input, &mut host, &mut args), expected);
        assert!(host.iter().all(|it| *it == CANARY));
    }
    let mut got = vec![CANARY; len];
    output.read(0, &mut got).unwrap();
    assert!(got.iter().all(|it| *it == 0.0));
}

#[test]
fn several_devices_and_unknown_names_are_refused() {
    let layer = Layer::new();
    let multi = Device::open("multi").unwrap();
    let result = multi.plan_fused(&layer.problem, &layer.weights, None, &epilogue("residual"));
    let error = result.map(|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains("epilogues")), "{error}");
    let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, 2, 2, 2)).unwrap();
    let mut c = [CANARY; 4];
    let result = multi.sgemm_fused(&problem, (&[1.0; 4], &[1.0; 4]), &mut c, &epilogue("clamped"), &mut []);
    assert!(matches!(result, Err(Error::Unsupported { .. })) && c == [CANARY; 4]);

    let missing = Epilogue::from_source(SOURCE, "other").map(|_| ());
    refused(missing, "epilogue name is other; expected one of: residual, clamped");
    let none = Epilogue::from_bytes(SOURCE.as_bytes(), "layers.f90", None).map(|_| ());
    refused(none, "epilogue name is missing; expected one of: residual, clamped");
    let broken = Epilogue::from_source(&SOURCE.replace("y = min", "z = min"), "clamped");
    assert!(matches!(broken, Err(Error::Source { messages, .. }) if messages.contains("error[K")));
    let it = epilogue("RESIDUAL");
    assert!(it.name() == "residual" && it.warnings().is_empty() && it.description().is_epilogue);
}

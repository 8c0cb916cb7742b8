//! Tests with special values: NaN, infinity, and arbitrary contents of workspaces.

use super::isa::{Isa, with_kernel};
use super::product::sgemm;
use super::tests::cpu_cases::{ConvCase, GemmCase, Values, conv_desc, gemm_desc};
use super::winograd::FormChoice;
use crate::problem::exact::Random;
use crate::problem::{Algorithm, Conv2dDesc, GemmDesc};

/// No arithmetic uses old contents of a workspace: neither the flags that a call raises nor its time may depend on
/// earlier calls.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[test]
fn no_arithmetic_on_old_contents_of_workspaces() {
    use super::buffer::tests::with_poison;
    use crate::float_env::raised;

    let mut random = Random::new(37);
    let (mut cases, mut wrong) = (0, vec![]);
    // On the calling thread alone: its workspace is poisoned, and its flags are checked.
    let mut check = |what: String, call: &mut dyn FnMut()| {
        cases += 1;
        if raised(|| with_poison(call)) != 0 {
            wrong.push(what);
        }
    };
    for isa in Isa::all() {
        for _ in 0..400 {
            let case = ConvCase::new(conv_desc(&mut random), Values::Exact, &mut random);
            let what = format!("{} {:?}", isa.name(), case.desc);
            let given = (&case.weights[..], case.bias());
            // Signalling NaNs again, because the output must not be read either.
            let mut output = vec![f32::from_bits(0x7fa0_0000); case.problem.output_len()];
            check(format!("call {what}"), &mut || {
                super::direct::once(isa, &case.problem, given, &case.input, &mut output).map(drop).unwrap();
            });
            let plan = super::direct::plan(isa, &case.problem, given.0, given.1).unwrap();
            check(format!("plan {what}"), &mut || {
                plan.run(&case.input, &mut output).unwrap();
            });
            let case = GemmCase::new(gemm_desc(&mut random), Values::Exact, &mut random);
            let mut c = case.c.clone();
            check(format!("sgemm {} {:?}", isa.name(), case.desc), &mut || {
                let done =
                    with_kernel!(isa, kernel => sgemm(kernel, &case.problem, (&case.a, &case.b), &mut c));
                done.map(drop).unwrap()
            });
        }
    }
    for isa in Isa::all() {
        for _ in 0..40 {
            let mut size = |min, max| random.between(min, max);
            let (groups, pad) = (size(1, 2), size(0, 2));
            let desc = Conv2dDesc {
                n: size(1, 2),
                c: groups * size(1, 40),
                k: groups * size(1, 40),
                h: size(3, 20),
                w: size(3, 30),
                r: 3,
                s: 3,
                pad_h: pad,
                pad_w: size(0, 2),
                groups,
                bias: size(0, 1) == 1,
                algorithm: Algorithm::Winograd,
                ..Default::default()
            };
            let case = ConvCase::new(desc, Values::Real, &mut random);
            let given = (&case.weights[..], case.bias());
            let mut output = vec![f32::from_bits(0x7fa0_0000); case.problem.output_len()];
            if matches!(isa, Isa::Portable(_)) {
                continue;
            }
            for choice in [FormChoice::F2, FormChoice::F4, FormChoice::F6] {
                let plan = super::winograd::build(isa, choice, &case.problem, given).unwrap();
                check(format!("{} {desc:?}", plan.kernel()), &mut || {
                    plan.run(&case.input, &mut output).unwrap();
                });
            }
            check(format!("once {} {desc:?}", isa.name()), &mut || {
                super::winograd::once(isa, &case.problem, given, &case.input, &mut output).unwrap();
            });
        }
    }
    assert!(cases > 1_000);
    assert!(wrong.is_empty(), "{} of {cases}: {:#?}", wrong.len(), &wrong[..wrong.len().min(40)]);
}

/// NaN and infinities in inputs, weights and bias reach exactly the outputs that the definition says, with the values
/// that it says. Zeros of the padding take part. All other outputs keep their bits. For every direct method, as plans
/// and as one-shot calls.
#[test]
fn nan_and_infinity_reach_the_outputs_of_the_definition() {
    let class = |value: f64| if value.is_finite() { 0.0 } else { value };
    let mut random = Random::new(41);
    let (mut cases, mut reached, mut kernels) = (0, 0, std::collections::BTreeSet::new());
    for isa in Isa::all() {
        for _ in 0..300 {
            let mut case = ConvCase::new(conv_desc(&mut random), Values::Real, &mut random);
            let mut compute = |case: &ConvCase| {
                let given = (&case.weights[..], case.bias());
                let plan = super::direct::plan(isa, &case.problem, given.0, given.1).unwrap();
                let mut both = [(); 2].map(|()| vec![f32::NAN; case.problem.output_len()]);
                plan.run(&case.input, &mut both[0]).unwrap();
                let once = super::direct::once(isa, &case.problem, given, &case.input, &mut both[1]).unwrap();
                kernels.extend([plan.kernel().to_owned(), once.0.to_string()]);
                both
            };
            let clean = compute(&case);
            for _ in 0..random.between(1, 3) {
                let values = match (random.between(0, 3), &mut case.bias) {
                    (0 | 1, _) => &mut case.weights,
                    (2, Some(bias)) => bias,
                    _ => &mut case.input,
                };
                let at = random.between(0, values.len() as i64 - 1) as usize;
                values[at] = random.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            }
            let expected = case.expected();
            for (got, clean) in compute(&case).iter().zip(&clean) {
                for ((got, clean), expected) in got.iter().zip(clean).zip(&expected) {
                    if expected.value.is_finite() && *got != 0.0 {
                        assert_eq!(got.to_bits(), clean.to_bits(), "{isa:?} {:?}", case.desc);
                    } else {
                        let (got, expected) = (class(f64::from(*got)), class(expected.value));
                        assert!(
                            got == expected || got.is_nan() && expected.is_nan(),
                            "{isa:?} {:?}: {got}, {expected}",
                            case.desc
                        );
                        reached += 1;
                    }
                }
            }
            cases += 1;
        }
    }
    assert!(cases >= 300 && reached > 100_000, "{reached} in {cases}");
    assert!(kernels.len() >= 4, "{kernels:?}");
}

/// A NaN or an infinity in A or B reaches its row or its column of C, and nothing else.
#[test]
fn nan_and_infinity_reach_their_row_or_column_of_a_product() {
    let mut random = Random::new(43);
    let (mut cases, mut reached) = (0, 0);
    for isa in Isa::all() {
        for _ in 0..300 {
            let desc = GemmDesc { alpha: 1.0, ..gemm_desc(&mut random) };
            let mut case = GemmCase::new(desc, Values::Real, &mut random);
            let s = *case.problem.sizes();
            if s.m * s.n * s.k == 0 {
                continue;
            }
            let compute = |case: &GemmCase| {
                let mut c = case.c.clone();
                with_kernel!(isa, kernel => sgemm(kernel, &case.problem, (&case.a, &case.b), &mut c))
                    .unwrap();
                c
            };
            let clean = compute(&case);
            let special = random.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            let mut below = |count: usize| random.between(0, count as i64 - 1) as usize;
            let (i, p, j) = (below(s.m), below(s.k), below(s.n));
            let in_a = below(2) == 0;
            if in_a {
                case.a[i * s.a_row + p * s.a_col] = special;
            } else {
                case.b[p * s.b_row + j * s.b_col] = special;
            }
            let got = compute(&case);
            for ((index, expected), at) in case.expected().into_iter().zip(0..) {
                let seen = if in_a { at / s.n == i } else { at % s.n == j };
                assert_eq!(expected.value.is_finite(), !seen, "{:?}", case.desc);
                if seen {
                    let value = f64::from(got[index]);
                    assert!(
                        value == expected.value || value.is_nan() && expected.value.is_nan(),
                        "{isa:?} {:?}",
                        case.desc
                    );
                    reached += 1;
                } else {
                    assert_eq!(got[index].to_bits(), clean[index].to_bits(), "{isa:?} {:?}", case.desc);
                }
            }
            cases += 1;
        }
    }
    assert!(cases >= 200 && reached > 5_000, "{reached} in {cases}");
}

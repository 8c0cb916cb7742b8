//! Calls over ranks, which are threads here: exact problems for every distribution, products with the same bits on every grid,
//! errors and lack of memory on one rank, several groups.

#[path = "../support/mod.rs"]
mod support;

mod memory;
mod products;
mod threads;

use sparkle::problem::{exact::Random, oracle};
use sparkle::ranks::{Distribution, Group, GroupPart, Weight};
use sparkle::{Conv2d, Conv2dDesc, Device, Error};
use threads::{on_ranks, transports};

const DISTRIBUTIONS: [Distribution; 3] = [Distribution::Batch, Distribution::Rows, Distribution::Channels];

/// A random small problem; exact on small integers.
fn problem(random: &mut Random) -> Conv2d {
    loop {
        let groups = random.pick(&[1, 1, 1, 2, 3]);
        let desc = Conv2dDesc {
            n: random.between(0, 5),
            c: groups * random.between(1, 5),
            h: random.between(1, 23),
            w: random.between(1, 9),
            k: groups * random.between(1, 9),
            r: random.between(1, 5),
            s: random.between(1, 3),
            stride_h: random.pick(&[1, 1, 2, 3, 7]),
            stride_w: random.between(1, 2),
            pad_h: random.between(0, 3),
            pad_w: random.between(0, 2),
            pad_bottom: Some(random.between(-1, 3)).filter(|&pad| pad >= 0),
            pad_right: Some(random.between(-1, 2)).filter(|&pad| pad >= 0),
            dilation_h: random.pick(&[1, 1, 2, 4]),
            groups,
            bias: random.between(0, 1) == 1,
            relu: random.between(0, 1) == 1,
            algorithm: sparkle::Algorithm::Direct,
            ..Default::default()
        };
        if let Ok(problem) = Conv2d::new(desc) {
            return problem;
        }
    }
}

/// Small integers.
fn integers(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.between(-3, 3) as f32).collect()
}

/// A problem with its data and its exact result.
struct Case {
    problem: Conv2d,
    input: Vec<f32>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    output: Vec<f32>,
}

impl Case {
    fn new(problem: Conv2d, random: &mut Random) -> Self {
        let (input, weights) =
            (integers(random, problem.input_len()), integers(random, problem.weights_len()));
        let bias = problem.bias().then(|| integers(random, problem.sizes().k));
        let exact = oracle::conv2d(&problem, &input, &weights, bias.as_deref());
        let output = exact.iter().map(|it| it.value as f32).collect();
        Case { problem, input, weights, bias, output }
    }

    /// The elements of `whole`, the input or the output, in the part of a rank: the range of one dimension.
    fn slice(
        whole: &[f32],
        [n, c, h, w]: [usize; 4],
        distribution: Distribution,
        span: (usize, usize),
    ) -> Vec<f32> {
        let all = |len: usize| 0..len;
        let part = span.0..span.0 + span.1;
        let (images, channels, rows) = match distribution {
            Distribution::Batch => (part, all(c), all(h)),
            Distribution::Channels => (all(n), part, all(h)),
            Distribution::Rows => (all(n), all(c), part),
        };
        let mut found = vec![];
        for image in images {
            for channel in channels.clone() {
                for row in rows.clone() {
                    found.extend_from_slice(&whole[((image * c + channel) * h + row) * w..][..w]);
                }
            }
        }
        found
    }

    fn input_of(&self, distribution: Distribution, part: &GroupPart) -> Vec<f32> {
        let it = self.problem.sizes();
        let sizes = [it.n, it.c, it.h, it.w];
        Case::slice(&self.input, sizes, distribution, (part.input.first, part.input.count))
    }

    fn output_of(&self, distribution: Distribution, part: &GroupPart) -> Vec<f32> {
        let it = self.problem.sizes();
        let sizes = [it.n, it.k, it.p, it.q];
        Case::slice(&self.output, sizes, distribution, (part.output.first, part.output.count))
    }

    /// Runs it twice on one rank and checks the outputs: in one call, and begun and finished.
    fn check(&self, group: &Group, distribution: Distribution, weight: Weight) -> GroupPart {
        let data = match group.rank() {
            0 => (&self.weights[..], self.bias.as_deref()),
            _ => (&[][..], None),
        };
        let plan = group.plan_weighted(&self.problem, distribution, weight, data.0, data.1).unwrap();
        let part = plan.part();
        let (input, expected) = (self.input_of(distribution, &part), self.output_of(distribution, &part));
        assert_eq!((input.len(), expected.len()), (part.input_len, part.output_len));
        let mut output = vec![f32::NAN; part.output_len];
        plan.run(&input, &mut output).unwrap();
        assert_eq!(output, expected, "{distribution:?} {:?} rank {}", self.problem, group.rank());
        output.fill(f32::NAN);
        let pending = plan.begin(&input).unwrap();
        group.progress().unwrap();
        pending.finish(&mut output).unwrap();
        assert_eq!(output, expected, "{distribution:?} {:?} rank {}", self.problem, group.rank());
        part
    }
}

#[test]
fn exact_problems_on_one_to_eight_ranks() {
    let mut random = Random::new(11);
    let mut empty = 0;
    for round in 0..240 {
        let case = Case::new(problem(&mut random), &mut random);
        let ranks = 1 + round % 8;
        let weights: Vec<f64> = (0..ranks).map(|_| random.between(1, 9) as f64).collect();
        let weighted = random.between(0, 1) == 1;
        let distribution = DISTRIBUTIONS[round / 8 % 3];
        let (parts, _) = on_ranks(ranks, |group| {
            let weight = if weighted { Weight::Given(weights[group.rank()]) } else { Weight::Equal };
            case.check(group, distribution, weight)
        });
        empty += parts.iter().filter(|part| part.output_len == 0).count();
        assert_eq!(parts.iter().map(|part| part.output_len).sum::<usize>(), case.output.len());
        assert_eq!(parts.iter().map(|part| part.input_len).sum::<usize>(), case.input.len());
    }
    assert!(empty > 50, "{empty} empty parts");
}

/// The rows that a rank receives are its halo, and no more.
#[test]
fn rows_move_the_halo_alone() {
    let desc =
        Conv2dDesc { n: 2, c: 3, h: 64, w: 10, k: 4, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    let mut random = Random::new(3);
    let case = Case::new(Conv2d::new(desc).unwrap(), &mut random);
    let (_, received) = on_ranks(4, |group| case.check(group, Distribution::Rows, Weight::Equal));
    // Two runs; one row from each neighbour.
    let row = 2 * 3 * 10;
    assert_eq!(received, [2 * row, 4 * row, 4 * row, 2 * row]);
    // Images move nothing in a run.
    let (_, received) = on_ranks(2, |group| case.check(group, Distribution::Batch, Weight::Equal));
    assert_eq!(received, [0, 0]);
}

#[test]
fn measured_weights_are_those_of_the_devices() {
    let desc = Conv2dDesc { n: 4, c: 8, h: 16, w: 16, k: 8, r: 3, s: 3, ..Default::default() };
    let mut random = Random::new(4);
    let case = Case::new(Conv2d::new(desc).unwrap(), &mut random);
    // All ranks have the same device, whose prediction is the same each time.
    let (parts, _) = on_ranks(2, |group| case.check(group, Distribution::Batch, Weight::Measured));
    assert_eq!(parts.iter().map(|part| part.output.count).collect::<Vec<_>>(), [2, 2]);
}

/// What every rank gets when rank `bad` of three does something wrong.
fn all_fail(bad: usize, call: impl Fn(&Group, bool) -> Option<Error> + Sync) -> Vec<Error> {
    let (errors, _) = on_ranks(3, |group| call(group, group.rank() == bad).expect("an error"));
    let reason = errors[bad].to_string();
    for (rank, error) in errors.iter().enumerate().filter(|(rank, _)| *rank != bad) {
        let expected = Error::OtherRank { rank: bad, reason: reason.clone() };
        assert_eq!(error, &expected, "rank {rank}");
    }
    errors
}

#[test]
fn a_wrong_argument_on_one_rank_is_an_error_on_all() {
    let desc = Conv2dDesc { n: 6, c: 2, h: 9, w: 5, k: 3, r: 3, s: 3, pad_h: 1, ..Default::default() };
    let mut random = Random::new(5);
    let case = &Case::new(Conv2d::new(desc).unwrap(), &mut random);
    for distribution in DISTRIBUTIONS {
        // Weights of the wrong length, which only rank 0 passes.
        let errors = all_fail(0, |group, wrong| {
            let weights = if wrong { &case.weights[1..] } else { &[] };
            group.plan(&case.problem, distribution, weights, None).err()
        });
        assert!(errors[0].to_string().starts_with("weights length is "), "{}", errors[0]);
        for bad in 0..3 {
            all_fail(bad, |group, wrong| {
                let weight = Weight::Given(if wrong { -1.0 } else { 1.0 });
                group.plan_weighted(&case.problem, distribution, weight, &case.weights, None).err()
            });
            // A wrong length in a run; the plan works afterwards.
            all_fail(bad, |group, wrong| {
                let plan = group.plan(&case.problem, distribution, &case.weights, None).unwrap();
                let part = plan.part();
                let input = case.input_of(distribution, &part);
                let mut output = vec![7.0; part.output_len + usize::from(wrong)];
                let error = plan.run(&input, &mut output).err();
                assert!(output.iter().all(|&value| value == 7.0));
                output.truncate(part.output_len);
                let longer = [&input[..], &[0.0]].concat();
                let wrong_input = if wrong { &longer[..] } else { &input[..] };
                assert!(plan.begin(wrong_input).is_err());
                plan.run(&input, &mut output).unwrap();
                assert_eq!(output, case.output_of(distribution, &part));
                error
            });
        }
    }
}

#[test]
fn ranks_that_disagree_about_the_problem() {
    let desc = Conv2dDesc { n: 6, c: 2, h: 9, w: 5, k: 3, ..Default::default() };
    let (errors, _) = on_ranks(3, |group| {
        let other = Conv2dDesc { h: 9 + group.rank() as i64, ..desc };
        let other = Conv2d::new(other).unwrap();
        let same = Conv2d::new(desc).unwrap();
        let distribution = DISTRIBUTIONS[group.rank()];
        [
            group.plan(&other, Distribution::Rows, &[1.0; 6], None).err().unwrap().to_string(),
            group.plan(&same, distribution, &[1.0; 6], None).err().unwrap().to_string(),
        ]
    });
    for (rank, [sizes, distributions]) in errors.iter().enumerate() {
        let expected = format!("h is {}; expected the same on all ranks; they have 9 to 11", 9 + rank);
        assert_eq!(sizes, &expected);
        assert!(distributions.starts_with(&format!("distribution is {rank}; ")), "{distributions}");
    }
}

/// A run that was begun can be dropped, and two runs of a plan cannot be under way.
#[test]
fn runs_that_are_begun() {
    let desc = Conv2dDesc { n: 1, c: 2, h: 20, w: 5, k: 3, r: 5, s: 1, pad_h: 2, ..Default::default() };
    let mut random = Random::new(6);
    let case = &Case::new(Conv2d::new(desc).unwrap(), &mut random);
    for distribution in [Distribution::Rows, Distribution::Channels] {
        on_ranks(3, |group| {
            let plan = group.plan(&case.problem, distribution, &case.weights, None).unwrap();
            let input = case.input_of(distribution, &plan.part());
            let mut output = vec![0.0; plan.part().output_len];
            drop(plan.begin(&input).unwrap());
            let pending = plan.begin(&input).unwrap();
            let (again, run) = (plan.begin(&input).err().unwrap(), plan.run(&input, &mut output));
            for error in [again, run.unwrap_err()] {
                assert_eq!(error, Error::InUse { what: "the group's plan".to_owned() });
            }
            let mut short = vec![0.0; output.len() - 1];
            assert!(pending.finish(&mut short).unwrap_err().to_string().starts_with("output length is "));
            plan.begin(&input).unwrap().finish(&mut output).unwrap();
            assert_eq!(output, case.output_of(distribution, &plan.part()));
            // The plan outlives a run that nobody finishes.
            std::mem::forget(plan.begin(&input).unwrap());
        });
    }
}

/// Ranks of two groups at once: the runs of both are under way together and end in another order. The second group is a part
/// of the first: ranks 1 and 3 of four.
#[test]
fn two_groups_and_a_part_of_the_ranks() {
    let desc = Conv2dDesc { n: 2, c: 2, h: 30, w: 6, k: 3, r: 3, s: 3, pad_h: 1, ..Default::default() };
    let mut random = Random::new(8);
    let case = &Case::new(Conv2d::new(desc).unwrap(), &mut random);
    let (part_of_them, _) = transports(2);
    let part_of_them: Vec<_> = part_of_them.into_iter().map(|it| std::sync::Mutex::new(Some(it))).collect();
    on_ranks(4, |all| {
        let run = |group: &Group, distribution| {
            let plan = group.plan(&case.problem, distribution, &case.weights, None).unwrap();
            let input = case.input_of(distribution, &plan.part());
            (plan, input)
        };
        let (rows, rows_input) = run(all, Distribution::Rows);
        let first = rows.begin(&rows_input).unwrap();
        if all.rank() % 2 == 1 {
            let transport = part_of_them[all.rank() / 2].lock().unwrap().take().unwrap();
            let few = Group::new(all.device(), Box::new(transport)).unwrap();
            assert_eq!((few.rank(), few.ranks()), (all.rank() / 2, 2));
            let (channels, input) = run(&few, Distribution::Channels);
            let mut output = vec![0.0; channels.part().output_len];
            channels.begin(&input).unwrap().finish(&mut output).unwrap();
            assert_eq!(output, case.output_of(Distribution::Channels, &channels.part()));
        }
        let mut output = vec![0.0; rows.part().output_len];
        first.finish(&mut output).unwrap();
        assert_eq!(output, case.output_of(Distribution::Rows, &rows.part()));
    });
}

#[test]
fn a_transport_that_is_wrong() {
    let device = Device::open("cpu").unwrap();
    let (mut all, _) = transports(1);
    all[0].set_rank(1);
    let error = Group::new(&device, Box::new(all.remove(0))).err().unwrap();
    assert!(error.to_string().starts_with("rank is 1; expected less than"), "{error}");
}

/// No symbol of MPI is in the library, defined or wanted.
#[test]
fn the_library_has_nothing_of_mpi() {
    let library = support::library_dir().join("libsparkle.so");
    let output =
        std::process::Command::new("nm").arg("-D").arg(&library).output().expect("nm could not be run");
    let symbols = String::from_utf8(output.stdout).unwrap();
    assert!(symbols.contains(" T sparkle_group_create"), "{symbols}");
    let of_mpi = |line: &&str| {
        line.rsplit(' ').next().is_some_and(|name| {
            let name = name.to_ascii_lowercase();
            ["mpi_", "pmpi_", "ompi_", "mpir_", "mpich"].iter().any(|prefix| name.starts_with(prefix))
        })
    };
    assert_eq!(symbols.lines().filter(of_mpi).collect::<Vec<_>>(), Vec::<&str>::new());
}

/// Messages beyond 2 GiB, counted by functions in place of MPI's.
#[test]
fn messages_that_an_int_cannot_count() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let include = |folder: &str| format!("-I{}", root.join(folder).display());
    let (fake, sources) = (include("tests/mpi/counted"), include("mpi"));
    let flags = ["-Wall", "-Wextra", "-Werror", &fake, &sources];
    support::run(&support::compile_file(&root.join("tests/mpi/large.c"), &flags), &[])
        .expect("10 GiB in pieces\n");
}

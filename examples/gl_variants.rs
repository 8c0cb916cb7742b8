//! Times every candidate of every layer of a suite on a GL device, and checks each against the float64 oracle.
//!
//!     cargo run --release --example gl_variants -- SUITE.csv [--batch N] [--top N] [--only TEXT] [--variants TEXT]
//!     ... -- --sgemm SIZE
//!     ... -- --exact RUNS [--seed S] [--inputs I]
//!     ... -- --check RUNS [--seed S]
//!
//! Prints CSV: layer, batch, variant, predicted and measured microseconds of a run among 20 back to back, GFLOPS,
//! milliseconds to build, error over bound. N replaces the batch of the suite's rows.
//!
//! `--exact` runs every family with its options on odd shapes and small integers, each program on I inputs. It fails
//! if an output differs in any bit. `--check` compares three kinds of inputs: small integers; integers with NaN and
//! infinities; and, for Winograd, values up to the largest numbers. It also checks the deepest sums of every family,
//! and products that are deep or contain NaN and infinities. Each convolution runs once by a call and once in a
//! pipeline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sparkle::lab::{self, Compared, Numbers};
use sparkle::problem::exact::Random;
use sparkle::problem::oracle;
use sparkle::shader::cases::{Cases, deep};
use sparkle::shader::variant::{Family, Variant, candidates, seconds};
use sparkle::{Conv2d, Conv2dDesc, Device, Gemm, GemmDesc, Layout, PipelineOptions, Transpose};

/// Times a square product several times: device time of one product, including packing.
fn sgemm(size: i64) -> Result<(), Box<dyn std::error::Error>> {
    let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, size, size, size))?;
    let mut random = Random::new(1);
    let [a, b, mut c] = problem.lens().map(|len| random.reals(len));
    let device = Device::open("gl:0")?;
    for _ in 0..8 {
        let run = device.sgemm(&problem, &a, &b, &mut c)?;
        let gflops = problem.flops() as f64 / run.timing.kernel.as_secs_f64() * 1e-9;
        println!("{} {size} {gflops:.0} GFLOPS", run.kernel);
    }
    Ok(())
}

/// Makes `runs` exact runs, each program on `inputs` inputs.
fn exact(runs: usize, seed: u64, inputs: usize) -> Result<(), Box<dyn std::error::Error>> {
    let (start, mut programs, mut wrong) = (Instant::now(), 0, 0);
    let mut families = BTreeMap::<String, usize>::new();
    let (cases, count) = (Cases::new(seed, lab::gpu(0)?), runs.div_ceil(inputs));
    // Consecutive seeds continue where the previous one ended, so that together they cover all kinds.
    let begin = (seed as usize).wrapping_mul(count) % cases.kinds();
    for (problem, variant) in cases.skip(begin).take(count) {
        for input in 0..inputs {
            let data = seed ^ (programs * inputs + input) as u64;
            let differing = lab::differences(0, &problem, &variant, data)?;
            if differing > 0 {
                println!("{variant}: {differing} of {} outputs differ: {problem:?}", problem.output_len());
                wrong += 1;
            }
            *families.entry(format!("{:?}", variant.family)).or_default() += 1;
        }
        programs += 1;
        if programs % 20 == 0 {
            eprintln!("seed {seed}: {} runs so far, {wrong} wrong", programs * inputs);
        }
    }
    let (runs, seconds) = (programs * inputs, start.elapsed().as_secs_f64());
    println!(
        "seed {seed}: {runs} exact runs of {programs} cases, {wrong} wrong, {seconds:.1} s: {families:?}"
    );
    if wrong > 0 { Err("results differ".into()) } else { Ok(()) }
}

/// Counts of what was checked.
#[derive(Default)]
struct Tally {
    runs: usize,
    not_finite: usize,
    wrong: usize,
    kinds: BTreeMap<String, usize>,
}

impl Tally {
    /// Checks a call, and two jobs of a pipeline.
    fn check(
        &mut self,
        problem: &Conv2d,
        variant: &Variant,
        numbers: Numbers,
        seed: u64,
    ) -> Result<(), sparkle::Error> {
        let called = lab::compare(0, problem, variant, numbers, seed)?;
        let options = PipelineOptions { slots: 2, gather: false, ..Default::default() };
        let (streamed, _) = lab::compare_streamed(0, problem, variant, (numbers, 2, seed), options)?;
        for (way, Compared { wrong, not_finite }) in [("a call", called), ("a pipeline", streamed)] {
            if wrong > 0 {
                println!("{variant}, {numbers:?}, by {way}: {wrong} outputs are wrong: {problem:?}");
            }
            self.wrong += wrong;
            self.not_finite += not_finite;
        }
        self.runs += 3;
        *self.kinds.entry(format!("{numbers:?} {:?}", variant.family)).or_default() += 1;
        Ok(())
    }

    /// Checks some elements of a product.
    fn product(
        &mut self,
        device: &Device,
        (m, n, k): (i64, i64, i64),
        spoilt: bool,
    ) -> Result<(), sparkle::Error> {
        let (trans_b, alpha, beta) = (Transpose::Yes, -2.0, 2.0);
        let desc = GemmDesc { trans_b, alpha, beta, ldb: k, ..GemmDesc::packed(Layout::RowMajor, m, n, k) };
        let (problem, mut random) = (Gemm::new(desc)?, Random::new(k as u64));
        let [mut a, mut b, old] = problem.lens().map(|len| random.integers(len, 2));
        if spoilt {
            (a[1], b[k as usize - 1]) = (f32::INFINITY, f32::NAN);
        }
        let mut c = old.clone();
        let run = device.sgemm(&problem, &a, &b, &mut c)?;
        for number in 0..200 {
            // Including the first row and the first column.
            let [i, j] = [m, n].map(|side| random.between(0, side - 1) as usize);
            let (i, j) = if number % 3 == 0 { (0, j) } else { (i, j * (number % 3 - 1)) };
            let (got, expected) =
                (f64::from(c[i * n as usize + j]), oracle::gemm_element(&problem, &a, &b, &old, i, j).value);
            if got != expected && !(got.is_nan() && expected.is_nan()) {
                println!("{}, {m} x {n} x {k}: C({i}, {j}) is {got}, not {expected}", run.kernel);
                self.wrong += 1;
            }
            self.not_finite += usize::from(!expected.is_finite());
        }
        self.runs += 1;
        *self.kinds.entry(format!("product {}", if spoilt { "NotFinite" } else { "deep" })).or_default() += 1;
        Ok(())
    }
}

/// Checks `count` cases on every kind of input, the deepest sums of all families, and products.
fn check(count: usize, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let (start, gpu, mut tally) = (Instant::now(), lab::gpu(0)?, Tally::default());
    println!("{gpu:?}");
    let cases = Cases::new(seed, gpu);
    let begin = (seed as usize).wrapping_mul(count) % cases.kinds();
    // An odd step, so that few cases cover all kinds.
    for (index, (problem, variant)) in cases.skip(begin).step_by(7).take(count).enumerate() {
        let mut kinds = vec![Numbers::Integers, Numbers::NotFinite];
        kinds.extend(matches!(variant.family, Family::Winograd(_)).then_some(Numbers::Huge));
        for numbers in kinds {
            tally.check(&problem, &variant, numbers, seed.wrapping_add(index as u64))?;
        }
        if index % 20 == 19 {
            eprintln!("{} cases, {} runs so far, {} outputs wrong", index + 1, tally.runs, tally.wrong);
        }
    }
    for (problem, variant) in deep(&gpu) {
        tally.check(&problem, &variant, Numbers::Integers, seed)?;
        // These seeds put infinities into the weights. Winograd then recomputes all outputs of some channels.
        tally.check(&problem, &variant, Numbers::NotFinite, 6 * seed + 1)?;
    }
    eprintln!("deep sums: {} runs so far, {} outputs wrong", tally.runs, tally.wrong);
    let device = Device::open("gl:0")?;
    for sizes in
        [(1, 1, 300_000), (40, 50, 200_000), (128, 128, 52_428), (16, 16, 1_000_000), (500, 501, 502)]
    {
        tally.product(&device, sizes, false)?;
        tally.product(&device, sizes, true)?;
    }
    let Tally { runs, not_finite, wrong, kinds } = tally;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "seed {seed}: {runs} runs, {not_finite} outputs that are not finite, {wrong} wrong, {seconds:.1} s: {kinds:?}"
    );
    if wrong > 0 { Err("results differ".into()) } else { Ok(()) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|it| it == name).and_then(|at| args.get(at + 1)).cloned();
    let number = |name: &str, default: i64| option(name).map_or(Ok(default), |text| text.parse());
    let (batch, top) = (number("--batch", 0)?, number("--top", 1000)? as usize);
    let (only, wanted) = (option("--only"), option("--variants"));
    let seconds_left = number("--seconds", 100_000)? as f64;
    let busy = Duration::from_millis(number("--busy", 400)? as u64);
    if let Some(runs) = option("--exact") {
        return exact(runs.parse()?, number("--seed", 1)? as u64, number("--inputs", 2)? as usize);
    }
    if let Some(runs) = option("--check") {
        return check(runs.parse()?, number("--seed", 1)? as u64);
    }
    let mut gpu = lab::gpu(0)?;
    if let Some(rates) = option("--gpu") {
        let rates: Vec<f64> = rates.split(',').map(str::parse).collect::<Result<_, _>>()?;
        (gpu.flops, gpu.memory, gpu.launch) = (rates[0], rates[1], rates[2]);
        gpu.units = rates[3] as usize;
    }
    let splits: Option<Vec<usize>> =
        option("--splits").map(|text| text.split(',').map(|it| it.parse().expect("a number")).collect());
    eprintln!("{gpu:?}");
    if let Some(size) = option("--sgemm") {
        return sgemm(size.parse()?);
    }
    let start = Instant::now();
    println!("layer,batch,variant,predicted_us,us,gflops,build_ms,error");
    let mut reader = csv::Reader::from_path(&args[1])?;
    let columns = reader.headers()?.clone();
    for record in reader.records() {
        let record = record?;
        let name = &record[0];
        if only.as_ref().is_some_and(|only| !only.split(',').any(|it| name.contains(it))) {
            continue;
        }
        let column =
            |name: &str| columns.iter().position(|it| it == name).map(|index| record[index].parse::<i64>());
        let size = |name: &str| column(name).unwrap_or_else(|| panic!("the suite has no column {name}"));
        let optional = |name: &str, missing: i64| column(name).unwrap_or(Ok(missing));
        let (r, stride, pad) = (size("kernel")?, size("stride")?, size("pad")?);
        let batch = if batch == 0 { size("N")? } else { batch };
        let problem = Conv2d::new(Conv2dDesc {
            n: batch,
            c: size("C")?,
            h: size("H")?,
            w: size("W")?,
            k: size("K")?,
            r,
            s: optional("kernel_w", r)?,
            stride_h: stride,
            stride_w: stride,
            pad_h: pad,
            pad_w: optional("pad_w", pad)?,
            dilation_h: optional("dilation", 1)?,
            dilation_w: optional("dilation", 1)?,
            groups: optional("groups", 1)?,
            ..Default::default()
        })?;
        let mut variants = candidates(&problem, &gpu);
        if let Some(wanted) = &wanted {
            variants.retain(|it| wanted.split(',').any(|part| it.to_string().contains(part)));
        }
        variants.truncate(top);
        if let Some(splits) = &splits {
            let cut = |variant: &sparkle::shader::variant::Variant| {
                let tiled = variant.to_string().contains("igemm") || variant.to_string().contains("table");
                let variant = *variant;
                splits
                    .iter()
                    .filter(move |&&it| tiled || it == 1)
                    .map(move |&splits| Variant { splits, ..variant })
            };
            variants = variants.iter().flat_map(cut).collect();
        }
        let effort = lab::Effort { busy, calls: 20, rounds: 3, rows: 12 };
        lab::conv2d(0, &problem, &variants, &effort, |variant, outcome| {
            let predicted = seconds(&problem, &gpu, variant) * 1e6;
            match outcome {
                Ok(it) => {
                    let us = it.time.as_secs_f64() * 1e6;
                    let gflops = problem.flops() as f64 / us * 1e-3;
                    let (build, error) = (it.build.as_secs_f64() * 1e3, it.error);
                    println!(
                        "{name},{batch},{variant},{predicted:.2},{us:.2},{gflops:.1},{build:.0},{error:.4}"
                    );
                }
                Err(error) => println!("{name},{batch},{variant},{predicted:.2},failed,0,0,{error}"),
            }
        })?;
        if start.elapsed().as_secs_f64() > seconds_left {
            break;
        }
    }
    Ok(())
}

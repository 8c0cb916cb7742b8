//! The race: candidates are built, checked and timed on this driver, in the order that `shader::tuner` wants.
//!
//! A candidate must pass a check before it races: some rows of its output, including the last one, are compared with
//! the float64 oracle. Direct algorithms get small integers and must be exact. Winograd gets reals and must stay
//! within the bound of direct algorithms. Failures are recorded as refused. All candidates share the same buffers, so
//! a large batch is in memory once.

use std::time::{Duration, Instant};

use super::device::source_hash;
use super::timing::{calls, time};
use crate::allocate;
use crate::error::{Error, Result};
use crate::gl::driver::resource::{Bind, Buffer};
use crate::gl::execution::passes::{Buffers, Passes};
use crate::gl::execution::programs::Programs;
use crate::gl::tunables::{COMPILER_POLL, COMPILES_AT_ONCE, WARM_UP};
use crate::log::Level;
use crate::problem::exact::{Random, largest_integer};
use crate::problem::oracle::{self, Expected};
use crate::problem::{Conv2d, Conv2dSizes};
use crate::shader::pass_plan;
use crate::shader::tuner::{BUILD_READY_SHARE, BUILD_START_SHARE, Entry, Race};
use crate::shader::variant::{Family, Variant};

/// Distinct random values; longer arrays repeat them. A prime, so that no two images are equal.
const DISTINCT: usize = 1_000_003;

/// The input of every candidate, and the rows that are compared.
struct RaceInput {
    weights: Vec<f32>,
    input: Buffer,
    rows: Vec<((usize, usize, usize), Vec<Expected>)>,
}

impl RaceInput {
    /// Input and weights repeat `values`, so that a batch of any size is made quickly.
    fn new(programs: &Programs, problem: &Conv2d, bias: Option<&[f32]>, values: &[f32]) -> Result<Self> {
        let cycle = |len: usize, first: usize| -> Result<Vec<f32>> {
            let (before, after) = values.split_at(first % values.len());
            let mut all = allocate::with_capacity(len, "data for measurements")?;
            all.extend(after.iter().chain(before.iter().chain(after).cycle()).take(len));
            Ok(all)
        };
        let weights = cycle(problem.weights_len(), DISTINCT / 3)?;
        let (image, Conv2dSizes { n, k, p, q, .. }) = (problem.with_batch(1), *problem.sizes());
        let mut random = Random::new(12);
        let mut below = |high: usize| random.between(0, high as i64 - 1) as usize;
        let mut rows = vec![];
        for number in [n - 1, below(n)] {
            let input = cycle(image.input_len(), number * image.input_len())?;
            for at in [(k - 1, p - 1), (below(k), below(p)), (below(k), below(p))] {
                let mut expected = allocate::filled(Expected::default(), q, "a row to compare")?;
                oracle::conv2d_row(&image, (&input, &weights, bias), (0, at.0, at.1), &mut expected);
                rows.push(((number, at.0, at.1), expected));
            }
        }
        let bytes = problem.input_len() * size_of::<f32>();
        let input = Buffer::repeating(programs.context(), bytes, bytemuck::cast_slice(values))?;
        Ok(RaceInput { weights, input, rows })
    }

    /// Whether the sampled rows are right: exactly, or within the bound.
    fn passes(&self, problem: &Conv2d, output: &Buffer, exactly: bool) -> Result<bool> {
        let strides = problem.sizes().output_strides();
        let mut got = allocate::zeroed((problem.sizes().q - 1) * strides.column + 1, "a row to compare")?;
        for ((n, ki, pi), expected) in &self.rows {
            let first = strides.at(*n, *ki, *pi, 0);
            output.read_at(first * size_of::<f32>(), bytemuck::cast_slice_mut(&mut got))?;
            let right = |(&got, expected): (&f32, &Expected)| match exactly {
                true => f64::from(got) == expected.value,
                false => oracle::error_over_bound(got, *expected, problem.terms()) <= 1.0,
            };
            if !got.iter().step_by(strides.column).zip(expected).all(right) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The buffers of a race.
struct TuningData<'a> {
    problem: &'a Conv2d,
    integers: RaceInput,
    /// For Winograd; made for its first candidate.
    reals: Option<RaceInput>,
    bias: Option<(Vec<f32>, Buffer)>,
    output: Buffer,
}

impl<'a> TuningData<'a> {
    fn new(programs: &Programs, problem: &'a Conv2d) -> Result<Self> {
        let context = programs.context();
        let (mut random, limit) = (Random::new(11), largest_integer(problem.terms()));
        let mut integers = |len| -> Result<Vec<f32>> {
            let mut values = allocate::zeroed(len, "data for measurements")?;
            random.fill_integers(&mut values, limit);
            Ok(values)
        };
        let values = integers(DISTINCT)?;
        let bias = problem.bias().then(|| integers(problem.sizes().k)).transpose()?;
        let integers = RaceInput::new(programs, problem, bias.as_deref(), &values)?;
        let upload = |bias: Vec<f32>| -> Result<_> {
            let buffer = Buffer::with_data(context, bytemuck::cast_slice(&bias))?;
            Ok((bias, buffer))
        };
        let bias = bias.map(upload).transpose()?;
        let output = Buffer::new(context, problem.output_len() * size_of::<f32>())?;
        Ok(TuningData { problem, integers, reals: None, bias, output })
    }

    /// Builds `variant` and checks its results; none if they are wrong.
    fn admit(&mut self, programs: &mut Programs, variant: &Variant) -> Result<Option<Passes>> {
        let Some(plan) = pass_plan::generate(variant, self.problem) else { return Ok(None) };
        let exactly = !matches!(variant.family, Family::Winograd(_));
        if !exactly && self.reals.is_none() {
            let mut values = allocate::zeroed(DISTINCT, "data for measurements")?;
            Random::new(13).fill_reals(&mut values);
            let bias = self.bias.as_ref().map(|bias| &*bias.0);
            self.reals = Some(RaceInput::new(programs, self.problem, bias, &values)?);
        }
        let data = if exactly { &self.integers } else { self.reals.as_ref().unwrap_or(&self.integers) };
        let mut passes = Passes::new(programs, &plan)?;
        let weights = Buffer::with_data(programs.context(), bytemuck::cast_slice(&data.weights))?;
        if !passes.prepare(&weights)? {
            passes.hold(weights);
        }
        passes.run(&self.buffers(data, &passes))?;
        let passed = data.passes(self.problem, &self.output, exactly)?;
        Ok(passed.then_some(passes))
    }

    fn buffers<'b>(&'b self, data: &'b RaceInput, passes: &'b Passes) -> Buffers<'b> {
        Buffers {
            input: &data.input,
            weights: passes.held().unwrap_or(&self.output),
            bias: self.bias.as_ref().map(|(_, bias)| bias as &dyn Bind),
            output: &self.output,
            epilogue: None,
        }
    }

    /// Device seconds of one run, measured over `calls` back to back.
    fn time(&self, programs: &Programs, passes: &Passes, calls: usize) -> Result<f64> {
        let buffers = self.buffers(&self.integers, passes);
        time(programs.context(), calls, || passes.enqueue(&buffers))
    }
}

/// Candidates in the driver's compiler. A few are compiled at a time, so that the best are ready first, and none are
/// started late in the budget.
struct BuildQueue {
    plans: Vec<pass_plan::PassPlan>,
    /// Begun and not returned yet, by number.
    waiting: Vec<usize>,
    begun: usize,
    at_once: usize,
    start: Instant,
    budget: Duration,
}

impl BuildQueue {
    fn new(programs: &Programs, problem: &Conv2d, variants: &[Variant], budget: Duration) -> Self {
        programs.context().api().compile_in_parallel();
        let plan = |variant| pass_plan::generate(variant, problem).expect("fallback kernels do not race");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        BuildQueue {
            plans: variants.iter().map(plan).collect(),
            waiting: vec![],
            begun: 0,
            at_once: threads.clamp(COMPILES_AT_ONCE.0, COMPILES_AT_ONCE.1),
            start: Instant::now(),
            budget,
        }
    }

    /// Starts compiling until enough variants are being compiled.
    fn begin(&mut self, programs: &mut Programs) -> Result<()> {
        while self.waiting.len() < self.at_once && self.begun < self.plans.len() {
            // A driver that compiles synchronously spends its time here.
            if self.begun > 0 && self.start.elapsed() > self.budget.mul_f64(BUILD_START_SHARE) {
                break;
            }
            programs.begin(self.plans[self.begun].sources())?;
            self.waiting.push(self.begun);
            self.begun += 1;
        }
        Ok(())
    }

    /// The number of a variant that is ready, after a wait if necessary. None if all were returned, or if it is late
    /// and one was returned. It always waits for the planner's choice, which must be in the race.
    fn next(&mut self, programs: &mut Programs, have_one: bool) -> Result<Option<usize>> {
        loop {
            self.begin(programs)?;
            let late = self.start.elapsed() > self.budget.mul_f64(BUILD_READY_SHARE);
            if self.waiting.is_empty() || (late && have_one && self.waiting[0] != 0) {
                return Ok(None);
            }
            let is_ready = |&index: &usize| programs.is_ready(self.plans[index].sources());
            let ready = self.waiting.iter().position(is_ready);
            if let Some(next) = if late { Some(0) } else { ready } {
                return Ok(Some(self.waiting.remove(next)));
            }
            std::thread::sleep(COMPILER_POLL);
        }
    }

    /// Abandons the variants that were begun and not returned.
    fn give_up(&self, programs: &mut Programs) {
        programs.give_up(self.plans.iter().flat_map(|plan| plan.sources()));
    }
}

/// Races `variants`. Returns the result of each that was reached in time.
pub fn race(
    programs: &mut Programs,
    problem: &Conv2d,
    variants: &[Variant],
    budget: Duration,
) -> Result<Vec<Entry>> {
    let start = Instant::now();
    let mut entries = vec![];
    let entry =
        |variant: Variant, seconds| Entry { variant, source: source_hash(problem, &variant), seconds };
    let mut queue = BuildQueue::new(programs, problem, variants, budget);
    // The driver compiles while the data is made.
    queue.begin(programs)?;
    let mut data = match TuningData::new(programs, problem) {
        // The plan itself may still fit.
        Err(Error::OutOfMemory { .. }) => {
            queue.give_up(programs);
            return Ok(entries);
        }
        data => data?,
    };
    let mut built = vec![];
    let data_ready = start.elapsed();
    while let Some(index) = queue.next(programs, !built.is_empty())? {
        let variant = &variants[index];
        match data.admit(programs, variant) {
            Ok(Some(passes)) => built.push((index, passes)),
            Ok(None) => {
                programs.context().note(Level::Warn, format_args!("{variant}: wrong results on this driver"));
                entries.push(entry(*variant, None));
            }
            Err(error @ (Error::Shader { .. } | Error::OutOfMemory { .. })) => {
                programs.context().note(Level::Debug, format_args!("{variant}: {error}"));
                // Another time there may be enough memory.
                if matches!(error, Error::Shader { .. }) {
                    entries.push(entry(*variant, None));
                }
            }
            Err(error) => return Err(error),
        }
    }
    queue.give_up(programs);
    // In the order of prediction, not of compilation.
    built.sort_by_key(|(index, _)| *index);
    let racing: Vec<Variant> = built.iter().map(|(index, _)| variants[*index]).collect();
    let ready = start.elapsed();
    let mut race = Race::new(&racing);
    let warm = Instant::now();
    let warm_up =
        if programs.context().capabilities().software { Duration::ZERO } else { WARM_UP.min(budget / 8) };
    while let Some((_, passes)) = built.first().filter(|_| warm.elapsed() < warm_up) {
        data.time(programs, passes, 2)?;
    }
    let mut together = vec![0; built.len()];
    let mut rounds = 0;
    'rounds: loop {
        for index in race.running() {
            let passes = &built[index].1;
            if together[index] == 0 {
                let once = data.time(programs, passes, 1)?;
                together[index] = calls(once);
            }
            race.take(index, data.time(programs, passes, together[index])?);
            // Each is timed at least once: all that were built in time are compared.
            if rounds > 0 && start.elapsed() > budget {
                break 'rounds;
            }
        }
        rounds += 1;
        if !race.end_round() || start.elapsed() > budget {
            break;
        }
    }
    programs.context().note(
        Level::Debug,
        format_args!(
                        "tuning: {} of {} variants built in {ready:.2?}, data made within {data_ready:.2?}, of {}; raced for {:.2?}",
            racing.len(),
            queue.begun,
            variants.len(),
            start.elapsed() - ready
        ),
    );
    programs.settle()?;
    entries.extend(race.finish().into_iter().map(|(variant, seconds)| entry(variant, Some(seconds))));
    Ok(entries)
}

//! The tuner at work: candidates built, checked and timed on this very driver, in the order that `shader::tuner` wants.
//!
//! A candidate passes a gate before it may race: some rows of its output, the last one among them, are compared with the float64
//! oracle. Direct algorithms get small integers and must be exact; Winograd gets reals and must stay within the direct bound. What
//! fails is on record as refused. All candidates see the same buffers, so a large batch is in memory once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::conv2d::{self, Prepared};
use super::fence::Fence;
use super::kept;
use super::passes::{Buffers, Passes};
use super::resource::{Bind, Buffer, Query};
use super::session::Session;
use crate::allocate;
use crate::config::{Config, Tune};
use crate::error::{Error, Result};
use crate::log::Level;
use crate::memory::tiles::Gpu;
use crate::problem::exact::{Random, largest_integer};
use crate::problem::oracle::{self, Expected};
use crate::problem::{Conv2d, Conv2dSizes};
use crate::shader::recipe;
use crate::shader::tuner::{BEGINNING, BUDGET, BUILDING, Entry, Race, Record, shortlist};
use crate::shader::variant::{self, Family, Variant};

/// How long the device is kept busy before anything counts: an idle one is slow.
const WARM_UP: Duration = Duration::from_millis(250);
/// A timing of a short kernel is that of several, together about this long, but not more than so many.
const TIMING: f64 = 3e-3;
const MOST_CALLS: usize = 20;
/// Rounds that a runner-up is timed for while real work waits.
const EXPLORING_ROUNDS: usize = 3;
/// Variants that the driver compiles at once, at least and at most: the best of them are to be ready first.
const AT_ONCE: (usize, usize) = (2, 6);
/// How long is waited for the driver's compiler before it is asked again.
const POLL: Duration = Duration::from_micros(300);
/// Distinct random values; longer arrays repeat them. A prime, so that no two images are the same.
const DISTINCT: usize = 1_000_003;

/// Whether `problem` stays with the floor in any case. Where nothing measured may decide, all small ones do: in a pipeline, how fast the
/// device is says which of them share a slot, and the queue's kernel sums up as the floor does.
pub fn stays_with_floor(problem: &Conv2d, config: &Config) -> bool {
    variant::stays_with_floor(problem) || (config.deterministic && variant::is_small(problem))
}

/// Whether measurements decide for `problem`, and whether they are made.
pub fn policy(problem: &Conv2d, config: &Config) -> Tune {
    if variant::is_small(problem) { Tune::Off } else { config.tune_for(problem) }
}

/// Ways to compute `problem`, a batch that fits in the device's buffers, best first: by measurement, then by prediction.
///
/// # Errors
/// What the device failed to do.
pub fn order(session: &mut Session, problem: &Conv2d, policy: Tune) -> Result<Vec<Variant>> {
    let gpu = session.gpu()?;
    let predicted = variant::candidates(problem, &gpu);
    if policy == Tune::Off {
        return Ok(predicted);
    }
    let capabilities = session.context().capabilities().clone();
    let known = kept::record(session.store(), &capabilities, problem).map(|mut record| {
        record.retain(|entry| is_sound(problem, &gpu, entry));
        record
    });
    let record = match (known.filter(|record| record.winners().next().is_some()), policy) {
        (None, Tune::Full) => tune(session, problem, BUDGET)?,
        (known, _) => known.unwrap_or_default(),
    };
    let measured: Vec<Variant> = record.winners().collect();
    let rest = predicted.into_iter().filter(|it| !measured.contains(it) && !record.refuses(it));
    Ok(measured.iter().copied().chain(rest).collect())
}

/// Remembers that `variant` turned out to be of no use, if there is a record that praises it.
pub fn refuse(session: &Session, problem: &Conv2d, variant: &Variant) {
    let capabilities = session.context().capabilities();
    if let Some(mut record) = kept::record(session.store(), capabilities, problem)
        && record.winners().any(|winner| winner == *variant)
    {
        record.update(&[Entry { variant: *variant, source: source_hash(problem, variant), seconds: None }]);
        kept::save_record(session.store(), capabilities, problem, &record);
    }
}

/// Whether what was measured holds for the shaders and limits of today.
fn is_sound(problem: &Conv2d, gpu: &Gpu, entry: &Entry) -> bool {
    variant::is_candidate(problem, gpu, &entry.variant)
        && entry.source == source_hash(problem, &entry.variant)
}

/// A hash of the shaders of `variant`, for the problem's class.
fn source_hash(problem: &Conv2d, variant: &Variant) -> u64 {
    recipe::generate(variant, &kept::class(problem)).map_or(0, |recipe| recipe.hash())
}

/// Measures `problem`'s shortlist, whatever is on record, and records it.
///
/// # Errors
/// What the device failed to do, beyond a candidate's own failure.
pub fn tune(session: &mut Session, problem: &Conv2d, budget: Duration) -> Result<Record> {
    let gpu = session.gpu()?;
    let predicted = variant::candidates(problem, &gpu);
    let timed = |variant: Variant| (variant, variant::seconds(problem, &gpu, &variant));
    let shortlist = shortlist(&predicted.into_iter().map(timed).collect::<Vec<_>>());
    let record = Record::new(race(session, problem, &shortlist, budget)?);
    kept::save_record(session.store(), session.context().capabilities(), problem, &record);
    let device = session.context().device();
    for Entry { variant, seconds, .. } in record.entries() {
        let took = seconds.map_or("refused".to_owned(), |seconds| format!("{:.1} us", seconds * 1e6));
        session
            .context()
            .note(Level::Debug, format_args!("{device}: tuning {:?}: {variant}: {took}", problem.sizes()));
    }
    Ok(record)
}

/// What every candidate reads, and the rows that are compared.
struct Data {
    weights: Vec<f32>,
    input: Buffer,
    rows: Vec<((usize, usize, usize), Vec<Expected>)>,
}

impl Data {
    /// Input and weights are `values` again and again, so that a batch of any size is quickly made.
    fn new(session: &Session, problem: &Conv2d, bias: Option<&[f32]>, values: &[f32]) -> Result<Self> {
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
        let input = Buffer::repeating(session.context(), bytes, bytemuck::cast_slice(values))?;
        Ok(Data { weights, input, rows })
    }

    /// Whether the sampled rows are right: exactly, or within the bound.
    fn passes(&self, problem: &Conv2d, output: &Buffer, exactly: bool) -> Result<bool> {
        let Conv2dSizes { k, p, q, .. } = *problem.sizes();
        let mut got = allocate::zeroed(q, "a row to compare")?;
        for ((n, ki, pi), expected) in &self.rows {
            let first = ((n * k + ki) * p + pi) * q;
            output.read_at(first * size_of::<f32>(), bytemuck::cast_slice_mut(&mut got))?;
            let right = |(&got, expected): (&f32, &Expected)| match exactly {
                true => f64::from(got) == expected.value,
                false => oracle::error_over_bound(got, *expected, problem.terms()) <= 1.0,
            };
            if !got.iter().zip(expected).all(right) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The buffers of a race.
struct Course<'a> {
    problem: &'a Conv2d,
    integers: Data,
    /// For Winograd; made when the first of it comes.
    reals: Option<Data>,
    bias: Option<(Vec<f32>, Buffer)>,
    output: Buffer,
}

impl<'a> Course<'a> {
    fn new(session: &Session, problem: &'a Conv2d) -> Result<Self> {
        let context = session.context();
        let (mut random, limit) = (Random::new(11), largest_integer(problem.terms()));
        let mut integers = |len| -> Result<Vec<f32>> {
            let mut values = allocate::zeroed(len, "data for measurements")?;
            random.fill_integers(&mut values, limit);
            Ok(values)
        };
        let values = integers(DISTINCT)?;
        let bias = problem.bias().then(|| integers(problem.sizes().k)).transpose()?;
        let integers = Data::new(session, problem, bias.as_deref(), &values)?;
        let upload = |bias: Vec<f32>| -> Result<_> {
            let buffer = Buffer::with_data(context, bytemuck::cast_slice(&bias))?;
            Ok((bias, buffer))
        };
        let bias = bias.map(upload).transpose()?;
        let output = Buffer::new(context, problem.output_len() * size_of::<f32>())?;
        Ok(Course { problem, integers, reals: None, bias, output })
    }

    /// Builds `variant` and puts it to the test; none if it fails it.
    fn admit(&mut self, session: &mut Session, variant: &Variant) -> Result<Option<Passes>> {
        let Some(recipe) = recipe::generate(variant, self.problem) else { return Ok(None) };
        let exactly = !matches!(variant.family, Family::Winograd(_));
        if !exactly && self.reals.is_none() {
            let mut values = allocate::zeroed(DISTINCT, "data for measurements")?;
            Random::new(13).fill_reals(&mut values);
            let bias = self.bias.as_ref().map(|bias| &*bias.0);
            self.reals = Some(Data::new(session, self.problem, bias, &values)?);
        }
        let data = if exactly { &self.integers } else { self.reals.as_ref().unwrap_or(&self.integers) };
        let mut passes = Passes::new(session, &recipe)?;
        let weights = Buffer::with_data(session.context(), bytemuck::cast_slice(&data.weights))?;
        if !passes.prepare(&weights)? {
            passes.hold(weights);
        }
        passes.run(&self.buffers(data, &passes))?;
        let passed = data.passes(self.problem, &self.output, exactly)?;
        Ok(passed.then_some(passes))
    }

    fn buffers<'b>(&'b self, data: &'b Data, passes: &'b Passes) -> Buffers<'b> {
        Buffers {
            input: &data.input,
            weights: passes.held().unwrap_or(&self.output),
            bias: self.bias.as_ref().map(|(_, bias)| bias as &dyn Bind),
            output: &self.output,
        }
    }

    /// Device seconds of a run among `calls` back to back.
    fn time(&self, session: &Session, passes: &Passes, calls: usize) -> Result<f64> {
        let buffers = self.buffers(&self.integers, passes);
        time(session.context(), calls, || passes.enqueue(&buffers))
    }
}

/// Device seconds of what `enqueue` hands over, among `calls` back to back.
fn time(context: &Rc<Context>, calls: usize, enqueue: impl Fn() -> Result<()>) -> Result<f64> {
    let host = Instant::now();
    let clock = context.capabilities().timestamp_bits > 0;
    let stamp = || clock.then(|| Query::timestamp(context)).transpose();
    let first = stamp()?;
    for _ in 0..calls {
        enqueue()?;
    }
    let last = stamp()?;
    Fence::new(context)?.wait("tuning")?;
    let time = match (first, last) {
        (Some(first), Some(last)) => last.since(&first)?,
        _ => host.elapsed(),
    };
    Ok(time.as_secs_f64() / calls as f64)
}

/// Runs that are timed together, where one takes `once` seconds.
fn calls(once: f64) -> usize {
    ((TIMING / once.max(1e-9)) as usize).clamp(1, MOST_CALLS)
}

/// Times a runner-up of `prepared` beside it, on its own buffers, and puts both times on record for the next plan. This plan goes on
/// as it is: its bits stay the same. What the buffers held is lost.
///
/// # Errors
/// What the device failed to do.
pub fn explore(session: &mut Session, prepared: &Prepared, problem: &Conv2d, weights: &[f32]) -> Result<()> {
    let start = Instant::now();
    let (tile, incumbent) = (tile(session, problem)?, prepared.variant());
    let (gpu, context) = (session.gpu()?, session.context().clone());
    let record = kept::record(session.store(), context.capabilities(), &tile);
    let rivals = record.map_or(vec![], |mut record| {
        record.retain(|entry| is_sound(&tile, &gpu, entry));
        record.rivals(&incumbent)
    });
    let explorer = prepared.explorer();
    if let Some(rival) = explorer.turn(&rivals)
        && let Some(recipe) = recipe::generate(&rival, &tile)
    {
        let mut entries = vec![];
        match compare(session, prepared, &recipe, weights) {
            Ok(seconds) => {
                for (variant, seconds) in [incumbent, rival].into_iter().zip(seconds) {
                    entries.push(Entry {
                        variant,
                        source: source_hash(&tile, &variant),
                        seconds: Some(seconds),
                    });
                }
                context.note(Level::Debug, format_args!("exploring: {incumbent}, {rival}: {seconds:?} s"));
            }
            Err(Error::Shader { .. }) => {
                entries.push(Entry { variant: rival, source: source_hash(&tile, &rival), seconds: None });
            }
            // Memory may be there another time.
            Err(Error::OutOfMemory { .. }) => {}
            Err(error) => return Err(error),
        }
        // Others may have written meanwhile.
        if let Some(mut record) = kept::record(session.store(), context.capabilities(), &tile) {
            record.update(&entries);
            kept::save_record(session.store(), context.capabilities(), &tile, &record);
        }
    }
    explorer.spend(start.elapsed());
    Ok(())
}

/// The best seconds of a run of `prepared`, and of the passes of `recipe` in its place, in turns.
fn compare(
    session: &mut Session,
    prepared: &Prepared,
    recipe: &recipe::Recipe,
    weights: &[f32],
) -> Result<[f64; 2]> {
    let context = session.context().clone();
    let mut passes = Passes::new(session, recipe)?;
    let weights = Buffer::with_data(&context, bytemuck::cast_slice(weights))?;
    if !passes.prepare(&weights)? {
        passes.hold(weights);
    }
    let lent = prepared.buffers();
    let buffers = Buffers { weights: passes.held().map_or(lent.weights, |it| it as _), ..lent };
    let ways: [&dyn Fn() -> Result<()>; 2] = [&|| prepared.enqueue(1), &|| passes.enqueue(&buffers)];
    let mut best = [f64::INFINITY; 2];
    for round in 0..=EXPLORING_ROUNDS {
        for (best, enqueue) in best.iter_mut().zip(ways) {
            // The first round only says how many to time together.
            let calls = if round == 0 { 1 } else { calls(*best) };
            let seconds = time(&context, calls, enqueue)?;
            *best = if round <= 1 { seconds } else { best.min(seconds) };
        }
    }
    Ok(best)
}

/// Candidates on their way through the driver's compiler: some at a time, so that the best are ready first, and no more when it gets
/// late.
struct BuildQueue {
    recipes: Vec<recipe::Recipe>,
    /// Begun and not handed out yet, by number.
    waiting: Vec<usize>,
    begun: usize,
    at_once: usize,
    start: Instant,
    budget: Duration,
}

impl BuildQueue {
    fn new(session: &Session, problem: &Conv2d, variants: &[Variant], budget: Duration) -> Self {
        session.context().api().compile_in_parallel();
        let recipe = |variant| recipe::generate(variant, problem).expect("the floor does not race");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        BuildQueue {
            recipes: variants.iter().map(recipe).collect(),
            waiting: vec![],
            begun: 0,
            at_once: threads.clamp(AT_ONCE.0, AT_ONCE.1),
            start: Instant::now(),
            budget,
        }
    }

    /// Has the driver begin with as many as it is to compile at once.
    fn begin(&mut self, session: &mut Session) -> Result<()> {
        while self.waiting.len() < self.at_once && self.begun < self.recipes.len() {
            // Where the driver is done at once, this is where the time goes.
            if self.begun > 0 && self.start.elapsed() > self.budget.mul_f64(BEGINNING) {
                break;
            }
            session.begin(self.recipes[self.begun].sources())?;
            self.waiting.push(self.begun);
            self.begun += 1;
        }
        Ok(())
    }

    /// The number of one that is ready, waiting for it if need be; none when all are through, or it gets late and there is one
    /// already. The planner's choice is waited for in any case: it must be among those that race.
    fn next(&mut self, session: &mut Session, have_one: bool) -> Result<Option<usize>> {
        loop {
            self.begin(session)?;
            let late = self.start.elapsed() > self.budget.mul_f64(BUILDING);
            if self.waiting.is_empty() || (late && have_one && self.waiting[0] != 0) {
                return Ok(None);
            }
            let is_ready = |&index: &usize| session.is_ready(self.recipes[index].sources());
            let ready = self.waiting.iter().position(is_ready);
            if let Some(next) = if late { Some(0) } else { ready } {
                return Ok(Some(self.waiting.remove(next)));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Lets go of those that were begun and not handed out.
    fn give_up(&self, session: &mut Session) {
        session.give_up(self.recipes.iter().flat_map(|recipe| recipe.sources()));
    }
}

/// Has `variants` race. Gives what became of each that was reached in time.
fn race(
    session: &mut Session,
    problem: &Conv2d,
    variants: &[Variant],
    budget: Duration,
) -> Result<Vec<Entry>> {
    let start = Instant::now();
    let mut entries = vec![];
    let entry =
        |variant: Variant, seconds| Entry { variant, source: source_hash(problem, &variant), seconds };
    let mut queue = BuildQueue::new(session, problem, variants, budget);
    // The driver compiles while the data are made.
    queue.begin(session)?;
    let mut course = match Course::new(session, problem) {
        // The plan itself may fit all the same.
        Err(Error::OutOfMemory { .. }) => {
            queue.give_up(session);
            return Ok(entries);
        }
        course => course?,
    };
    let mut built = vec![];
    let made_within = start.elapsed();
    while let Some(index) = queue.next(session, !built.is_empty())? {
        let variant = &variants[index];
        match course.admit(session, variant) {
            Ok(Some(passes)) => built.push((index, passes)),
            Ok(None) => {
                session.context().note(Level::Warn, format_args!("{variant}: wrong results on this driver"));
                entries.push(entry(*variant, None));
            }
            Err(error @ (Error::Shader { .. } | Error::OutOfMemory { .. })) => {
                session.context().note(Level::Debug, format_args!("{variant}: {error}"));
                // Memory may be there another time.
                if matches!(error, Error::Shader { .. }) {
                    entries.push(entry(*variant, None));
                }
            }
            Err(error) => return Err(error),
        }
    }
    queue.give_up(session);
    // Those with the best chances first, whoever was ready first.
    built.sort_by_key(|(index, _)| *index);
    let racing: Vec<Variant> = built.iter().map(|(index, _)| variants[*index]).collect();
    let ready = start.elapsed();
    let mut race = Race::new(&racing);
    let warm = Instant::now();
    let warm_up =
        if session.context().capabilities().software { Duration::ZERO } else { WARM_UP.min(budget / 8) };
    while let Some((_, passes)) = built.first().filter(|_| warm.elapsed() < warm_up) {
        course.time(session, passes, 2)?;
    }
    let mut together = vec![0; built.len()];
    let mut rounds = 0;
    'rounds: loop {
        for index in race.running() {
            let passes = &built[index].1;
            if together[index] == 0 {
                let once = course.time(session, passes, 1)?;
                together[index] = calls(once);
            }
            race.take(index, course.time(session, passes, together[index])?);
            // Everybody is timed once: what was built in time is to be judged by more than who came first.
            if rounds > 0 && start.elapsed() > budget {
                break 'rounds;
            }
        }
        rounds += 1;
        if !race.end_round() || start.elapsed() > budget {
            break;
        }
    }
    session.context().note(
        Level::Debug,
        format_args!(
            "tuning: {} of {} variants built in {ready:.2?}, data made within {made_within:.2?}, of {}; raced for {:.2?}",
            racing.len(),
            queue.begun,
            variants.len(),
            start.elapsed() - ready
        ),
    );
    session.settle()?;
    entries.extend(race.finish().into_iter().map(|(variant, seconds)| entry(variant, Some(seconds))));
    Ok(entries)
}

/// `problem` as a session computes it: no more images at once than fit.
///
/// # Errors
/// If not even one does.
pub fn tile(session: &Session, problem: &Conv2d) -> Result<Conv2d> {
    Ok(problem.with_batch(conv2d::images_at_once(session.context(), problem)?))
}

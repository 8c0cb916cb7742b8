//! What is measured on each engine: the cells of a workload, ready to be timed in any order.

use std::time::Instant;

use sparkle::lab::{Bench, Data, Effort, Exact, Timed};
use sparkle::memory::patterns::{Cell, Half, Pattern, Patterns, point, requested, requested_by_product};
use sparkle::patterns::cpu::{self, Computes, Work};
use sparkle::problem::exact::{Random, largest_integer};
use sparkle::problem::oracle;
use sparkle::{Conv2d, Gemm};

use super::record::{Round, Workload};
use crate::failure::Failure;
use crate::memory;

/// What is timed in a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Entry {
    Cell(usize),
    /// The cell with all patterns, once more.
    Again,
    Product,
}

/// A workload whose cells are ready.
pub trait Ready {
    /// Its description, without rounds.
    fn describe(&self) -> &Workload;

    /// Seconds of one run of an entry. `None` for a product that was not prepared.
    ///
    /// # Errors
    /// The device's failure.
    fn time(&mut self, entry: Entry) -> Result<Option<f64>, Failure>;

    /// Operations a second on registers alone, now.
    ///
    /// # Errors
    /// The device's failure.
    fn ceiling(&mut self) -> Result<f64, Failure>;

    /// Measures one round in random order.
    ///
    /// # Errors
    /// The device's failure.
    fn round(&mut self, random: &mut Random) -> Result<Round, Failure> {
        let cells = self.describe().cells.len();
        let mut entries: Vec<Entry> =
            (0..cells).map(Entry::Cell).chain([Entry::Again, Entry::Product]).collect();
        for last in (1..entries.len()).rev() {
            entries.swap(last, random.between(0, last as i64) as usize);
        }
        let ceiling = self.ceiling()?;
        let mut round = Round { ceiling, product: None, again: 0.0, seconds: vec![0.0; cells] };
        for entry in entries {
            let seconds = self.time(entry)?;
            match entry {
                Entry::Cell(cell) => round.seconds[cell] = seconds.unwrap_or(f64::NAN),
                Entry::Again => round.again = seconds.unwrap_or(f64::NAN),
                Entry::Product => round.product = seconds,
            }
        }
        Ok(round)
    }
}

/// The cells that are measured: all sets, or the twelve at the ends; the patterns that do not apply stay on.
fn cells(applicable: Patterns, quick: bool, halves: bool) -> Vec<Cell> {
    let rest: Patterns = Pattern::ALL.into_iter().filter(|&it| !applicable.has(it)).collect();
    let whole = |set: Patterns| set.iter().chain(rest.iter()).collect::<Patterns>();
    let ends = |set: Patterns| set.len() < 2 || set.len() + 1 >= applicable.len();
    let sets = applicable.subsets().filter(|&set| !quick || ends(set)).map(|set| Cell::of(whole(set)));
    let half = |half| Cell { patterns: Patterns::ALL, without: Some(half) };
    sets.chain([Half::Registers, Half::Caches].into_iter().filter(|_| halves).map(half)).collect()
}

/// The patterns that can be left out of a convolution: layout only where an im2col matrix differs from the image.
fn applicable(problem: &Conv2d) -> Result<Patterns, Failure> {
    let differs = point(problem)?.is_some();
    Ok(if differs { Patterns::ALL } else { Patterns::ALL.without(Pattern::Layout) })
}

/// The place of the cell with all patterns.
fn all_on(cells: &[Cell]) -> usize {
    cells.iter().position(|&cell| cell == Cell::of(Patterns::ALL)).unwrap_or(0)
}

/// How long an entry is timed.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Seconds of runs, after a first one that only counts if it takes as long.
    pub seconds: f64,
    pub quick: bool,
}

/// Cells on the CPU.
pub struct OnCpu {
    workload: Workload,
    cells: Vec<Box<dyn Computes>>,
    all: usize,
    product: Box<dyn Computes>,
    input: Vec<f32>,
    output: Vec<f32>,
    patience: Patience,
}

impl OnCpu {
    /// Prepares all cells of `work`, and checks each on integers if `check`.
    ///
    /// # Errors
    /// A CPU without vectors to switch off; memory.
    pub fn new(name: &str, work: Work, patience: Patience, check: bool) -> Result<Self, Failure> {
        let (kind, flops, terms, lens, applicable) = match &work {
            Work::Prepared(problem) | Work::Given(problem) => {
                let kind = if matches!(work, Work::Given(_)) { "conv given" } else { "conv" };
                let lens = [problem.weights_len(), problem.input_len(), problem.output_len()];
                (kind, problem.flops(), problem.terms(), lens, applicable(problem)?)
            }
            Work::Product(problem) => {
                let no_matrix = Patterns::ALL.without(Pattern::Layout);
                ("sgemm", problem.flops(), problem.terms(), problem.lens(), no_matrix)
            }
        };
        memory::check(name, 4 * (lens[1] + lens[2] + 40 * lens[0]))?;
        let (mut random, most) = (Random::new(9), largest_integer(terms));
        let [weights, input] = [lens[0], lens[1]].map(|len| random.integers(len, most));
        let sets = cells(applicable, patience.quick, !patience.quick);
        let prepared = sets.iter().map(|&cell| cpu::prepare(&work, cell, &weights, None));
        let cells = prepared.collect::<Result<Vec<_>, _>>()?;
        let product = cpu::product(&work, &weights, None)?;
        let mut output = vec![0.0; lens[2]];
        let mut wrong = vec![0; sets.len()];
        if check {
            let expected = expected(&work, &weights, &input);
            for (cell, wrong) in cells.iter().zip(&mut wrong) {
                output.fill(f32::NAN);
                cell.run(&input, &mut output)?;
                *wrong = output.iter().zip(&expected).filter(|(got, it)| f64::from(**got) != **it).count();
            }
        }
        let intensity = |&cell: &Cell| match &work {
            Work::Prepared(problem) | Work::Given(problem) => requested(problem, cpu::tile(cell), cell),
            Work::Product(problem) => requested_by_product(problem, cpu::tile(cell)),
        };
        let workload = Workload {
            name: name.to_owned(),
            work: kind.to_owned(),
            flops: flops as f64,
            applicable: applicable.to_string(),
            cells: sets.iter().map(Cell::to_string).collect(),
            intensity: sets.iter().map(intensity).collect(),
            wrong,
            product: None,
            processes: vec![],
        };
        Ok(OnCpu { workload, cells, all: all_on(&sets), product, input, output, patience })
    }
}

/// The oracle's results.
fn expected(work: &Work, weights: &[f32], input: &[f32]) -> Vec<f64> {
    match work {
        Work::Prepared(problem) | Work::Given(problem) => {
            oracle::conv2d(problem, input, weights, None).iter().map(|it| it.value).collect()
        }
        Work::Product(problem) => {
            let (m, n) = (problem.sizes().m, problem.sizes().n);
            let at =
                |index: usize| oracle::gemm_element(problem, weights, input, &[], index / n, index % n).value;
            (0..m * n).map(at).collect()
        }
    }
}

impl Ready for OnCpu {
    fn describe(&self) -> &Workload {
        &self.workload
    }

    fn time(&mut self, entry: Entry) -> Result<Option<f64>, Failure> {
        let computes = match entry {
            Entry::Cell(cell) => &self.cells[cell],
            Entry::Again => &self.cells[self.all],
            Entry::Product => &self.product,
        };
        let start = Instant::now();
        let first = computes.run(&self.input, &mut self.output)?.as_secs_f64();
        if first >= self.patience.seconds {
            return Ok(Some(first));
        }
        let mut times = vec![];
        while times.is_empty() || start.elapsed().as_secs_f64() < self.patience.seconds + first {
            times.push(computes.run(&self.input, &mut self.output)?.as_secs_f64());
        }
        times.sort_unstable_by(f64::total_cmp);
        Ok(Some(times[times.len() / 2].max(1e-9)))
    }

    fn ceiling(&mut self) -> Result<f64, Failure> {
        Ok(cpu::ceiling()?)
    }
}

/// Cells on a GPU: kernel time. Overlap concerns transfers, so it stays on.
pub struct OnGpu {
    workload: Workload,
    cells: Vec<Timed>,
    all: usize,
    product: Option<Timed>,
    ceiling: Timed,
    effort: Effort,
}

impl OnGpu {
    /// Prepares all cells of a convolution. `None` if no tiled kernel computes it.
    ///
    /// # Errors
    /// The device's failure.
    pub fn new(
        bench: &mut Bench,
        name: &str,
        problem: &Conv2d,
        (patience, software): (Patience, bool),
        check: bool,
    ) -> Result<Option<Self>, Failure> {
        let applicable = applicable(problem)?.without(Pattern::Overlap);
        let sets = cells(applicable, patience.quick, false);
        let data = Data::new(problem, 1);
        let exact = check.then(|| Exact::new(problem));
        let (mut timed, mut wrong, mut intensity) = (vec![], vec![], vec![]);
        for &cell in &sets {
            let Some(it) = bench.cell(problem, &data, cell)? else { return Ok(None) };
            if it.error > 1.0 || it.error.is_nan() {
                let reason = format!("{name}, {cell}: the error is {:.2} times its bound", it.error);
                return Err(Failure::Wrong(reason));
            }
            timed.push(it);
            let differences = exact.as_ref().map(|exact| bench.cell_differences(problem, exact, cell));
            wrong.push(differences.transpose()?.flatten().unwrap_or(0));
            intensity.push(requested(problem, bench.requests(problem, cell)?, cell));
        }
        let variants = sparkle::shader::variant::candidates(problem, &bench.gpu()?);
        let product = variants.first().map(|first| bench.conv2d(problem, &data, first)).transpose()?;
        let workload = Workload {
            name: name.to_owned(),
            work: "conv".to_owned(),
            flops: problem.flops() as f64,
            applicable: applicable.to_string(),
            cells: sets.iter().map(Cell::to_string).collect(),
            intensity,
            wrong,
            product: product.as_ref().map(|it| it.name.clone()),
            processes: vec![],
        };
        let busy = std::time::Duration::from_secs_f64(if software { 0.0 } else { patience.seconds });
        let effort = Effort { busy, calls: if software { 2 } else { 50 }, rounds: 1, rows: 0 };
        let all = all_on(&sets);
        Ok(Some(OnGpu { workload, cells: timed, all, product, ceiling: bench.ceiling()?, effort }))
    }
}

impl Ready for OnGpu {
    fn describe(&self) -> &Workload {
        &self.workload
    }

    fn time(&mut self, entry: Entry) -> Result<Option<f64>, Failure> {
        let timed = match entry {
            Entry::Cell(cell) => &self.cells[cell],
            Entry::Again => &self.cells[self.all],
            Entry::Product => match &self.product {
                Some(product) => product,
                None => return Ok(None),
            },
        };
        Ok(Some(timed.time(&self.effort)?.as_secs_f64().max(1e-9)))
    }

    fn ceiling(&mut self) -> Result<f64, Failure> {
        let seconds = self.ceiling.time(&self.effort)?.as_secs_f64().max(1e-9);
        Ok(self.ceiling.flops / seconds)
    }
}

/// A square product of packed matrices in row order.
///
/// # Errors
/// A size that cannot be described.
pub fn square(size: i64) -> Result<Gemm, Failure> {
    let layout = sparkle::Layout::RowMajor;
    Ok(Gemm::new(sparkle::GemmDesc::packed(layout, size, size, size))?)
}

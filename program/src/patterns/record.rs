//! The record of an experiment: what was measured, and what follows from it.

use serde::{Deserialize, Serialize};
use sparkle::memory::patterns::{Pattern, Patterns};
use sparkle::report::attribution::{self, Attribution, Estimate, Rounds, Verdict};

/// What marks a file as a record of this command.
pub const KIND: &str = "patterns";

/// The measurements of one device, with one number of threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub kind: String,
    pub device: Device,
    pub settings: Settings,
    pub workloads: Vec<Workload>,
}

/// The device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub id: String,
    pub name: String,
    /// What is compared across devices: `cpu`, `gpu`, or `software gpu`.
    pub class: String,
    /// The instruction set, on a CPU.
    pub isa: Option<String>,
    pub threads: Option<usize>,
    pub os: String,
    pub arch: String,
    /// Levels of the memory and the bytes a second that all threads read from them.
    pub levels: Vec<(String, f64)>,
    /// The day, if the system knows it.
    pub seconds_since_1970: u64,
}

impl Device {
    /// A short title: the name and the threads.
    pub fn title(&self) -> String {
        let isa = self.isa.as_deref().map(|isa| format!(", {isa}")).unwrap_or_default();
        let threads = match self.threads {
            None => String::new(),
            Some(1) => ", 1 thread".to_owned(),
            Some(count) => format!(", {count} threads"),
        };
        format!("{}{isa}{threads}", self.name)
    }
}

/// How it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub quick: bool,
    pub processes: usize,
    pub rounds: usize,
}

/// One workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Workload {
    pub name: String,
    /// `conv`, `conv given` (weights are packed in each run) or `sgemm`.
    pub work: String,
    pub flops: f64,
    /// The patterns that this engine can leave out here.
    pub applicable: String,
    /// What was measured: sets of patterns, and sets without half of tiling.
    pub cells: Vec<String>,
    /// Operations for each byte that the inner loop of each cell requests.
    pub intensity: Vec<f64>,
    /// Outputs of each cell that differ from the oracle's, on integers whose sums are exact.
    pub wrong: Vec<usize>,
    /// The kernel that the product uses here, where it was timed.
    pub product: Option<String>,
    pub processes: Vec<Vec<Round>>,
}

/// One round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// Operations a second on registers alone, in this round.
    pub ceiling: f64,
    /// Seconds of the product's own kernel.
    pub product: Option<f64>,
    /// Seconds of the cell with all patterns, measured once more.
    pub again: f64,
    /// Seconds of each cell.
    pub seconds: Vec<f64>,
}

/// What follows for one workload.
#[derive(Debug, Clone, Serialize)]
pub struct Result {
    pub name: String,
    /// GFLOPS with all patterns, and as a share of the ceiling.
    pub gflops: f64,
    pub share: f64,
    /// Speed of the second measurement over the first: 1 if the instrument is sound.
    pub again: Option<Estimate>,
    /// Speed of the switchable kernel over the product's.
    pub over_product: Option<Estimate>,
    /// Of each applicable pattern; empty in quick experiments.
    pub attribution: Option<Attribution>,
    /// Of each applicable pattern: its factor if it alone is turned on, and if it alone is turned off.
    pub ends: Vec<[Estimate; 2]>,
    /// Of the registers' half of tiling and the caches': all patterns over all but this half.
    pub halves: Option<[Estimate; 2]>,
}

impl Workload {
    /// The applicable patterns, in order.
    pub fn patterns(&self) -> Vec<Pattern> {
        self.applicable.parse::<Patterns>().map(|set| set.iter().collect()).unwrap_or_default()
    }

    fn cell(&self, name: &str) -> Option<usize> {
        self.cells.iter().position(|cell| cell == name)
    }

    /// The cell with these patterns, the others that do not apply being on.
    pub fn index(&self, on: Patterns) -> Option<usize> {
        let all: Patterns = self.patterns().into_iter().collect();
        let set: Patterns = Pattern::ALL.into_iter().filter(|&it| on.has(it) || !all.has(it)).collect();
        self.cell(&set.to_string())
    }

    /// Logarithms of the speeds of some cells in all rounds; those of the second measurement and of the product's kernel on
    /// request.
    fn rounds(&self, cells: &[usize]) -> Rounds {
        let of = |round: &Round| cells.iter().map(|&cell| -round.seconds[cell].ln()).collect();
        self.processes.iter().map(|process| process.iter().map(of).collect()).collect()
    }

    /// The ratio of two times in all rounds: how much faster the first is.
    fn ratio(&self, times: impl Fn(&Round) -> Option<[f64; 2]>) -> Option<Estimate> {
        let of = |round: &Round| Some(times(round)?.map(|seconds| -seconds.ln()).to_vec());
        let rounds: Option<Rounds> =
            self.processes.iter().map(|process| process.iter().map(of).collect()).collect();
        let found = attribution::estimate(&rounds?, |levels| vec![levels[0] - levels[1]])?;
        Some(found.first()?.factor())
    }

    /// The factorial of the applicable patterns. `None` if cells were left out.
    fn factorial(&self) -> Option<Vec<usize>> {
        let patterns = self.patterns();
        let set = |bits: usize| {
            let on = patterns.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0).map(|(_, &it)| it);
            self.index(on.collect())
        };
        (0..1 << patterns.len()).map(set).collect()
    }

    /// The median speed of a cell in operations a second, and of the ceiling.
    pub fn speed(&self, cell: usize) -> f64 {
        self.flops / self.median(|round| round.seconds[cell])
    }

    /// The median ceiling.
    pub fn ceiling(&self) -> f64 {
        self.median(|round| round.ceiling)
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut all: Vec<f64> = self.processes.iter().flatten().map(of).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// What follows. `None` if the record lacks its all-on cell.
    pub fn result(&self) -> Option<Result> {
        let all: Patterns = self.patterns().into_iter().collect();
        let (on, off) = (self.index(all)?, self.index(Patterns::NONE));
        let over = |cell: Option<usize>, base: Option<usize>| {
            let (cell, base) = (cell?, base?);
            self.ratio(|round| Some([round.seconds[cell], round.seconds[base]]))
        };
        let ends = |pattern: Pattern| {
            let first = over(self.index(Patterns::NONE.with(pattern)), off)?;
            Some([first, over(Some(on), self.index(all.without(pattern)))?])
        };
        let half = |letter: char| over(Some(on), self.cell(&format!("{}/{letter}", self.cells[on])));
        Some(Result {
            name: self.name.clone(),
            gflops: self.speed(on) / 1e9,
            share: self.speed(on) / self.ceiling(),
            again: self.ratio(|round| Some([round.again, round.seconds[on]])),
            over_product: self.ratio(|round| Some([round.seconds[on], round.product?])),
            attribution: self.factorial().and_then(|cells| attribution::attribute(&self.rounds(&cells))),
            ends: self.patterns().into_iter().filter_map(ends).collect(),
            halves: half('r').zip(half('c')).map(|(registers, caches)| [registers, caches]),
        })
    }

    /// The largest share of the ceiling of any cell.
    pub fn highest_share(&self) -> f64 {
        (0..self.cells.len()).map(|cell| self.speed(cell) / self.ceiling()).fold(0.0, f64::max)
    }
}

/// A device's mean over its workloads, for one pattern.
#[derive(Debug, Clone, Serialize)]
pub struct Mean {
    pub letter: char,
    /// The geometric mean of the Shapley factors of the workloads to which it applies; `None` if there are none.
    pub factor: Option<Estimate>,
    pub verdict: Option<Verdict>,
}

impl Record {
    /// What follows for all workloads.
    pub fn results(&self) -> Vec<Result> {
        self.workloads.iter().filter_map(Workload::result).collect()
    }

    /// The mean worth of each pattern. The logarithms of the ends of the workloads' intervals are averaged as the square root
    /// of the sum of squares over the count: workloads were measured independently.
    pub fn means(&self, results: &[Result]) -> Vec<Mean> {
        Pattern::ALL.into_iter().map(|pattern| self.mean(pattern, results)).collect()
    }

    fn mean(&self, pattern: Pattern, results: &[Result]) -> Mean {
        let of = |(workload, result): (&Workload, &Result)| {
            let place = workload.patterns().iter().position(|&it| it == pattern)?;
            Some(result.attribution.as_ref()?.worth.get(place)?.shapley)
        };
        let found: Vec<Estimate> = self.workloads.iter().zip(results).filter_map(of).collect();
        let factor = (!found.is_empty()).then(|| {
            let count = found.len() as f64;
            let value = found.iter().map(|it| it.value.ln()).sum::<f64>() / count;
            let width = |end: &dyn Fn(&Estimate) -> f64| {
                found.iter().map(|it| (end(it).ln() - it.value.ln()).powi(2)).sum::<f64>().sqrt() / count
            };
            Estimate { value, low: value - width(&|it| it.low), high: value + width(&|it| it.high) }.factor()
        });
        Mean { letter: pattern.letter(), verdict: factor.as_ref().map(Verdict::of), factor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workload of two patterns, whose second cell is twice as fast.
    fn workload(applicable: &str) -> Workload {
        let cells: Vec<String> = Patterns::sets()
            .filter(|set| {
                let all: Patterns = applicable.parse().unwrap();
                Pattern::ALL.into_iter().all(|it| all.has(it) || set.has(it))
            })
            .map(|set| set.to_string())
            .collect();
        let seconds: Vec<f64> = cells
            .iter()
            .map(|cell| {
                let gain = |letter: char, factor: f64| if cell.contains(letter) { factor } else { 1.0 };
                1.0 / gain('T', 4.0) / gain('V', 2.0)
            })
            .collect();
        let again = *seconds.last().unwrap();
        let round = Round { ceiling: 16.0, product: Some(again * 0.5), again, seconds };
        Workload {
            name: "layer".to_owned(),
            work: "conv".to_owned(),
            flops: 1.0,
            applicable: applicable.to_owned(),
            intensity: vec![1.0; cells.len()],
            wrong: vec![0; cells.len()],
            cells,
            product: None,
            processes: vec![vec![round.clone(), round.clone()], vec![round]],
        }
    }

    #[test]
    fn what_follows_from_a_record() {
        for applicable in ["TVPLO", "TVP-O"] {
            let workload = workload(applicable);
            let result = workload.result().unwrap();
            let worth = &result.attribution.as_ref().unwrap().worth;
            assert_eq!(worth.len(), workload.patterns().len());
            assert!(
                (worth[0].shapley.value - 4.0).abs() < 1e-9 && (worth[1].shapley.value - 2.0).abs() < 1e-9
            );
            assert_eq!(worth[2].verdict, Verdict::Nothing);
            assert!((result.share - 0.5).abs() < 1e-9 && (result.gflops - 8e-9).abs() < 1e-18);
            assert!((result.over_product.unwrap().value - 0.5).abs() < 1e-9);
            assert!((result.again.unwrap().value - 1.0).abs() < 1e-9);
            assert!((result.ends[0][0].value - 4.0).abs() < 1e-9);
            assert!(result.halves.is_none());
        }
    }
}

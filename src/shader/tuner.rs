//! The tuning policy: which candidates are timed, for how long, and what is recorded. Pure policy: an engine builds, checks and
//! times the candidates.
//!
//! The planner's ranking is good but not exact, so its first few candidates run a race. In each round, every candidate is timed
//! once, in turns, so that clock drift favours none of them. Candidates that are clearly slower drop out. The tolerance shrinks
//! from round to round, as the noise of the best time does. All times go into a [`Record`], so the runner-up is known if the
//! winner fails. Drivers and clocks change later, so now and then, during real work, a runner-up is timed again ([`Explorer`]).

use std::cell::Cell;
use std::time::Duration;

use super::variant::{Family, Variant};

/// The time that tuning a new shape may take.
pub const TUNING_BUDGET: Duration = Duration::from_secs(3);
/// Share of [`TUNING_BUDGET`] after which no further candidate is built.
pub const BUILD_START_SHARE: f64 = 0.4;
/// Share of [`TUNING_BUDGET`] after which a candidate that is still being built does not race, unless it is the first.
pub const BUILD_READY_SHARE: f64 = 0.5;
/// Candidates that race, at most; the best of each further family is added.
const MAX_RACING: usize = 12;
/// Candidates predicted to take more than this multiple of the best time do not race.
const MAX_PREDICTED_RATIO: f64 = 3.0;
/// The multiple of the best time up to which a candidate stays in the race, for each round.
const TOLERANCE: [f64; 6] = [1.5, 1.25, 1.15, 1.1, 1.06, 1.03];
/// Share of a plan's device time that goes into timing its runner-ups.
const EXPLORATION_SHARE: f64 = 0.02;
/// Expected time of the first such timing.
const FIRST_EXPLORATION: Duration = Duration::from_millis(50);
/// Runner-ups up to this multiple of the best time are rivals, which are timed again.
const RIVAL_RATIO: f64 = 1.1;
/// The most rivals.
const MAX_RIVALS: usize = 3;

/// Chooses the variants that race from `ranked`, which has variants and their predicted seconds, best first. Chosen are the best
/// few and the best of each family that is not hopeless, because predictions are least exact between families. The fallback
/// does not race: it has no passes.
pub fn shortlist(ranked: &[(Variant, f64)]) -> Vec<Variant> {
    let racing = || ranked.iter().filter(|(variant, _)| variant.family != Family::Fallback);
    let Some((_, best)) = racing().next() else { return vec![] };
    let near = |factor: f64| racing().filter(move |(_, seconds)| *seconds <= factor * best);
    let mut chosen: Vec<Variant> =
        near(MAX_PREDICTED_RATIO).take(MAX_RACING).map(|(variant, _)| *variant).collect();
    for (variant, _) in near(MAX_PREDICTED_RATIO) {
        if chosen.iter().all(|other| other.family != variant.family) {
            chosen.push(*variant);
        }
    }
    chosen
}

/// A candidate in a race.
#[derive(Debug, Clone, Copy)]
struct Runner {
    variant: Variant,
    best: f64,
    running: bool,
}

/// A race among variants. Each is known by its index in the list that [`Race::new`] takes.
#[derive(Debug)]
pub struct Race {
    runners: Vec<Runner>,
    rounds: usize,
}

impl Race {
    /// Creates a race before its first round.
    pub fn new(variants: &[Variant]) -> Self {
        let runner = |&variant: &Variant| Runner { variant, best: f64::INFINITY, running: true };
        Race { runners: variants.iter().map(runner).collect(), rounds: 0 }
    }

    /// The candidates to time in this round.
    pub fn running(&self) -> Vec<usize> {
        (0..self.runners.len()).filter(|&index| self.runners[index].running).collect()
    }

    /// Records a time of candidate `index`. Times that are not finite and positive are ignored.
    pub fn take(&mut self, index: usize, seconds: f64) {
        if seconds.is_finite() && seconds > 0.0 {
            let best = &mut self.runners[index].best;
            *best = best.min(seconds);
        }
    }

    /// Ends a round. Returns whether there is another.
    pub fn end_round(&mut self) -> bool {
        let leader = self.runners.iter().map(|runner| runner.best).fold(f64::INFINITY, f64::min);
        let tolerance = TOLERANCE[self.rounds.min(TOLERANCE.len() - 1)];
        for runner in &mut self.runners {
            runner.running &= runner.best <= tolerance * leader;
        }
        self.rounds += 1;
        self.rounds < TOLERANCE.len() && self.running().len() > 1
    }

    /// All variants that were timed, fastest first.
    pub fn finish(self) -> Vec<(Variant, f64)> {
        let timed = self.runners.into_iter().filter(|runner| runner.best.is_finite());
        let mut timed: Vec<_> = timed.map(|runner| (runner.variant, runner.best)).collect();
        timed.sort_by(|a, b| a.1.total_cmp(&b.1));
        timed
    }
}

/// A variant in a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The variant.
    pub variant: Variant,
    /// The hash of the shaders that were timed.
    pub source: u64,
    /// Seconds of a run; `None` if building failed on this device, or the results were wrong.
    pub seconds: Option<f64>,
}

/// The tuning results of a shape on a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    entries: Vec<Entry>,
}

impl Record {
    /// Sorts the entries: fastest first, refused ones last.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        let key = |entry: &Entry| entry.seconds.unwrap_or(f64::INFINITY);
        entries.sort_by(|a, b| key(a).total_cmp(&key(b)));
        Record { entries }
    }

    /// All entries, fastest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Keeps the entries for which `sound` returns true: shaders and the abilities of a device change.
    pub fn retain(&mut self, sound: impl FnMut(&Entry) -> bool) {
        self.entries.retain(sound);
    }

    /// The variants that work, fastest first.
    pub fn winners(&self) -> impl Iterator<Item = Variant> {
        self.entries.iter().filter(|entry| entry.seconds.is_some()).map(|entry| entry.variant)
    }

    /// Whether `variant` is known to fail.
    pub fn refuses(&self, variant: &Variant) -> bool {
        self.entries.iter().any(|entry| entry.variant == *variant && entry.seconds.is_none())
    }

    /// Adds later measurements. They replace entries of the same variants.
    pub fn update(&mut self, later: &[Entry]) {
        let replaced = |entry: &Entry| later.iter().any(|other| other.variant == entry.variant);
        let kept = self.entries.iter().filter(|entry| !replaced(entry));
        *self = Record::new(kept.chain(later).copied().collect());
    }

    /// The variants that may turn out faster than `incumbent`.
    pub fn rivals(&self, incumbent: &Variant) -> Vec<Variant> {
        let front =
            self.entries.first().and_then(|first| first.seconds).map_or(0.0, |best| RIVAL_RATIO * best);
        let near = |entry: &&Entry| entry.seconds.is_some_and(|seconds| seconds <= front);
        let near = self.entries.iter().filter(near).map(|entry| entry.variant);
        near.filter(|variant| variant != incumbent).take(MAX_RIVALS).collect()
    }

    /// One line per entry: variant, hash of the source, nanoseconds or `refused`.
    pub fn to_text(&self) -> String {
        let line = |Entry { variant, source, seconds }: &Entry| {
            let time = seconds.map_or("refused".to_owned(), |seconds| format!("{:.1}", seconds * 1e9));
            format!("{variant} {source:016x} {time}\n")
        };
        self.entries.iter().map(line).collect()
    }

    /// Parses the text of [`Record::to_text`]; `None` if it is malformed.
    pub fn from_text(text: &str) -> Option<Self> {
        let entry = |line: &str| {
            let [variant, source, time] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
            let seconds = match time {
                "refused" => None,
                time => Some(time.parse::<f64>().ok().filter(|time| time.is_finite() && *time > 0.0)? * 1e-9),
            };
            let source = u64::from_str_radix(source, 16).ok()?;
            Some(Entry { variant: variant.parse().ok()?, source, seconds })
        };
        text.lines().map(entry).collect::<Option<_>>().map(Record::new)
    }
}

/// Decides when a plan's rivals are timed, and which of them.
#[derive(Debug, Default)]
pub struct Explorer {
    worked: Cell<Duration>,
    spent: Cell<Duration>,
    turns: Cell<usize>,
}

impl Explorer {
    /// Adds `time` of real work.
    pub fn work(&self, time: Duration) {
        self.worked.set(self.worked.get().saturating_add(time));
    }

    /// Adds `time` spent on timing rivals.
    pub fn spend(&self, time: Duration) {
        self.spent.set(self.spent.get().saturating_add(time));
    }

    /// Whether another timing, if it takes as long as the average so far, stays within the share for exploration.
    pub fn is_due(&self) -> bool {
        let next = match self.turns.get() {
            0 => FIRST_EXPLORATION,
            turns => self.spent.get() / turns as u32,
        };
        self.worked.get().mul_f64(EXPLORATION_SHARE) >= self.spent.get() + next
    }

    /// The next rival to time, round robin.
    pub fn turn(&self, rivals: &[Variant]) -> Option<Variant> {
        let turn = self.turns.replace(self.turns.get() + 1);
        rivals.get(turn % rivals.len().max(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tiles::{Gpu, TILES};
    use crate::problem::exact::Random;
    use crate::problem::{Conv2d, Conv2dDesc};
    use crate::shader::variant::{candidates, seconds};

    fn ranked(c: i64) -> Vec<(Variant, f64)> {
        let desc =
            Conv2dDesc { c, h: 56, w: 56, k: 64, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let all = candidates(&problem, &Gpu::ASSUMED);
        all.into_iter().map(|variant| (variant, seconds(&problem, &Gpu::ASSUMED, &variant))).collect()
    }

    /// Runs a race in which the `index`-th takes `truth[index]`, with noise that only slows runs down.
    fn race(
        variants: &[Variant],
        truth: &[f64],
        noise: i64,
        random: &mut Random,
    ) -> (usize, Vec<(Variant, f64)>) {
        let (mut race, mut timings) = (Race::new(variants), 0);
        loop {
            for index in race.running() {
                race.take(index, truth[index] * (1.0 + random.between(0, noise) as f64 / 100.0));
                timings += 1;
            }
            if !race.end_round() {
                return (timings, race.finish());
            }
        }
    }

    #[test]
    fn the_shortlist_is_short_and_has_every_hopeful_family() {
        let mut lists = 0;
        for c in [3, 8, 16, 64, 512] {
            let ranked = ranked(c);
            let chosen = shortlist(&ranked);
            assert!(!chosen.is_empty() && chosen.len() <= MAX_RACING + 6, "{c}: {}", chosen.len());
            assert!(chosen.iter().all(|it| it.family != Family::Fallback));
            let first = ranked.iter().find(|it| it.0.family != Family::Fallback).unwrap();
            assert_eq!(chosen[0], first.0, "the planner's first choice always races");
            for (variant, seconds) in &ranked {
                let hopeful = *seconds <= MAX_PREDICTED_RATIO * first.1 && variant.family != Family::Fallback;
                assert!(!hopeful || chosen.iter().any(|it| it.family == variant.family), "{variant}");
            }
            lists += 1;
        }
        assert_eq!(lists, 5);
        assert_eq!(shortlist(&[]), []);
        assert_eq!(shortlist(&[(Variant::FALLBACK, 1.0)]), []);
    }

    #[test]
    fn the_fastest_wins_or_one_within_the_noise() {
        let variants: Vec<Variant> = ranked(64).iter().map(|it| it.0).take(12).collect();
        let mut random = Random::new(5);
        let (mut exact, mut spent) = (0, 0);
        for _ in 0..200 {
            let truth: Vec<f64> = variants.iter().map(|_| random.between(100, 400) as f64 * 1e-6).collect();
            let (timings, order) = race(&variants, &truth, 10, &mut random);
            let best = truth.iter().copied().fold(f64::INFINITY, f64::min);
            let winner = variants.iter().position(|it| *it == order[0].0).unwrap();
            assert!(truth[winner] <= 1.1 * best, "{} of {best}", truth[winner]);
            exact += usize::from(truth[winner] <= 1.02 * best);
            spent += timings;
            assert_eq!(order.len(), variants.len(), "every variant is timed at least once");
        }
        assert!(exact >= 190, "{exact} of 200");
        assert!(
            spent < 200 * variants.len() * TOLERANCE.len() / 2,
            "{spent} timings: too few variants dropped out"
        );
    }

    #[test]
    fn races_end() {
        let variants: Vec<Variant> = ranked(64).iter().map(|it| it.0).take(5).collect();
        let mut random = Random::new(6);
        assert_eq!(race(&variants, &[1.0; 5], 0, &mut random).0, 5 * TOLERANCE.len());
        assert_eq!(race(&variants, &[9.0, 1.0, 9.0, 9.0, 9.0], 0, &mut random).0, 5);
        let mut none = Race::new(&variants);
        (0..5).for_each(|index| none.take(index, [f64::NAN, 0.0, -1.0, f64::INFINITY, f64::NAN][index]));
        assert!(!none.end_round() || none.running().len() == 5);
        assert_eq!(none.finish(), []);
        assert!(!Race::new(&[]).end_round());
    }

    fn record() -> Record {
        let times = [Some(3e-6), None, Some(1e-6), Some(1.05e-6), Some(2e-6)];
        let entry = |(&(variant, _), seconds)| Entry { variant, source: 77, seconds };
        Record::new(ranked(64).iter().zip(times).map(entry).collect())
    }

    #[test]
    fn records_survive_as_text_and_malformed_text_is_refused() {
        let record = record();
        assert_eq!(record.entries().len(), 5);
        let text = record.to_text();
        let again = Record::from_text(&text).unwrap();
        assert_eq!(again.to_text(), text);
        assert_eq!(again.winners().collect::<Vec<_>>(), record.winners().collect::<Vec<_>>());
        // A mutated record is refused or plausible. Hashes of the sources and the limits of the device catch the plausible ones.
        let (mut random, mut refused) = (Random::new(8), 0);
        for _ in 0..1000 {
            let mut bytes = text.clone().into_bytes();
            let at = random.between(0, bytes.len() as i64 - 1) as usize;
            match random.between(0, 2) {
                0 => bytes[at] = random.between(32, 126) as u8,
                1 => bytes.truncate(at),
                _ => drop(bytes.remove(at)),
            }
            let mutated = Record::from_text(&String::from_utf8(bytes).unwrap());
            refused += usize::from(mutated.is_none());
            for entry in mutated.iter().flat_map(|it| it.entries()) {
                assert!(entry.seconds.is_none_or(|it| it > 0.0 && it.is_finite()));
                assert!(entry.variant.tile == Variant::FALLBACK.tile || TILES.contains(&entry.variant.tile));
            }
        }
        assert!(refused > 300, "{refused}");
    }

    #[test]
    fn later_measurements_replace_earlier_ones() {
        let mut record = record();
        let before: Vec<Variant> = record.winners().collect();
        assert_eq!(before.len(), 4);
        record.update(&[Entry { variant: before[0], source: 77, seconds: None }]);
        assert_eq!(record.winners().collect::<Vec<_>>(), before[1..], "the next winner takes over");
        assert!(record.refuses(&before[0]) && !record.refuses(&before[1]));
        record.update(&[Entry { variant: before[3], source: 77, seconds: Some(1e-9) }]);
        assert_eq!(record.winners().next(), Some(before[3]));
        assert_eq!(record.entries().len(), 5);
    }

    #[test]
    fn rivals_take_turns_and_two_percent_of_the_time() {
        let record = record();
        let winners: Vec<Variant> = record.winners().collect();
        assert_eq!(record.rivals(&winners[0]), winners[1..2], "the others are much slower");
        assert_eq!(record.rivals(&winners[3]), winners[..2]);
        assert_eq!(Record::default().rivals(&winners[0]), []);

        let (explorer, mut turns) = (Explorer::default(), vec![]);
        for _ in 0..100_000 {
            explorer.work(Duration::from_millis(1));
            if explorer.is_due() {
                turns.extend(explorer.turn(&winners[..2]));
                explorer.spend(Duration::from_millis(100));
            }
        }
        // Two percent of 100 s, at 100 ms per turn.
        assert_eq!(turns.len(), 20);
        assert_eq!(turns[..4], [winners[0], winners[1], winners[0], winners[1]]);
        assert_eq!(explorer.turn(&[]), None);
    }

    #[test]
    fn variants_predicted_to_be_much_slower_do_not_race() {
        let variant = |kg| Variant { family: Family::Pointwise(kg), ..Variant::FALLBACK };
        let ranked = [(variant(2), 2.0), (variant(4), 5.9), (variant(8), 6.1)];
        assert_eq!(shortlist(&ranked), [variant(2), variant(4)]);
        let ranked = [(variant(2), 0.5), (variant(4), 1.4), (variant(8), 1.6)];
        assert_eq!(shortlist(&ranked), [variant(2), variant(4)]);
    }

    /// A caller that goes on after the last round is told again that it was the last.
    #[test]
    fn rounds_after_the_last_change_nothing() {
        let variants: Vec<Variant> = ranked(64).iter().map(|it| it.0).take(3).collect();
        let mut race = Race::new(&variants);
        for round in 1..=2 * TOLERANCE.len() {
            (0..3).for_each(|index| race.take(index, 1.0 + 0.01 * index as f64));
            assert_eq!(race.end_round(), round < TOLERANCE.len());
            assert_eq!(race.running().len(), 3);
        }
    }

    #[test]
    fn a_record_keeps_what_is_sound() {
        let mut record = record();
        record.retain(|entry| entry.seconds.is_some_and(|seconds| seconds < 1.5e-6));
        assert_eq!(
            record.entries().iter().map(|it| it.seconds.unwrap()).collect::<Vec<_>>(),
            [1e-6, 1.05e-6]
        );
    }
}

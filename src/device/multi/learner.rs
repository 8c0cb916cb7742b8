//! What was learned about one kind of call on a set of devices, and the split that follows from it.
//!
//! A device's time for n units is a [`Line`] from the roofline model, times a factor that is measured. Devices disturb
//! each other: they share memory, cores and locks of a driver. So a factor belongs to a device *and* to the set of
//! devices that work at the same time. It is the median of the last five runs of a share of about the same size;
//! of an even number of runs, the faster of the middle two, since disturbances only slow a run down.
//!
//! Each call takes the set whose water-filled split is predicted to end first. Sets that were never measured take the
//! factors of others, so larger sets are tried as soon as they look better, and stay if they are. The present split
//! changes only for a gain of 2%. A device alone is such a set, too: once measured, it wins over any slower split.
//!
//! Sets out of use are measured again, each after twice as many calls as the time before. Such a call may take longer,
//! so it needs a credit, which grows by 1% of each call's time. Two calls in a row that contradict a factor by a quarter
//! mean that a device has changed its speed: older runs are forgotten, and other sets are measured again soon.
//!
//! This file knows no clock and no device: times go in, counts come out.

use std::collections::VecDeque;

use crate::memory::shares::{Line, longest, water_fill};

/// Runs of which the median is taken.
const RUNS: usize = 5;
/// A split is left for one whose predicted time is below this part of its own.
const WORTHWHILE: f64 = 0.98;
/// The change of a device's time that means another speed, if two runs in a row show it.
const CHANGE: f64 = 1.25;
/// How much these two runs may differ.
const AGREEMENT: f64 = 1.15;
/// The part of each call's time that may be spent on measuring other sets.
const CREDIT: f64 = 0.01;
/// The credit at first, and the most that is saved, in times of a call.
const FIRST_CREDIT: f64 = 1.5;
const MOST_CREDIT: f64 = 4.0;
/// Calls until a set out of use is measured again, at first and at most.
const FIRST_WAIT: u64 = 8;
const LONGEST_WAIT: u64 = 1 << 14;
/// How much more than their number devices may slow each other down.
const DISTURBANCE: f64 = 1.2;
/// The most devices of which every subset is a candidate.
const ALL_SUBSETS: usize = 4;

/// The most sets that are remembered.
const MAX_SETS: usize = 256;

/// Devices that work at the same time, one bit each.
type Set = u32;

/// The learned state for one kind of call.
#[derive(Debug, Clone)]
pub struct Learner {
    units: usize,
    /// The predicted line of each device; `None` if it cannot take part.
    predicted: Vec<Option<Line>>,
    records: Vec<Record>,
    current: Option<Vec<usize>>,
    calls: u64,
    /// Seconds that may be spent on measuring other sets; `None` before the first call.
    credit: Option<f64>,
}

/// What was measured while one set of devices worked.
#[derive(Debug, Clone)]
struct Record {
    set: Set,
    /// For each device of the learner, its last runs, the newest last.
    runs: Vec<VecDeque<(usize, f64)>>,
    /// The seconds by which the call took longer than its longest share.
    overheads: VecDeque<f64>,
    /// Calls between measurements while it is out of use, and the call from which it may be measured.
    wait: u64,
    due: u64,
}

/// A split with its predicted times.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// The units of each device.
    pub counts: Vec<usize>,
    /// The predicted seconds of each share; 0 for none.
    pub seconds: Vec<f64>,
}

/// A split that is considered.
struct Candidate {
    counts: Vec<usize>,
    seconds: f64,
}

impl Learner {
    /// Nothing is known yet but the predicted lines.
    pub fn new(predicted: Vec<Option<Line>>, units: usize) -> Self {
        Learner { units, predicted, records: vec![], current: None, calls: 0, credit: None }
    }

    /// The split for the next call over the devices that are `available`; `None` if none can take part.
    pub fn choose(&mut self, available: &[bool]) -> Option<Split> {
        let usable: Vec<usize> = (0..self.predicted.len())
            .filter(|&index| available[index] && self.predicted[index].is_some())
            .collect();
        let candidates: Vec<Candidate> =
            self.sets(&usable).into_iter().filter_map(|set| self.candidate(set)).collect();
        let best = candidates.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
        let current = self.current.take().filter(|counts| {
            let set = set_of(counts);
            usable.iter().fold(0, |all, index| all | 1 << index) & set == set
                && best.seconds >= WORTHWHILE * self.seconds(set, counts)
        });
        let counts = current.unwrap_or_else(|| best.counts.clone());
        let seconds = self.seconds(set_of(&counts), &counts);
        let trial = self.trial(&usable, set_of(&counts), seconds);
        self.current = Some(counts.clone());
        self.calls += 1;
        // The time of the first call was only predicted.
        let credit = self.credit.filter(|_| self.calls > 2).unwrap_or(FIRST_CREDIT * seconds);
        let cost = trial.as_ref().map_or(0.0, |trial| (trial.seconds - seconds).max(0.0));
        self.credit = Some((credit - cost + CREDIT * seconds).min(MOST_CREDIT * seconds));
        Some(self.split(trial.map_or(counts, |trial| trial.counts)))
    }

    /// The split without the devices that are not `available`, for work that another device has left. It changes
    /// nothing.
    pub fn divide(&self, available: &[bool], units: usize) -> Option<Split> {
        let set = available.iter().enumerate().fold(0, |set, (index, &is)| set | Set::from(is) << index);
        Some(self.split(water_fill(&self.lines(set), units)?))
    }

    /// A device will not take part in calls of this kind any more.
    pub fn exclude(&mut self, device: usize) {
        self.predicted[device] = None;
    }

    /// What a call took: the units of each device, the seconds of each share, and the seconds of the whole.
    pub fn record(&mut self, counts: &[usize], seconds: &[f64], whole: f64) {
        let set = set_of(counts);
        let longest = seconds.iter().copied().fold(0.0, f64::max);
        if set == 0 || !whole.is_finite() || seconds.iter().any(|it| !it.is_finite() || *it < 0.0) {
            return;
        }
        let (calls, in_use) = (self.calls, self.current.as_deref().map(set_of) == Some(set));
        let index = self.record_of(set);
        let mut changes = vec![];
        for (device, (&units, &seconds)) in counts.iter().zip(seconds).enumerate().filter(|(_, it)| *it.0 > 0)
        {
            let Some(line) = self.predicted[device] else { continue };
            let runs = &mut self.records[index].runs[device];
            let before = factor(runs, line);
            add(runs, (units, seconds.max(1e-9)));
            changes.extend(forget_old_speed(runs, line, before).map(|change| (device, change)));
        }
        let record = &mut self.records[index];
        add(&mut record.overheads, (whole - longest).max(0.0));
        if !in_use {
            record.wait = (record.wait * 2).min(LONGEST_WAIT);
        }
        record.due = calls + record.wait;
        // A device with another speed has it in every set.
        for (device, change) in changes {
            for other in self.records.iter_mut().filter(|it| it.set != set) {
                other.runs[device].iter_mut().for_each(|run| run.1 *= change);
                other.wait = FIRST_WAIT;
                other.due = calls + FIRST_WAIT;
            }
            self.credit = self.credit.map(|credit| credit.max(FIRST_CREDIT * longest));
        }
    }

    /// Whether what was learned should be kept now: after 2, 4, 8 ... calls.
    pub fn is_worth_saving(&self) -> bool {
        self.calls > 1 && self.calls.is_power_of_two()
    }

    /// What was measured, as bytes.
    pub fn saved(&self) -> Vec<u8> {
        let mut numbers = vec![self.units as f64, self.predicted.len() as f64];
        for record in &self.records {
            numbers.extend([f64::from(record.set), record.wait as f64, record.overheads.len() as f64]);
            numbers.extend(&record.overheads);
            for runs in &record.runs {
                numbers.push(runs.len() as f64);
                numbers.extend(runs.iter().flat_map(|&(units, seconds)| [units as f64, seconds]));
            }
        }
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// This learner with what another one [`saved`](Learner::saved); `None` if that is not about such calls.
    pub fn restored(&self, saved: &[u8]) -> Option<Self> {
        let (numbers, []) = saved.as_chunks::<8>() else { return None };
        let mut numbers = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes));
        let devices = self.predicted.len();
        if numbers.next()? != self.units as f64 || numbers.next()? != devices as f64 {
            return None;
        }
        let is_time = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
        let mut restored = self.clone();
        while let Some(set) = numbers.next() {
            let index = restored.record_of(set as Set);
            let record = &mut restored.records[index];
            record.wait = (numbers.next()? as u64).clamp(FIRST_WAIT, LONGEST_WAIT);
            record.due = record.wait;
            for _ in 0..numbers.next().and_then(count)? {
                add(&mut record.overheads, numbers.next().filter(is_time)?);
            }
            for device in 0..devices {
                for _ in 0..numbers.next().and_then(count)? {
                    let (units, seconds) = (numbers.next()?, numbers.next().filter(is_time)?);
                    if !(1.0..=self.units as f64).contains(&units) {
                        return None;
                    }
                    add(&mut record.runs[device], (units as usize, seconds.max(1e-9)));
                }
            }
            if set_of_runs(&record.runs) != record.set || restored.records.len() > MAX_SETS {
                return None;
            }
        }
        Some(restored)
    }

    fn record_of(&mut self, set: Set) -> usize {
        if let Some(index) = self.records.iter().position(|record| record.set == set) {
            return index;
        }
        let runs = vec![VecDeque::new(); self.predicted.len()];
        self.records.push(Record { set, runs, overheads: VecDeque::new(), wait: FIRST_WAIT, due: 0 });
        self.records.len() - 1
    }

    /// The sets that are considered: every subset of few devices; of many, all of them, all but one, and each alone.
    fn sets(&self, usable: &[usize]) -> Vec<Set> {
        let bit = |index: &usize| 1 << *index;
        let all: Set = usable.iter().map(bit).sum();
        if usable.len() <= ALL_SUBSETS {
            return (1..=all).filter(|set| set & all == *set).collect();
        }
        let mut sets = vec![all];
        sets.extend(usable.iter().map(|index| all & !bit(index)));
        sets.extend(usable.iter().map(bit));
        // Devices that get nothing leave a smaller set, which then has measurements of its own.
        sets.extend(self.records.iter().map(|record| record.set).filter(|set| set & all == *set));
        sets
    }

    /// The water-filled split of a set; `None` if a device of it would get nothing.
    fn candidate(&self, set: Set) -> Option<Candidate> {
        let mut counts = water_fill(&self.lines(set), self.units)?;
        if set_of(&counts) != set {
            // Where devices disturb each other, fewer of them have other lines.
            counts = water_fill(&self.lines(set_of(&counts)), self.units)?;
        }
        let set = set_of(&counts);
        Some(Candidate { seconds: self.seconds(set, &counts), counts })
    }

    /// A split to be measured in place of the present one, which takes `seconds`.
    fn trial(&self, usable: &[usize], current: Set, seconds: f64) -> Option<Candidate> {
        let credit = self.credit?;
        let mut best: Option<Candidate> = None;
        for set in self.sets(usable).into_iter().filter(|&set| set != current) {
            let record = self.records.iter().find(|record| record.set == set);
            let wanted = match record {
                Some(record) => self.calls >= record.due,
                None => self.calls >= 2 && self.promises(set, WORTHWHILE * seconds),
            };
            if !wanted {
                continue;
            }
            let Some(trial) = self.forced(set) else { continue };
            let cost = trial.seconds - seconds;
            if cost <= credit && best.as_ref().is_none_or(|best| trial.seconds < best.seconds) {
                best = Some(trial);
            }
        }
        best
    }

    /// Whether a set that was never measured may end before `seconds`, if devices disturbed each other as much as they
    /// can in the sets that were.
    fn promises(&self, set: Set, seconds: f64) -> bool {
        let size = f64::from(set.count_ones());
        let line = |(device, line): (usize, &Option<Line>)| {
            let line = (*line)?;
            if set & 1 << device == 0 {
                return None;
            }
            let bounds = self.records.iter().filter_map(|record| {
                let factor = factor(&record.runs[device], line)?;
                let more = f64::from(record.set.count_ones()) / size;
                match record.set {
                    other if other & set == set => Some(factor / (more * DISTURBANCE)),
                    other if other & set == other => Some(factor / DISTURBANCE.sqrt()),
                    _ => Some(factor / (more.max(1.0) * DISTURBANCE)),
                }
            });
            Some(line.slower(bounds.reduce(f64::max).unwrap_or(0.5)))
        };
        let lines: Vec<Option<Line>> = self.predicted.iter().enumerate().map(line).collect();
        water_fill(&lines, self.units).is_some_and(|counts| longest(&lines, &counts) < seconds)
    }

    /// A split in which each device of `set` has at least a unit.
    fn forced(&self, set: Set) -> Option<Candidate> {
        let lines = self.lines(set);
        let missing = set.count_ones() as usize;
        let mut counts = water_fill(&lines, self.units)?;
        if missing > self.units {
            return None;
        }
        for device in (0..counts.len()).filter(|device| set & 1 << device != 0) {
            if counts[device] == 0 {
                let most = (0..counts.len()).max_by_key(|&other| counts[other])?;
                counts[most] -= 1;
                counts[device] += 1;
            }
        }
        Some(Candidate { seconds: self.seconds(set, &counts), counts })
    }

    /// The line of each device of `set` while the set works, and `None` for the others.
    fn lines(&self, set: Set) -> Vec<Option<Line>> {
        let line = |(device, line): (usize, &Option<Line>)| {
            let line = (*line).filter(|_| set & 1 << device != 0)?;
            let known = self.records.iter().find(|record| record.set == set);
            let known = known.and_then(|record| factor(&record.runs[device], line));
            let others = || {
                let all = self.records.iter().filter_map(|record| factor(&record.runs[device], line));
                all.reduce(f64::min)
            };
            Some(line.slower(known.or_else(others).unwrap_or(1.0)))
        };
        self.predicted.iter().enumerate().map(line).collect()
    }

    /// The predicted seconds of a call.
    fn seconds(&self, set: Set, counts: &[usize]) -> f64 {
        let known = self.records.iter().find(|record| record.set == set);
        let overhead = known.and_then(|record| median(record.overheads.iter().copied())).unwrap_or(0.0);
        longest(&self.lines(set), counts) + overhead
    }

    fn split(&self, counts: Vec<usize>) -> Split {
        let lines = self.lines(set_of(&counts));
        let seconds =
            lines.iter().zip(&counts).map(|(line, &count)| line.map_or(0.0, |it| it.seconds(count)));
        Split { seconds: seconds.collect(), counts }
    }
}

fn set_of(counts: &[usize]) -> Set {
    counts.iter().enumerate().fold(0, |set, (index, &count)| set | Set::from(count > 0) << index)
}

/// The number of runs that a saved number says.
fn count(number: f64) -> Option<usize> {
    (0..=RUNS).find(|&count| count as f64 == number)
}

fn set_of_runs(runs: &[VecDeque<(usize, f64)>]) -> Set {
    runs.iter().enumerate().fold(0, |set, (index, runs)| set | Set::from(!runs.is_empty()) << index)
}

fn add<T>(runs: &mut VecDeque<T>, run: T) {
    if runs.len() == RUNS {
        runs.pop_front();
    }
    runs.push_back(run);
}

/// The median; of an even number of values, the lower of the middle two.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().wrapping_sub(1) / 2).copied()
}

/// How many times longer than `line` the last runs of about the newest share's size took; `None` without runs.
fn factor(runs: &VecDeque<(usize, f64)>, line: Line) -> Option<f64> {
    let &(newest, _) = runs.back()?;
    let near = |units: usize| units.abs_diff(newest) * 8 <= newest.max(8);
    let factors = |is_near: bool| {
        let runs = runs.iter().filter(move |run| near(run.0) == is_near);
        runs.map(move |&(units, seconds)| seconds / line.seconds(units))
    };
    let known = median(factors(true))?;
    match (factors(true).count(), median(factors(false))) {
        // One slow run of a new share is no proof.
        (1, Some(others)) => Some(known.min(CHANGE * others)),
        _ => Some(known),
    }
}

/// Keeps the newest two runs alone if both contradict the factor `before` them in the same way. Returns by how much the
/// device's times have changed, if so.
fn forget_old_speed(runs: &mut VecDeque<(usize, f64)>, line: Line, before: Option<f64>) -> Option<f64> {
    let before = before.filter(|_| runs.len() > 2)?;
    let newest = runs.iter().rev().take(2).map(|&(units, seconds)| seconds / line.seconds(units) / before);
    let changes: Vec<f64> = newest.collect();
    let [a, b] = changes[..] else { return None };
    // Disturbances differ from each other; a speed is what both runs agree on.
    let agree = a.max(b) <= AGREEMENT * a.min(b);
    if !agree || (a.min(b) < CHANGE && a.max(b) > 1.0 / CHANGE) {
        return None;
    }
    runs.drain(..runs.len() - 2);
    median(changes.into_iter())
}

//! The record of N rates: the moments at which they were measured, and when to measure again.
//!
//! All times are seconds since 1970, given by the caller. More is better for every rate.

use super::watch::Doubt;
use super::{MeasuredRate, Measurements};
use crate::store::Stored;

/// The number of moments that a record keeps. The best rate is forgotten when so many later moments did not reach it.
pub const MOMENTS: usize = 8;
/// Moments that a record has before it can be sure.
const MIN_SURE: usize = 3;
/// Seconds between two attempts of a record that is not sure. A disturbance often lasts some minutes.
const APART: u64 = 600;
/// Seconds until a doubted record is measured again. Doubled for each attempt that did not change it.
const RETRY: u64 = 60;
/// Maximum number of doublings: 17 hours.
const MAX_DOUBLINGS: u32 = 10;
/// Age in seconds at which a record is measured again in any case: 30 days. Cooling, firmware or the host may change.
const MAX_AGE: u64 = 30 * 24 * 3600;
/// The layout of stored records. Records of another layout are not used.
const LAYOUT: f64 = 1.0;

/// What a rate is, and which values are plausible.
#[derive(Debug)]
pub struct RateInfo {
    /// What it is the rate of.
    pub name: &'static str,
    /// The unit in which it is shown, and how many of the measured unit that is.
    pub unit: (&'static str, f64),
    /// The least and the largest plausible value.
    pub range: (f64, f64),
    /// Whether 0 is plausible, too: some machines do not have what it measures.
    pub optional: bool,
    /// The relative difference within which two moments agree.
    pub tolerance: f64,
}

impl RateInfo {
    fn is_plausible(&self, value: f64) -> bool {
        (self.range.0..=self.range.1).contains(&value) || (self.optional && value == 0.0)
    }

    /// Whether `value` is as good as `best`.
    fn agrees(&self, value: f64, best: f64) -> bool {
        value >= best * (1.0 - self.tolerance)
    }
}

/// The rates measured at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Moment<const N: usize> {
    at: u64,
    rates: [f64; N],
}

/// What was measured of N rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record<const N: usize> {
    /// The oldest first. Only the first `count` are valid.
    moments: [Moment<N>; MOMENTS],
    /// At least 1.
    count: usize,
    /// The last attempt to measure.
    tried: u64,
    /// Attempts in a row that a doubt caused and that changed nothing.
    fruitless: u32,
    doubt: Option<Doubt>,
}

impl<const N: usize> Record<N> {
    /// The record of a first measurement.
    pub fn new(at: u64, rates: [f64; N]) -> Self {
        Record { moments: [Moment { at, rates }; MOMENTS], count: 1, tried: at, fruitless: 0, doubt: None }
    }

    fn moments(&self) -> &[Moment<N>] {
        &self.moments[..self.count]
    }

    /// The time of the last attempt to measure.
    pub fn tried(&self) -> u64 {
        self.tried
    }

    /// The best value of each rate.
    pub fn rates(&self) -> [f64; N] {
        std::array::from_fn(|index| self.best_two(index).0)
    }

    /// The best value of a rate, and the second best.
    fn best_two(&self, index: usize) -> (f64, f64) {
        self.moments().iter().map(|moment| moment.rates[index]).fold((0.0, 0.0), |(best, second), value| {
            if value > best { (value, best) } else { (best, value.max(second)) }
        })
    }

    /// Adds a measurement. One on a machine that others used (`quiet` is false), or within a minute of the last moment,
    /// may improve the last moment but is not another one.
    pub fn add(&mut self, infos: &[RateInfo; N], at: u64, rates: [f64; N], quiet: bool) {
        let before = self.rates();
        let last = &mut self.moments[self.count - 1];
        if !quiet || at.saturating_sub(last.at) < RETRY {
            last.rates = std::array::from_fn(|index| last.rates[index].max(rates[index]));
        } else {
            if self.count == MOMENTS {
                self.moments.rotate_left(1);
            } else {
                self.count += 1;
            }
            self.moments[self.count - 1] = Moment { at, rates };
        }
        self.tried = at;
        let after = self.rates();
        let same = infos
            .iter()
            .zip(before.into_iter().zip(after))
            .all(|(info, (before, after))| info.agrees(before, after) && info.agrees(after, before));
        if !same {
            self.fruitless = 0;
        } else if self.doubt.is_some() {
            self.fruitless = (self.fruitless + 1).min(MAX_DOUBLINGS);
        }
        self.doubt = None;
    }

    /// Notes that calls contradict the rates. Returns whether that is news.
    pub fn set_doubt(&mut self, doubt: Doubt) -> bool {
        let is_news = self.doubt.is_none();
        self.doubt.get_or_insert(doubt);
        is_news
    }

    /// Whether calls have contradicted the rates for long enough that they should be measured again.
    pub fn is_refuted(&self, now: u64) -> bool {
        self.doubt.is_some() && self.age(now) >= RETRY << self.fruitless
    }

    /// Whether another moment would make the rates surer.
    pub fn is_young(&self, infos: &[RateInfo; N], now: u64) -> bool {
        let unsure = self.count < MOMENTS && !self.is_sure(infos);
        self.age(now) >= if unsure { APART } else { MAX_AGE }
    }

    /// Seconds since the last attempt. A time in the future is a mistake of a clock, so the record counts as old.
    fn age(&self, now: u64) -> u64 {
        now.checked_sub(self.tried).unwrap_or(u64::MAX)
    }

    /// Whether at least three moments exist and each rate was reached at two of them.
    pub fn is_sure(&self, infos: &[RateInfo; N]) -> bool {
        let reached_twice = |(index, info): (usize, &RateInfo)| {
            let (best, second) = self.best_two(index);
            info.agrees(second, best)
        };
        self.count >= MIN_SURE && infos.iter().enumerate().all(reached_twice)
    }

    /// Whether all rates are plausible.
    pub fn is_plausible(&self, infos: &[RateInfo; N]) -> bool {
        self.moments()
            .iter()
            .all(|moment| infos.iter().zip(moment.rates).all(|(info, value)| info.is_plausible(value)))
    }

    /// The record as users see it.
    pub fn measurements(&self, what: &'static str, infos: &[RateInfo; N]) -> Measurements {
        let rate = |(index, info): (usize, &RateInfo)| {
            let (best, second) = self.best_two(index);
            let agreement = (self.count > 1).then_some(second / best);
            (best > 0.0).then(|| MeasuredRate {
                name: info.name,
                unit: info.unit.0,
                value: best / info.unit.1,
                agreement,
            })
        };
        Measurements {
            what,
            rates: infos.iter().enumerate().filter_map(rate).collect(),
            moments: self.count,
            first: self.moments[0].at,
            last: self.tried,
            sure: self.is_sure(infos),
            doubt: self.doubt.map(Doubt::words),
        }
    }
}

/// As numbers: the layout, N, the number of moments, the last attempt, the fruitless ones, the doubt; then each moment's
/// time and rates.
impl<const N: usize> Stored for Record<N> {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let doubt = self.doubt.map_or(0.0, |doubt| f64::from(doubt as u8));
        let head = [LAYOUT, N as f64, self.count as f64, self.tried as f64, self.fruitless.into(), doubt];
        let moments = self.moments().iter().flat_map(|it| std::iter::once(it.at as f64).chain(it.rates));
        Some(head.into_iter().chain(moments).flat_map(f64::to_le_bytes).collect())
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let mut numbers = numbers.iter().copied().map(f64::from_le_bytes);
        let (layout, len, count) = (numbers.next()?, numbers.next()?, whole(numbers.next()?)? as usize);
        let (tried, fruitless, doubt) =
            (whole(numbers.next()?)?, whole(numbers.next()?)? as u32, whole(numbers.next()?)?);
        let fits = (1..=MOMENTS).contains(&count) && fruitless <= MAX_DOUBLINGS;
        if layout != LAYOUT || len != N as f64 || !fits || !rest.is_empty() {
            return None;
        }
        let doubt = if doubt == 0 { None } else { Some(Doubt::from_number(doubt)?) };
        let mut moments = [Moment { at: 0, rates: [0.0; N] }; MOMENTS];
        for moment in &mut moments[..count] {
            moment.at = whole(numbers.next()?)?;
            for rate in &mut moment.rates {
                *rate = numbers.next()?;
            }
        }
        let record = Record { moments, count, tried, fruitless, doubt };
        numbers.next().is_none().then_some(record)
    }
}

/// A count, or a time before the year 2096. Anything else is nonsense.
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..4e9).contains(&number)).then_some(number as u64)
}

#[cfg(test)]
mod tests;

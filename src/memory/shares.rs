//! Cuts work into shares for several devices.
//!
//! A device computes a share of n > 0 units in T(n) = start + n / rate; without a share it takes no time. The best cut
//! makes the last device end as early as possible. It is found by water-filling: a level rises, and at a level L each
//! device holds the units that it can end by then, floor((L - start) rate). The lowest level that holds all units is
//! the answer. In whole units this is the greedy rule "the next unit goes where it ends first", which is optimal
//! because each T grows with n.

/// The time of a share on a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Seconds before the first unit.
    pub start: f64,
    /// Units per second; positive.
    pub rate: f64,
}

impl Line {
    /// The line through the times of `few` and of `many` units. Times that do not grow give a line through the origin.
    pub fn through((few, few_seconds): (usize, f64), (many, many_seconds): (usize, f64)) -> Self {
        let slope = (many_seconds - few_seconds) / (many as f64 - few as f64);
        let start = few_seconds - slope * few as f64;
        if many > few && slope > 0.0 && start >= 0.0 {
            return Line { start, rate: 1.0 / slope };
        }
        Line { start: 0.0, rate: many as f64 / many_seconds }
    }

    /// Seconds for `units` units.
    pub fn seconds(&self, units: usize) -> f64 {
        if units == 0 { 0.0 } else { self.start + units as f64 / self.rate }
    }

    /// The line of a device that takes `factor` times as long.
    pub fn slower(&self, factor: f64) -> Self {
        Line { start: self.start * factor, rate: self.rate / factor }
    }

    fn is_usable(&self) -> bool {
        self.start.is_finite() && self.start >= 0.0 && self.rate.is_finite() && self.rate > 0.0
    }
}

/// The units for each of `lines`, so that the last share ends as early as possible. `None` is a device that takes no
/// part. Ties go to the device that comes first. Returns `None` if no device can take part.
pub fn water_fill(lines: &[Option<Line>], units: usize) -> Option<Vec<usize>> {
    let usable: Vec<(usize, Line)> =
        lines.iter().enumerate().filter_map(|(index, line)| Some((index, (*line)?))).collect();
    let usable: Vec<(usize, Line)> = usable.into_iter().filter(|(_, line)| line.is_usable()).collect();
    if usable.is_empty() {
        return None;
    }
    let mut counts = vec![0; lines.len()];
    // Slightly below the level at which fractions of units would fit, so that rounding never gives too many.
    let level = level(&usable, units as f64) * (1.0 - 1e-9);
    let mut left = units;
    for (index, line) in &usable {
        let room = ((level - line.start) * line.rate).floor().max(0.0);
        counts[*index] = (room as usize).min(left);
        left -= counts[*index];
    }
    for _ in 0..left {
        let end = |(index, line): &(usize, Line)| line.seconds(counts[*index] + 1);
        let first = usable.iter().min_by(|a, b| end(a).total_cmp(&end(b)))?;
        counts[first.0] += 1;
    }
    Some(counts)
}

/// The lowest level at which the devices hold `units` units, fractions included.
fn level(lines: &[(usize, Line)], units: f64) -> f64 {
    let mut starts: Vec<Line> = lines.iter().map(|(_, line)| *line).collect();
    starts.sort_by(|a, b| a.start.total_cmp(&b.start));
    let (mut rate, mut offset, mut level) = (0.0, 0.0, f64::INFINITY);
    for line in starts {
        // A device that starts above the level of those before it stays empty.
        if line.start >= level {
            break;
        }
        rate += line.rate;
        offset += line.start * line.rate;
        level = (units + offset) / rate;
    }
    level
}

/// The units for devices with fixed weights: proportional, rounded by the largest remainders; ties go to the device
/// that comes first. Weights are positive.
pub fn by_weight(weights: &[f64], units: usize) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| units as f64 * (weight / total)).collect();
    let mut counts: Vec<usize> = exact.iter().map(|share| share.floor() as usize).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())));
    let given: usize = counts.iter().sum();
    for &index in order.iter().cycle().take(units.saturating_sub(given)) {
        counts[index] += 1;
    }
    // Rounding of huge numbers may have given too many.
    let mut excess = counts.iter().sum::<usize>() - units;
    for count in counts.iter_mut().rev() {
        let taken = excess.min(*count);
        *count -= taken;
        excess -= taken;
    }
    counts
}

/// The time of the longest share.
pub fn longest(lines: &[Option<Line>], counts: &[usize]) -> f64 {
    let seconds = |(line, &count): (&Option<Line>, &usize)| match (line, count) {
        (_, 0) => 0.0,
        (None, _) => f64::INFINITY,
        (Some(line), _) => line.seconds(count),
    };
    lines.iter().zip(counts).map(seconds).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::exact::Random;

    /// The least possible time of the longest share, over all cuts.
    fn best(lines: &[Option<Line>], units: usize) -> f64 {
        fn cut(lines: &[Option<Line>], counts: &mut Vec<usize>, left: usize, best: &mut f64) {
            if counts.len() + 1 == lines.len() {
                counts.push(left);
                *best = best.min(longest(lines, counts));
                counts.pop();
                return;
            }
            for count in 0..=left {
                counts.push(count);
                cut(lines, counts, left - count, best);
                counts.pop();
            }
        }
        let mut best_time = f64::INFINITY;
        cut(lines, &mut vec![], units, &mut best_time);
        best_time
    }

    fn line(start: f64, rate: f64) -> Option<Line> {
        Some(Line { start, rate })
    }

    #[test]
    fn no_cut_of_a_thousand_random_cases_is_better() {
        let mut random = Random::new(20);
        let mut shared = 0;
        for _ in 0..1000 {
            let devices = random.between(1, 4) as usize;
            let units = random.between(1, 14) as usize;
            let lines: Vec<Option<Line>> = (0..devices)
                .map(|index| {
                    // One in five takes no part, but never all.
                    let takes_part = index == 0 || random.between(0, 4) > 0;
                    let start = random.between(0, 40) as f64 / 10.0;
                    let rate = random.between(1, 30) as f64 / 10.0;
                    takes_part.then_some(Line { start, rate })
                })
                .collect();
            let counts = water_fill(&lines, units).unwrap();
            assert_eq!(counts.iter().sum::<usize>(), units);
            let (got, best) = (longest(&lines, &counts), best(&lines, units));
            assert!(
                got <= best * (1.0 + 1e-12),
                "{lines:?}, {units} units: {counts:?} takes {got}, not {best}"
            );
            shared += usize::from(counts.iter().filter(|&&count| count > 0).count() > 1);
        }
        assert!(shared > 300, "{shared}");
    }

    /// With many units the time is that of the level with fractions, plus less than a unit on the slowest device.
    #[test]
    fn many_units_reach_the_level() {
        let lines = [line(0.5, 3e6), line(0.0, 1e6), line(2.0, 7e5), line(1e9, 1e9)];
        let units = 10_000_000;
        let counts = water_fill(&lines, units).unwrap();
        assert_eq!((counts.iter().sum::<usize>(), counts[3]), (units, 0));
        // (units + 0.5 * 3e6 + 2.0 * 7e5) / (3e6 + 1e6 + 7e5)
        let level = 12_900_000.0 / 4_700_000.0;
        let longest = longest(&lines, &counts);
        assert!(longest >= level * (1.0 - 1e-12) && longest < level + 1.0 / 7e5, "{longest}, {level}");
    }

    #[test]
    fn devices_that_cannot_take_part_get_nothing() {
        let bad =
            [line(f64::NAN, 1.0), line(0.0, 0.0), line(0.0, f64::INFINITY), line(f64::INFINITY, 1.0), None];
        assert_eq!(water_fill(&bad, 3), None);
        let mut lines = bad.to_vec();
        lines.push(line(5.0, 0.1));
        assert_eq!(water_fill(&lines, 3), Some(vec![0, 0, 0, 0, 0, 3]));
        assert_eq!(water_fill(&lines, 0), Some(vec![0; 6]));
        assert_eq!(water_fill(&[], 1), None);
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(water_fill(&[line(0.0, 1.0); 3], 4), Some(vec![2, 1, 1]));
        assert_eq!(by_weight(&[1.0; 3], 4), [2, 1, 1]);
    }

    #[test]
    fn weights_are_kept_to_within_a_unit() {
        assert_eq!(by_weight(&[1.0, 2.0, 1.0], 8), [2, 4, 2]);
        assert_eq!(by_weight(&[1.0, 2.0], 1), [0, 1]);
        assert_eq!(by_weight(&[1.0], 7), [7]);
        let mut random = Random::new(21);
        for _ in 0..1000 {
            let weights: Vec<f64> =
                (0..random.between(1, 6)).map(|_| random.between(1, 1000) as f64 / 7.0).collect();
            let units = random.between(0, 5000) as usize;
            let (counts, total) = (by_weight(&weights, units), weights.iter().sum::<f64>());
            assert_eq!(counts.iter().sum::<usize>(), units);
            for (count, weight) in counts.iter().zip(&weights) {
                assert!(
                    (*count as f64 - units as f64 * weight / total).abs() < 1.0,
                    "{weights:?} {counts:?}"
                );
            }
        }
    }

    #[test]
    fn a_line_goes_through_two_times() {
        let line = Line::through((1, 3.0), (5, 11.0));
        assert_eq!((line.start, line.rate, line.seconds(1), line.seconds(5)), (1.0, 0.5, 3.0, 11.0));
        assert_eq!((line.seconds(0), line.slower(2.0).seconds(5)), (0.0, 22.0));
        // Times that fall, or one number of units only.
        for (few, many) in [((1, 3.0), (4, 2.0)), ((4, 2.0), (4, 2.0))] {
            let line = Line::through(few, many);
            assert_eq!((line.start, line.rate), (0.0, 2.0));
        }
    }
}

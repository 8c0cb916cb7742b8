//! Statistics for reports.

use std::time::Duration;

/// The median of `times`; for an even number, the mean of the two in the middle. `None` for no times.
pub fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[sorted.len() / 2 - 1] + upper) / 2 })
}

/// The geometric mean of `values`; as a mean of rates, it weighs all layers equally. `None` for no values, or if a
/// value is not positive and finite.
pub fn geomean(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite() || *value <= 0.0) {
        return None;
    }
    Some((values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_call_does_not_change_the_median() {
        let ms = |times: &[u64]| times.iter().map(|&time| Duration::from_millis(time)).collect::<Vec<_>>();
        assert_eq!(median(&ms(&[3, 900, 1])), Some(Duration::from_millis(3)));
        assert_eq!(median(&ms(&[4, 1, 2, 900])), Some(Duration::from_millis(3)));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_geometric_mean_of_rates() {
        assert!((geomean(&[1.0, 10.0, 100.0]).unwrap() - 10.0).abs() < 1e-12);
        assert_eq!((geomean(&[]), geomean(&[1.0, 0.0]), geomean(&[f64::INFINITY])), (None, None, None));
    }
}

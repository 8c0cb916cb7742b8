//! Tables of an experiment, at most 80 columns wide.

use sparkle::memory::patterns::Pattern;
use sparkle::report::attribution::{Estimate, Verdict, harmonic, kendall};

use super::record::{Record, Result, Workload};
use crate::console::{Console, wrapped};

const NAME: usize = 16;

fn row(name: &str, cells: &[String]) -> String {
    let name: String = name.chars().take(NAME).collect();
    let cells: String = cells.iter().map(|cell| format!(" {cell:>7}")).collect();
    format!("{name:<NAME$}{cells}").trim_end().to_owned()
}

fn factor(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "?".to_owned(),
        _ if value >= 99.5 => format!("{value:.0}"),
        _ if value >= 9.95 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The factor of a pattern in a workload: the Shapley value, or in quick experiments the geometric mean of its two ends.
pub fn worth(workload: &Workload, result: &Result, pattern: Pattern) -> Option<(f64, bool)> {
    let place = workload.patterns().iter().position(|&it| it == pattern)?;
    if let Some(attribution) = &result.attribution {
        return attribution.worth.get(place).map(|worth| (worth.shapley.value, true));
    }
    result.ends.get(place).map(|[first, last]| ((first.value * last.value).sqrt(), false))
}

/// Prints one record.
pub fn print(record: &Record, console: &mut Console) {
    let results = record.results();
    let settings = &record.settings;
    console.line(wrapped("", 2, &format!("{}: {}", record.device.id, record.device.title())));
    let what = if settings.quick {
        "a quick look: means of the first and the last factor"
    } else {
        "Shapley factors"
    };
    let (processes, rounds) = (settings.processes, settings.rounds);
    console.line(wrapped("", 2, &format!("{what}; processes of {rounds} rounds: {processes}")));
    let letters = Pattern::ALL.map(|it| it.letter().to_string());
    let titles = ["all/0", "GFLOPS", "of peak"].map(str::to_owned);
    console.line(row("workload", &[&letters[..], &titles[..]].concat()));
    for (workload, result) in record.workloads.iter().zip(&results) {
        let cell = |pattern| worth(workload, result, pattern).map_or("-".to_owned(), |it| factor(it.0));
        let mut cells: Vec<String> = Pattern::ALL.into_iter().map(cell).collect();
        cells.push(result.attribution.as_ref().map_or("-".to_owned(), |it| factor(it.whole.value)));
        cells.push(format!("{:.1}", result.gflops));
        cells.push(format!("{:.2}", result.share));
        console.line(row(&workload.name, &cells));
    }
    let means = record.means(&results);
    if means.iter().any(|mean| mean.factor.is_some()) {
        let cells = |of: &dyn Fn(&super::record::Mean) -> Option<String>| -> Vec<String> {
            means.iter().map(|mean| of(mean).unwrap_or("-".to_owned())).collect()
        };
        console.line(row("geometric mean", &cells(&|mean| mean.factor.map(|it| factor(it.value)))));
        console.line(row("  from", &cells(&|mean| mean.factor.map(|it| factor(it.low)))));
        console.line(row("  to", &cells(&|mean| mean.factor.map(|it| factor(it.high)))));
        console.line(row("verdict", &cells(&|mean| mean.verdict.map(|it| it.word().to_owned()))));
    }
    instrument(record, &results).iter().for_each(|text| console.line(wrapped("", 2, text)));
    let names: Vec<String> = Pattern::ALL.iter().map(|it| format!("{} {}", it.letter(), it.name())).collect();
    console.line(wrapped("", 2, &format!("{}; - does not apply or was not measured", names.join(", "))));
    console.line("");
}

/// What the instrument is worth, as lines.
pub fn instrument(record: &Record, results: &[Result]) -> Vec<String> {
    let off = |it: &Estimate| (it.value - 1.0).abs();
    let again = results.iter().filter_map(|it| it.again.as_ref()).map(off).fold(0.0, f64::max);
    let widest = results
        .iter()
        .filter_map(|it| it.attribution.as_ref())
        .flat_map(|it| &it.worth)
        .map(|it| it.shapley.high / it.shapley.low - 1.0)
        .fold(0.0, f64::max);
    let wrong = record.workloads.iter().flat_map(|it| &it.wrong).filter(|&&wrong| wrong > 0).count();
    let cells: usize = record.workloads.iter().map(|it| it.cells.len()).sum();
    let share = record.workloads.iter().map(Workload::highest_share).fold(0.0, f64::max);
    let over = results.iter().filter_map(|it| it.over_product.as_ref()).map(|it| it.value);
    let least = over.fold(f64::INFINITY, f64::min);
    let yes = |good: bool| if good { "passes" } else { "fails" };
    let mut lines = vec![
        format!(
            "instrument: all patterns measured twice differ by at most {:.1} %: {} (1 %)",
            100.0 * again,
            yes(again <= 0.01)
        ),
        format!("cells exact on integers: {} of {cells}: {}", cells - wrong, yes(wrong == 0)),
        format!("highest share of the ceiling {share:.2}: {}", yes(share <= 1.0)),
    ];
    if widest > 0.0 {
        lines.push(format!("widest interval {:.1} %: {} (3 %)", 100.0 * widest, yes(widest <= 0.03)));
    }
    if least.is_finite() {
        lines.push(format!(
            "the switchable kernel reaches at least {least:.2} of the product's: {} (0.90)",
            yes(least >= 0.9)
        ));
    }
    lines
}

/// The claims over several records, as lines.
pub fn claims(records: &[Record]) -> Vec<String> {
    let full: Vec<(&Record, Vec<Result>)> =
        records.iter().filter(|it| !it.settings.quick).map(|it| (it, it.results())).collect();
    if full.is_empty() {
        return vec!["claims: quick experiments decide nothing".to_owned()];
    }
    let mut lines = vec![];
    let mut refuted = vec![];
    for (record, results) in &full {
        for mean in record.means(results) {
            if let Some(verdict) = mean.verdict.filter(|&it| it != Verdict::Holds) {
                refuted.push(format!("{} {} on {}", mean.letter, verdict.word(), record.device.title()));
            }
        }
    }
    lines.push(match &refuted[..] {
        [] => "H1, same sign: every pattern holds on every device recorded".to_owned(),
        all => format!("H1, same sign: not accepted. {}", all.join("; ")),
    });
    lines.push(match rank_agreement(&full) {
        None => "H2, same importance: needs records of two classes with common workloads".to_owned(),
        Some(tau) => {
            let word = if tau >= 0.6 { "accepted" } else { "refuted" };
            format!("H2, same importance: Kendall's tau at least {tau:.2}: {word} (0.60)")
        }
    });
    let shares: Vec<f64> = full.iter().flat_map(|(_, results)| results.iter().map(|it| it.share)).collect();
    let (least, most) = shares.iter().fold((f64::INFINITY, 0.0f64), |(l, m), &it| (l.min(it), m.max(it)));
    let good = least >= 0.6 && most / least <= 1.5;
    let portability = harmonic(&shares).map_or("?".to_owned(), |it| format!("{it:.2}"));
    lines.push(format!(
        "H3, sufficiency: shares of the ceiling {least:.2} to {most:.2}, harmonic mean {portability}: {} (least 0.60, \
         ratio 1.5)",
        if good { "accepted" } else { "refuted" }
    ));
    let classes: Vec<String> = full.iter().map(|(it, _)| it.device.title()).collect();
    lines.push(format!("scope: {}. Nothing is said of other devices.", classes.join("; ")));
    lines
}

/// The least Kendall tau of any two classes over all pairs of pattern and workload that both measured.
fn rank_agreement(full: &[(&Record, Vec<Result>)]) -> Option<f64> {
    let worths = |(record, results): &(&Record, Vec<Result>)| -> Vec<((String, char), f64)> {
        let of = |(workload, result): (&Workload, &Result)| -> Vec<((String, char), f64)> {
            let each = |pattern: Pattern| {
                let value = worth(workload, result, pattern)?.0;
                Some(((workload.name.clone(), pattern.letter()), value))
            };
            Pattern::ALL.into_iter().filter_map(each).collect()
        };
        record.workloads.iter().zip(results).flat_map(of).collect()
    };
    let mut least: Option<f64> = None;
    for (index, one) in full.iter().enumerate() {
        for other in &full[..index] {
            if one.0.device.class == other.0.device.class {
                continue;
            }
            let theirs = worths(other);
            let find = |key: &(String, char)| theirs.iter().find(|it| it.0 == *key).map(|it| it.1);
            let pairs: Vec<(f64, f64)> =
                worths(one).into_iter().filter_map(|(key, value)| Some((value, find(&key)?))).collect();
            let (mine, theirs): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            if let Some(tau) = kendall(&mine, &theirs) {
                least = Some(least.map_or(tau, |least| least.min(tau)));
            }
        }
    }
    least
}

/// Prints what several records say together.
pub fn compare(records: &[Record], console: &mut Console) {
    claims(records).iter().for_each(|text| console.line(wrapped("", 2, text)));
}

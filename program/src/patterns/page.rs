//! The page of an experiment: HTML that stands by itself.

use std::fmt::Write;

use sparkle::memory::patterns::Pattern;
use sparkle::report::attribution::Estimate;

use super::picture::{escaped, heat_map, roofline, waterfall};
use super::record::{Record, Result};
use super::table::{claims, instrument, worth};

const STYLE: &str = "body{font:16px/1.5 Helvetica,Arial,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#1f1f1f}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}small{color:#666}";

fn table(page: &mut String, titles: &[String], rows: &[Vec<String>]) {
    let cells = |tag: &str, cells: &[String]| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect()
    };
    let _ = writeln!(page, "<table><tr>{}</tr>", cells("th", titles));
    for row in rows {
        let _ = writeln!(page, "<tr>{}</tr>", cells("td", row));
    }
    page.push_str("</table>\n");
}

fn interval(it: &Estimate) -> String {
    format!("{:.2} ({:.2} to {:.2})", it.value, it.low, it.high)
}

/// The page of some records.
pub fn page(records: &[Record]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>What memory patterns are worth</title>\n<style>{STYLE}</style>\n\
         <h1>What memory patterns are worth</h1>\n<p>A factor is how much faster a device computes with a pattern than \
         without it: its Shapley value, the mean over all orders of turning patterns on. Intervals are 95 % bootstraps over \
         rounds within processes. <b>holds</b>: above 1.02; <b>nothing</b>: within 0.98 to 1.02; <b>harms</b>: below 0.98; \
         <b>open</b>: anything else.</p>\n"
    );
    let all: Vec<(&Record, Vec<Result>)> = records.iter().map(|record| (record, record.results())).collect();
    let rows: Vec<_> = all
        .iter()
        .filter(|(record, _)| !record.settings.quick)
        .map(|(record, results)| (record.device.title(), record.means(results)))
        .collect();
    if !rows.is_empty() {
        page.push_str(&heat_map(&rows));
    }
    for claim in claims(records) {
        let _ = writeln!(page, "<p>{}</p>", escaped(&claim));
    }
    for (record, results) in &all {
        let _ = writeln!(page, "<h2>{}</h2>", escaped(&record.device.title()));
        let means = record.means(results);
        let factors: Vec<(Pattern, Estimate)> =
            Pattern::ALL.into_iter().zip(&means).filter_map(|(it, mean)| Some((it, mean.factor?))).collect();
        if !factors.is_empty() {
            page.push_str(&waterfall("Geometric mean over the workloads", &factors));
        }
        page.push_str(&roofline(record));
        workloads(&mut page, record, results);
        for text in instrument(record, results) {
            let _ = writeln!(page, "<p><small>{}</small></p>", escaped(&text));
        }
    }
    page + "</html>\n"
}

/// The tables of a record's workloads.
fn workloads(page: &mut String, record: &Record, results: &[Result]) {
    let letters = Pattern::ALL.map(|it| it.name().to_owned());
    let titles =
        [&["workload".to_owned()][..], &letters, &["GFLOPS".to_owned(), "of the ceiling".to_owned()]]
            .concat();
    let row = |(workload, result)| {
        let workload: &super::record::Workload = workload;
        let result: &Result = result;
        let cell = |pattern: Pattern| {
            let place = workload.patterns().iter().position(|&it| it == pattern);
            match (place, &result.attribution) {
                (Some(place), Some(found)) => interval(&found.worth[place].shapley),
                _ => worth(workload, result, pattern).map_or("-".to_owned(), |it| format!("{:.2}", it.0)),
            }
        };
        let mut cells = vec![workload.name.clone()];
        cells.extend(Pattern::ALL.into_iter().map(cell));
        cells.extend([format!("{:.1}", result.gflops), format!("{:.2}", result.share)]);
        cells
    };
    let rows: Vec<_> = record.workloads.iter().zip(results).map(row).collect();
    table(page, &titles, &rows);
    let mut details = vec![];
    for (workload, result) in record.workloads.iter().zip(results) {
        let Some(found) = &result.attribution else { continue };
        for (pattern, worth) in workload.patterns().into_iter().zip(&found.worth) {
            details.push(vec![
                workload.name.clone(),
                pattern.name().to_owned(),
                interval(&worth.first_in),
                interval(&worth.last_in),
                format!("{:.2} to {:.2}", worth.range[0], worth.range[1]),
                worth.verdict.word().to_owned(),
            ]);
        }
        if let Some(([one, other], factor)) = found.pair {
            let name = |place: usize| workload.patterns()[place].name();
            let pair = format!("{} with {}", name(one), name(other));
            details.push(vec![
                workload.name.clone(),
                pair,
                format!("x {factor:.2}"),
                String::new(),
                String::new(),
                "strongest pair".to_owned(),
            ]);
        }
        if let Some(halves) = &result.halves {
            for (name, half) in ["tiling for registers", "tiling for caches"].into_iter().zip(halves) {
                let cells =
                    [name.to_owned(), String::new(), interval(half), String::new(), "last in".to_owned()];
                details.push([vec![workload.name.clone()], cells.to_vec()].concat());
            }
        }
    }
    if !details.is_empty() {
        page.push_str("<details><summary>First in, last in, range and interactions</summary>\n");
        let titles = ["workload", "pattern", "first in", "last in", "range", "verdict"].map(str::to_owned);
        table(page, &titles, &details);
        page.push_str("</details>\n");
    }
}

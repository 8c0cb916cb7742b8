//! What `sparkle info` says about this CPU.

use std::time::SystemTime;

use super::isa::{self, Isa, with_kernel};
use super::kernels::Kernel;
use super::pool::num_threads;
use super::rates::Measurements;
use super::{caches, calibrate, ceilings, feeding};
use crate::memory::tile::register_tiles;
use crate::memory::{Ceilings, Hierarchy};

/// Name and facts of this CPU, for `sparkle info`.
pub fn describe() -> (String, Vec<(&'static str, String)>) {
    let (names, tile) = with_kernel!(Isa::best(), kernel => (names(kernel), tile(kernel)));
    let mut facts = vec![
        ("features", isa::features().join(" ")),
        ("kernels", names),
        ("register tile", tile),
        ("caches", caches::words(&caches::described().caches)),
        ("threads", num_threads().to_string()),
    ];
    if caches::reported() != caches::described().caches {
        let reported = caches::words(&caches::reported());
        facts.push(("caches as reported", format!("{reported}; SPARKLE_CACHES corrects them")));
    }
    // Listing devices must not trigger a measurement.
    if let Some(known) = ceilings::known(num_threads()) {
        facts.push(("last cache", last_cache(&known)));
    }
    if let (Some(rates_known), Some(known)) = (calibrate::known(num_threads()), measurements().first()) {
        facts.push(("measured", rates(&rates_known)));
        facts.push(("measured when", when(known, now())));
    }
    (isa::model().to_owned(), facts)
}

/// What was measured on this CPU by this process or an earlier one, for the current number of threads. Measures nothing.
pub fn measurements() -> Vec<Measurements> {
    let all = [
        calibrate::measurements(num_threads()),
        feeding::measurements(),
        ceilings::measurements(num_threads()),
    ];
    all.into_iter().flatten().collect()
}

/// The last cache as it is described and as reads see it.
fn last_cache(ceilings: &Ceilings) -> String {
    let size = |bytes: usize| if bytes == 0 { "none".to_owned() } else { format!("{} KiB", bytes >> 10) };
    let described = format!("{} reported", size(ceilings.described));
    match ceilings.seen {
        None => format!("{described}; measured: reads of no size were clearly slower"),
        Some(seen) => {
            let verdict = match ceilings.is_implausible() {
                true => format!(": implausible; set SPARKLE_CACHES=l3={}M", seen.div_ceil(1 << 20)),
                false => String::new(),
            };
            format!("{described}; measured: reads slow down beyond {}{verdict}", size(seen))
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// When rates were measured and how sure they are, in words.
fn when(known: &Measurements, now: u64) -> String {
    let agreements = known.rates.iter().filter_map(|rate| Some((rate.agreement?, rate.name)));
    let worst = agreements.min_by(|a, b| a.0.total_cmp(&b.0));
    let how_sure = match (known.sure, worst) {
        (_, None) => "not sure yet: one moment only".to_owned(),
        (true, Some(_)) => "sure: each rate was reached at two of them".to_owned(),
        (false, Some((agreement, name))) => format!(
            "not sure yet: the two best differ by {:.0} % in {}",
            (1.0 - agreement) * 100.0,
            name.replace(',', "")
        ),
    };
    let moments = match known.moments {
        1 => "at one moment".to_owned(),
        count => format!("best of {count} moments, the first {}", ago(now, known.first)),
    };
    let doubt = known.doubt.map_or(String::new(), |doubt| format!("; to be measured again: {doubt}"));
    format!("{}, {moments}; {how_sure}{doubt}", ago(now, known.last))
}

/// The age of a time in words.
fn ago(now: u64, then: u64) -> String {
    let units = [(24 * 3600, "day"), (3600, "hour"), (60, "minute")];
    let seconds = now.saturating_sub(then);
    match units.into_iter().find(|&(unit, _)| seconds >= unit) {
        Some((unit, name)) => {
            let count = seconds / unit;
            format!("{count} {name}{} ago", if count == 1 { "" } else { "s" })
        }
        None => "just now".to_owned(),
    }
}

/// A kernel's register tile, compared with the model's best.
fn tile<K: Kernel>(_: K) -> String {
    let registers = caches::described().registers;
    let tiles = register_tiles(registers);
    let own = tiles.iter().find(|tile| (tile.mr, tile.nr) == (K::MR, K::NR));
    match (own, tiles.first()) {
        (Some(own), Some(best)) => format!(
            "{}x{} of {} registers of {}: {:.2} multiply-adds a load, at most {:.2} ({}x{})",
            K::MR,
            K::NR,
            registers.count,
            registers.lanes,
            own.reuse,
            best.reuse,
            best.mr,
            best.nr
        ),
        _ => format!("{}x{}", K::MR, K::NR),
    }
}

/// The measured rates in words. Levels that were not measured are left out.
fn rates(measured: &Hierarchy) -> String {
    let Hierarchy { peak, flops, l2, l3, memory, .. } = *measured;
    [
        ("GFLOPS a thread in registers", peak),
        ("GFLOPS in products", flops),
        ("GB/s a thread in level 2", l2),
        ("GB/s a thread in level 3", l3),
        ("GB/s of memory", memory),
    ]
    .into_iter()
    .filter(|&(_, rate)| rate > 0.0)
    .map(|(what, rate)| format!("{:.0} {what}", rate / 1e9))
    .collect::<Vec<_>>()
    .join(", ")
}

/// Names of a kernel in products and convolutions.
pub(super) fn names<K: Kernel>(_: K) -> String {
    format!("{} {}", K::SGEMM, K::CONV)
}

#[cfg(test)]
mod tests {
    use super::super::rates::MeasuredRate;
    use super::*;

    #[test]
    fn ages_are_told_in_words() {
        let day = 24 * 3600;
        let words =
            [0, 59, 60, 119, 3599, 3600, day - 1, day, 40 * day].map(|age| ago(50 * day, 50 * day - age));
        assert_eq!(
            words,
            [
                "just now",
                "just now",
                "1 minute ago",
                "1 minute ago",
                "59 minutes ago",
                "1 hour ago",
                "23 hours ago",
                "1 day ago",
                "40 days ago"
            ]
        );
        assert_eq!(ago(0, day), "just now", "a clock that was set back");
    }

    #[test]
    fn it_says_whether_the_last_cache_is_plausible() {
        let words = |described: usize, seen| {
            last_cache(&Ceilings { threads: 2, peaks: vec![], levels: vec![], described, seen })
        };
        assert_eq!(
            words(480 << 20, Some(32 << 20)),
            "491520 KiB reported; measured: reads slow down beyond 32768 KiB: implausible; set SPARKLE_CACHES=l3=32M"
        );
        assert_eq!(
            words(32 << 20, Some(16 << 20)),
            "32768 KiB reported; measured: reads slow down beyond 16384 KiB"
        );
        assert_eq!(words(0, None), "none reported; measured: reads of no size were clearly slower");
    }

    #[test]
    fn it_says_how_sure_a_measurement_is() {
        let rate = |name, agreement| MeasuredRate { name, unit: "GFLOPS", value: 1.0, agreement };
        let known = |moments, sure, agreements: [Option<f64>; 2], doubt| {
            let rates = vec![rate("products", agreements[0]), rate("copies, a thread", agreements[1])];
            Measurements { what: "rates", rates, moments, first: 0, last: 7200, sure, doubt }
        };
        let words = |known| when(&known, 10_800);
        assert_eq!(
            words(known(1, false, [None; 2], None)),
            "1 hour ago, at one moment; not sure yet: one moment only"
        );
        assert_eq!(
            words(known(3, true, [Some(0.99); 2], None)),
            "1 hour ago, best of 3 moments, the first 3 hours ago; sure: each rate was reached at two of them"
        );
        assert_eq!(
            words(known(2, false, [Some(0.99), Some(0.8)], Some("calls ran much slower than predicted"))),
            "1 hour ago, best of 2 moments, the first 3 hours ago; not sure yet: the two best differ by 20 % in \
             copies a thread; to be measured again: calls ran much slower than predicted"
        );
    }
}

use std::cell::Cell;
use std::time::Duration;

use super::super::watch::Doubt;
use super::*;
use crate::error::Error;

const START: u64 = 1_800_000_000;
const HOUR: u64 = 3600;

/// A process with a set of one rate.
struct Process {
    calibration: &'static Calibration<1>,
    store: Store,
}

impl Process {
    fn new(folder: Option<&std::path::Path>) -> Self {
        let watch: &'static Watch = Box::leak(Box::new(Watch::new()));
        let infos = [RateInfo {
            name: "a test",
            unit: ("", 1.0),
            range: (1.0, 1e9),
            optional: false,
            tolerance: 0.03,
        }];
        let calibration = Box::leak(Box::new(Calibration::new("a test", "test-rates", infos, watch, || {})));
        Process { calibration, store: Store::new(folder.map(Into::into)) }
    }

    /// The rate at `now` hours, and whether it was measured, as `measured`, to get it.
    fn get(&self, now: u64, measured: f64) -> (f64, bool) {
        let count = Cell::new(0);
        let measure = || {
            count.set(count.get() + 1);
            Ok([measured])
        };
        let record =
            self.calibration.get_at(START + now * HOUR, &self.store, 2, || "key".into(), measure).unwrap();
        (record.rates()[0], count.get() > 0)
    }

    /// A call contradicts the rates.
    fn doubt(&self) {
        self.calibration.watch.saw(Duration::from_millis(10), 0.1, None);
        assert_eq!(self.calibration.watch.doubt(), Some(Doubt::Faster));
        self.calibration.keep_doubt(&self.store);
    }
}

/// The tests' machine may be busy. A measurement then improves the last moment, so what a test may expect is the best
/// rate, not the number of moments.
#[test]
fn later_processes_improve_what_a_busy_moment_left() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Process::new(Some(folder.path()));
    let first = start();
    assert_eq!(first.get(0, 217.0), (217.0, true));
    assert_eq!(first.get(9, 243.0), (217.0, false), "a running process stays with what it measured");
    assert_eq!(start().get(0, 243.0), (217.0, false), "too soon");
    let second = start();
    assert_eq!(second.get(1, 243.0), (243.0, true));
    assert_eq!(second.get(9, 250.0), (243.0, false), "once a process");
    assert_eq!(start().get(2, 200.0), (243.0, true));
    assert_eq!(start().calibration.known(&start().store, 2, || "key".into()).unwrap().rates(), [243.0]);
    assert!(start().calibration.known(&start().store, 2, || "another".into()).is_none());
}

#[test]
fn a_contradiction_is_kept_for_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Process::new(Some(folder.path()));
    let first = start();
    first.get(0, 217.0);
    first.doubt();
    let next = start();
    let known = next.calibration.known(&next.store, 2, || "key".into()).unwrap();
    let words = known.measurements("", &next.calibration.infos).doubt;
    assert_eq!(words, Some("a call ran faster than the rates allow"));
    assert_eq!(first.get(0, 243.0), (217.0, false), "not within a minute");
    assert_eq!(first.get(1, 243.0), (243.0, true), "in the process that noticed it");
    assert_eq!(first.get(2, 250.0), (243.0, false), "and once");
    first.doubt();
    assert_eq!(start().get(3, 245.0), (245.0, true), "in another process");
}

#[test]
fn without_a_folder_the_process_remembers() {
    let process = Process::new(None);
    assert_eq!(process.get(0, 217.0), (217.0, true));
    assert_eq!(process.get(1, 243.0), (217.0, false));
    process.doubt();
    assert_eq!(process.get(2, 243.0), (243.0, true));
    process.doubt();
    assert_eq!(process.get(3, 100.0), (243.0, true));
}

#[test]
fn a_failed_measurement_leaves_what_is_known() {
    let process = Process::new(None);
    let fail = |now| {
        let error = || Err(Error::OutOfMemory { device: "cpu".into(), what: "a test".into() });
        process.calibration.get_at(START + now * HOUR, &process.store, 2, || "key".into(), error)
    };
    assert!(fail(0).is_err());
    assert_eq!(process.get(0, 217.0), (217.0, true));
    process.doubt();
    assert_eq!(fail(1).unwrap().rates(), [217.0]);
    assert_eq!(process.get(1, 243.0), (243.0, true), "still doubted");
}

#[test]
fn implausible_and_foreign_entries_are_measured_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(Some(folder.path().into()));
    let start = || Process::new(Some(folder.path()));
    store.save("test-rates", "key", &Record::new(START, [1e12]));
    assert_eq!(start().get(0, 100.0), (100.0, true));
    store.save("test-rates", "key", &Record::new(START, [100.0, 100.0]));
    assert_eq!(start().get(0, 101.0), (101.0, true));
    store.save("test-rates", "key", &[1e11, 1e11]);
    assert_eq!(start().get(0, 102.0), (102.0, true));
    assert_eq!(start().get(0, 103.0), (102.0, false));
}

#[test]
fn each_variant_has_its_own_rates() {
    let process = Process::new(None);
    let rates = [1, 4, 1].map(|variant: usize| {
        let key = || variant.to_string();
        let measure = || Ok([10.0 * variant as f64]);
        process.calibration.get_at(START, &process.store, variant, key, measure).unwrap().rates()
    });
    assert_eq!(rates, [[10.0], [40.0], [10.0]]);
}

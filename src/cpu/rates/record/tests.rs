use super::*;

const fn info(optional: bool) -> RateInfo {
    RateInfo { name: "a test", unit: ("thousands", 1e3), range: (1.0, 1e6), optional, tolerance: 0.03 }
}

const INFOS: [RateInfo; 2] = [info(false), info(true)];

const START: u64 = 1_800_000_000;

#[test]
fn the_best_moment_counts_rate_by_rate() {
    let mut record = Record::new(START, [217.0, 50.0]);
    assert_eq!((record.rates(), record.is_sure(&INFOS)), ([217.0, 50.0], false));
    record.add(&INFOS, START + 600, [243.0, 49.0], true);
    assert_eq!(record.rates(), [243.0, 50.0]);
    record.add(&INFOS, START + 1200, [200.0, 51.0], true);
    assert_eq!(record.rates(), [243.0, 51.0]);
    assert!(!record.is_sure(&INFOS), "243 was reached once");
    record.add(&INFOS, START + 1800, [241.0, 20.0], true);
    assert!(record.is_sure(&INFOS));
    let seen = record.measurements("rates", &INFOS);
    assert_eq!((seen.moments, seen.first, seen.last, seen.sure), (4, START, START + 1800, true));
    assert_eq!((seen.rates[0].value, seen.rates[0].agreement), (0.243, Some(241.0 / 243.0)));
}

#[test]
fn moments_on_a_busy_machine_improve_and_never_displace() {
    let mut record = Record::new(START, [243.0, 0.0]);
    for hour in 1..100 {
        record.add(&INFOS, START + 3600 * hour, [150.0 + hour as f64, 0.0], false);
    }
    assert_eq!((record.count, record.rates()), (1, [249.0, 0.0]));
    assert_eq!(record.tried, START + 3600 * 99, "so that not every process tries again");
    // Processes that measure at the same time are one moment.
    record.add(&INFOS, START + 30, [250.0, 0.0], true);
    assert_eq!((record.count, record.rates()), (1, [250.0, 0.0]));
}

#[test]
fn a_rate_is_forgotten_after_as_many_moments_as_are_kept() {
    let mut record = Record::new(START, [300.0, 1.0]);
    for later in 1..MOMENTS as u64 {
        record.add(&INFOS, START + 600 * later, [200.0, 1.0], true);
        assert_eq!(record.rates(), [300.0, 1.0], "{later}");
    }
    record.add(&INFOS, START + 600 * MOMENTS as u64, [201.0, 1.0], true);
    assert_eq!((record.rates(), record.count), ([201.0, 1.0], MOMENTS));
}

#[test]
fn a_record_is_measured_until_it_is_sure_and_after_a_month() {
    let mut record = Record::new(START, [100.0, 0.0]);
    let mut now = START;
    for _ in 0..2 {
        assert!(!record.is_young(&INFOS, now + APART - 1));
        assert!(record.is_young(&INFOS, now + APART));
        now += APART;
        record.add(&INFOS, now, [99.0, 0.0], true);
    }
    assert!(record.is_sure(&INFOS) && !record.is_young(&INFOS, now + MAX_AGE - 1));
    assert!(record.is_young(&INFOS, now + MAX_AGE));
    assert!(record.is_young(&INFOS, START - 1), "the clock was wrong once");
    // Rates that never agree: it does not go on for ever.
    let mut record = Record::new(START, [100.0, 0.0]);
    for step in 1..MOMENTS as u64 {
        assert!(record.is_young(&INFOS, START + APART * step));
        record.add(&INFOS, START + APART * step, [100.0 * 2f64.powi(step as i32), 0.0], true);
    }
    assert!(!record.is_sure(&INFOS) && !record.is_young(&INFOS, START + APART * MOMENTS as u64));
}

#[test]
fn a_doubt_that_is_not_confirmed_waits_twice_as_long_the_next_time() {
    let mut record = Record::new(START, [100.0, 0.0]);
    assert!(!record.is_refuted(u64::MAX));
    let (mut now, mut waits) = (START, vec![]);
    for _ in 0..13 {
        assert!(record.set_doubt(Doubt::Faster) && !record.set_doubt(Doubt::Slower));
        let wait =
            (0..).map(|doublings| RETRY << doublings).find(|&wait| record.is_refuted(now + wait)).unwrap();
        assert!(!record.is_refuted(now + wait - 1));
        waits.push(wait);
        now += wait;
        record.add(&INFOS, now, [100.5, 0.0], true);
        assert!(!record.is_refuted(u64::MAX), "measured");
    }
    let longest = RETRY << MAX_DOUBLINGS;
    assert_eq!((waits[..4].to_vec(), waits[10..].to_vec()), (vec![60, 120, 240, 480], vec![longest; 3]));
    // Confirmed: the next doubt is heard at once.
    record.set_doubt(Doubt::Faster);
    record.add(&INFOS, now + longest, [120.0, 0.0], true);
    record.set_doubt(Doubt::Faster);
    assert!(record.is_refuted(now + longest + RETRY));
}

#[test]
fn a_record_survives_the_store() {
    let mut record = Record::new(START, [217.25, 0.0]);
    for step in 1..12 {
        record.add(&INFOS, START + 700 * step, [200.5 + step as f64, 3.0], step % 4 != 0);
        let bytes = record.to_bytes().unwrap();
        // The unused places may differ.
        let back = Record::from_bytes(&bytes).unwrap();
        assert_eq!((back.moments(), back.tried, back.fruitless, back.doubt), {
            (record.moments(), record.tried, record.fruitless, record.doubt)
        });
        assert!(back.is_plausible(&INFOS));
        record.set_doubt(if step % 2 == 0 { Doubt::Faster } else { Doubt::Slower });
    }
    assert!(record.doubt.is_some());
    assert_eq!(Record::<2>::from_bytes(&record.to_bytes().unwrap()).unwrap().doubt, record.doubt);
}

#[test]
fn older_layouts_and_nonsense_are_not_records() {
    let good: Vec<f64> = {
        let bytes = Record::new(START, [100.0, 0.0]).to_bytes().unwrap();
        bytes.as_chunks::<8>().0.iter().copied().map(f64::from_le_bytes).collect()
    };
    let read = |numbers: &[f64]| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Record::<2>::from_bytes(&bytes)
    };
    assert!(read(&good).is_some_and(|record| record.is_plausible(&INFOS)));
    let mut cases = 0;
    // Every number of the head and the time, replaced by what it cannot be.
    for (index, bad) in [
        (0, &[0.0, 2.0, f64::NAN][..]),
        (1, &[0.0, 1.0, 3.0, f64::INFINITY]),
        (2, &[0.0, 0.5, 2.0, 9.0, -1.0, 1e300]),
        (3, &[-1.0, 0.5, f64::NAN, 1e18]),
        (4, &[-1.0, 0.5, 11.0]),
        (5, &[-1.0, 0.5, 3.0, 256.0]),
        (6, &[-1.0, 0.5, f64::NAN, f64::INFINITY]),
    ] {
        for &bad in bad {
            let mut numbers = good.clone();
            numbers[index] = bad;
            assert_eq!(read(&numbers), None, "{index}: {bad}");
            cases += 1;
        }
    }
    assert_eq!(cases, 28);
    // The six rates of the layout before this one, too little, too much, half a number.
    assert_eq!(read(&[1e11, 1e11, 1e11, 0.0, 1e10, 1e-6]), None);
    (0..good.len()).for_each(|len| assert_eq!(read(&good[..len]), None));
    assert_eq!(read(&[&good[..], &[1.0]].concat()), None);
    let bytes = Record::new(START, [100.0, 0.0]).to_bytes().unwrap();
    assert_eq!(Record::<2>::from_bytes(&bytes[..bytes.len() - 1]), None);
    assert_eq!(Record::<3>::from_bytes(&bytes), None, "of another number of rates");
    // Implausible rates: 0 is plausible only for the second one.
    for rates in [[0.0, 1.0], [f64::NAN, 1.0], [0.5, 1.0], [1e7, 1.0], [1.0, -1.0], [1.0, f64::INFINITY]] {
        assert!(!Record::new(START, rates).is_plausible(&INFOS), "{rates:?}");
    }
}

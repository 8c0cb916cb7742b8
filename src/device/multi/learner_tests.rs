//! The learner in virtual time: scripted devices with noise, spikes, drift and contention, whose best split is known.

use super::learner::Learner;
use crate::memory::shares::{Line, longest, water_fill};
use crate::problem::exact::Random;

/// A number in 0..1.
fn unit(random: &mut Random) -> f64 {
    (random.bits() >> 11) as f64 / (1u64 << 53) as f64
}

/// A number between `low` and `high` whose logarithm is uniform.
fn spread(random: &mut Random, low: f64, high: f64) -> f64 {
    low * (high / low).powf(unit(random))
}

/// Devices whose true times are known.
struct World {
    units: usize,
    lines: Vec<Line>,
    /// How much a device slows down for each other device at work.
    contention: Vec<f64>,
    /// The current speed of each device, 1 at first.
    speeds: Vec<f64>,
    /// The amplitude and period, in calls, of a slow change of speed.
    drift: (f64, f64),
    /// The probability that a share takes several times as long.
    spikes: f64,
    random: Random,
    calls: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let devices = random.between(2, 4) as usize;
        let units = random.pick(&[8, 16, 32, 64, 128, 256]);
        // The first device computes all units in a second; times have no scale.
        let lines = (0..devices).map(|index| {
            let rate = units as f64 / if index == 0 { 1.0 } else { spread(&mut random, 0.2, 20.0) };
            let start = spread(&mut random, 1e-4, 0.1);
            Line { start, rate }
        });
        let lines: Vec<Line> = lines.collect();
        let disturbed = unit(&mut random) < 0.5;
        let contention =
            lines.iter().map(|_| if disturbed { 0.6 * unit(&mut random) } else { 0.0 }).collect();
        let drift = (random.pick(&[0.0, 0.0, 0.1]), 150.0 + 200.0 * unit(&mut random));
        let spikes = random.pick(&[0.0, 0.02, 0.05]);
        World { units, speeds: vec![1.0; devices], lines, contention, drift, spikes, random, calls: 0 }
    }

    /// What the roofline model says of it, wrong by up to 2.5 times either way.
    fn predicted(&mut self) -> Vec<Option<Line>> {
        let wrong = |line: &Line| {
            let mut error = || spread(&mut self.random, 0.4, 2.5);
            Some(Line { start: line.start * error(), rate: line.rate * error() })
        };
        self.lines.iter().map(wrong).collect()
    }

    /// The true lines while the devices with a share work.
    fn true_lines(&self, takes_part: &[bool]) -> Vec<Option<Line>> {
        let others = takes_part.iter().filter(|it| **it).count().saturating_sub(1) as f64;
        let phase = f64::from(self.calls) / self.drift.1 * std::f64::consts::TAU;
        let line = |index: usize| {
            // Each device drifts in its own phase.
            let drift = 1.0 + self.drift.0 * (phase + index as f64 * 2.0).sin();
            let factor = (1.0 + self.contention[index] * others) * drift / self.speeds[index];
            takes_part[index].then(|| self.lines[index].slower(factor))
        };
        (0..self.lines.len()).map(line).collect()
    }

    fn seconds(&self, counts: &[usize]) -> f64 {
        let takes_part: Vec<bool> = counts.iter().map(|&count| count > 0).collect();
        longest(&self.true_lines(&takes_part), counts)
    }

    /// The best split at this moment.
    fn best_split(&self) -> Vec<usize> {
        let devices = self.lines.len();
        let of_set = |set: u32| {
            let takes_part: Vec<bool> = (0..devices).map(|index| set & 1 << index != 0).collect();
            water_fill(&self.true_lines(&takes_part), self.units)
        };
        let splits = (1..1 << devices).filter_map(of_set);
        splits.min_by(|a, b| self.seconds(a).total_cmp(&self.seconds(b))).unwrap()
    }

    /// The least time of all splits at this moment.
    fn best(&self) -> f64 {
        self.seconds(&self.best_split())
    }

    /// One call. Returns its regret, the part by which its true time exceeds the best, without noise.
    fn call(&mut self, learner: &mut Learner) -> f64 {
        self.split(learner).1
    }

    /// As [`World::call`], with the units of each device.
    fn split(&mut self, learner: &mut Learner) -> (Vec<usize>, f64) {
        let split = learner.choose(&vec![true; self.lines.len()]).unwrap();
        assert_eq!(split.counts.iter().sum::<usize>(), self.units);
        let takes_part: Vec<bool> = split.counts.iter().map(|&count| count > 0).collect();
        let lines = self.true_lines(&takes_part);
        let mut measured = vec![];
        for (line, &count) in lines.iter().zip(&split.counts) {
            let noise = 1.0 + 0.02 * (unit(&mut self.random) - 0.5);
            let spike = unit(&mut self.random) < self.spikes;
            let slower = if spike { 1.5 + 4.0 * unit(&mut self.random) } else { 1.0 };
            measured.push(line.map_or(0.0, |line| line.seconds(count) * noise * slower));
        }
        let regret = self.seconds(&split.counts) / self.best() - 1.0;
        let whole = measured.iter().copied().fold(0.0, f64::max) * 1.0005;
        learner.record(&split.counts, &measured, whole);
        self.calls += 1;
        (split.counts, regret)
    }
}

/// The regrets of `calls` calls.
fn regrets(world: &mut World, learner: &mut Learner, calls: usize) -> Vec<f64> {
    (0..calls).map(|_| world.call(learner)).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The median regret of three calls: one of them may be a trial.
fn settled(regrets: &[f64]) -> f64 {
    let mut three = regrets[..3].to_vec();
    three.sort_by(f64::total_cmp);
    three[1]
}

#[test]
fn three_hundred_sets_of_devices_are_learned() {
    let (mut late, mut good, mut worst) = (vec![], 0, 0.0f64);
    for seed in 0..300 {
        let mut world = World::new(seed);
        let mut learner = Learner::new(world.predicted(), world.units);
        let regrets = regrets(&mut world, &mut learner, 220);
        good += usize::from(settled(&regrets[8..]) <= 0.05);
        let after = mean(&regrets[20..]);
        worst = worst.max(after);
        late.push(after);
    }
    println!("{good} of 300 within 5%; mean regret after call 20: {:.4}, worst {worst:.4}", mean(&late));
    assert!(good >= 270, "{good}");
    assert!(mean(&late) <= 0.02, "{}", mean(&late));
}

#[test]
fn a_change_of_speed_is_learned_in_eight_calls() {
    let (mut good, mut cases) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        let mut learner = Learner::new(world.predicted(), world.units);
        let before = regrets(&mut world, &mut learner, 60);
        let device = world.random.between(0, world.lines.len() as i64 - 1) as usize;
        world.speeds[device] = world.random.pick(&[0.4, 2.0]);
        // Only devices in use can show it at once.
        let (then, after) = (settled(&before[57..]), regrets(&mut world, &mut learner, 12));
        if after[0] < then + 0.05 {
            continue;
        }
        cases += 1;
        good += usize::from(settled(&after[8..]) <= 0.05);
    }
    println!("{good} of {cases}");
    assert!(cases > 100, "{cases}");
    assert!(good * 10 >= cases * 9, "{good} of {cases}");
}

/// Two equal devices that wait for each other: together they are 5% slower than one alone.
#[test]
fn one_device_that_was_measured_wins_over_a_slower_split() {
    let mut world = World::new(1);
    world.units = 64;
    let line = Line { start: 1e-3, rate: 64.0 };
    (world.lines, world.contention, world.speeds) = (vec![line; 2], vec![1.1; 2], vec![1.0; 2]);
    (world.drift, world.spikes) = ((0.0, 1.0), 0.0);
    let mut learner = Learner::new(vec![Some(line); 2], world.units);
    let regrets = regrets(&mut world, &mut learner, 100);
    assert!(regrets[0] > 0.04, "the split is predicted to be better");
    let alone = regrets[10..].iter().filter(|&&regret| regret < 1e-9).count();
    assert!(alone >= 85, "{alone} of 90 calls on one device");
}

/// Two GPUs and a CPU share 64 images in 160 calls. The predictions are wrong, one share in twenty takes several times as
/// long, and from call 60 to 110 the first GPU has 0.4 of its speed. `SPARKLE_BLESS=1` writes the shares to
/// `benchmarks/shares.csv`, which `benchmarks/plot.py` draws.
#[test]
fn the_record_of_shares_is_what_is_learned() {
    let mut world = World::new(3);
    world.units = 64;
    world.lines = [(0.001, 4000.0), (0.001, 2000.0), (0.0001, 700.0)]
        .map(|(start, rate)| Line { start, rate })
        .to_vec();
    (world.contention, world.speeds) = (vec![0.05; 3], vec![1.0; 3]);
    (world.drift, world.spikes) = ((0.0, 1.0), 0.05);
    let wrong = [0.5, 1.6, 2.0];
    let predicted =
        world.lines.iter().zip(wrong).map(|(line, factor)| Some(Line { rate: line.rate * factor, ..*line }));
    let mut learner = Learner::new(predicted.collect(), world.units);
    let mut record = String::from("call,gpu_1,gpu_2,cpu,best_gpu_1,best_gpu_2,best_cpu,regret\n");
    let mut regrets = vec![];
    for call in 1..=160 {
        world.speeds[0] = if (60..110).contains(&call) { 0.4 } else { 1.0 };
        let best = world.best_split();
        let (split, regret) = world.split(&mut learner);
        let numbers = split.iter().chain(&best).map(|count| format!(",{count}")).collect::<String>();
        record += &format!("{call}{numbers},{regret:.4}\n");
        regrets.push(regret);
    }
    // Right before the change, before it ends, and at the end.
    for call in [55, 105, 155] {
        assert!(settled(&regrets[call..]) < 0.05, "{call}: {:?}", &regrets[call..call + 3]);
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/shares.csv");
    if std::env::var_os("SPARKLE_BLESS").is_some() {
        std::fs::write(&path, &record).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == record, "SPARKLE_BLESS=1 writes {}", path.display());
}

/// A device that is too slow for a share gets one soon after it has become fast.
#[test]
fn no_device_is_starved() {
    let mut world = World::new(2);
    world.units = 64;
    let fast = Line { start: 1e-3, rate: 64.0 };
    world.lines = vec![fast, fast.slower(40.0)];
    (world.contention, world.speeds) = (vec![0.0; 2], vec![1.0; 2]);
    (world.drift, world.spikes) = ((0.0, 1.0), 0.0);
    let mut learner = Learner::new(vec![Some(fast); 2], world.units);
    let before = regrets(&mut world, &mut learner, 100);
    assert!(mean(&before[20..]) < 0.02, "{}", mean(&before[20..]));
    world.speeds[1] = 40.0;
    let after = regrets(&mut world, &mut learner, 300);
    assert!(after[0] > 0.5 && mean(&after[280..]) < 0.02, "{} {}", after[0], mean(&after[280..]));
}

#[test]
fn a_device_that_is_not_available_gets_nothing() {
    let line = |rate| Some(Line { start: 0.0, rate });
    let mut learner = Learner::new(vec![line(1.0), line(1.0), None], 8);
    assert_eq!(learner.choose(&[true; 3]).unwrap().counts, [4, 4, 0]);
    assert_eq!(learner.choose(&[false, true, true]).unwrap().counts, [0, 8, 0]);
    assert_eq!(learner.choose(&[true; 3]).unwrap().counts, [4, 4, 0]);
    assert_eq!(learner.choose(&[false, false, true]), None);
    let split = learner.divide(&[true, true, true], 3).unwrap();
    assert_eq!((split.counts, split.seconds), (vec![2, 1, 0], vec![2.0, 1.0, 0.0]));
    learner.exclude(0);
    assert_eq!(learner.choose(&[true; 3]).unwrap().counts, [0, 8, 0]);
}

#[test]
fn what_was_learned_is_kept_and_nothing_else_is_accepted() {
    let mut world = World::new(5);
    let predicted = world.predicted();
    let mut learner = Learner::new(predicted.clone(), world.units);
    regrets(&mut world, &mut learner, 64);
    assert!(learner.is_worth_saving());
    let (saved, fresh) = (learner.saved(), Learner::new(predicted.clone(), world.units));
    let mut restored = fresh.restored(&saved).unwrap();
    assert_eq!(restored.saved().len(), saved.len());
    // It begins where the other one has arrived.
    let all = vec![true; predicted.len()];
    let begin = restored.choose(&all).unwrap();
    assert!(world.seconds(&begin.counts) <= 1.05 * world.best(), "{begin:?}");
    for end in 0..saved.len() {
        let cut = fresh.restored(&saved[..end]);
        assert!(cut.is_none_or(|cut| cut.saved() == saved[..end]), "{end} bytes");
    }
    assert!(Learner::new(predicted.clone(), world.units + 1).restored(&saved).is_none());
    let mut wrong = saved.clone();
    let last = wrong.len() - 8;
    wrong[last..].copy_from_slice(&f64::NAN.to_le_bytes());
    assert!(fresh.restored(&wrong).is_none());
}

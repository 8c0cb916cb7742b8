//! The tuner, its records and program binaries on the machine's driver. Each test has its own store.

use std::path::Path;

use super::share_group;
use crate::config::{Config, Tune};
use crate::gl::cache;
use crate::gl::convolution::Buffered;
use crate::gl::execution::programs::Programs;
use crate::gl::tune::{self, policy, stays_with_fallback};
use crate::memory::tiles::Gpu;
use crate::problem::exact::Random;
use crate::problem::{Algorithm, Conv2d, Conv2dDesc, oracle};
use crate::shader::pass_plan::{ShaderSource, generate};
use crate::shader::tuner::{Entry, Record};
use crate::shader::variant::{Family, Variant, candidates};
use crate::store::Store;

/// Sessions live as long as their store. There are few tests.
fn store(folder: Option<&Path>) -> &'static Store {
    Box::leak(Box::new(Store::new(folder.map(Path::to_owned))))
}

fn open(store: &'static Store) -> Option<Programs> {
    let mut programs = Programs::with_store(share_group()?.context().unwrap(), store);
    // Set in advance, so that nothing is measured and all tests see the same device.
    programs
        .context()
        .group()
        .gpu()
        .set(cache::with_limits(Gpu::ASSUMED, programs.context().capabilities(), 1 << 15))
        .unwrap();
    tune::gpu(&mut programs).unwrap();
    Some(programs)
}

/// Large enough for a choice of kernels, small enough for a software renderer.
fn layer() -> Conv2d {
    batch(5)
}

fn batch(n: i64) -> Conv2d {
    let desc =
        Conv2dDesc { c: 16, h: 14, w: 14, k: 16, r: 3, s: 3, pad_h: 1, pad_w: 1, n, ..Default::default() };
    Conv2d::new(Conv2dDesc { algorithm: Algorithm::Direct, ..desc }).unwrap()
}

/// Plans and runs [`layer`] and checks the result exactly. Returns the variant.
fn run(programs: &mut Programs, policy: Tune) -> Variant {
    let (problem, mut random) = (layer(), Random::new(3));
    let (input, weights) =
        (random.integers(problem.input_len(), 8), random.integers(problem.weights_len(), 8));
    let prepared = tune::prepare(programs, policy, &problem, &weights, None).unwrap();
    let mut output = vec![f32::NAN; problem.output_len()];
    prepared.run(&input, &mut output).unwrap();
    let expected = oracle::conv2d(&problem, &input, &weights, None);
    assert!(output.iter().zip(expected).all(|(&got, expected)| f64::from(got) == expected.value));
    prepared.variant()
}

fn record(programs: &Programs, store: &Store) -> Option<Record> {
    cache::record(store, programs.context().capabilities(), &layer())
}

/// Small layers get their own kernels only where compiling them pays, and where measurements may decide how they
/// are computed.
#[test]
fn small_layers_keep_the_fallback_kernel_where_they_must() {
    let sized = |size| Conv2dDesc {
        c: 16,
        h: size,
        w: size,
        k: 16,
        r: 3,
        s: 3,
        pad_h: 1,
        pad_w: 1,
        ..Default::default()
    };
    let [tiny, small, large] = [8, 16, 64].map(|size| Conv2d::new(sized(size)).unwrap());
    let free = Config::default();
    let deterministic = Config { deterministic: true, ..Config::default() };
    let stays = |problem: &Conv2d| [&free, &deterministic].map(|config| stays_with_fallback(problem, config));
    assert_eq!(stays(&tiny), [true, true]);
    assert_eq!((stays(&small), stays(&small.once())), ([false, true], [true, true]));
    assert_eq!((stays(&large), stays(&large.once())), ([false, false], [false, false]));
}

#[test]
fn where_measurements_may_decide() {
    let problem = layer();
    let tune = |tune| Config { tune, ..Config::default() };
    for wanted in [Tune::Off, Tune::Read, Tune::Full] {
        assert_eq!(policy(&problem, &tune(wanted)), wanted);
        assert_eq!(policy(&problem.measured(), &tune(wanted)), Tune::Full);
        let deterministic = Config { deterministic: true, ..tune(wanted) };
        assert_eq!(policy(&problem.measured(), &deterministic), Tune::Off);
        let tiny = Conv2d::new(Conv2dDesc::default()).unwrap();
        assert_eq!(policy(&tiny, &tune(wanted)), Tune::Off);
    }
    assert_eq!(policy(&problem.once(), &tune(Tune::Full)), Tune::Read);
    assert_eq!(policy(&problem.once(), &tune(Tune::Off)), Tune::Off);
}

#[test]
fn winners_are_found_saved_and_reused() {
    let place = tempfile::tempdir().unwrap();
    let first_store = store(Some(place.path()));
    let Some(mut first) = open(first_store) else { return };
    let planned = run(&mut first, Tune::Off);
    assert!(record(&first, first_store).is_none(), "off leaves no trace");
    assert_eq!(run(&mut first, Tune::Read), planned, "nothing is known yet");
    let won = run(&mut first, Tune::Full);
    let found = record(&first, first_store).unwrap();
    assert_eq!(found.winners().next(), Some(won));
    assert!(found.entries().iter().all(|it| it.seconds.is_some()), "this driver is right: {found:?}");
    // Another process, with the same kind of problem but another batch.
    let mut second = open(store(Some(place.path()))).unwrap();
    assert_eq!(run(&mut second, Tune::Read), won);
    let tile = batch(6);
    assert_eq!(tune::order(&mut second, &tile, Tune::Read).unwrap()[0], won);
    let other = batch(9);
    let gpu = tune::gpu(&mut second).unwrap();
    assert_eq!(tune::order(&mut second, &other, Tune::Read).unwrap(), candidates(&other, &gpu));
    assert_eq!(run(&mut second, Tune::Off), planned);
}

#[test]
fn records_that_do_not_hold_fall_back() {
    let own = store(None);
    let Some(mut programs) = open(own) else { return };
    let (problem, gpu) = (layer(), tune::gpu(&mut programs).unwrap());
    let capabilities = programs.context().capabilities().clone();
    let all: Vec<Variant> =
        candidates(&problem, &gpu).into_iter().filter(|it| it.family != Family::Fallback).collect();
    let hash = |variant: &Variant| generate(variant, &cache::class(&problem)).unwrap().hash();
    let entry = |variant: Variant, seconds| Entry { variant, source: hash(&variant), seconds: Some(seconds) };
    let worst = *all.last().unwrap();
    let save = |entries: Vec<Entry>| cache::save_record(own, &capabilities, &problem, &Record::new(entries));
    let planned = run(&mut programs, Tune::Off);

    save(vec![entry(worst, 1e-6), entry(all[1], 2e-6)]);
    assert_eq!(run(&mut programs, Tune::Read), worst, "whatever is on record is taken");
    tune::refuse(&programs, &problem, &worst);
    assert_eq!(run(&mut programs, Tune::Read), all[1], "the next one takes over");
    let order = tune::order(&mut programs, &problem, Tune::Read).unwrap();
    assert!(!order.contains(&worst) && order.len() == candidates(&problem, &gpu).len() - 1);

    save(vec![Entry { source: 1, ..entry(worst, 1e-6) }]);
    assert_eq!(run(&mut programs, Tune::Read), planned, "measured with other shaders");
    // Variants that this problem cannot use or the device cannot run.
    let winograd = Variant { family: Family::Winograd(4), splits: 1, ..all[0] };
    save(vec![entry(winograd, 1e-6)]);
    assert_eq!(run(&mut programs, Tune::Read), planned, "Winograd was ruled out");
    for text in ["", "nonsense", "conv_igemm_32x32x16_t4x4 0 1.0 2"] {
        let key = format!("{text}\n");
        assert!(text.is_empty() || Record::from_text(&key).is_none());
    }
}

#[test]
fn runner_ups_are_timed_while_a_plan_works() {
    let own = store(None);
    let Some(mut programs) = open(own) else { return };
    let (problem, gpu) = (layer(), tune::gpu(&mut programs).unwrap());
    let all: Vec<Variant> =
        candidates(&problem, &gpu).into_iter().filter(|it| it.family == Family::Igemm).collect();
    let hash = |variant: &Variant| generate(variant, &cache::class(&problem)).unwrap().hash();
    // The record is false. Exploring finds that out.
    let lie = |variant: Variant| Entry { variant, source: hash(&variant), seconds: Some(1e-9) };
    let capabilities = programs.context().capabilities().clone();
    cache::save_record(
        own,
        &capabilities,
        &problem,
        &Record::new(all[..3].iter().copied().map(lie).collect()),
    );
    let weights = vec![1.0; problem.weights_len()];
    let (input, mut output) = (vec![1.0; problem.input_len()], vec![0.0; problem.output_len()]);
    let prepared = tune::prepare(&mut programs, Tune::Read, &problem, &weights, None).unwrap();
    prepared.run(&input, &mut output).unwrap();
    let seconds = |programs: &Programs| -> Vec<(Variant, f64)> {
        let found = record(programs, own).unwrap();
        assert_eq!(found.entries().len(), 3);
        found.entries().iter().map(|it| (it.variant, it.seconds.unwrap())).collect()
    };
    let mut honest = 0;
    for turn in 1..=2 {
        tune::explore(&mut programs, &prepared, &problem, &weights).unwrap();
        honest = seconds(&programs).iter().filter(|(_, seconds)| *seconds > 1e-8).count();
        assert!(honest >= 2, "after turn {turn}: the plan's own and a runner-up's");
        assert!(
            seconds(&programs)
                .iter()
                .any(|(variant, seconds)| *variant == prepared.variant() && *seconds > 1e-8)
        );
    }
    assert!(honest >= 2);
    // The plan works as before.
    let mut again = vec![0.0; problem.output_len()];
    prepared.run(&input, &mut again).unwrap();
    assert_eq!(output, again);
    programs.context().check("after exploring").unwrap();
}

#[test]
fn a_thousand_mutated_records_are_none() {
    let place = tempfile::tempdir().unwrap();
    let first = store(Some(place.path()));
    let Some(programs) = open(first) else { return };
    let capabilities = programs.context().capabilities().clone();
    let entry = |seconds| Entry { variant: Variant::FALLBACK, source: 7, seconds: Some(seconds) };
    cache::save_record(first, &capabilities, &layer(), &Record::new(vec![entry(1e-6), entry(2e-6)]));
    let file = std::fs::read_dir(place.path()).unwrap().map(|it| it.unwrap().path());
    let file = file.into_iter().find(|it| it.to_str().unwrap().contains("gl-tuned")).unwrap();
    // A new store reads the file.
    let found = || cache::record(&Store::new(Some(place.path().to_owned())), &capabilities, &layer());
    let sound = std::fs::read(&file).unwrap();
    assert_eq!(found().unwrap().entries().len(), 2);
    let mut random = Random::new(21);
    for number in 0..1000 {
        let mut bytes = sound.clone();
        let at = random.between(0, bytes.len() as i64 - 1) as usize;
        match number % 3 {
            0 => bytes[at] ^= 1 << random.between(0, 7),
            1 => bytes.truncate(at),
            _ => bytes.insert(at, random.between(0, 255) as u8),
        }
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(found(), None, "{number}: at {at}");
    }
}

/// A shader, and whether its program was in the store.
fn build(programs: &mut Programs) -> ShaderSource {
    let problem = layer();
    let gpu = tune::gpu(programs).unwrap();
    let variant = candidates(&problem, &gpu).into_iter().find(|it| it.family != Family::Fallback).unwrap();
    let source = generate(&variant, &problem).unwrap().run[0].source.clone();
    programs.generated(&source).unwrap();
    source
}

#[test]
fn binaries_that_a_driver_refuses_are_compiled_anew() {
    let place = tempfile::tempdir().unwrap();
    let Some(mut first) = open(store(Some(place.path()))) else { return };
    build(&mut first);
    let files = || -> Vec<_> {
        let names = std::fs::read_dir(place.path()).into_iter().flatten();
        names.map(|it| it.unwrap().path()).filter(|it| it.to_str().unwrap().contains("gl-program")).collect()
    };
    let Some(file) = files().first().cloned() else {
        println!("skipped: the driver has no program binaries");
        return;
    };
    run(&mut open(store(Some(place.path()))).unwrap(), Tune::Off);
    // If the file is mutated on disk, the store rejects it. If the binary was mutated before it was saved, the
    // driver does.
    let sound = std::fs::read(&file).unwrap();
    let mut random = Random::new(9);
    for _ in 0..5 {
        let mut bytes = sound.clone();
        let at = random.between(0, bytes.len() as i64 - 1) as usize;
        bytes[at] ^= 1 << random.between(0, 7);
        std::fs::write(&file, bytes).unwrap();
        build(&mut open(store(Some(place.path()))).unwrap());
    }
    let mut refused = 0;
    for value in [vec![], vec![1, 2, 3], vec![0xff; 4], vec![0xff; 400], [[0u8; 4], [0x5a; 4]].concat()] {
        let own = store(None);
        let mut programs = open(own).unwrap();
        let gpu = tune::gpu(&mut programs).unwrap();
        let problem = layer();
        for variant in
            candidates(&problem, &gpu).into_iter().filter(|it| it.family != Family::Fallback).take(2)
        {
            for pass in generate(&variant, &problem).unwrap().run {
                let key = cache::program_key(programs.context().capabilities(), &pass.source);
                own.save("gl-program", &key, &value);
                programs.generated(&pass.source).unwrap();
                refused += 1;
            }
        }
        programs.context().check("after refused binaries").unwrap();
        run(&mut programs, Tune::Off);
    }
    assert!(refused >= 10, "{refused}");
}

#[test]
fn eight_tune_at_once_and_a_file_in_the_folders_place_is_harmless() {
    let place = tempfile::tempdir().unwrap();
    if share_group().is_none() {
        return;
    }
    let mut winners = vec![];
    std::thread::scope(|scope| {
        let tune = || run(&mut open(store(Some(place.path()))).unwrap(), Tune::Full);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(tune)).collect();
        winners.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
    });
    let after = run(&mut open(store(Some(place.path()))).unwrap(), Tune::Read);
    assert!(winners.contains(&after), "{after} of {winners:?}");
    // A file in the folder's place: nothing can be read or written, even as root.
    let file = place.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let nowhere = store(Some(&file));
    let mut programs = open(nowhere).unwrap();
    let won = run(&mut programs, Tune::Full);
    assert_eq!(run(&mut programs, Tune::Full), won, "known in memory all the same");
}

/// In a read-only folder, measurements and binaries of others are used. New ones are made but not saved.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_may_only_be_read_is_read() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("cache");
    let Some(mut first) = open(store(Some(&folder))) else { return };
    let won = run(&mut first, Tune::Full);
    drop(first);
    let files = || std::fs::read_dir(&folder).unwrap().count();
    let before = files();
    crate::store::tests::read_only(&folder, || {
        let mut programs = open(store(Some(&folder))).unwrap();
        assert_eq!(run(&mut programs, Tune::Read), won);
        let binaries = programs.context().capabilities().program_binaries;
        assert!(!binaries || !programs.is_fresh(), "the program comes from the folder, too");
        let order = tune::order(&mut programs, &batch(2), Tune::Full).unwrap();
        assert_eq!(tune::order(&mut programs, &batch(2), Tune::Read).unwrap(), order, "known in memory");
    });
    assert_eq!(files(), before);
}

#[test]
fn plans_share_their_scratch() {
    let Some(mut programs) = open(store(None)) else { return };
    let problem = layer();
    let weights = vec![1.0; problem.weights_len()];
    let gpu = tune::gpu(&mut programs).unwrap();
    let split = |splits: usize| {
        let igemm = candidates(&problem, &gpu).into_iter().find(|it| it.family == Family::Igemm).unwrap();
        Variant { splits, ..igemm }
    };
    let mut held = vec![];
    for splits in [2, 4, 3] {
        held.push(Buffered::new(&mut programs, split(splits), &problem, &weights, None).unwrap());
    }
    assert_eq!(programs.scratch().elements(), [4 * problem.output_len()], "as much as the largest");
    let input: Vec<f32> = (0..problem.input_len()).map(|index| (index % 5) as f32).collect();
    let mut outputs = vec![];
    for prepared in held.iter().chain(held.iter().rev()) {
        let mut output = vec![f32::NAN; problem.output_len()];
        prepared.run(&input, &mut output).unwrap();
        outputs.push(output);
    }
    assert!(outputs.iter().all(|output| *output == outputs[0] && output.iter().any(|it| *it > 0.0)));
    drop(held);
    assert_eq!(programs.scratch().elements(), Vec::<usize>::new(), "it goes with the last plan");
}

#[test]
fn rates_are_measured_once_and_checked() {
    let Some(group) = share_group() else { return };
    let own = store(None);
    let mut programs = Programs::with_store(group.context().unwrap(), own);
    let capabilities = programs.context().capabilities().clone();
    let measured = tune::gpu(&mut programs).unwrap();
    assert!(measured.flops > 0.0 && measured.memory > 0.0 && measured.launch > 0.0 && measured.units > 0);
    let again = cache::gpu(own, &capabilities, measured.max_iterations, || panic!("they are known"));
    assert_eq!(again.unwrap(), measured);
    let other =
        crate::gl::driver::capabilities::Capabilities { version: "another driver".into(), ..capabilities };
    let mut asked = 0;
    cache::gpu(own, &other, 1 << 15, || {
        asked += 1;
        Ok(Gpu::ASSUMED)
    })
    .unwrap();
    assert_eq!(asked, 1);
}

use super::*;

#[test]
fn every_task_runs_once_with_a_workspace() {
    let sizes = [(1, 100), (3, 1_000), (3, 1), (2, 0), (16, 5), (16, 16), (16, 333), (64, 1_000)];
    for (mut team, tasks) in sizes.map(|(threads, tasks)| (Team::of(threads), tasks)) {
        let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        team.run(tasks, |index, workspace| {
            assert!(workspace.len() >= WORKSPACE_LEN);
            counts[index].fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }
}

#[test]
fn a_step_begins_when_the_one_before_has_ended() {
    let mut cases = 0;
    for mut team in [1, 2, 3, 7].map(Team::of) {
        for steps in [[40, 3, 25], [1, 0, 9], [0, 0, 0], [5, 60, 1]] {
            let ended = [(); 3].map(|()| AtomicUsize::new(0));
            team.run_steps(steps, |step, _, _| {
                for (before, count) in ended.iter().zip(steps).take(step) {
                    assert_eq!(before.load(Ordering::Relaxed), count);
                }
                std::thread::yield_now();
                ended[step].fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            assert_eq!(ended.map(AtomicUsize::into_inner), steps);
            cases += 1;
        }
        // Threads that wait for the step's end do not hang after a panic.
        let failed = team.run_steps([9, 9], |step, index, _| assert_ne!((step, index), (0, 4), "a test"));
        assert!(failed.is_err());
    }
    assert_eq!(cases, 16);
}

#[test]
fn workspaces_are_not_shared() {
    let mut team = Team::of(4);
    team.run(100, |index, workspace| {
        workspace[0] = index as f32;
        std::thread::yield_now();
        assert_eq!(workspace[0], index as f32);
    })
    .unwrap();
}

#[test]
fn little_work_and_single_tasks_stay_on_the_caller() {
    let caller = std::thread::current().id();
    let on_caller = |_: usize, _: &mut [f32]| assert_eq!(std::thread::current().id(), caller);
    Team::for_work(1).unwrap().run(5, on_caller).unwrap();
    Team::of(2).run(1, on_caller).unwrap();
}

#[test]
fn a_panic_is_an_error_and_the_pool_stays_usable() {
    let mut team = Team::of(2);
    for _ in 0..3 {
        let result = team.run(10, |index, _| assert_ne!(index, 4, "a test"));
        assert_eq!(result, Err(Error::Internal("a task of the CPU engine panicked".into())));
        assert_eq!(team.run(10, |_, _| {}), Ok(()));
    }
    assert!(Team::of(1).run(3, |_, _| panic!("a test")).is_err());
}

#[test]
fn many_callers_share_the_threads() {
    let mut cases = 0;
    for size in [2, 3] {
        let pool = Arc::new(Pool::build(size, spawn));
        let (at_work, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut team = Team::new(Threads::Pool(pool.clone())).unwrap();
                    for _ in 0..20 {
                        team.run_steps([8, 5], |_, _, _| {
                            most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::yield_now();
                            done.fetch_add(1, Ordering::SeqCst);
                            at_work.fetch_sub(1, Ordering::SeqCst);
                        })
                        .unwrap();
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((1..=size).contains(&most), "{most} threads computed at once");
        assert_eq!(done.into_inner(), 16 * 20 * 13);
        cases += 1;
    }
    assert_eq!(cases, 2);
}

#[test]
fn many_jobs_in_a_row_lose_and_repeat_nothing() {
    // With more threads than cores, helpers join late or not at all, and offers are taken back.
    let mut cases = 0;
    for (size, rounds) in [(2, 3_000), (5, 1_000), (64, 200)] {
        let mut team = Team::of(size);
        let sum = AtomicUsize::new(0);
        for round in 1..=rounds {
            let tasks = [1 + round % 7, round % 3, 1 + round % (2 * size)];
            sum.store(0, Ordering::Relaxed);
            team.run_steps(tasks, |step, index, _| {
                assert!(index < tasks[step] && worker() < size);
                sum.fetch_add(1 + 100 * index, Ordering::Relaxed);
            })
            .unwrap();
            let expected: usize =
                tasks.iter().map(|&count| count + 50 * count * count.saturating_sub(1)).sum();
            assert_eq!(sum.load(Ordering::Relaxed), expected);
            cases += 1;
        }
    }
    assert!(cases > 0);
}

#[test]
fn a_thread_runs_its_share_first_and_then_takes_tasks_of_others() {
    let step = Step::new(10, 4);
    let mut order = vec![];
    assert_eq!(step.work(2, |index| order.push(index)), 10);
    assert_eq!(order, [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]);
    assert_eq!(step.work(0, |_| unreachable!("all are taken")), 0);
}

#[test]
fn helpers_take_part_when_they_slept_and_when_they_are_awake() {
    let mut team = Team::of(3);
    for pause in [0, 0, 2, 0, 5] {
        std::thread::sleep(std::time::Duration::from_millis(pause));
        // Each task waits for the others: they end only if three threads work on them.
        let barrier = std::sync::Barrier::new(3);
        team.run(3, |_, _| {
            barrier.wait();
        })
        .unwrap();
    }
}

#[test]
fn the_caller_computes_if_not_all_threads_can_be_started() {
    let mut left = 2;
    let pool = Pool::build(4, |index, life| {
        if left == 0 {
            return Err(Error::OutOfMemory { device: "cpu".into(), what: "a test".into() });
        }
        left -= 1;
        spawn(index, life)
    });
    assert!(pool.workers.is_err());
    let mut team = Team::new(Threads::Pool(Arc::new(pool))).unwrap();
    assert_eq!(team.size(), 1);
    let caller = std::thread::current().id();
    team.run(4, |_, _| assert_eq!(std::thread::current().id(), caller)).unwrap();
}

#[test]
fn ending_a_pool_waits_for_its_threads() {
    let ended = Arc::new(AtomicUsize::new(0));
    let pool = Pool::build(3, |_, life| {
        let ended = ended.clone();
        crate::thread::spawn("cpu", "test", move || {
            life();
            ended.fetch_add(1, Ordering::SeqCst);
        })
    });
    let mut team = Team::new(Threads::Pool(Arc::new(pool))).unwrap();
    team.run(9, |_, _| {}).unwrap();
    drop(team);
    assert_eq!(ended.load(Ordering::SeqCst), 2);
}

#[test]
fn invalid_thread_counts_are_rejected() {
    for count in [0, MAX_THREADS + 1, usize::MAX] {
        let message = set_num_threads(count).unwrap_err().to_string();
        assert_eq!(message, format!("number of threads is {count}; expected 1 to 1024"));
    }
    assert!(num_threads() >= 1);
}

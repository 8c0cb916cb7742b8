//! A transport between threads of one process, which counts what it moves.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use sparkle::ranks::{Exchange, Group, Started, Transport};
use sparkle::{Device, Result};

/// Far longer than any rank waits for another: a rank that waits for ever fails.
const PATIENCE: Duration = Duration::from_secs(600);

/// What all ranks share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Messages under way, by sender, receiver and tag.
    messages: HashMap<(usize, usize, u32), VecDeque<Vec<f32>>>,
    /// Agreements and broadcasts by their number: who has come, and the result.
    rounds: HashMap<u64, Round>,
}

#[derive(Default)]
struct Round {
    come: usize,
    left: usize,
    values: Vec<i64>,
    data: Option<Vec<f32>>,
}

/// What the ranks of a group have received, in elements, each.
pub type Received = Arc<Mutex<Vec<u64>>>;

pub struct Threads {
    rank: usize,
    ranks: usize,
    shared: Arc<Shared>,
    round: u64,
    started: HashMap<u64, Exchange>,
    next: u64,
    received: Received,
}

/// The transports of a group, one for each rank.
pub fn transports(ranks: usize) -> (Vec<Threads>, Received) {
    let (shared, received) = (Arc::new(Shared::default()), Arc::new(Mutex::new(vec![0; ranks])));
    let transport = |rank| Threads {
        rank,
        ranks,
        shared: shared.clone(),
        round: 0,
        started: HashMap::new(),
        next: 0,
        received: received.clone(),
    };
    ((0..ranks).map(transport).collect(), received)
}

/// Runs `body` on every rank of a group, each on a thread, with the CPU. Returns their results in order, and what they
/// received.
pub fn on_ranks<T: Send>(ranks: usize, body: impl Fn(&Group) -> T + Sync) -> (Vec<T>, Vec<u64>) {
    on_ranks_with(&Device::open("cpu").unwrap(), ranks, body)
}

/// As [`on_ranks`], where all ranks compute on `device`.
pub fn on_ranks_with<T: Send>(
    device: &Device,
    ranks: usize,
    body: impl Fn(&Group) -> T + Sync,
) -> (Vec<T>, Vec<u64>) {
    let (transports, received) = transports(ranks);
    let results = std::thread::scope(|scope| {
        let run = |transport: Threads| {
            let body = &body;
            scope.spawn(move || body(&Group::new(device, Box::new(transport)).unwrap()))
        };
        let threads: Vec<_> = transports.into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let received = received.lock().unwrap().clone();
    (results, received)
}

impl Threads {
    /// Makes it wrong about its rank.
    pub fn set_rank(&mut self, rank: usize) {
        self.rank = rank;
    }

    /// Waits until all ranks have added to the next round.
    fn round<T>(&mut self, add: impl FnOnce(&mut Round), take: impl FnOnce(&Round) -> T) -> T {
        self.round += 1;
        let mut state = self.shared.state.lock().unwrap();
        let round = state.rounds.entry(self.round).or_default();
        add(round);
        round.come += 1;
        self.shared.changed.notify_all();
        let all = |state: &mut State| state.rounds[&self.round].come < self.ranks;
        let (mut state, waited) = self.shared.changed.wait_timeout_while(state, PATIENCE, all).unwrap();
        assert!(!waited.timed_out(), "rank {} waits for the others", self.rank);
        let round = state.rounds.get_mut(&self.round).unwrap();
        let taken = take(round);
        round.left += 1;
        if round.left == self.ranks {
            state.rounds.remove(&self.round);
        }
        taken
    }
}

impl Transport for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn start(&mut self, exchange: Exchange) -> Result<Started> {
        let mut state = self.shared.state.lock().unwrap();
        for message in &exchange.sends {
            assert!(message.rank < self.ranks && message.rank != self.rank && message.tag < 100);
            let key = (self.rank, message.rank, message.tag);
            state.messages.entry(key).or_default().push_back(message.data.clone());
        }
        drop(state);
        self.shared.changed.notify_all();
        self.next += 1;
        self.started.insert(self.next, exchange);
        Ok(Started(self.next))
    }

    fn finish(&mut self, started: Started) -> Result<Exchange> {
        let mut exchange = self.started.remove(&started.0).unwrap();
        for message in &mut exchange.receives {
            let key = (message.rank, self.rank, message.tag);
            let state = self.shared.state.lock().unwrap();
            let none = |state: &mut State| state.messages.get(&key).is_none_or(VecDeque::is_empty);
            let (mut state, waited) = self.shared.changed.wait_timeout_while(state, PATIENCE, none).unwrap();
            assert!(!waited.timed_out(), "rank {} waits for a message of {}", self.rank, message.rank);
            let data = state.messages.get_mut(&key).unwrap().pop_front().unwrap();
            assert_eq!(data.len(), message.data.len(), "both ranks know the length");
            message.data = data;
            self.received.lock().unwrap()[self.rank] += message.data.len() as u64;
        }
        Ok(exchange)
    }

    fn progress(&mut self) -> Result<()> {
        Ok(())
    }

    fn broadcast(&mut self, root: usize, data: &mut [f32]) -> Result<()> {
        let own = (self.rank == root).then(|| data.to_vec());
        let add = |round: &mut Round| round.data = round.data.take().or(own);
        let sent = self.round(add, |round| round.data.clone().unwrap());
        data.copy_from_slice(&sent);
        Ok(())
    }

    fn agree(&mut self, values: &mut [i64]) -> Result<()> {
        let own = values.to_vec();
        let add = |round: &mut Round| {
            round.values.resize(own.len(), i64::MIN);
            round.values.iter_mut().zip(&own).for_each(|(all, own)| *all = (*all).max(*own));
        };
        let agreed = self.round(add, |round| round.values.clone());
        values.copy_from_slice(&agreed);
        Ok(())
    }
}

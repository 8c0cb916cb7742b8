//! What each of some switches is worth: Shapley values of a full factorial experiment, with bootstrap intervals.
//!
//! The value of a set of switches is the logarithm of the speed with these on. The Shapley value of a switch (Shapley
//! 1953) is the mean of what it adds, over all orders in which the switches may be turned on. So the values add up to the
//! difference between all on and all off, and their exponentials are factors that multiply to the whole gain. The
//! interaction of a pair is the Shapley interaction index (Grabisch and Roubens 1999).
//!
//! Measurements come in rounds, in each of which every set is measured once, and rounds in processes. Each round is centred
//! first, which removes what slows a whole round down. The level of a set is the median over the rounds of a process, and
//! the mean of these over processes. Intervals are percentiles over resampled rounds within processes (Efron 1979).

use crate::problem::exact::Random;

/// Factors within these bounds count as nothing.
pub const BOUNDS: [f64; 2] = [0.98, 1.02];

/// Resamples of a bootstrap.
const RESAMPLES: usize = 1000;
/// The seed of resampling: the same measurements have the same intervals.
const SEED: u64 = 21;

/// A game: a value for each set of players. Bit i of a set's index says whether player i is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Game {
    players: usize,
    values: Vec<f64>,
}

impl Game {
    /// A game from the values of all sets. `None` unless there are a power of two of them, for at most 16 players.
    pub fn new(values: Vec<f64>) -> Option<Self> {
        let players = values.len().checked_ilog2()? as usize;
        (players <= 16 && values.len() == 1 << players).then_some(Game { players, values })
    }

    /// What `player` adds to `set`.
    fn adds(&self, player: usize, set: usize) -> f64 {
        self.values[set | 1 << player] - self.values[set & !(1 << player)]
    }

    /// The sets that none of the players in the mask `out` are in.
    fn sets_without(&self, out: usize) -> impl Iterator<Item = usize> {
        (0..self.values.len()).filter(move |set| set & out == 0)
    }

    /// The Shapley value of a player.
    pub fn shapley(&self, player: usize) -> f64 {
        let n = self.players;
        let weight = |size: usize| 1.0 / (n as f64 * binomial(n - 1, size));
        self.sets_without(1 << player)
            .map(|set| weight(set.count_ones() as usize) * self.adds(player, set))
            .sum()
    }

    /// What a player adds to the empty set.
    pub fn first_in(&self, player: usize) -> f64 {
        self.adds(player, 0)
    }

    /// What a player adds to all others.
    pub fn last_in(&self, player: usize) -> f64 {
        self.adds(player, self.values.len() - 1)
    }

    /// The least and the most that a player adds to any set.
    pub fn range(&self, player: usize) -> [f64; 2] {
        let adds = self.sets_without(1 << player).map(|set| self.adds(player, set));
        adds.fold([f64::INFINITY, f64::NEG_INFINITY], |[least, most], it| [least.min(it), most.max(it)])
    }

    /// The interaction of two players: what both add beyond what each adds, averaged as in [`Game::shapley`].
    pub fn interaction(&self, one: usize, other: usize) -> f64 {
        let n = self.players;
        let weight = |size: usize| 1.0 / ((n - 1) as f64 * binomial(n - 2, size));
        let both = |set: usize| self.adds(one, set | 1 << other) - self.adds(one, set & !(1 << other));
        self.sets_without(1 << one | 1 << other)
            .map(|set| weight(set.count_ones() as usize) * both(set))
            .sum()
    }

    /// The pair whose interaction is largest in absolute value, and the interaction. `None` for fewer than two players.
    pub fn strongest_pair(&self) -> Option<([usize; 2], f64)> {
        let pairs = (0..self.players).flat_map(|one| (one + 1..self.players).map(move |other| [one, other]));
        let all = pairs.map(|pair| (pair, self.interaction(pair[0], pair[1])));
        all.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
    }
}

fn binomial(n: usize, k: usize) -> f64 {
    (0..k).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64)
}

/// Logarithms of speeds: of each process, of each of its rounds, of each cell.
pub type Rounds = Vec<Vec<Vec<f64>>>;

/// A number with its interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Estimate {
    /// From all rounds.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Estimate {
    /// The factor of which this is the logarithm.
    pub fn factor(&self) -> Estimate {
        Estimate { value: self.value.exp(), low: self.low.exp(), high: self.high.exp() }
    }
}

/// What a factor's interval says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The interval lies above 1.02.
    Holds,
    /// It lies within 0.98 to 1.02.
    Nothing,
    /// It lies below 0.98.
    Harms,
    /// Anything else.
    Open,
}

impl Verdict {
    /// The verdict on a factor.
    pub fn of(factor: &Estimate) -> Self {
        let [least, most] = BOUNDS;
        match (factor.low, factor.high) {
            (low, _) if low > most => Verdict::Holds,
            (_, high) if high < least => Verdict::Harms,
            (low, high) if low >= least && high <= most => Verdict::Nothing,
            _ => Verdict::Open,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Nothing => "nothing",
            Verdict::Harms => "harms",
            Verdict::Open => "open",
        }
    }
}

/// Subtracts from each round the mean of its cells.
fn centred(rounds: &Rounds) -> Rounds {
    let centre = |round: &Vec<f64>| {
        let mean = round.iter().sum::<f64>() / round.len().max(1) as f64;
        round.iter().map(|value| value - mean).collect()
    };
    rounds.iter().map(|process| process.iter().map(centre).collect()).collect()
}

/// The level of each cell, from the rounds that `picks` names in each process.
fn levels(rounds: &Rounds, picks: &[Vec<usize>]) -> Vec<f64> {
    let cells = rounds.first().and_then(|process| process.first()).map_or(0, Vec::len);
    let mut sums = vec![0.0; cells];
    for (process, picks) in rounds.iter().zip(picks) {
        for (cell, sum) in sums.iter_mut().enumerate() {
            let mut values: Vec<f64> = picks.iter().map(|&round| process[round][cell]).collect();
            *sum += middle(&mut values) / rounds.len() as f64;
        }
    }
    sums
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

/// Estimates some statistics of the levels of all cells. `None` without a round in each process, or if rounds have
/// different numbers of cells.
pub fn estimate(rounds: &Rounds, statistics: impl Fn(&[f64]) -> Vec<f64>) -> Option<Vec<Estimate>> {
    let cells = rounds.first()?.first()?.len();
    let complete =
        |process: &Vec<Vec<f64>>| !process.is_empty() && process.iter().all(|it| it.len() == cells);
    if cells == 0 || !rounds.iter().all(complete) {
        return None;
    }
    let rounds = centred(rounds);
    let all: Vec<Vec<usize>> = rounds.iter().map(|process| (0..process.len()).collect()).collect();
    let values = statistics(&levels(&rounds, &all));
    let mut random = Random::new(SEED);
    let mut samples = vec![Vec::with_capacity(RESAMPLES); values.len()];
    for _ in 0..RESAMPLES {
        let mut pick = |all: &Vec<usize>| -> Vec<usize> {
            all.iter().map(|_| random.between(0, all.len() as i64 - 1) as usize).collect()
        };
        let picks: Vec<Vec<usize>> = all.iter().map(&mut pick).collect();
        for (samples, value) in samples.iter_mut().zip(statistics(&levels(&rounds, &picks))) {
            samples.push(value);
        }
    }
    let of = |(value, mut samples): (f64, Vec<f64>)| {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| samples[(share * (samples.len() - 1) as f64).round() as usize];
        Estimate { value, low: at(0.025).min(value), high: at(0.975).max(value) }
    };
    Some(values.into_iter().zip(samples).map(of).collect())
}

/// What one switch is worth. Numbers are factors.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Worth {
    /// The Shapley value.
    pub shapley: Estimate,
    /// Turned on before all others.
    pub first_in: Estimate,
    /// Turned on after all others.
    pub last_in: Estimate,
    /// The least and the most over all sets of the others.
    pub range: [f64; 2],
    /// What the Shapley value's interval says.
    pub verdict: Verdict,
}

/// What all switches are worth. Numbers are factors.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Attribution {
    /// Of each switch.
    pub worth: Vec<Worth>,
    /// All on over all off: the product of the Shapley factors.
    pub whole: Estimate,
    /// The pair that interacts most, and by what factor: above 1 they help each other.
    pub pair: Option<([usize; 2], f64)>,
}

/// Attributes the gain of a full factorial. Cell s of a round has the switches on whose bits are set in s.
///
/// `None` if cells are missing.
pub fn attribute(rounds: &Rounds) -> Option<Attribution> {
    let cells = rounds.first()?.first()?.len();
    let players = Game::new(vec![0.0; cells])?.players;
    let statistics = |levels: &[f64]| {
        let Some(game) = Game::new(levels.to_vec()) else { return vec![] };
        let three = |player| [game.shapley(player), game.first_in(player), game.last_in(player)];
        let whole = levels[levels.len() - 1] - levels[0];
        (0..players).flat_map(three).chain([whole]).collect()
    };
    let found = estimate(rounds, statistics)?;
    let centred = centred(rounds);
    let all: Vec<Vec<usize>> = rounds.iter().map(|process| (0..process.len()).collect()).collect();
    let game = Game::new(levels(&centred, &all))?;
    let (three, whole) = found.split_at(3 * players);
    let worth = three.chunks_exact(3).enumerate().map(|(player, of)| {
        let shapley = of[0].factor();
        Worth {
            shapley,
            first_in: of[1].factor(),
            last_in: of[2].factor(),
            range: game.range(player).map(f64::exp),
            verdict: Verdict::of(&shapley),
        }
    });
    Some(Attribution {
        worth: worth.collect(),
        whole: whole.first()?.factor(),
        pair: game.strongest_pair().map(|(pair, value)| (pair, value.exp())),
    })
}

/// Kendall's tau-b of two rankings of the same things. `None` if one of them has no order.
pub fn kendall(one: &[f64], other: &[f64]) -> Option<f64> {
    let (mut agree, mut ties) = (0.0, [0.0f64; 2]);
    let len = one.len().min(other.len());
    for i in 0..len {
        for j in 0..i {
            let (a, b) = (one[i].total_cmp(&one[j]) as i8, other[i].total_cmp(&other[j]) as i8);
            agree += f64::from(a * b);
            ties[0] += f64::from(a * a);
            ties[1] += f64::from(b * b);
        }
    }
    let scale = (ties[0] * ties[1]).sqrt();
    (scale > 0.0).then(|| agree / scale)
}

/// The harmonic mean of shares, as Pennycook's performance portability takes it. `None` for none, or one that is not
/// positive.
pub fn harmonic(shares: &[f64]) -> Option<f64> {
    let valid = !shares.is_empty() && shares.iter().all(|&share| share > 0.0);
    valid.then(|| shares.len() as f64 / shares.iter().map(|share| 1.0 / share).sum::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f64, other: f64) {
        assert!((one - other).abs() < 1e-9, "{one} {other}");
    }

    /// The glove game: player 0 has a left glove, players 1 and 2 a right one each; a pair is worth 1. Its Shapley values
    /// are 2/3, 1/6, 1/6.
    #[test]
    fn the_glove_game() {
        let pair = |set: usize| f64::from(u8::from(set & 1 != 0 && set & 6 != 0));
        let game = Game::new((0..8).map(pair).collect()).unwrap();
        near(game.shapley(0), 2.0 / 3.0);
        near(game.shapley(1), 1.0 / 6.0);
        near(game.shapley(2), 1.0 / 6.0);
        assert_eq!(game.range(0), [0.0, 1.0]);
        assert_eq!((game.first_in(0), game.last_in(0), game.last_in(1)), (0.0, 1.0, 0.0));
        // Left and right need each other; the right gloves replace each other.
        near(game.interaction(0, 1), 0.5);
        near(game.interaction(1, 2), -0.5);
        assert!(Game::new(vec![0.0; 6]).is_none() && Game::new(vec![]).is_none());
    }

    /// Values add up to the whole; in an additive game they are what each adds, and nothing interacts.
    #[test]
    fn values_add_up_and_an_additive_game_has_no_interactions() {
        let parts = [0.5, -0.25, 2.0, 0.0, 1.0];
        let sum = |set: usize| (0..5).filter(|i| set >> i & 1 != 0).map(|i| parts[i]).sum::<f64>();
        let game = Game::new((0..32).map(sum).collect()).unwrap();
        for (player, &part) in parts.iter().enumerate() {
            near(game.shapley(player), part);
            near(game.range(player)[0], part);
        }
        near(game.strongest_pair().unwrap().1, 0.0);
        let mut random = Random::new(3);
        let game = Game::new((0..32).map(|_| random.between(0, 1000) as f64).collect()).unwrap();
        let all: f64 = (0..5).map(|player| game.shapley(player)).sum();
        near(all, game.values[31] - game.values[0]);
    }

    /// A factorial with noise: the intervals contain the truth, factors multiply to the whole, and a slow round changes
    /// nothing.
    #[test]
    fn a_noisy_factorial_is_attributed() {
        let truth = [2.0f64.ln(), 0.0, 1.5f64.ln()];
        let mut random = Random::new(7);
        let mut round = |slow: f64| -> Vec<f64> {
            let sum = |set: usize| (0..3).filter(|i| set >> i & 1 != 0).map(|i| truth[i]).sum::<f64>();
            (0..8).map(|set| sum(set) - slow + random.between(-1000, 1000) as f64 * 2e-6).collect()
        };
        let rounds: Rounds =
            (0..3).map(|_| (0..7).map(|i| round(if i == 3 { 1.0 } else { 0.0 })).collect()).collect();
        let found = attribute(&rounds).unwrap();
        for (worth, truth) in found.worth.iter().zip(truth) {
            let factor = truth.exp();
            assert!(worth.shapley.low <= factor + 2e-3 && worth.shapley.high >= factor - 2e-3, "{worth:?}");
            assert!(worth.shapley.high - worth.shapley.low < 0.01, "{worth:?}");
        }
        let verdicts: Vec<Verdict> = found.worth.iter().map(|worth| worth.verdict).collect();
        assert_eq!(verdicts, [Verdict::Holds, Verdict::Nothing, Verdict::Holds]);
        let product: f64 = found.worth.iter().map(|worth| worth.shapley.value).product();
        near(product, found.whole.value);
        assert!(attribute(&vec![vec![]]).is_none() && attribute(&vec![vec![vec![0.0; 3]]]).is_none());
    }

    #[test]
    fn verdicts_are_what_was_fixed() {
        let verdict = |low, high| Verdict::of(&Estimate { value: low, low, high });
        assert_eq!(verdict(1.021, 1.5), Verdict::Holds);
        assert_eq!(verdict(0.98, 1.02), Verdict::Nothing);
        assert_eq!(verdict(0.5, 0.979), Verdict::Harms);
        assert_eq!(verdict(1.0, 1.03), Verdict::Open);
        assert_eq!(verdict(0.9, 1.1), Verdict::Open);
        assert_eq!(verdict(1.02, 1.5), Verdict::Open);
    }

    #[test]
    fn rankings_and_means() {
        near(kendall(&[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0]).unwrap(), 1.0);
        near(kendall(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]).unwrap(), -1.0);
        near(kendall(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]).unwrap(), 2.0 / 3.0);
        assert_eq!(kendall(&[1.0, 1.0], &[1.0, 2.0]), None);
        near(harmonic(&[0.5, 1.0]).unwrap(), 2.0 / 3.0);
        assert_eq!((harmonic(&[]), harmonic(&[0.0])), (None, None));
    }
}

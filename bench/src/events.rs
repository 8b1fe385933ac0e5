//! Owns the synthetic load: which change events there are, in which order, and what they sum up to.
//!
//! Pure and deterministic: the same [`Workload`] always gives the same events, so every system is measured on the
//! same ones. Each new event has a fresh id; a share of the events is an exact redelivery of a recent one, as
//! a connector sends after a crash, and must not count again.

use crate::envelope::{Change, write_key, write_value};

/// How many recent events may come again.
const REMEMBERED: usize = 16_384;

/// How goods are spread over events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Popularity {
    /// All alike.
    Uniform,
    /// The n-th good has 1/n of the first one's events, as in a shop.
    Zipf,
}

/// What load to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Events, redelivered ones included.
    pub events: u64,
    /// Goods, numbered from 1.
    pub goods: u32,
    /// How goods are spread over events.
    pub popularity: Popularity,
    /// Share of events that are redeliveries.
    pub redelivered_percent: u8,
    /// Share of new events that move good 1, whatever the popularity says.
    pub hot_good_percent: u8,
    /// Everything random follows from it.
    pub seed: u64,
}

impl Workload {
    /// The load of the throughput runs: 100,000 goods by popularity, 10 % redelivered.
    pub const fn usual(events: u64) -> Self {
        Self {
            events,
            goods: 100_000,
            popularity: Popularity::Zipf,
            redelivered_percent: 10,
            hot_good_percent: 0,
            seed: 1,
        }
    }
}

/// A record of the source topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Record key.
    pub key: String,
    /// Record value.
    pub value: String,
}

/// What must remain of each good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpectedSums {
    /// By good; the goods are numbered from 1.
    sums: Vec<Option<i64>>,
    goods: usize,
}

impl ExpectedSums {
    /// Counts a movement.
    pub fn add(&mut self, good_id: u32, pieces: i64) {
        let Ok(index) = usize::try_from(good_id) else { return };
        if self.sums.len() <= index {
            self.sums.resize(index + 1, None);
        }
        if let Some(sum) = self.sums.get_mut(index) {
            self.goods += usize::from(sum.is_none());
            *sum = Some(sum.unwrap_or(0) + pieces);
        }
    }

    /// What must remain of a good; `None` for one that never moved.
    pub fn of(&self, good_id: i64) -> Option<i64> {
        self.sums.get(usize::try_from(good_id).ok()?).copied().flatten()
    }

    /// How many goods moved.
    pub const fn goods(&self) -> usize {
        self.goods
    }

    /// Adds what other events come to.
    pub fn extend(&mut self, other: &Self) {
        for (good_id, sum) in (0_u32..).zip(&other.sums) {
            if let Some(sum) = sum {
                self.add(good_id, *sum);
            }
        }
    }
}

/// Chooses goods.
#[derive(Debug)]
enum Goods {
    Uniform(u32),
    /// Upper bound of each good's share, ascending to 1.
    Weighted(Vec<f64>),
}

impl Goods {
    fn new(goods: u32, popularity: Popularity) -> Self {
        if popularity == Popularity::Uniform {
            return Self::Uniform(goods);
        }
        let mut total = 0.0;
        let sums: Vec<f64> = (1..=goods)
            .map(|good| {
                total += f64::from(good).recip();
                total
            })
            .collect();
        Self::Weighted(sums.into_iter().map(|sum| sum / total).collect())
    }

    fn choose(&self, random: &mut fastrand::Rng) -> u32 {
        match self {
            Self::Uniform(goods) => random.u32(1..=*goods),
            Self::Weighted(bounds) => {
                let chosen = random.f64();
                let below = bounds.partition_point(|bound| *bound <= chosen).min(bounds.len().saturating_sub(1));
                u32::try_from(below).unwrap_or(u32::MAX - 1) + 1
            }
        }
    }
}

/// Gives the events of a workload one by one.
#[derive(Debug)]
pub struct Generator {
    workload: Workload,
    random: fastrand::Rng,
    goods: Goods,
    recent: Vec<Event>,
    slot: usize,
    given: u64,
    change: Change,
    expected: ExpectedSums,
}

impl Generator {
    /// At the first event.
    pub fn new(workload: Workload) -> Self {
        Self {
            workload,
            random: fastrand::Rng::with_seed(workload.seed),
            goods: Goods::new(workload.goods, workload.popularity),
            recent: Vec::new(),
            slot: 0,
            given: 0,
            change: Change::default(),
            expected: ExpectedSums::default(),
        }
    }

    /// The next event; `None` when all were given.
    pub fn next_event(&mut self) -> Option<&Event> {
        if self.given == self.workload.events {
            return None;
        }
        self.given += 1;
        let redelivered = self.random.u8(0..100) < self.workload.redelivered_percent;
        if redelivered && !self.recent.is_empty() {
            let again = self.random.usize(0..self.recent.len());
            return self.recent.get(again);
        }
        let slot = self.slot;
        self.slot = (slot + 1) % REMEMBERED;
        if self.recent.len() <= slot {
            self.recent.push(Event::default());
        }
        self.make_change();
        let event = self.recent.get_mut(slot)?;
        write_key(&mut event.key, self.change.id);
        write_value(&mut event.value, &self.change);
        Some(event)
    }

    fn make_change(&mut self) {
        let hot = self.random.u8(0..100) < self.workload.hot_good_percent;
        let good_id = if hot { 1 } else { self.goods.choose(&mut self.random) };
        let pieces = self.random.i64(1..=100);
        // Two thirds in, one third out.
        let signed = if self.random.u8(0..3) == 0 { -pieces } else { pieces };
        self.expected.add(good_id, signed);
        self.change.id = uuid::Builder::from_random_bytes(self.random.u128(..).to_le_bytes()).into_uuid();
        self.change.good_id = i64::from(good_id);
        self.change.pieces = signed;
        self.change.advance(self.random.u64(64..320), self.random.u64(10..210));
    }

    /// What the events given so far sum up to.
    pub const fn expected(&self) -> &ExpectedSums {
        &self.expected
    }

    /// As [`expected`](Self::expected), when no more events are wanted.
    pub fn into_expected(self) -> ExpectedSums {
        self.expected
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use schemas::debezium::{self, ChangeOperation};

    use super::*;

    /// The events of a workload and what a reader that ignores redeliveries makes of them.
    fn played(workload: Workload) -> (Vec<Event>, BTreeMap<i64, i64>, ExpectedSums) {
        let mut generator = Generator::new(workload);
        let (mut events, mut seen, mut sums) = (Vec::new(), HashSet::new(), BTreeMap::new());
        while let Some(event) = generator.next_event() {
            let record =
                debezium::Decoder::new(1 << 20).decode(Some(event.key.as_bytes()), Some(event.value.as_bytes()));
            let (id, change) = (record.key.unwrap().id, record.change.unwrap());
            let debezium::Change::Row(change) = change else { panic!("not a row: {}", event.value) };
            assert_eq!(change.operation, ChangeOperation::Create);
            let content = change.content.unwrap().unwrap();
            if seen.insert(id) {
                *sums.entry(content.good_id.integer().unwrap()).or_insert(0) += content.pieces;
            }
            events.push(event.clone());
        }
        (events, sums, generator.into_expected())
    }

    fn small(popularity: Popularity) -> Workload {
        Workload { goods: 50, popularity, ..Workload::usual(5_000) }
    }

    #[test]
    fn expected_sums_are_those_of_a_reader_that_counts_every_id_once() {
        for popularity in [Popularity::Uniform, Popularity::Zipf] {
            let (events, sums, expected) = played(small(popularity));
            assert_eq!(events.len(), 5_000);
            assert_eq!(expected.goods(), sums.len());
            for (good, sum) in sums {
                assert_eq!(expected.of(good), Some(sum));
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_events_and_another_one_others() {
        let workload = small(Popularity::Zipf);
        assert_eq!(played(workload).0, played(workload).0);
        assert_ne!(played(workload).0, played(Workload { seed: 2, ..workload }).0);
    }

    #[test]
    fn about_a_tenth_is_redelivered_byte_for_byte() {
        let (events, ..) = played(small(Popularity::Uniform));
        let distinct: HashSet<_> = events.iter().map(|event| (&event.key, &event.value)).collect();
        let redelivered = events.len() - distinct.len();
        assert!((350..650).contains(&redelivered), "{redelivered} of 5000");
    }

    #[test]
    fn a_hot_good_has_its_share() {
        let workload = Workload { hot_good_percent: 50, redelivered_percent: 0, ..small(Popularity::Uniform) };
        let (events, ..) = played(workload);
        let hot = events.iter().filter(|event| event.value.contains("\"good_id\":1,")).count();
        assert!((2_300..2_800).contains(&hot), "{hot} of 5000");
    }

    #[test]
    fn sums_of_two_loads_add_up() {
        let (mut all, mut more) = (ExpectedSums::default(), ExpectedSums::default());
        all.add(3, 5);
        more.add(3, -7);
        more.add(9, 1);
        all.extend(&more);
        assert_eq!((all.of(3), all.of(9), all.of(4), all.goods()), (Some(-2), Some(1), None, 2));
    }
}

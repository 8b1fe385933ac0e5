//! Which faults come when: drawn from a seed, before anything happens. Pure.
//!
//! Faults overlap as they come; what is hurt already, or has only just come back, is left alone until it had time to stand
//! up, because a system that is never up shows nothing. Kinds are dealt like cards, so that a short run sees most of them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

use super::super::recovery::Output;
use crate::client::ResetTo;
use crate::stack::{Component, Program};

/// Milliseconds since the begin, and lengths in milliseconds: exact, so that the same seed means the same list.
type Millis = u64;

/// Between the begins of two faults.
const GAP: Range<Millis> = 1_000..7_000;

/// What was hurt is left alone for so long after it has come back.
const REST_OF_A_PROGRAM: Millis = 7_000;
const REST_OF_A_SERVER: Millis = 25_000;

const BROKERS: [u8; 3] = [1, 2, 3];

/// What there is to be hurt.
#[derive(Debug, Clone)]
pub(super) struct Cast {
    /// Processors that run all the time. One more comes and goes.
    pub(super) processors: usize,
    /// Sinks that run all the time.
    pub(super) sinks: usize,
    /// Servers, as [`crate::stack::Stack::components`] tells; three brokers among them.
    pub(super) servers: Vec<Component>,
}

/// What is done to the state directory of a processor that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is removed.
    Removed,
    /// Each data file loses its second half.
    Truncated,
    /// Bits of each data file flip.
    BitsFlipped,
}

/// Something that goes wrong, until it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// A program is killed (−9), and started again.
    Killed(Program, usize),
    /// A program is told to stop (SIGTERM), and started again.
    Stopped(Program, usize),
    /// A program is frozen (SIGSTOP) for longer than its session, and goes on.
    Asleep(Program, usize),
    /// A processor is killed, and finds its state damaged when it comes back.
    StateDamaged(usize, Damage),
    /// A further processor comes, and goes by SIGTERM.
    ScaledOut(usize),
    /// All sinks are killed, and the group's offsets are elsewhere when they come back.
    SinkOffsetsReset(ResetTo),
    /// Servers are killed (−9) at once, and started again.
    ServersKilled(Vec<Component>),
    /// A broker is told to stop, and started again.
    BrokerStopped(u8),
    /// A broker is frozen, and goes on.
    BrokerAsleep(u8),
    /// A broker is taken off the network, and put back.
    BrokerCutOff(u8),
}

/// A fault with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// When it begins, from the begin of the mix.
    pub(super) at: Duration,
    /// How long it lasts, at least.
    pub(super) lasts: Duration,
    /// What it is.
    pub(super) fault: Fault,
}

/// Something that has at most one fault at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victim {
    /// A processor.
    Processor(usize),
    /// A sink.
    Sink(usize),
    /// A server.
    Server(Component),
}

/// A kind of fault, as a card: dealt, played, and dealt again when all are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Card {
    ProcessorKilled,
    ProcessorStopped,
    ProcessorAsleep,
    StateDamaged,
    ScaledOut,
    SinkKilled,
    SinkStopped,
    SinkAsleep,
    SinkOffsetsReset,
    OneBrokerKilled,
    TwoBrokersKilled,
    AllBrokersKilled,
    BrokerStopped,
    BrokerAsleep,
    BrokerCutOff,
    Killed(Component),
}

const OF_PROGRAMS: [Card; 14] = [
    Card::ProcessorKilled,
    Card::ProcessorKilled,
    Card::ProcessorKilled,
    Card::ProcessorStopped,
    Card::ProcessorStopped,
    Card::ProcessorAsleep,
    Card::ProcessorAsleep,
    Card::StateDamaged,
    Card::StateDamaged,
    Card::ScaledOut,
    Card::SinkKilled,
    Card::SinkKilled,
    Card::SinkStopped,
    Card::SinkAsleep,
];

const OF_BROKERS: [Card; 8] = [
    Card::OneBrokerKilled,
    Card::OneBrokerKilled,
    Card::TwoBrokersKilled,
    Card::AllBrokersKilled,
    Card::BrokerStopped,
    Card::BrokerAsleep,
    Card::BrokerCutOff,
    // Nobody can move offsets without a coordinator: it takes all brokers.
    Card::SinkOffsetsReset,
];

/// One fault in so many, where there is a choice, is one of brokers.
const BROKERS_IN: u8 = 3;

/// The faults of a mix of this length, in the order of their begin; each is over by its end.
pub(super) fn plan(seed: u64, cast: &Cast, length: Duration) -> Vec<Planned> {
    let end = Millis::try_from(length.as_millis()).unwrap_or(Millis::MAX);
    let mut table = Table {
        cast,
        random: Rng::with_seed(seed),
        free: BTreeMap::new(),
        of_brokers: Vec::new(),
        of_others: Vec::new(),
    };
    let mut planned = Vec::new();
    let mut at = table.random.u64(GAP);
    while at < end {
        if let Some((fault, lengths)) = table.draw(at) {
            let lasts = table.random.u64(lengths).min(end - at);
            for victim in fault.victims(cast) {
                table.free.insert(victim, at + lasts + victim.rest());
            }
            planned.push(Planned { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), fault });
        }
        at += table.random.u64(GAP);
    }
    planned
}

/// The cards on the table, and who may be hurt from when on.
struct Table<'a> {
    cast: &'a Cast,
    random: Rng,
    free: BTreeMap<Victim, Millis>,
    /// Dealt again only when all are gone, or those that take all brokers at once would wait for ever.
    of_brokers: Vec<Card>,
    of_others: Vec<Card>,
}

impl Table<'_> {
    fn draw(&mut self, at: Millis) -> Option<(Fault, Range<Millis>)> {
        if self.of_brokers.is_empty() {
            self.of_brokers.extend(OF_BROKERS);
            self.random.shuffle(&mut self.of_brokers);
        }
        // Before the last ones are left waiting for the same victim.
        if self.of_others.len() < OF_PROGRAMS.len() / 2 {
            let mut hand = OF_PROGRAMS.to_vec();
            for server in self.cast.servers.iter().filter(|server| !matches!(server, Component::Broker(_))) {
                hand.extend([Card::Killed(*server); 2]);
            }
            self.random.shuffle(&mut hand);
            self.of_others.extend(hand);
        }
        let brokers_first = self.random.u8(..BROKERS_IN) == 0;
        let drawn = if brokers_first { self.draw_of_brokers(at) } else { None };
        drawn.or_else(|| self.draw_of_others(at)).or_else(|| self.draw_of_brokers(at))
    }

    fn draw_of_brokers(&mut self, at: Millis) -> Option<(Fault, Range<Millis>)> {
        let mut deck = std::mem::take(&mut self.of_brokers);
        let drawn = self.draw_of(&mut deck, at);
        self.of_brokers = deck;
        drawn
    }

    fn draw_of_others(&mut self, at: Millis) -> Option<(Fault, Range<Millis>)> {
        let mut deck = std::mem::take(&mut self.of_others);
        let drawn = self.draw_of(&mut deck, at);
        self.of_others = deck;
        drawn
    }

    /// The first card that can be played.
    fn draw_of(&mut self, deck: &mut Vec<Card>, at: Millis) -> Option<(Fault, Range<Millis>)> {
        let (place, drawn) = deck.iter().enumerate().find_map(|(place, card)| Some((place, self.play(*card, at)?)))?;
        deck.remove(place);
        Some(drawn)
    }

    /// `None` if it hits somebody who is down already, or has only just come back.
    fn play(&mut self, card: Card, at: Millis) -> Option<(Fault, Range<Millis>)> {
        let (fault, lengths) = card.draw(&mut self.random, self.cast);
        let is_free = |victim: &Victim| self.free.get(victim).is_none_or(|since| *since <= at);
        fault.victims(self.cast).iter().all(is_free).then_some((fault, lengths))
    }
}

impl Card {
    /// A fault of this kind, and how many milliseconds it may last.
    fn draw(self, random: &mut Rng, cast: &Cast) -> (Fault, Range<Millis>) {
        const PROCESSOR: Program = Program::Processor;
        const SINK: Program = Program::Sink;
        // Past the session timeout of 6 s; the longest also past the 20 s that a transaction lives.
        const SLEEP: Range<Millis> = 7_000..24_000;
        let processor = random.usize(..cast.processors);
        let sink = random.usize(..cast.sinks);
        let mut brokers = BROKERS;
        random.shuffle(&mut brokers);
        let [broker, another, _] = brokers;
        let killed = |brokers: &[u8]| Fault::ServersKilled(brokers.iter().copied().map(Component::Broker).collect());
        match self {
            Self::ProcessorKilled => (Fault::Killed(PROCESSOR, processor), 0..6_000),
            Self::ProcessorStopped => (Fault::Stopped(PROCESSOR, processor), 0..4_000),
            Self::ProcessorAsleep => (Fault::Asleep(PROCESSOR, processor), SLEEP),
            Self::StateDamaged => {
                let kinds = [Damage::Removed, Damage::Truncated, Damage::BitsFlipped];
                let damage = random.choice(kinds).unwrap_or(Damage::Removed);
                (Fault::StateDamaged(processor, damage), 500..5_000)
            }
            Self::ScaledOut => (Fault::ScaledOut(cast.processors), 8_000..25_000),
            Self::SinkKilled => (Fault::Killed(SINK, sink), 0..6_000),
            Self::SinkStopped => (Fault::Stopped(SINK, sink), 0..4_000),
            Self::SinkAsleep => (Fault::Asleep(SINK, sink), SLEEP),
            Self::SinkOffsetsReset => {
                let to = if random.bool() { ResetTo::Beginning } else { ResetTo::End };
                (Fault::SinkOffsetsReset(to), 7_000..10_000)
            }
            Self::OneBrokerKilled => (killed(&[broker]), 500..12_000),
            Self::TwoBrokersKilled => (killed(&[broker, another]), 2_000..12_000),
            Self::AllBrokersKilled => (killed(&BROKERS), 1_000..10_000),
            Self::BrokerStopped => (Fault::BrokerStopped(broker), 1_000..8_000),
            Self::BrokerAsleep => (Fault::BrokerAsleep(broker), 1_000..20_000),
            Self::BrokerCutOff => (Fault::BrokerCutOff(broker), 1_000..20_000),
            Self::Killed(server) => (Fault::ServersKilled(vec![server]), 500..15_000),
        }
    }
}

impl Victim {
    fn rest(self) -> Millis {
        match self {
            Self::Processor(_) | Self::Sink(_) => REST_OF_A_PROGRAM,
            Self::Server(_) => REST_OF_A_SERVER,
        }
    }
}

impl Fault {
    /// Who must not be hurt by anything else meanwhile.
    pub(super) fn victims(&self, cast: &Cast) -> Vec<Victim> {
        let brokers = || BROKERS.map(Component::Broker).map(Victim::Server);
        match self {
            Self::Killed(program, instance) | Self::Stopped(program, instance) | Self::Asleep(program, instance) => {
                vec![match program {
                    Program::Processor => Victim::Processor(*instance),
                    Program::Sink => Victim::Sink(*instance),
                }]
            }
            Self::StateDamaged(instance, _) | Self::ScaledOut(instance) => vec![Victim::Processor(*instance)],
            Self::SinkOffsetsReset(_) => (0..cast.sinks).map(Victim::Sink).chain(brokers()).collect(),
            // Not while another one is still away or coming back; the stage sees to it that all are in sync, too.
            Self::ServersKilled(servers) if servers.len() > 1 => brokers().to_vec(),
            Self::ServersKilled(servers) => servers.iter().copied().map(Victim::Server).collect(),
            // It hands its partitions over before it ends: that takes the others.
            Self::BrokerStopped(_) => brokers().to_vec(),
            Self::BrokerAsleep(broker) | Self::BrokerCutOff(broker) => vec![Victim::Server(Component::Broker(*broker))],
        }
    }

    /// Which output it stops.
    pub(super) fn output(&self) -> Output {
        match self {
            Self::Killed(Program::Sink, _)
            | Self::Stopped(Program::Sink, _)
            | Self::Asleep(Program::Sink, _)
            | Self::SinkOffsetsReset(_) => Output::Target,
            Self::ServersKilled(servers) if servers.as_slice() == [Component::TargetDatabase] => Output::Target,
            _ => Output::Topic,
        }
    }

    /// Its kind, for figures over many.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Killed(Program::Processor, _) => "processor killed",
            Self::Killed(Program::Sink, _) => "sink killed",
            Self::Stopped(Program::Processor, _) => "processor told to stop",
            Self::Stopped(Program::Sink, _) => "sink told to stop",
            Self::Asleep(Program::Processor, _) => "processor asleep",
            Self::Asleep(Program::Sink, _) => "sink asleep",
            Self::StateDamaged(..) => "state of a processor damaged",
            Self::ScaledOut(_) => "processors scaled out",
            Self::SinkOffsetsReset(_) => "offsets of the sinks reset",
            Self::ServersKilled(servers) => match servers.as_slice() {
                [Component::Connect] => "Connect killed",
                [Component::SourceDatabase] => "source database killed",
                [Component::TargetDatabase] => "target database killed",
                [Component::Registry] => "registry killed",
                [_] => "one broker killed",
                [_, _] => "two brokers killed",
                _ => "all brokers killed",
            },
            Self::BrokerStopped(_) => "broker told to stop",
            Self::BrokerAsleep(_) => "broker asleep",
            Self::BrokerCutOff(_) => "broker cut off",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(program, instance) => write!(f, "{program} {instance} killed"),
            Self::Stopped(program, instance) => write!(f, "{program} {instance} told to stop"),
            Self::Asleep(program, instance) => write!(f, "{program} {instance} asleep"),
            Self::StateDamaged(instance, damage) => {
                let how = match damage {
                    Damage::Removed => "removed",
                    Damage::Truncated => "truncated",
                    Damage::BitsFlipped => "with flipped bits",
                };
                write!(f, "processor {instance} killed, its state {how}")
            }
            Self::ScaledOut(instance) => write!(f, "processor {instance} besides the others"),
            Self::SinkOffsetsReset(ResetTo::Beginning) => f.write_str("offsets of the sinks reset to the beginning"),
            Self::SinkOffsetsReset(_) => f.write_str("offsets of the sinks reset to the end"),
            Self::ServersKilled(servers) => {
                let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
                write!(f, "{} killed", names.join(", "))
            }
            Self::BrokerStopped(broker) => write!(f, "broker {broker} told to stop"),
            Self::BrokerAsleep(broker) => write!(f, "broker {broker} asleep"),
            Self::BrokerCutOff(broker) => write!(f, "broker {broker} cut off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cast() -> Cast {
        let brokers = BROKERS.map(Component::Broker);
        let others = [Component::Connect, Component::SourceDatabase, Component::TargetDatabase];
        Cast { processors: 3, sinks: 2, servers: brokers.into_iter().chain(others).collect() }
    }

    fn hour(seed: u64) -> Vec<Planned> {
        plan(seed, &cast(), Duration::from_secs(3_600))
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_one_others() {
        assert_eq!(hour(7), hour(7));
        assert_ne!(hour(7), hour(8));
    }

    #[test]
    fn nothing_is_hurt_twice_at_a_time_and_everything_is_over_in_the_end() {
        for seed in 0..50 {
            let mut free: BTreeMap<Victim, Duration> = BTreeMap::new();
            for planned in hour(seed) {
                let over = planned.at + planned.lasts;
                assert!(over <= Duration::from_secs(3_600), "seed {seed}: {planned:?}");
                for victim in planned.fault.victims(&cast()) {
                    let before = free.insert(victim, over);
                    assert!(before.is_none_or(|before| before < planned.at), "seed {seed}: {planned:?}");
                }
            }
        }
    }

    #[test]
    fn faults_come_every_few_seconds_and_overlap() {
        for seed in 0..50 {
            let planned = hour(seed);
            let mut gaps = planned.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at));
            assert!(gaps.all(|gap| gap < Duration::from_secs(20)), "seed {seed}");
            assert!(planned.len() > 3_600 / 8, "seed {seed}: {} faults", planned.len());
            let overlapping = planned.windows(2).filter(|pair| pair[0].at + pair[0].lasts > pair[1].at).count();
            assert!(overlapping > planned.len() / 3, "seed {seed}: {overlapping} of {}", planned.len());
        }
    }

    #[test]
    fn two_minutes_see_most_kinds_and_ten_see_all() {
        let kinds = |seed, seconds| {
            let planned = plan(seed, &cast(), Duration::from_secs(seconds));
            planned.iter().map(|planned| planned.fault.kind()).collect::<BTreeSet<_>>().len()
        };
        let all = 18;
        for seed in 0..50 {
            assert!(kinds(seed, 120) >= all / 2, "seed {seed}: {}", kinds(seed, 120));
            assert_eq!(kinds(seed, 600), all, "seed {seed}");
        }
    }

    #[test]
    fn two_minutes_hurt_brokers_too() {
        let is_of_brokers = |planned: &Planned| {
            let is_broker = |victim: &Victim| matches!(victim, Victim::Server(Component::Broker(_)));
            planned.fault.victims(&cast()).iter().any(is_broker)
        };
        for seed in 0..50 {
            let planned = plan(seed, &cast(), Duration::from_secs(120));
            let count = planned.iter().filter(|planned| is_of_brokers(planned)).count();
            assert!(count >= 2, "seed {seed}: {count}");
        }
    }

    #[test]
    fn only_what_is_there_is_hurt() {
        let cast = Cast { processors: 3, sinks: 2, servers: BROKERS.map(Component::Broker).to_vec() };
        let known: BTreeSet<Victim> = (0..4)
            .map(Victim::Processor)
            .chain((0..2).map(Victim::Sink))
            .chain(cast.servers.iter().copied().map(Victim::Server))
            .collect();
        let hurt =
            plan(1, &cast, Duration::from_secs(3_600)).into_iter().flat_map(|planned| planned.fault.victims(&cast));
        assert!(hurt.collect::<BTreeSet<_>>().is_subset(&known));
    }
}

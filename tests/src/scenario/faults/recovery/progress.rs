//! How far each partition has come, and when a measurement is over. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Recovered;

/// Offsets by partition.
pub(super) type Offsets = BTreeMap<i32, i64>;

/// Something that is written, and read on by somebody.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipe {
    /// Next offset to be written.
    pub(super) written: Offsets,
    /// Next offset to be read; what is before it has taken effect.
    pub(super) done: Offsets,
}

impl Pipe {
    fn has_moved_since(&self, before: &Offsets) -> bool {
        let moved = |partition: &i32| self.done.get(partition) > before.get(partition);
        !self.written.is_empty() && self.written.keys().all(moved)
    }

    fn has_reached(&self, goal: &Offsets) -> bool {
        goal.iter().all(|(partition, offset)| self.done.get(partition).is_some_and(|done| done >= offset))
    }
}

/// Everything that is watched.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// The input, applied by the first step.
    pub(super) input: Pipe,
    /// Movements, applied by the second step.
    pub(super) movements: Pipe,
    /// Stock deltas, applied to the target.
    pub(super) deltas: Pipe,
}

/// Which output a fault stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// The topic of stock deltas.
    Topic,
    /// The target's tables.
    Target,
}

impl Output {
    /// Whether what stops this output stops the other one, too.
    pub(super) fn stops(self, other: Self) -> bool {
        self == Self::Topic || other == Self::Target
    }
}

/// One fault from which the system is recovering.
#[derive(Debug)]
pub(super) struct Measurement {
    kind: &'static str,
    output: Output,
    since: Instant,
    /// Whether nothing else has gone wrong so far that could delay it.
    alone: bool,
    before: Offsets,
    /// How long it took to move, and the offsets that are to be reached since then: of the first pipe, of the second.
    moved: Option<(Duration, Offsets, Offsets)>,
}

impl Measurement {
    pub(super) fn begin(kind: &'static str, output: Output, progress: &Progress, now: Instant) -> Self {
        Self { kind, output, since: now, alone: true, before: progress.pipe(output).done.clone(), moved: None }
    }

    /// Something else goes wrong, which stops `output`.
    pub(super) fn disturb(&mut self, output: Output) {
        self.alone &= !output.stops(self.output);
    }

    pub(super) fn output(&self) -> Output {
        self.output
    }

    /// `Some` once it has caught up.
    pub(super) fn look(&mut self, progress: &Progress, now: Instant) -> Option<Recovered> {
        let pipe = progress.pipe(self.output);
        let (moves, first, second) = match self.moved.as_mut() {
            Some((moves, first, second)) => (*moves, first, second),
            None if pipe.has_moved_since(&self.before) => {
                let second = match self.output {
                    Output::Topic => progress.movements.written.clone(),
                    Output::Target => Offsets::new(),
                };
                let (moves, first, second) =
                    self.moved.insert((now.saturating_duration_since(self.since), pipe.written.clone(), second));
                (*moves, first, second)
            }
            None => return None,
        };
        let caught_up = pipe.has_reached(first) && progress.movements.has_reached(second);
        caught_up.then(|| Recovered {
            kind: self.kind.to_owned(),
            alone: self.alone,
            moves,
            caught_up: now.saturating_duration_since(self.since),
        })
    }
}

impl Progress {
    fn pipe(&self, output: Output) -> &Pipe {
        match output {
            Output::Topic => &self.input,
            Output::Target => &self.deltas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(written: [i64; 2], done: [i64; 2]) -> Pipe {
        let offsets = |[first, second]: [i64; 2]| Offsets::from([(0, first), (1, second)]);
        Pipe { written: offsets(written), done: offsets(done) }
    }

    #[test]
    fn the_output_moves_when_the_last_partition_does_and_has_caught_up_with_what_came_by_then() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut progress = Progress { input: pipe([10, 10], [9, 10]), ..Progress::default() };
        let mut measurement = Measurement::begin("kill", Output::Topic, &progress, began);
        progress.input = pipe([20, 20], [15, 10]);
        assert_eq!(measurement.look(&progress, after(1)), None);
        progress.input = pipe([20, 30], [20, 11]);
        progress.movements = pipe([5, 5], [5, 4]);
        assert_eq!(measurement.look(&progress, after(2)), None);
        progress.input = pipe([40, 40], [30, 30]);
        assert_eq!(measurement.look(&progress, after(3)), None, "a movement is still on its way");
        progress.movements = pipe([9, 9], [5, 5]);
        let recovered = measurement.look(&progress, after(4)).unwrap();
        assert_eq!((recovered.moves, recovered.caught_up), (Duration::from_secs(2), Duration::from_secs(4)));
    }

    #[test]
    fn faults_of_sinks_are_measured_at_the_target_alone() {
        let began = Instant::now();
        let mut progress = Progress { deltas: pipe([10, 10], [9, 9]), ..Progress::default() };
        let mut measurement = Measurement::begin("kill", Output::Target, &progress, began);
        progress.input = pipe([99, 99], [99, 99]);
        assert_eq!(measurement.look(&progress, began), None);
        progress.deltas = pipe([10, 10], [10, 10]);
        progress.movements = pipe([9, 9], [0, 0]);
        assert!(measurement.look(&progress, began).is_some());
    }

    #[test]
    fn a_fault_of_a_sink_delays_no_processor_but_one_of_a_processor_both() {
        let begin = |output| Measurement::begin("kill", output, &Progress::default(), Instant::now());
        let [mut topic, mut target] = [Output::Topic, Output::Target].map(begin);
        topic.disturb(Output::Target);
        target.disturb(Output::Target);
        assert_eq!((topic.alone, target.alone), (true, false));
        let [mut topic, mut target] = [Output::Topic, Output::Target].map(begin);
        topic.disturb(Output::Topic);
        target.disturb(Output::Topic);
        assert_eq!((topic.alone, target.alone), (false, false));
    }

    #[test]
    fn nothing_moves_where_nothing_is_known() {
        let progress = Progress::default();
        let mut measurement = Measurement::begin("kill", Output::Topic, &progress, Instant::now());
        assert_eq!(measurement.look(&progress, Instant::now()), None);
    }
}

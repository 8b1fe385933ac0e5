//! Random scripts. The model runs along, so that a script only contains steps that a client can take.

use std::collections::BTreeSet;

use anyhow::Result;

use super::script::{Action, Answer, Executor, IDS, Identity, PARTITIONS, Transcript, Who};
use super::simulated::Simulated;

/// What the generator knows about the producers.
#[derive(Default)]
struct Known {
    /// Those that may act.
    alive: BTreeSet<Who>,
    /// Those of them with an open transaction.
    open: BTreeSet<Who>,
    /// Those of them that can only abort.
    failed: BTreeSet<Who>,
}

/// So many steps with the model's answers. The same seed gives the same script.
pub(super) fn script(seed: u64, steps: usize, model: &mut Simulated) -> Result<Transcript> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut known = Known::default();
    let mut transcript = Transcript::default();
    let beginning = [Action::Join, Action::Initialise(0), Action::Initialise(1)];
    for step in 0..steps {
        let action = beginning.get(step).copied().unwrap_or_else(|| known.any(&mut random, model));
        let answer = model.act(step, action)?;
        known.note(action, &answer);
        transcript.0.push((action, answer));
    }
    Ok(transcript)
}

impl Known {
    fn any(&self, random: &mut fastrand::Rng, model: &Simulated) -> Action {
        let partition = random.i32(0..PARTITIONS);
        let Some(who) = random.choice(&self.alive).copied() else {
            return Action::Initialise(random.usize(0..IDS));
        };
        if self.failed.contains(&who) {
            return if random.u8(..3) > 0 { Action::Abort(who) } else { Action::Initialise(who.id) };
        }
        let is_open = self.open.contains(&who);
        match random.u8(..100) {
            0..25 => Action::Produce(who, partition),
            25..45 => Action::SendOffset(who, Self::identity(random, model), partition, random.i64(0..100)),
            45..57 if is_open => Action::Commit(who),
            57..65 if is_open => Action::Abort(who),
            65..71 => Action::Initialise(who.id),
            71..74 => match model.members() {
                members if members.len() < 2 => Action::Join,
                members => Action::Leave(random.choice(members).unwrap_or(0)),
            },
            74..77 => Action::DeleteTo(partition, random.i64(0..=model.last_stable(partition))),
            77..90 => Action::LookAtLog(partition),
            _ => Action::LookAtOffset(partition),
        }
    }

    fn identity(random: &mut fastrand::Rng, model: &Simulated) -> Identity {
        let member = random.choice(model.members());
        match (random.u8(..10), member) {
            (0..7, Some(member)) => Identity::Member(member),
            (7, _) => random.choice(model.former_members()).map_or(Identity::Stranger, Identity::Former),
            (8, _) => Identity::Nobody,
            _ => Identity::Stranger,
        }
    }

    fn note(&mut self, action: Action, answer: &Answer) {
        match action {
            Action::Initialise(id) => {
                let [newest, zombie] = [false, true].map(|is_zombie| Who { id, is_zombie });
                for set in [&mut self.alive, &mut self.open, &mut self.failed] {
                    set.remove(&zombie);
                    if set.remove(&newest) {
                        set.insert(zombie);
                    }
                }
                // A zombie without a transaction would have nothing to be refused.
                if !self.open.contains(&zombie) || self.failed.contains(&zombie) {
                    self.alive.remove(&zombie);
                }
                self.alive.insert(newest);
            }
            Action::Produce(who, _) | Action::SendOffset(who, ..) => {
                self.open.insert(who);
                self.refused(who, answer);
            }
            Action::Commit(who) | Action::Abort(who) => {
                self.open.remove(&who);
                self.failed.remove(&who);
                self.refused(who, answer);
            }
            _ => {}
        }
    }

    fn refused(&mut self, who: Who, answer: &Answer) {
        match answer {
            Answer::NotAMember => {
                self.failed.insert(who);
            }
            Answer::Fenced | Answer::NotWritten => {
                self.alive.remove(&who);
                self.open.remove(&who);
            }
            _ => {}
        }
    }
}

//! The simulation's cluster against real brokers: the same script on both, the same answers.
//!
//! What the seeded crash schedules show is worth as much as the model they run on. Guards its transactional semantics:
//! who is fenced, what a reader sees and how far, which offsets are stable, whose offsets a group takes. Markers are
//! waited for on the brokers' side, because the model decides when they come.
//!
//! - `script`: steps and answers
//! - `generate`: seeded random scripts
//! - `simulated`, `brokers`: the two sides
//! - `requests`: what brokers have to be asked directly

mod brokers;
mod generate;
mod requests;
mod script;
mod simulated;

use anyhow::{Context as _, Result, ensure};

use self::brokers::Brokers;
use self::script::Action::{
    Abort, Commit, DeleteTo, Expire, Initialise, Join, Leave, LookAtLog, LookAtOffset, Produce, SendOffset,
};
use self::script::Identity::{Former, Member, Nobody, Stranger};
use self::script::{Action, Answer, Executor as _, Transcript, Who};
use self::simulated::Simulated;
use crate::clients::Bench;

/// Steps of a random script.
const STEPS: usize = 50;

const ZERO: Who = Who { id: 0, is_zombie: false };
const ONE: Who = Who { id: 1, is_zombie: false };
const ZOMBIE: Who = Who { id: 0, is_zombie: true };

/// The model's answers.
fn on_the_model(bench: &Bench, script: &[Action]) -> Result<Transcript> {
    let mut model = Simulated::new(&bench.topology);
    let answered = script.iter().enumerate().map(|(step, action)| Ok((*action, model.act(step, *action)?)));
    Ok(Transcript(answered.collect::<Result<_>>()?))
}

/// Runs on brokers what has run on the model.
fn same_on_brokers(bench: &Bench, model: &Transcript) -> Result<()> {
    let expires = model.0.iter().any(|(action, _)| matches!(action, Expire(_)));
    let mut brokers = Brokers::new(bench, expires)?;
    for (step, (action, expected)) in model.0.iter().enumerate() {
        let answer = brokers.act(step, *action).with_context(|| format!("step {step}, {action:?}, of\n{model}"))?;
        ensure!(
            answer == *expected,
            "step {step}, {action:?}: the brokers answer {answer:?}, the model {expected:?}\n{model}"
        );
    }
    Ok(())
}

/// Runs a script on both, and returns the answers that both gave.
fn same_answers(script: &[Action]) -> Result<Vec<Answer>> {
    let bench = Bench::new()?;
    let model = on_the_model(&bench, script)?;
    same_on_brokers(&bench, &model)?;
    Ok(model.0.into_iter().map(|(_, answer)| answer).collect())
}

#[test]
fn the_model_fences_as_brokers_do_and_aborts_what_a_predecessor_left_open() -> Result<()> {
    let answers = same_answers(&[
        Join,
        Initialise(0),
        Produce(ZERO, 0),
        SendOffset(ZERO, Member(0), 0, 7),
        Initialise(0),
        LookAtLog(0),
        LookAtOffset(0),
        Commit(ZOMBIE),
        Produce(ZERO, 0),
        Initialise(0),
        Produce(ZOMBIE, 0),
        Produce(ZERO, 1),
        Initialise(0),
        SendOffset(ZOMBIE, Member(0), 1, 9),
        Produce(ZERO, 1),
        Commit(ZERO),
        LookAtLog(0),
        LookAtLog(1),
        LookAtOffset(1),
    ])?;
    let refused = |answer: &&Answer| matches!(answer, Answer::Fenced | Answer::NotWritten);
    assert_eq!(answers.iter().filter(refused).count(), 3, "{answers:?}");
    Ok(())
}

#[test]
fn the_model_shows_readers_what_brokers_show_them_and_no_more() -> Result<()> {
    same_answers(&[
        Initialise(0),
        Initialise(1),
        Produce(ZERO, 0),
        Produce(ONE, 0),
        Produce(ONE, 1),
        Commit(ONE),
        // Held back by the open transaction of the other.
        LookAtLog(0),
        LookAtLog(1),
        Abort(ZERO),
        LookAtLog(0),
        Produce(ZERO, 1),
        Produce(ONE, 1),
        Commit(ZERO),
        LookAtLog(1),
        Commit(ONE),
        LookAtLog(1),
        DeleteTo(1, 3),
        LookAtLog(1),
    ])?;
    Ok(())
}

#[test]
fn the_model_keeps_pending_offsets_as_brokers_do_and_the_one_appended_last_wins() -> Result<()> {
    same_answers(&[
        Join,
        LookAtOffset(0),
        Initialise(0),
        Initialise(1),
        SendOffset(ZERO, Member(0), 0, 5),
        LookAtOffset(0),
        LookAtOffset(1),
        SendOffset(ONE, Member(0), 0, 3),
        Commit(ONE),
        LookAtOffset(0),
        Commit(ZERO),
        // Appended first, decided last.
        LookAtOffset(0),
        SendOffset(ZERO, Member(0), 0, 11),
        SendOffset(ZERO, Member(0), 1, 2),
        Abort(ZERO),
        LookAtOffset(0),
        LookAtOffset(1),
        SendOffset(ONE, Member(0), 1, 4),
        SendOffset(ONE, Member(0), 1, 6),
        Commit(ONE),
        LookAtOffset(1),
    ])?;
    Ok(())
}

#[test]
fn the_model_takes_offsets_from_whom_brokers_take_them() -> Result<()> {
    let send = |identity| [SendOffset(ZERO, identity, 0, 1), Abort(ZERO)];
    let mut script = vec![Initialise(0)];
    // Nobody is in the group yet.
    script.extend(send(Stranger));
    script.extend(send(Nobody));
    script.push(Join);
    for identity in [Member(0), Stranger, Nobody] {
        script.extend(send(identity));
    }
    script.push(Join);
    // The generation before, ownership not looked at, and the other's.
    for identity in [Former(0), Member(0), Member(1), Nobody] {
        script.extend(send(identity));
    }
    script.push(Leave(1));
    for identity in [Former(1), Former(0), Member(0)] {
        script.extend(send(identity));
    }
    script.push(Leave(0));
    for identity in [Former(0), Stranger, Nobody] {
        script.extend(send(identity));
    }
    let answers = same_answers(&script)?;
    assert!(answers.iter().filter(|answer| **answer == Answer::NotAMember).count() >= 5, "{answers:?}");
    Ok(())
}

#[test]
fn the_model_times_transactions_out_as_brokers_do() -> Result<()> {
    let answers = same_answers(&[
        Join,
        Initialise(0),
        Produce(ZERO, 0),
        SendOffset(ZERO, Member(0), 0, 8),
        Expire(0),
        LookAtLog(0),
        LookAtOffset(0),
        Commit(ZERO),
        Initialise(0),
        Produce(ZERO, 0),
        Commit(ZERO),
        LookAtLog(0),
    ])?;
    assert_eq!(answers.get(7), Some(&Answer::Fenced));
    Ok(())
}

#[test]
fn the_model_answers_random_scripts_as_brokers_do() -> Result<()> {
    // Always the same first ones, so that every run shows them, and one that nobody has seen.
    for seed in [1, 2, fastrand::u64(..)] {
        let bench = Bench::new()?;
        let script = generate::script(seed, STEPS, &mut Simulated::new(&bench.topology))?;
        same_on_brokers(&bench, &script).with_context(|| format!("the script of seed {seed}"))?;
    }
    Ok(())
}

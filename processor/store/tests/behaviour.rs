//! What a partition's store promises its worker, on a healthy disk.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use processor_engine::store::{Batch, PartitionStore, StateStore};
use processor_engine::{Changes, Failure};
use processor_store::{LocalStore, Options};
use proptest::prelude::*;
use support::*;

#[test]
fn a_new_partition_has_no_progress_and_an_applied_batch_is_read_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut state = open_partition(&store, 0);
    assert_eq!(state.progress().unwrap(), None);
    assert_eq!(get(&state, &id(1)), None);
    apply(&mut state, &sorted(vec![put(id(1), "one"), put(b"counter", "c"), put(id(2), "")]), &progress(1)).unwrap();
    assert_eq!(get(&state, &id(1)), Some(b"one".to_vec()));
    assert_eq!(get(&state, &id(2)), Some(Vec::new()));
    assert_eq!(get(&state, b"counter"), Some(b"c".to_vec()));
    assert_eq!(get(&state, &id(3)), None);
    assert_eq!(state.progress().unwrap(), Some(progress(1)));
    apply(&mut state, &[(id(1).to_vec(), None)], &progress(2)).unwrap();
    assert_eq!(get(&state, &id(1)), None);
    assert_eq!((state.batches(), state.keys().unwrap()), (2, 2));
    assert!(state.disk_usage() > 0);
}

#[test]
fn a_large_commit_shared_among_threads_is_applied_whole_and_a_failing_batch_keeps_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(Options { apply_threads: 3, ..options(directory.path()) }).unwrap();
    let mut states: Vec<_> = (0..7).map(|number| open_partition(&store, number)).collect();
    let changes: Vec<Changes> = (0..7_u64)
        .map(|partition| {
            let mut changes = Changes::default();
            (0..1_000).for_each(|number| changes.insert(&id(number), Some(&(partition * number).to_be_bytes())));
            if partition == 4 {
                changes.insert(&[7; 600], Some(b"longer than any key can be"));
            }
            changes
        })
        .collect();
    let batches = states.iter_mut().zip(&changes);
    let batches = batches.map(|(store, changes)| Batch { store, changes, progress: progress(1) }).collect();
    let failure = store.apply(batches).unwrap_err();
    assert!(matches!(failure, Failure::Stop(stop) if stop.code == processor_store::STATE_KEY_SIZE));
    for (partition, state) in (0_u64..).zip(&states) {
        let applied = partition != 4;
        assert_eq!(state.progress().unwrap(), applied.then(|| progress(1)), "partition {partition}");
        let last = applied.then(|| (partition * 999).to_be_bytes().to_vec());
        assert_eq!(get(state, &id(999)), last, "partition {partition}");
        assert_eq!(state.keys().unwrap(), if applied { 1_000 } else { 0 }, "partition {partition}");
    }
}

#[test]
fn scan_goes_in_byte_order_from_after_a_key_and_stops_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut state = open_partition(&store, 0);
    let keys: [&[u8]; 5] = [b"\x00", b"a", b"ab", b"b", b"\xff\xff"];
    apply(&mut state, &keys.map(|key| put(key, key)), &progress(1)).unwrap();
    assert_eq!(contents(&state).iter().map(|(key, _)| key.as_slice()).collect::<Vec<_>>(), keys);
    let mut seen = Vec::new();
    let ended = state.scan(Some(b"a"), &mut |key, _| {
        seen.push(key.to_vec());
        seen.len() < 2
    });
    assert!(!ended.unwrap());
    assert_eq!(seen, [b"ab".to_vec(), b"b".to_vec()]);
    assert!(state.scan(Some(b"\xff\xff"), &mut |_, _| panic!("nothing is after the last key")).unwrap());
}

#[test]
fn a_cleared_partition_is_empty_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut state = open_partition(&store, 3);
    apply(&mut state, &[put(id(1), "one")], &progress(1)).unwrap();
    state.clear().unwrap();
    assert_eq!((get(&state, &id(1)), state.progress().unwrap()), (None, None));
    drop(state);
    let mut state = open_partition(&store, 3);
    assert_eq!((contents(&state), state.progress().unwrap()), (Vec::new(), None));
    apply(&mut state, &[put(id(2), "two")], &progress(7)).unwrap();
    assert_eq!(get(&state, &id(2)), Some(b"two".to_vec()));
}

#[test]
fn an_orderly_restart_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    {
        let store = open(directory.path());
        let mut state = open_partition(&store, 0);
        apply(&mut state, &[put(id(1), "one")], &progress(5)).unwrap();
        drop(state);
        store.close().unwrap();
    }
    let store = open(directory.path());
    let state = open_partition(&store, 0);
    assert_eq!(state.progress().unwrap(), Some(progress(5)));
    assert_eq!(get(&state, &id(1)), Some(b"one".to_vec()));
}

#[test]
fn a_file_that_outgrows_its_address_space_gets_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut small = options(directory.path());
    small.map_size = 1;
    let store = LocalStore::open(small).unwrap();
    let mut state = open_partition(&store, 0);
    for batch in 0..20 {
        let writes = (0..500).map(|number| put(id(batch * 500 + number), vec![7; 100])).collect();
        apply(&mut state, &sorted(writes), &progress(batch + 1)).unwrap();
    }
    assert!((0..10_000).all(|number| get(&state, &id(number)).is_some()));
    drop(state);
    let state = open_partition(&store, 0);
    assert_eq!((state.keys().unwrap(), state.progress().unwrap()), (10_000, Some(progress(20))));
}

#[test]
fn no_present_id_is_denied_while_the_filter_is_rebuilt_or_grows() {
    no_present_id_is_denied(Some(16), |number| id(number).to_vec());
}

#[test]
fn no_present_id_that_is_a_text_is_denied_while_the_filter_is_rebuilt_or_grows() {
    no_present_id_is_denied(None, |number| format!("[{number},\"A-{}\"]", number % 9).into_bytes());
}

fn no_present_id_is_denied(id_bytes: Option<usize>, id: impl Fn(u64) -> Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(Options { id_bytes, ..options(directory.path()) }).unwrap();
    let mut state = open_partition(&store, 0);
    // Beyond the smallest filter's capacity, so that it grows, in steps smaller than the whole.
    let mut written = 0;
    let (mut complete, mut building) = (false, false);
    for batch in 1..=30 {
        let writes = (written..written + 4_000).map(|number| put(id(number), "x")).collect();
        written += 4_000;
        apply(&mut state, &sorted(writes), &progress(batch)).unwrap();
        assert!((0..written).step_by(7).all(|number| get(&state, &id(number)).is_some()));
    }
    drop(state);
    let mut state = open_partition(&store, 0);
    assert!(!state.filter_is_complete());
    for batch in 31..=50 {
        apply(&mut state, &sorted(vec![put(id(written), "x"), put(id(written / 2), "y")]), &progress(batch)).unwrap();
        written += 1;
        complete |= state.filter_is_complete();
        building |= !state.filter_is_complete();
        assert!((0..written).step_by(11).chain([written - 1]).all(|number| get(&state, &id(number)).is_some()));
    }
    assert!(complete && building);
    assert_eq!(get(&state, &id(written + 1)), None);
}

#[test]
fn keys_and_values_the_file_cannot_hold_are_refused_and_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut state = open_partition(&store, 0);
    for (write, code) in [
        (put("", "x"), processor_store::STATE_KEY_SIZE),
        (put(vec![1; 512], "x"), processor_store::STATE_KEY_SIZE),
        (put("x", vec![0; (16 << 20) + 1]), processor_store::STATE_VALUE_SIZE),
    ] {
        match apply(&mut state, &[write], &progress(1)) {
            Err(Failure::Stop(stop)) => assert_eq!(stop.code, code),
            other => panic!("{other:?}"),
        }
    }
    apply(&mut state, &[put(vec![1; 511], vec![9; 1 << 20])], &progress(1)).unwrap();
    assert_eq!(get(&state, &[1; 511]), Some(vec![9; 1 << 20]));
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path());
    let second = LocalStore::open(options(directory.path()));
    assert_eq!(stop_code(second), processor_store::STATE_DIR_IN_USE);
}

#[test]
fn a_foreign_or_newer_directory_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let mut other = options(directory.path());
    other.cluster_id = "cluster-b".into();
    assert_eq!(stop_code(LocalStore::open(other)), processor_store::STATE_DIR_FOREIGN);

    let home = directory.path().join(APPLICATION);
    fs::write(home.join("identity.json"), r#"{"format":2,"whatever":"comes"}"#).unwrap();
    assert_eq!(stop_code(LocalStore::open(options(directory.path()))), processor_store::STATE_FORMAT_NEWER);
    fs::write(home.join("identity.json"), "not ours").unwrap();
    assert_eq!(stop_code(LocalStore::open(options(directory.path()))), processor_store::STATE_DIR_FOREIGN);
    fs::remove_file(home.join("identity.json")).unwrap();
    fs::write(home.join("holiday.jpg"), "!").unwrap();
    assert_eq!(stop_code(LocalStore::open(options(directory.path()))), processor_store::STATE_DIR_FOREIGN);
    assert!(home.join("holiday.jpg").exists());

    let mut odd = options(directory.path());
    odd.application_id = "../stock".into();
    assert_eq!(stop_code(LocalStore::open(odd)), processor_store::APPLICATION_ID_INVALID);
}

#[test]
fn a_partition_passes_from_worker_to_worker_and_a_stuck_one_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let mut waiting = options(directory.path());
    waiting.handover = Duration::from_millis(50);
    let store = LocalStore::open(waiting).unwrap();
    let mut first = open_partition(&store, 0);
    apply(&mut first, &[put(id(1), "one")], &progress(1)).unwrap();
    assert!(matches!(store.clone().open(partition(0)), Err(Failure::Busy(_))));
    assert!(!store.remove(partition(0)).unwrap());
    let other = open_partition(&store, 1);
    drop((first, other));
    drop(store);

    let store = open(directory.path());
    let first = open_partition(&store, 0);
    let (waits, waiting) = std::sync::mpsc::channel();
    let second = std::thread::spawn({
        let store = store.clone();
        move || {
            waits.send(()).unwrap();
            get(&open_partition(&store, 0), &id(1))
        }
    });
    waiting.recv().unwrap();
    drop(first);
    assert_eq!(second.join().unwrap(), Some(b"one".to_vec()));
    assert!(store.remove(partition(0)).unwrap());
    assert_eq!(open_partition(&store, 0).progress().unwrap(), None);
}

#[derive(Debug, Clone)]
enum Action {
    Apply(BTreeMap<Vec<u8>, Option<Vec<u8>>>),
    Reopen,
    Restart,
    Clear,
}

fn action() -> impl Strategy<Value = Action> {
    let key = prop_oneof![
        4 => (0_u64..60).prop_map(|number| id(number).to_vec()),
        1 => proptest::collection::vec(0_u8..3, 1..4),
    ];
    let value = proptest::option::weighted(0.8, proptest::collection::vec(any::<u8>(), 0..3000));
    prop_oneof![
        12 => proptest::collection::btree_map(key, value, 0..40).prop_map(Action::Apply),
        2 => Just(Action::Reopen),
        1 => Just(Action::Restart),
        1 => Just(Action::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn it_behaves_like_a_sorted_map(
        id_bytes in proptest::option::of(Just(16_usize)),
        actions in proptest::collection::vec(action(), 1..25),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let open = || LocalStore::open(Options { id_bytes, ..options(directory.path()) }).unwrap();
        let mut store = open();
        let mut state = open_partition(&store, 0);
        let (mut model, mut sequence, mut expected) = (BTreeMap::new(), 0, None);
        for action in actions {
            match action {
                Action::Apply(writes) => {
                    sequence += 1;
                    expected = Some(progress(sequence));
                    let batch: Vec<_> = writes.clone().into_iter().collect();
                    apply(&mut state, &batch, &progress(sequence)).unwrap();
                    for (key, value) in writes {
                        match value {
                            Some(value) => model.insert(key, value),
                            None => model.remove(&key),
                        };
                    }
                }
                Action::Reopen => {
                    drop(state);
                    state = open_partition(&store, 0);
                }
                Action::Restart => {
                    drop(state);
                    drop(store);
                    store = open();
                    state = open_partition(&store, 0);
                }
                Action::Clear => {
                    state.clear().unwrap();
                    model.clear();
                    expected = None;
                }
            }
            prop_assert_eq!(&state.progress().unwrap(), &expected);
            let all: Vec<_> = model.clone().into_iter().collect();
            prop_assert!(all.iter().all(|(key, value)| get(&state, key).as_ref() == Some(value)));
            prop_assert_eq!(contents(&state), all);
            for number in 0..70 {
                prop_assert_eq!(get(&state, &id(number)), model.get(&id(number)[..]).cloned());
            }
        }
    }
}

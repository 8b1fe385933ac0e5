//! What operators rely on: precedence, refusal of the unknown, and that secrets stay secret.

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
#[command(name = "sink")]
struct Program {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Run(Run),
    Healthcheck(crate::healthcheck::Arguments),
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// Brokers
    #[arg(long)]
    bootstrap_servers: String,
    /// Database
    #[arg(long)]
    database_url: Option<DatabaseUrl>,
    /// Batch
    #[arg(long, default_value_t = 5_000)]
    batch_records: u32,
    /// Log
    #[arg(long)]
    transaction_log: bool,
    /// Several
    #[arg(long, action = clap::ArgAction::Append)]
    label: Vec<String>,
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn parse(words: &str, variables: &[(&str, &str)]) -> Result<Parsed<Program>, Failure> {
    let words = words.split_whitespace().map(OsString::from);
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    parse_from("SINK", words, variables)
}

fn run(words: &str, variables: &[(&str, &str)]) -> (Run, Parsed<Program>) {
    let mut parsed = parse(words, variables).unwrap();
    let healthcheck = Verb::Healthcheck(crate::healthcheck::Arguments { http: String::new() });
    match std::mem::replace(&mut parsed.arguments.command, healthcheck) {
        Verb::Run(run) => (run, parsed),
        Verb::Healthcheck(_) => panic!("not run"),
    }
}

fn message(words: &str, variables: &[(&str, &str)]) -> String {
    match parse(words, variables).unwrap_err() {
        Failure::Clap(error) => error.to_string(),
        Failure::Coded(error) => error.to_string(),
    }
}

#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let file = file("bootstrap-servers = \"file:1\"\nbatch-records = 7\n");
    let path = file.path().display();
    assert_eq!(run("sink run --bootstrap-servers x:1", &[]).0.batch_records, 5_000);
    let words = format!("sink run --config {path}");
    let (settings, _) = run(&words, &[]);
    assert_eq!((settings.bootstrap_servers.as_str(), settings.batch_records), ("file:1", 7));
    let variables = [("SINK_BATCH_RECORDS", "8"), ("SINK_BOOTSTRAP_SERVERS", "")];
    let (settings, _) = run(&words, &variables);
    assert_eq!((settings.bootstrap_servers.as_str(), settings.batch_records), ("file:1", 8));
    assert_eq!(run(&format!("{words} --batch-records 9"), &variables).0.batch_records, 9);
}

#[test]
fn the_file_itself_can_be_named_by_a_variable() {
    let file = file("bootstrap-servers = \"file:1\"\n");
    let path = file.path().display().to_string();
    assert_eq!(run("sink run", &[("SINK_CONFIG", &path)]).0.bootstrap_servers, "file:1");
}

#[test]
fn switches_and_lists_can_come_from_every_layer() {
    let file = file("transaction-log = true\nlabel = [\"a\", \"b\"]\n");
    let words = format!("sink run --bootstrap-servers x:1 --config {}", file.path().display());
    let (settings, _) = run(&words, &[]);
    assert!(settings.transaction_log);
    assert_eq!(settings.label, ["a", "b"]);
    let (settings, _) = run(&words, &[("SINK_TRANSACTION_LOG", "false"), ("SINK_LABEL", "c,d")]);
    assert!(!settings.transaction_log);
    assert_eq!(settings.label, ["c", "d"]);
}

#[test]
fn an_unknown_key_is_refused_with_key_and_file() {
    let file = file("bootstrap-server = \"file:1\"\n");
    let text = message(&format!("sink run --config {}", file.path().display()), &[]);
    assert!(text.starts_with("CONFIG_UNKNOWN_KEY"), "{text}");
    assert!(text.contains("bootstrap-server ") && text.contains(&file.path().display().to_string()), "{text}");
    let tables = self::file("[kafka.consumers]\n\"fetch.min.bytes\" = 1\n");
    let text = message(&format!("sink run --config {}", tables.path().display()), &[]);
    assert!(text.contains("kafka.consumers"), "{text}");
}

#[test]
fn a_missing_setting_is_named_even_with_a_file() {
    let file = file("batch-records = 7\n");
    let text = message(&format!("sink run --config {}", file.path().display()), &[]);
    assert!(text.contains("--bootstrap-servers"), "{text}");
}

#[test]
fn a_bad_value_is_blamed_on_the_layer_it_came_from() {
    let file = file("batch-records = \"many\"\n");
    let words = format!("sink run --bootstrap-servers x:1 --config {}", file.path().display());
    let text = message(&words, &[]);
    assert!(text.starts_with("CONFIG_BAD_VALUE") && text.contains("batch-records"), "{text}");
    let text = message(&words, &[("SINK_BATCH_RECORDS", "few")]);
    assert!(text.starts_with("CONFIG_BAD_VARIABLE") && text.contains("SINK_BATCH_RECORDS"), "{text}");
    assert_eq!(run(&format!("{words} --batch-records 9"), &[]).0.batch_records, 9);
}

#[test]
fn a_file_that_is_not_toml_is_refused_without_showing_its_content() {
    let file = file("batch-records = 7\ndatabase-url = \"postgres://me:hunter2@db\n");
    let text = message(&format!("sink run --config {}", file.path().display()), &[]);
    assert!(text.starts_with("CONFIG_NOT_TOML") && text.contains("line 2"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn kafka_tables_pass_through_with_and_without_quotes() {
    let file = file(
        "[kafka.consumer]\nfetch.min.bytes = 1\n\"security.protocol\" = \"ssl\"\n[kafka.producer]\nlinger.ms = 2.5\n",
    );
    let words = format!("sink run --bootstrap-servers x:1 --config {}", file.path().display());
    let (_, parsed) = run(&words, &[]);
    let consumer: Vec<_> = parsed.kafka.consumer.iter().collect();
    assert_eq!(consumer, [("fetch.min.bytes", "1"), ("security.protocol", "ssl")]);
    assert_eq!(parsed.kafka.producer.iter().collect::<Vec<_>>(), [("linger.ms", "2.5")]);
    parsed.kafka.consumer.refuse(CONSUMER_GUARANTEES).unwrap();
}

#[test]
fn a_property_on_which_the_guarantees_rest_is_refused_by_name() {
    for Protected { property, .. } in CONSUMER_GUARANTEES.iter().chain(CLIENT_GUARANTEES) {
        let file = file(&format!("[kafka.consumer]\n{property} = \"x\"\n"));
        let words = format!("sink run --bootstrap-servers x:1 --config {}", file.path().display());
        let (_, parsed) = run(&words, &[]);
        let error = parsed.kafka.consumer.refuse(CONSUMER_GUARANTEES.iter().chain(CLIENT_GUARANTEES)).unwrap_err();
        assert_eq!(error.code, "CONFIG_PROTECTED_PROPERTY");
        assert!(error.what.contains(property) && error.what.contains("kafka.consumer"), "{error}");
    }
}

#[test]
fn secrets_are_in_neither_help_nor_debug_nor_error() {
    let secret = [("SINK_DATABASE_URL", "postgres://me:hunter2@db/remains")];
    let help = message("sink run --help", &secret);
    assert!(help.contains("SINK_DATABASE_URL") && !help.contains("hunter2"), "{help}");
    let file = file("bootstrap-servers = \"x:1\"\n[kafka.consumer]\nsasl.password = \"hunter2\"\n");
    let (settings, parsed) = run(&format!("sink run --config {}", file.path().display()), &secret);
    let debug = format!("{settings:?} {parsed:?}");
    assert!(debug.contains("postgres://me:***@db/remains") && !debug.contains("hunter2"), "{debug}");
}

#[test]
fn a_misspelt_variable_is_reported() {
    let (_, parsed) = run("sink run --bootstrap-servers x:1", &[("SINK_DATABASE_URI", "x"), ("OTHER", "y")]);
    assert_eq!(parsed.unknown_variables, ["SINK_DATABASE_URI"]);
}

#[test]
fn one_file_serves_every_subcommand() {
    let parsed = parse("sink healthcheck", &[("SINK_HTTP", "0.0.0.0:9"), ("SINK_DATABASE_URL", "x")]).unwrap();
    assert!(parsed.unknown_variables.is_empty());
    assert!(matches!(parsed.arguments.command, Verb::Healthcheck(arguments) if arguments.http == "0.0.0.0:9"));
}

/// A file of everything a file can hold.
const WHOLE_FILE: &str = "batch-records = 2\nlabel = [\"a\", 1]\n[kafka.consumer]\n\"fetch.min.bytes\" = 1\nsasl.password = \"x\"\n[kafka.admin]\n\
                          a = true\n[kafka.producer]\nb = 1.5\n";

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse::<u32>().ok()).unwrap_or(20_000) / 20,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn no_bytes_of_a_file_make_it_panic(
        edits in proptest::collection::vec((0..3_u8, 0..200_usize, proptest::prelude::any::<u8>()), 0..6),
    ) {
        let mut text = WHOLE_FILE.as_bytes().to_vec();
        for (kind, at, byte) in edits {
            let at = at % text.len();
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => text.truncate(at + 1),
            }
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let _ = parse(&format!("run --config {}", file.path().display()), &[]);
    }
}

//! What is shown, step by step, and what each step must show.
//!
//! Works on a stack that is up from an earlier run, too: rows that are there are not written again, and what has to
//! be true is computed from the source table instead of being known beforehand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ureq::Agent;

use super::backend::{
    APPLICATION_ID, BOOTSTRAP_SERVERS, Backend, BackendName, INPUT_TOPIC, PROCESSOR_PORTS, SINK_PORTS, SOURCE_URL,
    TARGET_URL, TOPIC_PREFIX, choose,
};
use super::screen::{quote, say, step, tell};
use super::{around, recognised};
use crate::client::{Delta, Isolation, Kafka, ResetTo, Sql, check_remains};
use crate::stack::wait_until;

type Remains = BTreeMap<i64, i64>;

/// A stock movement: id, good, operation, pieces.
type Row = (&'static str, i64, &'static str, i64);

const FIRST_ROWS: [Row; 4] = [
    ("63703d1f-0000-4000-8000-000000000001", 1, "add", 5),
    ("5d838899-0000-4000-8000-000000000002", 2, "add", 30),
    ("905ff7e7-0000-4000-8000-000000000003", 3, "add", 1),
    ("78c14186-0000-4000-8000-000000000004", 2, "remove", 15),
];
const FIFTH_ROW: Row = ("b1f2c3d4-0000-4000-8000-000000000005", 2, "remove", 5);
/// What a table that held nothing before must come to.
const FIRST_REMAINS: [(i64, i64); 3] = [(1, 5), (2, 10), (3, 1)];
/// The row that is written while no processor runs: good and pieces added.
const NEW_ROW: (i64, i64) = (1, 7);

/// Starts what does not run yet, shows the system at work, and leaves it up.
pub fn show(wanted: Option<BackendName>) -> Result<()> {
    let began = Instant::now();
    step(1, "what is needed");
    around::provide_tools();
    tell("cargo and the programs: compiled");
    let mut backend = choose(wanted)?;
    step(2, &format!("starting {}", backend.title()));
    backend.up()?;
    let outcome = Demonstration::begin(&*backend).and_then(|demonstration| demonstration.run());
    if let Err(error) = outcome {
        backend.log_tails().iter().for_each(say);
        say("\nThe stack is still up, for you to look around; make down removes it.");
        return Err(error);
    }
    say(format_args!("\nEverything was as it must be ({} s). The stack stays up:", began.elapsed().as_secs()));
    backend.operating().iter().for_each(tell);
    tell("make demo    shows it again");
    tell("make down    removes all of it");
    Ok(())
}

/// The servers as the story uses them.
struct Demonstration<'a> {
    backend: &'a dyn Backend,
    kafka: Kafka,
    source: Sql,
    target: Sql,
    http: Agent,
}

/// What is known before the processors start again.
struct Before {
    /// Records of each source partition that were applied.
    applied: BTreeMap<i32, i64>,
    /// End of each partition of the output.
    output_ends: BTreeMap<i32, i64>,
    /// Lines of each processor's log that tell of recognised records.
    lines: Vec<usize>,
    remains: Remains,
}

impl<'a> Demonstration<'a> {
    fn begin(backend: &'a dyn Backend) -> Result<Self> {
        let http = Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build().into();
        let demonstration = Self {
            backend,
            kafka: Kafka::new(BOOTSTRAP_SERVERS),
            source: Sql::connect(SOURCE_URL).context("the source database")?,
            target: Sql::connect(TARGET_URL).context("the target database")?,
            http,
        };
        demonstration.wait_ready(&[PROCESSOR_PORTS, SINK_PORTS].concat())?;
        tell("all are ready");
        Ok(demonstration)
    }

    fn run(&self) -> Result<()> {
        self.write_rows()?;
        step(5, "stopping both processors, and writing one more row meanwhile");
        let before = self.stop_and_write()?;
        step(6, "setting the group's offsets back to the very beginning");
        self.reset_offsets(&before)?;
        step(7, "starting the processors again: they are given everything a second time");
        self.start_again(&before)?;
        step(8, "look around yourself; these lines were just run as they stand here");
        around::look()
    }

    /// Steps 3 and 4.
    fn write_rows(&self) -> Result<()> {
        let fresh = self.source.source_sums()?.is_empty();
        step(3, "writing stock movements into PostgreSQL: orders.transactions of goods_db");
        FIRST_ROWS.iter().try_for_each(|row| self.write(row))?;
        tell("and this is what becomes of remains.remains in the other PostgreSQL:");
        self.wait_remains(&self.source.source_sums()?)?;
        step(4, "one more movement");
        self.write(&FIFTH_ROW)?;
        let expected = self.source.source_sums()?;
        self.wait_remains(&expected)?;
        ensure!(
            !fresh || expected == Remains::from(FIRST_REMAINS),
            "the rows add up to {}, not to {}",
            shown(&expected),
            shown(&FIRST_REMAINS.into())
        );
        Ok(())
    }

    fn write(&self, row: &Row) -> Result<()> {
        let (id, good, operation, pieces) = *row;
        let written = self.source.execute(&format!(
            "INSERT INTO orders.transactions (id, good_id, operation, pcs) \
             VALUES ('{id}', {good}, '{operation}', {pieces}) ON CONFLICT (id) DO NOTHING"
        ))?;
        let note = if written == 0 { "   (is there already)" } else { "" };
        tell(format_args!("{}…  good {good}  {operation:<6} {pieces:>3}{note}", id.get(..8).unwrap_or(id)));
        Ok(())
    }

    /// Waits until the target shows `expected`, telling every state it passes through.
    fn wait_remains(&self, expected: &Remains) -> Result<()> {
        let (began, mut last) = (Instant::now(), None);
        wait_until("remains.remains to become right", || {
            let remains = self.target.remains()?;
            if last.as_ref() != Some(&remains) {
                tell(format_args!("  remains after {:>5.2} s:  {}", began.elapsed().as_secs_f32(), shown(&remains)));
                last = Some(remains.clone());
            }
            Ok(is(&remains, expected))
        })
        .with_context(|| format!("remains.remains must become {}", shown(expected)))
    }

    fn stop_and_write(&self) -> Result<Before> {
        self.backend.stop_processors()?;
        wait_until("the processors to have left their group", || Ok(!self.kafka.group_has_members(APPLICATION_ID)?))?;
        tell("stopped: what was open is committed, the group is empty");
        let before = Before {
            applied: self.applied()?,
            output_ends: self.ends(&output_topic())?,
            lines: self.recognised_lines()?.iter().map(Vec::len).collect(),
            remains: self.target.remains()?,
        };
        let input: i64 = self.ends(INPUT_TOPIC)?.values().sum();
        let (good, pieces) = NEW_ROW;
        let rows = self.source.rows(&format!(
            "INSERT INTO orders.transactions (id, good_id, operation, pcs) \
             VALUES (gen_random_uuid(), {good}, 'add', {pieces}) RETURNING left(id::text, 8)"
        ))?;
        let id = rows.first().and_then(|row| row.first()).and_then(Option::as_deref).unwrap_or_default().to_owned();
        tell(format_args!("{id}…  good {good}  add    {pieces:>3}"));
        wait_until("the row's event to arrive in Kafka", || Ok(self.ends(INPUT_TOPIC)?.values().sum::<i64>() > input))?;
        tell("its change event is in Kafka; nobody processes it");
        let remains = self.target.remains()?;
        ensure!(is(&remains, &before.remains), "remains changed while no processor ran");
        tell(format_args!("remains.remains is what it was:  {}", shown(&remains)));
        Ok(before)
    }

    /// How many records of each source partition the group has behind it.
    fn applied(&self) -> Result<BTreeMap<i32, i64>> {
        let mut applied = BTreeMap::new();
        for (partition, committed) in self.kafka.group_offsets(APPLICATION_ID, INPUT_TOPIC)? {
            let (low, _) = self.kafka.watermarks(INPUT_TOPIC, partition)?;
            if committed.offset > low {
                applied.insert(partition, committed.offset - low);
            }
        }
        Ok(applied)
    }

    fn ends(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        self.kafka.next_offsets(topic)
    }

    fn reset_offsets(&self, before: &Before) -> Result<()> {
        for topic in [INPUT_TOPIC.to_owned(), format!("{TOPIC_PREFIX}.movements")] {
            self.kafka.reset_group_offsets(APPLICATION_ID, &topic, ResetTo::Beginning)?;
            tell(format_args!("group {APPLICATION_ID}, topic {topic}: all partitions to the beginning"));
        }
        let records: i64 = before.applied.values().sum();
        tell(format_args!("a naive consumer would now count {records} change events a second time"));
        Ok(())
    }

    fn start_again(&self, before: &Before) -> Result<()> {
        self.backend.start_processors()?;
        self.wait_ready(&PROCESSOR_PORTS)?;
        let expected = self.source.source_sums()?;
        self.wait_remains(&expected)?;
        self.check_recognised(before)?;
        self.check_output(before)?;
        check_remains(wide(&self.target.remains()?), wide(&expected)).context("right for a moment only")?;
        tell(format_args!("and remains.remains is the sum over the source table: {}", shown(&expected)));
        Ok(())
    }

    /// Log and metric say how many records were recognised.
    fn check_recognised(&self, before: &Before) -> Result<()> {
        let mut new = Vec::new();
        let told = wait_until("the log to tell of recognised records", || {
            let logs = self.recognised_lines()?;
            new =
                logs.iter().zip(&before.lines).flat_map(|(lines, known)| lines.iter().skip(*known)).cloned().collect();
            let found = recognised::by_source_partition(&new);
            Ok(before.applied.keys().all(|partition| found.contains_key(partition)))
        });
        told.with_context(|| format!("the log says {new:?}; records applied before: {:?}", before.applied))?;
        let found = recognised::by_source_partition(&new);
        ensure!(found == before.applied, "recognised by the log: {found:?}; applied before: {:?}", before.applied);
        let records: i64 = found.values().sum();
        tell(format_args!("the log says that all {records} change events seen before were recognised and skipped:"));
        // Time and place of each line are left out here for the width of it.
        let told: Vec<&str> =
            new.iter().map(|line| line.find("records applied").and_then(|at| line.get(at..)).unwrap_or(line)).collect();
        quote(&told.join("\n"), 10);
        let metrics: Vec<i64> = PROCESSOR_PORTS.iter().map(|port| self.metric(*port)).collect::<Result<_>>()?;
        let counted: i64 = metrics.iter().sum();
        ensure!(counted >= records, "the metric counts {counted} recognised records, the log {records}");
        tell(format_args!(
            "and so does the metric: processor_records_recognised_total is {counted}, movements between the steps included"
        ));
        Ok(())
    }

    /// The one new row, and nothing else, made a record.
    fn check_output(&self, before: &Before) -> Result<()> {
        let output = self.kafka.read(&output_topic(), Isolation::ReadCommitted)?;
        let new: Vec<Delta> = output
            .iter()
            .filter(|record| before.output_ends.get(&record.partition).is_none_or(|end| record.offset >= *end))
            // Keys of this kind hold state of the partition itself.
            .filter(|record| !record.key_text().starts_with('#'))
            .map(|record| serde_json::from_slice(record.value.as_deref().unwrap_or_default()).map_err(Into::into))
            .collect::<Result<_>>()?;
        let [delta] = new.as_slice() else {
            bail!("{} records appeared on {}, not one: {new:?}", new.len(), output_topic());
        };
        let (good, pieces) = NEW_ROW;
        ensure!(
            delta.good_id == good && delta.delta == i128::from(pieces),
            "the record that appeared on {} is not the new row's: {delta:?}",
            output_topic()
        );
        tell(format_args!(
            "one record appeared on {}: good {good}, delta {pieces}, remains {}, version {}",
            output_topic(),
            delta.remains,
            delta.version
        ));
        Ok(())
    }

    fn recognised_lines(&self) -> Result<Vec<Vec<String>>> {
        Ok(self.backend.processor_logs()?.iter().map(|log| recognised::lines(log)).collect())
    }

    fn metric(&self, port: u16) -> Result<i64> {
        let text = self.http.get(format!("http://localhost:{port}/metrics")).call()?.body_mut().read_to_string()?;
        recognised::counter(&text)
    }

    fn wait_ready(&self, ports: &[u16]) -> Result<()> {
        ports.iter().try_for_each(|port| {
            let url = format!("http://localhost:{port}/ready");
            wait_until(format!("{url} to say yes"), || Ok(self.http.get(&url).call().is_ok()))
        })
    }
}

fn output_topic() -> String {
    format!("{TOPIC_PREFIX}.deltas")
}

/// Whether remains are as expected; a good that is missing on either side counts as 0.
fn is(remains: &Remains, expected: &Remains) -> bool {
    check_remains(wide(remains), wide(expected)).is_ok()
}

fn wide(remains: &Remains) -> Vec<(i64, i128)> {
    remains.iter().map(|(good, pieces)| (*good, i128::from(*pieces))).collect()
}

/// `1→5  2→10`, good and pieces.
fn shown(remains: &Remains) -> String {
    if remains.is_empty() {
        return "(no goods yet)".to_owned();
    }
    let mut goods: Vec<String> = remains.iter().take(12).map(|(good, pieces)| format!("{good}→{pieces}")).collect();
    if remains.len() > goods.len() {
        goods.push(format!("… {} goods", remains.len()));
    }
    goods.join("  ")
}

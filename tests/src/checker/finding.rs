//! What is wrong: a stable name for machines, a sentence for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// How many sentences of one kind a report shows.
const SHOWN: usize = 5;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// The kinds of findings. Names are stable: scripts may rely on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

codes! {
    /// A record on a topic of the processor is not what it has to be.
    RecordUnreadable = "record-unreadable",
    /// A live source row contributes nothing.
    RowLost = "row-lost",
    /// Something contributes that is no live source row.
    RowInvented = "row-invented",
    /// A row contributes something else than the source says.
    RowDiffers = "row-differs",
    /// A row of the input is unknown to the changelog, and no dead letter holds it.
    InputLost = "input-lost",
    /// The changelog holds a contribution that no event of the input states.
    ContributionInvented = "contribution-invented",
    /// The same event of a row was applied twice in succession.
    AppliedTwice = "applied-twice",
    /// A good's newest total is not the sum over the changelog.
    SumDiffers = "sum-differs",
    /// A good's newest number of live rows is not the number in the changelog.
    RowCountDiffers = "row-count-differs",
    /// What the rows of a good moved, change by change, is not what its stock deltas add up to.
    MovementsDiffer = "movements-differ",
    /// A version of a good is missing.
    VersionGap = "version-gap",
    /// A version of a good appears again, or an older one after a newer.
    VersionRepeated = "version-repeated",
    /// An older epoch follows a newer one.
    EpochBackwards = "epoch-backwards",
    /// A total is not the one before plus the delta.
    SumBroken = "sum-broken",
    /// A good is in more than one partition of the output.
    GoodInTwoPartitions = "good-in-two-partitions",
    /// The group has passed records whose effect is not in the log: output is missing.
    OffsetWithoutOutput = "offset-without-output",
    /// The log holds the effect of records that the group has not passed.
    OutputWithoutOffset = "output-without-offset",
    /// Records wait to be consumed although everything is at rest.
    Unconsumed = "unconsumed",
    /// The marks of a partition's progress go backwards.
    ProgressBackwards = "progress-backwards",
    /// A transaction is open: the last stable offset is below the high watermark.
    OpenTransaction = "open-transaction",
    /// A read_committed reader was given a record of an aborted transaction.
    AbortedSeen = "aborted-seen",
    /// A live reader got an offset again, or an older one after a newer.
    LiveRepeated = "live-repeated",
    /// A live reader never got a record that is committed.
    LiveMissed = "live-missed",
    /// A record that a live reader got is no longer there.
    LiveVanished = "live-vanished",
    /// A record reads otherwise now than when a live reader got it.
    LiveAltered = "live-altered",
    /// A dead letter is not the record of the input it names, or names none.
    DeadLetterAltered = "dead-letter-altered",
    /// Two dead letters hold the same record of the input.
    DeadLetterRepeated = "dead-letter-repeated",
    /// The target does not have a good of the output.
    TargetLost = "target-lost",
    /// The target has a good that the output does not have.
    TargetInvented = "target-invented",
    /// The target shows another total or version than the output.
    TargetDiffers = "target-differs",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which kind.
    pub code: Code,
    /// What and where, for people.
    pub sentence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.sentence)
    }
}

/// Appends a finding.
pub(super) fn find(findings: &mut Vec<Finding>, code: Code, sentence: impl Into<String>) {
    findings.push(Finding { code, sentence: sentence.into() });
}

/// Text for people: how many of each kind, and the first few of them.
pub fn report(findings: &[Finding]) -> String {
    let mut kinds: BTreeMap<Code, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        kinds.entry(finding.code).or_default().push(finding);
    }
    let mut text = String::new();
    for (code, found) in kinds {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{code}: {} found. {}", found.len(), code.meaning().trim());
        for finding in found.iter().take(SHOWN) {
            let _ = writeln!(text, "  {}", finding.sentence);
        }
        if found.len() > SHOWN {
            let _ = writeln!(text, "  … and {} more", found.len() - SHOWN);
        }
    }
    text
}

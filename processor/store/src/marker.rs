//! The marker beside each partition's file: under which boot it was last open, and how that ended.
//!
//! It guards against silently broken files. Writes are not synced, so what the page cache held when the
//! machine lost power is gone, in any order; the file may look sound and be wrong. A marker says `open`
//! with the boot id from before the first write on, and `closed` only after the file was synced.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{read_if_present, sync_folder, write_durably};

const MARKER_FILE: &str = "marker.json";

/// How a partition was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Left {
    /// A process has it open, or ended without closing it.
    Open,
    /// Synced to the disk after the last write.
    Closed,
    /// Found to be damaged; to be discarded when opened next.
    Damaged,
}

/// The content of a marker file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) left: Left,
    /// The boot it was last open under; `None` where the system does not say.
    pub(crate) boot_id: Option<String>,
}

/// Whether what a marker says allows to use the file under the boot that runs now; the error says why not.
pub(crate) fn judge(marker: Option<&Marker>, boot_id: Option<&str>) -> Result<(), &'static str> {
    let marker = marker.ok_or("it has no readable marker")?;
    match marker.left {
        Left::Closed => Ok(()),
        Left::Damaged => Err("it was found to be damaged"),
        // A process was killed or crashed, the machine was not: all its writes are in the page cache or on disk.
        Left::Open if boot_id.is_some() && marker.boot_id.as_deref() == boot_id => Ok(()),
        Left::Open => Err("the machine was restarted while it was open"),
    }
}

/// Reads the marker of a partition's folder; `None` when there is none or it cannot be understood.
pub(crate) fn read(folder: &Path) -> io::Result<Option<Marker>> {
    let content = read_if_present(&folder.join(MARKER_FILE))?;
    Ok(content.and_then(|text| serde_json::from_slice(&text).ok()))
}

/// Writes the marker of a partition's folder, durably.
pub(crate) fn write(folder: &Path, left: Left, boot_id: Option<&str>) -> io::Result<()> {
    let marker = Marker { left, boot_id: boot_id.map(str::to_owned) };
    if read(folder)?.as_ref() == Some(&marker) {
        // Its content was synced before it got its name; the name may not have been.
        return sync_folder(folder);
    }
    write_durably(folder, MARKER_FILE, &serde_json::to_vec(&marker)?)
}

/// The id of the running boot; `None` where the system does not say, which then trusts only closed files.
pub(crate) fn current_boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_file_is_trusted_under_another_boot() {
        let judge =
            |left, boot: Option<&str>, now| judge(Some(&Marker { left, boot_id: boot.map(str::to_owned) }), now);
        let now = Some("now");
        assert!(judge(Left::Open, now, now).is_ok());
        assert!(judge(Left::Closed, Some("then"), now).is_ok());
        for (left, boot) in [(Left::Open, Some("then")), (Left::Open, None), (Left::Damaged, now)] {
            assert!(judge(left, boot, now).is_err(), "{left:?} {boot:?}");
        }
        assert!(judge(Left::Open, None, None).is_err());
        assert!(super::judge(None, now).is_err());
    }
}

//! A guest's whole state to a file, and back. What a newcomer would get wrong: QEMU calls both *migration*, and a file is a recent thing
//! to it: before 8.2 it takes one only as an inherited or lent descriptor, later that way is on its way out. The file is opened by
//! us in both cases, so QEMU needs no right to any path, and what stands in front of the state (a header of ours) is left alone: it
//! writes, and reads, from where the descriptor stands. Sources: qapi/migration.json, QEMU's docs/about/deprecated.rst.

use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::error::{Error, Peer};
use super::qmp::{Event, Qmp, Version};
use super::verbs::garbled;

/// The first QEMU that knows files.
const KNOWS_FILES: Version = Version(8, 2, 0);
/// The name under which the file is lent, and the set it is in.
const NAME: &str = "state";
const SET: u64 = 7;
/// As fast as the disk: QEMU would save no more than 128 MiB a second. Its own limit is that of a signed number.
const BANDWIDTH: u64 = 1 << 40;

/// How far saving is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written.
    pub done: u64,
    /// Bytes of memory in all.
    pub total: u64,
}

impl Qmp {
    /// Writes the guest's state to `file`, from where that stands. The guest should be stopped before, or it runs on meanwhile and is
    /// stopped at the end. Afterwards it stays stopped: `cont` lets it go on, `quit` ends it. `told` hears of the progress, and says
    /// whether to go on. Errors: the disk is full, a device cannot be saved, it was cancelled; the guest is unharmed.
    pub fn save(
        &mut self,
        file: &File,
        patience: Duration,
        mut told: impl FnMut(Progress) -> bool,
    ) -> Result<(), Error> {
        self.prepare()?;
        self.call("migrate-set-parameters", json!({"max-bandwidth": BANDWIDTH}))?;
        let uri = self.hand_over(file, true)?;
        if let Err(e) = self.call("migrate", json!({"uri": uri})) {
            self.forget_file();
            return Err(e);
        }
        let end = Instant::now() + patience;
        let mut why = String::new();
        let result = loop {
            let answer = self.call("query-migrate", Value::Null)?;
            let ram = |what: &str| answer["ram"][what].as_u64().unwrap_or_default();
            let go_on = told(Progress { done: ram("transferred"), total: ram("total") });
            let failed = |why: String| Err(Error::State { verb: "saved", why });
            match answer["status"].as_str() {
                Some("completed") => break Ok(()),
                Some("cancelled") => break failed(why),
                Some("failed") => break failed(reason(&answer)),
                None => break Err(garbled("query-migrate", &answer)),
                Some(_) if go_on && Instant::now() < end => {
                    self.await_event(Duration::from_millis(100), migration)?;
                }
                Some(_) => {
                    let late = format!("it is not there after {} s", patience.as_secs());
                    why = if go_on { late } else { "it was cancelled".to_owned() };
                    self.call("migrate_cancel", Value::Null)?;
                    self.await_event(Duration::from_millis(100), migration)?;
                }
            }
        };
        self.forget_file();
        self.settled(end)?;
        result
    }

    /// Waits for the moment between the end of the work and that of QEMU's own tidying up, in which it refuses `cont`.
    fn settled(&mut self, end: Instant) -> Result<(), Error> {
        while self.call("query-status", Value::Null)?["status"] == "finish-migrate" && Instant::now() < end {
            self.await_event(Duration::from_millis(20), migration)?;
        }
        Ok(())
    }

    /// Reads a guest's state from `file`, from where that stands, into a QEMU that was started for it (`Setup::incoming`) with the same
    /// machine. It is stopped then. Errors: the file is damaged, or of another machine; QEMU before 9.1 ends by that, and says why on
    /// its stderr only.
    pub fn restore(&mut self, file: &File, patience: Duration) -> Result<(), Error> {
        self.prepare()?;
        let uri = self.hand_over(file, false)?;
        let failed = |why: &str| Error::State { verb: "restored", why: why.to_owned() };
        let ended = |e| match e {
            Error::Gone { .. } => failed("QEMU could not make sense of it, and has ended"),
            other => other,
        };
        self.call("migrate-incoming", json!({"uri": uri})).map_err(ended)?;
        let end = Instant::now() + patience;
        loop {
            let answer = self.call("query-migrate", Value::Null).map_err(ended)?;
            match answer["status"].as_str() {
                Some("completed") => break,
                Some("failed" | "cancelled") => return Err(failed(&reason(&answer))),
                _ if Instant::now() > end => {
                    return Err(failed(&format!("it is not there after {} s", patience.as_secs())));
                }
                _ => self.await_event(Duration::from_millis(100), migration).map_err(ended)?,
            };
        }
        self.forget_file();
        Ok(())
    }

    fn prepare(&mut self) -> Result<(), Error> {
        let events = json!([{"capability": "events", "state": true}]);
        self.call("migrate-set-capabilities", json!({"capabilities": events})).map(drop)
    }

    /// Gives QEMU the file, to write or to read; what to call it.
    fn hand_over(&mut self, file: &File, write: bool) -> Result<String, Error> {
        if self.version() < KNOWS_FILES {
            self.lend(NAME, file.as_fd())?;
            return Ok(format!("fd:{NAME}"));
        }
        let io = |source| Error::Io { peer: Peer::Qemu, source };
        // QEMU begins at the start of what it opens, unless it is told otherwise, and opens it only the way that it was handed over.
        let at = { file }.stream_position().map_err(io)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let again = File::options().read(!write).write(write).open(path).map_err(io)?;
        self.call_with("add-fd", json!({"fdset-id": SET}), again.as_fd())?;
        Ok(format!("file:/dev/fdset/{SET},offset={at}"))
    }

    fn forget_file(&mut self) {
        if self.version() < KNOWS_FILES {
            self.take_back(NAME);
        } else {
            let _ = self.call("remove-fd", json!({"fdset-id": SET}));
        }
    }
}

fn migration(event: &Event) -> Option<()> {
    (event.name == "MIGRATION").then_some(())
}

fn reason(answer: &Value) -> String {
    answer["error-desc"].as_str().unwrap_or("QEMU does not say why").to_owned()
}

//! How the rooms below the front tell a user what is going on, without printing. The front hands in an implementation
//! (bars on a terminal, plain lines otherwise, nothing with `--quiet`). What a newcomer would get wrong: text that comes
//! from outside is passed as it is; the front escapes it.

/// Receives what a verb is doing. Implementations must be cheap and must never fail.
pub trait Report: Send + Sync {
    /// One line that the user should know, on stderr ("emulated: arm64 on x86_64 by qemu-aarch64 11.1").
    fn note(&self, line: &str);
    /// Something looks wrong but work goes on.
    fn warn(&self, line: &str);
    /// A piece of work begins; `total` is its size in bytes where it is known.
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Step>;
}

/// One piece of work in progress. Dropping it without [`Step::done`] means that it failed.
pub trait Step: Send + Sync {
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
    /// What it is busy with now.
    fn say(&self, message: &str);
    /// It is finished; `summary` replaces the bar (an empty one leaves nothing).
    fn done(self: Box<Self>, summary: &str);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Report for Quiet {
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn begin(&self, _: &str, _: Option<u64>) -> Box<dyn Step> {
        Box::new(Quiet)
    }
}

impl Step for Quiet {
    fn advance(&self, _: u64) {}
    fn say(&self, _: &str) {}
    fn done(self: Box<Self>, _: &str) {}
}

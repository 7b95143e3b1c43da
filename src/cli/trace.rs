//! `--verbose` and `--debug`: what the rooms below log, on stderr. What a newcomer would get wrong: nothing is formatted unless
//! one of the two was given; and the text is from outside, so it is escaped as everything else.

use std::fmt::{self, Write as _};
use std::io;

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use super::progress::Talk;
use super::text;

/// The target of external commands' lines.
const COMMANDS: &str = "pronto::run";

/// Starts logging: commands with `verbose`, all there is of ours with `debug`.
pub fn start(verbose: bool, debug: bool, talk: &Talk) {
    let targets = match (verbose, debug) {
        (_, true) => Targets::new().with_target("pronto", Level::DEBUG).with_default(Level::INFO),
        (true, false) => Targets::new().with_target(COMMANDS, Level::INFO),
        (false, false) => return,
    };
    let layer = tracing_subscriber::fmt::layer().event_format(Lines).with_writer(ToTalk(talk.clone()));
    // Only the first in a process counts; there is only one.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(targets).with(layer));
}

/// A command as a shell's `set -x` shows it; anything else with its level and target.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = String::new();
        ctx.field_format().format_fields(Writer::new(&mut said), event)?;
        out.write_str(&head(event.metadata()))?;
        out.write_str(&text::line(&said))
    }
}

fn head(metadata: &Metadata<'_>) -> String {
    if metadata.target() == COMMANDS {
        return "+ ".to_owned();
    }
    let mut head = String::new();
    let _ = write!(head, "{} {}: ", metadata.level().as_str().to_ascii_lowercase(), metadata.target());
    head
}

/// Hands each event as one line to the voice on stderr, so that it stands above the bars.
struct ToTalk(Talk);

impl<'a> MakeWriter<'a> for ToTalk {
    type Writer = OneLine;
    fn make_writer(&'a self) -> OneLine {
        OneLine(self.0.clone())
    }
}

struct OneLine(Talk);

impl io::Write for OneLine {
    // The formatter hands over a whole event at once.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.say(&String::from_utf8_lossy(data));
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

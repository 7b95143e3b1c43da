//! What a verb is doing, on stderr: a bar per step on a terminal, plain lines otherwise, nothing with `--quiet`. What a newcomer
//! would get wrong: no steady ticker may be started, for its thread would be lost in a fork below us; a bar moves when its
//! work reports, and only then.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::text;
use crate::domain::report::{Report, Step};
use crate::domain::size;

/// The one voice on stderr.
#[derive(Debug, Clone)]
pub struct Talk {
    quiet: bool,
    bars: Option<MultiProgress>,
}

impl Talk {
    /// Bars when stderr is a terminal that can move its cursor.
    pub fn new(quiet: bool) -> Talk {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let bars = (terminal && !quiet).then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Talk { quiet, bars }
    }

    /// The same voice, silent but for errors when `quiet`.
    #[must_use]
    pub fn hushed(&self, quiet: bool) -> Talk {
        if quiet { Talk { quiet, bars: None } } else { self.clone() }
    }

    /// Writes a line that is harmless already, above the bars, whatever `--quiet` says. stderr may be closed: never mind.
    pub fn say(&self, line: &str) {
        let write = || {
            let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Takes what is left of the bars off the screen.
    pub fn clear(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
        }
    }
}

impl Report for Talk {
    fn note(&self, line: &str) {
        if !self.quiet {
            self.say(&text::line(line));
        }
    }

    fn warn(&self, line: &str) {
        if !self.quiet {
            self.say(&format!("pronto: warning: {}", text::line(line)));
        }
    }

    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Step> {
        let what = text::line(what).into_owned();
        let Some(bars) = &self.bars else {
            self.note(&total.map_or_else(|| what.clone(), |bytes| format!("{what} ({})", size::human(bytes))));
            return Box::new(Plain { talk: self.clone() });
        };
        let bar = bars.add(ProgressBar::new(total.unwrap_or(0)));
        bar.set_style(style(total.is_some()));
        bar.set_message(what.clone());
        bar.tick();
        Box::new(Bar { talk: self.clone(), bar, what })
    }
}

const KNOWN: &str = "{wide_msg} {bar:20} {got:>9} of {all:9} {eta:>4}";
const UNKNOWN: &str = "{spinner} {wide_msg} {got:>9}";

/// How a bar looks. The templates are constants: a wrong one is found by the test below.
fn style(known: bool) -> ProgressStyle {
    let got = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        if state.pos() > 0 {
            let _ = out.write_str(&size::human(state.pos()));
        }
    };
    let all = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = out.write_str(&size::human(state.len().unwrap_or(0)));
    };
    let template = ProgressStyle::with_template(if known { KNOWN } else { UNKNOWN });
    template.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("got", got).with_key("all", all)
}

/// A step without a terminal: its beginning was a line, its end is one.
struct Plain {
    talk: Talk,
}

impl Step for Plain {
    fn advance(&self, _: u64) {}
    fn say(&self, _: &str) {}
    fn done(self: Box<Self>, summary: &str) {
        if !summary.is_empty() {
            self.talk.note(summary);
        }
    }
}

/// A step with a bar.
struct Bar {
    talk: Talk,
    bar: ProgressBar,
    what: String,
}

impl Step for Bar {
    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn say(&self, message: &str) {
        self.bar.set_message(format!("{}: {}", self.what, text::line(message)));
        self.bar.tick();
    }

    fn done(self: Box<Self>, summary: &str) {
        self.bar.finish_and_clear();
        if !summary.is_empty() {
            self.talk.note(summary);
        }
    }
}

impl Drop for Bar {
    // Also when the step failed: the error is about to be printed below.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What the verbs get.
pub fn report(talk: &Talk) -> Arc<dyn Report> {
    Arc::new(talk.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_right() {
        for template in [KNOWN, UNKNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_step_ends_on_every_way() {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let talk = Talk { quiet: false, bars: Some(bars) };
        let step = talk.begin("work\u{1b}", Some(100));
        step.advance(50);
        step.say("half");
        step.done("");
        drop(talk.begin("fails", None));
        let bar = ProgressBar::hidden();
        drop(Bar { talk, bar: bar.clone(), what: "lost".to_owned() });
        assert!(bar.is_finished(), "a bar that is dropped must not stay on the screen");
    }
}

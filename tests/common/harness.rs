//! The runner of the boot and hosts rings. cargo's own runner has no end of the run (where shared guests and the registry go), no test
//! that skips itself with a reason, and no picture of the host around each test; this one speaks its flags and closes with its
//! line. What a newcomer would get wrong: `Together` cases run first, two at a time, and a guest that they share they may not change; `Alone`
//! cases run one by one. The runner itself fails what leaves anything on the host.

use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::snapshot::Snapshot;

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// `module::name`.
    pub name: &'static str,
    /// The test; it panics to fail.
    pub run: fn(),
    /// In which company it runs.
    pub when: When,
}

/// In which company a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Beside others, between two pictures of the host around all of them.
    Together,
    /// By itself, between two pictures of the host: what looks at the whole host, or changes it.
    Alone,
}

/// The payload of the panic by which a test skips itself.
#[derive(Debug)]
pub struct Skip(pub String);

/// Lists the tests of a module: `cases!(Together: one, two; Alone: three)`. A test that is not listed is dead code, which fails
/// the lint.
macro_rules! cases {
    ($($when:ident: $($name:ident),+ $(,)?);+ $(;)?) => {
        pub const CASES: &[$crate::common::harness::Case] = &[$($(
            $crate::common::harness::Case {
                name: concat!(module_path!(), "::", stringify!($name)),
                run: $name,
                when: $crate::common::harness::When::$when,
            },
        )+)+];
    };
}
pub(crate) use cases;

/// What surrounds the cases.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    /// Why nothing can run here, when that is so.
    pub refuse: fn() -> Option<String>,
    /// Done first when the whole ring runs.
    pub prepare: fn(),
    /// Ends what the cases share.
    pub unshare: fn(),
    /// Ends everything.
    pub end: fn(),
}

/// No test may take longer: one that hangs must not eat the whole run's time.
const LIMIT: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Clone)]
enum Verdict {
    Ok,
    Skipped(String),
    Failed(String),
}

#[derive(Debug, Default)]
struct Words {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    prepare: bool,
    alone: bool,
    threads: usize,
}

impl Words {
    /// Reads cargo test's flags, and `--prepare` (build the guests only) and `--alone` (run every case as an `Alone` one); those that mean nothing here are passed over.
    fn read() -> Words {
        let threads = std::env::var("RUST_TEST_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
        let mut words = Words { threads, ..Words::default() };
        let mut args = std::env::args().skip(1);
        while let Some(word) = args.next() {
            match word.as_str() {
                "--exact" => words.exact = true,
                "--list" => words.list = true,
                "--prepare" => words.prepare = true,
                "--alone" => words.alone = true,
                "--skip" => words.skips.extend(args.next()),
                "--test-threads" => words.threads = args.next().and_then(|n| n.parse().ok()).unwrap_or(2),
                "--format" | "--color" | "-Z" | "--logfile" => drop(args.next()),
                other if other.starts_with("--test-threads=") => {
                    words.threads = other["--test-threads=".len()..].parse().unwrap_or(2);
                }
                other if other.starts_with('-') => {}
                other => words.filters.push(other.to_owned()),
            }
        }
        words
    }

    fn wants(&self, name: &str) -> bool {
        let hit = |text: &String| if self.exact { name == text } else { name.contains(text.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(hit))
            && !self.skips.iter().any(|s| name.contains(s.as_str()))
    }
}

/// Prints a line of the runner's.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Runs what the command line asks for.
pub fn main(ring: Ring, cases: &[&[Case]]) -> ExitCode {
    let words = Words::read();
    let all: Vec<Case> = cases.concat();
    let chosen: Vec<Case> = all.iter().copied().filter(|c| words.wants(short(c.name))).collect();
    if words.list {
        for case in &chosen {
            say(&format!("{}: test", short(case.name)));
        }
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    say(&format!("\nrunning {} tests", chosen.len()));
    let mut verdicts: Vec<(&'static str, Verdict)> = Vec::new();
    if let Some(why) = (ring.refuse)() {
        for case in &chosen {
            verdicts.push((short(case.name), report(case, Verdict::Skipped(why.clone()), Duration::ZERO)));
        }
    } else {
        keep_panics();
        if words.prepare || (words.filters.is_empty() && !chosen.is_empty()) {
            (ring.prepare)();
        }
        if !words.prepare {
            let (together, alone): (Vec<Case>, Vec<Case>) =
                chosen.iter().partition(|c| c.when == When::Together && !words.alone);
            verdicts.extend(run_together(&ring, &together, words.threads.max(1)));
            verdicts.extend(run_alone(&ring, &alone));
        }
        (ring.end)();
    }
    close(&verdicts, all.len() - chosen.len(), begin.elapsed())
}

/// Whether the command line chose the test of this name (`module::name`).
pub fn is_chosen(name: &str) -> bool {
    Words::read().wants(name)
}

/// `boot::exec::status` is called `exec::status`.
fn short(name: &'static str) -> &'static str {
    name.split_once("::").map_or(name, |(_, rest)| rest)
}

fn run_together(ring: &Ring, cases: &[Case], threads: usize) -> Vec<(&'static str, Verdict)> {
    if cases.is_empty() {
        return Vec::new();
    }
    let before = Snapshot::take();
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begin = Instant::now();
                    let verdict = report(case, guarded(case), begin.elapsed());
                    verdicts.lock().unwrap().push((short(case.name), verdict));
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap();
    let begin = Instant::now();
    let all: fn() = || {};
    let left = Case { name: "ring::all_that_ran_together_left_nothing", run: all, when: When::Alone };
    let verdict = match catch_unwind(AssertUnwindSafe(ring.unshare)) {
        Err(payload) => Verdict::Failed(text_of(payload.as_ref())),
        Ok(()) => before.same_again(super::secs(20)).map_or(Verdict::Ok, |diff| {
            Verdict::Failed(format!("left on the host (run them with --alone to see by which):\n{diff}"))
        }),
    };
    verdicts.push((short(left.name), report(&left, verdict, begin.elapsed())));
    verdicts
}

fn run_alone(ring: &Ring, cases: &[Case]) -> Vec<(&'static str, Verdict)> {
    let mut verdicts = Vec::new();
    for case in cases {
        let begin = Instant::now();
        let before = Snapshot::take();
        let mut verdict = guarded(case);
        if case.when == When::Together {
            (ring.unshare)();
        }
        if let Some(diff) = before.same_again(super::secs(20)) {
            verdict = match verdict {
                Verdict::Failed(why) => Verdict::Failed(format!("{why}\nand it left something on the host:\n{diff}")),
                _ => Verdict::Failed(format!("it left something on the host:\n{diff}")),
            };
        }
        verdicts.push((short(case.name), report(case, verdict, begin.elapsed())));
    }
    verdicts
}

/// Runs one case in a thread of its own, for no longer than [`LIMIT`]; one that hangs is left behind, since a thread cannot be
/// killed, and what it started goes at the end of the ring.
fn guarded(case: &Case) -> Verdict {
    let (sender, receiver) = mpsc::channel();
    let run = case.run;
    let thread = std::thread::Builder::new().name(short(case.name).to_owned()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(run));
        let _ = sender.send(match result {
            Ok(()) => Verdict::Ok,
            Err(payload) => match payload.downcast_ref::<Skip>() {
                Some(Skip(why)) => Verdict::Skipped(why.clone()),
                None => Verdict::Failed(text_of(payload.as_ref())),
            },
        });
    });
    if let Err(error) = thread {
        return Verdict::Failed(format!("no thread for it: {error}"));
    }
    receiver
        .recv_timeout(LIMIT)
        .unwrap_or_else(|_| Verdict::Failed(format!("it took longer than {} s and was given up", LIMIT.as_secs())))
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps where and why a test panicked, instead of printing it amid the others.
fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        if info.payload().is::<Skip>() {
            return;
        }
        let at = info.location().map(|l| format!("{}:{}: ", l.file(), l.line())).unwrap_or_default();
        let text = format!("{at}{}", payload_text(info.payload()));
        let kept = PANIC.try_with(|kept| *kept.borrow_mut() = Some(text.clone()));
        if kept.is_err() {
            say(&text);
        }
    }));
}

fn payload_text(payload: &dyn std::any::Any) -> String {
    let known = payload.downcast_ref::<String>().cloned();
    known
        .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}

fn text_of(payload: &(dyn std::any::Any + Send)) -> String {
    PANIC.with(|kept| kept.borrow_mut().take()).unwrap_or_else(|| payload_text(payload))
}

fn report(case: &Case, verdict: Verdict, took: Duration) -> Verdict {
    let word = match &verdict {
        Verdict::Ok => "ok".to_owned(),
        Verdict::Skipped(why) => format!("ignored, {why}"),
        Verdict::Failed(_) => "FAILED".to_owned(),
    };
    say(&format!("test {} ... {word} ({:.1} s)", short(case.name), took.as_secs_f64()));
    if let Verdict::Failed(why) = &verdict {
        say(&format!("---- {} ----\n{why}\n", short(case.name)));
    }
    verdict
}

fn close(verdicts: &[(&str, Verdict)], filtered: usize, took: Duration) -> ExitCode {
    let count = |f: fn(&Verdict) -> bool| verdicts.iter().filter(|(_, v)| f(v)).count();
    let passed = count(|v| matches!(v, Verdict::Ok));
    let skipped = count(|v| matches!(v, Verdict::Skipped(_)));
    let failed = count(|v| matches!(v, Verdict::Failed(_)));
    if skipped > 0 {
        say("\nskipped here, and why:");
        for (name, verdict) in verdicts {
            if let Verdict::Skipped(why) = verdict {
                say(&format!("    {name}: {why}"));
            }
        }
    }
    if failed > 0 {
        say("\nfailures:");
        for (name, _) in verdicts.iter().filter(|(_, v)| matches!(v, Verdict::Failed(_))) {
            say(&format!("    {name}"));
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    say(&format!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        took.as_secs_f64()
    ));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

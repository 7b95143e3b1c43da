//! The ring's own parts, without a machine. What a newcomer would get wrong: a check that is named in tests/host.rs but written
//! nowhere would fail only after minutes; one that is written but named nowhere would never run.

use std::collections::BTreeSet;

use crate::common::harness::cases;
use crate::machine::{INSIDE, Verdict, verdict};

cases! { Together: results_are_read, every_check_is_a_test; }

fn results_are_read() {
    let text = "begin a\nok a 1.5\nbegin b\n| one\n| two words\nFAILED b 2.0\nskipped c no such thing\nbegin d\nok d";
    assert_eq!(verdict(text, "a"), Some(Verdict::Ok));
    assert_eq!(verdict(text, "b"), Some(Verdict::Failed("one\ntwo words".to_owned())));
    assert_eq!(verdict(text, "c"), Some(Verdict::Skipped("no such thing".to_owned())));
    assert_eq!(verdict(text, "d"), None, "its line is not whole yet");
    assert_eq!(verdict("", "a"), None);
}

fn every_check_is_a_test() {
    let text: String = INSIDE.iter().map(|(_, text)| *text).collect();
    let written: BTreeSet<&str> =
        text.lines().filter_map(|l| Some(l.strip_prefix("check_")?.split_once("() {")?.0)).collect();
    let all = crate::ALL.concat();
    let named: BTreeSet<&str> = all
        .iter()
        .filter_map(|case| case.name.split_once("::")?.1.split_once("::"))
        .filter(|(module, _)| *module != "ring")
        .map(|(_, check)| check)
        .collect();
    assert!(
        named.len() > 10 && written == named,
        "only written: {:?}, only named: {:?}",
        written.difference(&named),
        named.difference(&written)
    );
}

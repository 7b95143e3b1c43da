//! What parses, and to what; and that what is written reads back.

use super::super::{Config, Kind, Value, is_assignment};
use super::{one_line, read};

fn text(text: &str) -> Value {
    Value::text(text).unwrap()
}

#[test]
fn all_of_the_grammar() {
    let config = read(concat!(
        "# comment \u{e4}\n\n",
        "name=\"h0\"; type = 'hvm' ;; memory\t=512#x\n",
        "a.b_1 = [ ] ; nested = [\n\n  \"a\", # with a comment\n  [ 'b', 010, [ 0x1f ] ]\n , 'c' ,\n\n]\n",
        "esc = \"\\\"\\'\\\\\\a\\b\\f\\n\\r\\t\\v \u{20ac} '\"\n",
        "esc2 = '\"\\''\n",
        "last = 3",
    ));
    let nested = Value::list(vec![
        text("a"),
        Value::list(vec![text("b"), Value { kind: Kind::Number("010".into()), ..Value::number(0) }, {
            Value::list(vec![Value { kind: Kind::Number("0x1f".into()), ..Value::number(0) }])
        }]),
        text("c"),
    ]);
    let want = [
        ("name", text("h0")),
        ("type", text("hvm")),
        ("memory", Value::number(512)),
        ("a.b_1", Value::list(Vec::new())),
        ("nested", nested),
        ("esc", text("\"'\\\u{7}\u{8}\u{c}\n\r\t\u{b} \u{20ac} '")),
        ("esc2", text("\"'")),
        ("last", Value::number(3)),
    ];
    assert_eq!(config.entries().len(), want.len());
    for (entry, (key, value)) in config.entries().iter().zip(want) {
        assert_eq!((entry.key.as_str(), &entry.value), (key, &value));
    }
    let place = &config.get("nested").unwrap().place;
    assert_eq!((place.line, place.column), (4, 15));
    let Kind::List(values) = config.get("nested").unwrap().value.kind() else { panic!("no list") };
    assert_eq!(values[1].place().to_string(), "web.cfg:7:3");
}

#[test]
fn nothing_is_a_configuration_too() {
    for empty in ["", "\n", ";", "# only this", "\n;\n # a\n\t"] {
        assert!(read(empty).entries().is_empty(), "{empty:?}");
    }
    assert!(Config::parse("x", b"# Latin-1: \xe4\na = 1 # \xff\n").is_ok(), "comments are bytes");
}

#[test]
fn large_files_take_no_time() {
    let line = "a=[1,'\u{e9}'];".repeat(30_000);
    let keys: String = (0..30_000).map(|n| format!("k{n} = {n}\n")).collect();
    let added = "a += [ 1 ]\n".repeat(30_000);
    let start = std::time::Instant::now();
    assert_eq!(read(&line).entries()[0].place.column, 299_991);
    assert_eq!(read(&keys).entries().len(), 30_000);
    assert_eq!(read(&added).texts("a").unwrap().len(), 30_000);
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn later_ones_count_and_additions_add() {
    let config = read("a = 1\nb = 'x'\na = 2\nb += 'y'\nl += [ 'p' ]\nl += [ 'q' ]\nn = 1\nn += 2");
    assert_eq!(config.text("a").unwrap(), Some("2"));
    assert_eq!(config.get("a").unwrap().place.line, 3);
    assert_eq!(config.text("b").unwrap(), Some("xy"));
    assert_eq!(config.texts("l").unwrap().iter().map(|(text, _)| *text).collect::<Vec<_>>(), ["p", "q"]);
    assert_eq!(config.text("n").unwrap(), Some("12"), "as xl");
    assert_eq!(
        one_line(&config.number("n").unwrap_err()),
        "web.cfg:8:1: n: a number cannot be made with +=; write n = NUMBER"
    );
    let keys: Vec<&str> = config.entries().iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a", "b", "l", "n"], "in the order in which they first stood");
}

#[test]
fn words_of_the_command_line() {
    let mut config = read("name = 'a'\nmemory = 1\ndisk = [ 'a,raw,xvda' ]");
    for word in [
        "name=\"b\"",
        "memory=2",
        "vcpus = 3;maxvcpus=4",
        "disk+=['b,raw,xvdb']",
        "arch=arm64",
        "extra=root=/dev/vda quiet",
        "cpus=0-3,^1",
    ] {
        assert!(is_assignment(word.as_bytes()), "{word}");
        config.add_word(word.as_bytes()).unwrap();
    }
    let said: Vec<_> = ["name", "memory", "vcpus", "maxvcpus", "arch", "extra", "cpus"]
        .map(|key| config.text(key).unwrap().unwrap())
        .into();
    assert_eq!(said, ["b", "2", "3", "4", "arm64", "root=/dev/vda quiet", "0-3,^1"]);
    let places: Vec<String> = config.texts("disk").unwrap().iter().map(|(_, place)| place.to_string()).collect();
    assert_eq!(places, ["web.cfg:3:10", "'disk+=['b,raw,xvdb']'"]);

    let before = config.clone();
    for (word, said) in [
        ("memory=", "'memory=': expected a value after =; write memory=VALUE"),
        (
            "vcpus=2;disk+='x'",
            "'vcpus=2;disk+='x'': disk: expected a list after +=, since it is a list at 'disk+=['b,raw,xvdb']'; write disk += [ … ]",
        ),
        ("name='b", "'name='b': the string that begins here is not closed: expected ' in this line"),
        (
            "vif=[a]",
            "'vif=[a]': expected a value or ] in the list of 'vif' that begins in line 1, found 'a'; put each entry in quotes: [ \"a\" ]",
        ),
        ("Name=b", "'Name=b': expected a key, found 'Name'; keys are in small letters: name"),
        (
            "name==b",
            "'name==b': expected a value of 'name': a text in quotes, a number or a list, found '='; one = is enough: name = VALUE",
        ),
        ("name", "'name': 'name' is no key=value"),
        ("na\u{1}me=", "'na\\u{1}me=': expected = or += after 'na', found '\\u{1}me'; a line is KEY = VALUE"),
        ("Na\u{1}me=1", "'Na\\u{1}me=1': expected a key, found 'Na\\u{1}me'; keys are in small letters: na\\u{1}me"),
        (
            "name=\u{1b}[1m",
            "'name=\\u{1b}[1m': expected a value of 'name': a text in quotes, a number or a list, found '\\u{1b}[1m'; text needs quotes: name = \"[1m\"",
        ),
    ] {
        assert_eq!(one_line(&config.add_word(word.as_bytes()).unwrap_err()), said, "{word}");
        assert_eq!(config, before, "{word} did something");
    }
    for no in ["", "name", "./a=b", "=x", "a b", "debian/x", "x@sha256:a", "1a=b", "-a=b", "a:b=c"] {
        assert!(!is_assignment(no.as_bytes()), "{no}");
    }
}

#[test]
fn what_is_written_reads_back() {
    let long = format!("disk = [ '{}', '{}' ]", "a".repeat(60), "b".repeat(60));
    for text in [
        "a = 1",
        "a = []",
        "a = [ '', [ 1, [ \"\\\"'\\\\\" ] ] ]",
        "a = '\u{1b}\u{7f}\\n\\r\\t\\v\\f\\a\\b\u{20ac}'",
        &long,
        "b = 0x1f; a = 'x'; b += '1'",
    ] {
        let config = read(text);
        assert_eq!(read(&config.to_string()), config, "{text}: {config}");
    }
    assert_eq!(read("a='x';b=[1,'y']\nc=[]").to_string(), "a = \"x\"\nb = [ 1, \"y\" ]\nc = [ ]\n");
    assert!(read(&long).to_string().contains("[\n    \"aaa"), "a line for each");
}

/// Configurations made of whatever may be in one, from a generator that gives the same each time.
#[test]
fn what_is_written_reads_back_whatever_it_is() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    fn value(next: &mut impl FnMut(usize) -> usize, depth: usize) -> Value {
        let pieces = [
            "a", "\"", "'", "\\", "\n", "\r", "\u{1}", "\u{7f}", "\u{e9}", "#", ";", "[", "]", ",", "=", " ",
            "\u{202e}", "\\n", "x41",
        ];
        match next(if depth < 4 { 4 } else { 3 }) {
            0 => Value::number(next(1 << 40) as u64),
            3 => Value::list((0..next(5)).map(|_| value(next, depth + 1)).collect()),
            _ => text(&(0..next(9)).map(|_| pieces[next(pieces.len())]).collect::<String>()),
        }
    }
    for _ in 0..3000 {
        let mut config = Config::default();
        for _ in 0..next(6) {
            let key = ["name", "disk", "a.b", "x_1"][next(4)];
            config.set(key, value(&mut next, 0)).unwrap();
        }
        let written = config.to_string();
        assert_eq!(Config::parse("own", written.as_bytes()).as_ref(), Ok(&config), "{written}");
    }
}

#[test]
fn what_is_set_by_the_program() {
    let mut config = read("a = 1\nb = 2\nc = 3");
    config.set("b", text("x")).unwrap();
    assert_eq!(config.remove("a").unwrap().value, Value::number(1));
    config.set("d", Value::number(4)).unwrap();
    assert_eq!(config.to_string(), "b = \"x\"\nc = 3\nd = 4\n");
    assert_eq!(config.get("c").unwrap().value, Value::number(3), "the index is right");
    assert!(config.remove("a").is_none() && config.get("a").is_none());
    for bad in ["", "A", "1a", "a b", "a=b", "a\n"] {
        assert!(config.set(bad, Value::number(1)).is_err(), "{bad:?}");
    }
    assert!(Value::text("a\0b").is_err());
}

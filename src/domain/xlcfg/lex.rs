//! The words of an xl.cfg file. What a newcomer would get wrong: a newline is a word, since it ends a statement; a comment is one, too; and
//! no string goes over the end of its line. Only lists do. Source: Xen, tools/libs/util/libxlu_cfg_l.l and `xlu__cfgl_dequote`.

use std::sync::Arc;

use super::error::{Error, Place, Source};

/// A word of the file and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Token<'a> {
    pub what: Word<'a>,
    pub place: Place,
    /// Its first byte in the text.
    pub start: usize,
}

/// What a word is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word<'a> {
    Key(&'a str),
    Number(&'a str),
    Text(String),
    Comma,
    Open,
    Close,
    Assign,
    Add,
    Semicolon,
    Newline,
    End,
    /// A character that begins no word.
    Bad(char),
}

/// Takes a text apart.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    pub text: &'a [u8],
    pub source: Arc<Source>,
    at: usize,
    line: u32,
    /// Up to where characters of this line are counted, and how many there are.
    counted: usize,
    characters: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(source: Arc<Source>, text: &'a [u8]) -> Lexer<'a> {
        Lexer { text, source, at: 0, line: 1, counted: 0, characters: 0 }
    }

    /// The next word; after the last one [`Word::End`], again and again. Errors: a string that is not closed, is not UTF-8, or holds an escape
    /// that xl does not know.
    pub fn next(&mut self) -> Result<Token<'a>, Error> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        let (start, place) = (self.at, self.place());
        let what = self.word(&place)?;
        Ok(Token { what, place, start })
    }

    /// Where the lexer is. It counts on from the last time: a line may be as long as a file.
    fn place(&mut self) -> Place {
        // Bytes that go on with a character are not counted.
        self.characters += self.text[self.counted..self.at].iter().filter(|b| **b & 0xc0 != 0x80).count();
        self.counted = self.at;
        let column = u32::try_from(self.characters).unwrap_or(u32::MAX - 1) + 1;
        Place { source: Arc::clone(&self.source), line: self.line, column }
    }

    fn word(&mut self, place: &Place) -> Result<Word<'a>, Error> {
        let Some(&first) = self.text.get(self.at) else { return Ok(Word::End) };
        let more = |b: &u8| matches!(b, b'.' | b'_' | b'0'..=b'9' | b'a'..=b'z');
        let one = |lexer: &mut Self, word| {
            lexer.at += 1;
            Ok(word)
        };
        match first {
            b'a'..=b'z' => Ok(Word::Key(self.run(more))),
            b'0'..=b'9' => Ok(Word::Number(self.run(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'x')))),
            b',' => one(self, Word::Comma),
            b'[' => one(self, Word::Open),
            b']' => one(self, Word::Close),
            b';' => one(self, Word::Semicolon),
            b'=' => one(self, Word::Assign),
            b'+' if self.text.get(self.at + 1) == Some(&b'=') => {
                self.at += 2;
                Ok(Word::Add)
            }
            b'\n' | b'#' => Ok(self.line_end()),
            b'"' | b'\'' => self.string(first, place),
            _ => Ok(Word::Bad(self.character())),
        }
    }

    fn run(&mut self, belongs: impl Fn(&u8) -> bool) -> &'a str {
        let start = self.at;
        self.at += self.text[start..].iter().take_while(|b| belongs(b)).count();
        std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default()
    }

    /// A newline, with the comment before it. xl wants a newline after the last line's comment; nobody's editor is blamed for that here.
    fn line_end(&mut self) -> Word<'a> {
        match self.text[self.at..].iter().position(|b| *b == b'\n') {
            Some(rest) => {
                self.at += rest + 1;
                self.line = self.line.saturating_add(1);
                (self.counted, self.characters) = (self.at, 0);
                Word::Newline
            }
            None => {
                self.at = self.text.len();
                Word::End
            }
        }
    }

    fn character(&mut self) -> char {
        let rest = &self.text[self.at..];
        let whole = (1..=rest.len().min(4)).find_map(|n| std::str::from_utf8(&rest[..n]).ok());
        let c = whole.and_then(|text| text.chars().next()).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.at += whole.map_or(1, str::len);
        c
    }

    fn string(&mut self, quote: u8, place: &Place) -> Result<Word<'a>, Error> {
        let inside = self.at + 1;
        let mut at = inside;
        loop {
            match self.text.get(at) {
                Some(&b) if b == quote => break,
                None | Some(b'\n') => return Err(self.unclosed(quote, place)),
                // What a backslash stands before is never the end, but no line goes on behind one.
                Some(b'\\') if self.text.get(at + 1) != Some(&b'\n') => at += 2,
                Some(_) => at += 1,
            }
        }
        let raw = std::str::from_utf8(&self.text[inside..at])
            .map_err(|_| Error::new(place, "this string is not valid UTF-8").hint("save the file as UTF-8"))?;
        self.at = at + 1;
        unescape(raw).map(Word::Text).map_err(|error| Error { place: place.clone(), ..error })
    }

    fn unclosed(&self, quote: u8, place: &Place) -> Error {
        let line = self.text[self.at..].split(|b| *b == b'\n').next().unwrap_or_default();
        let quote = char::from(quote);
        let what = format!("the string that begins here is not closed: expected {quote} in this line");
        let error = Error::new(place, what);
        match line.ends_with(b"\\") {
            true => error.hint("a string cannot go on in the next line: close it, and go on with KEY += \" …\""),
            false => error,
        }
    }
}

fn unescape(raw: &str) -> Result<String, Error> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw.chars();
    while let Some(c) = rest.next() {
        let kept = match c {
            '\0' => return Err(Error::new(&Place::program(), "a string cannot hold a NUL")),
            '\\' => match rest.next() {
                Some(same @ ('"' | '\'' | '\\')) => same,
                Some('a') => '\u{7}',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                other => return Err(bad_escape(other)),
            },
            other => other,
        };
        text.push(kept);
    }
    Ok(text)
}

fn bad_escape(escaped: Option<char>) -> Error {
    let name = escaped.map_or_else(String::new, |c| c.escape_debug().to_string());
    let what = format!("\\{name} is no escape: expected one of \\\" \\' \\\\ \\a \\b \\f \\n \\r \\t \\v");
    let hint = match escaped {
        // xl refuses every \xHH, and drops \ooo without a word.
        Some('x' | '0'..='7') => "characters have no numbers in xl.cfg: write the character itself",
        _ => "write \\\\ for a backslash",
    };
    Error::new(&Place::program(), what).hint(hint)
}

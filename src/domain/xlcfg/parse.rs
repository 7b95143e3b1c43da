//! The grammar of xl.cfg: `KEY = VALUE` and `KEY += VALUE`, ended by a newline or `;`. What a newcomer would get wrong: newlines count, but
//! not within a list. Source: Xen, tools/libs/util/libxlu_cfg_y.y.

use std::sync::Arc;

use super::config::Config;
use super::error::{Error, Source};
use super::hint::{self, Expected};
use super::lex::{Lexer, Token, Word};
use super::value::{Kind, Value};

/// How deep lists may nest. xl's own parser ends somewhere, too; no key needs more than two.
const DEPTH: usize = 32;

/// Reads a text into a configuration, after what is in it. Errors: the first thing that is wrong; `config` then holds what stood before it.
pub(super) fn read(config: &mut Config, source: Arc<Source>, text: &[u8]) -> Result<(), Error> {
    let mut parser = Parser { lexer: Lexer::new(source, text) };
    loop {
        let token = parser.lexer.next()?;
        match token.what {
            Word::End => return Ok(()),
            Word::Newline | Word::Semicolon => {}
            Word::Key(key) => parser.assignment(config, key, &token)?,
            _ => return Err(parser.unexpected(&token, &Expected::Statement)),
        }
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
}

impl<'a> Parser<'a> {
    fn assignment(&mut self, config: &mut Config, key: &'a str, begin: &Token<'a>) -> Result<(), Error> {
        let operator = self.lexer.next()?;
        let adds = match operator.what {
            Word::Assign => false,
            Word::Add => true,
            _ => return Err(self.unexpected(&operator, &Expected::Operator { key, begin: begin.start })),
        };
        let token = self.lexer.next()?;
        let value = self.value(token, &Expected::Value { key }, key, 0)?;
        let token = self.lexer.next()?;
        match token.what {
            Word::End | Word::Newline | Word::Semicolon => config.store(key, adds, value, &begin.place),
            _ => Err(self.unexpected(&token, &Expected::StatementEnd { key, value: &value })),
        }
    }

    fn value(&mut self, token: Token<'a>, expected: &Expected<'_>, key: &str, depth: usize) -> Result<Value, Error> {
        let kind = match token.what {
            Word::Text(text) => Kind::Text(text),
            Word::Number(number) => Kind::Number(number.to_owned()),
            Word::Open if depth == DEPTH => {
                return Err(Error::new(&token.place, format!("{key}: lists nest more than {DEPTH} deep")));
            }
            Word::Open => Kind::List(self.list(key, token.place.line, depth)?),
            _ => return Err(self.unexpected(&token, expected)),
        };
        Ok(Value { kind, place: token.place })
    }

    fn list(&mut self, key: &str, line: u32, depth: usize) -> Result<Vec<Value>, Error> {
        let mut values = Vec::new();
        loop {
            let token = self.past_newlines()?;
            if token.what == Word::Close {
                return Ok(values);
            }
            values.push(self.value(token, &Expected::Item { key, line }, key, depth + 1)?);
            let token = self.past_newlines()?;
            match token.what {
                Word::Close => return Ok(values),
                Word::Comma => {}
                _ => return Err(self.unexpected(&token, &Expected::Comma { key, line })),
            }
        }
    }

    fn past_newlines(&mut self) -> Result<Token<'a>, Error> {
        loop {
            let token = self.lexer.next()?;
            if token.what != Word::Newline {
                return Ok(token);
            }
        }
    }

    fn unexpected(&self, token: &Token<'_>, expected: &Expected<'_>) -> Error {
        hint::unexpected(self.lexer.text, token, expected)
    }
}

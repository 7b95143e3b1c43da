//! What files say, and what is said of files that say nothing sensible. What a newcomer would get wrong: the messages themselves are compared,
//! whole, since they are what a user has.

mod device;
mod files;
mod grammar;
mod guest;
mod keys;
mod messages;

use super::{Config, Error};

/// A configuration that must be read.
fn read(text: &str) -> Config {
    Config::parse("web.cfg", text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The message about one that must not.
fn refused(text: &[u8]) -> String {
    one_line(&Config::parse("web.cfg", text).expect_err(&String::from_utf8_lossy(text)))
}

fn one_line(error: &Error) -> String {
    let said = error.to_string();
    assert!(!said.chars().any(char::is_control), "{said:?}");
    said
}

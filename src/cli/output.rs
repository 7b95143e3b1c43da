//! stdout: data, and nothing else. What a newcomer would get wrong: `println!` panics when the reader has gone (`pronto list |
//! head -1`); everything goes through here, and a closed pipe ends the program quietly as SIGPIPE would have.

use std::io::{self, Write};

use serde::Serialize;

use super::failure::Failure;
use super::text;

/// Writes bytes to stdout, whole.
pub fn bytes(data: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(data).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Writes text that was made here (help, completions): line ends and tabs stay.
pub fn own(data: &str) -> Result<(), Failure> {
    bytes(data.as_bytes())
}

/// Writes lines that may hold text from outside, each with its line end. A tab stays: xl's header has two.
pub fn lines<S: AsRef<str>>(all: impl IntoIterator<Item = S>) -> Result<(), Failure> {
    let mut out = String::new();
    for line in all {
        let safe: Vec<_> = line.as_ref().split('\t').map(text::line).collect();
        out.push_str(&safe.join("\t"));
        out.push('\n');
    }
    own(&out)
}

/// Writes JSON as xl does: four blanks of indentation.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    own(&json_text(value)?)
}

/// The text of [`json`].
pub fn json_text(value: &impl Serialize) -> Result<String, Failure> {
    let mut data = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut data, formatter);
    value.serialize(&mut serializer).map_err(|e| Failure::Output(io::Error::other(e)))?;
    let mut out = text::json(&String::from_utf8_lossy(&data)).into_owned();
    out.push('\n');
    Ok(out)
}

/// How a list is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

// No doc comment here: clap would take it for the help of the verb.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
#[allow(missing_docs, reason = "its doc comment would be help")]
pub struct FormatOption {
    /// Columns or JSON
    #[arg(
        long,
        value_name = "table|json",
        hide_possible_values = true,
        hide_default_value = true,
        default_value = "table"
    )]
    pub format: Format,
}

impl FormatOption {
    /// Whether programs are to read it.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }
}

/// Rows below a header, columns as wide as their widest text, two blanks between, nothing after the last.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    own(&table_text(header, rows))
}

/// The text of [`table`].
pub fn table_text(header: &[&str], rows: &[Vec<String>]) -> String {
    let safe: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| text::line(cell).into_owned()).collect()).collect();
    let width = |column: usize| {
        let cells = safe.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let aligned = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, &w)| format!("{cell:w$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head = std::iter::once(aligned(header.to_vec()));
    let all = head.chain(safe.iter().map(|row| aligned(row.iter().map(String::as_str).collect())));
    all.map(|line| line + "\n").collect()
}

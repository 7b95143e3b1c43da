//! One entry: the line that registers it (binfmt.d(5)) and the text the kernel shows for it. Pure. What a newcomer would get
//! wrong: the line's own first character is the delimiter, and flags come back from the kernel changed (C brings O with it).
//! Source: Documentation/admin-guide/binfmt-misc.rst, fs/binfmt_misc.c.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The kernel refuses longer lines (`MAX_REGISTER_LENGTH`).
const MOST_BYTES: usize = 1919;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, a file name in the registry.
    pub name: String,
    /// What it matches.
    pub kind: Kind,
    /// The program it hands files to.
    pub interpreter: PathBuf,
    /// How it does so.
    pub flags: Flags,
}

/// What an entry matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Bytes in the file.
    Magic {
        /// Where in the file.
        offset: usize,
        /// The bytes.
        magic: Vec<u8>,
        /// Which of their bits count, as long as `magic`.
        mask: Vec<u8>,
    },
    /// The end of the file's name, without the dot.
    Extension(String),
}

/// Flags of an entry; others than these do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Flags {
    /// P: argv\[0\] is kept.
    pub preserve_argv0: bool,
    /// O: the file is opened for the interpreter, so that it need not be readable.
    pub open_binary: bool,
    /// C: privileges follow the file (setuid works), which makes the interpreter itself privileged; implies O.
    pub credentials: bool,
    /// F: the interpreter is opened at registration, so that it works in any root and stays the same file.
    pub fix_binary: bool,
}

impl Flags {
    /// What ours have: POCF, or POF without credentials.
    pub fn ours(credentials: bool) -> Flags {
        Flags { preserve_argv0: true, open_binary: true, credentials, fix_binary: true }
    }

    fn parse(text: &str) -> Option<Flags> {
        let mut flags = Flags::default();
        for c in text.chars() {
            match c {
                'P' => flags.preserve_argv0 = true,
                'O' => flags.open_binary = true,
                'C' => (flags.credentials, flags.open_binary) = (true, true),
                'F' => flags.fix_binary = true,
                _ => return None,
            }
        }
        Some(flags)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all =
            [(self.preserve_argv0, 'P'), (self.open_binary, 'O'), (self.credentials, 'C'), (self.fix_binary, 'F')];
        all.iter().filter(|(set, _)| *set).try_for_each(|(_, c)| f.write_char(*c))
    }
}

/// A line or text that is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is no binfmt entry: {why}", .line.escape_debug())]
pub struct LineError {
    /// What was read.
    pub line: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Entry {
    /// The same with another interpreter.
    #[must_use]
    pub fn with_interpreter(mut self, interpreter: &Path) -> Entry {
        interpreter.clone_into(&mut self.interpreter);
        self
    }

    /// Reads a line of binfmt.d: `:name:M:offset:magic:mask:interpreter:flags`. Errors: not of that form.
    pub fn parse(line: &str) -> Result<Entry, LineError> {
        parse_line(line).map_err(|why| LineError { line: line.to_owned(), why })
    }

    /// Reads a file of binfmt.d: one entry a line; comments (`#`, `;`) and empty lines are left out.
    pub fn parse_file(text: &str) -> Result<Vec<Entry>, LineError> {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';']));
        lines.map(Entry::parse).collect()
    }

    /// Reads what the kernel shows for the entry `name`, and whether it is enabled.
    pub fn parse_kernel(name: &str, text: &str) -> Result<(Entry, bool), LineError> {
        parse_kernel(name, text).map_err(|why| LineError { line: text.to_owned(), why })
    }

    /// The line that registers it. Errors: no delimiter is left (the interpreter's path has all of them), or it is too long.
    pub fn line(&self) -> Result<Vec<u8>, LineError> {
        let mut fields = vec![self.name.clone().into_bytes()];
        match &self.kind {
            Kind::Magic { offset, magic, mask } => {
                let offset = if *offset == 0 { String::new() } else { offset.to_string() };
                fields.extend([b"M".to_vec(), offset.into_bytes(), escaped(magic), escaped(mask)]);
            }
            Kind::Extension(extension) => {
                fields.extend([b"E".to_vec(), Vec::new(), extension.clone().into_bytes(), Vec::new()]);
            }
        }
        fields.push(self.interpreter.as_os_str().as_bytes().to_vec());
        let fail = |why| LineError { line: self.name.clone(), why };
        // systemd-binfmt takes lines that begin with # or ; for comments.
        let delimiter = b":|,@!%".iter().find(|d| fields.iter().all(|f| !f.contains(d)));
        let delimiter = *delimiter.ok_or_else(|| fail("its interpreter's path has every delimiter in it"))?;
        let mut line = Vec::new();
        for field in fields {
            line.push(delimiter);
            line.extend(field);
        }
        line.push(delimiter);
        line.extend(self.flags.to_string().into_bytes());
        if line.len() > MOST_BYTES || line.contains(&b'\n') {
            return Err(fail("it is too long for the kernel, or has more than one line"));
        }
        Ok(line)
    }

    /// Whether a file that begins with `bytes` is handed to it. What goes by extension matches no program of ours.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let Kind::Magic { offset, magic, mask } = &self.kind else { return false };
        let Some(there) = bytes.get(*offset..).filter(|there| there.len() >= magic.len()) else { return false };
        there.iter().zip(magic).zip(mask).all(|((byte, want), mask)| (byte ^ want) & mask == 0)
    }

    /// Whether files with AppImage's mark in `e_ident` (bytes 8 to 10) match as well.
    pub fn knows_appimages(&self) -> bool {
        match &self.kind {
            Kind::Magic { offset: 0, magic, mask } if magic.len() > 10 => mask[8..=10].iter().all(|m| *m == 0),
            _ => false,
        }
    }
}

fn parse_line(line: &str) -> Result<Entry, &'static str> {
    let delimiter =
        line.chars().next().filter(|d| d.is_ascii() && !d.is_alphanumeric()).ok_or("it has no delimiter")?;
    let fields: Vec<&str> = line[1..].split(delimiter).collect();
    let [name, kind, offset, magic, mask, interpreter, flags] = fields[..] else {
        return Err("it has not seven fields");
    };
    check_name(name)?;
    let kind = match kind {
        "E" => Kind::Extension(magic.to_owned()),
        "M" => {
            let offset = if offset.is_empty() { 0 } else { offset.parse().map_err(|_| "its offset is no number")? };
            let magic = unescaped(magic)?;
            let mask = if mask.is_empty() { vec![0xff; magic.len()] } else { unescaped(mask)? };
            magic_kind(offset, &magic, mask)?
        }
        _ => return Err("its type is neither M nor E"),
    };
    if interpreter.is_empty() {
        return Err("it names no interpreter");
    }
    let flags = Flags::parse(flags).ok_or("it has a flag that does not exist")?;
    Ok(Entry { name: name.to_owned(), kind, interpreter: PathBuf::from(interpreter), flags })
}

fn magic_kind(offset: usize, magic: &[u8], mask: Vec<u8>) -> Result<Kind, &'static str> {
    if magic.is_empty() || magic.len() != mask.len() {
        return Err("its magic and mask differ in length");
    }
    // Masked-out bits of the magic mean nothing: dropped, so that equal entries compare as equal.
    let magic = magic.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
    Ok(Kind::Magic { offset, magic, mask })
}

fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" | "." | ".." | "register" | "status" => Err("its name cannot be used"),
        _ if name.contains('/') => Err("its name has a slash"),
        _ => Ok(()),
    }
}

fn parse_kernel(name: &str, text: &str) -> Result<(Entry, bool), &'static str> {
    let mut lines = text.lines();
    let enabled = match lines.next() {
        Some("enabled") => true,
        Some("disabled") => false,
        _ => return Err("it is neither enabled nor disabled"),
    };
    let (mut interpreter, mut flags, mut offset) = (None, Flags::default(), 0);
    let (mut magic, mut mask, mut extension) = (Vec::new(), None, None);
    for line in lines {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "interpreter" => interpreter = Some(PathBuf::from(OsStr::new(value))),
            "flags:" => flags = Flags::parse(value.trim()).ok_or("it has a flag that does not exist")?,
            "offset" => offset = value.parse().map_err(|_| "its offset is no number")?,
            "magic" => magic = hex(value)?,
            "mask" => mask = Some(hex(value)?),
            "extension" => extension = Some(value.trim_start_matches('.').to_owned()),
            _ => return Err("it has a line of an unknown kind"),
        }
    }
    let kind = match extension {
        Some(extension) => Kind::Extension(extension),
        None => {
            let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
            magic_kind(offset, &magic, mask)?
        }
    };
    let interpreter = interpreter.ok_or("it names no interpreter")?;
    Ok((Entry { name: name.to_owned(), kind, interpreter, flags }, enabled))
}

/// `\xHH` for every byte: no byte can be a delimiter or end the line then.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = String::new();
    for byte in bytes {
        let _ = write!(out, "\\x{byte:02x}");
    }
    out.into_bytes()
}

/// Undoes `\xHH`; every other character is a byte by itself.
fn unescaped(text: &str) -> Result<Vec<u8>, &'static str> {
    const BROKEN: &str = "it has a broken \\x";
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, next)) = rest.split_first() {
        rest = next;
        if let (b'\\', Some(digits)) = (byte, next.strip_prefix(b"x")) {
            let pair = digits.get(..2).and_then(|d| std::str::from_utf8(d).ok()).ok_or(BROKEN)?;
            out.push(u8::from_str_radix(pair, 16).map_err(|_| BROKEN)?);
            rest = &digits[2..];
        } else {
            out.push(byte);
        }
    }
    Ok(out)
}

fn hex(text: &str) -> Result<Vec<u8>, &'static str> {
    const BROKEN: &str = "its magic or mask is no hexadecimal number";
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|p| p.len() == 2));
    pairs.map(|pair| u8::from_str_radix(pair.ok_or(BROKEN)?, 16).map_err(|_| BROKEN)).collect()
}

/// The interpreter's path for people.
pub(super) fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = r":qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64:OPF";
    const KERNEL: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: POF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn a_line_and_the_kernels_text_say_the_same() {
        let line = Entry::parse(DEBIAN).unwrap();
        let (kernel, enabled) = Entry::parse_kernel("qemu-aarch64", KERNEL).unwrap();
        assert!(enabled);
        assert_eq!(line, kernel);
        assert_eq!(line.flags.to_string(), "POF");
        assert_eq!(Entry::parse(std::str::from_utf8(&line.line().unwrap()).unwrap()).unwrap(), line);
        assert!(!line.knows_appimages());
    }

    #[test]
    fn what_matches() {
        let entry = Entry::parse(DEBIAN).unwrap();
        let mut file = b"\x7fELF\x02\x01\x01\x03\0\0\0\0\0\0\0\0\x03\0\xb7\0\x01".to_vec();
        assert!(entry.matches(&file));
        assert!(!entry.matches(&file[..19]));
        file[8..11].copy_from_slice(b"AI\x02");
        assert!(!entry.matches(&file), "an AppImage");
        file[8..11].copy_from_slice(b"\0\0\0");
        file[18] = 62;
        assert!(!entry.matches(&file));
        let (extension, enabled) =
            Entry::parse_kernel("e", "disabled\ninterpreter /bin/x\nflags: \nextension .foo\n").unwrap();
        assert_eq!(extension.kind, Kind::Extension("foo".to_owned()));
        assert!(!enabled && !extension.matches(b"foo"));
    }

    #[test]
    fn other_lines() {
        // python3.11 of Debian: no mask, an offset, no flags.
        let python = Entry::parse(r":python3.11:M:0:\xa7\x0d\x0d\x0a::/usr/bin/python3.11:").unwrap();
        let (kind, _) = (python.kind.clone(), ());
        assert_eq!(kind, Kind::Magic { offset: 0, magic: b"\xa7\r\r\n".to_vec(), mask: vec![0xff; 4] });
        let file = format!("# comment\n\n; another\n{DEBIAN}\n");
        assert_eq!(Entry::parse_file(&file).unwrap().len(), 1);
        for bad in [
            "",
            "x",
            ":a:M::\\x7f:::",
            ":a/b:M::x::/i:",
            ":a:M::\\xz1::/i:",
            ":a:M::ab:\\xff:/i:",
            ":a:X::a::/i:",
            ":a:M::a::/i:Q",
            "::M::a::/i:",
            ":status:M::a::/i:",
            ":a:M:z:a::/i:",
            ":a:M::a::/i",
        ] {
            assert!(Entry::parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "enabled\n",
            "maybe\n",
            "enabled\ninterpreter /i\nflags: Z\n",
            "enabled\ninterpreter /i\noffset 0\nmagic 7\n",
            "enabled\nsurprise\n",
        ] {
            assert!(Entry::parse_kernel("n", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_delimiter_avoids_the_path() {
        let mut entry = Entry::parse(DEBIAN).unwrap();
        entry.interpreter = PathBuf::from("/opt/a:b/qemu");
        let line = String::from_utf8(entry.line().unwrap()).unwrap();
        assert!(line.starts_with("|qemu-aarch64|M||"), "{line}");
        assert_eq!(Entry::parse(&line).unwrap(), entry);
        entry.interpreter = PathBuf::from("/:|,@!%");
        assert!(entry.line().is_err());
        entry.interpreter = PathBuf::from("/a\nb");
        assert!(entry.line().is_err());
        entry.interpreter = PathBuf::from("x".repeat(2000));
        assert!(entry.line().is_err());
    }
}

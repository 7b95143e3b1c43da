//! Where an export goes, by what its name says. What a newcomer would get wrong: a file gets its name when it is whole; until then it has
//! none, so that an export that fails, is told to stop or is killed leaves nothing ([`crate::sys::unfinished`]).

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::image::pack::Codec;
use crate::image::reference;
use crate::ops::{Error, Kind, Result, cannot_write};
use crate::sys::unfinished::{self, Unfinished};

/// A form to export in, where the name alone does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A tarball of the file tree.
    Tar,
    /// An OCI image layout.
    Oci,
    /// A tar of an OCI image layout.
    OciArchive,
}

/// Where an export goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A tarball to stdout.
    Stdout,
    /// A tarball of the file tree.
    Tar(PathBuf, Codec),
    /// A layout and a tag in it.
    Oci(PathBuf, Option<String>),
    /// An archive of a layout, and the image's tag.
    OciArchive(PathBuf, Option<String>),
}

impl Target {
    /// Reads the word, or its absence. Errors: a terminal would get it all; a name that says nothing of its form; a form that stdout cannot have.
    pub fn parse(word: Option<&OsStr>, format: Option<Format>, terminal: bool) -> Result<Target> {
        let usage = |what: String, hint: &str| Err(Error::new(Kind::Usage, what).hint(hint));
        let Some(word) = word.filter(|word| *word != "-") else {
            if format.is_some_and(|format| format != Format::Tar) {
                return usage("only a tarball can be written to stdout".into(), "name a file, or oci:DIR");
            }
            if terminal {
                return usage("a terminal is no place for a tarball".into(), "name a file, or redirect stdout");
            }
            return Ok(Target::Stdout);
        };
        for (prefix, form) in [("oci:", Format::Oci), ("oci-archive:", Format::OciArchive)] {
            if let Some(rest) = word.as_bytes().strip_prefix(prefix.as_bytes()) {
                if format.is_some_and(|format| format != form) {
                    return usage(format!("'{}' contradicts --format", word.to_string_lossy()), "say it once");
                }
                let rest = OsStr::from_bytes(rest);
                if rest.is_empty() {
                    return usage(format!("a file or directory must follow '{prefix}'"), "for example oci:DIR:TAG");
                }
                return Ok(Target::image(rest, form));
            }
        }
        match format {
            Some(form @ (Format::Oci | Format::OciArchive)) => Ok(Target::image(word, form)),
            _ => match codec(word) {
                Some(codec) => Ok(Target::Tar(word.into(), codec)),
                None if format == Some(Format::Tar) => Ok(Target::Tar(word.into(), Codec::Plain)),
                None => usage(
                    format!("the name '{}' does not say what to write", word.to_string_lossy()),
                    "end it in .tar, .tar.gz, .tar.zst or .tar.xz, begin it with oci: or oci-archive:, or say --format",
                ),
            },
        }
    }

    /// Path and tag, split as they are when the image is read again.
    fn image(word: &OsStr, form: Format) -> Target {
        let (path, tag) = match word.to_str() {
            Some(text) if !Path::new(text).exists() => {
                let (path, tag) = reference::layout_parts(text).pop().unwrap_or_default();
                (path, tag)
            }
            _ => (PathBuf::from(word), None),
        };
        if form == Format::Oci { Target::Oci(path, tag) } else { Target::OciArchive(path, tag) }
    }
}

fn codec(name: &OsStr) -> Option<Codec> {
    let ends = [
        (".tar", Codec::Plain),
        (".tar.gz", Codec::Gzip),
        (".tgz", Codec::Gzip),
        (".tar.zst", Codec::Zstd(3)),
        (".tzst", Codec::Zstd(3)),
        (".tar.xz", Codec::Xz),
        (".txz", Codec::Xz),
    ];
    ends.into_iter().find(|(end, _)| name.as_bytes().ends_with(end.as_bytes())).map(|(_, codec)| codec)
}

/// A file that has no name yet.
#[derive(Debug)]
pub struct Beside {
    unfinished: Unfinished,
    path: PathBuf,
    replace: bool,
}

impl Beside {
    /// Makes a file for `path`, and takes away what an export of that name left that was killed. Errors: something is there and may not be
    /// replaced; as open(2).
    pub fn create(path: &Path, replace: bool) -> Result<(Beside, File)> {
        let cannot = |e: io::Error| cannot(path, e);
        match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(cannot(e)),
            Ok(meta) if meta.is_file() && replace => {}
            Ok(meta) if meta.is_file() => return Err(exists(path)),
            Ok(_) => return Err(Error::general(format!("{} is there, and is no file", path.display()))),
        }
        unfinished::sweep(path);
        let (unfinished, file) = Unfinished::file(path, 0o666).map_err(cannot)?;
        Ok((Beside { unfinished, path: path.to_owned(), replace }, file))
    }

    /// Gives it its name, once what is in it is on the disk. Errors: somebody else was faster; as fsync(2), linkat(2), rename(2).
    pub fn publish(self, file: &File) -> Result<()> {
        let Beside { unfinished, path, replace } = self;
        let named = file.sync_all().and_then(|()| unfinished.publish(file, &path, replace));
        named.map_err(|e| if e.kind() == io::ErrorKind::AlreadyExists { exists(&path) } else { cannot(&path, e) })
    }
}

fn exists(path: &Path) -> Error {
    Error::general(format!("{} exists", path.display())).hint("replace it with --force")
}

/// A failure to write, and what helps where the disk is full.
pub fn cannot(path: &Path, error: io::Error) -> Error {
    cannot_write(&path.display().to_string(), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs;

    fn parse(word: &str, format: Option<Format>) -> Result<Target> {
        Target::parse(Some(OsStr::new(word)), format, false)
    }

    #[test]
    fn the_name_says_the_form() {
        for (word, codec) in [
            ("a.tar", Codec::Plain),
            ("/x/a.tar.gz", Codec::Gzip),
            ("a.tgz", Codec::Gzip),
            ("a.tar.zst", Codec::Zstd(3)),
            ("a.tar.xz", Codec::Xz),
        ] {
            assert_eq!(parse(word, None).unwrap(), Target::Tar(word.into(), codec));
            assert_eq!(parse(word, Some(Format::Tar)).unwrap(), Target::Tar(word.into(), codec));
        }
        assert_eq!(Target::parse(None, None, false).unwrap(), Target::Stdout);
        assert!(Target::parse(None, None, true).is_err());
        let tag = |t: &str| Some(t.to_owned());
        assert_eq!(parse("oci:/no/dir", None).unwrap(), Target::Oci("/no/dir".into(), None));
        assert_eq!(parse("oci:/no/dir:v1", None).unwrap(), Target::Oci("/no/dir".into(), tag("v1")));
        assert_eq!(parse("oci-archive:f.tar:x", None).unwrap(), Target::OciArchive("f.tar".into(), tag("x")));
        assert_eq!(parse("f.tar:x", Some(Format::OciArchive)).unwrap(), Target::OciArchive("f.tar".into(), tag("x")));
        assert_eq!(parse("anything", Some(Format::Tar)).unwrap(), Target::Tar("anything".into(), Codec::Plain));
        for (word, format, why) in [
            ("a.zip", None, "does not say"),
            ("disk", None, "does not say"),
            ("oci:", None, "must follow"),
            ("oci:x", Some(Format::Tar), "contradicts"),
            ("-", Some(Format::Oci), "only a tarball"),
        ] {
            assert!(parse(word, format).unwrap_err().to_string().contains(why), "{word}");
        }
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let left = || std::fs::read_dir(dir.path()).unwrap().count();
        let (half, file) = Beside::create(&path, false).unwrap();
        assert!(!path.exists());
        drop((half, file));
        assert_eq!(left(), 0);
        let (half, file) = Beside::create(&path, false).unwrap();
        half.publish(&file).unwrap();
        assert!(path.exists() && left() == 1);
        assert_eq!(Beside::create(&path, false).unwrap_err().cure(), Some("replace it with --force"));
        let (faster, file) = Beside::create(&dir.path().join("b.tar"), false).unwrap();
        fs::write_volatile(&dir.path().join("b.tar"), b"", 0o600).unwrap();
        assert_eq!(faster.publish(&file).unwrap_err().cure(), Some("replace it with --force"));
        std::fs::remove_file(dir.path().join("b.tar")).unwrap();
        fs::write_volatile(&dir.path().join(".a.tar.1.0.tmp"), b"left", 0o600).unwrap();
        let (half, file) = Beside::create(&path, true).unwrap();
        half.publish(&file).unwrap();
        assert_eq!(left(), 1);
        std::fs::create_dir(dir.path().join("d")).unwrap();
        assert!(Beside::create(&dir.path().join("d"), true).is_err());
        assert!(Beside::create(&dir.path().join("no/a.tar"), true).is_err());
        assert_eq!(left(), 2);
        let full = cannot(&path, io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(full.cure().unwrap().contains("space"));
    }
}

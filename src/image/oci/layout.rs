//! An OCI image layout on the disk, a directory or a tar of one (image-spec, image-layout.md). What a newcomer would get wrong: a tag is an
//! annotation in index.json, not a file name; and what lies in a directory is checked like what comes from a network.

use std::io::Read;

use super::Source;
use super::files::{Archive, Files};
use super::manifest::{Descriptor, Document};
use crate::image::{Digest, Error, Result, reference};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One tag of a layout.
#[derive(Debug)]
pub struct Layout {
    files: Files,
    tag: Option<String>,
}

impl Layout {
    /// Finds the layout that `DIR[:tag]` means. Errors: there is none.
    pub fn open(text: &str) -> Result<Layout> {
        let ways = reference::layout_parts(text);
        for (dir, tag) in &ways {
            if dir.join("index.json").is_file() {
                return Ok(Layout { files: Files::Directory(reference::canonical(dir)?), tag: tag.clone() });
            }
        }
        for (dir, _) in &ways {
            if dir.is_dir() {
                let why = "it has no index.json, so it is no OCI image layout".to_owned();
                return Err(Error::Malformed { what: dir.display().to_string(), why });
            }
        }
        let (dir, _) = ways.last().cloned().unwrap_or_default();
        reference::canonical(&dir).map(|dir| Layout { files: Files::Directory(dir), tag: None })
    }

    /// Finds the layout in a tar that `FILE[:tag]` means. Errors: as [`Archive::open`], or the archive holds none.
    pub fn open_archive(text: &str) -> Result<Layout> {
        let ways = reference::layout_parts(text);
        let (path, tag) = ways.iter().find(|(path, _)| path.is_file()).or(ways.last()).cloned().unwrap_or_default();
        let archive = Archive::open(&path)?;
        if archive.find("index.json").is_none() {
            let why = "it has no index.json, so it is no archive of an OCI image layout".to_owned();
            return Err(Error::Malformed { what: path.display().to_string(), why });
        }
        Ok(Layout { files: Files::Archive(archive), tag })
    }

    /// The reference under which it is stored: `oci:/absolute/path[:tag]`, or `oci-archive:` and so on.
    pub fn reference(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let kind = if matches!(self.files, Files::Archive(_)) { "oci-archive" } else { "oci" };
        format!("{kind}:{}{tag}", self.files.path().display())
    }

    fn read(&self, name: &str, what: &str) -> Result<Vec<u8>> {
        self.files.document(name, what, || self.absent(what))
    }

    fn absent(&self, what: &str) -> Error {
        Error::NotFound { what: what.to_owned(), place: self.place(), why: String::new() }
    }

    fn name(digest: &Digest) -> String {
        format!("blobs/sha256/{}", digest.hex())
    }

    fn tags(entries: &[Descriptor]) -> String {
        let names = entries.iter().filter_map(|e| e.annotations.as_ref()?.get(REF_NAME));
        let names: Vec<String> = names.map(|n| n.escape_debug().to_string()).collect();
        if names.is_empty() { "it has no tags".into() } else { format!("it has the tags {}", names.join(", ")) }
    }
}

impl Source for Layout {
    fn place(&self) -> String {
        format!("layout {}", self.files.path().display().to_string().escape_debug())
    }

    fn top(&self) -> Result<Vec<u8>> {
        let what = format!("index of {}", self.place());
        let text = self.read("index.json", &what)?;
        let malformed = |why| Error::Malformed { what: what.clone(), why };
        let Document::Index(entries) = Document::parse(&text).map_err(malformed)? else {
            return Err(malformed("it is no index".into()));
        };
        let Some(tag) = &self.tag else {
            // One image, or one image for several platforms: the index itself says which.
            let tagged =
                entries.iter().filter(|e| e.annotations.as_ref().is_some_and(|a| a.contains_key(REF_NAME))).count();
            return match entries.as_slice() {
                [one] => self.manifest(&one.digest().map_err(malformed)?),
                _ if tagged <= 1 => Ok(text),
                _ => Err(malformed(format!("a tag is needed, as in oci:DIR:TAG; {}", Layout::tags(&entries)))),
            };
        };
        let named: Vec<&Descriptor> =
            entries.iter().filter(|e| e.annotations.as_ref().is_some_and(|a| a.get(REF_NAME) == Some(tag))).collect();
        match named.as_slice() {
            [] => Err(Error::NotFound {
                what: format!("tag '{}'", tag.escape_debug()),
                place: self.place(),
                why: Layout::tags(&entries),
            }),
            [one, ..] => self.manifest(&one.digest().map_err(malformed)?),
        }
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.read(&Layout::name(digest), &format!("manifest {}", digest.short()))
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        let what = format!("blob {}", blob.digest.escape_debug());
        let digest = blob.digest().map_err(|why| Error::Malformed { what: what.clone(), why })?;
        self.files.open(&Layout::name(&digest)).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => self.absent(&what),
            _ => Error::Io { what: format!("cannot open {what} of {}", self.place()), source: e },
        })
    }
}

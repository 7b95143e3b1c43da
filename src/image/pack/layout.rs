//! An OCI image layout being written, as a directory or as a tar of one (image-spec, image-layout.md, manifest.md, config.md). What a
//! newcomer would get wrong: a blob's name is the digest of what is in it, which is known when all of it is written; in a directory it gets
//! its name then, in an archive its header is filled in then. Whoever drops a layout that is not finished leaves nothing of it.

use std::fs::{DirBuilder, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Blob, Codec, Fault, Packed, tar};
use crate::domain::{ImageConfig, Platform};
use crate::image::{Digest, Error, Result};
use crate::sys::fs;
use crate::sys::unfinished::{self, Unfinished};

/// The annotation that is a tag (image-spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layout that is being written.
#[derive(Debug)]
pub struct Output {
    /// What it shall be called in messages.
    place: String,
    kind: Kind,
    /// The index's entries.
    manifests: Vec<Value>,
}

#[derive(Debug)]
enum Kind {
    /// A new directory beside its place.
    Fresh { half: PathBuf, place: PathBuf, unfinished: Unfinished },
    /// A layout that was there, and the blobs that were added to it.
    Grown { dir: PathBuf, added: Vec<PathBuf> },
    /// A tar archive, and where its end is.
    Archive { file: File, written: Vec<Digest> },
    /// Nothing more is to be removed.
    Done,
}

/// Everything that makes an image but its layers' blobs.
#[derive(Debug, Clone)]
pub struct Description {
    /// What it is for.
    pub platform: Option<Platform>,
    /// How it wants its command run.
    pub config: ImageConfig,
    /// The config that it came with: what is in it and does not speak of its layers stays.
    pub original: Option<Value>,
    /// Its tag.
    pub tag: Option<String>,
}

impl Output {
    /// A layout at `dir`: a new one, or a tag more in one that is there. Errors: something else is there; the tag is taken, unless `replace`.
    pub fn directory(dir: &Path, tag: Option<&str>, replace: bool) -> Result<Output> {
        let place = format!("layout {}", dir.display().to_string().escape_debug());
        let refused = |why: &str| Err(Error::Malformed { what: place.clone(), why: why.to_owned() });
        match std::fs::symlink_metadata(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                unfinished::sweep(dir);
                let made = Unfinished::directory(dir, 0o755).and_then(|(un, half)| blobs(&half).map(|()| (un, half)));
                let (unfinished, half) = made.map_err(Error::io(format!("cannot make {place}")))?;
                let kind = Kind::Fresh { half, place: dir.to_owned(), unfinished };
                return Ok(Output { place, kind, manifests: Vec::new() });
            }
            Err(e) => return Err(Error::io(format!("cannot open {place}"))(e)),
            Ok(_) if !dir.join("index.json").is_file() => {
                return refused("there is something of this name that is no OCI image layout");
            }
            Ok(_) => {}
        }
        let mut manifests = read_index(dir)?;
        let tagged = |m: &Value| m["annotations"][REF_NAME].as_str() == tag;
        if manifests.iter().any(tagged) && !replace {
            return refused("it has an image of this tag: name another one, or replace it with --force");
        }
        manifests.retain(|m| !tagged(m));
        blobs(dir).map_err(Error::io(format!("cannot write {place}")))?;
        Ok(Output { place, kind: Kind::Grown { dir: dir.to_owned(), added: Vec::new() }, manifests })
    }

    /// An archive of a layout into an empty file, which must be a regular one.
    pub fn archive(file: File, place: String) -> Output {
        Output { place, kind: Kind::Archive { file, written: Vec::new() }, manifests: Vec::new() }
    }

    /// Writes a layer: `pack` writes it to what it is given.
    pub fn layer(
        &mut self,
        pack: impl FnOnce(&mut File) -> std::result::Result<(Blob, Packed), Fault>,
        what: &str,
    ) -> Result<(Blob, Packed)> {
        let place = self.place.clone();
        let cannot = || Error::io(format!("cannot write {place}"));
        let dir = match &mut self.kind {
            Kind::Fresh { half, .. } => half.clone(),
            Kind::Grown { dir, .. } => dir.clone(),
            Kind::Archive { file, written } => {
                // Its header is written last: name and size are not known before.
                let start = file.stream_position().map_err(cannot())?;
                file.write_all(&[0; 512]).map_err(cannot())?;
                let (blob, packed) = pack(file).map_err(|fault| fault.of(what, &place))?;
                if written.contains(&blob.digest) {
                    // Two equal layers: one is enough.
                    file.set_len(start).and_then(|()| file.seek(SeekFrom::Start(start))).map_err(cannot())?;
                    return Ok((blob, packed));
                }
                seal(file, start, &blob).map_err(cannot())?;
                written.push(blob.digest.clone());
                return Ok((blob, packed));
            }
            Kind::Done => return Err(Error::io("it is finished")(io::ErrorKind::Other.into())),
        };
        let name = dir.join("blobs/sha256/layer");
        unfinished::sweep(&name);
        let (unfinished, mut file) = Unfinished::file(&name, 0o644).map_err(cannot())?;
        let done = pack(&mut file).map_err(|fault| fault.of(what, &place))?;
        file.sync_all().map_err(cannot())?;
        self.place_blob(&dir, &done.0.digest, |path| unfinished.publish(&file, path, false)).map_err(cannot())?;
        Ok(done)
    }

    /// Gives a blob of a directory layout its name, which it may have by now.
    fn place_blob(
        &mut self,
        dir: &Path,
        digest: &Digest,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = dir.join("blobs/sha256").join(digest.hex());
        if path.exists() {
            return Ok(());
        }
        match make(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => other?,
        }
        if let Kind::Grown { added, .. } = &mut self.kind {
            added.push(path);
        }
        Ok(())
    }

    fn document(&mut self, text: &[u8]) -> Result<Digest> {
        let place = self.place.clone();
        let cannot = || Error::io(format!("cannot write {place}"));
        let digest = Digest::of(text);
        if let Kind::Archive { file, written } = &mut self.kind {
            if !written.contains(&digest) {
                append(file, &format!("blobs/sha256/{}", digest.hex()), text).map_err(cannot())?;
                written.push(digest.clone());
            }
            return Ok(digest);
        }
        let dir = match &self.kind {
            Kind::Fresh { half, .. } => half.clone(),
            Kind::Grown { dir, .. } => dir.clone(),
            _ => return Ok(digest),
        };
        self.place_blob(&dir, &digest, |path| fs::write_volatile(path, text, 0o644)).map_err(cannot())?;
        Ok(digest)
    }

    /// Writes config and manifest of an image whose layers are written; returns the manifest's digest.
    pub fn image(&mut self, layers: &[Blob], about: &Description) -> Result<Digest> {
        let documents = Documents::of(layers, about);
        self.document(&documents.config)?;
        let digest = self.document(&documents.manifest)?;
        self.manifests.push(documents.entry);
        Ok(digest)
    }

    /// Writes what makes it a layout, and gives it its name (an archive's file is given back, whole and synced).
    pub fn finish(mut self) -> Result<Option<File>> {
        let cannot = Error::io(format!("cannot write {}", self.place));
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests }).to_string();
        let version = br#"{"imageLayoutVersion":"1.0.0"}"#;
        let done = match &mut self.kind {
            Kind::Archive { file, .. } => append(file, "oci-layout", version)
                .and_then(|()| append(file, "index.json", index.as_bytes()))
                .and_then(|()| file.write_all(&[0; 1024]))
                .and_then(|()| file.sync_all()),
            Kind::Fresh { half, place, unfinished } => fs::write_atomic(&half.join("oci-layout"), version, 0o644)
                .and_then(|()| fs::write_atomic(&half.join("index.json"), index.as_bytes(), 0o644))
                .and_then(|()| unfinished.rename(place, false)),
            Kind::Grown { dir, .. } => fs::write_atomic(&dir.join("index.json"), index.as_bytes(), 0o644),
            Kind::Done => Ok(()),
        };
        done.map_err(cannot)?;
        match std::mem::replace(&mut self.kind, Kind::Done) {
            Kind::Archive { file, .. } => Ok(Some(file)),
            _ => Ok(None),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        match &self.kind {
            Kind::Grown { added, .. } => added.iter().for_each(|path| drop(std::fs::remove_file(path))),
            Kind::Fresh { .. } | Kind::Archive { .. } | Kind::Done => {}
        }
    }
}

/// The documents of one image.
#[derive(Debug, Clone)]
pub struct Documents {
    /// Its config.
    pub config: Vec<u8>,
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// What stands of it in a layout's index.
    pub entry: Value,
}

impl Documents {
    /// Describes an image of these layers, the lowest first.
    pub fn of(layers: &[Blob], about: &Description) -> Documents {
        let config = config(layers, about).to_string().into_bytes();
        let layers: Vec<Value> = layers
            .iter()
            .map(|l| json!({ "mediaType": l.codec.media_type(), "digest": l.digest.to_string(), "size": l.size }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": Digest::of(&config).to_string(), "size": config.len() },
            "layers": layers,
        })
        .to_string()
        .into_bytes();
        let digest = Digest::of(&manifest).to_string();
        let mut entry = json!({ "mediaType": MANIFEST, "digest": digest, "size": manifest.len() });
        if let Some(platform) = &about.platform {
            entry["platform"] = serde_json::to_value(platform).unwrap_or_default();
        }
        if let Some(tag) = &about.tag {
            entry["annotations"] = json!({ REF_NAME: tag });
        }
        Documents { config, manifest, entry }
    }
}

fn blobs(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir.join("blobs/sha256"))
}

/// The entries of a layout's index. Errors: it cannot be read, or is none.
pub fn read_index(dir: &Path) -> Result<Vec<Value>> {
    let path = dir.join("index.json");
    let text = std::fs::read(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let malformed = |why: String| Error::Malformed { what: path.display().to_string(), why };
    let index: Value = serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
    index["manifests"].as_array().cloned().ok_or_else(|| malformed("it is no index".into()))
}

/// Fills in a blob's header, and what its last block lacks.
fn seal(file: &mut File, start: u64, blob: &Blob) -> io::Result<()> {
    let end = start + 512 + blob.size;
    file.seek(SeekFrom::Start(start))?;
    file.write_all(&tar::plain_header(&format!("blobs/sha256/{}", blob.digest.hex()), blob.size))?;
    let padded = end.next_multiple_of(512);
    file.set_len(padded)?;
    file.seek(SeekFrom::Start(padded)).map(drop)
}

fn append(file: &mut File, name: &str, data: &[u8]) -> io::Result<()> {
    file.write_all(&tar::plain_header(name, data.len() as u64))?;
    file.write_all(data)?;
    file.write_all(&[0; 512][..data.len().next_multiple_of(512) - data.len()])
}

/// An image's config: the one that it came with, or one that says what is known; its layers are those that were written.
fn config(layers: &[Blob], about: &Description) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|l| l.diff_id.to_string()).collect();
    let mut config = about.original.clone().filter(Value::is_object).unwrap_or_else(|| {
        let run = &about.config;
        let mut inner = serde_json::Map::new();
        let mut set = |key: &str, value: Value| {
            if !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()) {
                inner.insert(key.to_owned(), value);
            }
        };
        set("User", json!(run.user));
        set("Env", json!(run.env));
        set("Entrypoint", json!(run.entrypoint));
        set("Cmd", json!(run.cmd));
        set("WorkingDir", json!(run.working_dir));
        json!({ "config": inner })
    });
    if let Some(platform) = &about.platform {
        config["architecture"] = json!(platform.architecture);
        config["os"] = json!(platform.os);
        if let Some(variant) = &platform.variant {
            config["variant"] = json!(variant);
        }
    }
    config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
    // A history that tells of other layers would make readers refuse the image.
    let told = config["history"].as_array().map(|h| h.iter().filter(|e| e["empty_layer"] != json!(true)).count());
    if told != Some(layers.len()) {
        config["history"] = layers.iter().map(|_| json!({ "created_by": "pronto export" })).collect();
    }
    config
}

impl Codec {
    /// What fits readers of images best.
    pub const FOR_IMAGES: Codec = Codec::Gzip;
}

//! Writes OCI image layouts (image-spec, image-layout.md): an index of platforms, each with layers of any compression. What a
//! newcomer would get wrong: a layer has two digests, one of the compressed bytes (what a registry names it by) and one of the
//! tar inside (its diffID, in the image's config); both must be right, or pronto is right to refuse.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// One platform's image.
#[derive(Debug, Clone)]
pub struct Image {
    /// GOARCH.
    pub arch: &'static str,
    /// `v8`, `v7`…
    pub variant: Option<&'static str>,
    /// Tar archives, the lowest first.
    pub layers: Vec<(PathBuf, Codec)>,
    /// The config's `config` (Cmd, Env, User…).
    pub config: Value,
}

impl Image {
    /// An image of uncompressed tars whose command is `cmd`.
    pub fn new(arch: &'static str, layers: &[&Path], codec: Codec, cmd: &[&str]) -> Image {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Image {
            arch,
            variant: (arch == "arm64").then_some("v8"),
            layers: layers.iter().map(|l| (l.to_path_buf(), codec)).collect(),
            config: json!({ "Cmd": cmd, "Env": [path] }),
        }
    }
}

/// A layout being written.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
    tags: Vec<Value>,
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Layout {
    /// An empty layout at `dir`, which is made.
    pub fn new(dir: &Path) -> Layout {
        std::fs::create_dir_all(dir.join("blobs/sha256")).expect("the layout's directory");
        super::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
        Layout { dir: dir.to_owned(), tags: Vec::new() }
    }

    /// Adds `images` as an index under `tag`; returns the index's digest.
    pub fn index(&mut self, tag: &str, images: &[Image]) -> String {
        let manifests: Vec<Value> = images.iter().map(|image| self.manifest(image)).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests });
        self.tag(tag, "application/vnd.oci.image.index.v1+json", &index)
    }

    /// Adds one image under `tag`, without an index; returns the manifest's digest.
    pub fn single(&mut self, tag: &str, image: &Image) -> String {
        let mut descriptor = self.manifest(image);
        let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
        descriptor.as_object_mut().expect("an object").remove("platform");
        self.push_tag(tag, descriptor);
        digest
    }

    fn tag(&mut self, tag: &str, kind: &str, value: &Value) -> String {
        let (digest, size) = self.put(value.to_string().as_bytes());
        self.push_tag(tag, json!({ "mediaType": kind, "digest": digest, "size": size }));
        digest
    }

    fn push_tag(&mut self, tag: &str, mut descriptor: Value) {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        self.tags.push(descriptor);
        let index = json!({ "schemaVersion": 2, "manifests": self.tags });
        super::write(self.dir.join("index.json"), index.to_string());
    }

    fn manifest(&self, image: &Image) -> Value {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (tar, codec) in &image.layers {
            let (descriptor, diff_id) = self.layer(tar, *codec).unwrap_or_else(|e| panic!("{}: {e}", tar.display()));
            layers.push(descriptor);
            diff_ids.push(diff_id);
        }
        let mut config = json!({
            "architecture": image.arch, "os": "linux", "config": image.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": image.layers.iter().map(|_| json!({ "created_by": "tests" })).collect::<Vec<_>>(),
        });
        let mut platform = json!({ "architecture": image.arch, "os": "linux" });
        if let Some(variant) = image.variant {
            config["variant"] = json!(variant);
            platform["variant"] = json!(variant);
        }
        let (config, config_size) = self.put(config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
        });
        let (digest, size) = self.put(manifest.to_string().as_bytes());
        json!({ "mediaType": manifest["mediaType"], "digest": digest, "size": size, "platform": platform })
    }

    /// Compresses a tar into the layout in one pass.
    fn layer(&self, tar: &Path, codec: Codec) -> io::Result<(Value, String)> {
        let half = self.dir.join(format!("half.{:?}", std::thread::current().id()));
        let mut input = Hashing { inner: BufReader::new(File::open(tar)?), hash: Context::new(&SHA256), count: 0 };
        let mut output = Hashing { inner: File::create(&half)?, hash: Context::new(&SHA256), count: 0 };
        let kind = match codec {
            Codec::Plain => {
                io::copy(&mut input, &mut output)?;
                ""
            }
            Codec::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(&mut output, flate2::Compression::fast());
                io::copy(&mut input, &mut gzip)?;
                gzip.finish()?;
                "+gzip"
            }
            Codec::Zstd => {
                zstd::stream::copy_encode(&mut input, &mut output, 1)?;
                "+zstd"
            }
        };
        let diff_id = format!("sha256:{}", hex(input.hash.finish().as_ref()));
        let digest = hex(output.hash.finish().as_ref());
        std::fs::rename(&half, self.dir.join("blobs/sha256").join(&digest))?;
        let kind = format!("application/vnd.oci.image.layer.v1.tar{kind}");
        Ok((json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": output.count }), diff_id))
    }

    fn put(&self, bytes: &[u8]) -> (String, usize) {
        let digest = hex(ring::digest::digest(&SHA256, bytes).as_ref());
        super::write(self.dir.join("blobs/sha256").join(&digest), bytes);
        (format!("sha256:{digest}"), bytes.len())
    }
}

struct Hashing<T> {
    inner: T,
    hash: Context,
    count: u64,
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hash.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

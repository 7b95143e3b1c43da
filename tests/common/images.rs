//! Builds archives and OCI image layouts for tests, byte by byte: the tests need what no honest program would write. What a
//! newcomer would get wrong: nothing here may use the code under test.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]
#![allow(clippy::needless_pass_by_value, reason = "headers are written in place and thrown away")]

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// An archive being written.
#[derive(Debug, Clone, Default)]
pub struct Tar(Vec<u8>);

/// The fields of one header; start from [`entry`].
#[derive(Debug, Clone)]
pub struct Header {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub flag: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub size: u64,
    pub device: (u32, u32),
    pub magic: [u8; 8],
}

/// A header of type `flag` with root's ownership, mode 0644 (directories and links: 0755, 0777) and a time of 2001.
pub fn entry(flag: u8, name: impl AsRef<[u8]>) -> Header {
    Header {
        name: name.as_ref().to_vec(),
        link: Vec::new(),
        flag,
        mode: match flag {
            b'5' => 0o755,
            b'2' => 0o777,
            _ => 0o644,
        },
        uid: 0,
        gid: 0,
        mtime: 1_000_000_000,
        size: 0,
        device: (0, 0),
        magic: *b"ustar\x0000",
    }
}

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    /// Adds a header with a body, exactly as given.
    pub fn add(mut self, header: Header, body: &[u8]) -> Tar {
        self.0.extend_from_slice(&block(&header));
        self.body(body);
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    fn body(&mut self, body: &[u8]) {
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub fn file(self, name: impl AsRef<[u8]>, body: &[u8]) -> Tar {
        self.add(Header { size: body.len() as u64, ..entry(b'0', name) }, body)
    }
    pub fn dir(self, name: impl AsRef<[u8]>) -> Tar {
        self.add(entry(b'5', name), b"")
    }
    pub fn symlink(self, name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Tar {
        self.add(Header { link: to.as_ref().to_vec(), ..entry(b'2', name) }, b"")
    }
    pub fn hard_link(self, name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Tar {
        self.add(Header { link: to.as_ref().to_vec(), ..entry(b'1', name) }, b"")
    }

    /// A PAX header for the entry that comes next.
    pub fn pax(self, records: &[(&[u8], &[u8])]) -> Tar {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + rest.to_string().len();
            length = rest + length.to_string().len();
            body.extend_from_slice(format!("{length} ").as_bytes());
            body.extend_from_slice(key);
            body.push(b'=');
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.add(Header { size: body.len() as u64, ..entry(b'x', "PaxHeader") }, &body)
    }

    /// A GNU long name (`L`) or long link (`K`) for the entry that comes next.
    pub fn gnu_long(self, flag: u8, text: &[u8]) -> Tar {
        let body = [text, b"\0"].concat();
        self.add(Header { size: body.len() as u64, magic: *b"ustar  \0", ..entry(flag, "././@LongLink") }, &body)
    }

    /// The archive with its end mark.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    /// The archive without an end mark.
    pub fn cut(self) -> Vec<u8> {
        self.0
    }
}

fn block(header: &Header) -> [u8; 512] {
    let mut out = [0; 512];
    let put = |out: &mut [u8; 512], at: usize, bytes: &[u8], room: usize| {
        let n = bytes.len().min(room);
        out[at..at + n].copy_from_slice(&bytes[..n]);
    };
    put(&mut out, 0, &header.name, 100);
    put(&mut out, 100, format!("{:07o}\0", header.mode).as_bytes(), 8);
    put(&mut out, 108, format!("{:07o}\0", header.uid & 0o7_777_777).as_bytes(), 8);
    put(&mut out, 116, format!("{:07o}\0", header.gid & 0o7_777_777).as_bytes(), 8);
    put(&mut out, 124, format!("{:011o}\0", header.size).as_bytes(), 12);
    put(&mut out, 136, format!("{:011o}\0", header.mtime).as_bytes(), 12);
    out[156] = header.flag;
    put(&mut out, 157, &header.link, 100);
    put(&mut out, 257, &header.magic, 8);
    put(&mut out, 329, format!("{:07o}\0", header.device.0).as_bytes(), 8);
    put(&mut out, 337, format!("{:07o}\0", header.device.1).as_bytes(), 8);
    checksum(&mut out);
    out
}

/// Writes the checksum of a header block.
pub fn checksum(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// `sha256:…`
pub fn digest(data: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, data);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

/// An OCI image layout being written.
#[derive(Debug)]
pub struct Layout {
    pub dir: PathBuf,
    index: Vec<Value>,
    /// Write docker's schema 2 media types.
    pub docker: bool,
}

/// Which compression a layer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    Gzip,
    Zstd,
    Plain,
}

impl Layout {
    pub fn new(dir: &Path) -> Layout {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
        Layout { dir: dir.to_owned(), index: Vec::new(), docker: false }
    }

    pub fn blob(&self, data: &[u8]) -> String {
        let digest = digest(data);
        put(&self.blob_path(&digest), data);
        digest
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    fn types(&self, packed: Packed) -> [&'static str; 3] {
        if self.docker {
            let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
            return [
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                layer,
            ];
        }
        let layer = match packed {
            Packed::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Packed::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Packed::Plain => "application/vnd.oci.image.layer.v1.tar",
        };
        ["application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json", layer]
    }

    /// Writes one image; returns the descriptor of its manifest. `edit` may spoil config and manifest before they are written.
    pub fn image(
        &self,
        architecture: &str,
        layers: &[Vec<u8>],
        packed: Packed,
        edit: impl Fn(&mut Value, &mut Value),
    ) -> Value {
        let [manifest_type, config_type, layer_type] = self.types(packed);
        let mut config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Env": ["A=b"], "Entrypoint": ["/bin/e"], "Cmd": ["c"], "User": "1:2", "WorkingDir": "/w"},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| digest(l)).collect::<Vec<_>>()},
        });
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let data = match packed {
                    Packed::Gzip => gzip(layer),
                    Packed::Zstd => zstd::encode_all(layer.as_slice(), 3).unwrap(),
                    Packed::Plain => layer.clone(),
                };
                json!({"mediaType": layer_type, "digest": self.blob(&data), "size": data.len()})
            })
            .collect();
        let mut manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "layers": descriptors});
        edit(&mut config, &mut manifest);
        let config = serde_json::to_vec(&config).unwrap();
        manifest["config"] = json!({"mediaType": config_type, "digest": self.blob(&config), "size": config.len()});
        let manifest = serde_json::to_vec(&manifest).unwrap();
        json!({
            "mediaType": manifest_type, "digest": self.blob(&manifest), "size": manifest.len(),
            "platform": {"architecture": architecture, "os": "linux"},
        })
    }

    /// Writes an index of images; returns its descriptor.
    pub fn index_of(&self, manifests: &[Value]) -> Value {
        let kind = if self.docker {
            "application/vnd.docker.distribution.manifest.list.v2+json"
        } else {
            "application/vnd.oci.image.index.v1+json"
        };
        let index =
            serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests})).unwrap();
        json!({"mediaType": kind, "digest": self.blob(&index), "size": index.len()})
    }

    /// Gives a descriptor a tag and writes index.json.
    pub fn tag(&mut self, tag: &str, mut descriptor: Value) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.index.push(descriptor);
        let index = json!({"schemaVersion": 2, "manifests": self.index});
        put(&self.dir.join("index.json"), &serde_json::to_vec(&index).unwrap());
    }
}

/// Writes a file of a test's own.
pub fn put(path: &Path, data: &[u8]) {
    std::fs::File::create(path).unwrap().write_all(data).unwrap();
}

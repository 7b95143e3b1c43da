//! What an image source hands over to the verbs: plain data, no open files. What a newcomer would get wrong: layers are
//! ordered from the lowest (the base) to the highest, as in an OCI manifest; overlayfs wants them the other way round.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A tree ready to be stacked and run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// What it is, for people: `docker.io/library/debian:bookworm`, `/srv/trees/sid`.
    pub label: String,
    /// The read-only trees, lowest first; never empty.
    pub layers: Vec<Layer>,
    /// The manifest's digest, `sha256:…`, where there is a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What the label says of the platform (OCI names: `arm64`, `arm` + `v7`). The ELF files decide, not this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// How the image wants its command run.
    #[serde(default)]
    pub config: ImageConfig,
}

impl Artifact {
    /// The keys of its layers in the store, lowest first.
    pub fn stored_keys(&self) -> Vec<String> {
        let stored = |layer: &Layer| match layer {
            Layer::Stored(key) => Some(key.clone()),
            Layer::Directory(_) => None,
        };
        self.layers.iter().filter_map(stored).collect()
    }
}

/// One read-only tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// A layer in the store, by its key: the diffID's hex digits, or a key of ours for trees that have none.
    Stored(String),
    /// A directory of the user's, never written to.
    Directory(PathBuf),
}

/// An OCI platform (image-spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH: `amd64`, `arm64`, `arm`, `ppc64le`…
    pub architecture: String,
    /// GOOS: `linux`.
    pub os: String,
    /// `v7`, `v8`…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

/// The part of an image's config that `run` obeys (image-spec, config.md, "config").
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Words before the command.
    pub entrypoint: Vec<String>,
    /// The default command.
    pub cmd: Vec<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Where the command starts.
    pub working_dir: Option<String>,
}

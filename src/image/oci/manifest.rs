//! The documents of an image: index, manifest, config (image-spec; docker's schema 2 has the same shape). What a newcomer would
//! get wrong: media types are optional and sometimes wrong, so the shape decides; a document that has both shapes is
//! refused, for two readers could see two images in it (CVE-2021-41190).

use serde::Deserialize;

use crate::domain::{ImageConfig, Platform};
use crate::image::Digest;

/// What points to another document or blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Of its bytes; checked when it is used.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// What it says to be.
    #[serde(default)]
    pub media_type: Option<String>,
    /// In an index: what the image is for.
    #[serde(default)]
    platform: Option<RawPlatform>,
    /// In an index: notes.
    #[serde(default)]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RawPlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Descriptor {
    /// What it points to. Errors: a sentence.
    pub fn digest(&self) -> Result<Digest, String> {
        self.digest.parse()
    }

    /// What the image is for, when the index says it.
    pub fn platform(&self) -> Option<Platform> {
        let raw = self.platform.as_ref().filter(|p| !p.architecture.is_empty())?;
        Some(Platform {
            architecture: raw.architecture.clone(),
            os: raw.os.clone(),
            variant: raw.variant.clone().filter(|v| !v.is_empty()),
        })
    }

    /// Whether it is the attestation of a build and no image (BuildKit).
    pub fn is_attestation(&self) -> bool {
        self.annotations.as_ref().is_some_and(|a| a.contains_key("vnd.docker.reference.type"))
            || self.platform().is_some_and(|p| crate::image::platform::is_attestation(&p))
    }
}

/// An index or an image's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// A list of manifests (or of more lists).
    Index(Vec<Descriptor>),
    /// One image.
    Image(Manifest),
}

/// One image's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its config.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads index or manifest. Errors: a sentence.
    pub fn parse(text: &[u8]) -> Result<Document, String> {
        if text.trim_ascii_start().starts_with(b"<") {
            return Err("a web page came in its place".into());
        }
        let raw: Raw = serde_json::from_slice(text).map_err(|e| format!("it is no manifest ({e})"))?;
        match (raw.manifests, raw.config, raw.layers) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err("it is an index and a manifest at once".into()),
            (Some(manifests), None, None) => Ok(Document::Index(manifests)),
            (None, Some(config), Some(layers)) => Ok(Document::Image(Manifest { config, layers })),
            _ if raw.schema_version == Some(1) || raw.fs_layers.is_some() => {
                Err("it is of docker's schema 1, which is no longer in use".into())
            }
            _ => Err("it is neither an index nor a manifest".into()),
        }
    }
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What it is for.
    pub platform: Platform,
    /// The digests of its layers' archives, lowest first.
    pub diff_ids: Vec<Digest>,
    /// How it wants its command run.
    pub run: ImageConfig,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    config: Option<RawRun>,
    rootfs: Option<RawRootfs>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

impl Config {
    /// Reads a config. Errors: a sentence.
    pub fn parse(text: &[u8]) -> Result<Config, String> {
        let raw: RawConfig = serde_json::from_slice(text).map_err(|e| format!("it is no image config ({e})"))?;
        let rootfs = raw.rootfs.ok_or("it is no image of a file system")?;
        let run = raw.config.unwrap_or_default();
        let words = Option::unwrap_or_default;
        let text = |t: Option<String>| t.filter(|t| !t.is_empty());
        Ok(Config {
            platform: Platform { architecture: raw.architecture, os: raw.os, variant: text(raw.variant) },
            diff_ids: rootfs.diff_ids.iter().map(|d| d.parse()).collect::<Result<_, _>>()?,
            run: ImageConfig {
                env: words(run.env),
                entrypoint: words(run.entrypoint),
                cmd: words(run.cmd),
                user: text(run.user),
                working_dir: text(run.working_dir),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_decides() {
        let d = r#"{"digest":"sha256:00","size":1,"mediaType":"x/y","platform":{"architecture":"arm","os":"linux","variant":""}}"#;
        let index = Document::parse(format!(r#"{{"schemaVersion":2,"manifests":[{d}]}}"#).as_bytes()).unwrap();
        let Document::Index(entries) = index else { panic!() };
        assert_eq!(entries[0].platform().unwrap().to_string(), "linux/arm");
        assert!(entries[0].digest().is_err());
        let image = format!(r#"{{"config":{d},"layers":[{d},{d}],"more":1}}"#);
        assert!(matches!(Document::parse(image.as_bytes()), Ok(Document::Image(m)) if m.layers.len() == 2));
        for (text, why) in [
            (format!(r#"{{"config":{d},"layers":[],"manifests":[]}}"#), "at once"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), "schema 1"),
            (r#"{"schemaVersion":2}"#.into(), "neither"),
            ("<html>".into(), "web page"),
            ("x".into(), "no manifest"),
        ] {
            assert!(Document::parse(text.as_bytes()).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn configs_of_the_wild() {
        let text = r#"{"architecture":"arm64","os":"linux","variant":"v8","config":{"Env":null,"Cmd":["sh"],"User":"",
            "Entrypoint":null},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;
        let config = Config::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (config.platform.to_string().as_str(), config.run.user, config.run.cmd.len()),
            ("linux/arm64/v8", None, 1)
        );
        assert!(Config::parse(b"{}").unwrap_err().contains("file system"));
        assert!(Config::parse(br#"{"rootfs":{"diff_ids":["md5:1"]}}"#).unwrap_err().contains("md5"));
    }

    #[test]
    fn attestations() {
        let text = r#"{"digest":"d","size":1,"platform":{"architecture":"unknown","os":"unknown"}}"#;
        assert!(serde_json::from_str::<Descriptor>(text).unwrap().is_attestation());
        let text = r#"{"digest":"d","size":1,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}}"#;
        assert!(serde_json::from_str::<Descriptor>(text).unwrap().is_attestation());
    }
}

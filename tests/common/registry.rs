//! A real registry on loopback: Debian's docker-registry with its data in a directory of the test's; open, or with what
//! [`Options`] say. What a newcomer would get wrong: the registry chooses its port itself and tells it in its log, for a port that
//! is looked for first may be another's by then; it is started through a shell that reads from us, so that it ends with us however
//! we end; and its access log is what says how often something was really asked.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use pronto::sys::process::{Tool, find_program};

/// What is not installed of what a registry here needs.
pub fn missing() -> Option<String> {
    let missing: Vec<&str> =
        ["docker-registry", "skopeo"].into_iter().filter(|program| find_program(program).is_none()).collect();
    (!missing.is_empty()).then(|| format!("not installed: {} (contrib/install-deps.sh test)", missing.join(", ")))
}

/// A port on loopback that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

/// What a registry demands, and where it keeps its data.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// A file of passwords, as `htpasswd -B` writes it.
    pub htpasswd: Option<&'a Path>,
    /// Who gives tokens for it.
    pub token: Option<Token<'a>>,
    /// The certificate and the key that it speaks TLS with.
    pub tls: Option<(&'a Path, &'a Path)>,
    /// Its data; below the directory that it is started in when none.
    pub storage: Option<&'a Path>,
}

/// A token server (distribution, "Token Authentication Implementation").
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    /// Where a client asks for a token.
    pub realm: &'a str,
    /// What the client says that it wants the token for.
    pub service: &'a str,
    /// Who signs the tokens.
    pub issuer: &'a str,
    /// The certificate that their signatures are held against.
    pub certificate: &'a Path,
}

impl Options<'_> {
    /// The registry's configuration.
    fn config(&self, storage: &Path) -> String {
        // Its log says at `info` where it listens.
        let mut text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        if let Some((certificate, key)) = self.tls {
            text += &format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display());
        }
        if let Some(path) = self.htpasswd {
            text += &format!("auth: {{htpasswd: {{realm: here, path: {}}}}}\n", path.display());
        }
        if let Some(token) = self.token {
            let Token { realm, service, issuer, certificate } = token;
            let words = format!("realm: '{realm}', service: {service}, issuer: {issuer}");
            text += &format!("auth: {{token: {{{words}, rootcertbundle: {}}}}}\n", certificate.display());
        }
        text
    }
}

fn put(path: &Path, text: &str) {
    let written = pronto::sys::fs::write_volatile(path, text.as_bytes(), 0o644);
    written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// A registry that runs as long as this lives.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    leash: Option<ChildStdin>,
    storage: PathBuf,
    log: PathBuf,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl Registry {
    /// Starts one that demands nothing, below `dir`.
    pub fn start(dir: &Path) -> Registry {
        Registry::with(dir, Options::default())
    }

    /// Starts one, below `dir`. Panics with its log when it does not come up.
    pub fn with(dir: &Path, options: Options<'_>) -> Registry {
        if let Some(missing) = missing() {
            panic!("{missing}");
        }
        let (config, log) = (dir.join("registry.yml"), dir.join("registry.log"));
        let storage = options.storage.map_or_else(|| dir.join("registry"), Path::to_owned);
        std::fs::create_dir_all(&storage).expect("the registry's directory");
        put(&config, &options.config(&storage));
        let script = r#"docker-registry serve "$1" >"$2" 2>&1 & p=$!; read -r _; kill $p; wait $p"#;
        let mut tool = Tool::new("sh").args(["-c", script, "registry"]).arg(&config).arg(&log);
        tool.command().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // What an older one told of its port is not this one's.
        put(&log, "");
        let mut child = tool.spawn().expect("sh starts");
        let leash = child.stdin.take();
        let mut registry = Registry { child, leash, storage, log, host: String::new() };
        registry.host = registry.listens();
        registry
    }

    /// Where it listens, once it does.
    fn listens(&self) -> String {
        let factor = std::env::var("PRONTO_TEST_SLOW").ok().and_then(|v| v.parse::<u32>().ok()).unwrap_or(1);
        let end = Instant::now() + Duration::from_secs(20) * factor;
        loop {
            let log = self.log();
            let said = log.split_once("listening on ").and_then(|(_, rest)| rest.split_once(['"', ',']));
            if let Some((host, _)) = said {
                return host.to_owned();
            }
            assert!(Instant::now() < end, "the registry does not come up: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `127.0.0.1:PORT/NAME:TAG`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Copies an image of skopeo's words here as `name` (`debian:gz`), with what else is to be said to skopeo.
    #[track_caller]
    pub fn copy(&self, from: &str, name: &str, how: &[&str]) {
        let to = format!("docker://{}", self.image(name));
        let all = ["--insecure-policy", "copy", "-q", "--all", "--dest-tls-verify=false"];
        let mut tool = Tool::new("skopeo").args(all).args(how).args([from, &to]);
        tool.command().stdin(Stdio::null());
        tool.output().unwrap_or_else(|e| panic!("{from} as {name}: {e}"));
    }

    /// Pushes a tag of a layout as it is, all platforms of it.
    #[track_caller]
    pub fn push(&self, layout: &Path, tag: &str, name: &str) {
        self.copy(&format!("oci:{}:{tag}", layout.display()), name, &["--preserve-digests"]);
    }

    /// How often something was asked, by the registry's own access log.
    pub fn asked(&self, method: &str, needle: &str) -> usize {
        let method = format!("\"{method} ");
        self.log().lines().filter(|line| line.contains(&method) && line.contains(needle)).count()
    }

    /// How often blobs of `name` were fetched.
    pub fn blob_gets(&self, name: &str) -> usize {
        self.asked("GET", &format!("/v2/{name}/blobs/"))
    }

    /// Its log.
    pub fn log(&self) -> String {
        let text = std::fs::read(&self.log).expect("the registry's log");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The file in which it keeps a blob (`sha256:…`), for a test to damage.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.child.wait();
    }
}

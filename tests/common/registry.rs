//! A real registry on loopback: Debian's docker-registry with its data in a directory of the test's. What a newcomer would get
//! wrong: it is started through a shell that reads from us, so that it ends with us however we end; and its access log is
//! what says how often a blob was really fetched.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use super::run::{Run, command};
use super::{eventually, have, secs, skip, write};

/// A registry that runs as long as this lives.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    leash: Option<ChildStdin>,
    dir: PathBuf,
    port: u16,
}

/// A port on loopback that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

impl Registry {
    /// Starts one with its data below `dir`. Skips the test where docker-registry is not installed.
    pub fn start(dir: &Path) -> Registry {
        if !have("docker-registry") || !have("skopeo") {
            skip!("docker-registry or skopeo is not installed (contrib/install-deps.sh test)");
        }
        let port = free_port();
        std::fs::create_dir_all(dir.join("data")).expect("the registry's directory");
        let config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: 127.0.0.1:{port}\n",
            dir.join("data").display()
        );
        write(dir.join("config.yml"), config);
        let script = r#"docker-registry serve "$1/config.yml" >"$1/log" 2>&1 & p=$!; read -r _; kill $p; wait $p"#;
        let mut child = command("sh")
            .args(["-c", script, "registry"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let leash = child.stdin.take();
        let registry = Registry { child, leash, dir: dir.to_owned(), port };
        eventually(secs(20), "the registry answers", || TcpStream::connect(("127.0.0.1", port)).ok());
        registry
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:PORT/NAME:TAG`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Pushes a tag of a layout, all platforms of it, as `name` (`debian:gz`).
    pub fn push(&self, layout: &Path, tag: &str, name: &str) {
        let (from, to) = (format!("oci:{}:{tag}", layout.display()), format!("docker://{}", self.image(name)));
        let flags = ["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"];
        Run::new("skopeo").args(flags).arg(from).arg(to).limit(secs(300)).run().ok();
    }

    /// How often blobs of `name` were fetched, by the registry's own access log.
    pub fn blob_gets(&self, name: &str) -> usize {
        self.log().lines().filter(|l| l.contains(&format!("\"GET /v2/{name}/blobs/"))).count()
    }

    /// Its log.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        std::fs::File::open(self.dir.join("log"))
            .and_then(|mut f| f.read_to_end(&mut text))
            .expect("the registry's log");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The file in which it keeps a blob (`sha256:…`), for a test to damage.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir.join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.child.wait();
    }
}

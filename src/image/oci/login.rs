//! Who we are to a registry: what the user said, what `docker login`, `podman login` or `skopeo login` left in their files, or what a
//! credential helper gives out. What a newcomer would get wrong: nothing is read before a registry demands it; and a key of
//! podman's files may be longer than a host (`quay.io/team`), the longest that fits wins (containers-auth.json(5)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde::Deserialize;

use crate::image::{Error, Result};
use crate::sys::process::Tool;

/// A name and its proof. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user's name and password, or an access token in the password's place.
    User(String, String),
    /// A refresh token, which is exchanged for access tokens (docker's `identitytoken`).
    Identity(String),
    /// A token for the registry itself (docker's `registrytoken`).
    Registry(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Login::User(name, _) => write!(f, "User({name:?}, …)"),
            Login::Identity(_) => f.write_str("Identity(…)"),
            Login::Registry(_) => f.write_str("Registry(…)"),
        }
    }
}

/// docker's `config.json`, of which podman's `auth.json` is a part.
#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Auth>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    helper: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// The files that may hold a login, the first that has one wins: containers-auth.json(5), then docker's own. `only` (`--authfile`)
/// takes the place of all.
pub fn files(only: Option<&Path>) -> Vec<PathBuf> {
    if let Some(only) = only {
        return vec![only.to_owned()];
    }
    let dir = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = dir("HOME").unwrap_or_else(|| PathBuf::from("/root"));
    let mut out = Vec::new();
    out.extend(dir("REGISTRY_AUTH_FILE"));
    match dir("XDG_RUNTIME_DIR") {
        Some(run) => out.push(run.join("containers/auth.json")),
        // podman's own place for root, who seldom has that variable.
        None => out.push(PathBuf::from("/run/containers/0/auth.json")),
    }
    out.push(dir("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")).join("containers/auth.json"));
    out.push(dir("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker")).join("config.json"));
    out
}

/// The login for `host/repository`, from the first of `files` that has one. Errors: a file that cannot be read or understood (it
/// is named); a helper that fails otherwise than by having nothing.
pub fn find(files: &[PathBuf], host: &str, repository: &str) -> Result<Option<Login>> {
    for path in files {
        let text = match std::fs::read(path) {
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => continue,
            other => other.map_err(Error::io(format!("cannot read {}", path.display())))?,
        };
        let bad = |why: String| Error::Malformed { what: path.display().to_string(), why };
        let file: File = serde_json::from_slice(&text).map_err(|e| bad(format!("it is no auth file ({e})")))?;
        if let Some(login) = in_file(&file, host, repository).map_err(bad)? {
            tracing::info!(file = %path.display(), host, "using the login of that file");
            return Ok(Some(login));
        }
    }
    Ok(None)
}

fn in_file(file: &File, host: &str, repository: &str) -> std::result::Result<Option<Login>, String> {
    let names = names(host, repository);
    for name in &names {
        if let Some(helper) = file.helpers.get(name) {
            return ask_helper(helper, name);
        }
        let found = file.auths.iter().find(|(key, _)| plain(key) == *name).map(|(key, auth)| (key, decode(auth)));
        match found {
            Some((key, Err(why))) => return Err(format!("its entry for {} is malformed: {why}", key.escape_debug())),
            Some((_, Ok(Some(login)))) => return Ok(Some(login)),
            // An empty entry means that the store of the whole file has it.
            _ => {}
        }
    }
    match (file.helper.as_str(), names.last()) {
        ("", _) | (_, None) => Ok(None),
        (helper, Some(name)) => ask_helper(helper, if name == "docker.io" { HUB } else { name }),
    }
}

/// What docker calls its own registry in its files.
const HUB: &str = "https://index.docker.io/v1/";

/// The keys that fit, the longest first: `quay.io/a/b`, `quay.io/a`, `quay.io`.
fn names(host: &str, repository: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut name = format!("{host}/{repository}");
    loop {
        out.push(name.clone());
        match name.rfind('/') {
            Some(at) => name.truncate(at),
            None => return out,
        }
    }
}

/// A key as it is compared: old files have a scheme and a path of docker's (`https://index.docker.io/v1/`).
fn plain(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    if key == "index.docker.io" || key == "registry-1.docker.io" { "docker.io" } else { key }
}

fn decode(auth: &Auth) -> std::result::Result<Option<Login>, String> {
    if !auth.registrytoken.is_empty() {
        return Ok(Some(Login::Registry(auth.registrytoken.clone())));
    }
    if !auth.identitytoken.is_empty() {
        return Ok(Some(Login::Identity(auth.identitytoken.clone())));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim()).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let (name, password) = text.split_once(':').ok_or("it is not 'user:password'")?;
    Ok(Some(Login::User(name.to_owned(), password.trim_end_matches('\0').to_owned())))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    username: String,
    secret: String,
}

/// Asks `docker-credential-NAME get` (docker/docker-credential-helpers, README, "Protocol"). One that has nothing says so on
/// stdout with status 1: that is no error.
fn ask_helper(helper: &str, server: &str) -> std::result::Result<Option<Login>, String> {
    if helper.contains('/') {
        return Err(format!("'{}' is no name of a credential helper", helper.escape_debug()));
    }
    ask(&format!("docker-credential-{helper}"), server)
}

fn ask(program: &str, server: &str) -> std::result::Result<Option<Login>, String> {
    let out = Tool::new(program).arg("get").answer(server.as_bytes()).map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("{program} failed: {}", said.trim().escape_debug()));
    }
    let given: Given = serde_json::from_slice(&out.stdout).map_err(|_| format!("{program} gave no credentials"))?;
    Ok(Some(match given.username.as_str() {
        "<token>" => Login::Identity(given.secret),
        _ => Login::User(given.username, given.secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::write_atomic;

    fn put(path: impl AsRef<Path>, text: &str) {
        write_atomic(path.as_ref(), text.as_bytes(), 0o600).unwrap();
    }

    fn user(name: &str) -> Option<Login> {
        Some(Login::User(name.into(), "pass:word".into()))
    }

    fn file(text: &str) -> File {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_longest_key_wins() {
        // ann:pass:word, bob:pass:word, cat:pass:word
        let file = file(
            r#"{"auths":{"quay.io":{"auth":"YW5uOnBhc3M6d29yZA=="},"quay.io/team":{"auth":"Ym9iOnBhc3M6d29yZA=="},
                "https://index.docker.io/v1/":{"auth":"Y2F0OnBhc3M6d29yZA=="},"empty.example":{}}}"#,
        );
        let find = |host, repository| in_file(&file, host, repository).unwrap();
        assert_eq!(find("quay.io", "x/y"), user("ann"));
        assert_eq!(find("quay.io", "team/y"), user("bob"));
        assert_eq!(find("quay.io", "team"), user("bob"));
        assert_eq!(find("quay.io", "teams/y"), user("ann"));
        assert_eq!(find("docker.io", "library/debian"), user("cat"));
        assert_eq!(find("empty.example", "x"), None);
        assert_eq!(find("ghcr.io", "x"), None);
    }

    #[test]
    fn tokens_and_damage() {
        let file = file(
            r#"{"auths":{"a.b":{"auth":"eDp5","identitytoken":"t"},"c.d":{"registrytoken":"r"},"e.f":{"auth":"%"},"g.h":{"auth":"eA=="}}}"#,
        );
        assert_eq!(in_file(&file, "a.b", "x").unwrap(), Some(Login::Identity("t".into())));
        assert_eq!(in_file(&file, "c.d", "x").unwrap(), Some(Login::Registry("r".into())));
        assert!(in_file(&file, "e.f", "x").unwrap_err().contains("e.f"));
        assert!(in_file(&file, "g.h", "x").unwrap_err().contains("user:password"));
        assert_eq!(format!("{:?}", Login::User("ann".into(), "secret".into())), "User(\"ann\", …)");
    }

    #[test]
    fn files_are_asked_in_order_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (none, first, second) = (dir.path().join("none"), dir.path().join("1"), dir.path().join("2"));
        put(&first, r#"{"auths":{"a.b":{"auth":"YW5uOnBhc3M6d29yZA=="}}}"#);
        put(&second, r#"{"auths":{"a.b":{"auth":"Ym9iOnBhc3M6d29yZA=="},"c.d":{"auth":"Ym9iOnBhc3M6d29yZA=="}}}"#);
        let all = [none, first.clone(), second];
        assert_eq!(find(&all, "a.b", "x").unwrap(), user("ann"));
        assert_eq!(find(&all, "c.d", "x").unwrap(), user("bob"));
        put(&first, "<html>");
        let error = find(&all, "c.d", "x").unwrap_err().to_string();
        assert!(error.contains(&first.display().to_string()) && error.contains("auth file"), "{error}");
    }

    /// A program on PATH asserts what is asked, and how its answers are understood; that is all a helper is.
    #[test]
    fn helpers() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("docker-credential-x");
        let script = "#!/bin/sh\n[ \"$1\" = get ] || exit 9\nread -r s\ncase $s in\n\
            a.b) echo '{\"ServerURL\":\"a.b\",\"Username\":\"ann\",\"Secret\":\"pass:word\"}' ;;\n\
            c.d) echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}' ;;\n\
            e.f) echo 'credentials not found in native keychain'; exit 1 ;;\n*) echo locked; exit 1 ;;\nesac\n";
        // By another process: see execve(2), ETXTBSY.
        let write = Tool::new("sh").args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(&program);
        assert!(write.answer(script.as_bytes()).unwrap().status.success());
        let ask = |server: &str| super::ask(program.to_str().unwrap(), server);
        assert_eq!(ask("a.b").unwrap(), user("ann"));
        assert_eq!(ask("c.d").unwrap(), Some(Login::Identity("t".into())));
        assert_eq!(ask("e.f").unwrap(), None);
        assert!(ask("g.h").unwrap_err().contains("locked"));
        let none = file(r#"{"credHelpers":{"a.b":"../x"}}"#);
        assert!(in_file(&none, "a.b", "r").unwrap_err().contains("no name"));
        let missing = file(r#"{"credsStore":"that-does-not-exist"}"#);
        assert!(in_file(&missing, "a.b", "r").unwrap_err().contains("docker-credential-that-does-not-exist"));
    }
}

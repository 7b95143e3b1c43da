//! How registries are reached, as the words of podman and skopeo say it: `--creds`, `--authfile`, `--tls-verify`. What a newcomer would
//! get wrong: a password on the command line is seen by everybody on this machine (`ps`), so it may be left out and is asked for.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::image::oci::Access;
use crate::image::oci::login::Login;
use crate::sys::pty;

// No doc comment here: clap would take it for the help of the verb.
#[derive(Debug, Clone, Default, Args)]
pub struct AccessOptions {
    /// Log in to the registry; a password that is not given is asked for
    #[arg(long, value_name = "USER[:PASSWORD]", help_heading = "Registries")]
    creds: Option<String>,
    /// Take logins from this file (docker's config.json, podman's auth.json) alone [env: REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Registries")]
    authfile: Option<PathBuf>,
    /// Insist on encryption and certificates, or do not
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Registries")]
    tls_verify: Option<bool>,
}

impl AccessOptions {
    /// What the image room is told. Errors: an empty name; a password that cannot be asked for.
    pub fn access(self) -> Result<Access, Failure> {
        let creds = self.creds.map(login).transpose()?;
        Ok(Access::new(creds, self.authfile, self.tls_verify))
    }
}

fn login(creds: String) -> Result<Login, Failure> {
    let (name, password) = match creds.split_once(':') {
        Some((name, password)) => (name.to_owned(), Some(password.to_owned())),
        None => (creds, None),
    };
    if name.is_empty() {
        return Err(Failure::usage("pronto: --creds names no user: write USER or USER:PASSWORD"));
    }
    let password = match password {
        Some(password) => password,
        None => pty::ask_secret(&format!("Password of {name}: ")).map_err(|why| {
            Failure::usage(format!("pronto: --creds {name} has no password, and none can be asked for here ({why})"))
        })?,
    };
    Ok(Login::User(name, password))
}

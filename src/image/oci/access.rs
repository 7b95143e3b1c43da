//! What the user said about registries on the command line, and the files that say the rest. What a newcomer would get wrong: the default
//! reads nothing; files are read when a registry is asked, and logins only when it demands one.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::hosts::Hosts;
use super::login::Login;
use crate::image::Result;

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// `--creds`: takes the place of what the files have.
    pub creds: Option<Login>,
    /// `--authfile`: the only file that is asked.
    pub authfile: Option<PathBuf>,
    /// `--tls-verify`: `false` makes every host one without encryption.
    pub tls_verify: Option<bool>,
    hosts: Arc<OnceLock<Hosts>>,
}

impl Access {
    /// What was said.
    pub fn new(creds: Option<Login>, authfile: Option<PathBuf>, tls_verify: Option<bool>) -> Access {
        Access { creds, authfile, tls_verify, hosts: Arc::default() }
    }

    /// The configured mirrors and places, read once. Errors: a file that cannot be understood.
    pub fn hosts(&self) -> Result<&Hosts> {
        if let Some(hosts) = self.hosts.get() {
            return Ok(hosts);
        }
        let hosts = Hosts::load()?;
        Ok(self.hosts.get_or_init(|| hosts))
    }

    /// The same with these hosts in the files' place.
    #[must_use]
    pub fn with_hosts(self, hosts: Hosts) -> Access {
        Access { hosts: Arc::new(OnceLock::from(hosts)), ..self }
    }
}

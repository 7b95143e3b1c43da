//! What a registry demands, and how it is got: a login out of the files or from the user, or a token that its token server gives for one
//! (distribution, "Token Authentication Specification"). What a newcomer would get wrong: a stored login that has run out must not stand
//! in the way of what everybody may have, while one that the user has just named is not passed over.

use base64::Engine;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::super::challenge::{self, Challenge};
use super::super::login::{self, Login};
use super::{NEEDS_LOGIN, Session, said, words};
use crate::image::{Error, Result, net};

impl Session<'_> {
    fn show(&self, scheme: &str, text: &str) -> bool {
        let Ok(mut value) = HeaderValue::from_str(&format!("{scheme} {text}")) else { return false };
        value.set_sensitive(true);
        *self.proof.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(value);
        true
    }

    /// What the user said for this place, else what the files have for it.
    fn login(&self) -> Result<Option<Login>> {
        if let Some(creds) = self.access.creds.as_ref().filter(|_| !self.place.mirror) {
            return Ok(Some(creds.clone()));
        }
        let host = if self.place.host == "registry-1.docker.io" { "docker.io" } else { &self.place.host };
        login::find(&login::files(self.access.authfile.as_deref()), host, &self.place.repository)
    }

    /// Gets what is demanded.
    pub(super) async fn prove(&self, headers: &HeaderMap, what: &str) -> Result<()> {
        let demanded: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let login = self.login()?;
        if let Some(Login::Registry(token)) = &login {
            self.show("Bearer", token);
            return Ok(());
        }
        if let Some(bearer) = demanded.iter().find(|c| c.scheme == "bearer") {
            return self.fetch_token(bearer, login, what).await;
        }
        match login {
            _ if !demanded.iter().any(|c| c.scheme == "basic") => {
                Err(self.refused(what, "it demands a kind of login that is not known here"))
            }
            Some(Login::User(name, password)) => {
                let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
                self.show("Basic", &text);
                Ok(())
            }
            _ => Err(self.refused(what, NEEDS_LOGIN)),
        }
    }

    async fn fetch_token(&self, demanded: &Challenge, login: Option<Login>, what: &str) -> Result<()> {
        let realm = demanded.param("realm").and_then(|r| Url::parse(r).ok());
        let Some(realm) = realm else { return Err(self.refused(what, "it names no token server that can be asked")) };
        let said = self.access.creds.is_some() && !self.place.mirror;
        if let Some(login) = login {
            match self.token(&realm, demanded, Some(&login), what).await {
                Err(error @ Error::Refused { .. }) if said => return Err(error),
                Err(Error::Refused { why, .. }) => {
                    // A login that has run out must not stand in the way of what everybody may have.
                    let name = self.name();
                    self.report.warn(&format!("{name} refuses the stored login ({why}): trying without one"));
                }
                other => return other,
            }
        }
        self.token(&realm, demanded, None, what).await
    }

    /// Asks the token server (distribution, "Token Authentication Specification"; with a refresh token "OAuth2 Token Authentication").
    async fn token(&self, realm: &Url, demanded: &Challenge, login: Option<&Login>, what: &str) -> Result<()> {
        let host = realm.host_str().unwrap_or_default();
        let open = realm.scheme() != "https" && !self.place.insecure;
        if login.is_some() && open {
            return Err(self.refused(what, &format!("its token server {host} is not encrypted, so it gets no login")));
        }
        let pull = format!("repository:{}:pull", self.place.repository);
        let scope = demanded.param("scope").unwrap_or(&pull);
        let mut query = vec![("scope", scope)];
        query.extend(demanded.param("service").map(|service| ("service", service)));
        let request = match login {
            Some(Login::Identity(token)) => {
                query.extend([("grant_type", "refresh_token"), ("client_id", "pronto"), ("refresh_token", token)]);
                let mut form = realm.clone();
                form.query_pairs_mut().clear().extend_pairs(&query);
                let kind = "application/x-www-form-urlencoded";
                self.client
                    .post(realm.clone())
                    .header("content-type", kind)
                    .body(form.query().unwrap_or_default().to_owned())
            }
            other => {
                let mut url = realm.clone();
                url.query_pairs_mut().extend_pairs(&query);
                let request = self.client.get(url);
                match other {
                    Some(Login::User(name, password)) => {
                        request.query(&[("account", name)]).basic_auth(name, Some(password))
                    }
                    _ => request,
                }
            }
        };
        let place = format!("token server {host}");
        let lost = |e: reqwest::Error| Error::Unreachable { place: place.clone(), why: net::innermost(&e) };
        let answer = request.send().await.map_err(lost)?;
        let (status, text) = (answer.status(), words(answer).await);
        if !status.is_success() {
            return Err(match status {
                s if s.is_server_error() => Error::Unreachable { place, why: format!("it answers {s}") },
                _ => self.refused(what, &said(&text).unwrap_or_else(|| format!("its token server answers {status}"))),
            });
        }
        let given: Token =
            serde_json::from_str(&text).map_err(|_| self.refused(what, "its token server gives no token"))?;
        match given.token.or(given.access_token).filter(|token| !token.is_empty()) {
            Some(token) if self.show("Bearer", &token) => Ok(()),
            _ => Err(self.refused(what, "its token server gives no token")),
        }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

//! What a registry demands before it answers: the `WWW-Authenticate` header (RFC 9110, 11.6.1), read once for all of them. What a newcomer
//! would get wrong: one header may hold several challenges, there may be several headers, and the comma that parts challenges
//! also parts parameters; what follows it decides. Nothing here knows any registry by name.

/// One way to prove who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer`, `basic`… in lower case.
    pub scheme: String,
    /// Names in lower case, values unquoted.
    params: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value; the first of that name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Reads one header's value. What cannot be understood ends it; what was understood before counts.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = header;
    let mut out: Vec<Challenge> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else { return out };
        match value(after) {
            // `name=value` belongs to the challenge before it.
            Some((text, next)) => {
                let Some(current) = out.last_mut() else { return out };
                current.params.push((word.to_ascii_lowercase(), text));
                rest = next;
            }
            None => {
                out.push(Challenge { scheme: word.to_ascii_lowercase(), params: Vec::new() });
                rest = token68(after);
            }
        }
    }
}

/// A token (RFC 9110, 5.6.2) and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let end = text.bytes().position(|b| !inside(b)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// `=value` or `="value"`, blanks around the sign allowed. `None`: no sign, so the word before was no parameter's name.
fn value(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches([' ', '\t']).strip_prefix('=')?.trim_start_matches([' ', '\t']);
    let Some(quoted) = text.strip_prefix('"') else {
        // Some write `realm=https://…` without quotes: everything up to the next comma or blank.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &quoted[at + 1..])),
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            c => out.push(c),
        }
    }
    Some((out, ""))
}

/// Steps over `Negotiate`'s kind of blob, `token68`, which stands alone behind a scheme.
fn token68(text: &str) -> &str {
    let blank = text.trim_start_matches([' ', '\t']);
    let end = blank.find([',', ' ', '\t']).unwrap_or(blank.len());
    let (word, after) = blank.split_at(end);
    let body = word.trim_end_matches('=');
    let is_blob = word.len() > body.len() || after.trim_start().is_empty() && !word.contains('=');
    if is_blob && !body.contains(['=', '"']) { after } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        parse(text).into_iter().map(|c| (c.scheme, c.params)).collect()
    }

    fn params(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn those_of_real_registries() {
        for (header, realm, service, scope) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull""#,
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/debian:pull"),
            ),
            (
                r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull""#,
                "https://ghcr.io/token",
                Some("ghcr.io"),
                Some("repository:user/image:pull"),
            ),
            (
                r#"Bearer realm="https://scc.suse.com/api/registry/authorize",service="SUSE Linux Docker Registry""#,
                "https://scc.suse.com/api/registry/authorize",
                Some("SUSE Linux Docker Registry"),
                None,
            ),
            (
                r#"Bearer realm="https://quay.io/v2/auth",service="quay.io""#,
                "https://quay.io/v2/auth",
                Some("quay.io"),
                None,
            ),
            ("bearer realm=https://r.example/t , service=x", "https://r.example/t", Some("x"), None),
        ] {
            let found = parse(header);
            assert_eq!((found.len(), found[0].scheme.as_str()), (1, "bearer"), "{header}");
            assert_eq!(found[0].param("realm"), Some(realm), "{header}");
            assert_eq!((found[0].param("service"), found[0].param("scope")), (service, scope), "{header}");
        }
    }

    #[test]
    fn several_in_one_header() {
        assert_eq!(
            of(r#"Negotiate, Basic realm="a, \"b\"", Bearer realm="c",error="invalid_token""#),
            [
                ("negotiate".to_owned(), params(&[])),
                ("basic".to_owned(), params(&[("realm", "a, \"b\"")])),
                ("bearer".to_owned(), params(&[("realm", "c"), ("error", "invalid_token")])),
            ]
        );
        assert_eq!(
            of("Negotiate YII+/==, Basic realm=x"),
            [("negotiate".to_owned(), params(&[])), ("basic".to_owned(), params(&[("realm", "x")]))]
        );
    }

    #[test]
    fn rubbish_ends_it() {
        for text in ["", " ", "=", "\"", "realm=x", ",,,=", "é"] {
            assert_eq!(of(text), [], "{text:?}");
        }
        assert_eq!(of("Basic realm=\"never closed"), [("basic".to_owned(), params(&[("realm", "never closed")]))]);
        assert_eq!(of("Basic"), [("basic".to_owned(), params(&[]))]);
        assert_eq!(of("Basic \"x"), [("basic".to_owned(), params(&[]))]);
    }
}

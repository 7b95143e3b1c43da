//! What is asked of a guest's agent: commands, and which units have failed. What a newcomer would get wrong: the agent has no terminal and
//! gives a command's output only when it has ended; what needs either has the console.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::{AGENT, because};
use crate::backend::hexagon::qemu::agent::{Agent, Exec, How, PATIENCE};
use crate::ops::exec::Command;
use crate::ops::{Ctx, Error, Interrupt, Kind, Result};
use crate::store::domains::Domain;
use crate::sys::process::shell_line;
use crate::sys::{pty, sock};

/// How much a command may be given on stdin: it all goes in one message.
const INPUT: u64 = 16 << 20;

/// A talk with a running guest's agent. Errors: it has none, or that is silent.
pub fn talk(ctx: &Ctx, domain: &Domain) -> Result<Agent> {
    let name = &domain.name;
    let dir = ctx.store.run_dir(&domain.record.uuid);
    let what = || format!("domain '{name}' has no guest agent that answers");
    let hint = format!("install qemu-guest-agent in it, or use its console: pronto console {name}");
    if !domain.run.as_ref().is_some_and(|run| run.agent) {
        return Err(Error::general(what()).hint(hint));
    }
    let stream = sock::connect(&dir, AGENT).map_err(because(what))?;
    Agent::greeted(stream, PATIENCE).map_err(because(what)).map_err(|error| error.hint(hint))
}

/// A command as the agent takes it: by the guest's own shell, which finds the program (a name that is not found is 127) and goes to the
/// directory. Errors: not UTF-8.
fn order(command: &Command, input: Vec<u8>) -> Result<Exec> {
    let text = |word: &OsStr| {
        word.to_str().map(str::to_owned).ok_or_else(|| {
            let what = format!("the guest agent takes UTF-8 only, and '{}' is none", word.to_string_lossy());
            Error::new(Kind::Usage, what)
        })
    };
    let variables = command.env.iter().map(|(name, value)| Ok(format!("{}={}", text(name)?, text(value)?)));
    let variables = variables.collect::<Result<Vec<_>>>()?;
    let mut words: Vec<String> = Vec::new();
    if let Some(user) = &command.user {
        let (user, group) = user.split_once(':').unwrap_or((user, user));
        words.extend(["setpriv", "--init-groups", "--reset-env"].map(str::to_owned));
        words.extend([format!("--reuid={user}"), format!("--regid={group}"), "env".to_owned()]);
        words.extend(variables.iter().cloned());
    }
    words.extend(command.words.iter().map(|word| text(word)).collect::<Result<Vec<_>>>()?);
    let script = match &command.workdir {
        Some(dir) => format!("cd -- {} && exec \"$@\"", shell_line(&[dir])),
        None => "exec \"$@\"".to_owned(),
    };
    let words = ["-c".to_owned(), script, "sh".to_owned()].into_iter().chain(words).collect();
    let home = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"].map(str::to_owned);
    Ok(Exec { program: "/bin/sh".into(), words, env: home.into_iter().chain(variables).collect(), input })
}

/// Runs a command in a guest to its end; its output goes to the caller's. Returns its status (128+N for signal N). Errors: no agent;
/// interrupted: the command goes on in the guest then.
pub fn exec(ctx: &Ctx, domain: &Domain, command: &Command, interrupt: &mut Interrupt) -> Result<u8> {
    if command.tty == Some(true) {
        let hint = format!("pronto console {}", domain.name);
        return Err(Error::new(Kind::Usage, "a guest agent has no terminal to offer").hint(hint));
    }
    let mut input = Vec::new();
    if command.interactive && !pty::is_terminal(io::stdin()) {
        let lost = |e| Error::general("cannot read stdin").because(e);
        io::stdin().take(INPUT + 1).read_to_end(&mut input).map_err(lost)?;
        if input.len() as u64 > INPUT {
            return Err(Error::new(
                Kind::Usage,
                format!("stdin is too long for a guest agent: {} MiB at most", INPUT >> 20),
            ));
        }
    }
    let (status, out, err) = run(ctx, domain, command, input, interrupt)?;
    let lost = |e| Error::general("cannot write the command's output").because(e);
    io::stdout().write_all(&out).and_then(|()| io::stdout().flush()).map_err(lost)?;
    io::stderr().write_all(&err).map_err(lost)?;
    Ok(status)
}

fn run(
    ctx: &Ctx,
    domain: &Domain,
    command: &Command,
    input: Vec<u8>,
    interrupt: &mut Interrupt,
) -> Result<(u8, Vec<u8>, Vec<u8>)> {
    let what = || format!("the guest agent of '{}' failed", domain.name);
    let order = order(command, input)?;
    let mut agent = talk(ctx, domain)?;
    let pid = agent.exec(&order).map_err(because(what))?;
    let until = command.limit.map(|limit| Instant::now() + limit);
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(ended) = agent.ended(pid).map_err(because(what))? {
            let status = match ended.how {
                How::Exit(status) => u8::try_from(status).unwrap_or(255),
                How::Signal(signal) => u8::try_from(128 + signal).unwrap_or(255),
            };
            if ended.cut {
                ctx.report.warn("the guest agent keeps 16 MiB of a command's output: the rest is lost");
            }
            return Ok((status, ended.out, ended.err));
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(Error::general("the command in the guest takes too long"));
        }
        interrupt.sleep(pause)?;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Waits until a guest's systemd has started all that it starts, and gives the names of units that have failed. Empty where nobody tells.
pub fn failed_units(ctx: &Ctx, domain: &Domain, limit: Duration, interrupt: &mut Interrupt) -> Vec<String> {
    let script = "systemctl is-system-running --wait >/dev/null; exec systemctl list-units --state=failed --no-legend --plain --no-pager";
    let words = ["sh", "-c", script].map(OsString::from).to_vec();
    let command = Command { words, limit: Some(limit), ..Command::default() };
    match run(ctx, domain, &command, Vec::new(), interrupt) {
        Ok((0, out, _)) => {
            let text = String::from_utf8_lossy(&out);
            text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        order(command, Vec::new()).unwrap().words
    }

    #[test]
    fn a_command_keeps_its_words() {
        let command = Command { words: vec!["ls".into(), "a b".into()], ..Command::default() };
        assert_eq!(words(&command), ["-c", "exec \"$@\"", "sh", "ls", "a b"]);
        let there = Command { workdir: Some("/a b".into()), ..command.clone() };
        assert_eq!(words(&there)[1], "cd -- '/a b' && exec \"$@\"");
        let env = vec![("K".into(), "v w".into())];
        let other = Command { user: Some("tester:users".into()), env, ..command };
        let wanted =
            ["setpriv", "--init-groups", "--reset-env", "--reuid=tester", "--regid=users", "env", "K=v w", "ls", "a b"];
        assert_eq!(words(&other)[3..], wanted);
        assert!(order(&other, Vec::new()).unwrap().env.contains(&"K=v w".to_owned()));
    }
}

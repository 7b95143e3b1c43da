//! What is asked of a guest's agent: commands, and which units have failed. What a newcomer would get wrong: the agent has no terminal and
//! gives a command's output only when it has ended; what needs either has the console.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use super::AGENT;
use crate::backend::hexagon::qemu::agent::{Agent, Exec, How, PATIENCE};
use crate::ops::exec::Command;
use crate::ops::{Ctx, Error, Interrupt, Kind, Result};
use crate::store::domains::Domain;
use crate::sys::sock;

/// How much a command may be given on stdin: it all goes in one message.
const INPUT: u64 = 16 << 20;

/// A talk with a running guest's agent. Errors: it has none, or that is silent.
pub fn talk(ctx: &Ctx, domain: &Domain) -> Result<Agent> {
    let name = &domain.name;
    let dir = ctx.store.run_dir(&domain.record.uuid);
    let none = || Error::general(format!("domain '{name}' has no guest agent that answers"));
    let hint = format!("install qemu-guest-agent in it, or use its console: pronto console {name}");
    if !domain.run.as_ref().is_some_and(|run| run.agent) {
        return Err(none().hint(hint));
    }
    let stream = sock::connect(&dir, AGENT).map_err(|e| none().because(e))?;
    Agent::greeted(stream, PATIENCE).map_err(|e| none().because(e.to_string()).hint(hint))
}

/// A command's words as the agent takes them: found by the guest's own shell, with its user's and directory's words around it.
fn order(command: &Command, input: Vec<u8>) -> Result<Exec> {
    let text = |word: &std::ffi::OsStr| {
        std::str::from_utf8(word.as_bytes()).map(str::to_owned).map_err(|_| {
            Error::new(
                Kind::Usage,
                format!("the guest agent takes UTF-8 only, and '{}' is none", word.to_string_lossy()),
            )
        })
    };
    let mut words = vec!["-c".to_owned()];
    let mut script = String::new();
    if let Some(dir) = &command.workdir {
        script += "cd -- \"$1\" || exit; shift; ";
        words.push(dir.clone());
    }
    // A name that is not found is 127 by the shell's own rule.
    script += "exec \"$@\"";
    words.insert(1, script);
    words.insert(2, "sh".to_owned());
    if let Some(user) = &command.user {
        words.extend(["setpriv", "--init-groups", "--reset-env"].map(str::to_owned));
        let (user, group) = user.split_once(':').unwrap_or((user, user));
        words.extend([format!("--reuid={user}"), format!("--regid={group}")]);
    }
    for word in &command.words {
        words.push(text(word)?);
    }
    let mut env =
        vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(), "HOME=/root".to_owned()];
    for (name, value) in &command.env {
        env.push(format!("{}={}", text(name)?, text(value)?));
    }
    Ok(Exec { program: "/bin/sh".into(), words, env, input })
}

/// Runs a command in a guest to its end; its output goes to the caller's. Returns its status (128+N for signal N). Errors: no agent;
/// interrupted: the command goes on in the guest then.
pub fn exec(ctx: &Ctx, domain: &Domain, command: &Command, interrupt: &mut Interrupt) -> Result<u8> {
    if command.tty == Some(true) {
        let hint = format!("pronto console {}", domain.name);
        return Err(Error::new(Kind::Usage, "a guest agent has no terminal to offer").hint(hint));
    }
    let mut input = Vec::new();
    if command.interactive && !crate::sys::pty::is_terminal(io::stdin()) {
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
    let failed = |e: &dyn std::fmt::Display| {
        Error::general(format!("the guest agent of '{}' failed", domain.name)).because(e.to_string())
    };
    let order = order(command, input)?;
    let mut agent = talk(ctx, domain)?;
    let pid = agent.exec(&order).map_err(|e| failed(&e))?;
    let until = command.limit.map(|limit| Instant::now() + limit);
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(ended) = agent.ended(pid).map_err(|e| failed(&e))? {
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
    let words = ["sh", "-c", script].map(std::ffi::OsString::from).to_vec();
    let command = Command { words, limit: Some(limit), ..Command::default() };
    match run(ctx, domain, &command, Vec::new(), interrupt) {
        Ok((0, out, _)) => {
            let text = String::from_utf8_lossy(&out);
            text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

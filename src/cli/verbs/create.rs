//! `create`: from an image, or an xl.cfg file, to a running domain. What a newcomer would get wrong: options and `key=value` words may stand
//! in any order around it, as in `xl create FILE -c name="x"`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{details, gather, guest, request, words};
use crate::ops::{self, Ctx};

/// Make a domain from an image and start it
///
/// IMAGE is a label of the catalogue (debian/bookworm), a registry's image (docker.io/library/debian:12), an OCI layout
/// (oci:DIR:TAG) or an archive of one (oci-archive:FILE:TAG), what docker saved (docker-archive:FILE:NAME), an image of
/// linuxcontainers.org (images:debian/bookworm), Raspberry Pi OS (raspios/bookworm-lite), a tarball (./rootfs.tar.xz,
/// https://…/root.tar.xz#sha256=HEX), a disk image (./card.img.xz, raw or qcow2, packed or not) or a directory (./tree). It may also be an
/// xl.cfg file (web.cfg, or -f FILE), in which image= names the image. Keys are those of xl.cfg, in the file and after it: name, memory, maxmem, vcpus,
/// maxvcpus, cpus, kernel, ramdisk, cmdline, root, extra, disk, vif, on_poweroff, on_reboot, on_crash; and image, arch, backend, accel, accel_exclude, binfmt, hostname,
/// network, userns. What the backend does nothing with is told, once each. memory without a suffix is MiB.
///
/// With --backend qemu, or a kernel, disk or vif, the guest has a kernel of its own; otherwise it shares this host's.
///
/// The command returns when the guest is ready. It is ready although some of its units failed: each is told on stderr.
#[derive(Debug, Args)]
#[command(override_usage = "pronto create [OPTIONS] IMAGE|FILE.cfg [key=value …]")]
pub struct Create {
    /// The domain's name; made from the image if it is not given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    options: guest::GuestOptions,
    #[command(flatten)]
    machine: guest::MachineOptions,
    /// Take this xl.cfg file, whatever its name; a word that ends in .cfg is one, too
    #[arg(short = 'f', long = "defconfig", value_name = "FILE", value_parser = OsStringValueParser::new())]
    file: Option<OsString>,
    /// Discard the domain when it ends
    #[arg(long)]
    rm: bool,
    /// Replace a shut-off domain of this name
    #[arg(long)]
    replace: bool,
    /// Wait until the guest is ready (the default)
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// Return as soon as the guest's init runs
    #[arg(long)]
    no_wait: bool,
    /// How long to wait: 90, 90s, 2m, 1h; 120s if it is not given, 600s for an emulated guest
    #[arg(long, value_name = "D", value_parser = words::duration)]
    timeout: Option<Duration>,
    /// Keep a domain that was not ready in time
    #[arg(long)]
    keep: bool,
    /// Attach to the console at once
    #[arg(short, long)]
    console: bool,
    /// Leave the domain paused
    #[arg(short, long)]
    paused: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Print what would be made, and make nothing
    #[arg(short = 'n', long = "dry-run", alias = "dryrun")]
    dry_run: bool,
    /// The image or an xl.cfg file, and keys with their values in any order
    #[arg(value_name = "IMAGE|FILE.cfg|key=value", value_parser = OsStringValueParser::new())]
    words: Vec<OsString>,
}

impl Verb for Create {
    const NAME: &'static str = "create";
    const DRY_RUN: bool = true;

    fn run(mut self, front: &Front) -> Outcome {
        let front = front.hushed(self.quiet);
        let words = gather::gather(Self::NAME, self.file, self.words, &front.talk)?;
        let access = std::mem::take(&mut self.options.access);
        let mut what = request::request(Self::NAME, &words, self.name, self.options, self.machine, &front)?;
        what.replace = self.replace;
        what.keep = self.keep;
        what.timeout = self.timeout;
        what.paused = self.paused;
        what.spec.rm = self.rm;
        // A console shows the boot itself, and a paused guest is never ready: there one waits only when told to.
        what.wait = self.wait || !(self.no_wait || self.console || self.paused);
        if self.dry_run || front.globals.dry_run {
            return details::print_request(&what).map(|()| 0);
        }
        let ctx = Ctx { access: access.access()?, ..front.ctx(Self::NAME)? };
        let created = ops::create::create(&ctx, what).map_err(guest::not_made)?;
        guest::tell_failed_units(&ctx, &created);
        if self.console {
            ops::console::console(&ctx, &guest::by_name(&created.name))?;
        }
        Ok(0)
    }
}

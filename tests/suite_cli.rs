//! The command line by the real binary: what each word means, what is said, where, and with which exit code. What a newcomer
//! would get wrong: a store of its own is given to every call (`PRONTO_ROOT`), and nothing here starts a guest; the sentences
//! in the tables were captured from the real `xl` (Xen 4.17) with `xl` replaced by `pronto`.

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pronto::sys::process::Tool;
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_pronto");

/// xl's verbs: tools/xl/xl_cmdtable.c of Xen 4.21.
const XL: &str = "
    block-attach block-detach block-list button-press cd-eject cd-insert channel-list claims config-update console
    cpupool-cpu-add cpupool-cpu-remove cpupool-create cpupool-destroy cpupool-list cpupool-migrate
    cpupool-numa-split cpupool-rename create debug-keys destroy devd dmesg domid domname dt-overlay dump-core
    getenforce info list loadpolicy mem-max mem-set migrate migrate-receive network-attach network-detach
    network-list pause pci-assignable-add pci-assignable-list pci-assignable-remove pci-attach pci-detach pci-list
    psr-cat-set psr-cat-show psr-cmt-attach psr-cmt-detach psr-cmt-show psr-hwinfo psr-mba-set psr-mba-show
    qemu-monitor-command reboot remus rename restore resume save sched-credit sched-credit2 sched-rtds
    set-parameters setenforce sharing shutdown suspend sysrq top trigger unpause uptime usb-list usbctrl-attach
    usbctrl-detach usbdev-attach usbdev-detach vcpu-list vcpu-pin vcpu-set vdispl-attach vdispl-detach vdispl-list
    vkb-attach vkb-detach vkb-list vm-list vncviewer vsnd-attach vsnd-detach vsnd-list vtpm-attach vtpm-detach
    vtpm-list xenstore-quota-get xenstore-quota-set
";

/// xm's verbs that xl does not have, with its aliases: tools/python/xen/xm/main.py of Xen 4.4.
const XM: &str = "
    addlabel balloon block-configure cpupool-delete cpupool-new cpupool-start delete domstate dry-run dumppolicy
    event-monitor getlabel getpolicy labels log network-del network-new network-show network2-attach
    network2-detach network2-list new pci-list-assignable-devices pool-cpu-add pool-cpu-remove pool-create
    pool-delete pool-destroy pool-list pool-migrate pool-new pool-start reset resetpolicy resources rmlabel
    sched-sedf scsi-attach scsi-detach scsi-list serve set-vcpus setpolicy shell start tmem-destroy tmem-flush
    tmem-freeable tmem-freeze tmem-list tmem-set tmem-shared-auth tmem-thaw usb-add usb-attach usb-del usb-detach
    usb-hc-create usb-hc-destroy usb-list-assignable-devices vbd-create vbd-destroy vbd-list vif-list vnet-create
    vnet-delete vnet-list
";

/// What came of a call.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// A place of its own for every test: an empty working directory beside an empty store.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Place { dir }
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Runs the binary with words and lets `more` change the command.
    fn run_with<W: AsRef<OsStr>>(&self, program: &Path, words: &[W], more: impl FnOnce(&mut Command)) -> Said {
        let mut tool = Tool::new(program).args(words);
        let command = tool.command();
        command.current_dir(self.work()).env("PRONTO_ROOT", self.store());
        more(command);
        let output = command.output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn words<W: AsRef<OsStr>>(&self, words: &[W]) -> Said {
        self.run_with(Path::new(BINARY), words, |_| {})
    }

    /// Runs a line whose words are separated by blanks.
    fn line(&self, line: &str) -> Said {
        self.words(&line.split_whitespace().collect::<Vec<_>>())
    }

    fn has_no_store(&self) -> bool {
        !self.store().exists()
    }
}

fn names(table: &str) -> Vec<&str> {
    table.split_whitespace().collect()
}

/// Whether `pronto VERB -h` is help: then the verb is ours.
fn is_ours(place: &Place, verb: &str) -> bool {
    let said = place.words(&[verb, "-h"]);
    said.code == 0 && said.out.contains("Usage: pronto") && said.err.is_empty()
}

#[test]
fn every_verb_of_xl_and_xm_is_a_verb_here() {
    let place = Place::new();
    assert_eq!(names(XL).len(), 97);
    let mut ours = Vec::new();
    for (dialect, table) in [("xl", XL), ("xm", XM)] {
        for verb in names(table) {
            if is_ours(&place, verb) {
                ours.push(verb);
                continue;
            }
            // Words behind it change nothing: it is no image and takes no command.
            for words in [vec![verb], vec![verb, "-h"], vec![verb, "debian/bookworm", "-x"]] {
                let said = place.words(&words);
                let line = said.err.strip_suffix('\n').unwrap();
                assert_eq!((said.code, said.out.as_str()), (1, ""), "{words:?}: {said:?}");
                assert!(line.starts_with(&format!("pronto: {dialect} command '{verb}' ")), "{words:?}: {line}");
                assert_eq!(line.lines().count(), 1, "{line}");
                assert!(line.len() > format!("pronto: {dialect} command '{verb}' ").len() + 10, "says nothing: {line}");
            }
        }
    }
    let want = "block-attach block-detach block-list console create delete destroy domid domname dump-core info list mem-set \
                network-attach network-detach network-list new pause qemu-monitor-command reboot rename restore save shutdown \
                start trigger unpause uptime vcpu-list";
    ours.sort_unstable();
    assert_eq!(ours, names(want));
    assert!(place.has_no_store(), "a word that cannot be obeyed must not make a store");
}

#[test]
fn prefixes_are_xls() {
    let place = Place::new();
    for (prefix, verb) in [
        ("crea", "create"),
        ("li", "list"),
        ("cons", "console"),
        ("dest", "destroy"),
        ("shut", "shutdown"),
        ("reb", "reboot"),
        ("pau", "pause"),
        ("unp", "unpause"),
        ("ren", "rename"),
        ("domi", "domid"),
        ("domn", "domname"),
        ("up", "uptime"),
        ("inf", "info"),
        ("pul", "pull"),
        ("ima", "images"),
        ("imp", "import"),
        ("rmi", "rmi"),
        ("exe", "exec"),
        ("exp", "export"),
        ("ca", "cache"),
        ("ru", "run"),
        ("bin", "binfmt"),
        ("doc", "doctor"),
        ("arc", "arch"),
        ("comp", "completions"),
        ("delet", "delete"),
        ("star", "start"),
        ("hel", "help"),
    ] {
        let (short, long) = (place.words(&[prefix, "-h"]), place.words(&[verb, "-h"]));
        assert_eq!(short.code, 0, "{prefix}: {short:?}");
        assert_eq!(short.out, long.out, "{prefix}");
        assert!(long.out.contains(&format!("Usage: pronto {verb}")), "{verb}: {}", long.out);
    }
    for (prefix, verbs) in [
        ("con", "console, config-update"),
        ("dom", "domid, domname, domstate"),
        ("vcpu-", "vcpu-list, vcpu-pin, vcpu-set"),
    ] {
        let said = place.words(&[prefix, "x"]);
        assert_eq!((said.code, said.out.as_str()), (1, ""));
        assert_eq!(said.err, format!("pronto: '{prefix}' is the beginning of several verbs: {verbs}\n"));
    }
    let said = place.line("sus demo");
    assert!(said.code == 1 && said.err.starts_with("pronto: xl command 'suspend' "), "{said:?}");
}

/// A proxy that nobody must speak to: what a library of ours would fetch goes there first.
struct Silence(TcpListener);

impl Silence {
    fn new() -> Silence {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Silence(listener)
    }

    fn set(&self, command: &mut Command) {
        let url = format!("http://{}", self.0.local_addr().unwrap());
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(name, &url);
        }
        command.env_remove("no_proxy").env_remove("NO_PROXY");
    }

    fn was_kept(&self) -> bool {
        self.0.accept().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }
}

#[test]
fn a_word_that_is_nothing_is_never_fetched() {
    let place = Place::new();
    let silence = Silence::new();
    for (word, near) in [
        ("craete", "'pronto create'"),
        ("lsit", "'pronto list'"),
        ("destory", "'pronto destroy'"),
        ("debain", "'pronto debian/"),
        ("debian", "'pronto debian/"),
        ("ps", "'pronto list'"),
        ("rm", "'pronto delete'"),
        ("stop", "'pronto shutdown'"),
        ("alpine", "'pronto alpine/"),
        ("frobnicate", "'pronto help'"),
        ("", "'pronto help'"),
        (".", "'pronto help'"),
        ("a\u{1b}[2Jb", "'pronto help'"),
    ] {
        for words in [vec![word], vec![word, "uname", "-m"], vec!["--arch", "arm64", word, "true"]] {
            let said = place.run_with(Path::new(BINARY), &words, |c| silence.set(c));
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{words:?}: {said:?}");
            let (first, rest) = said.err.split_once('\n').unwrap();
            let shown: String =
                word.chars().map(|c| if c == '\u{1b}' { r"\u{1b}".to_owned() } else { c.to_string() }).collect();
            assert_eq!(first, format!("pronto: unknown command or image '{shown}'"));
            if word != "." {
                assert!(rest.starts_with("  try: ") && rest.contains(near), "{word}: {rest}");
            }
        }
    }
    assert!(silence.was_kept(), "a mistyped word went to the network");
    assert!(place.has_no_store());

    std::fs::create_dir(place.work().join("tree")).unwrap();
    let said = place.line("tree ls");
    assert_eq!(said.code, 1);
    assert!(said.err.contains("'./tree'"), "a directory of that name is offered: {}", said.err);
}

#[test]
fn a_mistyped_label_that_nobody_has_is_told_the_right_one() {
    let place = Place::new();
    if !nix::unistd::geteuid().is_root() {
        // Without root nothing is fetched at all.
        assert!(place.line("pull debain/bookworm").err.contains("needs root"));
        return;
    }
    for (line, code) in [
        ("pull debain/bookworm", 1),
        ("create debain/bookworm", 3),
        ("run debain/bookworm -- true", 125),
        ("debain/bookworm true", 125),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        // Port 1 refuses: no registry of the internet's is asked.
        let said = place.run_with(Path::new(BINARY), &words, |c| {
            c.env("https_proxy", "http://127.0.0.1:1").env("HTTPS_PROXY", "http://127.0.0.1:1");
            c.env_remove("no_proxy").env_remove("NO_PROXY");
        });
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{line}: {said:?}");
        assert!(said.err.contains("\npronto: cannot get image 'debain/bookworm'\n"), "{line}: {said:?}");
        assert!(said.err.ends_with("\n  try: did you mean debian/bookworm?\n"), "{line}: {said:?}");
    }
}

#[test]
fn what_looks_like_an_image_is_one() {
    let place = Place::new();
    // Without a command the short form says what it took the word for, and does nothing.
    for image in
        ["debian/bookworm", "debian:12", "x@sha256:00", "./tree", "/srv/tree", "oci:dir:tag", "debian-bullseye", "a/b"]
    {
        let said = place.line(image);
        assert_eq!((said.code, said.out.as_str()), (125, ""), "{image}");
        assert!(
            said.err.starts_with(&format!("pronto: '{image}' is an image, and no command follows it\n")),
            "{said:?}"
        );
        assert_eq!(place.line(&format!("{image} --")).code, 125, "a lone -- is no command");
    }
    let raw = OsString::from_vec(b"./\xff".to_vec());
    let said = place.words(&[raw.as_os_str(), OsStr::new("true")]);
    assert_eq!(said.code, 125, "{said:?}");
    let said = place.words(&[OsStr::from_bytes(b"\xff")]);
    assert!(said.code == 1 && said.err.starts_with("pronto: unknown command or image"), "{said:?}");
    assert!(place.has_no_store());
}

#[test]
fn usage_is_said_as_xl_says_it() {
    let place = Place::new();
    let cases: &[(&str, i32, &str)] = &[
        // Captured from xl.
        ("destroy", 2, "'pronto destroy' requires at least 1 argument.\n"),
        ("pause", 2, "'pronto pause' requires at least 1 argument.\n"),
        ("unpause", 2, "'pronto unpause' requires at least 1 argument.\n"),
        ("console", 2, "'pronto console' requires at least 1 argument.\n"),
        ("rename", 2, "'pronto rename' requires at least 2 arguments.\n"),
        ("rename old", 2, "'pronto rename' requires at least 2 arguments.\n"),
        ("domid", 2, "'pronto domid' requires at least 1 argument.\n"),
        ("domname", 2, "'pronto domname' requires at least 1 argument.\n"),
        ("domname xyz", 1, "Invalid domain id.\n\n"),
        ("shutdown", 1, "You must specify -a or a domain id.\n"),
        ("reboot", 1, "You must specify -a or a domain id.\n"),
        ("list -x", 2, "option `x' not supported.\n"),
        ("destroy -x demo", 2, "option `x' not supported.\n"),
        ("-N list", 1, "command does not implement -N (dryrun) option\n"),
        ("--nosuch list", 1, "pronto: invalid option --nosuch\nunknown global option\n"),
        // Ours.
        ("create", 6, "Image not specified: pronto create IMAGE [key=value …]\n"),
        ("create name=x -c", 6, "Image not specified: pronto create IMAGE [key=value …]\n"),
        ("create a/b c/d", 2, "pronto: create takes one image: both 'a/b' and 'c/d' were given\n"),
        ("create a/b --nosuch", 2, "option `--nosuch' not supported.\n"),
        ("create a/b --name", 2, "option `--name' needs a value.\n"),
        ("create a/b --wait --no-wait", 2, "pronto: the argument '--wait' cannot be used with '--no-wait'\n"),
        ("list -Z", 2, "option `Z' not supported.\n  because: security labels need a Xen host\n"),
        (
            "create f -F",
            2,
            "option `F' not supported.\n  because: the domain has a monitor of its own; 'pronto logs -f NAME' follows it until its end\n",
        ),
        ("pause a b", 2, "'pronto pause' takes at most 1 argument: 'b' is one too many.\n"),
        ("images x", 2, "'pronto images' takes no arguments, but 'x' was given.\n"),
        ("list --format yaml", 2, "pronto: --format: 'yaml' is not possible\n  try: table, json\n"),
        (
            "rename a 12",
            2,
            "pronto: '12' is no name but a domid: a domain's name needs a character that is not a digit\n",
        ),
        (
            "create a/b name=12",
            2,
            "pronto: 'name=12': name: '12' is no name but a domid: a domain's name needs a character that is not a digit\n",
        ),
        ("create a/b disk=x", 2, "pronto: 'disk=x': disk: expected a list, found 'x'; write disk = [ \"x\" ]\n"),
        ("create a/b memroy=1", 2, "pronto: unknown key 'memroy': did you mean memory?\n"),
        ("create a/b --name x name=y", 2, "pronto: --name and name= say different things: give one of them\n"),
        ("create a/b memory=2g maxmem=1g", 2, "pronto: 'maxmem=1g': maxmem (1g) is less than memory (2g)\n"),
        (
            "create x.cfg",
            3,
            "pronto: cannot read the configuration file 'x.cfg'\n  because: No such file or directory (os error 2)\n",
        ),
        (
            "create -f nothere a/b",
            3,
            "pronto: cannot read the configuration file 'nothere'\n  because: No such file or directory (os error 2)\n",
        ),
        ("create x.cfg y.cfg", 2, "pronto: create takes one configuration file: both 'x.cfg' and 'y.cfg' were given\n"),
        ("create a/b image=c/d", 2, "pronto: the image is 'a/b', and image= says 'c/d': give one of them\n"),
        (
            "pull x.cfg",
            2,
            "pronto: 'x.cfg' looks like an xl.cfg file, not like an image\n  try: pronto create FILE, or pronto new FILE\n",
        ),
        (
            "create a/b --backend xen",
            3,
            "pronto: the driver of a Xen host is not joined yet\n  try: leave 'xen' out: --backend qemu makes guests with a kernel of their own\n",
        ),
        (
            "create a/b --backend bhyve",
            2,
            "pronto: --backend: 'bhyve' is no backend: nspawn (kaxon, kx), qemu, xen, hexagon (hx) or auto\n",
        ),
        (
            "create a/b --backend kx backend=qemu",
            2,
            "pronto: --backend and backend= say different things: give one of them\n",
        ),
        (
            "create a/b --accel kvm",
            2,
            "pronto: --accel: kvm and tcg are for guests with a kernel of their own (backend qemu): here it is off, tools or build\n",
        ),
        ("create a/b --publish 80:80", 2, "pronto: --publish needs a guest with a kernel of its own: --backend qemu\n"),
        ("create a/b --ramdisk /r", 2, "pronto: --ramdisk needs a guest with a kernel of its own: --backend qemu\n"),
        (
            "create a/b --backend qemu --ramdisk /r",
            2,
            "pronto: --ramdisk: it is loaded beside a kernel that is named, and there is no --kernel and no kernel=\n",
        ),
        (
            "create a/b --publish 80",
            2,
            "pronto: --publish: '80' is no port that leads into a guest: write [ADDR:]HOST:GUEST[/udp], as 8080:80\n",
        ),
        (
            "create a/b --disk /srv/a.img",
            2,
            "pronto: --disk: no vdev: expected a name for the disk, as xvda (in '/srv/a.img')\n",
        ),
        (
            "create a/b on_crash=preserve",
            2,
            "pronto: 'on_crash=preserve': on_crash: 'preserve' needs a guest with a kernel of its own (backend=qemu): here it is destroy or restart\n",
        ),
        ("create a/b -v /a", 2, "pronto: --volume: '/a' says nothing of where it goes: write SRC:DST or SRC:DST:ro\n"),
        ("create a/b -v /a:b", 2, "pronto: --volume: the path in the guest must be absolute, 'b' is not\n"),
        (
            "create a/b --timeout 5x",
            2,
            "pronto: --timeout: '5x' is no length of time: write 90, 90s, 2m, 1h or 500ms\n",
        ),
        ("create a/b --network wifi", 2, "pronto: --network: 'wifi' is no network: host or none\n"),
        ("binfmt", 2, "'pronto binfmt' requires at least 1 argument.\n"),
        ("arch show", 2, "'pronto arch show' requires at least 1 argument.\n"),
        ("arch show a b", 2, "'pronto arch show' takes at most 1 argument: 'b' is one too many.\n"),
        ("arch frob", 2, "pronto: 'pronto arch' has no command 'frob'\n  try: list, show\n"),
        ("binfmt status -x", 2, "option `x' not supported.\n"),
        // Around a command of the user's, docker's code.
        ("run", 125, "'pronto run' requires at least 1 argument.\n"),
        ("run --nosuch a/b", 125, "option `--nosuch' not supported.\n"),
        ("run --boot a/b", 125, "pronto: run --boot needs a command: pronto run --boot IMAGE COMMAND…\n"),
        ("exec", 125, "'pronto exec' requires at least 1 argument.\n"),
        ("exec demo", 125, "'pronto exec' requires at least 2 arguments.\n"),
        ("exec demo --", 125, "'pronto exec' requires at least 2 arguments.\n"),
        ("exec -x demo true", 125, "option `x' not supported.\n"),
    ];
    for &(line, code, err) in cases {
        let said = place.line(line);
        assert_eq!((said.code, said.err.as_str()), (code, err), "pronto {line}");
        let shows_help = err.contains("requires at least") && !err.contains("exec' requires at least 2");
        assert_eq!(said.out.contains("Usage: pronto"), shows_help, "pronto {line}: {}", said.out);
        assert!(shows_help || said.out.is_empty(), "pronto {line}: {}", said.out);
    }
    assert!(place.has_no_store(), "wrong words must not make a store");
}

/// Captured from xl; pronto's own verbs say the same.
#[test]
fn a_missing_domain_is_said_as_xl_says_it() {
    let place = Place::new();
    if !nix::unistd::geteuid().is_root() {
        // Without root there is no store to look into: that is said, and tested below.
        assert!(place.line("list nosuch").err.contains("needs root"));
        return;
    }
    let header = "Name                                        ID   Mem VCPUs\tState\tTime(s)\n";
    let invalid = "nosuch is an invalid domain identifier (rc=-6)\n";
    let cases: &[(&str, i32, &str, &str)] = &[
        ("list", 0, header, ""),
        (
            "list -v",
            0,
            "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label\n",
            "",
        ),
        ("list -l", 0, "[]\n\n", ""),
        ("list --format json", 0, "[]\n", ""),
        ("uptime", 0, "Name                                ID Uptime\n", ""),
        ("uptime -s", 0, "", ""),
        ("list nosuch", 1, "", invalid),
        ("list -l nosuch", 1, "", invalid),
        ("list 99", 1, "", "Error: Domain '99' does not exist.\n"),
        ("domid nosuch", 1, "", "Can't get domid of domain name 'nosuch', maybe this domain does not exist.\n"),
        ("domid 1", 1, "", "Can't get domid of domain name '1', maybe this domain does not exist.\n"),
        ("domname 77", 1, "", "Can't get domain name of domain id '77', maybe this domain does not exist.\n"),
        ("pause nosuch", 1, "", invalid),
        ("unpause nosuch", 1, "", invalid),
        ("shutdown nosuch", 1, "", invalid),
        ("shutdown -w nosuch", 1, "", invalid),
        ("reboot nosuch", 1, "", invalid),
        ("destroy nosuch", 1, "", invalid),
        ("console nosuch", 1, "", invalid),
        ("uptime nosuch", 1, "", invalid),
        ("rename nosuch x", 1, "", invalid),
        ("start nosuch", 1, "", invalid),
        ("delete nosuch", 1, "", invalid),
        ("logs nosuch", 1, "", invalid),
        ("exec nosuch true", 1, "", invalid),
        ("shutdown -a", 0, "", ""),
    ];
    for &(line, code, out, err) in cases {
        let said = place.line(line);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (code, out, err), "pronto {line}");
    }
    // A path that is not there is no image: create fails as xl's does without its file, and leaves nothing.
    for line in ["create ./nothere", "create -q /nonexist/tree name=x"] {
        let said = place.line(line);
        assert_eq!((said.code, said.out.as_str()), (3, ""), "{line}: {said:?}");
        assert!(said.err.contains("No such file or directory"), "{line}: {}", said.err);
    }
    assert_eq!(place.line("./nothere true").code, 125);
    // A guest of disks alone is described, and shown by a dry run, but cannot be made yet.
    let said = place.line("create name=x disk=['/srv/x.img,raw,xvda']");
    let want =
        "pronto: a domain of disks alone, without an image, cannot be made yet\n  try: name an image for its root: ";
    assert!(said.code == 3 && said.err.starts_with(want), "{said:?}");
    assert_eq!(place.line("list -a").out, header, "nothing is left behind");
}

#[test]
fn help_goes_to_stdout() {
    let place = Place::new();
    let no_words = place.line("");
    assert_eq!((no_words.code, no_words.err.as_str()), (1, ""), "as xl");
    for line in ["help", "-h", "--help"] {
        let said = place.line(line);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{line}");
        assert_eq!(said.out, no_words.out, "{line}");
    }
    let listed: Vec<&str> = no_words.out.lines().filter_map(|l| l.strip_prefix("  ")?.split(' ').next()).collect();
    for verb in ["create", "run", "list", "console", "exec", "logs", "cp", "binfmt", "arch", "doctor", "completions"] {
        assert!(listed.contains(&verb), "{verb} is missing in the help");
        let (long, short) = (place.words(&["help", verb]), place.words(&[verb, "-h"]));
        assert_eq!((long.code, short.code), (0, 0), "{verb}");
        assert!(long.out.contains(&format!("pronto {verb}")), "{verb}: {}", long.out);
    }
    assert!(!no_words.out.contains("__"), "internal verbs are no part of the help");
    let version = format!("pronto {}\n", env!("CARGO_PKG_VERSION"));
    for line in ["--version", "-V", "version"] {
        assert_eq!(place.line(line).out, version);
    }
    let said = place.line("help sharing");
    assert!(said.code == 1 && said.err.contains("needs a Xen host"), "{said:?}");
    assert_eq!(place.line("help frobnicate").code, 1);
    assert!(place.has_no_store());
}

/// `create -n` prints what would be made.
fn dry(place: &Place, words: &[&str]) -> Value {
    let said = place.words(&[&["create", "-n"], words].concat());
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn options_and_keys_stand_in_any_order() {
    let place = Place::new();
    let want = dry(&place, &["debian/bookworm", "--name", "web", "-p", "memory=512", "vcpus=2", "--arch", "arm64"]);
    for words in [
        vec!["memory=512", "debian/bookworm", "vcpus=2", "-p", "name=web", "arch=arm64"],
        vec!["-p", "--arch=arm64", "vcpus='2'", "debian/bookworm", "memory=\"512m\"", "name=\"web\""],
        vec!["debian/bookworm", "vcpus=7", "-p", "memory=1", "memory = 524288k", "vcpus=2", "--name=web", "arch=arm64"],
    ] {
        assert_eq!(dry(&place, &words), want, "{words:?}");
    }
    assert_eq!(want["c_info"], json!({"type": "kaxon", "name": "web"}));
    assert_eq!(want["b_info"], json!({"max_vcpus": 2, "max_memkb": 524_288, "target_memkb": 524_288}));
    assert_eq!((&want["on_poweroff"], &want["on_reboot"]), (&json!("destroy"), &json!("restart")));
    assert_eq!((&want["pronto"]["arch"], &want["pronto"]["paused"]), (&json!("arm64"), &json!(true)));

    let global = place.line("--arch riscv64 create -n a/b");
    assert_eq!(serde_json::from_str::<Value>(&global.out).unwrap()["pronto"]["arch"], "riscv64");
    let all = dry(
        &place,
        &[
            "a/b",
            "cpus=0-3,^1",
            "hostname=h",
            "network=none",
            "on_poweroff=restart",
            "on_reboot=destroy",
            "on_crash=restart",
            "maxmem=2g",
            "memory=1g",
            "--rm",
            "--replace",
            "--no-wait",
            "--timeout",
            "1h30m",
            "--keep",
            "--mirror",
            "http://m/",
        ],
    );
    assert_eq!(all["b_info"], json!({"max_memkb": 2 << 20, "target_memkb": 1 << 20}));
    assert_eq!(
        (&all["on_poweroff"], &all["on_reboot"], &all["on_crash"]),
        (&json!("restart"), &json!("destroy"), &json!("restart"))
    );
    let ours = &all["pronto"];
    for (key, value) in [
        ("cpus", json!("0,2-3")),
        ("hostname", json!("h")),
        ("network", json!("none")),
        ("rm", json!(true)),
        ("replace", json!(true)),
        ("wait", json!(false)),
        ("timeout", json!(5400)),
        ("keep", json!(true)),
        ("mirror", json!("http://m/")),
    ] {
        assert_eq!(ours[key], value, "{key}");
    }
    for (line, wait) in
        [("a/b", true), ("-c a/b", false), ("-p a/b", false), ("-c --wait a/b", true), ("--wait a/b", true)]
    {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(dry(&place, &words)["pronto"]["wait"], wait, "{line}");
    }
    assert!(place.has_no_store(), "a dry run touches nothing");
    assert_eq!(place.line("new -n a/b name=x").code, 0);
    assert_eq!(place.line("-N create a/b").code, 0);
}

#[test]
fn binds_and_variables() {
    let place = Place::new();
    let said = place.run_with(
        Path::new(BINARY),
        &[
            "create",
            "-n",
            "a/b",
            "-v",
            "tree:/in",
            "-v",
            r"/a\:b:/c\:d:ro",
            "-e",
            "A=1=2",
            "-e",
            "SET",
            "-e",
            "UNSET",
            "-e",
            "E=",
        ],
        |c| {
            c.env("SET", "from outside").env_remove("UNSET").env("PRONTO_MIRROR", "http://env/");
        },
    );
    let made: Value = serde_json::from_str(&said.out).unwrap();
    let tree = place.work().canonicalize().unwrap().join("tree");
    assert_eq!(
        made["pronto"]["binds"],
        json!([
            {"source": tree, "target": "/in", "read_only": false},
            {"source": "/a:b", "target": "/c:d", "read_only": true}
        ])
    );
    assert_eq!(made["pronto"]["env"], json!([["A", "1=2"], ["SET", "from outside"], ["E", ""]]));
    assert_eq!(made["pronto"]["mirror"], "http://env/");
}

/// Keys that xl knows and a guest that shares the kernel does nothing with are told; a word that nobody knows is refused.
#[test]
fn every_xl_cfg_key_is_obeyed_or_named() {
    let place = Place::new();
    for key in names(
        "extra ramdisk cmdline root maxvcpus cpu_weight cap pool type builder bootloader uuid vnc on_watchdog firmware",
    ) {
        let word = match key {
            "cpu_weight" | "cap" | "maxvcpus" | "vnc" => format!("{key}=1"),
            "type" => "type=pvh".to_owned(),
            "builder" => "builder=generic".to_owned(),
            "on_watchdog" => "on_watchdog=restart".to_owned(),
            "uuid" => "uuid=6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned(),
            _ => format!("{key}=x"),
        };
        let said = place.words(&["create", "-n", "a/b", &word]);
        let want = format!("pronto: warning: '{word}': '{key}' does nothing on kaxon\n");
        assert_eq!((said.code, said.err), (0, want), "{word}");
        let made: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(made["pronto"]["backend"], "nspawn", "{word}");
        assert_eq!(place.words(&["create", "-q", "-n", "a/b", &word]).err, "", "-q says nothing but errors");
    }
    for (word, says) in [
        ("nonsense=1", "unknown key 'nonsense'"),
        ("memroy=1", "unknown key 'memroy': did you mean memory?"),
        ("Memory=1", "'Memory=1': expected a key, found 'Memory'; keys are in small letters: memory"),
    ] {
        let said = place.words(&["create", "-n", "a/b", word]);
        assert!(said.code == 2 && said.err.starts_with(&format!("pronto: {says}")), "{said:?}");
    }
}

/// A file below the working directory.
fn config(place: &Place, name: &str, text: &str) {
    pronto::sys::fs::write_volatile(&place.work().join(name), text.as_bytes(), 0o644).unwrap();
}

const WEB: &str = "\
# A guest with a kernel of its own.
name = 'web'
image = 'debian/bookworm'
arch = 'arm64'
memory = 512
vcpus = 1
maxvcpus = 2
kernel = 'boot/vmlinuz'
ramdisk = '/boot/initrd'
root = '/dev/xvda'
extra = 'quiet'
disk = [ 'format=raw,vdev=xvdb,target=/srv/b.img' ]
vif = [ 'bridge=br0' ]
on_crash = 'coredump-restart'
accel = 'tcg'
";

#[test]
fn a_configuration_file_is_a_guest() {
    let place = Place::new();
    config(&place, "web.cfg", WEB);
    config(&place, "web", WEB);
    let said = place.line("create -n web.cfg");
    assert_eq!((said.code, said.err.as_str()), (0, "Parsing config from web.cfg\n"));
    let made: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(made["c_info"], json!({"type": "qemu", "name": "web"}));
    let kernel = place.work().canonicalize().unwrap().join("boot/vmlinuz");
    assert_eq!(
        made["b_info"],
        json!({"max_vcpus": 2, "max_memkb": 524_288, "target_memkb": 524_288, "kernel": kernel,
            "ramdisk": "/boot/initrd", "cmdline": "root=/dev/xvda quiet"})
    );
    assert_eq!(made["on_crash"], "coredump_restart");
    for (key, value) in [
        ("image", json!("debian/bookworm")),
        ("backend", json!("qemu")),
        ("arch", json!("arm64")),
        ("vcpus", json!(1)),
        ("executor", json!("tcg")),
        ("disks", json!(["format=raw,vdev=xvdb,target=/srv/b.img"])),
        ("vifs", json!(["bridge=br0"])),
        ("accel", json!("off")),
    ] {
        assert_eq!(made["pronto"][key], value, "{key}");
    }
    // However it is named, and whichever verb reads it.
    for line in ["create -n -f web", "create -n --defconfig=web", "create -nf web.cfg", "-N create web.cfg"] {
        assert_eq!(place.line(line).out, said.out, "{line}");
    }
    let new = place.line("new -n ./web.cfg");
    assert_eq!((new.code, new.err.as_str()), (0, "Parsing config from ./web.cfg\n"));
    assert_eq!(place.line("create -q -n web.cfg").err, "");
    assert!(place.has_no_store());
}

#[test]
fn words_count_more_than_the_file() {
    let place = Place::new();
    config(&place, "web.cfg", WEB);
    let made = |line: &str| {
        let said = place.line(&format!("create -q -n {line}"));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{line}");
        serde_json::from_str::<Value>(&said.out).unwrap()
    };
    assert_eq!(made("web.cfg name=b")["c_info"]["name"], "b");
    assert_eq!(made("name=b web.cfg")["c_info"]["name"], "b");
    assert_eq!(made("--name c web.cfg")["c_info"]["name"], "c");
    assert_eq!(made("web.cfg cmdline=ro")["b_info"]["cmdline"], "ro");
    assert_eq!(made("web.cfg disk+=['/srv/c.img,raw,xvdc']")["pronto"]["disks"][1], "/srv/c.img,raw,xvdc");
    assert_eq!(made("web.cfg --disk /srv/c.img,raw,xvdc")["pronto"]["disks"][1], "/srv/c.img,raw,xvdc");
    assert_eq!(made("web.cfg ./tree")["pronto"]["image"], "./tree");
    assert_eq!(made("web.cfg image=x/y")["pronto"]["image"], "x/y");
    assert_eq!(made("--accel kvm web.cfg")["pronto"]["executor"], "kvm");
    let said = place.line("create -n web.cfg --name a name=b");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.ends_with("pronto: --name and name= say different things: give one of them\n"), "{said:?}");
    let ports = made("a/b --backend qemu --publish 127.0.0.1:8080:80 --publish 53:53/udp");
    assert_eq!(
        ports["pronto"]["publish"],
        json!([
            {"address": "127.0.0.1", "host": 8080, "guest": 80, "udp": false},
            {"address": null, "host": 53, "guest": 53, "udp": true}
        ])
    );
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_place() {
    let place = Place::new();
    let small = "image = 'a/b'\n";
    for (text, code, says) in [
        (
            "name = web\n",
            1,
            "pronto: x.cfg:1:8: expected a value of 'name': a text in quotes, a number or a list, found 'web'",
        ),
        ("name = 'x'\nmemory = 'lots'\n", 1, "pronto: x.cfg:2:10: memory: expected a size"),
        ("disk = [\n 'x',\n]\n", 1, "pronto: x.cfg:2:2: disk: no vdev"),
        ("image = 'a/b'\non_crash = 'preserve'", 1, "pronto: x.cfg:2:12: on_crash: 'preserve' needs a guest with"),
        ("image = 'a/b'\non_reboot = 'rename-restart'", 1, "pronto: x.cfg:2:13: on_reboot: 'rename-restart' cannot"),
        ("image = 'a/b'\nvif = [ 'mac=x' ]", 1, "pronto: x.cfg:2:9: vif: "),
        ("image = 'a/b'\ndisk = [ '/a,raw,xvda' ]", 1, "pronto: x.cfg:2:8: disk: the disk xvda is made from the image"),
        ("image = 'a/b'\nbackend = 'qemu'; ramdisk = '/r'", 1, "pronto: x.cfg:2:29: ramdisk: it is loaded beside"),
        ("name = 'x'\n", 1, "pronto: x.cfg: it has no image=, and neither kernel= nor disk=: there is nothing to boot"),
        ("backend = 'xen'\nimage = 'a/b'", 3, "pronto: x.cfg:1:11: the driver of a Xen host is not joined yet"),
        (
            "accel = 'kvm'\nimage = 'a/b'",
            1,
            "pronto: x.cfg:1:9: accel: kvm and tcg are for guests with a kernel of their own",
        ),
    ] {
        config(&place, "x.cfg", text);
        let said = place.line("create -n x.cfg");
        let line = said.err.strip_prefix("Parsing config from x.cfg\n").unwrap_or(&said.err);
        assert!(said.code == code && line.starts_with(says) && said.out.is_empty(), "{text}: {said:?}");
    }
    // What does nothing is told once, each with its place, whatever nobody knows as well.
    config(&place, "x.cfg", &format!("{small}hap = 1\nonpoweroff = 'x'\nhap = 0\nkernel = '/k'\n"));
    let said = place.line("create -n --backend nspawn x.cfg");
    assert_eq!(
        said.err,
        "Parsing config from x.cfg\n\
         pronto: warning: x.cfg:4:1: 'hap' does nothing on kaxon\n\
         pronto: warning: x.cfg:3:1: 'onpoweroff' is no key, and does nothing; did you mean on_poweroff?\n\
         pronto: warning: x.cfg:5:1: 'kernel' does nothing on kaxon\n"
    );
    let made: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&made["pronto"]["backend"], &made["b_info"]), (&json!("nspawn"), &json!({})));
    let uuid = "uuid=6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let said = place.words(&["create", "-n", "a/b", "backend=qemu", uuid]);
    assert_eq!(said.err, format!("pronto: warning: '{uuid}': 'uuid' does nothing on QEMU\n"), "not yet");
    let said = place.line("create -n a/b --vif bridge=a,rate=1Mb/s --disk script=x,vdev=xvdb,target=/y");
    assert_eq!(
        said.err,
        "pronto: warning: --disk: 'script' does nothing on QEMU\npronto: warning: --vif: 'rate' does nothing on QEMU\n"
    );
    std::fs::create_dir(place.work().join("tree.cfg")).unwrap();
    let said = place.line("create -n ./tree.cfg");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "a directory is an image, whatever its name");
    let said = place.line("create -f /dev/zero a/b");
    assert!(said.code == 3 && said.err.contains("larger than 1 MiB"), "{said:?}");
    assert!(place.has_no_store());
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    let place = Place::new();
    for line in ["help", "completions bash", "create -h", "--version"] {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let mut tool = Tool::new(BINARY).args(line.split(' '));
        tool.command().stdout(writer).stderr(Stdio::piped()).env("PRONTO_ROOT", place.store());
        let output = tool.spawn().unwrap().wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]), "{line}");

        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut tool = Tool::new(BINARY).args(line.split(' '));
        tool.command().stdout(full).stderr(Stdio::piped()).env("PRONTO_ROOT", place.store());
        let output = tool.spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.starts_with("pronto: cannot write to stdout: No space left"), "{line}: {said}");
    }
}

#[test]
fn other_names_of_the_program() {
    let place = Place::new();
    let (kx, hx) = (place.dir.path().join("kx"), place.dir.path().join("hx"));
    symlink(BINARY, &kx).unwrap();
    symlink(BINARY, &hx).unwrap();
    let run =
        |program: &Path, line: &str| place.run_with(program, &line.split_whitespace().collect::<Vec<_>>(), |_| {});
    for program in [&kx, &hx] {
        let said = run(program, "--version");
        assert_eq!((said.code, said.out), (0, format!("pronto {}\n", env!("CARGO_PKG_VERSION"))));
        assert_eq!(run(program, "help").out, place.line("help").out);
        assert_eq!(run(program, "create").code, 6);
    }
    let backend = |program: &Path, line: &str| {
        let said = run(program, line);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{line}");
        serde_json::from_str::<Value>(&said.out).unwrap()["pronto"]["backend"].clone()
    };
    for verb in ["create", "new"] {
        assert_eq!(backend(&hx, &format!("{verb} -n a/b")), "qemu");
        assert_eq!(backend(&kx, &format!("{verb} -n a/b")), "nspawn");
        assert_eq!(backend(&hx, &format!("{verb} -n a/b backend=qemu")), "qemu");
        assert_eq!(backend(Path::new(BINARY), &format!("--backend hexagon {verb} -n a/b")), "qemu");
        assert_eq!(backend(Path::new(BINARY), &format!("{verb} -n a/b --backend hx")), "qemu");
        assert_eq!(backend(Path::new(BINARY), &format!("{verb} -n a/b")), "nspawn");
    }
    let said = run(&kx, "create -q -n a/b kernel=/k");
    assert_eq!(serde_json::from_str::<Value>(&said.out).unwrap()["pronto"]["backend"], "nspawn", "its name counts");
    for line in ["create -n a/b --backend nspawn", "create -n a/b backend=nspawn"] {
        let said = run(&hx, line);
        assert!(said.code == 2 && said.err.contains("program's name"), "{line}: {said:?}");
    }
    for line in ["a/b true", "run a/b true"] {
        let said = run(&hx, line);
        assert_eq!((said.code, said.out.as_str()), (125, ""), "{line}: {said:?}");
        assert!(
            said.err.starts_with("pronto: one command runs in a guest that shares this host's kernel\n"),
            "{said:?}"
        );
    }
    assert!(place.has_no_store());
}

#[test]
fn who_is_not_root_is_told_in_one_line() {
    let place = Place::new();
    // The build directory may be closed to others: the copy is not. Another process makes it: one that a test beside this one starts just
    // now would have our file open for writing until it is another program, and nobody may run such a file (execve(2), ETXTBSY).
    let open = place.dir.path().join("pronto");
    Tool::new("cp").arg(BINARY).arg(&open).output().unwrap();
    for path in [place.dir.path(), &place.work()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let as_nobody = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        place.run_with(&open, &words, |c| {
            if nix::unistd::geteuid().is_root() {
                c.uid(65534).gid(65534);
            }
        })
    };
    for line in [
        "create a/b",
        "run a/b true",
        "list",
        "console x",
        "exec x true",
        "logs x",
        "cp x:/a b",
        "shutdown x",
        "destroy x",
        "reboot -a",
        "pause x",
        "unpause x",
        "new a/b",
        "start x",
        "delete x",
        "rename x y",
        "domid x",
        "domname 1",
        "uptime",
        "info",
        "pull a/b",
        "images",
        "rmi a/b",
        "binfmt register arm64",
        "binfmt unregister arm64",
        "a/b true",
    ] {
        let said = as_nobody(line);
        let around = ["run", "exec", "a/b"].contains(&line.split(' ').next().unwrap());
        assert_eq!((said.code, said.out.as_str()), (if around { 125 } else { 1 }, ""), "{line}: {said:?}");
        let first = said.err.lines().next().unwrap_or_default();
        assert!(first.starts_with("pronto: ") && first.ends_with(" needs root"), "{line}: {said:?}");
    }
    for line in [
        "help",
        "--version",
        "version",
        "create -h",
        "completions zsh",
        "create -n a/b",
        "arch list",
        "arch show arm64",
        "binfmt status",
    ] {
        assert_eq!(as_nobody(line).code, 0, "{line}");
    }
    assert!(place.has_no_store());
}

#[test]
fn architectures_and_their_interpreters_need_no_root() {
    let place = Place::new();
    let said = place.line("arch list --format json");
    let all: Value = serde_json::from_str(&said.out).unwrap();
    let known: Vec<&str> = all.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    for name in names("amd64 arm64 armel armhf i386 loong64 mips64el ppc64el riscv64 s390x") {
        assert!(known.contains(&name), "{name}");
        assert!(place.line("arch list").out.lines().any(|l| l.split(' ').next() == Some(name)), "{name}");
        // Every other name leads to the same one.
        let profile = all.as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
        for alias in profile["aliases"].as_array().unwrap() {
            let shown = place.words(&["arch", "show", "--format", "json", alias.as_str().unwrap()]);
            assert_eq!(serde_json::from_str::<Value>(&shown.out).unwrap(), *profile, "{alias}");
        }
        let facts = place.words(&["arch", "show", name]).out;
        assert!(facts.starts_with(&format!("name                   : {name}\n")), "{facts}");
    }
    let said = place.line("arch show aarch46");
    assert!(said.code == 1 && said.err.contains("aarch46") && said.err.contains("arm64"), "{said:?}");

    let said = place.line("binfmt status --format json");
    let rows: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), known.len());
    let one = place.line("binfmt status arm64");
    assert_eq!((one.code, one.err.as_str()), (0, ""));
    let columns: Vec<&str> =
        one.out.lines().next().unwrap().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(columns, ["ARCH", "RUNS BY", "INTERPRETER", "VERSION", "FLAGS", "SETUID", "PINNED"]);
    assert!(one.out.lines().nth(1).unwrap().starts_with("arm64 "), "{}", one.out);
    assert!(place.has_no_store(), "looking changes nothing");
}

#[test]
fn doctor_says_a_cure_for_each_fault() {
    let place = Place::new();
    let (table, all) = (place.line("doctor"), place.line("doctor --format json"));
    let findings: Value = serde_json::from_str(&all.out).unwrap();
    let findings = findings.as_array().unwrap();
    for area in ["kernel", "binfmt", "nspawn", "cgroups", "store", "kvm"] {
        assert!(findings.iter().any(|f| f["area"] == area), "{area} was not looked at");
    }
    let mut bad = false;
    for finding in findings {
        let level = finding["level"].as_str().unwrap();
        bad |= level == "bad";
        let line = table.out.lines().find(|l| l.starts_with(level) && l.contains(finding["area"].as_str().unwrap()));
        assert!(line.is_some(), "{finding} is not in the table");
        if level == "bad" {
            assert!(finding["cure"].is_string(), "no cure: {finding}");
        }
    }
    assert_eq!((table.code, all.code), (i32::from(bad), i32::from(bad)));
    assert!(place.has_no_store(), "looking changes nothing");
}

#[test]
fn completions_know_the_verbs_and_nothing_internal() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = place.words(&["completions", shell]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{shell}");
        for word in ["create", "unpause", "completions", "--replace", "--no-credentials"] {
            assert!(said.out.contains(word.trim_start_matches('-')), "{shell} lacks {word}");
        }
        // As whole words: qemu-monitor-command is written with underscores there.
        let mut all = said.out.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(!all.any(|word| word.starts_with("__monitor") || word.starts_with("__enter")), "{shell}");
        // The shell itself says whether it can read the script.
        if pronto::sys::process::find_program(shell).is_some() {
            let script = place.work().join(shell);
            pronto::sys::fs::write_volatile(&script, said.out.as_bytes(), 0o644).unwrap();
            Tool::new(shell).arg("-n").arg(&script).output().unwrap();
        }
    }
    assert_eq!(place.line("completions tcsh").code, 2);
}

#[test]
fn the_reference_pages_are_those_of_the_program() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli");
    let bless = std::env::var_os("PRONTO_BLESS").is_some();
    let pages = pronto::cli::reference::pages();
    if bless {
        std::fs::create_dir_all(&dir).unwrap();
    }
    for (name, text) in &pages {
        let path = dir.join(name);
        if bless {
            pronto::sys::fs::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == *text,
            "{} is stale: PRONTO_BLESS=1 cargo test --test suite_cli writes it anew",
            path.display()
        );
    }
    let mut there: Vec<String> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let mut want: Vec<String> = pages.into_iter().map(|(name, _)| name).collect();
    there.sort();
    want.sort();
    assert_eq!(there, want, "docs/cli/ holds a page per verb and the index");
}

//! Control groups: which version, and which limits can be enforced. What a newcomer would get wrong: on a hybrid host the v2
//! tree is there but has hardly any controllers, so pausing works (freezing needs none) while limits are v1's business.

use super::{Finding, Level};

const AREA: &str = "cgroups";

/// What the mount table and the v2 tree say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups {
    /// Where v2 is mounted.
    v2: Option<String>,
    /// Controllers of v2's root.
    controllers: Vec<String>,
    /// v1 controllers that are mounted.
    v1: Vec<String>,
}

pub(super) fn findings() -> Vec<Finding> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut groups = read_mounts(&mounts);
    if let Some(v2) = &groups.v2 {
        let text = std::fs::read_to_string(format!("{v2}/cgroup.controllers")).unwrap_or_default();
        groups.controllers = text.split_whitespace().map(str::to_owned).collect();
    }
    judge(&groups)
}

/// Source: proc(5), /proc/PID/mountinfo: fields, `-`, then type, source, super options.
fn read_mounts(mountinfo: &str) -> Groups {
    let mut groups = Groups::default();
    for line in mountinfo.lines() {
        let Some((fields, rest)) = line.split_once(" - ") else { continue };
        let mut rest = rest.split(' ');
        let (kind, options) = (rest.next().unwrap_or_default(), rest.nth(1).unwrap_or_default());
        match kind {
            "cgroup2" => {
                let place = fields.split(' ').nth(4).map(str::to_owned);
                groups.v2 = groups.v2.take().or(place);
            }
            "cgroup" => {
                let known = ["memory", "cpu", "cpuset", "freezer", "pids", "devices"];
                let here = options.split(',').filter(|o| known.contains(o)).map(str::to_owned);
                groups.v1.extend(here);
            }
            _ => {}
        }
    }
    groups
}

fn judge(groups: &Groups) -> Vec<Finding> {
    let kind = match (&groups.v2, groups.v1.is_empty()) {
        (Some(place), true) => format!("cgroup v2 at {place}"),
        (Some(place), false) => format!("cgroup v1 with v2 at {place} (hybrid)"),
        (None, false) => "cgroup v1 only".to_owned(),
        (None, true) => {
            let finding =
                Finding::new(AREA, Level::Bad, "no cgroups are mounted: guests cannot be kept apart or stopped");
            return vec![finding.cure("mount -t cgroup2 cgroup2 /sys/fs/cgroup")];
        }
    };
    let mut all = vec![match groups.v2 {
        Some(_) => Finding::new(AREA, Level::Ok, kind),
        None => Finding::new(AREA, Level::Warn, format!("{kind}: guests with systemd 256 or newer do not boot"))
            .cure("boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"),
    }];
    if groups.v2.is_none() && !groups.v1.iter().any(|c| c == "devices") {
        let what = "a guest's root can open the host's devices: there is neither a v2 tree nor v1's 'devices'";
        all.push(Finding::new(AREA, Level::Warn, what).cure("mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"));
    }
    let can = |controller: &str| {
        groups.controllers.iter().any(|c| c == controller) || groups.v1.iter().any(|c| c == controller)
    };
    let pause = groups.v2.is_some() || can("freezer");
    let limits = [("memory=", can("memory")), ("vcpus=", can("cpu")), ("cpus=", can("cpuset")), ("pause", pause)];
    let names = |wanted: bool| -> Vec<&str> { limits.iter().filter(|l| l.1 == wanted).map(|l| l.0).collect() };
    if !names(true).is_empty() {
        all.push(Finding::new(AREA, Level::Ok, format!("can be enforced: {}", names(true).join(" "))));
    }
    if !names(false).is_empty() {
        let what = format!("cannot be enforced, so it is refused: {}", names(false).join(" "));
        all.push(
            Finding::new(AREA, Level::Warn, what)
                .cure("give the v2 tree these controllers: boot with cgroup_no_v1=all"),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        34 30 0:30 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n";

    fn text(groups: &Groups) -> String {
        let lines: Vec<String> = judge(groups).iter().map(|f| format!("{:?} {}", f.level, f.what)).collect();
        lines.join("\n")
    }

    #[test]
    fn the_three_sorts_of_host() {
        let mut v2 = read_mounts(V2);
        v2.controllers = ["cpuset", "cpu", "memory"].map(str::to_owned).into();
        assert_eq!(text(&v2), "Ok cgroup v2 at /sys/fs/cgroup\nOk can be enforced: memory= vcpus= cpus= pause");
        let hybrid = read_mounts(HYBRID);
        assert_eq!(hybrid.v1, ["cpu", "memory"]);
        assert_eq!(
            text(&hybrid),
            "Ok cgroup v1 with v2 at /sys/fs/cgroup/unified (hybrid)\nOk can be enforced: memory= vcpus= pause\n\
             Warn cannot be enforced, so it is refused: cpus="
        );
        let v1 = Groups { v2: None, controllers: Vec::new(), v1: vec!["memory".to_owned()] };
        assert!(text(&v1).starts_with("Warn cgroup v1 only"));
        assert!(text(&v1).contains("\nWarn a guest's root can open the host's devices"));
        let closed = Groups { v1: vec!["devices".to_owned()], ..v1 };
        assert!(!text(&closed).contains("host's devices"), "{}", text(&closed));
        assert!(!text(&hybrid).contains("host's devices"), "v2 is there");
        assert!(text(&Groups::default()).starts_with("Bad no cgroups"));
        assert_eq!(read_mounts("nonsense\n - \n"), Groups::default());
    }
}

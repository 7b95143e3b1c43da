# Everything that a guest could leave behind, a line each; one process for all of it, since starting one is slow in here. Not among
# it: the unit below which `run` has its cgroups, and its keeper, which end a little after the last command;
# check_the_lent_unit_goes looks after them.
use strict;
use warnings;

sub slurp { my ($file) = @_; open(my $f, '<', $file) or return ''; local $/; return <$f> // ''; }
sub names { my ($dir) = @_; opendir(my $d, $dir) or return (); return grep { !/^\.\.?$/ } readdir $d; }

my @all;
for (split /\n/, slurp('/proc/self/mountinfo')) {
    my $point = (split)[4];
    push @all, "mount $point" unless / - binfmt_misc /;
}

sub cgroups {
    my ($dir) = @_;
    for my $name (names($dir)) {
        my $path = "$dir/$name";
        next unless -d $path && !-l $path;
        push @all, "cgroup $path" if $name =~ /pronto|^payload$|^supervisor$/ && $name ne 'pronto-run.service';
        cgroups($path) unless $name eq 'keeper';
    }
}
cgroups('/sys/fs/cgroup');

for my $dir ('/run/pronto/domains', '/var/lib/pronto/domains') { push @all, map { "domain $_" } names($dir); }
push @all, glob('/tmp/nspawn-root-* /run/systemd/machines/* /run/systemd/nspawn/locks/*');

my $own = readlink '/proc/self/ns/pid';
for my $pid (grep { /^\d+$/ } names('/proc')) {
    my $exe = readlink "/proc/$pid/exe" or next;
    my $elsewhere = (readlink("/proc/$pid/ns/pid") // $own) ne $own;
    next unless $elsewhere || $exe =~ m{/pronto$|/qemu-|/systemd-nspawn$|^/memfd:pronto};
    next if slurp("/proc/$pid/cgroup") =~ m{/pronto-run\.service/(keeper|leaving)$}m;
    push @all, "process $exe " . slurp("/proc/$pid/cmdline") =~ tr/\0/ /r;
}
print map { "$_\n" } sort @all;

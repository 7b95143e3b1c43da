# Machine code of Perl's modules. This perl is this machine's own, its modules are the guest's but for what perl itself has in machine code. What
# another module brings is replaced by this machine's where that is there and is of the same build; else the script is begun anew, and
# emulated. That is right as long as it has done nothing: while it is compiled, and when it runs and has written nothing yet. Later such a
# module cannot be loaded: the script goes on as if it were not installed, or says so.
package DynaLoader;

boot_DynaLoader('DynaLoader') if defined(&boot_DynaLoader) && !defined(&dl_error);

# This file is required by its name, so once.
my $load = \&dl_load_file;

# What tells a library from others: its first bytes, in which its build-id is.
sub native_head {
    my ($bytes, $file) = '';
    open($file, '<', $_[0]) && binmode($file) && sysread($file, $bytes, 2048);
    return $bytes;
}

# Whether something may have been done already, by this process or by one that it has waited for.
sub native_done {
    return 0 if ${^GLOBAL_PHASE} eq 'START';
    # What waits to be written is, at once.
    local $| = 1;
    my $file;
    open($file, '<', '/proc/self/io') or return 1;
    local $/ = "\n";
    return !grep { /^syscw: 0$/ } <$file>;
}

# The same command, with a path that names the same script and that no native interpreter is looked up by.
sub native_emulate {
    my $file;
    open($file, '<', '/proc/self/cmdline') && binmode($file) or return;
    local $/ = "\0";
    chomp(my @words = <$file>);
    my $script = ($words[1] // '') =~ /^-/ ? 2 : 1;
    return unless ($words[$script] // '') =~ m{^/};
    $words[$script] = "/.$words[$script]";
    exec { $^X } @words;
}

local $^W = 0;
*dl_load_file = sub {
    my $path = $_[0];
    return &$load if $path =~ m{^/run/accel/lib/+perl(?:-base)?/};
    $path =~ s{^/run/accel/lib/+perl5/}{/usr/lib/@TRIPLET@/perl5/};
    $path =~ s{^/run/accel/local/+}{/usr/local/lib/@TRIPLET@/};
    my ($twin, $head) = ("/run/accel/twins$path", native_head($path));
    if ($head ne '' && $head eq native_head("$twin.head")) {
        return $load->($twin, @_[1 .. $#_]);
    }
    # With -T no path is good enough for exec().
    eval { native_emulate() } if $head ne '' && !native_done();
    return &$load;
};

1;

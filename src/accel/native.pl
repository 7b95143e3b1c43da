# Machine code of Perl's modules. This perl is the machine's own and not the guest's; its modules are the guest's, but for what perl itself has
# in machine code. What another module brings is replaced by this machine's where that is there and is of the same build; else the script
# is begun anew, emulated. Only while it is being compiled: what already runs may have done something, so there such a module cannot be
# loaded, and the script goes on as if it were not installed, or says so.
package DynaLoader;

boot_DynaLoader('DynaLoader') if defined(&boot_DynaLoader) && !defined(&dl_error);

if (!defined &native_head) {
    my $load = \&dl_load_file;

    # What tells a library from others: its first bytes, in which its build-id is.
    sub native_head {
        my ($bytes, $file) = '';
        open($file, '<', $_[0]) && binmode($file) && sysread($file, $bytes, 2048);
        return $bytes;
    }

    # The same command, with a path that names the same script and that no native interpreter is looked up by.
    sub native_emulate {
        open(my $file, '<', '/proc/self/cmdline') && binmode($file) or return;
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
        eval { native_emulate() } if ${^GLOBAL_PHASE} eq 'START' && $head ne '';
        return &$load;
    };
}

1;

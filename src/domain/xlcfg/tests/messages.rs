//! What is said of files that do not parse.

use super::refused;

#[test]
fn of_text_without_quotes() {
    for (text, said) in [
        (
            "name = web",
            "1:8: expected a value of 'name': a text in quotes, a number or a list, found 'web'; text needs quotes: name = \"web\"",
        ),
        (
            "memory = 512\n\nkernel = /boot/vmlinuz-6 # new\n",
            "3:10: expected a value of 'kernel': a text in quotes, a number or a list, found '/boot/vmlinuz-6'; text needs quotes: kernel = \"/boot/vmlinuz-6\"",
        ),
        (
            "name = web\"",
            "1:8: expected a value of 'name': a text in quotes, a number or a list, found 'web\"'; text needs quotes: name = \"web\"",
        ),
        (
            "memory = 1g",
            "1:11: expected the end of the line or ; after the value of 'memory', found 'g'; text needs quotes: memory = \"1g\"",
        ),
        (
            "memory = 512 MB",
            "1:14: expected the end of the line or ; after the value of 'memory', found 'MB'; text needs quotes: memory = \"512 MB\"",
        ),
        (
            "cpus = 0-3",
            "1:9: expected the end of the line or ; after the value of 'cpus', found '-3'; text needs quotes: cpus = \"0-3\"",
        ),
        (
            "a = 0xFF",
            "1:7: expected the end of the line or ; after the value of 'a', found 'FF'; hexadecimal digits are small letters: 0xff",
        ),
        (
            "rtc_timeoffset = -3600",
            "1:18: expected a value of 'rtc_timeoffset': a text in quotes, a number or a list, found '-3600'; a number with a sign needs quotes: rtc_timeoffset = \"-3600\"",
        ),
        (
            "vnc = True",
            "1:7: expected a value of 'vnc': a text in quotes, a number or a list, found 'True'; write vnc = 1",
        ),
        ("a = no", "1:5: expected a value of 'a': a text in quotes, a number or a list, found 'no'; write a = 0"),
        (
            "extra = \"it\"s\"",
            "1:13: expected the end of the line or ; after the value of 'extra', found 's'; a quote within a text is written \\\" or \\'",
        ),
        (
            "name = “web”",
            "1:8: expected a value of 'name': a text in quotes, a number or a list, found '“web”'; write plain quotes, \" or '",
        ),
    ] {
        assert_eq!(refused(text.as_bytes()), format!("web.cfg:{said}"), "{text}");
    }
}

#[test]
fn of_strings() {
    for (text, said) in [
        ("\nname = \"web\nmemory = 1", "2:8: the string that begins here is not closed: expected \" in this line"),
        ("disk = [ 'a,raw,xvda,rw ]\n", "1:10: the string that begins here is not closed: expected ' in this line"),
        ("a = '\\'", "1:5: the string that begins here is not closed: expected ' in this line"),
        (
            "a = \"b \\\nc\"",
            "1:5: the string that begins here is not closed: expected \" in this line; a string cannot go on in the next line: close it, and go on with KEY += \" …\"",
        ),
        (
            "a = \"\\x41\"",
            "1:5: \\x is no escape: expected one of \\\" \\' \\\\ \\a \\b \\f \\n \\r \\t \\v; characters have no numbers in xl.cfg: write the character itself",
        ),
        (
            "a = \"\\033[1m\"",
            "1:5: \\0 is no escape: expected one of \\\" \\' \\\\ \\a \\b \\f \\n \\r \\t \\v; characters have no numbers in xl.cfg: write the character itself",
        ),
        (
            "a = 'C:\\dir'",
            "1:5: \\d is no escape: expected one of \\\" \\' \\\\ \\a \\b \\f \\n \\r \\t \\v; write \\\\ for a backslash",
        ),
        ("a = \"x\0y\"", "1:5: a string cannot hold a NUL"),
    ] {
        assert_eq!(refused(text.as_bytes()), format!("web.cfg:{said}"), "{text}");
    }
    assert_eq!(refused(b"a = \"\xe4\""), "web.cfg:1:5: this string is not valid UTF-8; save the file as UTF-8");
}

#[test]
fn of_lists() {
    for (text, said) in [
        (
            "vif = [ bridge=br0 ]",
            "1:9: expected a value or ] in the list of 'vif' that begins in line 1, found 'bridge=br0'; put each entry in quotes: [ \"bridge=br0\" ]",
        ),
        (
            "vif = [ mac='00:16:3e:0:0:1', ]",
            "1:9: expected a value or ] in the list of 'vif' that begins in line 1, found 'mac='00:16:3e:0:0:1''; quotes go around a whole entry: [ \"mac=00:16:3e:0:0:1\" ]",
        ),
        (
            "disk = [ /dev/vg/a,raw,xvda,rw ]",
            "1:10: expected a value or ] in the list of 'disk' that begins in line 1, found '/dev/vg/a'; put each entry in quotes: [ \"/dev/vg/a,raw,xvda,rw\" ]",
        ),
        (
            "cpus = [ \"0\" \"1\" ]",
            "1:14: expected a comma or ] in the list of 'cpus' that begins in line 1, found the string '1'; there is a comma between two values",
        ),
        (
            "cpus = [ , ]",
            "1:10: expected a value or ] in the list of 'cpus' that begins in line 1, found a comma; there is a value before each comma: '' is an empty one",
        ),
        (
            "disk = [ 'a'\nvif = [ '' ]",
            "2:1: expected a comma or ] in the list of 'disk' that begins in line 1, found 'vif'; the list of 'disk' has no ], or an entry of it no quotes",
        ),
        (
            "disk = [ 'a',\nvif = [ '' ]",
            "2:1: expected a value or ] in the list of 'disk' that begins in line 1, found 'vif = [ '''; the list before has no ]",
        ),
        (
            "disk = [ 'a',",
            "1:14: expected a value or ] in the list of 'disk' that begins in line 1, found the end of the file; a ] is missing",
        ),
        (
            "disk = [ 'a'; ]",
            "1:13: expected a comma or ] in the list of 'disk' that begins in line 1, found ';'; values are separated by commas",
        ),
        (
            "disk = 'a', 'b'",
            "1:11: expected the end of the line or ; after the value of 'disk', found a comma; several values are a list: disk = [ …, … ]",
        ),
        (
            "disk = [ 'a' ] ]",
            "1:16: expected the end of the line or ; after the value of 'disk', found ']'; no list is open here",
        ),
    ] {
        assert_eq!(refused(text.as_bytes()), format!("web.cfg:{said}"), "{text}");
    }
    let deep = format!("a = {}", "[".repeat(100_000));
    assert_eq!(refused(deep.as_bytes()), "web.cfg:1:37: a: lists nest more than 32 deep");
}

#[test]
fn of_python_and_other_tongues() {
    let python = "xm's configurations were Python, xl's are not: only KEY = VALUE lines are read, nothing is computed";
    for (text, at) in [
        ("import os, re", "1:8: expected = or += after 'import', found 'os'"),
        (
            "arch = os.uname()[4]",
            "1:8: expected a value of 'arch': a text in quotes, a number or a list, found 'os.uname()[4]'",
        ),
        ("if arch == 'x':\n  a = 1", "1:4: expected = or += after 'if', found 'arch'"),
        ("name = \"a\" + str(vmid)", "1:12: expected the end of the line or ; after the value of 'name', found '+'"),
        ("name = \"a%d\" % vmid", "1:14: expected the end of the line or ; after the value of 'name', found '%'"),
        ("print(\"x\")", "1:6: expected = or += after 'print', found '('"),
        ("vif = [ 'a' + 'b' ]", "1:13: expected a comma or ] in the list of 'vif' that begins in line 1, found '+'"),
    ] {
        assert_eq!(refused(text.as_bytes()), format!("web.cfg:{at}; {python}"), "{text}");
    }
    for (text, said) in [
        ("Name = \"web\"", "1:1: expected a key, found 'Name'; keys are in small letters: name"),
        (
            "bootLoader = \"x\"",
            "1:5: expected = or += after 'boot', found 'Loader'; keys are in small letters: bootloader",
        ),
        (
            "cpu-weight = 1",
            "1:4: expected = or += after 'cpu', found '-weight'; keys have _ and small letters: cpu_weight",
        ),
        ("name: \"web\"", "1:5: expected = or += after 'name', found ':'; write name = VALUE, not name: VALUE"),
        ("name \"web\"", "1:6: expected = or += after 'name', found the string 'web'; write name = \"web\""),
        ("name\n", "1:5: expected = or += after 'name', found the end of the line; a line is KEY = VALUE"),
        (
            "name =\n",
            "1:7: expected a value of 'name': a text in quotes, a number or a list, found the end of the line; write name = VALUE in one line",
        ),
        (
            "name = # x",
            "1:8: expected a value of 'name': a text in quotes, a number or a list, found the end of the file; write name = VALUE in one line",
        ),
        (
            "a == 1",
            "1:4: expected a value of 'a': a text in quotes, a number or a list, found '='; one = is enough: a = VALUE",
        ),
        (
            "a = 1 b = 2",
            "1:7: expected the end of the line or ; after the value of 'a', found 'b'; each setting needs a line of its own, or a ; before it",
        ),
        ("[web]", "1:1: expected a key, found '['; xl.cfg has no [sections]: only KEY = VALUE lines"),
        ("// x", "1:1: expected a key, found '//'; a comment begins with #"),
        ("512 = x", "1:1: expected a key, found '512'; a line is KEY = VALUE, and a comment begins with #"),
        ("\u{feff}name = 'a'", "1:1: expected a key, found '\\u{feff}name'; save the file without a byte order mark"),
        (
            "a = 1\r\nb = 2\r\n",
            "1:6: expected the end of the line or ; after the value of 'a', found '\\u{d}'; the line ends as on Windows (CR LF), and xl wants LF alone: sed -i 's/\\r$//' FILE",
        ),
        (
            "a\u{a0}= 1",
            "1:2: expected = or += after 'a', found '\u{a0}'; this blank is a no-break space: write a plain one",
        ),
        ("\u{1b}[2J", "1:1: expected a key, found '\\u{1b}'; a line is KEY = VALUE, and a comment begins with #"),
    ] {
        assert_eq!(refused(text.as_bytes()), format!("web.cfg:{said}"), "{text}");
    }
}

#[test]
fn of_additions() {
    assert_eq!(
        refused(b"disk = [ 'a' ]\ndisk += 'b'"),
        "web.cfg:2:9: disk: expected a list after +=, since it is a list at web.cfg:1:1; write disk += [ … ]"
    );
    assert_eq!(
        refused(b"extra = 'a'\nextra += [ 'b' ]"),
        "web.cfg:2:10: extra: expected a text after +=, since it is one at web.cfg:1:1; make both lists: extra = [ … ]"
    );
}

//! What is registered for this boot belongs to all of it. What a newcomer would get wrong: any package that brings an interpreter
//! restarts systemd-binfmt, which empties the kernel's registry and fills it again from files; an entry without one is gone then,
//! and every emulated guest that runs cannot start a program any more. So there is a file for it too, in the directory under
//! `/run` that is for this and vanishes with the boot. It has the durable one's name, which therefore wins where there is one.

use std::path::PathBuf;

use super::{Entry, Host};
use crate::arch::Profile;
use crate::sys::fs::write_atomic;

impl Host {
    fn boot_file(&self, profile: &Profile) -> Option<PathBuf> {
        Some(self.boot_dir.as_ref()?.join(self.conf_file(profile).file_name()?))
    }

    /// Has systemd-binfmt, where it runs, register `entry` again whenever it does so. Best effort: it is in force already.
    pub(super) fn keep_for_this_boot(&self, profile: &Profile, entry: &Entry) {
        let (Some(file), Ok(text)) = (self.boot_file(profile), super::register::conf_text(entry)) else { return };
        if std::fs::read(&file).is_ok_and(|held| held == text) {
            return;
        }
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let _ = made.and_then(|()| write_atomic(&file, &text, 0o644));
    }

    /// Takes that back.
    pub(super) fn forget_this_boot(&self, profile: &Profile) {
        if let Some(file) = self.boot_file(profile) {
            let _ = std::fs::remove_file(file);
        }
    }
}

//! Names of virtual disks: `xvda`, `hdc1`, `sdb`, `d0p1`, `vda`. What a newcomer would get wrong: the name says on which bus a disk is, so it
//! is not free; and the guest's kernel may call it something else. Source: xen-vbd-interface(7); Xen, `libxl__device_disk_dev_number` in
//! tools/libs/light/libxl_device.c. `vd` is pronto's own addition, for QEMU.

/// What a disk is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bus {
    /// Xen's own.
    Xen,
    /// IDE, or AHCI where the configuration says so.
    Ide,
    /// SCSI.
    Scsi,
    /// virtio.
    Virtio,
}

/// A disk's name, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Drive {
    /// What it is on.
    pub bus: Bus,
    /// Which disk, from 0.
    pub disk: u32,
    /// Which partition; 0 is the whole disk.
    pub partition: u32,
}

impl Drive {
    /// Reads a name. None when it is no disk's.
    pub fn parse(name: &str) -> Option<Drive> {
        let buses = [
            ("xvd", Bus::Xen, 1 << 20, 255),
            ("hd", Bus::Ide, 4, 63),
            ("sd", Bus::Scsi, 16, 15),
            ("vd", Bus::Virtio, 1 << 20, 255),
        ];
        for (prefix, bus, disks, partitions) in buses {
            if let Some(rest) = name.strip_prefix(prefix) {
                let (disk, partition) = lettered(rest)?;
                return (disk < disks && partition <= partitions).then_some(Drive { bus, disk, partition });
            }
        }
        match name.strip_prefix('d') {
            Some(rest) => {
                let (disk, partition) = rest.split_once('p')?;
                let (disk, partition) = (decimal(disk)?, decimal(partition)?);
                (disk < 1 << 20 && partition < 256).then_some(Drive { bus: Bus::Xen, disk, partition })
            }
            None => Drive::numbered(u32::try_from(super::get::number(name)?).ok()?),
        }
    }

    /// The disk of a number as it stands in XenStore. None: it is no disk's.
    pub fn numbered(number: u32) -> Option<Drive> {
        let (high, low) = (number >> 8, number & 0xff);
        let (bus, disk, partition) = match high {
            202 => (Bus::Xen, low >> 4, low & 15),
            8 => (Bus::Scsi, low >> 4, low & 15),
            3 if low >> 6 < 2 => (Bus::Ide, low >> 6, low & 63),
            22 if low >> 6 < 2 => (Bus::Ide, 2 + (low >> 6), low & 63),
            _ if number >> 28 == 1 => (Bus::Xen, (number & 0x0fff_ffff) >> 8, low),
            _ => return None,
        };
        Some(Drive { bus, disk, partition })
    }

    /// The number that Xen has for the whole of such a disk among its own: `xvda` is 51712. Source: xen-vbd-interface(7).
    pub fn number(self) -> u32 {
        if self.disk < 16 { (202 << 8) | (self.disk << 4) } else { (1 << 28) | (self.disk << 8) }
    }

    /// The letters that say which disk: `a`, `b`, …, `z`, `aa`.
    pub fn letters(self) -> String {
        let mut letters = Vec::new();
        let mut left = self.disk + 1;
        while left > 0 {
            left -= 1;
            letters.push(char::from(b'a' + u8::try_from(left % 26).unwrap_or(0)));
            left /= 26;
        }
        letters.iter().rev().collect()
    }
}

fn decimal(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// `c2`: the third disk's second partition.
fn lettered(text: &str) -> Option<(u32, u32)> {
    let letters = text.bytes().take_while(u8::is_ascii_lowercase).count();
    if letters == 0 || letters > 5 {
        return None;
    }
    let disk = text.bytes().take(letters).fold(0, |n, letter| n * 26 + u32::from(letter - b'a') + 1) - 1;
    match &text[letters..] {
        "" => Some((disk, 0)),
        number if number.starts_with('0') => None,
        number => Some((disk, decimal(number)?)),
    }
}

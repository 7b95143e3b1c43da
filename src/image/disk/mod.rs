//! Disk images: what is in one, which of its partitions is the root, and how it becomes a layer. What a newcomer would get wrong:
//! the parsers here read bytes that anybody may have made. They are pure, their work is bounded by what they read, and they answer
//! with a sentence; what a file system holds is the kernel's to say, and it is asked only for one that is known and whole.

pub mod bytes;
pub mod fat;
pub mod gpt;
pub mod import;
pub mod make;
pub mod mbr;
pub mod over;
pub mod qcow2;
pub mod superblock;
pub mod table;
pub mod traps;

//! wip
/// wip
#[derive(Debug)]
pub struct Domain;
/// wip
#[derive(Debug)]
pub struct Record;

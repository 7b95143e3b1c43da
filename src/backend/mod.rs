//! backend

pub mod direct;

//! domid

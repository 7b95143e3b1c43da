//! `doctor`: what is wrong with this host, and the cure.

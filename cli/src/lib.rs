//! tombolo

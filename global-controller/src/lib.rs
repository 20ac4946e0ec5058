//! The global controller: stores what organizations ask for in Postgres, signs their clusters' CAs, and tells every
//! cluster's agent what it must know.
//!
//! `http -> app -> store | ca | reconcile`: `http` never sees SQL, `store` never sees axum.

mod store;

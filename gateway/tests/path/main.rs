//! The data path in one process: caller's sidecar → egress → ingress → server's sidecar → application, with real sockets
//! and TLS. Bytes, access log and reasons are asserted together.

#[cfg(test)]
mod balanced;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod chain;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod life;
#[cfg(test)]
mod malformed;
#[cfg(test)]
mod newcomer;
mod plain;
#[cfg(test)]
mod quiet;
#[cfg(test)]
mod reset;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod waiting;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod world;

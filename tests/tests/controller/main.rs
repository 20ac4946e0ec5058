//! The controller with agents: true sockets, TLS and PostgreSQL, in one process.

#[cfg(test)]
mod certificate;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod doors;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod feed;
#[cfg(test)]
mod join;
#[cfg(test)]
mod order;
#[cfg(test)]
mod reach;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod user;

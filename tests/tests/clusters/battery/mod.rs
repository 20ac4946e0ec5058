//! The same for each capture mode, on real clusters: protocols, names, latency.

mod latency;
mod protocols;
mod resolvers;
mod stage;

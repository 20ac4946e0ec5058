//! What befalls two clusters while a pod of one calls the other. Given clusters are left out by this module's name, for their machines are not
//! ours to handle.

mod apiserver;
mod controller;
mod endpoint;
mod gateway;
mod namespace;
mod token;
mod two_names;

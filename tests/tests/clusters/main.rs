//! Real clusters: API server, kubelet, containerd, CoreDNS, pods. `make test-clusters` runs it; `tests/kubernetes/README.md` says what it needs.

mod battery;
mod capture;
mod chart;
mod conformance;
mod dual;
mod everything;
mod faults;
mod images;
mod ingress;
mod lab;
mod load;
mod machines;
mod manifest;
mod onboard;
mod pair;
mod proxied;
mod redirect;
mod replicas;
mod sidecar;
mod smoke;
mod walkthrough;
mod world;

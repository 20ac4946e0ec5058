//! Real clusters: API server, kubelet, containerd, CoreDNS, pods. `make test-clusters` runs it; `tests/kubernetes/README.md` says what it needs.

mod capture;
mod chart;
mod conformance;
mod everything;
mod images;
mod lab;
mod onboard;
mod replicas;
mod scale;
mod smoke;
mod world;

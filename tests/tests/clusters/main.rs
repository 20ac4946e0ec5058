//! Real clusters: API server, kubelet, containerd, CoreDNS, pods. `make test-clusters` runs it; `tests/kubernetes/README.md` says what it needs.

mod capture;
mod chart;
mod images;
mod lab;
mod onboard;
mod smoke;
mod world;

# One verb for each thing a person or CI does. Needs cargo, a C toolchain and make; the rest is fetched by the verbs.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
CARGO ?= cargo
DEMO_FLAGS := $(if $(filter 1,$(CHECK)),--check)

PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: help check test test-all deny unit test-kubernetes demo build images install prepare api golden deps deps-test cluster-binaries clusters clusters-down test-clusters test-given test-links test-upgrade soak bench measure-discovery scale test-mcs test-chart

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

build: ## all programs, in target/debug
	$(CARGO) build --workspace --bins

install: ## release programs into PREFIX/bin, systemd units beside them (deploy/README.md)
	$(CARGO) build --workspace --bins --release --locked
	PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) scripts/install target/release

images: ## release images of all programs, in target/images/ARCH; ARCH=arm64 or amd64 for another machine's (deploy/images/README.md)
	deploy/images/build $(if $(ARCH),--arch $(ARCH))

check: ## formatting, lints, types
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --workspace --test kubernetes --test clusters --test chart --test links --test upgrade --locked -- -D warnings

test: deps-test check ## what CI runs: lints, the tests, the demo checked from outside, the agent against a true API server, the charts, two real clusters
	scripts/test

test-all: deps-test check ## the same, and all tests on the real clusters, faults too: 40 minutes more
	scripts/test all

deny: ## the dependency policy (deny.toml), with cargo-deny, which is built where it is missing
	command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny check bans licenses sources

unit: ## tests that need no other program and no root
	$(CARGO) test --workspace --lib

test-kubernetes: deps ## the agent against a true API server, which is built (or: TOMBOLO_KUBERNETES_BIN names the folder of etcd and kube-apiserver)
	[ -n "$${TOMBOLO_KUBERNETES_BIN:-}" ] || tests/kubernetes/binaries etcd hyper
	$(CARGO) build --workspace --bins
	scripts/with-postgres $(CARGO) test --workspace --test kubernetes

test-chart: ## the Helm charts, with the real helm, which is built where it is missing (or: TOMBOLO_HELM names the program)
	[ -n "$${TOMBOLO_HELM:-}" ] || tests/kubernetes/binaries helm
	$(CARGO) test --workspace --test chart

test-clusters: ## the tests on real clusters, which are brought up for them (tests/kubernetes/README.md)
	scripts/test-clusters

test-given: ## one test on real clusters of which it has the kubeconfigs alone, as of anybody's (TOMBOLO_KUBECONFIGS)
	scripts/test-given

test-links: deps-test build ## links that are cut, slow or half-open, full disks and damaged files, under load; TOMBOLO_CUTS="1s 30s 5m" for long cuts (docs/reliability.md)
	scripts/with-postgres $(CARGO) test --workspace --test links -- --nocapture

OLD ?=
test-upgrade: deps-test build ## from an older build to this one, each part alone, under load: OLD=REVISION, or the last tag, or the commit before this one
	scripts/test-upgrade $(OLD)

soak: deps-test build ## faults from a seeded plan under load for SOAK_MINUTES=30, every byte compared, memory flat; SOAK_SEED=… again the same, SOAK_KILLS=1000 random kills first (docs/reliability.md)
	SOAK_MINUTES=$${SOAK_MINUTES:-30} scripts/with-postgres $(CARGO) test --workspace --test chaos -- --nocapture --exact soak::it_goes_on_for_a_while

bench: ## our gateways and DNS beside Envoy, HAProxy, CoreDNS and unbound, as root: a table after 20 minutes (tests/bench/README.md)
	tests/bench/run

measure-discovery: ## what an agent takes to know 5,000 services and 50,000 endpoints of an API server: printed, after minutes
	tests/bench/discovery

scale: deps ## what the controller takes with 10, 100 and 1,000 clusters (simulated agents): tables (tests/bench/README.md)
	tests/bench/scale --release

test-mcs: ## the conformance suite of the Multi-Cluster Services API on two clusters that Tombolo joined, and what is left after (docs/kubernetes.md)
	scripts/test-clusters conformance::

cluster-binaries: ## what the clusters are made of: built once, 8 minutes on 2 cores
	scripts/deps-clusters
	tests/kubernetes/binaries

N ?= 2
clusters: cluster-binaries build ## real Kubernetes clusters on this machine, left up to play with: N=2 of them, NODES_1=2 for a second node
	tests/kubernetes/images
	tests/kubernetes/up $(N)
	@tests/kubernetes/hint

clusters-down: ## removes them without a trace
	tests/kubernetes/down
	tests/kubernetes/down --check

demo: deps build ## two clusters and a shop on this machine; CHECK=1 checks it and ends
	@scripts/with-postgres target/debug/tombolo demo $(DEMO_FLAGS)

prepare: ## the checked queries' offline data (.sqlx), after a query or a migration changed
	scripts/prepare-queries

api: build ## docs/openapi.json from the code
	target/debug/tombolo-controller openapi > docs/openapi.json

golden: ## rewrite the goldens; read the difference before you commit it
	TOMBOLO_GOLDEN=write INSTA_UPDATE=always $(CARGO) test --workspace --lib --test compile

deps: ## what the demo needs beside cargo: PostgreSQL's server programs
	@scripts/with-postgres true

deps-test: ## what the tests need beside cargo (as root: installed)
	@scripts/deps-test

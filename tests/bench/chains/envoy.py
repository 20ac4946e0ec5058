"""Envoy's configuration: what stands at a place, of the same few parts for all chains. Access log and admin port in each."""

import os

from keys import TRUST_DOMAIN

TYPE = "type.googleapis.com/envoy"
# How bytes come in, or go out: as they are; each connection in mutual TLS; HTTP/2 in mutual TLS.
CLEAR, TLS, H2 = "clear", "tls", "h2"
# What is done between: connections are carried; one becomes a CONNECT request; that goes on as one; it becomes a connection; HTTP is read and written.
CARRY, WRAP, PASS, UNWRAP, HTTP = "carry", "wrap", "pass", "unwrap", "http"


def bootstrap(name, listen, source, does, to, following, keys, folder):
    log = [{"name": "envoy.access_loggers.file", "typed_config": {
        "@type": f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog", "path": os.path.join(folder, f"{name}-access.log")}}]
    chain = {"filters": [_tcp(does, log) if does in (CARRY, WRAP) else _http(does, log)]}
    if source != CLEAR:
        chain["transport_socket"] = _tls("Downstream", name, keys, source)
        chain["transport_socket"]["typed_config"]["require_client_certificate"] = True
    return {
        "node": {"id": name, "cluster": "bench"},
        "admin": {"address": _address(("127.0.0.1", 0))},
        "static_resources": {
            "listeners": [{"name": "in", "address": _address(listen), "filter_chains": [chain]}],
            "clusters": [_cluster(name, to, following, keys)],
        },
    }


def _address(at):
    return {"socket_address": {"address": at[0], "port_value": at[1]}}


def _tcp(does, log):
    config = {"@type": f"{TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy",
              "stat_prefix": "in", "cluster": "out", "access_log": log}
    if does == WRAP:
        config["tunneling_config"] = {"hostname": "server:8080"}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def _http(does, log):
    connect = does != HTTP
    upgrade = {PASS: [{"upgrade_type": "CONNECT"}], UNWRAP: [{"upgrade_type": "CONNECT", "connect_config": {}}]}.get(does)
    action = {"cluster": "out", "timeout": "0s", **({"upgrade_configs": upgrade} if upgrade else {})}
    route = {"match": {"connect_matcher": {}} if connect else {"prefix": "/"}, "route": action}
    config = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": "AUTO", "access_log": log, "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router",
                          "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}}],
    }
    if connect:
        config["upgrade_configs"] = [{"upgrade_type": "CONNECT"}]
        config["http2_protocol_options"] = {"allow_connect": True}
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _cluster(name, to, following, keys):
    much = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    cluster = {
        "name": "out", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [much]},
        "load_assignment": {"cluster_name": "out",
                            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(following)}}]}]},
    }
    if to != CLEAR:
        cluster["transport_socket"] = _tls("Upstream", name, keys, to)
        cluster["transport_socket"]["typed_config"]["sni"] = "bench"
    if to == H2:
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        cluster["typed_extension_protocol_options"] = {options: {
            "@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}}
    return cluster


def _tls(side, name, keys, how):
    """Mutual TLS 1.3: the peer's certificate is of the same CA, with an identity of the trust domain."""
    certificate, key = keys.leaf(f"{name}-{side.lower()}")
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}],
        "validation_context": {
            "trusted_ca": {"filename": keys.authority},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": TRUST_DOMAIN}}]},
    }
    if how == H2:
        common["alpn_protocols"] = ["h2"]
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.{side}TlsContext", "common_tls_context": common}}

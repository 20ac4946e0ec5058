//! Which endpoints of a cluster are believed. Whoever may write an EndpointSlice of one namespace could otherwise send the gateways to what
//! they can reach and the writer can't (Kubernetes knows this as CVE-2021-25740). A directory of manifests is its owner's word, and is not
//! held to this.

use super::Pods;
use crate::source::{SliceEndpoint, SliceObject};
use ipnet::IpNet;
use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tombolo_model::{AccountName, Special, inventory::ServiceKey, leads_to};

/// Addresses that are said of one slice.
const SAID: usize = 3;

/// What a cluster's endpoints are held to.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// The installation's virtual addresses.
    pub vips: Arc<[IpNet]>,
    /// Where the agent reaches the API server, where that is an address.
    pub server: Option<SocketAddr>,
    /// Whether an endpoint has to be a pod of its slice's own namespace.
    pub own_pods: bool,
}

/// Why an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Unspecified,
    Loopback,
    LinkLocal,
    Multicast,
    Virtual,
    Cloud,
    ApiServer,
    Foreign,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast or broadcast address",
            Self::Virtual => "a virtual address, which itself leads to other services",
            Self::Cloud => "where a cloud answers its own machines",
            Self::ApiServer => "the API server",
            Self::Foreign => {
                "no pod of this namespace, and the agent takes no others (--foreign-endpoints refuse)"
            }
        })
    }
}

/// An endpoint that is left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refused {
    pub(super) slice: AccountName,
    pub(super) why: Why,
    pub(super) address: IpAddr,
}

/// Whether a service is the API server's own, whose endpoints are where it is.
pub(super) fn is_api_server(service: &ServiceKey) -> bool {
    service.namespace.as_str() == "default" && service.name.as_str() == "kubernetes"
}

/// Where a slice leads, as far as it names ports.
pub(super) fn places(slice: &SliceObject) -> impl Iterator<Item = SocketAddr> {
    let ports = slice.ports.iter().flatten();
    ports.flat_map(move |port| {
        slice.endpoints.iter().map(move |endpoint| SocketAddr::new(endpoint.address, port.port))
    })
}

impl Guard {
    /// The slice without what is not believed, which is put into `refused`. `api` is where the API server is.
    pub(super) fn sieve<'a>(
        &self,
        slice: &'a SliceObject,
        pods: &Pods,
        api: &BTreeSet<SocketAddr>,
        refused: &mut Vec<Refused>,
    ) -> Cow<'a, SliceObject> {
        let why = |endpoint: &SliceEndpoint| self.why(slice, endpoint, pods, api);
        if slice.endpoints.iter().all(|endpoint| why(endpoint).is_none()) {
            return Cow::Borrowed(slice);
        }
        let mut left = slice.clone();
        left.endpoints.retain(|endpoint| match why(endpoint) {
            Some(why) => {
                let (slice, address) = (slice.name.clone(), endpoint.address);
                refused.push(Refused { slice, why, address });
                false
            }
            None => true,
        });
        Cow::Owned(left)
    }

    /// Whether what is believed of a slice depends on more pods than those that it names.
    pub(super) fn depends_on_all(&self, slice: &SliceObject) -> bool {
        self.own_pods && slice.endpoints.iter().any(|endpoint| endpoint.pod.is_none())
    }

    fn why(
        &self,
        slice: &SliceObject,
        endpoint: &SliceEndpoint,
        pods: &Pods,
        api: &BTreeSet<SocketAddr>,
    ) -> Option<Why> {
        let address = leads_to(endpoint.address);
        let of_pod = || match &endpoint.pod {
            Some(pod) => {
                pods.get(&slice.namespace, pod).is_some_and(|pod| pod.addresses.contains(&endpoint.address))
            }
            None => pods.of(&slice.namespace).any(|pod| pod.addresses.contains(&endpoint.address)),
        };
        let is_virtual = || self.vips.iter().any(|net| net.contains(&address));
        let always = match Special::of(address) {
            Some(Special::Unspecified) => Some(Why::Unspecified),
            Some(Special::Loopback) => Some(Why::Loopback),
            Some(Special::LinkLocal) => Some(Why::LinkLocal),
            Some(Special::Broadcast | Special::Multicast) => Some(Why::Multicast),
            Some(Special::Cloud | Special::Reserved) | None if is_virtual() => Some(Why::Virtual),
            // networks of pods may have one of these, too
            Some(Special::Cloud) => (!of_pod()).then_some(Why::Cloud),
            // some networks give these to machines
            Some(Special::Reserved) | None => None,
        };
        let is_api_server = |at: &SocketAddr| {
            let ports = slice.ports.as_ref();
            leads_to(at.ip()) == address
                && ports.is_none_or(|ports| ports.iter().any(|port| port.port == at.port()))
        };
        always
            .or_else(|| api.iter().chain(&self.server).any(is_api_server).then_some(Why::ApiServer))
            .or_else(|| (self.own_pods && !of_pod()).then_some(Why::Foreign))
    }
}

/// What is said of a service's slices: a line for each, and for each reason.
pub(super) fn problems(refused: &[Refused]) -> impl Iterator<Item = (&AccountName, String)> {
    refused.chunk_by(|a, b| (&a.slice, a.why) == (&b.slice, b.why)).map(|all| {
        let said: Vec<String> = all.iter().take(SAID).map(|one| one.address.to_string()).collect();
        let more = match all.len() - said.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let verb = if all.len() == 1 { "is" } else { "are" };
        let message = format!("endpoints: {}{more} {verb} {}; left out", said.join(", "), all[0].why);
        (&all[0].slice, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        index::Index,
        source::{Files, Object, ObjectKey, ObjectKind, PodObject},
    };
    use std::str::FromStr;

    fn parse<T: FromStr<Err: fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    fn index(own_pods: bool) -> Index {
        let vips = ["240.0.0.0/4", "fd74:6f6d:6265:6c6f::/64"].map(parse::<IpNet>);
        let server = Some(parse("10.96.0.1:443"));
        let mut index = Index::guarded(Guard { vips: vips.into(), server, own_pods });
        add(
            &mut index,
            "kind: Service\napiVersion: v1\nmetadata: {name: a, namespace: shop}\nspec: {ports: [{port: 80}]}\n",
        );
        index
    }

    fn add(index: &mut Index, text: &str) {
        let mut files = Files::default();
        for change in files.load("f", text.as_bytes()) {
            index.change(change);
        }
        assert_eq!(files.problems(), []);
    }

    fn slice(index: &mut Index, name: &str, port: u16, endpoints: &str) {
        let (namespace, service) =
            if name == "kubernetes" { ("default", "kubernetes") } else { ("shop", "a") };
        let family = if endpoints.contains("::") { "IPv6" } else { "IPv4" };
        let text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: {namespace}, labels: \
             {{kubernetes.io/service-name: {service}}}}}\naddressType: {family}\nports: [{{port: {port}}}]\nendpoints: [{endpoints}]\n"
        );
        add(index, &text);
    }

    fn endpoint(address: &str, pod: &str) -> String {
        match pod {
            "" => format!("{{addresses: ['{address}']}}"),
            pod => format!("{{addresses: ['{address}'], targetRef: {{kind: Pod, name: {pod}}}}}"),
        }
    }

    fn pod(namespace: &str, name: &str, address: &str) -> Object {
        Object::Pod(PodObject {
            namespace: parse(namespace),
            name: parse(name),
            uid: "".into(),
            node: None,
            addresses: [parse(address)].into(),
            host_network: false,
            account: parse("default"),
        })
    }

    fn led_to(index: &Index) -> Vec<String> {
        let view = index.view();
        let service = &view.services[&ServiceKey::try_from("shop/a".to_owned()).unwrap()];
        service.ports.iter().flat_map(|port| port.endpoints.keys().map(ToString::to_string)).collect()
    }

    fn said(index: &Index) -> String {
        index.problems().iter().map(|p| format!("{}: {}\n", p.subject, p.message)).collect()
    }

    #[test]
    fn no_slice_leads_to_what_no_application_has() {
        for (never, part) in [
            ("127.0.0.1", "a loopback address"),
            ("::1", "a loopback address"),
            ("::ffff:127.0.0.1", "a loopback address"),
            ("0.1.2.3", "an unspecified address"),
            ("169.254.169.254", "a link-local address"),
            ("fe80::1", "a link-local address"),
            ("255.255.255.255", "broadcast"),
            ("240.0.0.7", "a virtual address"),
            ("fd74:6f6d:6265:6c6f::7", "a virtual address"),
            ("168.63.129.16", "a cloud"),
            ("fd00:ec2::254", "a cloud"),
            ("10.96.0.1", "the API server"),
            ("64:ff9b::169.254.169.254", "a link-local address"),
            ("64:ff9b::240.0.0.7", "a virtual address"),
            ("64:ff9b::10.96.0.1", "the API server"),
            ("2002:7f00:1::1", "a loopback address"),
        ] {
            let mut index = index(false);
            let other = if never.contains(':') { "2001:db8::7" } else { "192.0.2.7" };
            let both = format!("{}, {}", endpoint(never, "x"), endpoint(other, ""));
            slice(&mut index, "one", 443, &both);
            assert_eq!(led_to(&index).len(), 1, "{never}");
            assert!(led_to(&index)[0].contains(other), "what the admin leads outside stays possible");
            let said = said(&index);
            assert!(said.starts_with("EndpointSlice shop/one: endpoints: ") && said.contains(part), "{said}");
            slice(&mut index, "one", 443, &endpoint(other, ""));
            assert_eq!(index.problems(), []);
        }
        // other ports of the server's machine are others'
        let mut index = index(false);
        slice(&mut index, "one", 8080, &endpoint("10.96.0.1", ""));
        assert_eq!(led_to(&index), ["10.96.0.1:8080"]);
        // and an address that a pod has is a pod's
        slice(&mut index, "one", 80, &endpoint("100.100.100.200", "p"));
        assert_eq!(led_to(&index), [""; 0]);
        index.apply(pod("shop", "p", "100.100.100.200"));
        assert_eq!(led_to(&index), ["100.100.100.200:80"]);
    }

    #[test]
    fn where_the_api_server_is_may_be_known_later() {
        let mut index = index(false);
        slice(&mut index, "one", 6443, &endpoint("192.168.0.1", ""));
        assert_eq!(led_to(&index), ["192.168.0.1:6443"]);
        slice(&mut index, "kubernetes", 6443, &endpoint("192.168.0.1", ""));
        assert_eq!(led_to(&index), [""; 0]);
        assert!(said(&index).contains("192.168.0.1 is the API server; left out"), "{}", said(&index));
        slice(&mut index, "kubernetes", 6443, &endpoint("192.168.0.2", ""));
        assert_eq!(led_to(&index), ["192.168.0.1:6443"], "it moved");
        let key = ObjectKey {
            kind: ObjectKind::EndpointSlice,
            namespace: parse("default"),
            name: parse("kubernetes"),
        };
        index.delete(&key);
        slice(&mut index, "one", 6443, &endpoint("192.168.0.2", ""));
        assert_eq!(led_to(&index), ["192.168.0.2:6443"]);
    }

    #[test]
    fn an_endpoint_may_have_to_be_a_pod_of_its_namespace() {
        let mut index = index(true);
        let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "192.0.2.7"];
        let endpoints = [all[0], all[1]].map(|at| endpoint(at, "p")).into_iter();
        let endpoints: Vec<_> = endpoints.chain(all[2..].iter().map(|at| endpoint(at, ""))).collect();
        slice(&mut index, "one", 80, &endpoints.join(", "));
        assert_eq!(led_to(&index), [""; 0]);
        assert!(
            said(&index).contains("10.0.0.1, 10.0.0.2, 10.0.0.3 and 2 more are no pod"),
            "{}",
            said(&index)
        );
        // one that is named and has the address, one that is not named, one of another namespace
        index.apply(pod("shop", "p", "10.0.0.1"));
        index.apply(pod("shop", "q", "10.0.0.3"));
        index.apply(pod("bank", "r", "10.0.0.4"));
        assert_eq!(led_to(&index), ["10.0.0.1:80", "10.0.0.3:80"]);
        // they go, and others get their addresses
        for (name, address) in [("p", "10.0.0.1"), ("q", "10.0.0.3")] {
            index.delete(&pod("shop", name, address).key());
        }
        index.apply(pod("bank", "s", "10.0.0.3"));
        assert_eq!(led_to(&index), [""; 0]);
        assert!(said(&index).contains("--foreign-endpoints"), "{}", said(&index));
        let key = ObjectKey { kind: ObjectKind::Service, namespace: parse("shop"), name: parse("a") };
        index.delete(&key);
        assert_eq!(index.problems(), [], "of a service that is gone nothing is said");
    }

    #[test]
    fn manifests_are_their_owners_word() {
        let mut index = Index::default();
        add(
            &mut index,
            "kind: Service\napiVersion: v1\nmetadata: {name: a, namespace: shop}\nspec: {ports: [{port: 80}]}\n",
        );
        slice(&mut index, "one", 80, &endpoint("127.0.0.1", ""));
        assert_eq!(led_to(&index), ["127.0.0.1:80"]);
    }
}

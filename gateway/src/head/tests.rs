use super::*;
use proptest::prelude::*;

const SOURCE_ID: &str = "spiffe://acme/cluster/c1/ns/default/sa/shopping";

fn connect(destination: Destination, inner: Inner) -> Connect {
    Connect { destination, source: Some(SOURCE_ID.parse().unwrap()), trace: Trace::fresh(), inner }
}
fn name() -> GlobalName {
    GlobalName::parse("catalog.acme.example.com").unwrap()
}

#[test]
fn reads_what_it_writes() {
    for sent in [
        connect(Destination::Service(name(), 8082), Inner::Offered),
        connect(Destination::Service(name(), 1), Inner::None),
        connect(Destination::Endpoint("10.0.0.1:80".parse().unwrap(), name(), 8082), Inner::Accepted),
        connect(Destination::Endpoint("[fd00::1]:80".parse().unwrap(), name(), 8082), Inner::Accepted),
    ] {
        assert_eq!(Connect::parse(&sent.request().unwrap()), Ok(sent));
    }
    for inner in [true, false] {
        let answer = Answer { cluster: ClusterName::parse("c2").unwrap(), inner };
        assert_eq!(Answer::parse(&answer.response()), Ok(answer));
    }
}

#[test]
fn a_refusal_keeps_the_hop_that_gave_it() {
    for reason in Reason::ALL {
        let refusal = Refusal::new(*reason, "x");
        let read = Answer::parse(&refused(&refusal, "ingress@c2")).unwrap_err();
        assert_eq!((read.reason, read.hop.as_deref()), (*reason, Some("ingress@c2")));
        let passed_on = Answer::parse(&refused(&read, "egress@c1")).unwrap_err();
        assert_eq!(passed_on.hop.as_deref(), Some("ingress@c2"));
    }
}

#[test]
fn refuses_what_is_malformed() {
    let good = || {
        Request::builder()
            .method(Method::CONNECT)
            .uri("catalog.acme.example.com:80")
            .header("tombolo-protocol", "1.0")
    };
    let why =
        |request: http::request::Builder| Connect::parse(&request.body(()).unwrap()).map_err(|r| r.reason);
    assert!(why(good()).is_ok());
    assert_eq!(why(good().method(Method::GET)), Err(Reason::BadRequest));
    for uri in [
        "catalog.acme.example.com",
        "catalog.acme.example.com:0",
        "catalog.acme.example.com:080",
        "catalog.acme.example.com:65536",
        "CATALOG.acme.example.com:80",
        "user@catalog.acme.example.com:80",
        "10.0.0.1:80",
        "localhost:80",
        "http://catalog.acme.example.com:80/x",
    ] {
        assert_eq!(why(good().uri(uri)), Err(Reason::BadRequest), "{uri}");
    }
    for (header, value) in [
        ("tombolo-protocol", "1.0"),
        ("tombolo-source", "spiffe://acme/cluster/c1/gateway/ingress"),
        ("tombolo-source", "root"),
        ("tombolo-inner", "maybe"),
        ("tombolo-service", "catalog.acme.example.com:80"),
    ] {
        assert_eq!(why(good().header(header, value)), Err(Reason::BadRequest), "{header}: {value}");
    }
    let version = |text: &str| {
        let request =
            Request::builder().method(Method::CONNECT).uri("a.b.c:80").header("tombolo-protocol", text);
        why(request)
    };
    let ours = ProtocolVersion::CURRENT;
    let later = |minors: u16| version(&format!("{}.{}", ours.major, ours.minor + minors));
    assert_eq!(later(2).map(|_| ()), Ok(()), "two minor versions work");
    assert_eq!(later(3), Err(Reason::UnsupportedVersion));
    assert_eq!(version("2.0"), Err(Reason::UnsupportedVersion));
    assert_eq!(version("one"), Err(Reason::BadRequest));
}

#[test]
fn a_foreign_answer_is_no_reason() {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    assert_eq!(Answer::parse(&response).unwrap_err().reason, Reason::PeerUnreachable);
    assert_eq!(Answer::parse(&Response::new(())).unwrap_err().reason, Reason::PeerUnreachable);
    response.headers_mut().insert(REASON, HeaderValue::from_static("not_a_caller"));
    response.headers_mut().insert(HOP, HeaderValue::from_static("<script>"));
    let read = Answer::parse(&response).unwrap_err();
    assert_eq!((read.reason, read.hop), (Reason::NotACaller, None));
}

proptest! {
    #[test]
    fn never_panics(authority in "[a-z0-9.:\\[\\]-]{1,40}", source in "\\PC{0,40}", inner in "[a-z]{0,7}") {
        let request = Request::builder().method(Method::CONNECT).uri(&authority)
            .header("tombolo-protocol", "1.0").header("tombolo-inner", &inner).header("tombolo-source", &source);
        if let Ok(request) = request.body(()) && let Ok(connect) = Connect::parse(&request) {
            prop_assert_eq!(connect.request().unwrap().uri().to_string(), authority);
        }
    }
}

#[test]
fn an_egress_gateway_speaks_for_callers_that_nobody_can_name() {
    let own: SpiffeId = "spiffe://acme/cluster/c1/gateway/egress".parse().unwrap();
    let read = |inner| {
        let destination = Destination::Service(GlobalName::parse("catalog.acme.example.com").unwrap(), 80);
        let connect = Connect { destination, source: Some(own.clone()), trace: Trace::fresh(), inner };
        Connect::parse(&connect.request().unwrap())
    };
    assert_eq!(read(Inner::None).unwrap().source.as_ref(), Some(&own));
    for inner in [Inner::Offered, Inner::Accepted] {
        assert_eq!(
            read(inner).unwrap_err().reason,
            Reason::BadRequest,
            "it has no session of its own to offer"
        );
    }
}

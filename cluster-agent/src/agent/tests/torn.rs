//! Feeds that are torn, replayed, out of order or of a replica that is behind: what is in force stays, and the agent asks again with what it has.

use super::*;

/// Lines as they are sent, behind a hello.
fn said(lines: impl IntoIterator<Item = FeedLine<ClusterResource>>) -> Vec<u8> {
    let hello = FeedLine::Hello(Hello::current("tombolo-controller"));
    std::iter::once(hello).chain(lines).flat_map(|line| encode_line(&line).unwrap()).collect()
}

#[tokio::test]
async fn what_is_in_force_stays_whatever_the_feed_says() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("manifests")).unwrap();
    let (controller, _runs) = Controller::start(LOOPBACK, Organization::new("acme.internal")).await;
    join(&join_config(&controller, &dir.path().join("data")), TOKEN).await.unwrap();

    let g = Generation::new;
    let with = controller.resources();
    let mut without = with.clone();
    without.retain(|_, resource| !matches!(resource, ClusterResource::Name(_)));
    let of = |states: &[(u64, &Resources<ClusterResource>)]| {
        let mut publisher = Publisher::<ClusterResource>::new(8);
        for (generation, resources) in states {
            publisher.publish(g(*generation), (*resources).clone());
        }
        publisher
    };
    let sound = said(of(&[(3, &with)]).open(None));
    let mut torn = said(of(&[(5, &without)]).open(None));
    torn.truncate(torn.len() * 2 / 3);
    let behind = said(of(&[(2, &without)]).open(None));
    // a change of a state that the agent never had
    let out_of_order = said(of(&[(3, &with), (7, &without), (8, &with)]).since(g(7)));
    // a change that is told twice: the second time it follows what is not in force any more
    let change = || of(&[(3, &with), (4, &without), (5, &with)]).since(g(3));
    let replayed = said(change().into_iter().chain(change()));
    // and a state whose sum is another than that of what it makes
    let text = String::from_utf8(said(of(&[(6, &without)]).open(None))).unwrap();
    let lying = text.replacen("acme.internal", "acme.external", 1).into_bytes();
    let scripts = [sound, torn, behind, out_of_order, lying, replayed];
    let count = scripts.len();
    lock(&controller.told).scripts.extend(scripts);
    // The last one, after these.
    controller.publish(5);

    let agent = Agent::start(dir.path()).await;
    let name = "catalog.acme.example.com";
    until("the name is answered", SOON, || agent.ask(name), Option::is_some).await;
    let asked = || async { lock(&controller.told).resumed.clone() };
    let asked_so_often = || async {
        assert_eq!(agent.ask(name).await, Some([127, 101, 0, 9].into()), "nothing of that is believed");
        asked().await.len()
    };
    until("each was asked for", SOON, asked_so_often, |often| *often > count).await;
    let three = Some(g(3));
    assert_eq!(asked().await, [None, three, three, three, three, three, Some(g(5))]);
    let applied = || async { lock(&controller.told).statuses.last().map(|status| status.generation) };
    until("what is so is in force", SOON, applied, |g| *g == Some(Generation::new(5))).await;
    assert_eq!(agent.ask(name).await, Some([127, 101, 0, 9].into()));
    agent.stop().await;
}

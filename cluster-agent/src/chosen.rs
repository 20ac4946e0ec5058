//! Which namespaces take part, and with which capture modes. Those take part that the order to install chooses: before anybody ordered
//! anything, all that the agent reads; after everything was taken out, none, but not before the calls there have ended.

use crate::{capture, index::View, install::is_removed};
use std::sync::Arc;
use tombolo_model::{
    install::Namespaces,
    snapshot::{ClusterResource, Resources},
};

/// What runs here in the namespaces that take part, worked out once for each view and choice.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// The choice of the last snapshot; none before there was one.
    choice: Option<Arc<capture::Chosen>>,
    made: Option<(Arc<View>, Arc<View>)>,
}

impl Chosen {
    /// What of the view takes part, as the snapshot orders.
    pub(crate) fn of(&mut self, view: Arc<View>, resources: &Resources<ClusterResource>) -> Arc<View> {
        self.chosen(view, capture::Chosen::of(resources))
    }

    /// The same, where calls are still under way: what took part before everything was ordered out does until they ended.
    /// Who did not see that knows of nothing that did.
    pub(crate) fn ending(&mut self, view: Arc<View>, resources: &Resources<ClusterResource>) -> Arc<View> {
        match &self.choice {
            Some(before) if is_removed(resources) => {
                let before = capture::Chosen::clone(before);
                self.chosen(view, before)
            }
            _ => self.of(view, resources),
        }
    }

    fn chosen(&mut self, view: Arc<View>, choice: capture::Chosen) -> Arc<View> {
        let choice = match self.choice.take() {
            Some(before) if *before == choice => before,
            _ => {
                self.made = None;
                Arc::new(choice)
            }
        };
        self.choice = Some(Arc::clone(&choice));
        if *choice == capture::Chosen::default() {
            return view;
        }
        match &self.made {
            Some((of, made)) if Arc::ptr_eq(of, &view) => Arc::clone(made),
            _ => {
                let mut only = match &choice.namespaces {
                    Namespaces::Exclude(these) if these.is_empty() => View::clone(&view),
                    some => view.only(some),
                };
                only.capture = choice;
                let made = Arc::new(only);
                self.made = Some((view, Arc::clone(&made)));
                made
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_model::{
        install::{InstallOrder, InstallSpec},
        intent::CaptureMode,
        inventory::ServiceKey,
        snapshot::{CaptureSpec, Resource as _},
    };

    fn view() -> Arc<View> {
        let mut view = View::default();
        for namespace in ["shop", "secret"] {
            view.namespaces.insert(namespace.parse().unwrap(), Default::default());
            view.spaces.insert(namespace.parse().unwrap());
        }
        Arc::new(view)
    }

    fn told(order: InstallOrder) -> Resources<ClusterResource> {
        let resource = ClusterResource::Install(order.into());
        [(resource.key(), resource)].into()
    }

    fn without(namespace: &str) -> Resources<ClusterResource> {
        let text = format!(
            r#"{{"version": "1", "registry": "localhost", "namespaces": {{"exclude": ["{namespace}"]}}}}"#
        );
        told(InstallOrder::Installed(serde_json::from_str::<InstallSpec>(&text).unwrap()))
    }

    fn names(view: &View) -> Vec<&str> {
        assert!(view.spaces.iter().eq(view.namespaces.keys()), "what is left out imports nothing");
        view.namespaces.keys().map(|name| name.as_str()).collect()
    }

    #[test]
    fn the_order_chooses() {
        let mut chosen = Chosen::default();
        assert_eq!(names(&chosen.of(view(), &Resources::new())), ["secret", "shop"], "before any order");
        assert_eq!(names(&chosen.of(view(), &without("secret"))), ["shop"]);
        assert_eq!(names(&chosen.of(view(), &without("shop"))), ["secret"]);
        let removed = told(InstallOrder::Removed { revision: 3 });
        assert!(names(&chosen.of(view(), &removed)).is_empty(), "nothing takes part any more");
        assert_eq!(names(&Chosen::default().of(view(), &removed)).len(), 0, "nor after a restart");
        assert_eq!(names(&Chosen::default().ending(view(), &removed)).len(), 0);
    }

    #[test]
    fn what_took_part_does_until_its_calls_have_ended() {
        let mut chosen = Chosen::default();
        let removed = told(InstallOrder::Removed { revision: 3 });
        assert_eq!(names(&chosen.of(view(), &without("secret"))), ["shop"]);
        for _ in 0..2 {
            assert_eq!(names(&chosen.ending(view(), &removed)), ["shop"], "and nothing else");
        }
        assert!(names(&chosen.of(view(), &removed)).is_empty());
    }

    #[test]
    fn modes_come_with_the_view() {
        let (mut chosen, view) = (Chosen::default(), view());
        let capture = ClusterResource::Capture(
            CaptureSpec {
                namespace: "shop".parse().unwrap(),
                mode: CaptureMode::Node,
                gns: "acme".parse().unwrap(),
                against: Default::default(),
            }
            .into(),
        );
        let told: Resources<ClusterResource> = [(capture.key(), capture)].into();
        let mode = |view: &View| view.capture.mode(&"shop".parse().unwrap(), &Default::default());
        let first = chosen.of(Arc::clone(&view), &told);
        assert_eq!((mode(&first), names(&first)), (CaptureMode::Node, vec!["secret", "shop"]));
        assert!(Arc::ptr_eq(&first, &chosen.of(Arc::clone(&view), &told)));
        assert_eq!(
            mode(&chosen.of(view, &Resources::new())),
            CaptureMode::Gateway,
            "nobody chooses any more"
        );
    }

    #[test]
    fn it_is_worked_out_once() {
        let (mut chosen, view) = (Chosen::default(), view());
        let first = chosen.of(Arc::clone(&view), &without("secret"));
        assert!(Arc::ptr_eq(&first, &chosen.of(Arc::clone(&view), &without("secret"))));
        let services: Vec<&ServiceKey> = first.services.keys().collect();
        assert!(services.is_empty());
    }
}

//! Which namespaces take part: those that the order to install chooses. Before anybody ordered anything, all that the agent reads;
//! after everything was taken out, none.

use crate::{index::View, install::order};
use std::{collections::BTreeSet, sync::Arc};
use tombolo_model::{
    install::{InstallOrder, Namespaces},
    snapshot::{ClusterResource, Resources},
};

/// What runs here in the namespaces that take part, worked out once for each view and choice.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// The choice of the last order.
    choice: Option<Namespaces>,
    made: Option<(Arc<View>, Namespaces, Arc<View>)>,
}

impl Chosen {
    /// What of the view takes part, as the snapshot orders.
    pub(crate) fn of(&mut self, view: Arc<View>, resources: &Resources<ClusterResource>) -> Arc<View> {
        match order(resources) {
            Some(InstallOrder::Installed(spec)) => {
                if self.choice.as_ref() != Some(&spec.namespaces) {
                    self.choice = Some(spec.namespaces.clone());
                }
            }
            Some(InstallOrder::Removed { .. }) => {
                self.choice = Some(Namespaces::Include(BTreeSet::new()));
            }
            None => self.choice = None,
        }
        let Some(choice) = &self.choice else { return view };
        match &self.made {
            Some((of, by, only)) if Arc::ptr_eq(of, &view) && by == choice => Arc::clone(only),
            _ => {
                let only = Arc::new(view.only(choice));
                self.made = Some((view, choice.clone(), Arc::clone(&only)));
                only
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_model::{install::InstallSpec, inventory::ServiceKey, snapshot::Resource as _};

    fn view() -> Arc<View> {
        let mut view = View::default();
        for namespace in ["shop", "secret"] {
            view.namespaces.insert(namespace.parse().unwrap(), Default::default());
            view.spaces.insert(namespace.parse().unwrap());
        }
        Arc::new(view)
    }

    fn told(order: InstallOrder) -> Resources<ClusterResource> {
        let resource = ClusterResource::Install(order);
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

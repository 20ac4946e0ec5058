//! When each service was seen first. Of two that conflict the older wins; a manifest in a directory seldom says when
//! it was made, so the agent remembers.

use crate::{index::View, state::DataDir};
use std::collections::BTreeMap;
use tombolo_model::inventory::ServiceKey;

/// Seconds since 1970, by service.
pub type Ages = BTreeMap<ServiceKey, i64>;

const FILE: &str = "ages.json";

/// Remembers on disk.
#[derive(Debug)]
pub(crate) struct Register {
    data: DataDir,
    ages: Ages,
}

impl Register {
    pub(crate) fn open(data: DataDir) -> Self {
        let ages = data.read_json(FILE).unwrap_or_else(|error| {
            tracing::warn!(error = %error, "the ages of the services can't be read; they count as new");
            None
        });
        Self { data, ages: ages.unwrap_or_default() }
    }

    /// The ages of the services of this view, at `now_s`. A service that is gone is forgotten: one of its name that
    /// comes later is another.
    pub(crate) fn update(&mut self, view: &View, now_s: i64) -> &Ages {
        let same = view.services.len() == self.ages.len()
            && view.services.iter().all(|(key, service)| {
                self.ages.get(key).is_some_and(|age| service.created_s.is_none_or(|said| said == *age))
            });
        if !same {
            let age = |key: &ServiceKey, said: Option<i64>| {
                said.or_else(|| self.ages.get(key).copied()).unwrap_or(now_s)
            };
            self.ages = view.services.iter().map(|(k, s)| (k.clone(), age(k, s.created_s))).collect();
            if let Err(error) = self.data.write_json(FILE, &self.ages) {
                tracing::warn!(error = %error, "the ages of the services could not be kept");
            }
        }
        &self.ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::LocalService;
    use std::sync::Arc;

    fn view(services: &[(&str, Option<i64>)]) -> View {
        let service = |created_s| {
            Arc::new(LocalService {
                created_s,
                headless: false,
                accounts: Default::default(),
                ports: vec![],
                endpoints: BTreeMap::new(),
                traits: Default::default(),
            })
        };
        let services =
            services.iter().map(|(k, at)| (ServiceKey::try_from((*k).to_owned()).unwrap(), service(*at)));
        View { services: services.collect(), ..View::default() }
    }

    #[test]
    fn the_first_time_stays() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let ages = |view: &View, now| {
            let mut register = Register::open(data.clone());
            register.update(view, now).values().copied().collect::<Vec<_>>()
        };
        assert_eq!(ages(&view(&[("d/a", None), ("d/b", Some(5))]), 10), [10, 5]);
        assert_eq!(ages(&view(&[("d/a", None), ("d/b", Some(5))]), 20), [10, 5]);
        assert_eq!(ages(&view(&[("d/b", Some(6))]), 30), [6]);
        assert_eq!(ages(&view(&[("d/a", None), ("d/b", None)]), 40), [40, 6]);
    }
}

//! A world: so many clusters, in global namespaces of so many each.

use std::ops::Range;

/// How many there are of each. Clusters are numbered from 0; those of a group (a global namespace) follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Clusters.
    pub clusters: usize,
    /// Of each global namespace; they divide the clusters.
    pub members: usize,
    /// Services of each global namespace.
    pub services: usize,
    /// Clusters that serve each.
    pub copies: usize,
    /// Endpoints of each, over all that serve it.
    pub endpoints: u32,
}

impl Shape {
    /// Global namespaces.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.clusters / self.members
    }

    /// Services in all.
    #[must_use]
    pub const fn all_services(&self) -> usize {
        self.groups() * self.services
    }

    /// Endpoints in all.
    #[must_use]
    pub const fn all_endpoints(&self) -> usize {
        self.groups() * self.services * self.copies * self.at_each() as usize
    }

    /// Names that a cluster is told: one of each service, and one of it in each cluster that serves it.
    #[must_use]
    pub const fn told(&self) -> usize {
        self.services * (1 + self.copies)
    }

    /// Names in all.
    #[must_use]
    pub const fn names(&self) -> usize {
        self.groups() * self.told()
    }

    /// Endpoints of a service in each cluster that serves it.
    #[must_use]
    pub const fn at_each(&self) -> u32 {
        let copies = if self.copies == 0 { 1 } else { self.copies as u32 };
        let each = self.endpoints / copies;
        if each == 0 { 1 } else { each }
    }

    /// The group of a cluster.
    #[must_use]
    pub const fn group(&self, cluster: usize) -> usize {
        cluster / self.members
    }

    /// The clusters of a group.
    #[must_use]
    pub const fn of_group(&self, group: usize) -> Range<usize> {
        group * self.members..(group + 1) * self.members
    }

    /// The clusters of a group that serve its service `service`, as far apart as can be.
    pub fn serving(&self, group: usize, service: usize) -> impl Iterator<Item = usize> + use<> {
        let (members, step) = (self.members, (self.members / self.copies.max(1)).max(1));
        let first = group * members;
        (0..self.copies).map(move |copy| first + (service + copy * step) % members)
    }

    /// The services that a cluster serves.
    #[must_use]
    pub fn served(&self, cluster: usize) -> Vec<usize> {
        let group = self.group(cluster);
        (0..self.services).filter(|service| self.serving(group, *service).any(|one| one == cluster)).collect()
    }

    /// The same world with as many services more as it takes to have so many names.
    #[must_use]
    pub const fn grown(self, names: usize) -> Self {
        let services = names.div_ceil(self.groups() * (1 + self.copies));
        Self { services: if services > self.services { services } else { self.services }, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SMALL: Shape = Shape { clusters: 30, members: 10, services: 25, copies: 3, endpoints: 9 };

    #[test]
    fn counts() {
        assert_eq!((SMALL.groups(), SMALL.told(), SMALL.names()), (3, 100, 300));
        assert_eq!((SMALL.all_services(), SMALL.all_endpoints(), SMALL.at_each()), (75, 675, 3));
        assert_eq!((SMALL.group(9), SMALL.group(10), SMALL.of_group(2)), (0, 1, 20..30));
    }

    #[test]
    fn each_service_is_served_by_as_many_as_it_should() {
        for group in 0..SMALL.groups() {
            for service in 0..SMALL.services {
                let serving: BTreeSet<_> = SMALL.serving(group, service).collect();
                assert_eq!(serving.len(), SMALL.copies, "{group} {service}");
                assert!(serving.iter().all(|cluster| SMALL.of_group(group).contains(cluster)));
                assert!(serving.iter().all(|cluster| SMALL.served(*cluster).contains(&service)));
            }
        }
        let served: usize = (0..SMALL.clusters).map(|cluster| SMALL.served(cluster).len()).sum();
        assert_eq!(served, SMALL.all_services() * SMALL.copies);
    }

    #[test]
    fn it_grows_by_services_alone() {
        let grown = SMALL.grown(1000);
        assert!(grown.names() >= 1000 && grown.names() < 1000 + SMALL.groups() * 4, "{}", grown.names());
        assert_eq!(Shape { services: SMALL.services, ..grown }, SMALL);
        assert_eq!(SMALL.grown(10), SMALL);
    }
}

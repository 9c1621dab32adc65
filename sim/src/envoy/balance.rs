//! The choice of an endpoint.

use nodeway_core::plan::{PlannedCluster, PlannedEndpoint, ResourceName};

use super::NodeProxy;
use crate::process::Os;

impl NodeProxy {
    /// The endpoint of a cluster whose turn it is. Policies that hash take turns here too.
    pub(super) fn balance(
        &mut self,
        name: &ResourceName,
        cluster: &PlannedCluster,
        endpoints: &[PlannedEndpoint],
        os: &mut dyn Os,
    ) -> Option<PlannedEndpoint> {
        let count = u64::try_from(endpoints.len()).ok().filter(|it| *it > 0)?;
        let at = |number: u64| {
            endpoints
                .get(usize::try_from(number % count).ok()?)
                .cloned()
        };
        match cluster.model.lb_policy.as_str() {
            "RANDOM" => at(os.random()),
            "LEAST_REQUEST" => {
                let one = at(os.random())?;
                let other = at(os.random())?;
                let fewer = self.in_flight(name, &other) < self.in_flight(name, &one);
                Some(if fewer { other } else { one })
            }
            _ => {
                // The start is drawn, so that many proxies do not all begin at the first endpoint.
                let turn = self
                    .turns
                    .entry(name.clone())
                    .or_insert_with(|| os.random());
                let chosen = at(*turn);
                *turn = turn.wrapping_add(1);
                chosen
            }
        }
    }

    fn in_flight(&self, cluster: &ResourceName, endpoint: &PlannedEndpoint) -> usize {
        let used = self.upstreams.values().filter(|it| it.user.is_some());
        used.filter(|it| it.key.0 == *cluster && it.key.1 == endpoint.address)
            .count()
    }
}

//! The ports of listeners, by generation of the node's Envoy: one ledger for all of them, so that no
//! two have one port and none meets what another program has open.

use std::collections::BTreeMap;

use nodeway_core::plan::Ledger;

/// Who has which port.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    ledger: Ledger,
    /// By generation, then by listener.
    of: BTreeMap<String, BTreeMap<String, u16>>,
}

impl Ports {
    /// Those of an earlier agent, whose Envoys may still hold them; other ports that are open on
    /// the node (`open`) are nobody's.
    pub(super) fn restore(
        of: BTreeMap<String, BTreeMap<String, u16>>,
        open: impl IntoIterator<Item = u16>,
    ) -> Self {
        let mut held = BTreeMap::new();
        for (generation, listeners) in &of {
            let listeners = listeners.iter();
            held.extend(listeners.map(|(name, port)| (entry(generation, name), *port)));
        }
        let mut ledger = Ledger::restore(held.clone());
        ledger.avoid(open);
        for name in held.keys() {
            // Held again, not only remembered: its Envoy may be there.
            let _ = ledger.port(name);
        }
        Self { ledger, of }
    }

    /// The port of a generation's listener, from now on; none when all are taken.
    pub(super) fn port(&mut self, generation: &str, listener: &str) -> Option<u16> {
        let port = self.ledger.port(&entry(generation, listener))?;
        let listeners = self.of.entry(generation.to_owned()).or_default();
        listeners.insert(listener.to_owned(), port);
        Some(port)
    }

    /// Gives back the port of a listener that no generation has any more.
    pub(super) fn release(&mut self, generation: &str, listener: &str) {
        self.ledger.release(&entry(generation, listener));
        if let Some(listeners) = self.of.get_mut(generation) {
            listeners.remove(listener);
        }
    }

    /// Gives back all ports of a generation that is gone.
    pub(super) fn release_all(&mut self, generation: &str) {
        for listener in self.of.remove(generation).unwrap_or_default().into_keys() {
            self.ledger.release(&entry(generation, &listener));
        }
    }

    pub(super) const fn all(&self) -> &BTreeMap<String, BTreeMap<String, u16>> {
        &self.of
    }
}

/// Neither has a blank in its name.
fn entry(generation: &str, listener: &str) -> String {
    format!("{generation} {listener}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_has_its_ports_again_after_a_restart_and_shares_none() {
        let mut ports = Ports::restore(BTreeMap::new(), []);
        let first = ports.port("a", "web").unwrap();
        let second = ports.port("b", "web").unwrap();
        assert_ne!(first, second);
        let mut again = Ports::restore(ports.all().clone(), [first, second]);
        assert_eq!(again.all(), ports.all());
        assert_eq!(again.port("b", "web"), Some(second));
        again.release_all("a");
        assert_ne!(
            again.port("c", "web"),
            Some(first),
            "not while there are unused ones"
        );
    }

    #[test]
    fn a_port_that_somebody_else_has_open_is_not_taken() {
        let wanted = Ports::restore(BTreeMap::new(), [])
            .port("a", "web")
            .unwrap();
        let port = Ports::restore(BTreeMap::new(), [wanted]).port("a", "web");
        assert!(port.is_some_and(|port| port != wanted));
    }
}

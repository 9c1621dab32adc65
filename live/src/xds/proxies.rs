//! The proxies that a server knows, and a handle for who plans for one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nodeway_core::envoy::ResourceKind;
use nodeway_core::problem::Problem;
use nodeway_core::xds::{Proxy, ProxyState, Rejection, ResourceDelta, ResourceState};
use tokio::sync::watch;

/// By node id.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    by_id: Mutex<BTreeMap<String, Arc<Shared>>>,
}

impl Proxies {
    pub(super) fn register(&self, id: &str, resources: &ResourceDelta) -> ProxyHandle {
        let shared = Arc::new(Shared::new(id, Proxy::new(resources)));
        let mut by_id = self.lock();
        if let Some(before) = by_id.insert(id.to_owned(), Arc::clone(&shared)) {
            before.close();
        }
        ProxyHandle { shared }
    }

    pub(super) fn forget(&self, id: &str) {
        if let Some(shared) = self.lock().remove(id) {
            shared.close();
        }
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Shared>> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Shared>>> {
        // Nothing is left half done in it.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the stream of a proxy and who plans for it have in common.
pub(super) struct Shared {
    id: String,
    state: Mutex<State>,
    heard: Condvar,
    /// Wakes the streams: there may be something to say.
    to_say: watch::Sender<()>,
    /// Wakes who waits: something was said or heard.
    changed: watch::Sender<u64>,
}

struct State {
    proxy: Proxy,
    /// Whether the server still knows it.
    open: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(id: &str, proxy: Proxy) -> Self {
        Self {
            id: id.to_owned(),
            state: Mutex::new(State { proxy, open: true }),
            heard: Condvar::new(),
            to_say: watch::Sender::new(()),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Looks at the proxy.
    fn read<T>(&self, look: impl FnOnce(&Proxy) -> T) -> T {
        look(&self.lock().proxy)
    }

    /// Does something to the proxy, and tells who waits for a change.
    pub(super) fn change<T>(&self, what: impl FnOnce(&mut Proxy) -> T) -> T {
        let done = what(&mut self.lock().proxy);
        self.heard.notify_all();
        self.changed.send_modify(|count| *count += 1);
        done
    }

    /// Does what is the business of a stream, as long as the stream is the proxy's own.
    pub(super) fn talk<T>(&self, stream: u64, what: impl FnOnce(&mut Proxy) -> T) -> Option<T> {
        let mut state = self.lock();
        let own = state.open && state.proxy.is_current(stream);
        own.then(|| what(&mut state.proxy))
    }

    /// Has streams look whether there is something to say.
    pub(super) fn wake(&self) {
        self.to_say.send_replace(());
    }

    pub(super) fn to_say(&self) -> watch::Receiver<()> {
        self.to_say.subscribe()
    }

    fn close(&self) {
        self.lock().open = false;
        self.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a bug that was told; the others go on with what is there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proxy as who plans for it sees it. Handles of one proxy are the same.
#[derive(Clone, Debug)]
pub struct ProxyHandle {
    shared: Arc<Shared>,
}

impl ProxyHandle {
    /// Its node id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.shared.id()
    }

    /// What it shall have has changed. Returns at once; [`ProxyHandle::changed`] tells of the rest.
    pub fn apply(&self, delta: &ResourceDelta) {
        self.shared.change(|proxy| proxy.apply(delta));
        self.shared.wake();
    }

    /// All of it; takes as long as there are resources.
    #[must_use]
    pub fn state(&self) -> ProxyState {
        self.shared.read(Proxy::state)
    }

    /// Whether it has a stream.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.read(Proxy::is_connected)
    }

    /// One resource; none when nobody planned it and the proxy has none.
    #[must_use]
    pub fn resource(&self, kind: ResourceKind, name: &str) -> Option<ResourceState> {
        self.shared.read(|proxy| proxy.resource(kind, name))
    }

    /// What it refuses of that which is planned.
    #[must_use]
    pub fn rejections(&self) -> Vec<Rejection> {
        self.shared.read(Proxy::rejections)
    }

    /// The same as told to users.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.rejections()
            .iter()
            .filter_map(Rejection::problem)
            .collect()
    }

    /// Whether all that is planned and can be said was said and answered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.shared.read(Proxy::is_settled)
    }

    /// A count of changes: of the plan, of what was sent and of what was answered.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Waits until something holds of the proxy, for callers without a runtime. Whether it does.
    pub fn wait(&self, within: Duration, mut holds: impl FnMut(&Proxy) -> bool) -> bool {
        let state = self.shared.lock();
        let waited = self
            .shared
            .heard
            .wait_timeout_while(state, within, |state| !holds(&state.proxy));
        let (_state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }
}

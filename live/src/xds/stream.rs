//! One stream of one proxy: it says who it is, then it asks and is told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use nodeway_core::xds::{Proxy, Revision};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use super::discovery::Talk;
use super::proxies::{Proxies, Shared};

/// The responses of a stream. One is made when the connection can take it.
pub(super) fn responses<T: Talk>(
    proxies: Arc<Proxies>,
    requests: Streaming<T::Request>,
    patience: Duration,
) -> impl Stream<Item = Result<T::Response, Status>> + Send {
    let conversation = Conversation::<T> {
        proxies,
        requests,
        patience,
        own: None,
        waits: None,
    };
    // Not a word after an error.
    unfold(Some(conversation), |conversation| async {
        let mut conversation = conversation?;
        match conversation.next().await {
            Ok(Some(response)) => Some((Ok(response), Some(conversation))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    })
}

/// A stream as far as it has come.
struct Conversation<T: Talk> {
    proxies: Arc<Proxies>,
    requests: Streaming<T::Request>,
    patience: Duration,
    /// Whose it is; none before the first request.
    own: Option<Own>,
    /// A change that waits, and until when.
    waits: Option<(Revision, Instant)>,
}

/// A proxy's stream. When it ends, the proxy is not connected.
struct Own {
    shared: Arc<Shared>,
    stream: u64,
    to_say: watch::Receiver<()>,
}

impl Drop for Own {
    fn drop(&mut self) {
        tracing::info!(
            proxy = self.shared.id(),
            stream = self.stream,
            "the stream ended"
        );
        self.shared.change(|proxy| proxy.disconnect(self.stream));
    }
}

/// What a stream waits for.
enum Event<R> {
    Request(R),
    End,
    ToSay,
    TimeIsUp(Revision),
}

impl<T: Talk> Conversation<T> {
    /// The next response; none when the proxy hangs up.
    async fn next(&mut self) -> Result<Option<T::Response>, Status> {
        loop {
            if let Some(response) = self.say()? {
                return Ok(Some(response));
            }
            match self.event().await? {
                Event::Request(request) => self.hear(request)?,
                Event::End => return Ok(None),
                Event::ToSay => {}
                Event::TimeIsUp(revision) => {
                    tracing::warn!(revision, "clusters are not acknowledged in time; going on");
                    self.waits = None;
                    self.talk(|proxy| proxy.time_is_up(revision))?;
                }
            }
        }
    }

    fn say(&mut self) -> Result<Option<T::Response>, Status> {
        let Some((response, waits)) = self.talk(|proxy| (proxy.response(), proxy.waits()))? else {
            return Ok(None);
        };
        let Some(response) = response else {
            self.arm(waits);
            return Ok(None);
        };
        tracing::debug!(
            kind = %response.kind, nonce = response.nonce, revision = response.revision,
            put = response.put.len(), removed = response.removed.len(), "told"
        );
        if let Some(own) = &self.own {
            own.shared.change(|_| ());
        }
        Ok(Some(T::write(response)))
    }

    /// Remembers since when a change waits.
    fn arm(&mut self, waits: Option<Revision>) {
        let until = match (waits, self.waits) {
            (Some(now), Some((before, until))) if now == before => Some((now, until)),
            (Some(now), _) => Some((now, Instant::now() + self.patience)),
            (None, _) => None,
        };
        self.waits = until;
    }

    async fn event(&mut self) -> Result<Event<T::Request>, Status> {
        let (waits, own) = (self.waits, self.own.as_mut());
        let to_say = async {
            if let Some(own) = own
                && own.to_say.changed().await.is_ok()
            {
                return;
            }
            // Before it said who it is, nothing is said.
            std::future::pending().await
        };
        let time_is_up = async {
            match waits {
                Some((revision, until)) => {
                    sleep_until(until).await;
                    revision
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = self.requests.message() => {
                Ok(request?.map_or(Event::End, Event::Request))
            }
            () = to_say => Ok(Event::ToSay),
            revision = time_is_up => Ok(Event::TimeIsUp(revision)),
        }
    }

    fn hear(&mut self, request: T::Request) -> Result<(), Status> {
        if self.own.is_none() {
            self.own = Some(self.recognize(T::node(&request).unwrap_or_default())?);
        }
        let request = match T::read(request) {
            Ok(request) => request,
            Err(type_url) => {
                tracing::debug!(type_url, "a proxy asks for what is not served");
                return Ok(());
            }
        };
        if let Some(words) = &request.error {
            let proxy = self.own.as_ref().map(|own| own.shared.id());
            tracing::warn!(proxy, kind = %request.kind, words, "a proxy refuses a response");
        }
        self.talk(|proxy| proxy.request(&request))?;
        if let Some(own) = &self.own {
            own.shared.change(|_| ());
        }
        Ok(())
    }

    fn recognize(&self, id: &str) -> Result<Own, Status> {
        let Some(shared) = self.proxies.find(id) else {
            tracing::warn!(id, "an unknown proxy asks");
            return Err(Status::not_found(format!(
                "no proxy with the node id `{id}` belongs to this agent; set `node.id`, or `--service-node`, to one that does"
            )));
        };
        let to_say = shared.to_say();
        let stream = shared.change(|proxy| proxy.connect(T::PROTOCOL));
        // An earlier stream sees that it is not the proxy's any more.
        shared.wake();
        tracing::info!(proxy = id, stream, protocol = ?T::PROTOCOL, "a proxy is connected");
        Ok(Own {
            shared,
            stream,
            to_say,
        })
    }

    /// Does something to the proxy whose stream this is; none before it said who it is.
    fn talk<R>(&self, what: impl FnOnce(&mut Proxy) -> R) -> Result<Option<R>, Status> {
        let Some(own) = &self.own else {
            return Ok(None);
        };
        let done = own.shared.talk(own.stream, what);
        let gone =
            || Status::aborted("another stream of this proxy has taken the place of this one");
        done.map(Some).ok_or_else(gone)
    }
}

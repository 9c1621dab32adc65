//! The xDS server and clients that are slow, silent, rude or many.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use nodeway_core::envoy::ResourceKind;
use nodeway_core::object::{Kind, ObjectRef};
use nodeway_core::plan::{PlanDelta, PlannedEndpoint, PlannedEndpoints, Update};
use nodeway_core::xds::{ResourceDelta, Served};
use nodeway_live::xds::{ProxyHandle, XdsError, XdsOptions, XdsServer};
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const SOON: Duration = Duration::from_secs(10);

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`, with its node written out.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, optional, tag = "1")]
    node: Option<Text>,
    #[prost(string, tag = "2")]
    type_url: String,
    #[prost(string, repeated, tag = "3")]
    subscribe: Vec<String>,
    #[prost(string, tag = "6")]
    nonce: String,
    #[prost(message, optional, tag = "7")]
    error: Option<Status>,
}

/// A message whose first field is a text.
#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Resource>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "3")]
    name: String,
}

/// A client of the incremental protocol.
struct Client {
    up: SendStream<Bytes>,
    down: Option<RecvStream>,
    answer: Option<h2::client::ResponseFuture>,
    buffer: BytesMut,
    /// Keeps the connection.
    _connection: SendRequest<Bytes>,
}

impl Client {
    async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async { drop(connection.await) });
        let mut client = client.ready().await.unwrap();
        let request = http::Request::post(
            "http://agent/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        );
        let request = request
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let (answer, up) = client
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        Self {
            up,
            down: None,
            answer: Some(answer),
            buffer: BytesMut::new(),
            _connection: client,
        }
    }

    /// Connects, and asks for all clusters as a node.
    async fn asking(socket: &Path, node: &str) -> Self {
        let mut client = Self::connect(socket).await;
        let node = Some(Text {
            text: node.to_owned(),
        });
        let type_url = CLUSTER.to_owned();
        client.say(&Request {
            node,
            type_url,
            ..Request::default()
        });
        client
    }

    fn say(&mut self, request: &Request) {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(request.encoded_len()).unwrap());
        request.encode(&mut frame).unwrap();
        // On a stream that the server has ended nothing can be said.
        let _ = self.up.send_data(frame.freeze(), false);
    }

    fn acknowledge(&mut self, response: &Response, words: Option<&str>) {
        self.say(&Request {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            error: words.map(|words| Status {
                message: words.to_owned(),
            }),
            ..Request::default()
        });
    }

    /// The next response; none when the server has ended the stream, with its words.
    async fn hear(&mut self) -> Result<Response, String> {
        let words = |headers: &http::HeaderMap| {
            let of = |name| headers.get(name).map(|it| it.to_str().unwrap().to_owned());
            format!("{:?} {:?}", of("grpc-status"), of("grpc-message"))
        };
        if let Some(answer) = self.answer.take() {
            let answer = answer.await.map_err(|error| error.to_string())?;
            if answer.headers().contains_key("grpc-status") {
                return Err(words(answer.headers()));
            }
            self.down = Some(answer.into_body());
        }
        let down = self.down.as_mut().unwrap();
        loop {
            if let Some(header) = self.buffer.get(1..5) {
                let length = u32::from_be_bytes(header.try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Ok(Response::decode(self.buffer.split_to(length)).unwrap());
                }
            }
            match down.data().await {
                Some(data) => {
                    let data = data.map_err(|error| error.to_string())?;
                    down.flow_control().release_capacity(data.len()).unwrap();
                    self.buffer.extend_from_slice(&data);
                }
                None => {
                    let trailers = down.trailers().await.ok().flatten();
                    return Err(trailers.map(|it| words(&it)).unwrap_or_default());
                }
            }
        }
    }

    /// Acknowledges so many at least, and then until nothing comes for a while; the responses.
    async fn settle(&mut self, least: usize) -> Vec<Response> {
        let mut heard = Vec::new();
        let patience = |heard: usize| match heard < least {
            true => SOON,
            false => Duration::from_millis(200),
        };
        while let Ok(response) = timeout(patience(heard.len()), self.hear()).await {
            let response = response.unwrap();
            self.acknowledge(&response, None);
            heard.push(response);
        }
        heard
    }
}

/// A server with its folder.
struct Bench {
    server: XdsServer,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

fn bench(options: &XdsOptions) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xds.sock");
    let server = XdsServer::bind(&socket, options).unwrap_or_else(|error| panic!("{error}"));
    Bench {
        server,
        socket,
        _folder: folder,
    }
}

/// A cluster of that many bytes; nobody here reads them.
fn cluster(version: u32, size: usize) -> Update<Arc<Served>> {
    let mut bytes = format!("{version}").into_bytes();
    bytes.resize(size.max(bytes.len()), 0);
    let object = ObjectRef::new(Kind::CiliumEnvoyConfig, "default", "config");
    Update::Put(Arc::new(Served::new(bytes.into(), Some(object))))
}

fn clusters(names: std::ops::Range<u32>, version: u32, size: usize) -> ResourceDelta {
    let one = |name: u32| {
        let name = format!("cluster-{name}").into();
        ((ResourceKind::Cluster, name), cluster(version, size))
    };
    ResourceDelta {
        changes: names.map(one).collect(),
    }
}

fn run<T>(what: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(what)
}

fn acknowledged(handle: &ProxyHandle, name: &str) -> bool {
    let state = handle.resource(ResourceKind::Cluster, name);
    state.is_some_and(|state| state.is_acknowledged())
}

#[test]
fn who_reads_nothing_and_acknowledges_nothing_holds_up_nobody() {
    let bench = bench(&XdsOptions::default());
    // More than any window takes.
    let slow = bench.server.proxy("slow", &clusters(0..200, 0, 100_000));
    let quick = bench.server.proxy("quick", &clusters(0..2, 0, 10));
    run(async {
        let mut silent = Client::asking(&bench.socket, "slow").await;
        let mut client = Client::asking(&bench.socket, "quick").await;
        client.settle(1).await;
        assert!(acknowledged(&quick, "cluster-1"));
        let mut longest = Duration::ZERO;
        for version in 1..=100 {
            let start = Instant::now();
            slow.apply(&clusters(0..200, version, 1000));
            quick.apply(&clusters(1..2, version, 10));
            let response = timeout(SOON, client.hear()).await.unwrap().unwrap();
            longest = longest.max(start.elapsed());
            assert_eq!(response.resources.len(), 1);
            client.acknowledge(&response, None);
        }
        println!("beside a client that reads nothing: {longest:?} at most");
        assert!(longest < Duration::from_millis(500), "{longest:?}");
        // What it missed comes once, in its last state.
        let heard = silent.settle(2).await;
        assert_eq!(
            heard.len(),
            2,
            "{:?}",
            heard
                .iter()
                .map(|it| it.resources.len())
                .collect::<Vec<_>>()
        );
        assert!(acknowledged(&slow, "cluster-199"));
    });
}

#[test]
fn who_refuses_everything_is_told_little() {
    let bench = bench(&XdsOptions::default());
    let handle = bench.server.proxy("rude", &clusters(0..32, 0, 10));
    run(async {
        let mut client = Client::asking(&bench.socket, "rude").await;
        let mut responses = 0;
        while let Ok(response) = timeout(Duration::from_millis(300), client.hear()).await {
            let response = response.unwrap();
            let words = (!response.resources.is_empty()).then_some("no");
            client.acknowledge(&response, words);
            responses += 1;
            assert!(responses < 200, "a storm");
        }
        println!("32 clusters that are all refused took {responses} responses");
        assert_eq!(handle.rejections().len(), 32);
        assert_eq!(handle.problems().len(), 32);
        // A change after that is one response, and its refusal one more.
        handle.apply(&clusters(0..1, 1, 10));
        let response = timeout(SOON, client.hear()).await.unwrap().unwrap();
        assert_eq!(response.resources.len(), 1);
    });
}

#[test]
fn who_hangs_up_at_any_point_is_forgotten_and_may_come_back() {
    let bench = bench(&XdsOptions::default());
    let handle = bench.server.proxy("fickle", &clusters(0..50, 0, 10_000));
    for point in 0..6 {
        run(async {
            let mut client = Client::connect(&bench.socket).await;
            if point > 0 {
                client = Client::asking(&bench.socket, "fickle").await;
            }
            let mut response = Response::default();
            if point > 1 {
                response = client.hear().await.unwrap();
            }
            if point > 2 {
                client.acknowledge(&response, (point == 3).then_some("cluster-7: no"));
            }
            if point > 4 {
                tokio::task::yield_now().await;
            }
        });
        assert!(
            handle.wait(SOON, |proxy| !proxy.is_connected()),
            "point {point}"
        );
    }
    run(async {
        let mut client = Client::asking(&bench.socket, "fickle").await;
        client.settle(1).await;
        assert!(acknowledged(&handle, "cluster-49"));
    });
}

#[test]
fn who_stops_is_noticed() {
    let bench = bench(&XdsOptions {
        keepalive: Duration::from_millis(200),
        ..XdsOptions::default()
    });
    let handle = bench.server.proxy("stopped", &clusters(0..1, 0, 10));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = runtime.block_on(async {
        let mut client = Client::asking(&bench.socket, "stopped").await;
        client.hear().await.unwrap();
        client
    });
    assert!(handle.is_connected());
    // Its connection is open, and nobody drives it any more.
    assert!(handle.wait(SOON, |proxy| !proxy.is_connected()));
    drop((client, runtime));
}

#[test]
fn an_unknown_node_is_told_so() {
    let bench = bench(&XdsOptions::default());
    let _handle = bench.server.proxy("node-1", &ResourceDelta::default());
    run(async {
        let mut client = Client::asking(&bench.socket, "node-2").await;
        let words = timeout(SOON, client.hear()).await.unwrap().unwrap_err();
        assert!(
            words.contains("\"5\"") && words.contains("node-2"),
            "{words}"
        );
    });
}

#[test]
fn the_newest_stream_of_a_proxy_is_the_one() {
    let bench = bench(&XdsOptions::default());
    let handle = bench.server.proxy("twice", &clusters(0..1, 0, 10));
    run(async {
        let mut first = Client::asking(&bench.socket, "twice").await;
        first.settle(1).await;
        let mut second = Client::asking(&bench.socket, "twice").await;
        second.settle(1).await;
        let words = timeout(SOON, first.hear()).await.unwrap().unwrap_err();
        assert!(words.contains("\"10\""), "{words}");
        assert!(handle.is_connected());
        bench.server.forget("twice");
        assert!(timeout(SOON, second.hear()).await.unwrap().is_err());
    });
}

#[test]
fn many_proxies_are_told_at_once() {
    let bench = bench(&XdsOptions::default());
    let handles: Vec<ProxyHandle> = (0..50)
        .map(|node| {
            bench
                .server
                .proxy(&format!("node-{node}"), &clusters(0..20, 0, 100))
        })
        .collect();
    run(async {
        let mut clients = Vec::new();
        for handle in &handles {
            let mut client = Client::asking(&bench.socket, handle.id()).await;
            let response = timeout(SOON, client.hear()).await.unwrap().unwrap();
            client.acknowledge(&response, None);
            clients.push(client);
        }
        let start = Instant::now();
        handles
            .iter()
            .for_each(|handle| handle.apply(&clusters(3..4, 1, 100)));
        for client in &mut clients {
            let response = timeout(SOON, client.hear()).await.unwrap().unwrap();
            assert_eq!(response.resources[0].name, "cluster-3");
        }
        println!("50 proxies were told in {:?}", start.elapsed());
    });
}

#[test]
fn the_socket_is_its_owners_and_replaces_a_stale_one() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than the address of a Unix socket can be.
    let deep = folder.path().join("a".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    let socket = deep.join("xds.sock");
    let options = XdsOptions {
        owner: Some(65_534),
        ..XdsOptions::default()
    };
    let first = XdsServer::bind(&socket, &options).unwrap();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&socket).unwrap());
    assert_eq!(owner, 65_534);
    let second = XdsServer::bind(&socket, &options);
    assert!(matches!(second, Err(XdsError::InUse(path)) if path == socket));
    drop(first);
    assert!(!socket.exists());

    // What a process that was killed leaves behind.
    let stale = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    drop(XdsServer::bind(&stale, &options).unwrap());
}

#[test]
fn a_stranger_is_not_served_even_if_the_socket_lets_him_in() {
    let folder = tempfile::tempdir().unwrap();
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everybody).unwrap();
    let socket = folder.path().join("xds.sock");
    let options = |owner| XdsOptions {
        owner,
        mode: 0o666,
        ..XdsOptions::default()
    };
    // A connection stays open for who may ask, and ends at once for who may not.
    let is_served = || {
        const PROGRAM: &str = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(5); \
            s.connect(sys.argv[1]); s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0'); \
            print('served' if s.recv(1) else 'not served')";
        let words = [
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "python3",
            "-c",
            PROGRAM,
        ];
        let output = std::process::Command::new("setpriv")
            .args(words)
            .arg(&socket)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let failed = String::from_utf8_lossy(&output.stderr).into_owned();
        // Depending on who is first, the kernel tells of the end while the stranger still speaks.
        assert!(
            output.status.success() || failed.contains("Error"),
            "{failed}"
        );
        said.trim() == "served"
    };
    let server = XdsServer::bind(&socket, &options(None)).unwrap();
    assert!(!is_served());
    drop(server);
    let _server = XdsServer::bind(&socket, &options(Some(65_534))).unwrap();
    assert!(is_served());
}

/// A plan of that many services with ten endpoints each, and the change of one of them.
fn services(services: u32, changed: Option<u32>) -> PlanDelta {
    let endpoint = |service: u32, number: u32| PlannedEndpoint {
        address: std::net::SocketAddr::from((
            (0x0a00_0000 + service * 16 + number).to_be_bytes(),
            80,
        )),
        pod: None,
        node: None,
    };
    let planned = |service: u32, count: u32| PlannedEndpoints {
        service: Some(ObjectRef::new(
            Kind::Service,
            "default",
            format!("s{service}"),
        )),
        endpoints: (0..count).map(|number| endpoint(service, number)).collect(),
        left_out: Vec::new(),
    };
    let one = |service: u32, count: u32| {
        let update = Update::Put(Arc::new(planned(service, count)));
        (format!("default/s{service}:80").into(), update)
    };
    let endpoints = match changed {
        Some(service) => [one(service, 9)].into(),
        None => (0..services).map(|service| one(service, 10)).collect(),
    };
    PlanDelta {
        endpoints,
        ..PlanDelta::default()
    }
}

#[test]
fn one_endpoint_among_ten_thousand_services_is_one_resource() {
    const SERVICES: u32 = 10_000;
    let bench = bench(&XdsOptions::default());
    let handle = bench
        .server
        .proxy("large", &ResourceDelta::of(&services(SERVICES, None)));
    run(async {
        let mut client = Client::connect(&bench.socket).await;
        client.say(&Request {
            node: Some(Text {
                text: "large".to_owned(),
            }),
            type_url: ENDPOINTS.to_owned(),
            subscribe: (0..SERVICES)
                .map(|it| format!("default/s{it}:80"))
                .collect(),
            ..Request::default()
        });
        let response = timeout(SOON, client.hear()).await.unwrap().unwrap();
        assert_eq!(response.resources.len(), SERVICES as usize);
        client.acknowledge(&response, None);
        let last = || handle.resource(ResourceKind::ClusterLoadAssignment, "default/s9999:80");
        while !last().is_some_and(|it| it.is_acknowledged()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        let delta = ResourceDelta::of(&services(SERVICES, Some(4711)));
        assert_eq!(delta.changes.len(), 1);
        handle.apply(&delta);
        let planned = start.elapsed();
        let response = timeout(SOON, client.hear()).await.unwrap().unwrap();
        let took = start.elapsed();
        let names: Vec<&str> = response
            .resources
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(names, ["default/s4711:80"]);
        println!("one of {SERVICES} services: planned in {planned:?}, at the client in {took:?}");
        assert!(took < Duration::from_millis(250), "{took:?}");
    });
}

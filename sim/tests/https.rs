//! TLS as far as it is simulated: which filter chain takes a connection, and what follows from it.

use nodeway_core::source::Text;
use nodeway_sim::{Ask, Cluster, Redirect, Reply, Sim, Source};
use rstest::rstest;

const MANIFESTS: &str = r"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: cilium
  tls:
  - {hosts: [shop.example], secretName: shop}
  rules:
  - host: shop.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}
---
apiVersion: v1
kind: Secret
metadata: {name: shop}
type: kubernetes.io/tls
stringData: {tls.crt: CERTIFICATE, tls.key: KEY}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: shop, labels: {app: shop}}
spec: {containers: [{name: shop, image: echo}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: client, image: curl}]}
";

/// For `shop.example`; its key is nobody's.
const CERTIFICATE: &str = include_str!("https/shop.pem");
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

fn ask(redirect: Redirect, url: &str, host: &str) -> Result<Reply, Box<nodeway_sim::Failed>> {
    let quoted = |text: &str| format!("{text:?}");
    let manifests = MANIFESTS
        .replace("CERTIFICATE", &quoted(CERTIFICATE))
        .replace("KEY", &quoted(KEY));
    ask_of(&manifests, redirect, url, host)
}

fn ask_of(
    manifests: &str,
    redirect: Redirect,
    url: &str,
    host: &str,
) -> Result<Reply, Box<nodeway_sim::Failed>> {
    let source = Source {
        name: "manifests".to_owned(),
        fixture: None,
        recordings: Vec::new(),
        texts: vec![Text::new("manifests", manifests)],
    };
    let builder = Sim::from_source(&source).unwrap();
    let mut cluster = builder.redirect(redirect).start().unwrap();
    cluster.request("default/client", Ask::get(url).header("host", host))
}

#[rstest]
fn the_chain_for_tls_takes_a_connection_by_its_servers_name(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let reply = ask(redirect, "https://cilium-ingress-shop/cart", "shop.example").unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.service, "shop");
    assert_eq!(reply.body["saw"]["headers"]["x-forwarded-proto"], "https");
    let tls = reply.tls.unwrap();
    assert_eq!(tls.certificate.as_deref(), Some("default/shop"));
    assert_eq!(tls.names, ["shop.example", "*.shop.example"]);
    let by = match redirect {
        Redirect::Sidecar => "Pod default/client",
        _ => "Node node-1",
    };
    assert!(tls.covers);
    assert_eq!(tls.terminated_by, by);
}

#[rstest]
#[case::without_a_secret("name: shop}\ntype", "name: other}\ntype", "Secret is missing")]
#[case::without_a_certificate("CERTIFICATE", "''", "no certificate in PEM form")]
#[case::of_something_else("CERTIFICATE", "hello", "no certificate in PEM form")]
#[case::without_a_key("KEY", "''", "no private key in PEM form")]
fn a_handshake_without_a_certificate_fails_and_says_why(
    #[case] text: &str,
    #[case] instead: &str,
    #[case] why: &str,
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let manifests = MANIFESTS
        .replace(text, instead)
        .replace("CERTIFICATE", &format!("{CERTIFICATE:?}"))
        .replace("KEY", &format!("{KEY:?}"));
    let url = "https://cilium-ingress-shop/";
    let failed = ask_of(&manifests, redirect, url, "shop.example").unwrap_err();
    let told = failed.to_string();
    assert!(
        told.contains("handshake-failed") && told.contains(why),
        "{told}"
    );
}

#[rstest]
fn plain_text_is_sent_to_tls(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let reply = ask(redirect, "http://cilium-ingress-shop/cart", "shop.example").unwrap();
    assert_eq!(reply.status, 301);
    assert_eq!(
        reply.headers.get("location"),
        Some("https://shop.example/cart")
    );
    assert_eq!(reply.service.to_string(), "nobody");
}

#[rstest]
fn a_servers_name_that_no_chain_has_is_closed(
    #[values(
        Redirect::Tc,
        Redirect::SkLookup,
        Redirect::Iptables,
        Redirect::Sidecar
    )]
    redirect: Redirect,
) {
    let failed = ask(redirect, "https://cilium-ingress-shop/", "other.example").unwrap_err();
    let told = failed.to_string();
    assert!(told.contains("filter chain"), "{told}");
}

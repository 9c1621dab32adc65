//! Configs that Envoy refuses, drawn: one thing is wrong with each.

use serde_json::{Value, json};

use super::chain;
use super::luck::{Feature as F, Luck};
use super::subject::listener_of;
use super::table;

/// All that can be wrong.
const ALL: [F; 21] = [
    F::RefuseDomainTwice,
    F::RefuseRegex,
    F::RefuseEditHost,
    F::RefuseEditPseudo,
    F::RefuseEditName,
    F::RefuseEditFormat,
    F::RefuseNoDomain,
    F::RefuseNoName,
    F::RefuseNoAction,
    F::RefuseNoMatch,
    F::RefuseWeights,
    F::RefuseWeightName,
    F::RefuseTwoRewrites,
    F::RefuseTemplate,
    F::RefuseTemplateRewrite,
    F::RefuseStatus,
    F::RefuseBody,
    F::RefuseWildcardDomain,
    F::RefuseChainTwice,
    F::RefuseServerName,
    F::RefuseCidr,
];

/// A listener with which one thing is wrong; each kind comes in its turn.
pub(super) fn listener(luck: &mut Luck, turn: usize) -> Value {
    let wrong = ALL.get(turn % ALL.len()).copied().unwrap_or(F::RefuseRegex);
    luck.count(wrong);
    match wrong {
        F::RefuseChainTwice => {
            let matches = json!({ "server_names": ["a.test"], "destination_port": 443 });
            chains(&[matches.clone(), matches])
        }
        F::RefuseServerName => {
            let name = luck.pick(&["*a.test", "a.*.test", "a*", "a.test*"]);
            chains(&[json!({ "server_names": [name] })])
        }
        F::RefuseCidr => {
            let address = luck.pick(&["10.0.0", "10.0.0.256", "fd00:::1", "a.test"]);
            chains(&[json!({ "prefix_ranges": [{ "address_prefix": address, "prefix_len": 8 }] })])
        }
        wrong => {
            let mut manager = table::manager(luck);
            damage(luck, &mut manager, wrong);
            listener_of(manager)
        }
    }
}

fn chains(matches: &[Value]) -> Value {
    let chain = |(at, matches): (usize, &Value)| {
        let mut chain = chain::saying(&format!("chain {at}"));
        set(&mut chain, "", "filter_chain_match", matches.clone());
        chain
    };
    json!({ "filter_chains": matches.iter().enumerate().map(chain).collect::<Vec<_>>() })
}

#[expect(clippy::too_many_lines, reason = "an arm for each kind of damage")]
fn damage(luck: &mut Luck, manager: &mut Value, wrong: F) {
    const HOST: &str = "/route_config/virtual_hosts/0";
    const ROUTE: &str = "/route_config/virtual_hosts/0/routes/0";
    let level = luck.pick(&["/route_config", HOST, ROUTE]);
    let of = luck.pick(&["request", "response"]);
    let add = format!("{of}_headers_to_add");
    let added = |name: &str, value: &str| json!([{ "header": { "key": name, "value": value } }]);
    match wrong {
        F::RefuseDomainTwice => {
            let domains = luck.pick(&[
                ["two.test", "two.test"],
                ["two.test", "Two.Test"],
                ["*.two", "*.TWO"],
                ["*", "*"],
            ]);
            set(manager, HOST, "domains", json!(domains));
        }
        F::RefuseRegex => {
            let regex = luck.pick(&[
                "(", "[a", "a{2,1}", "*", "a**", "(?<name", "\\", "a{1001}", "[b-a]", "(?=a)",
                "\\1",
            ]);
            set(
                manager,
                ROUTE,
                "match",
                json!({ "safe_regex": { "regex": regex } }),
            );
        }
        F::RefuseEditHost => set(manager, level, &add, added("Host", "a")),
        F::RefuseEditPseudo => set(
            manager,
            level,
            &add,
            added(luck.pick(&[":path", ":authority", ":method"]), "a"),
        ),
        F::RefuseEditName => set(
            manager,
            level,
            &add,
            added(luck.pick(&["", "x\ny", "x\u{0}y"]), "a"),
        ),
        F::RefuseEditFormat => {
            let format = luck.pick(&[
                "%",
                "a%b",
                "%REQ(x-a)",
                "%REQ(%",
                "%NOT_A_COMMAND%",
                "%REQ%",
                "%REQ(x):y%",
                "%PATH(XX)%",
            ]);
            set(manager, level, &add, added("x-a", format));
        }
        F::RefuseNoDomain => set(manager, HOST, "domains", json!([])),
        F::RefuseNoName => set(manager, HOST, "name", json!("")),
        F::RefuseNoAction => set(
            manager,
            HOST,
            "routes",
            json!([{ "match": { "prefix": "/" } }]),
        ),
        F::RefuseNoMatch => set(manager, ROUTE, "match", json!({})),
        F::RefuseWeights => forward(
            manager,
            ROUTE,
            json!({ "weighted_clusters": { "clusters": [{ "name": "red", "weight": 0 }] } }),
        ),
        F::RefuseWeightName => forward(
            manager,
            ROUTE,
            json!({ "weighted_clusters": { "clusters": [{ "weight": 1 }] } }),
        ),
        F::RefuseTwoRewrites => {
            let regex = json!({ "pattern": { "regex": "a" }, "substitution": "b" });
            forward(
                manager,
                ROUTE,
                json!({ "cluster": "red", "prefix_rewrite": "/a", "regex_rewrite": regex }),
            );
        }
        F::RefuseTemplate => {
            let template = luck.pick(&[
                "a", "/{a}/{a}", "/**/a", "/a*", "/{a=b", "/***", "/a//b", "/{1a}", "/{a}{b}", "",
            ]);
            set(
                manager,
                ROUTE,
                "match",
                json!({ "path_match_policy": of_template(template) }),
            );
        }
        F::RefuseTemplateRewrite => {
            set(
                manager,
                ROUTE,
                "match",
                json!({ "path_match_policy": of_template("/{one}") }),
            );
            let config = json!({
                "@type": "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
                "path_template_rewrite": luck.pick(&["/{two}", "one", "/{one", "//", "/{one}}"]),
            });
            let policy = json!({ "name": "template", "typed_config": config });
            forward(
                manager,
                ROUTE,
                json!({ "cluster": "red", "path_rewrite_policy": policy }),
            );
        }
        F::RefuseStatus => answer(
            manager,
            ROUTE,
            json!({ "status": luck.pick(&[0, 99, 199, 600, 1000]) }),
        ),
        F::RefuseBody => {
            let body = json!({ "inline_string": "x".repeat(4096 + luck.below(2)) });
            answer(manager, ROUTE, json!({ "status": 200, "body": body }));
        }
        _ => set(
            manager,
            HOST,
            "domains",
            json!([luck.pick(&["a.*.test", "*a*", "a*.test", "**", "*.*"])]),
        ),
    }
}

fn of_template(template: &str) -> Value {
    let config = json!({
        "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
        "path_template": template,
    });
    json!({ "name": "template", "typed_config": config })
}

/// Makes a route forward, whatever it did.
fn forward(manager: &mut Value, route: &str, action: Value) {
    without_action(manager, route);
    set(manager, route, "route", action);
}

/// Makes a route answer, whatever it did.
fn answer(manager: &mut Value, route: &str, action: Value) {
    without_action(manager, route);
    set(manager, route, "direct_response", action);
}

fn without_action(manager: &mut Value, route: &str) {
    if let Some(fields) = manager.pointer_mut(route).and_then(Value::as_object_mut) {
        for name in ["route", "redirect", "direct_response"] {
            fields.remove(name);
        }
    }
}

fn set(value: &mut Value, at: &str, name: &str, new: Value) {
    if let Some(fields) = value.pointer_mut(at).and_then(Value::as_object_mut) {
        fields.insert(name.to_owned(), new);
    }
}

use nodeway_live::lab::*;
use nodeway_sim::*;
fn main() {
    let mut a = std::env::args().skip(1);
    let fixture = Fixture::load(a.next().unwrap()).unwrap();
    let redirect: Redirect = a.next().unwrap().parse().unwrap();
    let options = LabOptions {
        name: name::LabName::new("try").unwrap(),
        envoy: nodeway_live::envoy::find(None).unwrap(),
        labs: state::Labs::here(),
    };
    let mut lab = Lab::up(&fixture, Some(redirect), options, &mut |w| eprintln!("{w}"))
        .map_err(|e| e.to_string())
        .unwrap();
    if std::env::var_os("SHELL_IN").is_some() {
        let mut l = String::new();
        std::io::stdin().read_line(&mut l).unwrap();
    }
    for spec in &fixture.requests {
        let row = Row::of(spec, redirect, &mut lab).unwrap();
        println!(
            "{} {} -> {:?} {:?} {:?} {:?} {:?} c={:?} p={:?} b={:?} {:?}",
            row.client,
            row.url,
            row.status,
            row.failure,
            row.proxy_node,
            row.route,
            row.pod,
            row.client_saw,
            row.proxy_saw,
            row.backend_saw,
            row.time_ms
        );
        for c in row.expectations.iter().filter(|c| !c.held) {
            println!("   MISS {c:?}");
        }
    }
}
